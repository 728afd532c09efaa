"""Joint-embedding prediction losses of hjepa."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.support.parity import GoldenCall, ParityRecord, Sample
from training_losses.functional.counter_random import counter_normal

SYSTEM = "hjepa"
NO_IDS = ("none",)
LEVELS = ((4, 1), (2, 2), (3, 3))
"""Per level: tokens, and width in units of the sample's."""


class Distance(nn.Module):
    """A prediction loss without state, for the classes that are given one."""

    def forward(self, predictions: Any, targets: Any, masks: Any = None) -> dict[str, Tensor]:
        first = predictions[0] - targets[0]
        return {"loss": first.square().mean(), "loss_h0": first.abs().mean(), "loss_unweighted": first.sum()}


def levels(sample: Sample, step: int, count: int = 3, **more: tuple[int, ...]) -> dict[str, Any]:
    """Predictions and targets of ``count`` levels, and further tensors of the given shapes behind the batch."""
    made: dict[str, Any] = {}
    for salt, name in enumerate(("predictions", "targets")):
        made[name] = [
            sample.randn(sample.batch, n, width * sample.dim, salt=100 * step + 10 * salt + i)
            for i, (n, width) in enumerate(LEVELS[:count])
        ]
    for salt, (name, shape) in enumerate(more.items()):
        made[name] = sample.randn(sample.batch, *shape, salt=100 * step + 50 + salt)
    return made


def masked(sample: Sample, step: int) -> dict[str, Any]:
    made = levels(sample, step)
    # gradients of a float32 mask are float32 numbers, and infinite in the old loss where nothing is selected
    last = torch.float32 if sample.dtype == torch.float32 else torch.uint8
    kind = (torch.bool, torch.int64, last)[sample.seed % 3]
    masks: list[Tensor | None] = [
        (sample.randn(sample.batch, n, salt=70 + i) > 0).to(kind) for i, (n, _) in enumerate(LEVELS)
    ]
    for mask in masks:
        if mask is not None and kind == torch.float32:
            mask[0, 0] = 1.0
    masks[sample.seed % 3] = None
    if sample.seed % 2:
        masks = [None if m is None else m.unsqueeze(-1) for m in masks]
    return made | {"masks": masks}


