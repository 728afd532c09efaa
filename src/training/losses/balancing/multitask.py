"""Weighted sum of task losses, each with its own input and target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..base import BaseLoss, LossOutput
from ..base.base_loss import require_choice, require_number
from ..loss_registry import LossRegistry
from .terms import check_weights, named_modules, term_value

__all__ = ["MultiTaskLoss"]


@LossRegistry.register("multitask")
class MultiTaskLoss(BaseLoss):
    """Sum over tasks, each with its own input and target: ``loss = sum_k w_k L_k(input_k, target_k)``.

    Use it for a model with several heads. A batch may lack tasks: they count nothing, weights are not renormalised.

    With ``weighting="inverse_loss"`` the weights follow the running size ``r`` of the losses, so that all tasks
    contribute about the same: ``r_k <- m r_k + (1 - m) L_k`` for the tasks of the batch (in training mode only), then
    ``w_k`` proportional to ``v_k / r_k`` with sum 1, ``v`` being the given weights. A large loss gets a small weight. A
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
        ValueError: no task is present in both mappings, an unknown task, unreduced or non-tensor values, broken
            weights.

    Differs from the old class: weights are used as given; running losses are buffers (``running_loss`` ``[K]``, 1 at
    the start) that validation leaves alone and that stay on the device; a batch without any task raises; losses that
    return a dict work; the order of tasks does not choose the dtype of the sum.
    """

    running_loss: Tensor

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
        require_number("momentum", momentum, low=0.0, high=1.0)
        self.tasks = named_modules("tasks", tasks)
        self.weights = check_weights(weights, self.tasks)
        self.weighting, self.momentum, self.normalize_weights = weighting, momentum, normalize_weights
        if weighting == "inverse_loss":
            self.register_buffer("running_loss", torch.ones(len(self.tasks)))

    def forward(self, inputs: Mapping[str, Any], targets: Mapping[str, Any]) -> LossOutput:
        """The weighted sum over the tasks that are in both mappings."""
        unknown = sorted((set(inputs) | set(targets)) - set(self.tasks))
        if unknown:
            raise ValueError(f"unknown tasks {unknown} in inputs or targets (known: {list(self.tasks)})")
        present = [name for name in self.tasks if name in inputs and name in targets]
        if not present:
            raise ValueError(f"no task is in both inputs {list(inputs)} and targets {list(targets)}")
        values = {name: term_value(name, self.tasks[name](inputs[name], targets[name]))[0] for name in present}
        for name, value in values.items():
            if value.dim():
                raise ValueError(f"task {name!r} must return one number, found shape {list(value.shape)}")
        like = values[present[0]].detach()
        weights = self._weights(values, like)
        loss = like.new_zeros(())
        for name, value in values.items():
            loss = loss + weights[name] * value
        # copies: the mean of a torch loss may hold the memory of all its elements
        entries = {f"terms.{name}": value.detach().clone() for name, value in values.items()}
        for name, weight in weights.items():
            entries[f"weights.{name}"] = weight if isinstance(weight, Tensor) else like.new_full((), weight)
        return self.output(loss, **entries)

    def _weights(self, values: Mapping[str, Tensor], like: Tensor) -> Mapping[str, float | Tensor]:
        if self.weighting == "fixed":
            total = sum(self.weights.values()) if self.normalize_weights else 1.0
            return {name: weight / total for name, weight in self.weights.items()}
        running = self.running_loss
        if self.training:
            old = running.unbind() if len(values) < len(self.tasks) else ()
            seen = [
                values[name].detach().to(running.dtype) if name in values else old[k]
                for k, name in enumerate(self.tasks)
            ]
            running.lerp_(torch.stack(seen), 1 - self.momentum)
        given = torch.stack([like.new_full((), weight) for weight in self.weights.values()])
        inverse = given / running.to(like.dtype).clamp(min=1e-8)
        return dict(zip(self.tasks, (inverse / inverse.sum()).unbind(), strict=True))

    def extra_repr(self) -> str:
        """Configuration."""
        return f"weighting={self.weighting!r}, weights={self.weights}"
