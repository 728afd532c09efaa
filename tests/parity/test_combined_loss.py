"""CombinedLoss against WeightedSumLoss on the recorded calls: its positions became names, so no call translates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.golden import Case, Run, load_cases
from tests.support.twins import twin
from training_losses.balancing.weighted_sum import WeightedSumLoss
from training_losses.migration.catalog import builtin_catalog
from training_losses.migration.state import convert_state

POSITIONS = ("primary", "secondary", "tertiary")
INSIDE = [
    "eval_mode_f64",
    "primary_only_f64",
    "tertiary_without_secondary_f64",
    "three_losses_f32",
    "three_losses_weights_f64",
    "two_losses_f64",
]
CASES = [c for c in load_cases("multimodal_insight", "combined_loss") if c.data["case"] in INSIDE]


def build(case: Case) -> tuple[nn.Module, WeightedSumLoss]:
    init = Run(case).decode(case.data["init"])
    terms = {name: init[f"{name}_loss"] for name in POSITIONS if init.get(f"{name}_loss") is not None}
    weights = {"secondary": init.get("secondary_loss_weight", 0.5), "tertiary": init.get("tertiary_loss_weight", 0.3)}
    new = WeightedSumLoss(
        terms=terms, weights={k: w for k, w in weights.items() if k in terms}, evaluate_zero_weight=True
    )
    return twin("combined_loss.CombinedLoss")(**init), new


@pytest.mark.parametrize("case", CASES, ids=lambda c: str(c.data["case"]))
def test_recorded_calls(case: Case) -> None:
    old, new = (loss.to(getattr(torch, case.data["dtype"])) for loss in build(case))
    tight = 1e-10 if case.data["dtype"] == "float64" else 2e-5
    compared = 0
    for call in case.calls:
        if "method" in call:
            continue
        kwargs = case.decode(call.get("kwargs", {}))
        args = [a.requires_grad_() if isinstance(a, Tensor) else a for a in case.decode(call["args"])]
        want, got = old(*args, **kwargs), new(*args, **kwargs)
        torch.testing.assert_close(got.loss, want["loss"], rtol=tight, atol=tight)
        grads: list[Any] = [torch.autograd.grad(o["loss"], args) for o in (got, want)]
        torch.testing.assert_close(*grads, rtol=tight, atol=tight)
        for name in new.terms:
            assert float(got[f"terms.{name}"]) == pytest.approx(want[f"{name}_loss"], abs=tight)
        compared += 1
    assert compared


def test_all_cases_inside_the_domain_are_there() -> None:
    assert len(CASES) == len(INSIDE)


def test_state_converts() -> None:
    (row,) = builtin_catalog().find("combined_loss.CombinedLoss")
    old = twin("combined_loss.CombinedLoss")(nn.BatchNorm1d(3), nn.BatchNorm1d(3, affine=False))
    old.primary_loss(torch.randn(4, 3))
    new = WeightedSumLoss(terms={"primary": nn.BatchNorm1d(3), "secondary": nn.BatchNorm1d(3, affine=False)})
    new.load_state_dict(convert_state(row.cases[0], old.state_dict()))
    assert torch.equal(new.terms["primary"].running_mean, old.primary_loss.running_mean)
    new.load_state_dict(old.state_dict())
