"""The losses that this project trains with."""

from src.training.losses import ContrastiveLoss, VICRegLoss  # package level
from src.training.losses.clip_style_loss import CLIPStyleLoss
from src.training.loss.memory_queue_contrastive_loss import (
    MemoryQueueContrastiveLoss,  # older name of the package
)

__all__ = [
    "CLIPStyleLoss",
    "ContrastiveLoss",
    "MemoryQueueContrastiveLoss",
    "VICRegLoss",
]
