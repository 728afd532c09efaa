"""Old state_dicts load as they are: keys of the twins, alone and inside a model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.support.twins import twin
from training_losses.balancing import MultiTaskLoss
from training_losses.contrastive import BarlowTwinsLoss, HybridPretrainVICRegLoss, VICRegLoss
from training_losses.multimodal import FeatureConsistencyLoss, MixedContrastiveLoss

Builders = tuple[Callable[[], nn.Module], Callable[[], nn.Module], dict[str, str]]

HEADS = {"input_dim": 4, "projection_dim": 3}
CASES: dict[str, Builders] = {
    "barlow_twins": (
        lambda: twin("barlow_twins_loss.BarlowTwinsLoss")(add_projection=True, **HEADS),
        lambda: BarlowTwinsLoss(final_batch_norm=True, **HEADS),
        {"vision_projection.": "vision_head.layers.", "text_projection.": "text_head.layers."},
    ),
    "mixed": (
        lambda: twin("multimodal_mixed_contrastive_loss.MultiModalMixedContrastiveLoss")(add_projection=True, **HEADS),
        lambda: MixedContrastiveLoss(**HEADS),
        {"vision_projection.": "vision_head.layers.", "text_projection.": "text_head.layers."},
    ),
    "hybrid": (
        lambda: twin("hybrid_pretrain_vicreg_loss.HybridPretrainVICRegLoss")(fusion_dim=3, vision_dim=4, text_dim=4),
        lambda: HybridPretrainVICRegLoss(warmup="damped", **HEADS),
        {
            "contrastive_loss.vision_projection.": "vision_head.layers.",
            "contrastive_loss.text_projection.": "text_head.layers.",
        },
    ),
    "feature_consistency": (
        lambda: twin("feature_consistency_loss.FeatureConsistencyLoss")(nn.Linear(2, 3), nn.BatchNorm1d(3)),
        lambda: FeatureConsistencyLoss(
            reference_vision_model=nn.Linear(2, 3), reference_text_model=nn.BatchNorm1d(3), save_reference=True
        ),
        {"reference_vision_model.": "reference_vision_model."},
    ),
    "multitask": (
        lambda: twin("multitask_loss.MultitaskLoss")({"a": nn.BatchNorm1d(3)}),
        lambda: MultiTaskLoss(tasks={"a": nn.BatchNorm1d(3)}),
        {"loss_functions.": "tasks."},
    ),
    "vicreg": (
        lambda: twin("vicreg_loss.VICRegLoss")(),
        lambda: VICRegLoss(warmup="damped"),
        {},
    ),
}


def renamed(key: str, table: dict[str, str]) -> str:
    for old, new in table.items():
        if key.startswith(old):
            return new + key[len(old) :]
    return key


@pytest.mark.parametrize("case", CASES)
def test_old_keys_load_strictly_under_any_prefix(case: str) -> None:
    make_old, make_new, table = CASES[case]
    torch.manual_seed(0)
    old, alone, inside = make_old(), make_new(), nn.ModuleDict({"model": nn.Linear(2, 2), "loss": make_new()})
    alone.load_state_dict(old.state_dict(), strict=True)
    nested = {f"loss.{key}": value for key, value in old.state_dict().items()}
    nested |= {f"model.{key}": value for key, value in inside["model"].state_dict().items()}
    inside.load_state_dict(nested, strict=True)
    for key, value in old.state_dict().items():
        for loss in (alone, inside["loss"]):
            assert torch.equal(loss.state_dict()[renamed(key, table)], value), key
    # idempotent: the converted state loads again, as it is
    alone.load_state_dict(alone.state_dict(), strict=True)


@pytest.mark.parametrize("case", CASES)
def test_unknown_keys_stay_errors(case: str) -> None:
    make_old, make_new, _ = CASES[case]
    state = {**make_old().state_dict(), "no_such_key": torch.zeros(())}
    with pytest.raises(RuntimeError, match="no_such_key"):
        make_new().load_state_dict(state, strict=True)


@pytest.mark.parametrize("case", ["barlow_twins", "mixed", "multitask"])
def test_missing_keys_stay_errors(case: str) -> None:
    make_old, make_new, _ = CASES[case]
    state = dict(make_old().state_dict())
    del state[next(iter(state))]
    with pytest.raises(RuntimeError, match="Missing key"):
        make_new().load_state_dict(state, strict=True)
