"""What every loss is made of."""

from __future__ import annotations

from .base_contrastive import BaseContrastiveLoss, ContrastiveOptions, Ids
from .base_loss import (
    REDUCTIONS,
    BaseLoss,
    kind_of,
    require_choice,
    require_features,
    require_floating,
    require_number,
    require_numbers,
    require_one_dtype,
    require_tensors,
)
from .base_supervised import BaseSupervisedLoss
from .mixins import HardNegativeMiningMixin, NormalizationMixin, ProjectionMixin, TemperatureScalingMixin
from .momentum import MomentumEncoder
from .output import LossOutput
from .projection import ProjectionHead
from .queue import NO_ID, FeatureQueue
from .state import keeps_state

__all__ = [
    "NO_ID",
    "REDUCTIONS",
    "BaseContrastiveLoss",
    "BaseLoss",
    "BaseSupervisedLoss",
    "ContrastiveOptions",
    "FeatureQueue",
    "HardNegativeMiningMixin",
    "Ids",
    "LossOutput",
    "MomentumEncoder",
    "NormalizationMixin",
    "ProjectionHead",
    "ProjectionMixin",
    "TemperatureScalingMixin",
    "keeps_state",
    "kind_of",
    "require_choice",
    "require_features",
    "require_floating",
    "require_number",
    "require_numbers",
    "require_one_dtype",
    "require_tensors",
]
