"""Values exactly at the edges of conditions, single elements, and small numbers worked out by hand.

Found by ``tools/mutants.py``: each of these tests fails for a change of the code that no other test noticed.
"""

from __future__ import annotations

import logging
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training_losses.alignment import SoftDTWLoss, mixture_fit, tcc
from training_losses.balancing import (
    GeometricMeanLoss,
    GradNormLoss,
    LossBalanceMonitor,
    MultiTaskLoss,
    ProductLoss,
    UncertaintyWeightedLoss,
    WeightedSumLoss,
    gradnorm,
)
from training_losses.balancing.monitor import RESOLUTION
from training_losses.base import BaseLoss, BaseSupervisedLoss, FeatureQueue, require_number, require_numbers
from training_losses.base.base_loss import require_features
from training_losses.base.mixins import HardNegativeMiningMixin, TemperatureScalingMixin
from training_losses.base.projection import ProjectionHead
from training_losses.base.warmup import WarmupFactor
from training_losses.contrastive import CrossModalVICRegLoss, HybridPretrainVICRegLoss
from training_losses.functional import l2_normalize, standardize
from training_losses.functional.activity import mean_activity
from training_losses.functional.counter_random import counter_normal
from training_losses.functional.cross_entropy import smooth_targets
from training_losses.functional.normality import characteristic_distance, gaussian_quadrature
from training_losses.functional.precision import eps_for
from training_losses.perceptual import LPIPSLoss, VGGPerceptualLoss, lpips, lpips_distance, vgg
from training_losses.perceptual.frozen import FrozenNetworkLoss, check_images, he_init
from training_losses.perceptual.vgg import vgg19_features
from training_losses.predictive import ContrastiveJEPALoss, HJEPALoss, SIGRegLoss
from training_losses.temporal import EnergyLoss, PresentationSchedule, TemporalCrossEntropyLoss
from training_losses.temporal.presentation import reaction_steps, stretch_pattern


def close(got: Any, want: Any, **tolerance: float) -> None:
    torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(want), **tolerance)


# --- the monitor: warnings come beyond a threshold, not at it ---------------------------------------------------------


def look(monitor: LossBalanceMonitor, terms: dict[str, float], **more: Any) -> Any:
    """One update with the given terms; ``loss`` and ``floor_penalty`` may come with them."""
    norms, images = more.pop("norms", None), more.pop("images", None)
    output = {f"terms.{name}": torch.tensor(value) for name, value in terms.items()}
    output |= {name: torch.tensor(value) for name, value in more.items()}
    given = None if norms is None else {name: torch.tensor(value) for name, value in norms.items()}
    return monitor.update(output, gradient_norms=given, images=images)


def kinds(report: Any) -> list[str]:
    return [warning.kind for warning in report.warnings]


def test_monitor_logs() -> None:
    metrics = look(LossBalanceMonitor(eps=0.5), {"a": 0.5, "b": -0.5, "c": -1.0, "d": 1.5}).metrics
    assert metrics["log/a"] == 0.0
    assert metrics["log/b"] == -math.inf
    assert math.isnan(metrics["log/c"])
    assert metrics["log/d"] == math.log(2.0)


def test_monitor_small_values() -> None:
    monitor = LossBalanceMonitor(eps=2.0**-10, vanishing=4.0, log_fall=50.0, jump=50.0)
    assert kinds(look(monitor, {"a": 0.0})) == ["vanishing"]  # zero is not negative
    assert kinds(look(monitor, {"a": 2.0**-8})) == []
    assert kinds(look(monitor, {"a": 2.0**-9})) == ["vanishing"]


def test_monitor_gradient_norms() -> None:
    monitor = LossBalanceMonitor(gradient_ratio=4.0)
    assert kinds(look(monitor, {"a": 1.0}, norms={"a": 8.0, "b": 2.0})) == []
    assert kinds(look(monitor, {"a": 1.0}, norms={"a": 8.5, "b": 2.0})) == ["gradients_apart"]
    report = look(monitor, {"a": 1.0}, norms={"a": 1.0, "b": 0.0})
    assert report.metrics["gradient_ratio"] == math.inf
    assert kinds(look(LossBalanceMonitor(gradient_ratio=0.5), {"a": 1.0})) == []  # no norms, no ratio


def test_monitor_images() -> None:
    images = torch.stack([torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.full((2, 2), 3.0)])
    spread = float(images[0].std()) / 2  # the second image is uniform
    report = look(LossBalanceMonitor(image_std=2 * spread), {"a": 1.0}, images=images)
    assert report.metrics["image_std"] == pytest.approx(spread, rel=1e-6)
    assert kinds(report) == ["uniform_image"]
    exactly = report.metrics["image_std"]
    assert kinds(look(LossBalanceMonitor(image_std=exactly), {"a": 1.0}, images=images)) == []


def test_monitor_penalty_shares() -> None:
    terms = {"a": 3.0, "b": 0.25}
    share = look(LossBalanceMonitor(), terms, floor_penalty=1.0).metrics["penalty_share"]
    notice = LossBalanceMonitor(share_notice=share, share_dominates=0.99)
    assert kinds(look(notice, terms, floor_penalty=1.0)) == []
    dominates = LossBalanceMonitor(share_notice=share / 2, share_dominates=share)
    assert kinds(look(dominates, terms, floor_penalty=1.0)) == ["penalty_notice"]
    nothing = look(LossBalanceMonitor(eps=0.5, vanishing=1e-9), {"a": 0.5}, floor_penalty=0.0)
    assert nothing.metrics["penalty_share"] == 0.0
    assert kinds(nothing) == []


def test_monitor_inactive_penalties() -> None:
    def seen(value: float, **more: float) -> list[str]:
        return kinds(look(LossBalanceMonitor(floor=0.5), {"a": value}, **more))

    assert seen(0.25, floor_penalty=0.0, loss=4.0) == ["penalty_inactive"]
    assert seen(0.5, floor_penalty=0.0, loss=4.0) == []  # at the floor, not below
    assert seen(0.25, floor_penalty=2 * RESOLUTION, loss=4.0) == ["penalty_inactive"]
    assert seen(0.25, floor_penalty=4 * RESOLUTION, loss=4.0) == []
    assert seen(0.25, floor_penalty=1.25 * RESOLUTION) == []  # without a loss: measured against 1


