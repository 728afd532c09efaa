"""Image-text losses of several terms, and feature consistency."""

import torch
from torch import nn

from tests.contract.record import Inputs, LossRecord, draw, two_modalities

PAIR = ("vision_features", "text_features")


def labelled(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    return {**two_modalities(5, ids="repeated")(g, dtype, batch), "labels": torch.arange(batch) % 3}


def three_tasks(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    return {
        **two_modalities(5, ids="repeated")(g, dtype, batch),
        "class_logits": draw(g, dtype, batch, 3),
        "class_labels": torch.arange(batch) % 3,
        "matching_logits": draw(g, dtype, batch),
        "matching_labels": torch.arange(batch) % 2,
        "hard_negatives": {"vision": draw(g, dtype, 3, 5), "text": draw(g, dtype, 2, 5)},
    }


def ruled_out(inputs: Inputs, bad: float) -> Inputs:
    """A class of logit -inf is ruled out; that is an error only where it is the right one."""
    others = ~nn.functional.one_hot(inputs["class_labels"], inputs["class_logits"].shape[1]).bool()
    return {"class_logits": others} if bad == -torch.inf else {}


def against_reference(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    made = {name: draw(g, dtype, batch, 4) for name in PAIR}
    return made | {f"reference_{name}": draw(g, dtype, batch, 4) for name in PAIR}


def through_model(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    return {"vision_features": draw(g, dtype, batch, 4), "vision_inputs": draw(g, dtype, batch, 3)}


RECORDS = [
    LossRecord("mixed_contrastive", two_modalities(5), PAIR, reductions=("mean", "sum")),
    LossRecord(
        "mixed_contrastive",
        labelled,
        PAIR,
        variant="labels",
        kwargs={"input_dim": 5, "projection_dim": 3, "metrics": True, "reduction": "sum"},
        reductions=("mean", "sum"),
    ),
    LossRecord("image_text_multitask", two_modalities(5), PAIR),
    LossRecord(
        "image_text_multitask",
        three_tasks,
        (*PAIR, "class_logits", "matching_logits", "hard_negatives"),
        variant="all",
        may_be_integers=("matching_labels",),
        kwargs={
            "classification_weight": 0.5,
            "matching_weight": 0.2,
            "hard_negative_weight": 0.3,
            "metrics": True,
        },
        idle=ruled_out,
    ),
    *(
        LossRecord(
            "feature_consistency",
            against_reference,
            PAIR,
            variant="" if distance == "cosine" else distance,
            kwargs={"distance": distance, "normalize": distance == "cosine", "text_weight": 0.5},
            reductions=("mean", "sum", "none"),
        )
        for distance in ("cosine", "neg_dot", "l2", "l1", "smooth_l1")
    ),
    LossRecord(
        "feature_consistency",
        through_model,
        ("vision_features",),
        variant="model",
        kwargs=lambda: {"reference_vision_model": nn.Linear(3, 4)},
        reductions=("mean", "sum", "none"),
        exempt={
            "inputs_of_another_kind_are_named": "the reference model decides what it takes",
            "float64_beside_float32_is_right_or_named": "the reference model decides what it takes",
            "built_on_the_meta_device": "the reference model stands beside the state, and its values with it",
        },
    ),
]
