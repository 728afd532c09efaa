"""Contrastive losses with negatives."""

from __future__ import annotations

from tests.contract.record import LossRecord, two_modalities, two_views

REDUCTIONS = ("mean", "sum", "none")
PAIRS = ("vision_features", "text_features")
BAD_IDS = {
    "one row less": lambda inputs: {**inputs, "text_features": inputs["text_features"][:-1]},
    "one id less": lambda inputs: {**inputs, "match_ids": inputs["match_ids"][:-1]},
    "float ids": lambda inputs: {**inputs, "match_ids": inputs["match_ids"].float()},
    "three dimensions": lambda inputs: {**inputs, **{k: inputs[k][None] for k in PAIRS}},
}

RECORDS = [
    LossRecord("clip", two_modalities(6), grad=PAIRS, reductions=REDUCTIONS),
    LossRecord(
        "clip",
        two_modalities(6, ids="repeated"),
        grad=PAIRS,
        variant="all-options",
        kwargs={
            "learnable_temperature": True,
            "label_smoothing": 0.1,
            "input_dim": 6,
            "projection_dim": 3,
            "metrics": True,
        },
        reductions=REDUCTIONS,
        bad=BAD_IDS,
    ),
    LossRecord("simclr", two_views(6), grad=("z_a", "z_b"), reductions=REDUCTIONS),
    LossRecord(
        "simclr",
        two_views(5, 2),
        grad=("z_a", "z_b"),
        variant="all-options",
        kwargs={"learnable_temperature": True, "input_dim": 5, "projection_dim": 3, "metrics": True},
        reductions=REDUCTIONS,
    ),
    LossRecord(
        "memory_queue",
        two_modalities(6),
        grad=PAIRS,
        kwargs={"embed_dim": 6, "queue_size": 10},
        reductions=REDUCTIONS,
    ),
    LossRecord(
        "memory_queue",
        two_modalities(6, ids="repeated"),
        grad=PAIRS,
        variant="pairs",
        kwargs={
            "input_dim": 6,
            "projection_dim": 3,
            "queue_size": 7,
            "denominator": "own_positive",
            "average": "pairs",
            "learnable_temperature": True,
        },
        reductions=REDUCTIONS,
        # ids 0 0 1 1: every anchor has two positives
        mean_count=lambda inputs: 8,
        bad=BAD_IDS,
    ),
]
