"""Contract records of ``training_losses.temporal``."""

from __future__ import annotations

import torch

from tests.contract.record import Inputs, LossRecord, draw


def sequences(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    """Logits [B, 3, 4]; one label of each sample is void."""
    targets = torch.arange(batch * 3).view(batch, 3) % 4
    targets[:, 0] = -1
    return {"logits": draw(g, dtype, batch, 3, 4), "targets": targets}


def no_labels(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    inputs = sequences(g, dtype, batch)
    return {**inputs, "targets": torch.full_like(inputs["targets"], -1)}


def rows(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    return {name: x.flatten(0, 1) for name, x in sequences(g, dtype, batch).items()}


def activations(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    """A convolution that ran three times and a linear layer that ran once."""
    steps = [draw(g, dtype, batch, 2, 2, 2) for _ in range(3)]
    return {"activations": {"conv": steps, "fc": draw(g, dtype, batch, 3)}}


def valid_labels(inputs: Inputs) -> float:
    return float((inputs["targets"] != -1).sum())


def void(inputs: Inputs, bad: float) -> Inputs:
    """Logits of void labels."""
    return {"logits": (inputs["targets"] == -1).unsqueeze(-1).expand_as(inputs["logits"])}


def void_or_ruled_out(inputs: Inputs, bad: float) -> Inputs:
    """Without label smoothing a class of logit -inf counts only where it is the right one."""
    right = torch.nn.functional.one_hot(inputs["targets"].clamp(min=0), 4).bool()
    return {"logits": void(inputs, bad)["logits"] | (~right if bad == -torch.inf else False)}


REDUCTIONS = ("mean", "sum", "none")
BAD = {
    "targets of another length": lambda inputs: {**inputs, "targets": inputs["targets"][:, 1:]},
    "floating targets": lambda inputs: {**inputs, "targets": inputs["targets"].float()},
    "a label that is no class": lambda inputs: {**inputs, "targets": inputs["targets"] + 4},
    "integer logits": lambda inputs: {**inputs, "logits": inputs["logits"].long()},
    "a count of nothing": lambda inputs: {**inputs, "normalizer": 0},
}


def energy(variant: str = "", **kwargs: object) -> LossRecord:
    return LossRecord(
        "energy",
        activations,
        grad=("activations",),
        variant=variant,
        kwargs=kwargs,
        empty="finite",
        reductions=REDUCTIONS,
        bad={
            "no module": lambda inputs: {"activations": {}},
            "no step": lambda inputs: {"activations": {"conv": []}},
            "integers": lambda inputs: {"activations": {"conv": torch.ones(2, 3, dtype=torch.long)}},
            "not attached": lambda inputs: {},
        },
    )


RECORDS = [
    LossRecord(
        "temporal_cross_entropy",
        sequences,
        grad=("logits",),
        empty="finite",
        reductions=REDUCTIONS,
        mean_count=valid_labels,
        bad=BAD,
        idle=void_or_ruled_out,
    ),
    LossRecord(
        "temporal_cross_entropy",
        rows,
        grad=("logits",),
        variant="flat",
        kwargs={"label_smoothing": 0.1, "class_weights": (1.0, 2.0, 0.5, 0.0)},
        empty="finite",
        reductions=REDUCTIONS,
        mean_count=valid_labels,
        idle=void,
    ),
    LossRecord(
        "temporal_cross_entropy",
        no_labels,
        grad=("logits",),
        variant="all void",
        kwargs={"weight_normalization": "weights"},
        empty="finite",
        reductions=REDUCTIONS,
        mean_count=lambda inputs: 1.0,
        idle=void,
    ),
    energy(),
    energy("order 2", order=2),
    energy("largest unit", order=float("inf")),
    energy("signed", mode="signed"),
    energy("mixed", select={"conv": "signed", "fc": "absolute"}),
]
