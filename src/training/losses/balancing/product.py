"""Product of losses, alone or beside their weighted sum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..base import LossOutput, keeps_state, require_number
from ..base.schedules import Schedule
from ..functional import not_finite
from ..loss_registry import LossRegistry
from .balancer import Arguments, NamedScalars, Names, TermBalancer, Terms, stack_values, tagged
from .terms import check_weights

__all__ = ["ProductLoss"]


@LossRegistry.register("product")
class ProductLoss(TermBalancer):
    """The product of losses that are normalised by their running means.

    Use it only to continue an experiment that used it: the gradient of one term is proportional to the product of the
    others, so it vanishes when one of them is near zero. For the idea behind it prefer
    ``GeometricMeanLoss``.

    With ratios ``q_i = L_i / (m_i + 1e-8)`` to the running means ``m_i``,

    ``P = prod_i (q_i + eps)``, ``loss = (1 - w) sum_i alpha_i L_i + w min(P, max_total)``.

    Args:
        terms: name -> loss, see ``TermBalancer``.
        arguments: per owned term, its parameter -> keyword of the call, where the two differ.
        names: or the names of the given values.
        eps: added to every ratio.
        normalize: divide by the running means; else ``q_i = L_i``.
        warmup: number of updates of the means after which they are used; before, ``q_i = L_i``. With 0 the first
            call divides by itself, and there is no step in the objective.
        mean_steps: so many updates average evenly; from then on the means are exponential.
        momentum: of the exponential means.
        include_current: update the means with the batch before they are used, instead of after. The ratio of the first
            call is 1 in both cases.
        max_ratio: clamp of ``q_i``, above which a term has no gradient; ``None``: no clamp.
        max_total: ``max_total``, above which the product has no gradient; ``None``: no clamp.
        product_weight: ``w`` in [0, 1]. May be scheduled.
        additive_weights: ``alpha_i`` per name (missing: 1), used where ``product_weight < 1``.
        schedules: of ``product_weight``.

    The means are updated in training mode only, per process (no exchange between processes), without a gradient.

    Returns:
        ``LossOutput`` with ``loss``, ``terms.<name>`` (raw), ``normalized.<name>``, ``product`` (clamped) and
        ``additive``.

    State: ``running_mean.<name>``, ``n_updates``.

    Raises:
        ValueError: neither terms nor names, numbers out of range, wrong values.

    Differs from the old ``MultiplicativeLoss``: normalised from the first call, by earlier batches, in the precision of
    the losses; no clamps; always in log space; from the old ``HybridLoss``: the terms are computed once.
    """

    needs_names = True
    schedulable = ("product_weight",)
    changing = ("n_updates",)
    n_updates: Tensor

    def __init__(
        self,
        *,
        terms: Terms = None,
        arguments: Arguments = None,
        names: Names = None,
        eps: float = 1e-4,
        normalize: bool = True,
        warmup: int = 0,
        mean_steps: int = 100,
        momentum: float = 0.99,
        include_current: bool = False,
        max_ratio: float | None = None,
        max_total: float | None = None,
        product_weight: float = 1.0,
        additive_weights: Mapping[str, float] | None = None,
        schedules: Mapping[str, Schedule | Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(terms=terms, arguments=arguments, names=names)
        require_number("eps", eps, low=0, exclusive=True)
        require_number("warmup", warmup, low=0, integer=True)
        require_number("mean_steps", mean_steps, low=1, integer=True)
        require_number("momentum", momentum, low=0, high=1)
        require_number("product_weight", product_weight, low=0, high=1)
        for name, bound in (("max_ratio", max_ratio), ("max_total", max_total)):
            if bound is not None:
                require_number(name, bound, low=0, exclusive=True)
        self.eps, self.normalize, self.warmup = eps, normalize, warmup
        self.mean_steps, self.momentum, self.include_current = mean_steps, momentum, include_current
        self.max_ratio, self.max_total, self.product_weight = max_ratio, max_total, product_weight
        self.additive_weights = check_weights(additive_weights, self.fixed_names)
        self.running_mean = NamedScalars(dict.fromkeys(self.fixed_names, 1.0))
        self.register_buffer("n_updates", torch.zeros((), dtype=torch.int64))
        self.attach_schedules(schedules)

    @keeps_state
    def combine(self, values: Mapping[str, Tensor]) -> LossOutput:
        """The mixture of weighted sum and product."""
        raw = stack_values(self.checked(values))
        before = self.running_mean.stack().to(raw.dtype), self.n_updates.clone()
        after = self._updated(raw.detach(), *before) if self.training else before
        ratios = self._ratios(raw, *(after if self.include_current else before))
        # the clamps hide infinities
        logs = (ratios + self.eps).clamp(min=torch.finfo(raw.dtype).tiny).log().sum() + not_finite(raw).sum()
        product = logs.exp() if self.max_total is None else self._bounded(logs, self.max_total)
        weights = self.additive_weights.values()
        additive = torch.stack([w * value for w, value in zip(weights, raw.unbind(), strict=True)]).sum()
        w = self.current("product_weight")
        if self.training:
            self.running_mean.write(after[0])
            self.n_updates.copy_(after[1])
        return self.output(
            (1 - w) * additive + w * product,
            **tagged("terms", self.fixed_names, raw),
            **tagged("normalized", self.fixed_names, ratios),
            product=product,
            additive=additive,
        )

    @staticmethod
    def _bounded(logs: Tensor, bound: float) -> Tensor:
        """``min(exp(logs), bound)``, without an overflow that would turn the gradient of 0 into NaN."""
        limit = math.log(bound)
        return torch.where(logs.detach() > limit, bound, logs.clamp(max=limit).exp().clamp(max=bound))

    def _updated(self, raw: Tensor, means: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        share = torch.where(count < self.mean_steps, 1 / (count.to(raw.dtype) + 1), 1 - self.momentum)
        return means + share * (raw - means), count + 1

    def _ratios(self, raw: Tensor, means: Tensor, count: Tensor) -> Tensor:
        if not self.normalize:
            return raw
        # nothing seen yet: the batch is its own mean
        means = torch.where(count > 0, means, raw.detach())
        ratios = raw / (means + 1e-8)
        if self.max_ratio is not None:
            ratios = ratios.clamp(max=self.max_ratio)
        return torch.where(count >= self.warmup, ratios, raw)

    def extra_repr(self) -> str:
        """Configuration."""
        return (
            f"eps={self.eps}, normalize={self.normalize}, warmup={self.warmup}, mean_steps={self.mean_steps}, "
            f"momentum={self.momentum}, include_current={self.include_current}, max_ratio={self.max_ratio}, "
            f"max_total={self.max_total}"
        )
