"""The balancers: formulas, limits, schedules, and that they do what they promise in training."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training_losses.balancing import (
    GeometricMeanLoss,
    GradNormLoss,
    LinearRamp,
    PiecewiseConstant,
    ProductLoss,
    UncertaintyWeightedLoss,
)

DOUBLE = torch.float64


def given(*numbers: float, names: str = "abc") -> dict[str, Tensor]:
    return {n: torch.tensor(x, dtype=DOUBLE, requires_grad=True) for n, x in zip(names, numbers, strict=False)}


def grads(loss: Tensor, values: dict[str, Tensor]) -> list[float]:
    return [float(g) for g in torch.autograd.grad(loss, list(values.values()))]


def close(value: Any, want: Any, tolerance: float = 1e-9) -> None:
    assert value == pytest.approx(want, rel=tolerance, abs=tolerance)


# ------------------------------------------------------------------------------------------------------ geometric mean
def test_objectives() -> None:
    values = given(2.0, 4.0, 0.5)
    logs = [math.log(x) for x in (2.0, 4.0, 0.5)]
    for objective, want in (
        ("log_sum", sum(logs)),
        ("log_mean", sum(logs) / 3),
        ("geometric_mean", 4.0 ** (1 / 3)),
    ):
        out = GeometricMeanLoss(objective=objective, eps=0.0)(values)
        close(out.loss.item(), want)
        close(out["geometric_mean"].item(), 4.0 ** (1 / 3))
    weighted = GeometricMeanLoss(eps=0.0, exponents={"a": 3.0})(values).loss
    close(weighted.item(), (2.0**3 * 4.0 * 0.5) ** (1 / 5))
    close(grads(GeometricMeanLoss(objective="log_sum", eps=0.0)(values).loss, values), [0.5, 0.25, 2.0])


def test_scaling_a_term_does_not_turn_the_step() -> None:
    small, large = given(2.0, 4.0), given(2000.0, 4.0)
    for objective in ("log_sum", "geometric_mean"):
        loss = GeometricMeanLoss(objective=objective, eps=0.0)
        a = [g * v.item() for g, v in zip(grads(loss(small).loss, small), small.values(), strict=True)]
        b = [g * v.item() for g, v in zip(grads(loss(large).loss, large), large.values(), strict=True)]
        close(a[0] / a[1], b[0] / b[1])


@pytest.mark.parametrize("eps", [0.0, 1e-8, "dynamic"])
@pytest.mark.parametrize("objective", ["log_sum", "log_mean", "geometric_mean"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, DOUBLE])
def test_zero_losses_are_never_nan(eps: Any, objective: str, dtype: torch.dtype) -> None:
    for numbers in ((0.0, 0.0), (0.0, 3.0)):
        values = {n: torch.tensor(x, dtype=dtype, requires_grad=True) for n, x in zip("ab", numbers, strict=True)}
        loss = GeometricMeanLoss(objective=objective, eps=eps, floor_weight=0.5)(values).loss
        assert loss.isfinite()
        assert not any(math.isnan(g) for g in grads(loss, values))


def test_dynamic_epsilon() -> None:
    values = given(5.0, 0.3)
    out = GeometricMeanLoss(objective="log_sum", eps="dynamic")(values)
    close(out["eps"].item(), 0.003)
    close(grads(out.loss, values), [1 / 5.003, 1 / 0.303])
    close(GeometricMeanLoss(eps="dynamic", eps_floor=0.01)(given(5.0, 0.3))["eps"].item(), 0.01)


def descend(loss: GeometricMeanLoss, steps: int = 1500) -> list[float]:
    """Minimise over two free losses, given by their logarithms: where does the penalty stop them?"""
    log_values = torch.zeros(2, dtype=DOUBLE, requires_grad=True)
    for _ in range(steps):
        out = loss({"a": log_values[0].exp(), "b": log_values[1].exp()})
        (gradient,) = torch.autograd.grad(out.loss, log_values)
        log_values = (log_values - 0.05 * gradient).detach().requires_grad_()
    return log_values.exp().tolist()


def test_floor_works_and_the_old_one_is_inert() -> None:
    floor, weight = 1e-2, 0.5
    new = descend(GeometricMeanLoss(objective="log_sum", floor=floor, floor_weight=weight, eps=1e-12))
    close(new, [floor * math.exp(-1 / (2 * weight))] * 2, 1e-6)
    value = GeometricMeanLoss(objective="log_sum", floor=floor, floor_weight=weight, floor_mode="value", eps=1e-12)
    old = descend(value)
    assert max(old) < 1e-9, "the penalty on the values stops nothing"


def test_floor_penalty_at_the_old_defaults_is_below_float32() -> None:
    options = {"objective": "log_sum", "floor_mode": "value"}
    values = {n: torch.tensor(x) for n, x in (("perceptual", 31.88), ("l1", 1e-6), ("lpips", 0.7))}
    with_penalty = GeometricMeanLoss(floor_weight=0.01, **options)(values)
    without = GeometricMeanLoss(floor_weight=0.0, **options)(values)
    assert 0 < with_penalty["floor_penalty"] < 1e-9
    assert torch.equal(with_penalty.loss, without.loss)


def test_staged_floor_weight() -> None:
    schedule = PiecewiseConstant(boundaries=(50, 150), values=(0.1, 0.01, 0.001))
    loss = GeometricMeanLoss(floor=1.0, schedules={"floor_weight": schedule}).double()
    penalties = []
    for epoch in (0, 49, 50, 149, 150, 7):
        loss.step_schedule(epoch)
        penalties.append(loss(given(math.exp(-1), 2.0))["floor_penalty"].item())
    close(penalties, [0.1, 0.1, 0.01, 0.01, 0.001, 0.1], 1e-7)


def test_schedule_is_saved_and_wrong_names_are_refused() -> None:
    ramp = LinearRamp(start=0.0, end=1.0, length=10)
    first, second = (GeometricMeanLoss(schedules={"floor_weight": ramp}) for _ in range(2))
    first.step_schedule(4)
    assert list(first.state_dict()) == ["schedule_position"]
    second.load_state_dict(first.state_dict())
    close(float(second.floor_weight), 0.4, 1e-6)
    with pytest.raises(ValueError, match=r"'eps' cannot be scheduled \(possible: \['floor_weight'\]\)"):
        GeometricMeanLoss(schedules={"eps": ramp})


def test_negative_terms() -> None:
    with pytest.raises(ValueError, match=r"must not be negative, found \{'a': 1.0, 'b': -2.0\}"):
        GeometricMeanLoss(check=True)(given(1.0, -2.0))
    assert GeometricMeanLoss()(given(1.0, -2.0)).loss.isfinite()


# -------------------------------------------------------------------------------------------------------- uncertainty
@pytest.mark.parametrize(("kind", "rate"), [("gaussian", 1.0), ("laplace", 0.5), ("classification", 1.0)])
def test_uncertainty_formula(kind: str, rate: float) -> None:
    front = 0.5 if kind == "gaussian" else 1.0
    loss = UncertaintyWeightedLoss(names=["a"], likelihood=kind, init=0.7).double()
    out = loss(given(3.0))
    close(out.loss.item(), front * math.exp(-rate * 0.7) * 3.0 + 0.35, 1e-7)
    close(out["sigma.a"].item(), math.exp(0.35), 1e-7)


def test_gaussian_form_at_its_optimum_is_half_the_log_sum() -> None:
    numbers = (31.88, 0.36, 0.7)
    values = given(*numbers)
    best = {n: math.log(x) for n, x in zip("abc", numbers, strict=True)}
    loss = UncertaintyWeightedLoss(names=list("abc")).double()
    loss.log_variance.write(torch.tensor(list(best.values()), dtype=DOUBLE))
    out = loss(values)
    log_sum = GeometricMeanLoss(objective="log_sum", eps=0.0)(values)
    close(out.loss.item(), 1.5 + log_sum.loss.item() / 2, 1e-9)
    close(grads(out.loss, values), [g / 2 for g in grads(log_sum.loss, values)], 1e-9)
    gradient = torch.autograd.grad(loss(values).loss, list(loss.parameters()))
    close([float(g) for g in gradient], [0.0] * 3, 1e-9)


def train_s(loss: UncertaintyWeightedLoss, value: float, steps: int) -> float:
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        loss({"a": torch.tensor(value, dtype=DOUBLE)}).loss.backward()
        optimizer.step()
    return float(loss.log_variance.a.detach())


def test_range_bounds_the_parameter_and_lets_it_return() -> None:
    loss = UncertaintyWeightedLoss(names=["a"], log_variance_range=(-2.0, 2.0)).double()
    assert -2.2 < train_s(loss, 1e-9, 400) <= -2.0, "the parameter stops at the bound"
    close(loss(given(1e-9)).loss.item(), -1.0, 1e-6)
    close(train_s(loss, 1.0, 400), 0.0, 1e-3)
    unbounded = UncertaintyWeightedLoss(names=["a"], log_variance_range=None).double()
    assert train_s(unbounded, 1e-9, 400) < -10


def test_geometric_mean_with_uncertainties_is_bounded_where_the_sketch_ran_away() -> None:
    numbers = given(0.5, 0.2, 0.01)

    def sketch(log_scale: float) -> float:
        scale = math.exp(log_scale)
        return sum(math.log(v.item()) / scale + 0.1 * log_scale for v in numbers.values())

    assert sketch(-10.0) < -1e4 > sketch(-20.0), "dividing signed logarithms by a scale has no minimum"
    loss = UncertaintyWeightedLoss(names=list("abc"), log_scale=0.1).double()
    at = []
    for s in (-20.0, -10.0, -1.0, 0.0, 10.0):
        loss.log_variance.write(torch.full((3,), s, dtype=DOUBLE))
        at.append(loss(numbers).loss.item())
    assert at[0] > at[1] > at[2] < at[4]
    h = [math.log1p(v.item() / 0.1) for v in numbers.values()]
    loss.log_variance.write(torch.tensor([math.log(x) for x in h], dtype=DOUBLE))
    close(loss(numbers).loss.item(), sum(0.5 + 0.5 * math.log(x) for x in h), 1e-9)


# ----------------------------------------------------------------------------------------------------------- gradnorm
class Tasks:
    """T quadratic tasks of very different scale on shared weights."""

    def __init__(self, scales: tuple[float, ...] = (100.0, 1.0), dim: int = 4) -> None:
        generator = torch.Generator().manual_seed(0)
        draw = {"generator": generator, "dtype": DOUBLE}
        self.matrices = [s * torch.randn(6, dim, **draw) for s in scales]
        self.offsets = [s * torch.randn(6, **draw) for s in scales]
        self.w = torch.randn(dim, **draw).requires_grad_()
        self.names = [f"t{i}" for i in range(len(scales))]

    def __call__(self, rows: slice = slice(None)) -> dict[str, Tensor]:
        parts = zip(self.names, self.matrices, self.offsets, strict=True)
        return {n: (a[rows] @ self.w - b[rows]).square().mean() for n, a, b in parts}


def balanced(scales: tuple[float, ...] = (100.0, 1.0), **options: Any) -> tuple[Tasks, GradNormLoss]:
    tasks = Tasks(scales)
    return tasks, GradNormLoss(names=tasks.names, **options).double()


def test_gradnorm_equalises_norms() -> None:
    tasks, loss = balanced((3.0, 1.0), alpha=0.0, lr=2e-4)
    for _ in range(1500):
        trace = loss.balance(tasks(), tasks.w)
    norms = trace["gradient_norms"]
    assert norms.max() / norms.min() < 1.1
    close(float(loss.weight.stack().sum()), 2.0)
    assert (loss.weight.stack() > 0).all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5])
def test_gradnorm_targets_follow_alpha(alpha: float) -> None:
    """By hand: the mean norm times the relative rate to the power of alpha."""
    tasks, loss = balanced((3.0, 1.0), alpha=alpha, lr=1e-3)
    first = tasks()
    loss.balance(first, tasks.w)
    with torch.no_grad():
        tasks.w.mul_(0.2)
    weights = loss.weight.stack().detach()
    now = tasks()
    trace = loss.balance(now, tasks.w)
    norms = torch.stack([torch.autograd.grad(tasks()[n], tasks.w)[0].norm() for n in tasks.names]) * weights
    ratio = torch.stack([(now[n] / first[n]).detach() for n in tasks.names])
    rate = ratio / ratio.mean()
    assert (rate - 1).abs().max() > 0.05, "equal rates would show nothing"
    torch.testing.assert_close(trace["target"], norms.mean() * rate**alpha, rtol=1e-9, atol=0)


def test_gradnorm_no_gradient_flows_through_the_weights() -> None:
    tasks, loss = balanced()
    values = tasks()
    out = loss(values)
    loss.balance(values, [tasks.w])
    (gradient,) = torch.autograd.grad(out.loss, tasks.w)
    (plain,) = torch.autograd.grad(sum(tasks().values()), tasks.w)
    torch.testing.assert_close(gradient, plain)
    assert not list(loss.parameters())


def test_gradnorm_accumulates_micro_batches() -> None:
    whole_tasks, whole = balanced(lr=1e-4)
    parts_tasks, parts = balanced(lr=1e-4)
    want = whole.balance(whole_tasks(), whole_tasks.w)
    for rows in (slice(0, 2), slice(2, 4)):
        assert parts.balance(parts_tasks(rows), parts_tasks.w, update=False) == {}
        assert not parts.started
    got = parts.balance(parts_tasks(slice(4, 6)), parts_tasks.w)
    for key, value in want.items():
        torch.testing.assert_close(got[key], value)
    torch.testing.assert_close(parts.weight.stack(), whole.weight.stack())


def test_gradnorm_loss_scale_and_overflow() -> None:
    tasks, loss = balanced(lr=1e-4)
    other_tasks, other = balanced(lr=1e-4)
    want = loss.balance(tasks(), tasks.w)
    got = other.balance(other_tasks(), other_tasks.w, loss_scale=torch.tensor(2.0**10))
    torch.testing.assert_close(got["gradient_norms"], want["gradient_norms"])
    before = {k: v.clone() for k, v in loss.state_dict().items()}
    loss.balance({n: v * math.inf for n, v in tasks().items()}, tasks.w)
    for key, value in loss.state_dict().items():
        assert torch.equal(value, before[key]), "an overflow changes nothing"


def test_gradnorm_half_precision_gradients_survive_with_a_loss_scale() -> None:
    w = torch.tensor([1e-4, 2e-4], dtype=torch.float16, requires_grad=True)

    def values() -> dict[str, Tensor]:
        return {"a": (w.square().sum() * 2.0**-14).float(), "b": w.sum().float()}

    lost = GradNormLoss(names=["a", "b"]).balance(values(), w)
    kept = GradNormLoss(names=["a", "b"]).balance(values(), w, loss_scale=2.0**12)
    assert lost["gradient_norms"][0] == 0
    close(float(kept["gradient_norms"][0]), 2 * math.sqrt(5) * 1e-4 * 2.0**-14, 2e-3)


def test_gradnorm_on_an_activation() -> None:
    tasks, loss = balanced(lr=1e-4)
    activation = tasks.w * 3.0
    values = {"t0": activation.square().sum(), "t1": activation.sum()}
    trace = loss.balance(values, activation)
    want = [2 * activation.detach().norm(), torch.tensor(2.0, dtype=DOUBLE)]
    torch.testing.assert_close(trace["gradient_norms"], torch.stack(want))


def test_gradnorm_continues_bitwise() -> None:
    def run(stop: int | None) -> list[float]:
        tasks, loss = balanced(lr=1e-4)
        seen = []
        for step in range(8):
            if step == stop:
                stream = io.BytesIO()
                torch.save(loss.state_dict(), stream)
                loss = GradNormLoss(names=tasks.names, lr=1e-4).double()
                loss.load_state_dict(torch.load(io.BytesIO(stream.getvalue())))
            values = tasks()
            out = loss(values)
            loss.balance(values, tasks.w)
            (gradient,) = torch.autograd.grad(out.loss, tasks.w)
            tasks.w = (tasks.w - 1e-6 * gradient).detach().requires_grad_()
            seen.append(out.loss.item())
        return seen

    assert run(4) == run(None)


def test_gradnorm_errors() -> None:
    tasks, loss = balanced()
    values = tasks()
    with pytest.raises(ValueError, match="none of the terms"):
        loss.balance(values, torch.ones(2, requires_grad=True))
    with pytest.raises(ValueError, match="values with a graph"):
        loss.balance({n: v.detach() for n, v in values.items()}, tasks.w)
    with pytest.raises(ValueError, match="initial_losses must name"):
        GradNormLoss(names=["a", "b"], initial_losses={"a": 1.0})
    unused = loss.balance({"t0": values["t0"], "t1": torch.tensor(1.0, dtype=DOUBLE, requires_grad=True)}, tasks.w)
    assert unused["gradient_norms"][1] == 0


# ------------------------------------------------------------------------------------------------------------ product
def test_product_is_normalised_by_earlier_batches() -> None:
    loss = ProductLoss(names=["a", "b"], eps=1e-9, mean_steps=2, momentum=0.9).double()
    steps = [(4.0, 1.0), (2.0, 3.0), (3.0, 2.0), (1.0, 1.0)]
    means, seen = (4.0, 1.0), []
    for step, numbers in enumerate(steps):
        out = loss(given(*numbers))
        want = math.prod(x / m for x, m in zip(numbers, means, strict=True))
        close(out.loss.item(), want, 1e-6)
        share = 1 / (step + 1) if step < 2 else 0.1
        means = tuple(m + share * (x - m) for x, m in zip(numbers, means, strict=True))
        seen.append(float(loss.running_mean.a))
        close(seen[-1], means[0], 1e-9)
    loss.eval()
    loss(given(9.0, 9.0))
    assert (float(loss.running_mean.a), int(loss.n_updates)) == (seen[-1], 4)


def test_product_gradient_vanishes_with_another_term() -> None:
    values = given(1.0, 1e-9)
    assert abs(grads(ProductLoss(names=["a", "b"], normalize=False, eps=1e-9)(values).loss, values)[0]) < 1e-8
    log = grads(GeometricMeanLoss(objective="log_sum")(values).loss, values)
    close(log[0], 1.0, 1e-6)


def test_product_clamps_silence_gradients() -> None:
    values = given(50.0, 3.0)
    silent = ProductLoss(names=["a", "b"], normalize=False, max_total=100.0)(values)
    assert grads(silent.loss, values) == [0.0, 0.0]
    assert grads(ProductLoss(names=["a", "b"], normalize=False)(values).loss, values)[0] > 0


# ------------------------------------------------------------------------------------------------------------- owners
class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, *, y: Tensor | None = None) -> dict[str, Tensor]:
        return {"loss": self.factor * (x if y is None else x - y).square().mean()}


@pytest.mark.parametrize("cls", [GeometricMeanLoss, UncertaintyWeightedLoss, GradNormLoss, ProductLoss])
def test_owned_terms_answer_as_given_ones(cls: Any) -> None:
    x, y = torch.arange(4.0), torch.ones(4)
    terms = {"l1": nn.L1Loss(), "square": Scaled(2.0)}
    owner = cls(terms=terms, arguments={"l1": {"input": "x", "target": "y"}})
    values = {"l1": (x - y).abs().mean(), "square": 2 * (x - y).square().mean()}
    given_names = cls(names=["l1", "square"])
    torch.testing.assert_close(owner(x=x, y=y).loss, given_names(values).loss)
    assert owner.compute(x=x, y=y) == values
    with pytest.raises(TypeError, match="no term takes the argument 'z'"):
        owner(x=x, z=y)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (UncertaintyWeightedLoss, {}, "give terms or names"),
        (GradNormLoss, {"names": ["a"], "terms": {"a": nn.L1Loss()}}, "either terms or names"),
        (GradNormLoss, {"names": ["a", "a"]}, "distinct names"),
        (ProductLoss, {"names": ["a.b"]}, "cannot name a term"),
        (ProductLoss, {"names": ["forward"]}, "cannot name a term"),
        (UncertaintyWeightedLoss, {"names": ["a"], "likelihood": "cauchy"}, "must be one of 'gaussian'"),
        (UncertaintyWeightedLoss, {"names": ["a"], "init": {"b": 1.0}}, r"init: \['b'\] are no terms"),
        (UncertaintyWeightedLoss, {"names": ["a"], "log_variance_range": (1.0, 1.0)}, "greater than 1"),
        (GeometricMeanLoss, {"focus": ["a"], "objective": "log_sum"}, "use exponents"),
        (GeometricMeanLoss, {"eps": "1e-8"}, "eps must be one of 'dynamic', found '1e-8'"),
        (GeometricMeanLoss, {"names": ["a"], "exponents": {"b": 1.0}}, "are no terms"),
        (GeometricMeanLoss, {"exponents": 0.0}, "greater than 0"),
        (GeometricMeanLoss, {"arguments": {"a": {}}}, "arguments belong to terms"),
    ],
)
def test_constructor_errors(cls: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**options)


def test_value_errors() -> None:
    loss = ProductLoss(names=["a", "b"])
    for values, message in (
        ({"a": torch.tensor(1.0)}, r"values must be \['a', 'b'\], found \['a'\]"),
        (
            {"a": torch.tensor(1.0), "b": torch.ones(2)},
            r"'b'\] must be a 0-d floating tensor, found torch.float32 \[2\]",
        ),
        ({"a": torch.tensor(1.0), "b": 2.0}, r"values\['b'\] must be a 0-d floating tensor, found the float 2.0"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(values)
    with pytest.raises(ValueError, match="owns no terms"):
        loss.compute(1)
