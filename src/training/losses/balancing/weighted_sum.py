"""Weighted sum of losses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from ..base import LossOutput
from ..loss_registry import LossRegistry
from .terms import TermsLoss, check_weights


@LossRegistry.register("weighted_sum")
class WeightedSumLoss(TermsLoss):
    """Fixed weighted sum of any named losses: ``loss = sum_k w_k L_k``, added in the order of the terms.

    Weights that adapt: ``uncertainty``, ``gradnorm``, ``geometric_mean``; one input per task: ``multitask``.

    Example::

        names = {"vicreg": {"z_a": "vision_features", "z_b": "text_features"}}
        loss = WeightedSumLoss(terms={"clip": CLIPLoss(), "vicreg": VICRegLoss()}, arguments=names)
        out = loss(vision_features=v, text_features=t)

    Args:
        terms: name -> loss ``L_k``, which returns a tensor, or a dict with ``loss``. All of one shape.
        weights: name -> ``w_k >= 0``; 1 where left out. A plain attribute that may be changed between calls.
        arguments: per term, its parameter -> keyword of this call, where the two differ. Positional arguments go to
            all terms, a keyword to those that have a parameter of its name.
        evaluate_zero_weight: also call terms of weight 0, for their metrics (and random draws), not report 0 for them.

    Returns:
        ``LossOutput``: ``loss``; per term ``terms.<name>`` (raw), ``weighted.<name>``, ``weights.<name>``, and
        ``metrics.<name>.<key>`` for every tensor in its dict. All but ``loss`` are detached.

    Raises:
        ValueError: unknown names, negative or only zero weights, values of different shapes, no tensor and no dict.
        TypeError: a keyword that no term takes.

    Differs from the old classes (three losses, a list of criteria, an image trio): any number of terms, keys that
    cannot collide, no host synchronisation, weight 0 costs nothing, each term gets the arguments that it has.
    """

    shown = ("weights",)

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
        weighted = {n: value if self.weights[n] == 1 else self.weights[n] * value for n, value in values.items()}
        loss = reduce(torch.add, weighted.values())
        like = loss.detach()
        entries: dict[str, Tensor] = {}
        for name in self.terms:
            weight = self.weights[name]
            # a copy: the mean of a torch loss may hold the memory of all its elements
            raw = values[name].clone() if name in values else like.new_zeros(())
            entries[f"terms.{name}"] = raw
            entries[f"weighted.{name}"] = weighted[name] if name in values and weight != 1 else raw
            entries[f"weights.{name}"] = like.new_full((), weight)
        return self.output(loss, **entries, **metrics)
