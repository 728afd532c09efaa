"""Losses that compare embeddings with each other."""

from __future__ import annotations

from .barlow_twins import BarlowTwinsLoss
from .clip_loss import CLIPLoss
from .cross_modal_vicreg import CrossModalVICRegLoss
from .dcl import DecoupledContrastiveLoss
from .decorrelation import DecorrelationLoss
from .decoupled_loss import IntraInterModalLoss
from .dynamic_temperature_loss import DynamicTemperatureLoss
from .hard_negative_loss import HardNegativeLoss
from .hybrid_pretrain_vicreg import HybridPretrainVICRegLoss
from .info_nce import InfoNCELoss
from .moco import MoCoLoss
from .moco_loss import MemoryQueueLoss
from .simclr_loss import SimCLRLoss
from .vicreg import AdaptiveVICRegLoss, VICRegLoss

__all__ = [
    "AdaptiveVICRegLoss",
    "BarlowTwinsLoss",
    "CLIPLoss",
    "CrossModalVICRegLoss",
    "DecorrelationLoss",
    "DecoupledContrastiveLoss",
    "DynamicTemperatureLoss",
    "HardNegativeLoss",
    "HybridPretrainVICRegLoss",
    "InfoNCELoss",
    "IntraInterModalLoss",
    "MemoryQueueLoss",
    "MoCoLoss",
    "SimCLRLoss",
    "VICRegLoss",
]
