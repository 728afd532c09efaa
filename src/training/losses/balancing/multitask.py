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
        weights = dict(zip(self.tasks, self._weights(values).unbind(), strict=True))
        loss = sum((weights[name] * value for name, value in values.items()), start=next(iter(values.values())) * 0)
        terms = {f"terms.{name}": value for name, value in values.items()}
        return self.output(loss, **terms, **{f"weights.{name}": weight for name, weight in weights.items()})

    def _weights(self, values: Mapping[str, Tensor]) -> Tensor:
        like = next(iter(values.values())).detach()
        given = torch.stack([torch.full_like(like, self.weights[name]) for name in self.tasks])
        if self.weighting == "inverse_loss":
            if self.training:
                known = zip(self.tasks, self.running_loss.unbind(), strict=True)
                sizes = [values[name].detach().to(old.dtype) if name in values else old for name, old in known]
                self.running_loss.lerp_(torch.stack(sizes), 1 - self.momentum)
            given = given / self.running_loss.to(given.dtype).clamp(min=1e-8)
        elif not self.normalize_weights:
            return given
        return given / given.sum()

    def extra_repr(self) -> str:
        """Configuration."""
        return f"weighting={self.weighting!r}, weights={self.weights}"
