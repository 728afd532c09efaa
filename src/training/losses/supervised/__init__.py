"""Losses that compare predictions, or embeddings, with labels."""

from __future__ import annotations

from .cross_entropy import LabelSmoothingCrossEntropyLoss
from .mse import WeightedMSELoss
from .supervised_contrastive_loss import SupervisedContrastiveLoss

__all__ = ["LabelSmoothingCrossEntropyLoss", "SupervisedContrastiveLoss", "WeightedMSELoss"]
