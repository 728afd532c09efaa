"""Frozen twin of ``dynvision.losses.base_loss``: the frame shared by the losses over time.

``BaseLoss.forward`` takes network outputs apart, checks shapes, counts the valid targets and reduces.
Sub-classes give ``compute_loss`` and may set ``requires_responses``, ``allow_broadcasting`` and ``ignore_index``.

Replaced by ``training_losses.base.BaseLoss``. Kept as it was, among other things:

* no valid target and ``reduction="mean"``: a constant zero without a graph;
* the count leaves out ignored targets although the base class does not mask their values;
* an exception while counting is swallowed and means "not counted";
* unknown keywords of ``forward`` are accepted and ignored; fractional counts are truncated.
"""

from typing import Any, Optional, Tuple

import torch
import torch.nn as nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)


class BaseLoss(nn.Module):
    """Common frame; see the module."""

    valid_reductions = ["none", "mean", "sum"]

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in self.valid_reductions:
            raise ValueError(f"reduction {reduction!r} is not one of {self.valid_reductions}")
        self.reduction = reduction

    def forward(self, outputs: Any, targets: Any, **kwargs: Any) -> torch.Tensor:
        outputs, responses = self.extract_outputs(outputs, require_responses=getattr(self, "requires_responses", False))
        self.validate_shapes(outputs, targets, allow_broadcasting=getattr(self, "allow_broadcasting", True))
        count = kwargs.get("num_valid_timesteps")
        if count is None and targets is not None and hasattr(self, "ignore_index"):
            try:
                count = int((targets != self.ignore_index).sum().item())
            except Exception:
                count = None
        loss = self.compute_loss(outputs=outputs, targets=targets, responses=responses)
        return self.apply_reduction(loss, num_valid_timesteps=count)

    def extract_outputs(self, outputs: Any, require_responses: bool = False) -> Tuple[Any, Any]:
        responses = None
        if isinstance(outputs, tuple):
            if len(outputs) == 0:
                raise ValueError("an empty tuple holds no outputs")
            responses = outputs[1] if len(outputs) > 1 else None
            outputs = outputs[0]
        if require_responses and responses is None:
            raise ValueError(f"{type(self).__name__} needs the network's responses beside its outputs")
        return outputs, responses

    def validate_shapes(self, outputs: Any, targets: Any, allow_broadcasting: bool = True) -> None:
        if not allow_broadcasting:
            if outputs.shape[0] != targets.shape[0]:
                raise ValueError(f"first dimensions differ: {tuple(outputs.shape)} and {tuple(targets.shape)}")
            return
        try:
            torch.broadcast_tensors(outputs, targets)
        except RuntimeError as error:
            raise ValueError(f"shapes do not broadcast: {tuple(outputs.shape)}, {tuple(targets.shape)}") from error

    def apply_reduction(self, loss: torch.Tensor, num_valid_timesteps: Optional[Any] = None) -> torch.Tensor:
        if self.reduction == "mean":
            if num_valid_timesteps is None:
                return loss.mean()
            count = int(num_valid_timesteps)
            if count <= 0:
                return torch.tensor(0.0, dtype=loss.dtype, device=loss.device)
            return loss.sum() / float(count)
        if self.reduction == "sum":
            return loss.sum()
        return loss

    def compute_loss(self, outputs: Any, targets: Any, responses: Any = None) -> torch.Tensor:
        raise NotImplementedError(f"{type(self).__name__} does not say how its loss is computed")
