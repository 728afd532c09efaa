"""Frozen twin of the package ``dynvision.losses``: losses of recurrent vision networks over time.

``EnergyLoss`` is the version that the project's documentation describes; ``ActivityLoss``, which replaced it in newer
versions, stands beside it. ``temporal_masking`` and ``criterion_list`` hold what ``dynvision.base`` said about losses.
Replaced by ``training.losses.temporal`` and ``training.losses.balancing``.
"""

import torch
from torch.nn.modules.loss import _Loss  # noqa: F401  reachable in the old package

from migration.deprecation import deprecated_module

from .activity_loss import ActivityLoss
from .base_loss import BaseLoss
from .cross_entropy_loss import CrossEntropyLoss
from .energy_loss import EnergyLoss

deprecated_module(__name__)

__all__ = ["BaseLoss", "CrossEntropyLoss", "EnergyLoss", "ActivityLoss"]


def mask_non_labels(outputs, label_indices, non_label_index=-1, selector="!="):
    """Rows of ``outputs`` and ``label_indices`` whose label is not (``"!="``) or is (``"=="``) the void label.

    With two-dimensional labels a row comes once per matching element, as it always did.
    """
    if selector == "!=":
        rows = torch.where(label_indices != non_label_index)[0]
    elif selector == "==":
        rows = torch.where(label_indices == non_label_index)[0]
    else:
        raise ValueError(f"selector {selector!r} is neither '!=' nor '=='")
    rows = rows.to(outputs.device)
    return outputs[rows], label_indices.to(outputs.device)[rows]
