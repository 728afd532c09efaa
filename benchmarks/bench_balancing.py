"""Balancers: agreement with torchjd's scalarizers and time per call, and a two-task toy with a known optimum.

    python benchmarks/bench_balancing.py [--calls 300] [--repeats 7] [--steps 2500]

torchjd is optional (``pip install torchjd``): without it its rows are left out. Time is the median over rounds in which
all rows take turns, forward and backward, in one process on one thread.

The toy: ``L_i = s_i ((x - c_i)^2 + y^2 + 2)`` with centres -1 and 1 and scales 100 and 1. The tasks pull against each
other with very different force; free of scale, the optimum is (0, 0). Start at (0, 2), Adam with rate 0.01 and betas
(0.9, 0.99) for position and learned weights; a method has reached the optimum from the step on after which it stays
within 0.02.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from training_losses.balancing import GeometricMeanLoss, GradNormLoss, LinearRamp, ProductLoss, UncertaintyWeightedLoss

NAMES = ["a", "b"]
SCALES = (100.0, 1.0)
START = {"a": math.log(700.0), "b": math.log(7.0)}  # logarithms of the first losses

FALLING = LinearRamp(start=3e-5, end=1e-6, length=2000)


def scalarizers() -> Any | None:
    try:
        return importlib.import_module("torchjd.scalarization")
    except ImportError:
        return None


class Vector(nn.Module):
    """A scalarizer of torchjd, called with a mapping as the balancers are."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, values: dict[str, Tensor]) -> Tensor:
        return self.inner(torch.stack(list(values.values())))


class FixedWeights(nn.Module):
    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, values: dict[str, Tensor]) -> Tensor:
        return sum(w * v for w, v in zip(self.weights, values.values(), strict=True))  # type: ignore[return-value]  # >= 1


def loss_of(result: Any) -> Tensor:
    return result["loss"] if isinstance(result, dict) else result


# ---------------------------------------------------------------------------------------------------------- agreement
def agreement(jd: Any) -> None:
    names = [f"t{i}" for i in range(3)]
    numbers = torch.tensor([31.88, 0.36, 0.7], dtype=torch.float64)
    pairs: list[tuple[str, nn.Module, nn.Module]] = [
        ("geometric mean (eps=0)", GeometricMeanLoss(eps=0.0), Vector(jd.GeometricMean())),
        ("uncertainty, s = 0", UncertaintyWeightedLoss(names=names), Vector(jd.UW(3))),
        ("uncertainty, s = (0.5, -1, 2)", UncertaintyWeightedLoss(names=names), Vector(jd.UW(3))),
    ]
    s = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    print("\n| definition | ours | torchjd | value differs by | gradient differs by |\n|---|---|---|---|---|")
    for title, ours, theirs in pairs:
        ours.double()
        theirs.double()
        if "0.5" in title:
            ours.log_variance.write(s)  # type: ignore[operator,union-attr]  # an uncertainty loss
            theirs.inner.log_var.data.copy_(s)  # type: ignore[operator,union-attr]  # the same
        found = []
        for balancer in (ours, theirs):
            leaf = numbers.clone().requires_grad_()
            loss = loss_of(balancer(dict(zip(names, leaf.unbind(), strict=True))))
            parameters = list(balancer.parameters())
            grads = torch.autograd.grad(loss, [leaf, *parameters])
            found.append((loss.detach(), torch.cat([g.reshape(-1) for g in grads])))
        (a, da), (b, db) = found
        print(f"| {title} | {a:.6f} | {b:.6f} | {abs(a - b):.1e} | {(da - db).abs().max():.1e} |")


