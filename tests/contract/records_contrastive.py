"""Contrastive losses with negatives."""

from __future__ import annotations

import torch

from tests.contract.record import InputBuilder, Inputs, LossRecord, draw, two_modalities, two_views

REDUCTIONS = ("mean", "sum", "none")
PAIRS = ("vision_features", "text_features")
BAD_IDS = {
    "one row less": lambda inputs: {**inputs, "text_features": inputs["text_features"][:-1]},
    "one id less": lambda inputs: {**inputs, "match_ids": inputs["match_ids"][:-1]},
    "float ids": lambda inputs: {**inputs, "match_ids": inputs["match_ids"].float()},
    "three dimensions": lambda inputs: {**inputs, **{k: inputs[k][None] for k in PAIRS}},
}


def queries_and_keys(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    names = (*PAIRS, "vision_keys", "text_keys")
    return {name: draw(g, dtype, batch, 6) for name in names} | {"match_ids": torch.arange(batch) // 2}


def labelled(*, multi_label: bool = False, class_weights: bool = False) -> InputBuilder:
    def build(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
        made: Inputs = {name: draw(g, dtype, batch, 6) for name in PAIRS}
        label = torch.arange(batch) // 2 % 3
        made["labels"] = torch.nn.functional.one_hot(label, 3) | torch.tensor([0, 1, 0]) if multi_label else label
        if class_weights:
            made["class_weights"] = torch.tensor([0.5, 1.0, 2.0], dtype=dtype)
        return made

    return build


def lone(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    """All samples but the last two have a label of their own, so that most anchors have no positive."""
    return labelled()(g, dtype, batch) | {"labels": torch.arange(batch).clamp(max=max(batch - 2, 0))}


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
    LossRecord(
        "moco",
        queries_and_keys,
        grad=PAIRS,
        kwargs={"embed_dim": 6, "queue_size": 10},
        reductions=REDUCTIONS,
    ),
    LossRecord(
        "moco",
        queries_and_keys,
        grad=PAIRS,
        variant="all-options",
        kwargs={
            "embed_dim": 6,
            "queue_size": 7,
            "in_batch_negatives": True,
            "enqueue_before_logits": True,
            "learnable_temperature": True,
            "metrics": True,
        },
        reductions=REDUCTIONS,
    ),
    LossRecord("hard_negative", two_modalities(6), grad=PAIRS, reductions=REDUCTIONS),
    *(
        LossRecord(
            "hard_negative",
            two_modalities(6, ids="repeated"),
            grad=PAIRS,
            variant=mining,
            kwargs={"mining": mining, "learnable_temperature": True},
            reductions=REDUCTIONS,
            mean_count=lambda inputs: 8,
            bad=BAD_IDS,
        )
        for mining in ("hard", "percentile")
    ),
    LossRecord(
        "dynamic_temperature",
        two_modalities(6),
        grad=PAIRS,
        reductions=REDUCTIONS,
        exempt={"gradcheck": "the temperature is a constant for the gradient; the other variant is checked"},
    ),
    LossRecord(
        "dynamic_temperature",
        two_modalities(6, ids="repeated"),
        grad=PAIRS,
        variant="through-temperature",
        kwargs={"include_paired": False, "detach_temperature": False, "max_temperature": 1.0, "min_temperature": 1e-3},
        reductions=REDUCTIONS,
        mean_count=lambda inputs: 8,
        bad=BAD_IDS,
    ),
    LossRecord("intra_inter_modal", two_modalities(6), grad=PAIRS, reductions=REDUCTIONS),
    LossRecord(
        "intra_inter_modal",
        two_modalities(6, ids="repeated"),
        grad=PAIRS,
        variant="same-id",
        kwargs={
            "positives": "per_pair",
            "intra_positives": "same_id",
            "learnable_temperature": True,
            "metrics": True,
        },
        reductions=REDUCTIONS,
        bad=BAD_IDS,
        exempt={"reductions_agree": "with mean each part is divided by its own number of terms, here 8 and 4"},
    ),
    LossRecord("dcl", two_views(6), grad=("z_a", "z_b"), reductions=REDUCTIONS),
    LossRecord(
        "dcl",
        two_views(6),
        grad=("z_a", "z_b"),
        variant="weighted",
        kwargs={"sigma": 0.5, "learnable_temperature": True},
        reductions=REDUCTIONS,
        exempt={"gradcheck": "the weights of DCLW are constants for the gradient, as in the paper"},
    ),
    LossRecord("info_nce", two_modalities(6), grad=PAIRS, reductions=REDUCTIONS),
    LossRecord(
        "info_nce",
        two_modalities(6, ids="repeated"),
        grad=PAIRS,
        variant="all-options",
        kwargs={
            "denominator": "own_positive",
            "alignment": "mse",
            "alignment_weight": 0.5,
            "learnable_temperature": True,
            "metrics": True,
        },
        reductions=REDUCTIONS,
        bad=BAD_IDS,
    ),
    LossRecord("supcon", labelled(), grad=PAIRS, reductions=REDUCTIONS),
    LossRecord(
        "supcon",
        labelled(),
        grad=PAIRS,
        variant="joint",
        kwargs={"contrast_mode": "joint", "input_dim": 6, "projection_dim": 3, "metrics": True},
        reductions=REDUCTIONS,
    ),
    LossRecord(
        "supcon",
        lone,
        grad=PAIRS,
        variant="lone",
        kwargs={"contrast_mode": "intra"},
        reductions=REDUCTIONS,
        mean_count=lambda inputs: 2,
    ),
    LossRecord(
        "supcon",
        lone,
        grad=PAIRS,
        variant="lone-joint",
        kwargs={"contrast_mode": "joint"},
        reductions=REDUCTIONS,
        mean_count=lambda inputs: 8,
    ),
    LossRecord(
        "supcon",
        labelled(multi_label=True, class_weights=True),
        grad=PAIRS,
        variant="multi-label",
        may_be_integers=("class_weights",),
        kwargs={"base_temperature": 0.1, "learnable_temperature": True, "metrics": True},
        reductions=REDUCTIONS,
        bad={
            "too many labels": lambda inputs: {**inputs, "labels": inputs["labels"].repeat(2, 1)},
            "too few weights": lambda inputs: {**inputs, "class_weights": inputs["class_weights"][:-1]},
        },
    ),
    LossRecord(
        "supcon",
        labelled(),
        grad=PAIRS,
        variant="epsilon",
        kwargs={"log_epsilon": 1e-8, "include_paired": False},
        reductions=REDUCTIONS,
        exempt={"gradcheck": "the largest entry of the row, which the epsilon is relative to, is a constant"},
    ),
]
