"""Weighted sum of task losses, each with its own input and target."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from ..base import BaseLoss, LossOutput, kind_of, require_choice, require_numbers
from ..loss_registry import LossRegistry
from .terms import check_weights, named_modules, term_value


@LossRegistry.register("multitask")
class MultiTaskLoss(BaseLoss):
    """Sum over tasks, each with its own input and target: ``loss = sum_k w_k L_k(input_k, target_k)``.

    For models with several heads. A batch may lack tasks: they count nothing, and weights are not renormalised. With
    ``weighting="inverse_loss"`` all contribute about the same: ``r_k <- m r_k + (1 - m) L_k`` follows the losses of the
    batch (in training mode only), ``w_k`` is proportional to ``v_k / r_k`` with sum 1, ``v`` being the given weights. A
    home-made rule; for learned weights see ``uncertainty``.

    Args:
        tasks: name -> loss, called as ``loss(input, target)``; returns a tensor, or a dict with ``loss``.
        weights: name -> ``w_k >= 0``; 1 where left out.
        weighting: ``fixed`` or ``inverse_loss``.
        momentum: ``m`` in [0, 1].
        normalize_weights: divide fixed weights by their sum.

    Returns:
        ``LossOutput``: ``loss``; ``terms.<task>`` for the tasks of the batch, ``weights.<task>`` for all; detached.

    Raises:
        ValueError: broken weights, unknown tasks or none in both mappings, unreduced or non-tensor values.

    Differs from the old class: weights are used as given; running losses are buffers (``running_loss`` ``[K]``, 1 at
    the start) that validation leaves alone; a batch without any task raises; losses may return a dict.
    """

    shown = ("weighting", "weights")

    def __init__(
        self,
        *,
        tasks: Mapping[str, nn.Module],
        weights: Mapping[str, float] | None = None,
        weighting: str = "fixed",
        momentum: float = 0.9,
        normalize_weights: bool = False,
    ) -> None:
        super().__init__()
        require_choice("weighting", weighting, ("fixed", "inverse_loss"))
        require_numbers(0.0, 1.0, momentum=momentum)
        self.tasks = named_modules("tasks", tasks)
        self.weights = check_weights(weights, self.tasks)
        self.weighting, self.momentum, self.normalize_weights = weighting, momentum, normalize_weights
        if weighting == "inverse_loss":
            self.running_loss = nn.Buffer(torch.ones(len(self.tasks)))
            self.changing = ("running_loss",)

    def forward(self, inputs: Mapping[str, Any], targets: Mapping[str, Any]) -> LossOutput:
        """The weighted sum over the tasks that are in both mappings."""
        for argument, given in (("inputs", inputs), ("targets", targets)):
            if not isinstance(given, Mapping):
                raise ValueError(f"{argument} must be a mapping of task names to values, found {kind_of(given)}")
        unknown = sorted({*inputs, *targets}.difference(self.tasks))
        if unknown:
            raise ValueError(f"unknown tasks {unknown} in inputs or targets (known: {list(self.tasks)})")
        found = {
            name: term_value(name, task(inputs[name], targets[name]))[0]
            for name, task in self.tasks.items()
            if name in inputs and name in targets
        }
        if not found:
            raise ValueError(f"no task is in both inputs {list(inputs)} and targets {list(targets)}")
        for name, value in found.items():
            if value.dim():
                raise ValueError(f"task {name!r} must return one number, found shape {list(value.shape)}")
        # copies: the mean of a torch loss may hold the memory of all its elements
        terms = {name: value.detach().clone() for name, value in found.items()}
        like = next(iter(terms.values()))
        weights = self._weights(terms, like.dtype)
        entries = {f"terms.{name}": value for name, value in terms.items()}
        for name, weight in weights.items():
            entries[f"weights.{name}"] = weight if isinstance(weight, Tensor) else like.new_full((), weight)
        return self.output(reduce(torch.add, [weights[name] * value for name, value in found.items()]), **entries)

    def _weights(self, terms: Mapping[str, Tensor], dtype: torch.dtype) -> Mapping[str, float | Tensor]:
        if self.weighting == "fixed":
            total = sum(self.weights.values()) if self.normalize_weights else 1.0
            return {name: weight / total for name, weight in self.weights.items()}
        running = self.running_loss
        if self.training:
            old = running.unbind() if len(terms) < len(self.tasks) else ()
            seen = [terms[name] if name in terms else old[k] for k, name in enumerate(self.tasks)]
            running.lerp_(torch.stack(seen).to(running.dtype), 1 - self.momentum)
        inverse = running.to(dtype).clamp(min=1e-8).reciprocal()
        if len(set(self.weights.values())) > 1:
            inverse = inverse * torch.stack([inverse.new_full((), weight) for weight in self.weights.values()])
        return dict(zip(self.tasks, (inverse / inverse.sum()).unbind(), strict=True))
