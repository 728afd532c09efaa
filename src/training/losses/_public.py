"""Where the public names live. Nothing here is imported before it is asked for."""

from __future__ import annotations

from typing import Final

PUBLIC: Final[dict[str, str]] = {
    # name: module below training.losses
    "AdaptiveVICRegLoss": "contrastive.vicreg",
    "BaseContrastiveLoss": "base",
    "BaseLoss": "base",
    "BaseSupervisedLoss": "base",
    "CLIPLoss": "contrastive.clip_loss",
    "LossOutput": "base",
    "LossRegistry": "loss_registry",
    "MemoryQueueLoss": "contrastive.moco_loss",
    "MultiTaskLoss": "balancing.multitask",
    "SimCLRLoss": "contrastive.simclr_loss",
    "WeightedSumLoss": "balancing.weighted_sum",
}
"""Names of the package. Names that the old package exported too (VICRegLoss, ...) are not among them: until the old
ones are removed they mean the frozen twins, and the new classes are imported from their family."""

REGISTRY: Final[dict[str, str]] = {
    # registry name: module below training.losses that registers it
    "adaptive_vicreg": "contrastive.vicreg",
    "clip": "contrastive.clip_loss",
    "memory_queue": "contrastive.moco_loss",
    "multitask": "balancing.multitask",
    "simclr": "contrastive.simclr_loss",
    "vicreg": "contrastive.vicreg",
    "weighted_sum": "balancing.weighted_sum",
}
