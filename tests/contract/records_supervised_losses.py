"""Cross entropy and squared error."""

import torch

from tests.contract.record import Inputs, LossRecord, draw


def classes(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    target = torch.arange(batch) % 4
    return {"logits": draw(g, dtype, batch, 4), "target": target}


def dense(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    target = torch.arange(3 * batch).view(batch, 3) % 4
    target[:, 0] = -100
    return {"logits": draw(g, dtype, batch, 4, 3), "target": target, "sample_weight": torch.linspace(0.5, 2.0, batch)}


def ignored(inputs: Inputs, bad: float) -> Inputs:
    """Logits whose target is ignored."""
    return {"logits": (inputs["target"] == -100).unsqueeze(1).expand_as(inputs["logits"])}


def ignored_or_ruled_out(inputs: Inputs, bad: float) -> Inputs:
    """Without label smoothing a class of logit -inf counts only where it is the right one."""
    right = torch.nn.functional.one_hot(inputs["target"].clamp(min=0), 4).movedim(-1, 1).bool()
    idle = ignored(inputs, bad)["logits"]
    return {"logits": idle | ~right if bad == -torch.inf else idle}


def regression(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    weights = torch.linspace(0.5, 2.0, batch)
    return {"prediction": draw(g, dtype, batch, 3), "target": draw(g, dtype, batch, 3), "sample_weight": weights}


ALL = ("mean", "sum", "none")

RECORDS = [
    LossRecord("cross_entropy", classes, ("logits",), reductions=ALL, empty="finite"),
    LossRecord(
        "cross_entropy",
        dense,
        ("logits",),
        variant="dense",
        may_be_integers=("sample_weight",),
        kwargs={"class_weights": [1.0, 0.0, 2.0, 0.5]},
        reductions=ALL,
        mean_count=lambda i: float(
            (torch.tensor([1.0, 0.0, 2.0, 0.5])[i["target"][:, 1:]] * i["sample_weight"][:, None]).sum()
        ),
        empty="finite",
        idle=ignored,
    ),
    LossRecord(
        "cross_entropy",
        dense,
        ("logits",),
        variant="elements",
        may_be_integers=("sample_weight",),
        kwargs={"mean_over": "elements", "label_smoothing": 0.0},
        reductions=ALL,
        empty="finite",
        idle=ignored_or_ruled_out,
    ),
    LossRecord(
        "mse",
        regression,
        ("prediction", "target"),
        reductions=ALL,
        empty="finite",
        may_be_integers=("target", "sample_weight"),
    ),
    LossRecord(
        "mse",
        regression,
        ("prediction", "target"),
        variant="bounded",
        kwargs={"max_value": 1e8},
        reductions=ALL,
        empty="finite",
        may_be_integers=("target", "sample_weight"),
    ),
]
