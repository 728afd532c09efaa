"""Weighting by learned uncertainties."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..base import LossOutput, require_choice, require_number
from ..functional import returning_clamp
from ..loss_registry import LossRegistry
from .balancer import Arguments, NamedScalars, Names, TermBalancer, Terms, per_name, stack_values, tagged

__all__ = ["UncertaintyWeightedLoss"]

# likelihood -> (rate, front): the weight of a term is front * exp(-rate * s)
LIKELIHOODS = {"gaussian": (1.0, 0.5), "laplace": (0.5, 1.0), "classification": (1.0, 1.0)}


@LossRegistry.register("uncertainty")
class UncertaintyWeightedLoss(TermBalancer):
    """Learn a weight per term from the size of its errors (homoscedastic uncertainty).

    Use it when every term is (close to) a negative log-likelihood and the parameters of the loss can be trained
    with the model. With ``s_i = log sigma_i^2`` learned, the loss is ``sum_i w_i L_i + s_i / 2``, where

    * ``gaussian`` (squared errors): ``w = exp(-s) / 2``;
    * ``laplace`` (absolute errors, ``s = log b^2``): ``w = exp(-s / 2)``;
    * ``classification`` (cross entropies; an approximation): ``w = exp(-s)``.

    For fixed ``L`` the Gaussian form is smallest at ``s = log L``, where it is
    ``1/2 + log(L) / 2`` with weight ``1/(2L)``: at its optimum it *is* half of the log sum that
    ``GeometricMeanLoss`` minimises directly, up to the lag of ``s``. Like that it is not bounded
    below as ``L -> 0``: a term of exactly 0 would drive ``s`` to minus infinity and the weight to infinity.
    ``log_variance_range`` bounds both.

    ``log_scale=c`` puts ``h_i = log(1 + L_i / c)`` in place of ``L_i``: the geometric mean with learned
    uncertainties. Since ``h >= 0``, no scale can be lowered for ever; dividing the signed ``log L_i`` by a
    learned scale, as an old sketch did, has no minimum as soon as one loss is below 1.

    Args:
        terms: name -> loss, see ``TermBalancer``.
        arguments: per owned term, its parameter -> keyword of the call, where the two differ.
        names: or the names of the given values.
        likelihood: one for all, or per name (missing: ``gaussian``).
        init: of ``s``, one for all, or per name (missing: 0).
        log_variance_range: ``(low, high)`` that ``s`` is clamped to; the default reaches to ``L = 2e-9``. At a
            bound the gradient still leads back inside. ``None``: no bounds.
        log_scale: ``c > 0``, or ``None``.

    Give ``loss.parameters()`` to the optimiser, **without weight decay** (decay pulls every sigma to 1). A mean-reduced
    loss lacks the number of elements that the likelihood has as a factor; it is left out here too.

    Returns:
        ``LossOutput`` with ``loss``, ``terms.<name>`` (raw), ``weights.<name>`` (the factor in front of the term),
        ``weighted.<name>`` (with its share of the regulariser), ``sigma.<name>`` (``exp(s / 2)``).

    State: ``log_variance.<name>``, 0-d.

    Raises:
        ValueError: neither terms nor names, unknown names or likelihoods, an empty range, wrong values.

    Paper: Kendall, Gal, Cipolla: Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
    Semantics, CVPR 2018. The Laplace form is derived the same way; range and log scale are additions.

    Differs from the old sketch: it runs (the sketch raised in every forward); 0-d parameters ``log_variance`` in
    place of ``log_vars`` of shape ``[1]``; any terms; the metric's own weights are not trained along.
    """

    needs_names = True

    def __init__(
        self,
        *,
        terms: Terms = None,
        arguments: Arguments = None,
        names: Names = None,
        likelihood: str | Mapping[str, str] = "gaussian",
        init: float | Mapping[str, float] = 0.0,
        log_variance_range: tuple[float, float] | None = (-20.0, 20.0),
        log_scale: float | None = None,
    ) -> None:
        super().__init__(terms=terms, arguments=arguments, names=names)
        self.likelihoods: tuple[str, ...] = per_name("likelihood", likelihood, self.fixed_names, "gaussian")
        for name, kind in zip(self.fixed_names, self.likelihoods, strict=True):
            require_choice(f"likelihood[{name!r}]", kind, tuple(LIKELIHOODS))
        starts = dict(zip(self.fixed_names, per_name("init", init, self.fixed_names, 0.0), strict=True))
        for name, start in starts.items():
            require_number(f"init[{name!r}]", start)
        if log_variance_range is not None:
            low, high = log_variance_range
            require_number("log_variance_range[0]", low)
            require_number("log_variance_range[1]", high, low=low, exclusive=True)
        if log_scale is not None:
            require_number("log_scale", log_scale, low=0, exclusive=True)
        self.log_variance_range, self.log_scale = log_variance_range, log_scale
        self.log_variance = NamedScalars(starts, trainable=True)
        self.attach_schedules(None)

    def combine(self, values: Mapping[str, Tensor]) -> LossOutput:
        """The sum of the weighted values and their regularisers."""
        raw = stack_values(self.checked(values))
        sizes = raw if self.log_scale is None else (raw / self.log_scale).log1p()
        s = self.log_variance.stack().to(raw.dtype)
        if self.log_variance_range is not None:
            s = returning_clamp(s, *self.log_variance_range)
        weights = self._weights(s)
        weighted = weights * sizes + s / 2
        names = self.fixed_names
        return self.output(
            weighted.sum(),
            **tagged("terms", names, raw),
            **tagged("weights", names, weights),
            **tagged("weighted", names, weighted),
            **tagged("sigma", names, (s / 2).exp()),
        )

    def _weights(self, s: Tensor) -> Tensor:
        """The factors in front of the terms."""
        pairs = zip((LIKELIHOODS[kind] for kind in self.likelihoods), s.unbind(), strict=True)
        return torch.stack([front * (-rate * value).exp() for (rate, front), value in pairs])

    def extra_repr(self) -> str:
        """Configuration."""
        kinds = dict(zip(self.fixed_names, self.likelihoods, strict=True))
        return f"likelihood={kinds}, log_variance_range={self.log_variance_range}, log_scale={self.log_scale}"
