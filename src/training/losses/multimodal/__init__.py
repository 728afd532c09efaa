"""Image-text losses of several terms, and consistency with a reference model."""

from __future__ import annotations

from .feature_consistency import FeatureConsistencyLoss
from .image_text_multitask import ImageTextMultiTaskLoss
from .mixed_loss import MixedContrastiveLoss

__all__ = ["FeatureConsistencyLoss", "ImageTextMultiTaskLoss", "MixedContrastiveLoss"]
