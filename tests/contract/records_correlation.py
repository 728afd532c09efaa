"""Losses on correlations: Barlow Twins, decorrelation, and contrastive pre-training before VICReg."""

import torch
from torch import nn

from tests.contract.record import Inputs, LossRecord, two_modalities, two_views

PAIR = ("vision_features", "text_features")


def hand_over(loss: nn.Module, step: int) -> None:
    loss.update_epoch(step // 2)
    loss.update_step(step, 10)


def with_ids(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    made = two_modalities(5, ids="repeated")(g, dtype, batch)
    return {"z_a": made["vision_features"], "z_b": made["text_features"], "match_ids": made["match_ids"]}


RECORDS = [
    LossRecord("barlow_twins", two_modalities(5), PAIR, single="error"),
    LossRecord(
        "barlow_twins",
        two_modalities(5),
        PAIR,
        variant="heads",
        kwargs={
            "standardize": False,
            "normalize": True,
            "matrix_reduction": "mean",
            "input_dim": 5,
            "projection_dim": 4,
            "final_batch_norm": True,
        },
        single="error",
        exempt={
            "works_without_gradients_in_eval_mode": "batch norm has no statistics before its first training step",
            "zero_vectors": "batch norm maps equal rows to the same output; row normalisation has no direction there",
        },
    ),
    LossRecord(
        "barlow_twins", two_modalities(5), PAIR, variant="within", kwargs={"correlation": "within"}, single="error"
    ),
    LossRecord(
        "decorrelation",
        two_modalities(5),
        PAIR,
        single="error",
        bad={"one dimension": lambda i: {"features": i[PAIR[0]][0]}},
    ),
    LossRecord(
        "decorrelation",
        two_modalities(3),
        PAIR,
        variant="correlation",
        kwargs={"correlation": True, "normalize": True, "track_statistics": True, "covariance_norm": "pairs"},
        single="error",
        bad={"nothing": lambda i: {}},
    ),
    LossRecord("hybrid_pretrain_vicreg", two_views(5), ("z_a", "z_b"), single="error", advance=hand_over),
    LossRecord(
        "hybrid_pretrain_vicreg",
        with_ids,
        ("z_a", "z_b"),
        variant="heads",
        kwargs={
            "input_dim": 5,
            "projection_dim": 3,
            "normalize_input": True,
            "project_vicreg": False,
            "metrics": True,
            "pretrain_steps": 1,
            "transition_steps": 4,
            "warmup": "damped",
        },
        single="error",
        advance=hand_over,
    ),
]
