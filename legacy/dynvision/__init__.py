"""Frozen twin of the package ``dynvision.losses``: losses of recurrent vision networks over time.

``EnergyLoss`` is the version that the project's documentation describes; ``ActivityLoss``, which replaced it in newer
versions, stands beside it. ``temporal_masking`` and ``criterion_list`` hold what ``dynvision.base`` said about losses.
Replaced by ``training_losses.temporal`` and ``training_losses.balancing``.
"""

import torch  # noqa: F401  reachable in the old package
from torch.nn.modules.loss import _Loss  # noqa: F401  reachable in the old package

from training_losses.migration.deprecation import deprecated_module

from .activity_loss import ActivityLoss
from .base_loss import BaseLoss
from .cross_entropy_loss import CrossEntropyLoss
from .energy_loss import EnergyLoss
from .masking import mask_non_labels  # noqa: F401  not in __all__, as before

deprecated_module(__name__)

__all__ = ["BaseLoss", "CrossEntropyLoss", "EnergyLoss", "ActivityLoss"]
