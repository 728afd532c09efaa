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
    "DynamicTemperatureLoss": "contrastive.dynamic_temperature_loss",
    "EnergyLoss": "temporal",
    "HardNegativeLoss": "contrastive.hard_negative_loss",
    "InfoNCELoss": "contrastive.info_nce",
    "IntraInterModalLoss": "contrastive.decoupled_loss",
    "LossOutput": "base",
    "LossRegistry": "loss_registry",
    "MemoryQueueLoss": "contrastive.moco_loss",
    "MoCoLoss": "contrastive.moco",
    "MomentumEncoder": "base",
    "MultiTaskLoss": "balancing.multitask",
    "PresentationSchedule": "temporal",
    "SimCLRLoss": "contrastive.simclr_loss",
    "SupervisedContrastiveLoss": "supervised.supervised_contrastive_loss",
    "TemporalCrossEntropyLoss": "temporal",
    "WeightedSumLoss": "balancing.weighted_sum",
}
"""Names of the package. Names that the old package exported too (VICRegLoss, ...) are not among them: until the old
ones are removed they mean the frozen twins, and the new classes are imported from their family."""

REGISTRY: Final[dict[str, str]] = {
    # registry name: module below training.losses that registers it
    "adaptive_vicreg": "contrastive.vicreg",
    "clip": "contrastive.clip_loss",
    "dcl": "contrastive.decoupled_loss",
    "dynamic_temperature": "contrastive.dynamic_temperature_loss",
    "energy": "temporal.energy",
    "hard_negative": "contrastive.hard_negative_loss",
    "info_nce": "contrastive.info_nce",
    "intra_inter_modal": "contrastive.decoupled_loss",
    "memory_queue": "contrastive.moco_loss",
    "moco": "contrastive.moco",
    "multitask": "balancing.multitask",
    "simclr": "contrastive.simclr_loss",
    "supcon": "supervised.supervised_contrastive_loss",
    "temporal_cross_entropy": "temporal.cross_entropy",
    "vicreg": "contrastive.vicreg",
    "weighted_sum": "balancing.weighted_sum",
}
