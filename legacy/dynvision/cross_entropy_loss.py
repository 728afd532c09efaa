"""Frozen twin of ``dynvision.losses.cross_entropy_loss``: cross entropy that leaves out void targets.

Outputs (N, C) or (N, C, d1, ...), targets (N) or (N, d1, ...); also a tuple whose first entry are the outputs.
``mean`` divides by the number of targets other than ``ignore_index``, also with class weights.

Replaced by ``training_losses.temporal.TemporalCrossEntropyLoss``. Kept as it was: all targets void gives a constant
without a graph under ``mean``; a NaN in a void row reaches the gradient; ``weight`` is a plain attribute that neither
``.to`` nor the state_dict knows.
"""

from typing import Any, Optional

import torch
import torch.nn.functional as F

from training_losses.migration.deprecation import deprecated_module

from .base_loss import BaseLoss

deprecated_module(__name__)


class CrossEntropyLoss(BaseLoss):
    """Masked cross entropy; see the module."""

    def __init__(self, reduction: str = "mean", weight: Optional[torch.Tensor] = None, ignore_index: int = -1) -> None:
        super().__init__(reduction=reduction)
        self.allow_broadcasting = False
        self.weight = weight
        self.ignore_index = ignore_index

    def compute_loss(self, outputs: torch.Tensor, targets: torch.Tensor, responses: Any = None) -> torch.Tensor:
        targets = targets.to(outputs.device)
        loss = F.cross_entropy(outputs, targets, weight=self.weight, ignore_index=self.ignore_index, reduction="none")
        kept = (targets != self.ignore_index) & (targets >= 0) & (targets < outputs.size(1))
        return loss * kept.to(outputs.dtype)