# --------------------------------------------------------------------------------------------------------------- time
def timing(jd: Any, calls: int, repeats: int) -> None:
    names = [f"t{i}" for i in range(3)]
    rows: dict[str, nn.Module] = {
        "sum with fixed weights": FixedWeights(1.0, 0.1, 0.05),
        "GeometricMeanLoss": GeometricMeanLoss(),
        "UncertaintyWeightedLoss": UncertaintyWeightedLoss(names=names),
        "ProductLoss": ProductLoss(names=names),
        "GradNormLoss, forward only": GradNormLoss(names=names),
    }
    if jd is not None:
        rows |= {"torchjd GeometricMean": Vector(jd.GeometricMean()), "torchjd UW": Vector(jd.UW(3))}

    def once(balancer: nn.Module) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            leaf = torch.tensor([31.88, 0.36, 0.7], requires_grad=True)
            loss_of(balancer(dict(zip(names, leaf.unbind(), strict=True)))).backward()
        return (time.perf_counter() - start) / calls

    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(repeats + 1):
        for name, balancer in rows.items():
            seconds[name].append(once(balancer))
    base = statistics.median(seconds["sum with fixed weights"][1:])
    print("\n| three terms, forward and backward | microseconds | ratio to the plain sum |\n|---|---|---|")
    for name, found in seconds.items():
        median = statistics.median(found[1:])
        print(f"| {name} | {1e6 * median:.0f} | {median / base:.2f} |")


# ---------------------------------------------------------------------------------------------------------------- toy
def terms(w: Tensor) -> dict[str, Tensor]:
    centres = (-1.0, 1.0)
    return {
        name: scale * ((w[0] - centre) ** 2 + w[1] ** 2 + 2.0)
        for name, scale, centre in zip(NAMES, SCALES, centres, strict=True)
    }


def run(balancer: nn.Module, steps: int) -> tuple[int | None, Tensor]:
    """First step from which on the optimum is held (``None``: never), and where it ends."""
    w = torch.tensor([0.0, 2.0], dtype=torch.float64, requires_grad=True)
    balancer.double()
    optimizer = torch.optim.Adam([{"params": [w]}, {"params": list(balancer.parameters())}], lr=0.01, betas=(0.9, 0.99))
    reached: int | None = None
    for step in range(steps):
        optimizer.zero_grad()
        values = terms(w)
        loss = loss_of(balancer(values))
        if isinstance(balancer, GradNormLoss):
            if balancer.schedules:
                balancer.step_schedule(step)
            balancer.balance(values, w)
        loss.backward()
        optimizer.step()
        near = float(w.detach().norm()) < 0.02
        reached = (step + 1 if reached is None else reached) if near else None
    return reached, w.detach()


def toy(jd: Any, steps: int) -> None:
    rows: dict[str, Callable[[], nn.Module]] = {
        "sum, equal weights": lambda: FixedWeights(1.0, 1.0),
        "sum, weights 1/scale (needs to know them)": lambda: FixedWeights(0.01, 1.0),
        "GeometricMeanLoss": GeometricMeanLoss,
        "GeometricMeanLoss, log_sum": lambda: GeometricMeanLoss(objective="log_sum"),
        "UncertaintyWeightedLoss": lambda: UncertaintyWeightedLoss(names=NAMES),
        "UncertaintyWeightedLoss, init log L(0)": lambda: UncertaintyWeightedLoss(names=NAMES, init=START),
        "GradNormLoss, alpha 0": lambda: GradNormLoss(names=NAMES, alpha=0.0, lr=3e-5),
        "GradNormLoss, alpha 1.5": lambda: GradNormLoss(names=NAMES, alpha=1.5, lr=3e-5),
        "GradNormLoss, alpha 1.5, lr falling": lambda: GradNormLoss(names=NAMES, schedules={"lr": FALLING}),
        "ProductLoss": lambda: ProductLoss(names=NAMES),
    }
    if jd is not None:
        rows |= {
            "torchjd GeometricMean": lambda: Vector(jd.GeometricMean()),
            "torchjd UW": lambda: Vector(jd.UW(2)),
        }
    print(f"\n| method, {steps} steps | reaches the optimum | ends at |\n|---|---|---|")
    for name, build in rows.items():
        reached, end = run(build(), steps)
        answer = "no" if reached is None else f"step {reached}"
        print(f"| {name} | {answer} | ({end[0]:+.3f}, {end[1]:+.3f}) |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2500)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    jd = scalarizers()
    print(f"torch {torch.__version__}, " + ("no torchjd" if jd is None else "torchjd beside it"))
    if jd is not None:
        agreement(jd)
    timing(jd, arguments.calls, arguments.repeats)
    toy(jd, arguments.steps)


if __name__ == "__main__":
    main()
