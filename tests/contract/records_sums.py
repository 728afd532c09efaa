"""Sums of named losses: fixed weights, tasks."""

import torch
from torch import nn

from tests.contract.record import Inputs, LossRecord, draw


def two_tasks(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    return {
        "inputs": {"shape": draw(g, dtype, batch, 3), "colour": draw(g, dtype, batch, 2)},
        "targets": {"shape": draw(g, dtype, batch, 3), "colour": draw(g, dtype, batch, 2)},
    }


def regression(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    return {"input": draw(g, dtype, batch, 3), "target": draw(g, dtype, batch, 3)}


def terms() -> dict[str, nn.Module]:
    return {"squared": nn.MSELoss(), "huber": nn.SmoothL1Loss()}


def tasks() -> dict[str, nn.Module]:
    return {"shape": nn.MSELoss(), "colour": nn.SmoothL1Loss()}


NO_ROWS = {
    "empty_batch": "the terms decide what an empty batch is; those of torch give NaN",
    "inputs_of_another_kind_are_named": "the terms decide what they take",
}

RECORDS = [
    LossRecord(
        "weighted_sum",
        regression,
        ("input",),
        kwargs=lambda: {"terms": terms(), "weights": {"huber": 0.5}},
        bad={"terms of different shapes": lambda i: i},
        exempt={**NO_ROWS, "wrong_shapes_are_value_errors": "the terms check their shapes; see tests/unit"},
    ),
    LossRecord(
        "weighted_sum",
        lambda g, dtype, batch: {"x": draw(g, dtype, batch, 3), "y": draw(g, dtype, batch, 3)},
        ("x", "y"),
        variant="renamed",
        kwargs=lambda: {
            "terms": terms(),
            "weights": {"huber": 0},
            "arguments": {name: {"input": "x", "target": "y"} for name in terms()},
        },
        exempt={**NO_ROWS, "wrong_shapes_are_value_errors": "the terms check their shapes; see tests/unit"},
    ),
    LossRecord(
        "multitask",
        two_tasks,
        ("inputs",),
        kwargs=lambda: {"tasks": tasks(), "weights": {"colour": 2.0}},
        bad={"unknown task": lambda i: {**i, "targets": {**i["targets"], "texture": i["targets"]["shape"]}}},
        exempt=NO_ROWS,
    ),
    LossRecord(
        "multitask",
        two_tasks,
        ("inputs",),
        variant="inverse",
        kwargs=lambda: {"tasks": tasks(), "weighting": "inverse_loss"},
        bad={"no common task": lambda i: {**i, "targets": {}}},
        exempt={**NO_ROWS, "gradcheck": "the weights follow the losses and are held constant in the gradient"},
    ),
]
