"""MultiTaskLoss: weights as given, running losses that are state."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from tests.support.twins import twin
from training_losses.balancing.multitask import MultiTaskLoss
from training_losses.contrastive.vicreg import VICRegLoss


def batch(seed: int, dtype: torch.dtype = torch.float64) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    made = [{n: torch.randn(4, 3, generator=g, dtype=torch.float64).to(dtype) for n in ("x", "y")} for _ in range(2)]
    return made[0], made[1]


def tasks() -> dict[str, nn.Module]:
    return {"x": nn.MSELoss(), "y": nn.L1Loss()}


def values(inputs: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> tuple[float, float]:
    return float((inputs["x"] - targets["x"]).square().mean()), float((inputs["y"] - targets["y"]).abs().mean())


def test_weights_are_used_as_given() -> None:
    x, y = values(*batch(0))
    assert float(MultiTaskLoss(tasks=tasks())(*batch(0)).loss) == pytest.approx(x + y)
    assert float(MultiTaskLoss(tasks=tasks(), weights={"x": 2.0, "y": 2.0})(*batch(0)).loss) == pytest.approx(
        2 * (x + y)
    )
    old = twin("multitask_loss.MultitaskLoss")(tasks(), {"x": 2.0, "y": 2.0})
    assert float(old(*batch(0))["loss"]) == pytest.approx((x + y) / 2)
    same = MultiTaskLoss(tasks=tasks(), weights={"x": 2.0, "y": 2.0}, normalize_weights=True)
    assert float(same(*batch(0)).loss) == pytest.approx((x + y) / 2)


def test_a_missing_task_counts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    inputs, targets = batch(0)
    out = MultiTaskLoss(tasks=tasks(), weights={"y": 0.5})({"y": inputs["y"]}, targets)
    assert float(out.loss) == pytest.approx(0.5 * values(inputs, targets)[1])
    assert "terms.x" not in out
    assert float(out["weights.x"]) == 1.0
    with caplog.at_level(logging.WARNING):
        assert twin("multitask_loss.MultitaskLoss")(tasks())({}, targets)["loss"] == 0.0  # a float: backward fails
    with pytest.raises(ValueError, match="no task"):
        MultiTaskLoss(tasks=tasks())({}, targets)
    with pytest.raises(ValueError, match="unknown tasks"):
        MultiTaskLoss(tasks=tasks())({**inputs, "z": inputs["x"]}, targets)


def test_inverse_weights_by_hand() -> None:
    loss = MultiTaskLoss(tasks=tasks(), weighting="inverse_loss", momentum=0.8, weights={"x": 3.0}).double()
    running = [1.0, 1.0]
    for seed in range(3):
        found = values(*batch(seed))
        running = [0.8 * r + 0.2 * v for r, v in zip(running, found, strict=True)]
        shares = [3 / running[0], 1 / running[1]]
        weights = [s / sum(shares) for s in shares]
        out = loss(*batch(seed))
        assert float(out["weights.x"]) == pytest.approx(weights[0])
        assert float(out.loss) == pytest.approx(sum(w * v for w, v in zip(weights, found, strict=True)))


def test_running_losses_are_state_and_validation_leaves_them_alone() -> None:
    old = twin("multitask_loss.MultitaskLoss")(tasks(), dynamic_weighting=True).eval()
    before = dict(old.running_losses)
    old(*batch(0))
    assert old.running_losses != before
    assert old.state_dict() == {}
    first = MultiTaskLoss(tasks=tasks(), weighting="inverse_loss")
    first.eval()(*batch(0, torch.float32))
    assert torch.equal(first.running_loss, torch.ones(2))
    first.train()(*batch(0, torch.float32))
    second = MultiTaskLoss(tasks=tasks(), weighting="inverse_loss")
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(*batch(1, torch.float32)).loss, first(*batch(1, torch.float32)).loss)


def test_equals_the_twin_in_training_mode() -> None:
    old = twin("multitask_loss.MultitaskLoss")(tasks(), dynamic_weighting=True)
    new = MultiTaskLoss(tasks=tasks(), weighting="inverse_loss").double()
    for seed in range(4):
        want, got = old(*batch(seed)), new(*batch(seed))
        torch.testing.assert_close(got.loss, want["loss"], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(got["weights.x"].float(), want["x_weight"])


def test_losses_that_return_a_dict() -> None:
    g = torch.Generator().manual_seed(0)
    z = [torch.randn(5, 3, generator=g) for _ in range(2)]
    with pytest.raises(TypeError):
        twin("multitask_loss.MultitaskLoss")({"v": VICRegLoss()})({"v": z[0]}, {"v": z[1]})
    out = MultiTaskLoss(tasks={"v": VICRegLoss()})({"v": z[0]}, {"v": z[1]})
    torch.testing.assert_close(out.loss, VICRegLoss()(*z).loss)


def test_the_order_of_tasks_does_not_choose_the_dtype() -> None:
    inputs, targets = batch(0)
    mixed = {"x": inputs["x"].float(), "y": inputs["y"]}, {"x": targets["x"].float(), "y": targets["y"]}
    assert twin("multitask_loss.MultitaskLoss")(tasks())(*mixed)["loss"].dtype == torch.float32
    assert MultiTaskLoss(tasks=tasks())(*mixed).loss.dtype == torch.float64


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"tasks": {}}, "at least one"),
        ({"tasks": {"a": nn.MSELoss()}, "weights": {"b": 1.0}}, "unknown names"),
        ({"tasks": {"a": nn.MSELoss()}, "weighting": "dynamic"}, "weighting"),
        ({"tasks": {"a": nn.MSELoss()}, "momentum": 1.5}, "momentum"),
    ],
)
def test_constructor_errors(kwargs: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        MultiTaskLoss(**kwargs)


def test_unreduced_values_raise() -> None:
    with pytest.raises(ValueError, match="one number"):
        MultiTaskLoss(tasks={"x": nn.MSELoss(reduction="none")})(*({"x": b["x"]} for b in batch(0)))
