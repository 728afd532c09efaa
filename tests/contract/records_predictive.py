"""Joint-embedding prediction: HJEPALoss, its combinations, SIGReg."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.contract.record import InputBuilder, Inputs, LossRecord, draw, two_views

GRAD = ("predictions", "targets")


def levels(*shapes: tuple[int, int], masks: bool = False, **more: Any) -> InputBuilder:
    """Predictions and targets for levels of ``(tokens, width)``; ``more``: features, name -> shape behind the batch."""

    def build(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
        made: Inputs = {
            name: [draw(g, dtype, batch, tokens, width) for tokens, width in shapes]
            for name in ("predictions", "targets")
        }
        if masks:
            made["masks"] = [torch.arange(batch * n).reshape(batch, n) % 3 != 0 for n, _ in shapes]
        return made | {name: draw(g, dtype, batch, *shape) for name, shape in more.items()}

    return build


def fewer_targets(inputs: Inputs) -> Inputs:
    return {**inputs, "targets": inputs["targets"][:-1]}


def shorter_target(inputs: Inputs) -> Inputs:
    return {**inputs, "targets": [inputs["targets"][0][:, :-1], *inputs["targets"][1:]]}


BAD: dict[str, Callable[[Inputs], Inputs]] = {"levels": fewer_targets, "shape": shorter_target}


def move(loss: nn.Module, step: int) -> None:
    loss.step_schedule(step)


def curriculum() -> dict[str, Any]:
    from training_losses.base.schedules import Curriculum

    return {"schedules": {"hierarchy_weights": Curriculum(weights=[1.0, 0.5], starts=[0, 1], length=4)}}


def ramp(name: str) -> Callable[[], dict[str, Any]]:
    return lambda: {"schedules": {name: {"type": "cosine_ramp", "start": 0.1, "end": 1.0, "length": 3}}}


def sigreg_on_last_level() -> dict[str, Any]:
    from training_losses.predictive import SIGRegLoss

    return {"regularizer": SIGRegLoss(num_slices=8), "regularize": -1, "regularizer_weight": [0.1, 0.2]}


def later_tokens(inputs: Inputs, bad: float) -> Inputs:
    """Pooling takes the first token."""
    names = ("context_features_a", "context_features_b")
    return {name: (torch.arange(3) > 0)[:, None].expand_as(inputs[name]) for name in names}


REDUCTIONS = ("mean", "sum")

RECORDS = [
    LossRecord(
        "hjepa",
        levels((3, 2), (3, 2)),
        ("predictions",),
        reductions=("mean", "sum", "none"),
        mean_count=lambda inputs: inputs["predictions"][0].numel(),
        bad=BAD,
    ),
    LossRecord(
        "hjepa",
        levels((3, 2), (2, 3), masks=True),
        GRAD,
        variant="masked",
        kwargs={
            "loss_type": "huber",
            "huber_delta": 0.5,
            "hierarchy_weights": [1.0, 0.5],
            "detach_targets": False,
            "normalize_embeddings": False,
        },
        reductions=("mean", "sum"),
        bad=BAD,
    ),
    LossRecord(
        "hjepa",
        levels((3, 2), (2, 3)),
        ("predictions",),
        variant="curriculum",
        kwargs=curriculum,
        advance=move,
        reductions=("mean", "sum"),
        bad=BAD,
    ),
    LossRecord(
        "hjepa_combined",
        levels((3, 2), (2, 3)),
        ("predictions",),
        reductions=REDUCTIONS,
        bad=BAD,
    ),
    LossRecord(
        "hjepa_combined",
        levels((3, 2), (2, 3), context_features=(3, 4)),
        ("predictions", "context_features"),
        variant="context_halves",
        kwargs={"regularize": "context", "views": "halves", "vicreg_view_reduction": "mean"},
        reductions=REDUCTIONS,
        bad=BAD,
        single="error",
    ),
    LossRecord(
        "hjepa_combined",
        levels((3, 2), (2, 3)),
        ("predictions",),
        variant="sigreg",
        kwargs=sigreg_on_last_level,
        reductions=REDUCTIONS,
        bad=BAD,
    ),
    LossRecord(
        "hjepa_combined",
        levels((3, 2), (2, 2)),
        ("predictions",),
        variant="vicreg_per_level",
        kwargs={
            "views": "target_prediction",
            "vicreg_configs": [{}, {"variance_threshold": 0.5, "chunk_size": 1}],
            "schedules": {"regularizer_weight": {"type": "linear_ramp", "start": 0.1, "end": 1.0, "length": 3}},
        },
        advance=move,
        reductions=REDUCTIONS,
        bad=BAD,
    ),
    LossRecord(
        "contrastive_jepa",
        levels((3, 2), (2, 3)),
        ("predictions",),
        kwargs={"metrics": True},
        reductions=REDUCTIONS,
        bad=BAD,
    ),
    LossRecord(
        "contrastive_jepa",
        levels((3, 2), context_features_a=(3, 4), context_features_b=(3, 4)),
        ("predictions", "context_features_a", "context_features_b"),
        variant="context",
        kwargs=ramp("contrastive_weight"),
        idle=later_tokens,
        advance=move,
        reductions=REDUCTIONS,
        bad={"shape": shorter_target},
    ),
    LossRecord("sigreg", two_views(3), ("z_a", "z_b"), kwargs={"num_slices": 8, "invariance_weight": 2.0}),
    LossRecord(
        "sigreg",
        two_views(3, 2),
        ("z_a", "z_b"),
        variant="reference_points",
        kwargs={
            "num_slices": 4,
            "test_method": "reference_points",
            "standardize": True,
            "chunk_size": 2,
            "shared_directions": False,
            "fixed_slices": True,
            "schedules": {"sigreg_weight": {"type": "linear_ramp", "start": 0.5, "end": 1.0, "length": 3}},
        },
        advance=move,
        single="finite",
    ),
    LossRecord(
        "cross_modal_vicreg",
        lambda g, dtype, batch: {
            "vision_features": draw(g, dtype, batch, 3),
            "text_features": draw(g, dtype, batch, 5),
        },
        ("vision_features", "text_features"),
        kwargs={"vision_dim": 3, "text_dim": 5, "projection_dim": 4, "projection_layers": 2},
        single="error",
        half_atol=2e-2,
    ),
]