def test_monitor_falls() -> None:
    def fall(limit: float, first: dict[str, float], second: dict[str, float], **more: float) -> list[str]:
        monitor = LossBalanceMonitor(log_fall=limit, jump=50.0, **more)
        assert kinds(look(monitor, first)) == []
        return kinds(look(monitor, second))

    exactly = math.log(1.0 + 1e-8) - math.log(0.125 + 1e-8)
    assert fall(exactly, {"a": 1.0}, {"a": 0.125}) == []
    assert fall(exactly * 0.99, {"a": 1.0}, {"a": 0.125}) == ["vanishing"]
    assert fall(3.0, {"a": 1.0}, {"a": 1.0, "new": 0.01}) == []  # no past, no fall
    assert fall(1.0, {"a": 1.0}, {"a": 0.0001}, eps=0.5, vanishing=1e-9) == ["vanishing"]


def after(log_means: list[float], **options: float) -> list[str]:
    """Warnings of a step whose logarithm is exactly 0, behind the given ones."""
    monitor = LossBalanceMonitor(eps=0.5, vanishing=1e-9, log_fall=50.0, **options)
    monitor.load_state_dict({"step": 3, "first": {"a": 1.0}, "terms": [{"a": 0.5}], "log_means": log_means})
    return kinds(look(monitor, {"a": 0.5}))


def test_monitor_jumps() -> None:
    assert after([-2.0], jump=2.0) == []
    assert after([-2.0], jump=1.99) == ["jump"]
    steady = [-16.0 + i for i in range(11)]  # ten moves of 1, the last value is -6
    assert after(steady, jump=7.0, jump_factor=6.0) == []
    assert after(steady, jump=7.0, jump_factor=5.0) == ["jump"]
    assert after(steady[1:], jump=7.0, jump_factor=5.0) == []  # nine moves say nothing yet
    assert after(steady, jump=7.0, jump_factor=5.0, jump_floor=6.0) == []
    assert kinds(look(LossBalanceMonitor(jump=0.5), {"a": 1.0})) == []  # the first step has no jump


