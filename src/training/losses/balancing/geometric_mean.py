"""Geometric mean of several losses, and its logarithm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..base import LossOutput, require_choice, require_number
from ..base.schedules import Schedule
from ..functional import not_finite
from ..loss_registry import LossRegistry
from .balancer import Arguments, Names, TermBalancer, Terms, per_name, stack_values, tagged

__all__ = ["GeometricMeanLoss"]

OBJECTIVES = ("geometric_mean", "log_mean", "log_sum")


@LossRegistry.register("geometric_mean")
class GeometricMeanLoss(TermBalancer):
    """Balance losses of very different sizes by relative, not absolute, progress.

    Use it when the terms have different units and nobody wants to tune weights: scaling a term by a constant leaves
    the direction of the step unchanged. With ``l_i = log(L_i + eps)``, exponents ``e_i`` and
    shares ``a_i = e_i / sum_j e_j``, the objective is one of

    * ``geometric_mean``: ``exp sum_i a_i l_i``, the paper's ``(prod_i L_i)^(1/n)``. With ``focus`` on
      terms F it is multiplied by ``exp(mean_j l_j)`` over j in F, the mean of these alone (the paper's
      focused strategy).
    * ``log_mean``: the logarithm of that. Its gradient does not shrink with the losses: better for plain SGD; with
      Adam-like optimisers nearly the same as the mean.
    * ``log_sum``: ``sum_i e_i l_i``.

    The gradient of the log forms is ``a_i / (L_i + eps)``: large losses get *small* absolute weights; what is
    equal is the relative rate of decrease. The total falls when one loss falls by a larger factor than the others
    rise, so a falling total does not mean that every term improves; the monitor watches for that.

    A floor keeps one term from running away to zero and taking the objective with it:
    ``floor_weight`` times ``sum_i max(0, log f - l_i)^2`` (``floor_mode="log"``). Under ``log_sum`` a single
    term settles at ``f exp(-1 / (2 w))``. ``floor_mode="value"`` is ``sum_i max(0, f - L_i)^2``, which is without
    effect for small floors: at ``f = 1e-4`` its gradient is at most 2e-4 w against 1e4 and more of the logarithm.

    Args:
        terms: name -> loss, see ``TermBalancer``.
        arguments: per owned term, its parameter -> keyword of the call, where the two differ.
        names: or the names of the given values; any mapping is taken without both.
        objective: see above.
        exponents: weight per name (missing: 1), or one for all.
        focus: names that count once more.
        eps: a number, or ``"dynamic"``: ``max(eps_floor, eps_fraction * smallest loss)``, without a gradient.
        eps_floor, eps_fraction: of the dynamic epsilon.
        floor: ``f``, the value below which a term ought not to fall.
        floor_weight: 0 switches the penalty off. May be scheduled.
        floor_mode: ``log`` or ``value``.
        schedules: of ``floor_weight``; see ``ScheduledModule``.
        check: look at the values and raise for negative losses (waits for the device; for debugging).

    Terms must not be negative. A zero is fine: logarithms are taken of at least the smallest normal number, so that
    the value stays finite and the gradient is never NaN (a loss below ``-eps`` gets no gradient).

    Returns:
        ``LossOutput`` with ``loss``, ``terms.<name>`` (raw), ``log.<name>``, ``geometric_mean`` (with the exponents,
        without focus), ``floor_penalty`` and ``eps``.

    Raises:
        ValueError: unknown names or options, exponents that are not positive, wrong terms; negative terms with
            ``check``.

    Paper: Chennupati et al., MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for Multi-Task
    Learning, CVPR workshops 2019. The epsilon, the log forms and the floor are no part of it.

    Differs from the old ``GeometricMeanLoss`` of triangulate: any terms instead of three built-in ones; the default is
    the mean of the paper and not the log sum; the penalty is on the logarithms (the old one is ``floor_mode="value"``)
    and off by default; monitoring values are detached; no branches on tensor values.
    """

    schedulable = ("floor_weight",)

    def __init__(
        self,
        *,
        terms: Terms = None,
        arguments: Arguments = None,
        names: Names = None,
        objective: str = "geometric_mean",
        exponents: float | Mapping[str, float] = 1.0,
        focus: Sequence[str] = (),
        eps: float | str = 1e-8,
        eps_floor: float = 1e-8,
        eps_fraction: float = 0.01,
        floor: float = 1e-4,
        floor_weight: float = 0.0,
        floor_mode: str = "log",
        schedules: Mapping[str, Schedule | Mapping[str, Any]] | None = None,
        check: bool = False,
    ) -> None:
        super().__init__(terms=terms, arguments=arguments, names=names)
        require_choice("objective", objective, OBJECTIVES)
        require_choice("floor_mode", floor_mode, ("log", "value"))
        if isinstance(eps, str):
            require_choice("eps", eps, ("dynamic",))
        else:
            require_number("eps", eps, low=0)
        require_number("eps_floor", eps_floor, low=0, exclusive=True)
        require_number("eps_fraction", eps_fraction, low=0)
        require_number("floor", floor, low=0, exclusive=True)
        require_number("floor_weight", floor_weight, low=0)
        for name, exponent in (exponents if isinstance(exponents, Mapping) else {"all": exponents}).items():
            require_number(f"exponents[{name!r}]", exponent, low=0, exclusive=True)
        if focus and objective == "log_sum":
            raise ValueError("focus is a part of the mean forms; with objective='log_sum' use exponents")
        for argument, mapping in (("exponents", exponents), ("focus", dict.fromkeys(focus))):
            if self.names and isinstance(mapping, Mapping):
                per_name(argument, mapping, self.names, None)
        self.objective, self.exponents, self.focus = objective, exponents, tuple(focus)
        self.eps, self.eps_floor, self.eps_fraction = eps, eps_floor, eps_fraction
        self.floor, self.floor_weight, self.floor_mode = floor, floor_weight, floor_mode
        self.check = check
        self.attach_schedules(schedules)

    def combine(self, values: Mapping[str, Tensor]) -> LossOutput:
        """The objective of the values, plus the floor penalty."""
        values = self.checked(values)
        names = tuple(values)
        raw = stack_values(values)
        if self.check and bool((raw < 0).any()):
            raise ValueError(f"values must not be negative, found {dict(zip(names, raw.tolist(), strict=True))}")
        eps = self._eps(raw)
        logs = (raw + eps).clamp(min=torch.finfo(raw.dtype).tiny).log() + not_finite(raw)
        shares, factors = self._factors(names)
        total = weighted_sum(factors, logs)
        if self.objective == "geometric_mean":
            total = total.exp()
        penalty = self._penalty(raw, logs)
        return self.output(
            total if penalty is None else total + penalty,
            **tagged("terms", names, raw),
            **tagged("log", names, logs),
            geometric_mean=weighted_sum(shares, logs).exp(),
            floor_penalty=raw.new_zeros(()) if penalty is None else penalty,
            eps=eps,
        )

    def _eps(self, raw: Tensor) -> Tensor:
        if not isinstance(self.eps, str):
            return raw.new_full((), self.eps)
        return (self.eps_fraction * raw.detach().min()).clamp(min=self.eps_floor)

    def _factors(self, names: Sequence[str]) -> tuple[list[float], list[float]]:
        """What multiplies the logarithms: in the mean, and in the objective."""
        exponents = per_name("exponents", self.exponents, names, 1.0)
        shares = [e / sum(exponents) for e in exponents]
        if self.objective == "log_sum":
            return shares, list(exponents)
        chosen = [share * float(name in self.focus) for name, share in zip(names, shares, strict=True)]
        per_name("focus", dict.fromkeys(self.focus), names, None)
        return shares, [share + extra / (sum(chosen) or 1.0) for share, extra in zip(shares, chosen, strict=True)]

    def _penalty(self, raw: Tensor, logs: Tensor) -> Tensor | None:
        if not self.scheduled_or_positive("floor_weight"):
            return None
        gap = math.log(self.floor) - logs if self.floor_mode == "log" else self.floor - raw
        penalty: Tensor = gap.relu().square().sum() * self.current("floor_weight")
        return penalty

    def extra_repr(self) -> str:
        """Configuration."""
        return f"objective={self.objective!r}, eps={self.eps!r}, floor={self.floor}, floor_mode={self.floor_mode!r}"


def weighted_sum(factors: Sequence[float], values: Tensor) -> Tensor:
    """``sum_i factors[i] * values[i]``, without a tensor made of host data (which would wait for the device)."""
    if len(set(factors)) == 1:
        return factors[0] * values.sum()
    weighted = [factor * value for factor, value in zip(factors, values.unbind(), strict=True)]
    return torch.stack(weighted).sum()
