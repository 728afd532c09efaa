"""Frozen twin of the package ``src.losses`` (also ``losses``): hierarchical joint-embedding prediction.

The thirteen names below are the old package's exports in their old order. Use ``training_losses.predictive`` and
``training_losses.contrastive`` in new code.
"""

from training_losses.migration.deprecation import deprecated_module

from .combined import (
    CombinedLoss,
    HierarchicalCombinedLoss,
    HJEPASIGRegLoss,
    create_loss_from_config,
)
from .contrastive import (
    ContrastiveJEPALoss,
    NTXentLoss,
    create_cjepa_loss_from_config,
)
from .hjepa_loss import HJEPALoss
from .sigreg import EppsPulleyTest, HybridVICRegSIGRegLoss, SIGRegLoss
from .vicreg import AdaptiveVICRegLoss, VICRegLoss

deprecated_module(__name__)

__all__ = [
    "HJEPALoss",
    "VICRegLoss",
    "AdaptiveVICRegLoss",
    "SIGRegLoss",
    "EppsPulleyTest",
    "HybridVICRegSIGRegLoss",
    "CombinedLoss",
    "HierarchicalCombinedLoss",
    "HJEPASIGRegLoss",
    "NTXentLoss",
    "ContrastiveJEPALoss",
    "create_loss_from_config",
    "create_cjepa_loss_from_config",
]