def test_monitor_competition() -> None:
    def over(first: dict[str, float], second: dict[str, float]) -> list[str]:
        monitor = LossBalanceMonitor(window=2, compete=0.25, jump=50.0)
        reports = [look(monitor, terms) for terms in (first, first, second)]
        return kinds(reports[-1])

    assert over({"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 0.5}) == ["competing"]
    assert over({"a": 1.0, "b": 1.0}, {"a": 1.25, "b": 0.5}) == []
    assert over({"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 0.75}) == []
    assert over({"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 1.0}) == []
    assert over({"a": 1.0}, {"a": 2.0, "new": 0.5}) == []
    assert over({"a": 1.0}, {"a": 0.5, "new": 9.0}) == []


# --- balancers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gaussian", "laplace", "classification"])
@pytest.mark.parametrize(
    ("start", "size"), [(3.0, 1e-3), (3.0, 500.0), (-3.0, 1e-3), (-3.0, 500.0), (0.5, 3.0), (3.0, 1.5)]
)
def test_uncertainty_range(kind: str, start: float, size: float) -> None:
    """Value and slope are those of the nearest end of the range; no slope that leads further out."""
    low, high = -2.0, 2.0
    rate, front = {"gaussian": (1.0, 0.5), "laplace": (0.5, 1.0), "classification": (1.0, 1.0)}[kind]
    loss = UncertaintyWeightedLoss(names=["a"], likelihood=kind, init=start, log_variance_range=(low, high)).double()
    out = loss({"a": torch.tensor(size, dtype=torch.float64)})
    out.loss.backward()
    (parameter,) = loss.parameters()
    inside = min(max(start, low), high)
    weight = front * math.exp(-rate * inside)
    slope = 0.5 - rate * weight * size
    outward = (start < low and slope > 0) or (start > high and slope < 0)
    close(float(out.loss.detach()), weight * size + inside / 2)
    close(float(parameter.grad), 0.0 if outward else slope)


@pytest.mark.parametrize(("start", "size"), [(2.0, 500.0), (-2.0, 1e-3)])
def test_uncertainty_at_the_ends(start: float, size: float) -> None:
    loss = UncertaintyWeightedLoss(names=["a"], init=start, log_variance_range=(-2.0, 2.0)).double()
    loss({"a": torch.tensor(size, dtype=torch.float64)}).loss.backward()
    assert [float(p.grad) for p in loss.parameters()] == [0.0]


def test_weights_of_a_sum_by_hand() -> None:
    terms = {"a": nn.L1Loss(), "b": nn.MSELoss(), "c": nn.L1Loss()}
    out = WeightedSumLoss(terms=terms, weights={"a": 2.0, "b": 0.5})(torch.full((2,), 3.0), torch.zeros(2))
    assert float(out.loss) == 2 * 3 + 0.5 * 9 + 3
    assert [float(out[f"weighted.{name}"]) for name in terms] == [6.0, 4.5, 3.0]
    assert [float(out[f"terms.{name}"]) for name in terms] == [3.0, 9.0, 3.0]
    assert [float(out[f"weights.{name}"]) for name in terms] == [2.0, 0.5, 1.0]


def test_weights_of_tasks_by_hand() -> None:
    tasks = {"a": nn.L1Loss(), "b": nn.MSELoss()}
    inputs, targets = dict.fromkeys(tasks, torch.full((2,), 3.0)), dict.fromkeys(tasks, torch.zeros(2))
    given = {"a": 2.0, "b": 6.0}
    assert float(MultiTaskLoss(tasks=tasks, weights=given)(inputs, targets).loss) == 2 * 3 + 6 * 9
    shared = MultiTaskLoss(tasks=tasks, weights=given, normalize_weights=True)(inputs, targets)
    assert float(shared.loss) == 0.25 * 3 + 0.75 * 9
    # a running loss of (almost) nothing counts as 1e-8
    loss = MultiTaskLoss(tasks=tasks, weighting="inverse_loss").double().eval()
    loss.running_loss.copy_(torch.tensor([1e-9, 3e-8]))
    out = loss({n: x.double() for n, x in inputs.items()}, {n: x.double() for n, x in targets.items()})
    close(float(out["weights.a"]), 0.75)


def test_initial_losses_are_positive() -> None:
    with pytest.raises(ValueError, match="initial_losses"):
        GradNormLoss(names=["a"], initial_losses={"a": 0.0})


def test_uncertainty_starts_with_equal_weights() -> None:
    loss = UncertaintyWeightedLoss(names=["a", "b"], init={"a": 1.0}).double()
    assert sorted(float(p.detach()) for p in loss.parameters()) == [0.0, 1.0]


def balanced(values: dict[str, float], **options: Any) -> tuple[GradNormLoss, dict[str, Tensor]]:
    loss = GradNormLoss(names=list(values), **options).double()
    shared = torch.ones(2, dtype=torch.float64, requires_grad=True)
    return loss, loss.balance({name: (shared * value).sum() for name, value in values.items()}, shared)


def test_gradnorm_of_zero_losses() -> None:
    _, seen = balanced({"a": 0.0, "b": 0.0})
    close(seen["inverse_rate"], torch.ones(2, dtype=torch.float64))
    assert all(float(w) == 1.0 for w in seen["weights"])


def test_gradnorm_leaves_out_steps_that_are_not_finite() -> None:
    for values in ({"a": 1.0, "b": math.inf}, {"a": math.inf, "b": 1.0}):
        loss, _ = balanced(values)
        assert [float(w) for w in loss.weight.stack()] == [1.0, 1.0]
        assert not bool(loss.started)
    # finite losses with a gradient that is not
    loss = GradNormLoss(names=["a", "b"]).double()
    shared = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    loss.balance({"a": shared.sqrt().sum(), "b": (shared + 1).sum()}, shared)
    assert [float(w) for w in loss.weight.stack()] == [1.0, 1.0]


def test_gradnorm_leaves_out_one_infinite_loss() -> None:
    """Its gradient is finite."""
    loss = GradNormLoss(names=["a", "b"]).double()
    assert [float(value) for value in loss.initial_loss.stack()] == [1.0, 1.0]
    shared = torch.ones(1, dtype=torch.float64, requires_grad=True)
    loss.balance({"a": (3 * shared).sum(), "b": (shared + math.inf).sum()}, shared)
    assert [float(w) for w in loss.weight.stack()] == [1.0, 1.0]
    assert [float(value) for value in loss.initial_loss.stack()] == [1.0, 1.0]


@pytest.mark.parametrize("balancer", [GradNormLoss, ProductLoss, UncertaintyWeightedLoss])
def test_balancers_with_a_state_need_names(balancer: Any) -> None:
    with pytest.raises(ValueError, match="keeps a state per term"):
        balancer()


def test_uncertainty_may_turn_back_at_the_end() -> None:
    """At the lower end the slope 1/2 - 1/2 size decides: from 1 on it leads inside."""
    for size, slope in ((1.2, -0.1), (0.8, 0.0)):
        loss = UncertaintyWeightedLoss(names=["a"], init=0.0, log_variance_range=(0.0, 2.0)).double()
        loss({"a": torch.tensor(size, dtype=torch.float64)}).loss.backward()
        close([float(p.grad) for p in loss.parameters()], [slope])


@pytest.mark.parametrize("world", [1, 2])
def test_gradnorm_over_processes(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_reduce(both: Tensor) -> None:
        assert world > 1
        both += torch.tensor([[2.0, 4.0], [6.0, 8.0]])

    ready = {"is_available": lambda: True, "is_initialized": lambda: True, "get_world_size": lambda: world}
    monkeypatch.setattr(gradnorm, "distributed", SimpleNamespace(**ready, all_reduce=all_reduce))
    norms, losses = gradnorm._averaged(torch.tensor([1.0, 3.0]), torch.tensor([5.0, 7.0]))
    close(norms, torch.tensor([1.5, 3.5] if world == 2 else [1.0, 3.0]))
    close(losses, torch.tensor([5.5, 7.5] if world == 2 else [5.0, 7.0]))


def test_product_means() -> None:
    loss = ProductLoss(names=["a"], mean_steps=2, momentum=0.75, include_current=True).double().train()
    assert [float(v) for v in loss.running_mean.stack()] == [1.0]
    seen = []
    for value in (1.0, 3.0, 6.0):
        loss({"a": torch.tensor(value, dtype=torch.float64)})
        seen.append(float(loss.running_mean.stack()))
    assert seen == [1.0, 2.0, 3.0]  # the mean of two, then three quarters of it and a quarter of the value


def test_product_of_tiny_values() -> None:
    loss = ProductLoss(names=["a"]).double().eval()
    out = loss({"a": torch.tensor(1e-8, dtype=torch.float64)})
    close(float(out["normalized.a"]), 0.5)


def test_geometric_mean_takes_zero_and_refuses_less() -> None:
    loss = GeometricMeanLoss(check=True).double()
    for value in (0.0, 0.5):
        assert torch.isfinite(loss({"a": torch.tensor(value, dtype=torch.float64)}).loss)
    with pytest.raises(ValueError, match="negative"):
        loss({"a": torch.tensor(-0.5, dtype=torch.float64)})


# --- base -------------------------------------------------------------------------------------------------------------


def test_messages_name_the_bounds_that_there_are() -> None:
    for bounds, words in (
        ({}, "a number"),
        ({"low": 1.0}, "a number at least 1"),
        ({"high": 2.0}, "a number at most 2"),
        ({"low": 1.0, "high": 2.0, "exclusive": True}, "a number greater than 1 and at most 2"),
        ({"low": 0, "integer": True}, "an integer at least 0"),
    ):
        with pytest.raises(ValueError) as caught:
            require_number("x", "y", **bounds)
        assert str(caught.value) == f"x must be {words}, found 'y'"


def test_several_numbers_are_checked_alike() -> None:
    require_numbers(0.0, 1.0, a=0.0, b=1, c=0.5)
    require_numbers(0.0, optional=True, a=None, b=2.0)
    with pytest.raises(ValueError, match=r"^b must be a number at least 0 and at most 1, found 1\.5$"):
        require_numbers(0.0, 1.0, a=0.0, b=1.5)
    with pytest.raises(ValueError, match=r"^a must be a number greater than 0, found None$"):
        require_numbers(0.0, exclusive=True, a=None)
    for value in (True, math.inf, math.nan, 1.0):
        with pytest.raises(ValueError, match=r"^b must be an integer"):
            require_numbers(integer=True, optional=True, a=None, b=value)


class Rows(BaseSupervisedLoss):
    def forward(self, logits: Tensor, targets: Tensor, weight: Tensor | None = None) -> Tensor:
        return self.weighted_cross_entropy(logits, targets, weight)


def test_weighted_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0], [math.log(7.0), 0.0]], dtype=torch.float64)
    targets, weight = torch.tensor([1, -100, 0]), torch.tensor([2.0, 5.0, 0.5], dtype=torch.float64)
    costs = [-math.log(3 / 4), 0.0, -math.log(7 / 8)]
    plain = Rows(reduction="mean")
    close(float(plain(logits, targets)), (costs[0] + costs[2]) / 2)
    close(float(plain(logits, targets, weight)), (2 * costs[0] + 0.5 * costs[2]) / 2.5)
    classes = Rows(reduction="mean", class_weights=torch.tensor([3.0, 0.25])).double()
    close(float(classes(logits, targets)), (0.25 * costs[0] + 3 * costs[2]) / 3.25)
    close(float(Rows(reduction="sum")(logits, targets)), costs[0] + costs[2])
    assert float(plain(logits, torch.full((3,), -100))) == 0.0
    with pytest.raises(ValueError, match="class_weights"):
        Rows(class_weights=torch.tensor([-1.0, 1.0]))


def test_options_of_supervised_losses() -> None:
    """Also: an ignored row has no class, and a sum of weights below 1 divides as any other."""
    for bad in ({"label_smoothing": 1.2}, {"ignore_index": 0.5}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Rows(**bad)
    one = Rows(reduction="mean", class_weights=torch.tensor([3.0]))
    assert float(one(torch.zeros(2, 1), torch.tensor([0, -100]))) == 0.0
    light = Rows(reduction="mean")(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([0.5]))
    close(float(light), math.log(2.0))


class Pieces(TemperatureScalingMixin, HardNegativeMiningMixin, nn.Module):
    pass


def test_learned_temperatures_scale_as_fixed_ones() -> None:
    similarity = torch.tensor([0.5, -0.25])
    for learnable in (False, True):
        made = Pieces()
        made.init_temperature(temperature=0.0125, learnable=learnable)  # 80, of the 100 that are allowed
        close(made.scale_by_temperature(similarity).detach(), torch.tensor([40.0, -20.0]))
    made.init_temperature(temperature=4.0, learnable=True, max_scale=0.5)
    close(float(made.scale.detach()), 0.25)
    for bad in ({"temperature": 0.009}, {"temperature": 4.0, "max_scale": 0.0}):
        with pytest.raises(ValueError, match=r"1 / temperature|max_scale"):
            made.init_temperature(learnable=True, **bad)


def test_learned_temperature_of_one() -> None:
    made = Pieces()
    made.init_temperature(temperature=1.0, learnable=True)
    assert float(made.logit_scale.detach()) == 0.0
    assert float(torch.as_tensor(made.scale).detach()) == 1.0
    assert float(torch.as_tensor(made.temperature).detach()) == 1.0


def test_hard_negatives_by_percentile() -> None:
    made = Pieces()
    made.init_mining(percentile=75.0, weight=3.0)
    similarity = torch.tensor([[9.0, 0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 9.0, 8.0, 6.0, 4.0, 2.0]])
    positive = torch.zeros(2, 6, dtype=torch.bool)
    positive[0, 0] = positive[1, 1] = True
    # the upper quarters of 0..4 and of (0, 2, 4, 6, 8) begin at 3 and at 6
    wanted = torch.tensor([[0.0, 1.0, 1.0, 1.0, 3.0, 3.0], [1.0, 0.0, 3.0, 3.0, 1.0, 1.0]])
    assert torch.equal(made.mine_hard_negatives(similarity, positive), wanted)


@pytest.mark.parametrize(
    ("epochs", "of", "epoch", "step", "total", "wanted"),
    [
        (1, 1, 0, 2, 4, 0.5),
        (4, 2, 0, 1, 1, 0.25),
        (0, 2, 0, 1, 4, 1.0),
        (4, 2, 0, 1, 4, 0.125),
        (4, 2, 1, 5, 0, 0.25),
        (4, 2, 1, 0, 8, 0.25),
        (1, 2, 1, 0, 0, 1.0),
        (2, 0, 0, 1, 8, 0.0625),
    ],
)
def test_linear_warmup(epochs: int, of: int, epoch: int, step: int, total: int, wanted: float) -> None:
    warmup = WarmupFactor("linear", warmup_epochs=epochs, num_epochs=of)
    warmup.update_epoch(epoch)
    warmup.update_step(step, total)
    assert float(warmup(torch.zeros((), dtype=torch.float64))) == wanted


@pytest.mark.parametrize("driven", ["update_epoch", "update_step", ""])
def test_a_warmup_that_nobody_drives_says_so_once(driven: str, caplog: pytest.LogCaptureFixture) -> None:
    warmup = WarmupFactor("linear", warmup_epochs=2, num_epochs=4).train()
    if driven:
        getattr(warmup, driven)(*((0,) if driven == "update_epoch" else (0, 8)))
    with caplog.at_level(logging.WARNING):
        warmup(torch.zeros(()))
        warmup(torch.zeros(()))
    assert len(caplog.records) == (0 if driven else 1)


def test_a_warmup_takes_whole_epochs_and_goes_on_where_it_was_saved(caplog: pytest.LogCaptureFixture) -> None:
    warmup = WarmupFactor("linear", warmup_epochs=2, num_epochs=4).train()
    with pytest.raises(ValueError, match="epoch"):
        warmup.update_epoch(0.5)
    warmup.load_state_dict(warmup.state_dict())
    with caplog.at_level(logging.WARNING):
        warmup(torch.zeros(()))
    assert not caplog.records


def test_enough_rows() -> None:
    require_features(2, a=torch.zeros(2, 1))
    require_features(a=torch.zeros(1, 3))
    for rows, shape in ((2, (1, 3)), (1, (0, 3))):
        with pytest.raises(ValueError, match="row"):
            require_features(rows, a=torch.zeros(shape))


def test_widths_of_heads_are_whole() -> None:
    for bad in ({"input_dim": 2.5}, {"output_dim": 2.5}, {"hidden_dim": 2.5}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            ProjectionHead(**{"input_dim": 2, "output_dim": 2, **bad})


def test_more_rows_than_a_queue_holds() -> None:
    """The last ones stay, where they would have come to stand one after the other."""
    queue, single = FeatureQueue(4, 1), FeatureQueue(4, 1)
    for rows in (torch.tensor([[1.0], [2.0], [3.0]]), torch.arange(4.0, 11.0)[:, None]):
        queue.enqueue(rows)
        for row in rows:
            single.enqueue(row[None])
    assert queue.features.tolist() == single.features.tolist() == [[9.0], [10.0], [7.0], [8.0]]
    assert int(queue.ptr) == int(single.ptr) == 2


class Plain(BaseLoss):
    def forward(self, x: Tensor) -> Tensor:
        return self.apply_reduction(x)


def test_means_over_few_elements() -> None:
    x = torch.tensor([2.0, 4.0])
    assert float(Plain().apply_reduction(x, 1)) == 6.0
    assert float(Plain().apply_reduction(x, 0)) == 6.0
    assert float(Plain()(x)) == 3.0


# --- functional -------------------------------------------------------------------------------------------------------


def test_standardize_by_hand() -> None:
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    close(standardize(x, eps=0.0), x / math.sqrt(2.0))
    close(standardize(x, eps=0.0, unbiased=False), x)
    close(standardize(x[:1], eps=1.0), torch.zeros_like(x[:1]))


def test_activity_of_single_units() -> None:
    x = torch.tensor([[-2.0], [4.0]], dtype=torch.float64, requires_grad=True)
    for order in (1, 2, 3):
        close(mean_activity(x, order=order).detach().sum(), torch.tensor(6.0, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(mean_activity(x).sum(), x)
    close(gradient, torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
    close(mean_activity(x.detach()[:, 0]).sum(), torch.tensor(6.0, dtype=torch.float64))


def test_random_numbers_of_a_counter_stay_as_they_are() -> None:
    """A resumed run, also on a later version, has to draw the same directions."""
    drawn = counter_normal(2, 3, seed=5, step=torch.tensor(7), dtype=torch.float64)
    wanted = [[0.03948978, -2.27128243, 0.79043806], [-0.86732507, 0.43710202, 1.18129957]]
    close(drawn, torch.tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=1e-7)


def test_one_class() -> None:
    assert smooth_targets(torch.ones(2, 1), 0.25).tolist() == [[1.0], [1.0]]


def test_smallest_norms() -> None:
    assert [eps_for(d) for d in (torch.float16, torch.bfloat16, torch.float32, torch.float64)] == [
        1e-6,
        1e-6,
        1e-12,
        1e-12,
    ]
    close(l2_normalize(torch.tensor([1e-12, 0.0], dtype=torch.float64)), torch.tensor([1.0, 0.0], dtype=torch.float64))
    half = torch.tensor([5e-13, 0.0], dtype=torch.float64)
    close(l2_normalize(half), torch.tensor([0.5, 0.0], dtype=torch.float64))


# --- alignment --------------------------------------------------------------------------------------------------------


def test_soft_dtw_per_length() -> None:
    x, y = (torch.randn(2, n, 3, generator=torch.Generator().manual_seed(n)) for n in (4, 6))
    plain = SoftDTWLoss(reduction="none")(x, y)
    close(SoftDTWLoss(reduction="none", normalize_by_length=True)(x, y), plain / 10)


def test_times_of_frames() -> None:
    assert tcc._times(5, False).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert tcc._times(5, True).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_quasi_newton_directions_by_hand() -> None:
    """On ``x'Ax / 2`` with ``A = diag(2, 5)``, whose slope at (1, 1) is (2, 5)."""
    slope, e1, e2 = (torch.tensor([v], dtype=torch.float64) for v in ([2.0, 5.0], [1.0, 0.0], [0.0, 1.0]))
    close(mixture_fit._direction(slope, [], []), -slope)
    close(mixture_fit._direction(slope, [e1, e2], [2 * e1, 5 * e2]), -e1 - e2)
    # one pair: its direction is known, the other one is scaled by <s, y> / <y, y>
    close(mixture_fit._direction(slope, [e1], [2 * e1]), -e1 - 2.5 * e2)
    # no curvature: the pair says nothing
    close(mixture_fit._direction(slope, [e1], [0 * e1]), -slope)


# --- perceptual -------------------------------------------------------------------------------------------------------


class PerPlace(nn.Module):
    """Squared differences per place, as LPIPS with ``spatial=True`` answers."""

    def __init__(self, trunk: str = "") -> None:
        super().__init__()
        self.pnet_type = trunk

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum(1, keepdim=True)


def test_distances_are_averaged_over_places() -> None:
    a, b = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    a[0, 0, 0, 0], a[1, 1, 1, 1] = 2.0, 4.0
    flat = LPIPSLoss(backbone=PerPlace(), input_range=(-1.0, 1.0), reduction="none")
    assert flat(a, b).tolist() == [1.0, 4.0]
    places = LPIPSLoss(backbone=PerPlace(), input_range=(-1.0, 1.0), reduction="none", spatial=True)(a, b)
    assert places.shape == (2, 2, 2)
    assert float(places[1, 1, 1]) == 16.0


@pytest.mark.parametrize("limits", [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-3.0, 1.0), (1.0, 2.0)])
def test_images_are_scaled_to_minus_one_and_one(limits: tuple[float, float]) -> None:
    low, high = limits
    loss = LPIPSLoss(backbone=PerPlace(), input_range=limits)
    ends = torch.tensor([low, high, (low + high) / 2])
    close(loss._scaled(ends), torch.tensor([-1.0, 1.0, 0.0]))


@pytest.mark.parametrize(("trunk", "smallest"), [("vgg", 16), ("alex", 31), ("squeeze", 15), ("", 1)])
def test_smallest_images(trunk: str, smallest: int) -> None:
    loss = LPIPSLoss(backbone=PerPlace(trunk))
    assert float(loss(*torch.zeros(2, 1, 3, smallest, smallest))) == 0.0
    for shape in ((smallest - 1, smallest), (smallest, smallest - 1)):
        with pytest.raises(ValueError):
            loss(*torch.zeros(2, 1, 3, *shape))


def test_the_target_is_detached_unless_asked() -> None:
    for detached in (True, False):
        a, b = torch.ones(1, 3, 2, 2, requires_grad=True), torch.zeros(1, 3, 2, 2, requires_grad=True)
        LPIPSLoss(backbone=PerPlace(), detach_target=detached)(a, b).backward()
        assert (b.grad is None) is detached


def test_lpips_by_hand() -> None:
    """Channels (3, 4) have norm 5; ``eps`` is added to the norm, or below the root."""
    f = torch.tensor([3.0, 4.0], dtype=torch.float64).view(1, 2, 1, 1)
    zero, weight = torch.zeros_like(f), torch.tensor([1.0, 2.0], dtype=torch.float64)
    plain = lpips_distance([f], [zero], [weight], eps=1.0)[0]
    close(float(plain), (3 / 6) ** 2 + 2 * (4 / 6) ** 2)
    safe = lpips_distance([f], [zero], [weight], eps=3.0, safe_norm=True)[0]
    close(float(safe), 9 / 34 + 2 * 16 / 34)
    corners = torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    corners[0, 0, 0, 0] = 1.0
    places = lpips_distance([corners], [torch.zeros_like(corners)], [weight], size=(4, 4))[0]
    close(places[0, 0, 0], torch.tensor([1.0, 0.75, 0.25, 0.0], dtype=torch.float64))


def test_parts_of_a_network_for_safe_norm() -> None:
    backbone = PerPlace()
    with pytest.raises(ValueError, match="safe_norm"):
        LPIPSLoss(backbone=backbone, safe_norm=True)
    for part in ("net", "lins", "scaling_layer"):
        setattr(backbone, part, nn.Identity())
    assert LPIPSLoss(backbone=backbone, safe_norm=True).safe_norm


class Parts(PerPlace):
    """With the parts of an LPIPS network: one layer, of one channel for three."""

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer = nn.Identity()
        self.net = Listed()
        self.lins = nn.ModuleList([nn.Conv2d(3, 1, 1, bias=False)])
        nn.init.ones_(self.lins[0].weight)


class Listed(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x]


def test_safe_norm_of_blank_places() -> None:
    """Blank against (1, 0, 0): 1 / (1 + eps^2), a finite gradient, and a map as large as the image."""
    loss = LPIPSLoss(backbone=Parts(), input_range=(-1.0, 1.0), safe_norm=True, eps=0.5, spatial=True, reduction="none")
    a, b = torch.zeros(1, 3, 2, 4, requires_grad=True), torch.zeros(1, 3, 2, 4)
    b[0, 0, 1, 3] = 1.0
    places = loss(a, b)
    want = torch.zeros(1, 2, 4)
    want[0, 1, 3] = 1 / 1.25
    close(places.detach(), want)
    places.sum().backward()
    assert bool(a.grad is not None and a.grad.isfinite().all())


def test_ranges_are_not_empty() -> None:
    with pytest.raises(ValueError, match=r"input_range\[1\]"):
        LPIPSLoss(backbone=PerPlace(), input_range=(0.5, 0.5))


class Tiny(FrozenNetworkLoss):
    """Builds its network late, and has a layer of its own."""

    def __init__(self) -> None:
        super().__init__(network=None, reduction="mean")
        self.own = nn.Linear(1, 1)

    def build_network(self) -> nn.Module:
        return nn.Linear(2, 2)

    def forward(self, rendered: Tensor, target: Tensor) -> Tensor:
        return rendered - target


def test_a_network_is_frozen_and_moves_along() -> None:
    loss = Tiny()
    assert not any(p.requires_grad for p in loss.network.parameters())
    loss.double()
    assert {p.dtype for p in (*loss.network.parameters(), *loss.own.parameters())} == {torch.float64}


def test_a_single_pixel_is_an_image() -> None:
    check_images(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    backbone = nn.Sequential(nn.Conv2d(3, 1, 1), nn.MaxPool2d(2))
    small = VGGPerceptualLoss(backbone=backbone, layers=["pool1"])
    assert small.minimum_size == 2
    resized = VGGPerceptualLoss(backbone=backbone, layers=["pool1"], resize=4)
    assert float(resized(*torch.zeros(2, 1, 3, 1, 1))) == 0.0
    with pytest.raises(ValueError, match="at least 2 x 2"):
        small(*torch.zeros(2, 1, 3, 1, 1))


def test_layers_of_vgg19() -> None:
    kinds = {nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool"}
    found = list(vgg19_features())
    assert tuple(kinds[type(layer)] for layer in found) == vgg.VGG19_KINDS
    convolutions = [layer for layer in found if isinstance(layer, nn.Conv2d)]
    widths = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
    assert [(c.in_channels, c.out_channels) for c in convolutions] == list(zip([3, *widths], widths, strict=False))
    assert {(c.kernel_size, c.padding) for c in convolutions} == {((3, 3), (1, 1))}
    assert {layer.kernel_size for layer in found if isinstance(layer, nn.MaxPool2d)} == {2}


def test_all_layers_and_weights_of_some() -> None:
    backbone = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU())
    nn.init.ones_(backbone[0].weight)
    loss = VGGPerceptualLoss(
        backbone=backbone, layers=["conv1_1", "relu1_1"], layer_weights={"relu1_1": 3.0}, mean=None, std=None
    )
    # the convolution gives -3, the rectifier 0; the target 0
    assert float(loss(-torch.ones(1, 3, 1, 1), torch.zeros(1, 3, 1, 1))) == (1 * 9 + 3 * 0) / 4


def test_resizing_is_smooth() -> None:
    """8 -> 2: a triangle four pixels wide on either side of 1.5, so that the corner gets 0.625 / 3.5 per axis."""
    loss = VGGPerceptualLoss(
        backbone=nn.Sequential(nn.Conv2d(3, 1, 1)), layers=["conv1_1"], resize=2, mean=None, std=None
    )
    image = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    image[:, :, 0, 0] = 1.0
    close(float(loss._prepared(image)[0, 0, 0, 0]), (0.625 / 3.5) ** 2)


def test_the_package_is_asked_for_its_weights_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def package(*_: str) -> Any:
        return SimpleNamespace(LPIPS=lambda **options: asked.update(options) or Parts())

    monkeypatch.setattr(lpips, "check_installed", lambda *_: None)
    monkeypatch.setattr(lpips, "require_package", package)
    assert isinstance(LPIPSLoss(net="alex").network, Parts)
    assert asked == {"net": "alex", "spatial": False, "pnet_rand": False, "verbose": False}


def test_random_weights_without_biases() -> None:
    made = he_init(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(5, 6)))
    assert all(bool((p != 0).any()) is (p.dim() > 1) for p in made.parameters())


# --- phases and pairs -------------------------------------------------------------------------------------------------


def test_two_rows_are_enough_for_vicreg_over_heads() -> None:
    loss = CrossModalVICRegLoss(vision_dim=3, text_dim=2, projection_dim=4)
    assert torch.isfinite(loss(torch.randn(2, 3), torch.randn(2, 2)).loss)
    for rows in ((1, 1), (2, 3), (0, 0)):
        with pytest.raises(ValueError, match="at least 2"):
            loss(torch.randn(rows[0], 3), torch.randn(rows[1], 2))


def test_a_transition_can_start_at_step_zero() -> None:
    loss = HybridPretrainVICRegLoss(pretrain_steps=0, transition_steps=4, alignment_threshold=None)
    assert loss.phase == "contrastive_pretrain"
    seen = []
    for step in range(5):
        loss.update_step(step, 10)
        seen.append((loss.phase, float(loss.transition_progress)))
    assert seen == [*(("transition", step / 4) for step in range(4)), ("vicreg", 1.0)]


# --- predictive -------------------------------------------------------------------------------------------------------


def test_short_rows_become_zero() -> None:
    """Rows as long as ``eps`` count as short; a short prediction differs from a target of length 1 by that target."""
    loss = HJEPALoss(num_hierarchies=1, loss_type="mse", eps=0.5)
    target = torch.tensor([[[0.6, 0.8]]])
    for length in (0.0, 0.25, 0.5):
        close(float(loss(torch.tensor([[[length, 0.0]]]), target).loss), 0.5)
    close(float(loss(torch.tensor([[[0.75, 0.0]]]), target).loss), (0.4**2 + 0.8**2) / 2)


def test_pooled_features_are_means() -> None:
    """Without normalisation their length counts."""
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(3, 2, 4, generator=g) for _ in range(2))
    options: dict[str, Any] = {"normalize": False, "temperature": 2.0}
    jepa = HJEPALoss(num_hierarchies=1)
    means = ContrastiveJEPALoss(jepa_loss=jepa, contrast="features", **options)
    want = means(a, b, target_features_a=a.mean(1), target_features_b=b.mean(1))["contrastive_loss"]
    of_predictions = ContrastiveJEPALoss(jepa_loss=jepa, contrast="prediction", **options)(a, b)
    close(of_predictions["contrastive_loss"], want)
    pooled = ContrastiveJEPALoss(jepa_loss=jepa, contrast="features", pool="mean", **options)
    close(pooled(a, b, target_features_a=a, target_features_b=b)["contrastive_loss"], want)


def test_a_mask_may_weigh_less_than_one_element() -> None:
    loss = HJEPALoss(num_hierarchies=1, loss_type="mse", normalize_embeddings=False)
    out = loss(torch.full((1, 1, 2), 3.0), torch.zeros(1, 1, 2), masks=torch.full((1, 1), 0.25))
    close(float(out.loss), 9.0)


@pytest.mark.parametrize(
    ("low", "high", "knots"), [(-2.0, 2.0, 2), (-2.0, 2.0, 3), (-2.0, 2.0, 4), (-2.0, 2.0, 5), (-1.0, 3.0, 3)]
)
def test_sigreg_integrates_over_the_whole_interval(low: float, high: float, knots: int) -> None:
    """Symmetric or not, with an even or an odd number of knots."""
    g = torch.Generator().manual_seed(0)
    x, directions = (torch.randn(5, 3, generator=g, dtype=torch.float64) for _ in range(2))
    loss = SIGRegLoss(t_min=low, t_max=high, num_knots=knots).double()
    points = torch.linspace(low, high, knots, dtype=torch.float64)
    wanted = characteristic_distance(directions @ x.mT, points, gaussian_quadrature(points, 1.0)).mean() * 5
    close(loss(x, directions=directions).loss, wanted)


def test_sigreg_draws_two_sets_per_step() -> None:
    """Steps 2 s and 2 s + 1 of the counter, for one set of embeddings the first of them."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=g, dtype=torch.float64)
    loss = SIGRegLoss(num_slices=4, shared_directions=False, seed=7).double()
    for step in range(3):
        assert int(loss.step) == step
        single = loss.eval().regularize(x)
        assert int(loss.step) == step
        both = loss.train()(x, x)
        for key, count in (("sigreg_loss_a", 2 * step), ("sigreg_loss_b", 2 * step + 1)):
            drawn = counter_normal(4, 3, seed=7, step=torch.tensor(count), dtype=torch.float64)
            given = nn.functional.normalize(drawn, dim=1)
            close(both[key], loss(x, directions=given).loss.detach())
        close(single.loss, both["sigreg_loss_a"])


# --- temporal ---------------------------------------------------------------------------------------------------------


def test_energy_at_its_limits() -> None:
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Flatten())
    nn.init.constant_(network[0].weight, 1.0)
    loss = EnergyLoss(select=["Linear"])
    loss.attach(network)
    network(torch.tensor([[1.0], [3.0]]))
    energy = loss()
    assert float(energy.detach()) == 2.0
    (row,) = loss.report().values()
    assert (float(row.activity), float(row.share), float(row.peak)) == (2.0, 1.0, 3.0)
    quiet = {"max_activation": 3.0, "max_energy": 2.0, "max_share": 0.5}

    def found(total: float, **limits: float) -> list[str]:
        return [finding.code for finding in loss.diagnose(total, **{**quiet, **limits})]

    assert found(4.0) == []
    assert found(4.0, max_energy=1.99) == ["high"]
    assert found(4.0, max_share=0.49) == ["share"]
    assert found(4.0, max_activation=2.99) == ["exploding"]
    assert found(4.0, weight=0.5, max_share=0.25) == []


def test_energy_of_one_sample() -> None:
    network = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.constant_(network[0].weight, 1.0)
    loss = EnergyLoss(select=["Linear"])
    loss.attach(network)
    network(torch.tensor([[3.0]]))
    assert float(loss().detach()) == 3.0
    assert [float(row.activity) for row in loss.report().values()] == [3.0]


def test_a_schedule_has_no_state() -> None:
    grey = torch.full((3, 1, 1), 0.5)
    assert PresentationSchedule(pattern="10", n_steps=4, null_value=grey).state_dict() == {}


def test_reaction_steps_tolerance() -> None:
    assert reaction_steps(3.0 + 3.6e-9, 1.0) == 4
    assert reaction_steps(3.0 + 2.4e-9, 1.0) == 3
    assert reaction_steps(1.0 + 1.2e-9, 1.0) == 2


def test_energy_per_sample() -> None:
    """``none`` keeps the samples apart; the report gives their mean."""
    loss = EnergyLoss(select=["a"], reduction="none")
    loss(activations={"a": torch.tensor([[1.0], [3.0]])})
    assert [float(row.activity) for row in loss.report().values()] == [2.0]
    loss(activations={"a": torch.tensor([[3.0]])})
    assert [float(row.activity) for row in loss.report().values()] == [3.0]


def test_energy_of_the_smallest_activity() -> None:
    loss = EnergyLoss(select=["a"], order=-math.inf)
    assert float(loss(activations={"a": torch.tensor([[2.0, -3.0]])})) == 2.0


def test_labels_below_the_number_of_classes() -> None:
    loss = TemporalCrossEntropyLoss()
    assert torch.isfinite(loss(torch.zeros(2, 1, 3), torch.tensor([[0], [2]])))
    with pytest.raises(ValueError, match=r"\[0, 3\).*found 3"):
        loss(torch.zeros(2, 1, 3), torch.tensor([[0], [3]]))


def test_steps_are_whole() -> None:
    with pytest.raises(ValueError, match="n_steps"):
        stretch_pattern(torch.tensor([True]), 1.5)
    with pytest.raises(ValueError, match="output_delay"):
        PresentationSchedule(n_steps=4, output_delay=0.5)


def test_a_single_step_is_never_masked() -> None:
    inputs = torch.ones(1, 1, 2)
    shown, _ = PresentationSchedule(pattern="01", n_steps=1)(inputs, torch.zeros(1, 1, dtype=torch.int64))
    assert bool((shown == 1).all())


def test_energy_of_several_steps_and_of_one_number_per_sample() -> None:
    loss = EnergyLoss(select=["a"])
    assert float(loss(activations={"a": [torch.tensor([[1.0]]), torch.tensor([[5.0]])]})) == 3.0
    assert float(loss(activations={"a": torch.tensor([1.0, 3.0])})) == 2.0
    with pytest.raises(ValueError, match=r"floating tensor \[B, \.\.\.\]"):
        loss(activations={"a": torch.tensor(1.0)})


def test_a_network_that_is_never_idle() -> None:
    network = nn.Sequential(nn.Linear(1, 1))
    loss = EnergyLoss(select=["Linear"], idle_attribute="idle")
    loss.attach(network)
    network(torch.ones(2, 1))
    assert len(loss.report()) == 1


def test_two_steps_are_masked() -> None:
    schedule = PresentationSchedule(pattern="10", n_steps=2)
    inputs, labels = schedule(torch.ones(1, 3), torch.tensor([4]))
    assert inputs[0].tolist() == [[1.0] * 3, [0.0] * 3]
    assert labels.tolist() == [[4, -1]]
    # two steps of its own are a sequence, which is kept
    assert PresentationSchedule(n_steps=5)(torch.ones(1, 2, 3), torch.zeros(1, 2, dtype=torch.int64))[0].shape[1] == 2


@pytest.mark.parametrize(("pattern", "reaction", "message"), [("10", 4.0, "no label is left"), ("1011", 4.0, "1 of 2")])
def test_lost_labels_are_said_where_the_schedule_is_made(pattern: str, reaction: float, message: str) -> None:
    steps = {"10": 2, "1011": 8}[pattern]
    with pytest.warns(UserWarning, match=message) as caught:
        PresentationSchedule(pattern=pattern, n_steps=steps, reaction_time=reaction)
    assert [warning.filename for warning in caught] == [__file__]


def test_shuffled_patterns() -> None:
    g = torch.Generator().manual_seed(0)
    schedule = PresentationSchedule(pattern="10", n_steps=2, shuffle=True, generator=g).train()
    seen = {tuple(schedule(torch.ones(1, 1), torch.tensor([4]))[1][0].tolist()) for _ in range(20)}
    assert seen == {(4, -1), (-1, 4)}
    before = g.get_state()
    single = PresentationSchedule(pattern="10", n_steps=1, shuffle=True, generator=g).train()
    assert single(torch.ones(1, 1), torch.tensor([4]))[1].tolist() == [[4]]
    assert torch.equal(g.get_state(), before)