def prediction_kwargs(sample: Sample) -> dict[str, Any]:
    return {
        "loss_type": ("smoothl1", "mse", "huber")[sample.seed % 3],
        "hierarchy_weights": (0.7, [1.0, 0.7, 0.3])[sample.seed // 3 % 2],
        "normalize_embeddings": sample.seed % 5 > 1,
        "huber_delta": 0.6,
        "reduction": ("mean", "sum")[sample.seed // 2 % 2],
        "detach_targets": sample.seed % 7 > 2,
    }


def tensors(call: GoldenCall) -> list[Tensor]:
    found = []
    for value in [*call.args, *call.kwargs.values()]:
        items = value if isinstance(value, list | tuple) else [value]
        found += [item for item in items if isinstance(item, Tensor)]
    return found


def prediction_call(call: GoldenCall) -> bool:
    """Inside the domain: no reduction none, no float64 masks, no zero rows."""
    masks = call.argument("masks", 2)
    given = [] if masks is None else [m for m in masks if m is not None]
    rows = [row for t in tensors(call) if t.dim() == 3 and t.is_floating_point() for row in t.flatten(0, 1)]
    return (
        call.init.get("reduction", "mean") in ("mean", "sum")
        and all(not m.is_floating_point() or call.dtype == torch.float32 for m in given)
        and (not call.init.get("normalize_embeddings", True) or all(row.norm() > 1e-6 for row in rows))
    )


def views(sample: Sample, step: int) -> dict[str, Any]:
    shape = (sample.batch, sample.dim) if sample.seed % 2 else (sample.batch, 3, sample.dim)
    return {"z_a": sample.randn(*shape, salt=step), "z_b": sample.randn(*shape, salt=step + 50)}


def one_view(sample: Sample, step: int) -> dict[str, Any]:
    return {"z_a": sample.randn(2 * sample.batch, 2, sample.dim + 1, salt=step)}


def wide(sample: Sample, step: int) -> dict[str, Any]:
    """Two views with at least two columns."""
    made = views(sample, step)
    return {name: torch.cat([z, z.flip(-1) + 0.5 * z.roll(1, 0)], dim=-1) for name, z in made.items()}


def vicreg_kwargs(sample: Sample) -> dict[str, Any]:
    return {
        "invariance_weight": 3.0,
        "covariance_weight": 2.0,
        "variance_threshold": (1.0, 1.7)[sample.seed % 2],
        "eps": (1e-4, 1e-2)[sample.seed // 2 % 2],
        "flatten_patches": sample.seed % 3 > 0,
    }


def enough_rows(call: GoldenCall) -> bool:
    """Inside the domain of VICReg: two rows per view and two columns."""
    z = tensors(call)[0]
    halved = len(tensors(call)) == 1
    flat = call.init.get("flatten_patches", True) and z.dim() == 3
    rows = z.shape[0] // (2 if halved else 1) * (z.shape[1] if flat else 1)
    return rows > 1 and z.shape[-1] > 1


def adaptive(sample: Sample) -> dict[str, Any]:
    return vicreg_kwargs(sample) | {"adaptive_weights": True}


def combined_kwargs(sample: Sample) -> dict[str, Any]:
    return {
        "jepa_loss_type": ("smoothl1", "mse", "huber")[sample.seed % 3],
        "jepa_hierarchy_weights": [1.0, 0.7, 0.3],
        "vicreg_weight": (0.25, [0.5, 0.25, 0.125])[sample.seed % 2],
        "vicreg_invariance_weight": 7.0,
        "vicreg_variance_threshold": 1.2,
        "reduction": ("mean", "sum")[sample.seed // 2 % 2],
        "normalize_embeddings": sample.seed % 5 > 1,
    }


def hierarchical_kwargs(sample: Sample) -> dict[str, Any]:
    made = combined_kwargs(sample)
    return {k: made[k] for k in ("jepa_loss_type", "jepa_hierarchy_weights", "vicreg_weight", "normalize_embeddings")}


def per_level_kwargs(sample: Sample) -> dict[str, Any]:
    configs = [{}, {"variance_weight": 5.0, "variance_threshold": 0.5}, {"eps": 1e-3, "covariance_weight": 4.0}]
    return hierarchical_kwargs(sample) | {"vicreg_configs": configs}


def at_least_two_columns(sample: Sample, step: int) -> dict[str, Any]:
    return levels(Sample(sample.batch, sample.dim + 1, *_rest(sample)), step)


def _rest(sample: Sample) -> tuple[Any, ...]:
    return sample.ids, sample.dtype, sample.train, sample.seed


def with_context(sample: Sample, step: int) -> dict[str, Any]:
    made = Sample(sample.batch, sample.dim + 1, *_rest(sample))
    shape = (made.dim,) if sample.seed % 2 else (3, made.dim)
    return levels(made, step, context_features=shape)


def combined_call(call: GoldenCall) -> bool:
    """Inside the domain: two rows per half, weights exact in float32, default eps."""
    p = call.argument("predictions", 0)
    first = p if isinstance(p, Tensor) else p[0]
    context = call.argument("context_features", 3)
    switches = [call.init.get(k, d) for k, d in (("apply_vicreg_per_level", True), ("vicreg_on_targets", False))]
    exact = call.dtype == torch.float32 or (context is None and switches[0])
    return (
        first.shape[0] > 1
        and "eps" not in call.init
        and exact
        and not switches[1]
        and (context is None or (switches[0] and context.shape[0] > 1))
    )


def sigreg_kwargs(sample: Sample) -> dict[str, Any]:
    return {
        "num_slices": 5,
        "invariance_weight": 3.0,
        "sigreg_weight": 2.0,
        "flatten_patches": sample.seed % 3 > 0,
        "fixed_slices": True,
        "vectorized": sample.seed % 2 > 0,
        "test_method": ("reference_points", "char_function")[sample.seed // 2 % 2],
    }


def same_directions(twin: Any, sample: Sample) -> None:
    """Put the directions that the new loss will draw into the twin's cache."""
    flat = sample.seed % 2 or sample.seed % 3 > 0
    width = sample.dim if flat else 3 * sample.dim
    drawn = counter_normal(5, width, seed=0, step=torch.tensor(0), dtype=sample.dtype)
    twin._fixed_random_slices = F.normalize(drawn, dim=1)


def nt_xent_inputs(sample: Sample, step: int) -> dict[str, Any]:
    made = views(sample, step)
    return {"z_i": made["z_a"], "z_j": made["z_b"]}


def no_ties(call: GoldenCall) -> bool:
    """Inside the domain: at least two rows that differ."""
    z = call.argument("z_i", 0)
    same_shape = z.shape == call.argument("z_j", 1).shape
    return same_shape and z.dim() in (2, 3) and z.shape[0] > 1 and bool((z != z[:1]).any())


def nt_xent_kwargs(sample: Sample) -> dict[str, Any]:
    return {
        "temperature": (0.1, 0.5)[sample.seed % 2],
        "use_cosine_similarity": sample.dim > 8 or sample.seed % 3 > 0,
        "reduction": ("mean", "sum", "none")[sample.seed % 3],
    }


def contrast_inputs(sample: Sample, step: int) -> dict[str, Any]:
    dim = sample.dim + 2
    shapes = {f"{name}_features_{v}": (3, dim) for name in ("context", "target") for v in "ij"}
    return levels(sample, step, 1, **shapes)


def contrast_kwargs(sample: Sample) -> dict[str, Any]:
    return {
        "jepa_loss": Distance(),
        "jepa_weight": 0.7,
        "contrastive_weight": 0.3,
        "contrastive_temperature": 0.2,
        "contrastive_on_context": sample.seed % 2 > 0,
        "reduction": ("mean", "sum")[sample.seed // 2 % 2],
    }


def record(symbol: str, **kwargs: Any) -> ParityRecord:
    return ParityRecord(symbol, system=SYSTEM, ids=NO_IDS, **kwargs)


RECORDS = [
    record("hjepa_loss.HJEPALoss", inputs=levels, kwargs=prediction_kwargs, golden=prediction_call),
    record("hjepa_loss.HJEPALoss", variant="masked", inputs=masked, kwargs=prediction_kwargs),
    record("vicreg.VICRegLoss", inputs=wide, kwargs=vicreg_kwargs, golden=enough_rows, batch=(2, 17)),
    record("vicreg.VICRegLoss", variant="halves", inputs=one_view, batch=(2, 9)),
    record("vicreg.AdaptiveVICRegLoss", inputs=wide, kwargs=adaptive, golden=enough_rows, batch=(2, 17)),
    record("vicreg.AdaptiveVICRegLoss", variant="fixed", inputs=wide, kwargs=vicreg_kwargs, batch=(2, 17)),
    record("sigreg.SIGRegLoss", inputs=views, kwargs=sigreg_kwargs, prepare=same_directions, batch=(2, 17)),
    record("contrastive.NTXentLoss", inputs=nt_xent_inputs, kwargs=nt_xent_kwargs, golden=no_ties),
    record("contrastive.ContrastiveJEPALoss", inputs=contrast_inputs, kwargs=contrast_kwargs, batch=(2, 17)),
    record(
        "combined.CombinedLoss",
        inputs=at_least_two_columns,
        kwargs=combined_kwargs,
        golden=combined_call,
        batch=(2, 17),
    ),
    record("combined.CombinedLoss", variant="context", inputs=with_context, kwargs=combined_kwargs, batch=(4, 17)),
    record(
        "combined.CombinedLoss",
        variant="last_level",
        inputs=at_least_two_columns,
        kwargs=lambda s: combined_kwargs(s) | {"apply_vicreg_per_level": False},
        batch=(2, 17),
    ),
    record(
        "combined.HierarchicalCombinedLoss",
        inputs=at_least_two_columns,
        kwargs=hierarchical_kwargs,
        golden=combined_call,
        batch=(2, 17),
    ),
    record(
        "combined.HierarchicalCombinedLoss",
        variant="per_level",
        inputs=at_least_two_columns,
        kwargs=per_level_kwargs,
        batch=(2, 17),
    ),
]
