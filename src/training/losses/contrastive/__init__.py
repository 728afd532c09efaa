"""Losses that compare embeddings with each other."""

from __future__ import annotations

from .barlow_twins import BarlowTwinsLoss as BarlowTwinsLoss
from .clip_loss import CLIPLoss as CLIPLoss
from .cross_modal_vicreg import CrossModalVICRegLoss as CrossModalVICRegLoss
from .dcl import DecoupledContrastiveLoss as DecoupledContrastiveLoss
from .decorrelation import DecorrelationLoss as DecorrelationLoss
from .decoupled_loss import IntraInterModalLoss as IntraInterModalLoss
from .dynamic_temperature_loss import DynamicTemperatureLoss as DynamicTemperatureLoss
from .hard_negative_loss import HardNegativeLoss as HardNegativeLoss
from .hybrid_pretrain_vicreg import HybridPretrainVICRegLoss as HybridPretrainVICRegLoss
from .info_nce import InfoNCELoss as InfoNCELoss
from .moco import MoCoLoss as MoCoLoss
from .moco_loss import MemoryQueueLoss as MemoryQueueLoss
from .simclr_loss import SimCLRLoss as SimCLRLoss
from .vicreg import AdaptiveVICRegLoss as AdaptiveVICRegLoss
from .vicreg import VICRegLoss as VICRegLoss

__all__ = [name for name in globals() if name.endswith("Loss")]
