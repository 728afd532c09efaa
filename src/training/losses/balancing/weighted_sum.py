"""Weighted sum of losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..base import LossOutput
from ..loss_registry import LossRegistry
from .terms import TermsLoss, check_weights

__all__ = ["WeightedSumLoss"]


@LossRegistry.register("weighted_sum")
class WeightedSumLoss(TermsLoss):
    """Fixed weighted sum of any named losses: ``loss = sum_k w_k L_k``, added in the order of the terms.

    Use it where weights are known. Weights that adapt: ``uncertainty``, ``gradnorm``, ``geometric_mean``; a task each
    with its own input and target: ``multitask``.

    Example::

        loss = WeightedSumLoss(
            terms={"clip": CLIPLoss(), "vicreg": VICRegLoss()},
            weights={"vicreg": 0.1},
            arguments={"vicreg": {"z_a": "vision_features", "z_b": "text_features"}},
        )
        out = loss(vision_features=v, text_features=t)

    Args:
        terms: name -> loss ``L_k``, which returns a tensor, or a dict with ``loss``. All of one shape.
        weights: name -> ``w_k >= 0``; 1 where left out. A plain attribute that may be changed between calls.
        arguments: per term, its parameter -> keyword of this call, where the two differ.
        evaluate_zero_weight: also call terms of weight 0, for their metrics (and random draws); default: skip them,
            and report 0.

    ``forward`` takes what the terms take: positional arguments go to all, a keyword to those that have a parameter of
    its name.

    Returns:
        ``LossOutput``: ``loss``; per term ``terms.<name>`` (raw), ``weighted.<name>``, ``weights.<name>``, and
        ``metrics.<name>.<key>`` for every tensor in its dict. All but ``loss`` are detached.

    Raises:
        ValueError: a negative weight, an unknown name, only zero weights, terms of different shapes or that return
            neither a tensor nor a dict with ``loss``.
        TypeError: a keyword that no term takes.

    Differs from the old classes (a wrapper of three losses, a list of criteria, an image trio, VICReg with SIGReg): any
    number of terms, keys that cannot collide, no host synchronisation, weight 0 costs nothing, and each term is called
    with the arguments that it has.
    """

    def __init__(
        self,
        *,
        terms: Mapping[str, nn.Module],
        weights: Mapping[str, float] | None = None,
        arguments: Mapping[str, Mapping[str, str]] | None = None,
        evaluate_zero_weight: bool = False,
    ) -> None:
        super().__init__(terms=terms, arguments=arguments)
        self.weights = check_weights(weights, self.terms)
        self.evaluate_zero_weight = evaluate_zero_weight

    def forward(self, *args: Any, **kwargs: Any) -> LossOutput:
        """The weighted sum over the terms."""
        names = [name for name in self.terms if self.weights[name] or self.evaluate_zero_weight]
        if not names:
            raise ValueError(f"weights must not all be 0, found {self.weights}")
        values, metrics = self.call_terms(names, args, kwargs)
        loss, *others = [
            value if self.weights[name] == 1 else self.weights[name] * value for name, value in values.items()
        ]
        for term in others:
            loss = loss + term
        like = loss.detach()
        entries: dict[str, Tensor] = {}
        for name in self.terms:
            weight, value = self.weights[name], values.get(name)
            # a copy: the mean of a torch loss may hold the memory of all its elements
            raw = like.new_zeros(()) if value is None else value.detach().clone()
            entries |= {f"terms.{name}": raw, f"weighted.{name}": weight * raw}
            entries[f"weights.{name}"] = like.new_full((), weight)
        return self.output(loss, **entries, **metrics)

    def extra_repr(self) -> str:
        """Weights."""
        return f"weights={self.weights}"
