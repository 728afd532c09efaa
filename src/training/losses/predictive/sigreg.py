"""Sliced isotropic-Gaussian regularisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..base import (
    BaseLoss,
    LossOutput,
    keeps_state,
    require_choice,
    require_floating,
    require_number,
    require_one_dtype,
)
from ..base.constants import ConstantsMixin
from ..base.schedules import Schedule, ScheduledModule
from ..base.views import require_tokens, split_views, token_rows
from ..functional import autocast_off, not_finite, squared_difference
from ..functional.counter_random import counter_normal
from ..functional.normality import characteristic_distance, gaussian_quadrature, kernel_distance, normal_quantiles
from ..loss_registry import LossRegistry

__all__ = ["SIGRegLoss"]

_HELD = 2**22
"""Numbers that a default chunk may hold (16 MiB in float32)."""


@LossRegistry.register("sigreg")
class SIGRegLoss(BaseLoss, ScheduledModule, ConstantsMixin):
    """SIGReg: embeddings should look like an isotropic Gaussian in every direction. This alone prevents collapse.

    Use it beside a prediction or invariance loss, in place of stop-gradients, momentum teachers or VICReg. The cost is
    linear in the number of rows and of directions.

    Rows ``x_1..x_n`` are projected on ``M`` random unit directions ``a_m``; each set of projections is compared with
    N(0, 1) by the statistic of Epps and Pulley, with the characteristic function
    ``phi_m(t) = mean_j exp(i t a_m.x_j)``::

        T(x) = n/M sum_m integral |phi_m(t) - exp(-t^2/2)|^2 exp(-t^2 / (2 window^2)) dt
        loss = w_I mean((a - b)^2) + w_S (T(a) + T(b)) / 2

    The directions follow from ``seed`` and a counter that each training step advances: the same on every rank, another
    set each step, saved with the state. No global random numbers are used.

    Args:
        num_slices: ``M``, directions per step.
        sigreg_weight: ``w_S``.
        invariance_weight: ``w_I``; above 0 a second view is needed.
        test_method: ``characteristic_function`` (above), or ``reference_points``: the squared maximum mean discrepancy
            (kernel ``exp(-(u - v)^2 / 2)``) between the projections and quantiles of N(0, 1), which costs ``n^2``.
        t_min: start of the integral.
        t_max: its end.
        num_knots: points of its trapezoid rule.
        window: width of its Gaussian window.
        num_test_points: quantiles of ``reference_points``.
        scale_by_samples: multiply by ``n``, so that the statistic does not vanish as the batch grows (paper).
        standardize: bring each projection to mean 0 and deviation 1 first (``(y - mean) / (std + eps)``). The
            statistic then no longer sees location and scale, which is what a collapse shows in.
        eps: see ``standardize``.
        shared_directions: the same directions for both views.
        fixed_slices: never advance the counter.
        seed: of the directions.
        tokens: rows of ``[B, N, D]``: ``flatten`` makes each token one, ``concat`` joins those of a sample.
        split_single_input: without a second view compare the first half of the batch with the second.
        chunk_size: directions that are worked on at a time; the others are not held, and are computed again in the
            backward pass. Default: as many as keep a chunk at 2^22 numbers.
        schedules: of ``sigreg_weight`` or ``invariance_weight``; moved by ``step_schedule(step)``.

    Shapes: ``z_a``, ``z_b`` ``[B, D]`` or ``[B, N, D]``, any floating dtype (half precision is accumulated in float32).
    ``directions`` ``[M, D]`` replaces the random ones for one call.

    Returns:
        ``LossOutput``: ``loss``; unweighted ``invariance_loss`` (0 without a second view), ``sigreg_loss`` (the mean of
        the views), ``sigreg_loss_a``, ``sigreg_loss_b``. All but ``loss`` are detached.

    Raises:
        ValueError: unequal shapes, an empty batch, a missing second view, an argument out of range.

    Paper: Balestriero, LeCun, "LeJEPA", 2025, arXiv 2511.08544; Epps, Pulley, "A test for normality based on the
    empirical characteristic function", Biometrika 1983.

    Differs from the old class: the published statistic is the default (the old default was a kernel statistic of
    standardised projections, blind to scale); directions are shared by the views, seeded and saved; float64 and half
    precision work; memory is bounded; an unknown method is an error.
    """

    schedulable = ("sigreg_weight", "invariance_weight")
    changing = ("step",)
    sigreg_weight: float | Tensor
    invariance_weight: float | Tensor
    step: Tensor
    knots: Tensor

    def __init__(
        self,
        *,
        num_slices: int = 1024,
        sigreg_weight: float = 1.0,
        invariance_weight: float = 0.0,
        test_method: str = "characteristic_function",
        t_min: float = -5.0,
        t_max: float = 5.0,
        num_knots: int = 17,
        window: float = 1.0,
        num_test_points: int = 17,
        scale_by_samples: bool = True,
        standardize: bool = False,
        eps: float = 1e-6,
        shared_directions: bool = True,
        fixed_slices: bool = False,
        seed: int = 0,
        tokens: str = "flatten",
        split_single_input: bool = False,
        chunk_size: int | None = None,
        schedules: Mapping[str, Schedule | Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        for name, value, low in (
            ("num_slices", num_slices, 1),
            ("num_knots", num_knots, 2),
            ("num_test_points", num_test_points, 1),
            ("seed", seed, 0),
            ("chunk_size", 1 if chunk_size is None else chunk_size, 1),
        ):
            require_number(name, value, low=low, integer=True)
        require_number("sigreg_weight", sigreg_weight, low=0.0)
        require_number("invariance_weight", invariance_weight, low=0.0)
        require_number("t_min", t_min, high=t_max)
        require_number("t_max", t_max, low=t_min, exclusive=True)
        require_number("window", window, low=0.0, exclusive=True)
        require_number("eps", eps, low=0.0, exclusive=True)
        require_choice("test_method", test_method, ("characteristic_function", "reference_points"))
        require_tokens(tokens)
        self.num_slices, self.chunk_size = num_slices, chunk_size
        self.sigreg_weight, self.invariance_weight = sigreg_weight, invariance_weight
        self.test_method, self.scale_by_samples = test_method, scale_by_samples
        self.standardize, self.eps = standardize, eps
        self.shared_directions, self.fixed_slices, self.seed = shared_directions, fixed_slices, seed
        self.tokens, self.split_single_input = tokens, split_single_input
        self.window = window
        # the integrand is even: a symmetric interval is twice its positive half
        self.folded = t_min == -t_max and num_knots % 2 == 1
        if test_method == "reference_points":
            self.register_constant("knots", lambda: normal_quantiles(num_test_points))
        elif self.folded:
            self.register_constant("knots", lambda: torch.linspace(0.0, t_max, num_knots // 2 + 1))
        else:
            self.register_constant("knots", lambda: torch.linspace(t_min, t_max, num_knots))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.attach_schedules(schedules)

    def forward(self, z_a: Tensor, z_b: Tensor | None = None, directions: Tensor | None = None) -> LossOutput:
        """The loss of two views of one batch, or of one set of embeddings."""
        if z_b is None and not self.split_single_input and not self.scheduled_or_positive("invariance_weight"):
            require_floating(z_a=z_a)
            return self.regularize(z_a, directions)
        a, b = (token_rows(z, self.tokens) for z in split_views(z_a, z_b, split_single_input=self.split_single_input))
        require_one_dtype(z_a=a, z_b=b)
        first, second = self._directions(a, directions)
        statistic_a, statistic_b = self._statistic(a, first), self._statistic(b, second)
        return self._result(squared_difference(a, b), statistic_a, statistic_b)

    @keeps_state
    def regularize(self, z: Tensor, directions: Tensor | None = None) -> LossOutput:
        """The loss of one set of embeddings, without invariance."""
        x = token_rows(z, self.tokens)
        statistic = self._statistic(x, self._directions(x, directions)[0])
        return self._result(x.new_zeros(()), statistic, statistic)

    def _result(self, invariance: Tensor, a: Tensor, b: Tensor) -> LossOutput:
        statistic = (a + b) / 2
        loss = self.current("invariance_weight") * invariance + self.current("sigreg_weight") * statistic
        return self.output(loss, invariance_loss=invariance, sigreg_loss=statistic, sigreg_loss_a=a, sigreg_loss_b=b)

    def _directions(self, x: Tensor, given: Tensor | None) -> tuple[Tensor, Tensor]:
        if not x.numel():
            raise ValueError(f"at least one embedding is needed, found rows {list(x.shape)}")
        if given is not None:
            if given.dim() != 2 or given.shape[1] != x.shape[1]:
                raise ValueError(f"directions must be [M, {x.shape[1]}], found {list(given.shape)}")
            return given.to(x.dtype), given.to(x.dtype)
        first = self._draw(x, 2 * self.step)
        second = first if self.shared_directions else self._draw(x, 2 * self.step + 1)
        if self.training and not self.fixed_slices:
            self.step.add_(1)
        return first, second

    def _draw(self, x: Tensor, step: Tensor) -> Tensor:
        normal = counter_normal(self.num_slices, x.shape[1], seed=self.seed, step=step, dtype=x.dtype)
        return F.normalize(normal, dim=1)

    def _statistic(self, x: Tensor, directions: Tensor) -> Tensor:
        n = x.shape[0]
        if self.standardize and n < 2:
            raise ValueError(f"standardize needs at least two rows, found {list(x.shape)}")
        # what a slice holds until the backward pass: the kernel, or the projections and their slopes
        per_slice = n * (n if self.test_method == "reference_points" else 4)
        step = max(_HELD // per_slice, 1) if self.chunk_size is None else self.chunk_size
        knots = self.knots.to(x.dtype)
        # tensors: a compiler takes no number that may vary as an argument of a checkpointed function
        weights = gaussian_quadrature(knots, self.window) * (2 if self.folded else 1)
        given = (x, knots, weights, x.new_full((), self.eps))
        parts = torch.split(directions, step)
        if len(parts) == 1:
            total = self._slices(directions, *given)
        else:
            total = x.new_zeros(())
            for part in parts:
                total = total + checkpoint(self._slices, part, *given, use_reentrant=False, preserve_rng_state=False)
        mean = total / directions.shape[0]
        return mean * n if self.scale_by_samples else mean

    def _slices(self, directions: Tensor, x: Tensor, knots: Tensor, weights: Tensor, eps: Tensor) -> Tensor:
        with autocast_off(x):
            y = directions @ x.mT
            if self.standardize:
                spread = y.std(dim=1, keepdim=True)
                y = (y - y.mean(dim=1, keepdim=True)) / (spread + eps + not_finite(spread))
            if self.test_method == "reference_points":
                return kernel_distance(y, knots, rows=max(_HELD // y.numel(), 1)).sum()
            return characteristic_distance(y, knots, weights).sum()

    def extra_repr(self) -> str:
        """Configuration."""
        return (
            f"num_slices={self.num_slices}, test_method={self.test_method!r}, sigreg_weight={self.sigreg_weight}, "
            f"invariance_weight={self.invariance_weight}"
        )
