"""Losses for contrastive, multimodal, supervised, alignment, predictive, temporal and perceptual training.

Every public name is imported when it is first asked for. Families: ``contrastive``, ``multimodal``, ``supervised``,
``alignment``, ``predictive``, ``temporal``, ``perceptual``, ``balancing``; by name: ``create_loss``; from a dict or a
file: ``create_loss_from_config``. ``legacy`` holds the frozen twins of old losses, ``migration`` what leads away from
them.
"""

from __future__ import annotations

from . import _names  # noqa: F401  # serves the names of version 1.0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from torch import nn

    # <public names> written by tools/public_names.py
    from .alignment import AlignmentObjective as AlignmentObjective
    from .alignment import GTCCLoss as GTCCLoss
    from .alignment import IntraContrastLoss as IntraContrastLoss
    from .alignment import LAVLoss as LAVLoss
    from .alignment import PairBudget as PairBudget
    from .alignment import SoftDTWLoss as SoftDTWLoss
    from .alignment import TCCLoss as TCCLoss
    from .alignment import VAVALoss as VAVALoss
    from .balancing import LossBalanceMonitor as LossBalanceMonitor
    from .balancing.geometric_mean import GeometricMeanLoss as GeometricMeanLoss
    from .balancing.gradnorm import GradNormLoss as GradNormLoss
    from .balancing.image_reconstruction import ImageGeometricMeanLoss as ImageGeometricMeanLoss
    from .balancing.image_reconstruction import ImageProductLoss as ImageProductLoss
    from .balancing.image_reconstruction import ImageWeightedSumLoss as ImageWeightedSumLoss
    from .balancing.multitask import MultiTaskLoss as MultiTaskLoss
    from .balancing.product import ProductLoss as ProductLoss
    from .balancing.uncertainty import UncertaintyWeightedLoss as UncertaintyWeightedLoss
    from .balancing.weighted_sum import WeightedSumLoss as WeightedSumLoss
    from .base import BaseContrastiveLoss as BaseContrastiveLoss
    from .base import BaseLoss as BaseLoss
    from .base import BaseSupervisedLoss as BaseSupervisedLoss
    from .base import LossOutput as LossOutput
    from .base import MomentumEncoder as MomentumEncoder
    from .config import create_loss_from_config as create_loss_from_config
    from .config import dump_config as dump_config
    from .contrastive.barlow_twins import BarlowTwinsLoss as BarlowTwinsLoss
    from .contrastive.clip_loss import CLIPLoss as CLIPLoss
    from .contrastive.cross_modal_vicreg import CrossModalVICRegLoss as CrossModalVICRegLoss
    from .contrastive.dcl import DecoupledContrastiveLoss as DecoupledContrastiveLoss
    from .contrastive.decorrelation import DecorrelationLoss as DecorrelationLoss
    from .contrastive.decoupled_loss import IntraInterModalLoss as IntraInterModalLoss
    from .contrastive.dynamic_temperature_loss import DynamicTemperatureLoss as DynamicTemperatureLoss
    from .contrastive.hard_negative_loss import HardNegativeLoss as HardNegativeLoss
    from .contrastive.hybrid_pretrain_vicreg import HybridPretrainVICRegLoss as HybridPretrainVICRegLoss
    from .contrastive.info_nce import InfoNCELoss as InfoNCELoss
    from .contrastive.moco import MoCoLoss as MoCoLoss
    from .contrastive.moco_loss import MemoryQueueLoss as MemoryQueueLoss
    from .contrastive.simclr_loss import SimCLRLoss as SimCLRLoss
    from .contrastive.vicreg import AdaptiveVICRegLoss as AdaptiveVICRegLoss
    from .contrastive.vicreg import VICRegLoss as VICRegLoss
    from .loss_registry import LossRegistry as LossRegistry
    from .multimodal.feature_consistency import FeatureConsistencyLoss as FeatureConsistencyLoss
    from .multimodal.image_text_multitask import ImageTextMultiTaskLoss as ImageTextMultiTaskLoss
    from .multimodal.mixed_loss import MixedContrastiveLoss as MixedContrastiveLoss
    from .perceptual import LPIPSLoss as LPIPSLoss
    from .perceptual import VGGPerceptualLoss as VGGPerceptualLoss
    from .predictive.contrastive_jepa import ContrastiveJEPALoss as ContrastiveJEPALoss
    from .predictive.hjepa import HJEPALoss as HJEPALoss
    from .predictive.hjepa_combined import HJEPACombinedLoss as HJEPACombinedLoss
    from .predictive.sigreg import SIGRegLoss as SIGRegLoss
    from .supervised.cross_entropy import LabelSmoothingCrossEntropyLoss as LabelSmoothingCrossEntropyLoss
    from .supervised.mse import WeightedMSELoss as WeightedMSELoss
    from .supervised.supervised_contrastive_loss import SupervisedContrastiveLoss as SupervisedContrastiveLoss
    from .temporal import EnergyLoss as EnergyLoss
    from .temporal import PresentationSchedule as PresentationSchedule
    from .temporal import TemporalCrossEntropyLoss as TemporalCrossEntropyLoss
    # </public names>


def create_loss(name: str, /, **kwargs: Any) -> nn.Module:
    """A loss by its registry name, with the keyword arguments of its class.

    Raises:
        ValueError: unknown name (the message lists close ones), or an argument out of range.
        TypeError: unknown argument.
    """
    from .loss_registry import LossRegistry

    return LossRegistry.create(name, **kwargs)


if not TYPE_CHECKING:  # or every name would exist for type checkers

    def __getattr__(name: str) -> Any:
        from ._public import PUBLIC

        if name in PUBLIC:
            from importlib import import_module

            value = globals()[name] = getattr(import_module(f".{PUBLIC[name]}", __name__), name)
            return value
        if name == "__all__":
            return ["create_loss", *sorted(PUBLIC)]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
