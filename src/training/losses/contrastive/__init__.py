"""Losses that compare embeddings with each other."""

from __future__ import annotations

from .clip_loss import CLIPLoss
from .decoupled_loss import DecoupledContrastiveLoss, IntraInterModalLoss
from .dynamic_temperature_loss import DynamicTemperatureLoss
from .hard_negative_loss import HardNegativeLoss
from .info_nce import InfoNCELoss
from .moco import MoCoLoss
from .moco_loss import MemoryQueueLoss
from .simclr_loss import SimCLRLoss
from .vicreg import AdaptiveVICRegLoss, VICRegLoss

__all__ = [
    "AdaptiveVICRegLoss",
    "CLIPLoss",
    "DecoupledContrastiveLoss",
    "DynamicTemperatureLoss",
    "HardNegativeLoss",
    "InfoNCELoss",
    "IntraInterModalLoss",
    "MemoryQueueLoss",
    "MoCoLoss",
    "SimCLRLoss",
    "VICRegLoss",
]
