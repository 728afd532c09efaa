"""The monitor: its numbers, and that each warning sign is raised when, and only when, it should be."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training_losses.balancing import GeometricMeanLoss, GradNormLoss, LossBalanceMonitor, WeightedSumLoss


def values(**given: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in given.items()}


def kinds(monitor: LossBalanceMonitor, *steps: dict[str, float], **kwargs: object) -> list[list[str]]:
    balancer = GeometricMeanLoss(**kwargs)  # type: ignore[arg-type]  # options of each test
    return [[w.kind for w in monitor.update(balancer(values(**step))).warnings] for step in steps]


def test_metrics() -> None:
    monitor = LossBalanceMonitor()
    balancer = GeometricMeanLoss(floor=2.0, floor_weight=0.5)
    monitor.update(balancer(values(a=2.0, b=8.0)))
    out = balancer(values(a=1.0, b=16.0))
    metrics = monitor.update(out, gradient_norms=values(a=3.0, b=1.5)).metrics
    assert metrics["term/b"] == 16.0
    assert metrics["log/b"] == pytest.approx(math.log(16))
    assert metrics["progress/a"] == 0.5
    assert metrics["geometric_mean"] == pytest.approx(4.0)
    assert metrics["jump"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["penalty"] == pytest.approx(0.5 * math.log(2) ** 2)
    share = metrics["penalty"] / (metrics["penalty"] + math.log(16))
    assert metrics["penalty_share"] == pytest.approx(share, rel=1e-5)
    assert metrics["gradient_ratio"] == 2.0
    assert json.loads(json.dumps(metrics)) == metrics, "plain numbers for any logger"


def test_a_quiet_run_has_no_warnings() -> None:
    steps = [{"a": 3.0 * 0.99**i, "b": 0.2 * 0.985**i} for i in range(150)]
    assert [k for found in kinds(LossBalanceMonitor(window=50), *steps) for k in found] == []


def test_weights_of_other_balancers() -> None:
    report = LossBalanceMonitor().update(GradNormLoss(names=["a", "b"])(values(a=1.0, b=2.0)))
    assert report.metrics["weight/a"] == 1.0
    assert report.metrics["loss"] == 3.0
    assert "penalty_share" not in report.metrics


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{"a": 1.0, "b": 1e-7}], [["vanishing"]]),
        ([{"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 0.2}, {"a": 1.0, "b": 0.04}], [[], [], ["vanishing"]]),
        ([{"a": 1.0, "b": 1.0}, {"a": 4.0, "b": 4.0}], [[], ["jump"]]),
        ([{"a": 1.0, "b": 1.0}, {"a": 1.2, "b": 1.0}, {"a": 1.3, "b": 0.7}], [[], [], ["competing"]]),
        ([{"a": -1.0, "b": 1.0}], [["not_finite", "negative"]]),
        ([{"a": math.inf, "b": 1.0}], [["not_finite"]]),
    ],
)
def test_warning_signs(steps: list[dict[str, float]], expected: list[list[str]]) -> None:
    assert kinds(LossBalanceMonitor(window=2), *steps) == expected


def test_a_sudden_jump_against_a_calm_past() -> None:
    calm = [{"a": 1.0 + 0.001 * (i % 2)} for i in range(30)]
    found = kinds(LossBalanceMonitor(), *calm, {"a": 1.3}, {"a": 1.301})
    assert found[-2:] == [["jump"], []]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"floor": 1e-2, "floor_weight": 1.0}, "penalty_dominates"),
        ({"floor": 1e-2, "floor_weight": 0.05}, "penalty_notice"),
        # the penalty of the old code, at its defaults, on a loss below its floor
        ({"floor": 1e-4, "floor_weight": 0.01, "floor_mode": "value", "objective": "log_sum"}, "penalty_inactive"),
        ({"floor": 1e-4, "floor_weight": 1e-3}, None),
    ],
)
def test_penalty(options: dict[str, object], kind: str | None) -> None:
    floor = options["floor"]
    monitor = LossBalanceMonitor(floor=float(str(floor)))
    (found,) = kinds(monitor, {"a": 5e-5, "b": 0.5}, **options)
    assert found == ([] if kind is None else [kind])


def test_gradients_and_images() -> None:
    monitor, out = LossBalanceMonitor(), GeometricMeanLoss()(values(a=1.0, b=1.0))
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 8, 8, generator=generator)
    assert monitor.update(out, gradient_norms=values(a=1.0, b=99.0), images=images).warnings == []
    found = monitor.update(out, gradient_norms=values(a=1.0, b=101.0), images=0.5 + 0.01 * images).warnings
    assert [w.kind for w in found] == ["gradients_apart", "uniform_image"]


def test_state_carries_the_window_over() -> None:
    steps = [{"a": 1.0 + 0.3 * (i % 3), "b": 2.0 * 0.7**i} for i in range(12)]
    whole, first, second = (LossBalanceMonitor(window=4) for _ in range(3))
    want = kinds(whole, *steps)
    got = kinds(first, *steps[:7])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    got += kinds(second, *steps[7:])
    assert got == want
    assert [r.step for r in second.reports] == list(range(7, 12))
    assert second.reports[-1] == whole.reports[-1]
    assert any(want)


def test_plot(tmp_path: Path) -> None:
    monitor = LossBalanceMonitor(window=2)
    with pytest.raises(ValueError, match="no reports"):
        monitor.plot()
    kinds(monitor, {"a": 1.0, "b": 1.0}, {"a": 4.0, "b": 4.0}, {"a": 4.0, "b": 0.0})
    figure = monitor.plot(tmp_path / "run.png")
    assert (tmp_path / "run.png").stat().st_size > 5000
    assert [line.get_label() for line in figure.axes[0].lines] == ["a", "b"]
    assert [label.get_text() for label in figure.axes[2].get_yticklabels()][:2] == ["jump", "vanishing"]


def test_errors() -> None:
    with pytest.raises(ValueError, match="window must be an integer at least 2, found 1"):
        LossBalanceMonitor(window=1)
    with pytest.raises(ValueError, match="jump must be a number greater than 0"):
        LossBalanceMonitor(jump=0)
    with pytest.raises(ValueError, match="entries 'terms"):
        LossBalanceMonitor().update({"loss": torch.tensor(1.0)})


class Pick(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, given: dict[str, Tensor]) -> Tensor:
        return given[self.name]


def warned(window: int, *steps: dict[str, float]) -> set[tuple[str, str | None]]:
    monitor = LossBalanceMonitor(window=window)
    balancer = WeightedSumLoss(terms={name: Pick(name) for name in steps[0]})
    return {(w.kind, w.term) for step in steps for w in monitor.update(balancer(values(**step))).warnings}


def test_an_energy_that_rises_with_the_cross_entropy() -> None:
    together = [{"cross_entropy": 1 + i / 10, "energy": 0.2 + i / 20} for i in range(15)]
    assert ("rising_together", "cross_entropy") in warned(10, *together)
    usual = [{"cross_entropy": 2 * 0.9**i, "energy": 0.2 + min(i, 6) / 20} for i in range(30)]
    assert "rising_together" not in {kind for kind, _ in warned(10, *usual)}
    assert ("growing", "energy") not in warned(20, *usual), "a plateau"


def test_an_energy_that_keeps_growing() -> None:
    growing = [{"cross_entropy": 2 * 0.99**i, "energy": 0.2 * 1.05**i} for i in range(15)]
    assert ("growing", "energy") in warned(10, *growing)
    once = [{"cross_entropy": 1.0, "energy": 0.2 if i < 12 else 1.0} for i in range(15)]
    assert ("growing", "energy") not in warned(10, *once), "one step is no growth"


def test_old_log_keys() -> None:
    loss = WeightedSumLoss(
        terms={name: Pick(name) for name in ("cross_entropy_loss", "energy", "mine")}, weights={"energy": 0.5}
    )
    report = LossBalanceMonitor().update(loss(values(cross_entropy_loss=2.0, energy=3.0, mine=1.0)))
    assert report.metrics["weighted/energy"] == 1.5
    wanted = {"val_loss": 4.5, "loss/CrossEntropyLoss": 2.0, "loss/EnergyLoss": 1.5, "loss/Own": 1.0}
    assert report.criterion_logs(stage="val", names={"mine": "Own"}) == wanted
    assert "train_loss" in report.criterion_logs()
