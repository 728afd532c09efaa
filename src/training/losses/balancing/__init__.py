"""Several losses into one: fixed weights, learned weights, geometric means, products; schedules and a monitor.

Every balancer takes a mapping of named scalars, or owns named losses. None builds a network.
"""

from __future__ import annotations

from .balancer import TermBalancer
from .geometric_mean import GeometricMeanLoss
from .gradnorm import GradNormLoss
from .image_reconstruction import ImageGeometricMeanLoss, ImageProductLoss, ImageWeightedSumLoss
from .monitor import BalanceWarning, LossBalanceMonitor, MonitorReport
from .multitask import MultiTaskLoss
from .product import ProductLoss
from .schedules import CosineRamp, LinearRamp, PiecewiseConstant
from .uncertainty import UncertaintyWeightedLoss
from .weighted_sum import WeightedSumLoss

__all__ = [
    "BalanceWarning",
    "CosineRamp",
    "GeometricMeanLoss",
    "GradNormLoss",
    "ImageGeometricMeanLoss",
    "ImageProductLoss",
    "ImageWeightedSumLoss",
    "LinearRamp",
    "LossBalanceMonitor",
    "MonitorReport",
    "MultiTaskLoss",
    "PiecewiseConstant",
    "ProductLoss",
    "TermBalancer",
    "UncertaintyWeightedLoss",
    "WeightedSumLoss",
]
