"""Package `triangulate_ai.loss`, frozen: image distances and their combination for the triangle generator.

`multiplicative` was never exported here and still is not. The networks (VGG-19 of torchvision, LPIPS) are looked up
when a class is constructed, so importing the package needs neither of the two optional packages.
"""

from training_losses.migration.deprecation import deprecated_module

from .geometric_mean import AdaptiveGeometricMeanLoss, GeometricMeanLoss
from .perceptual import CombinedLoss, VGGPerceptualLoss

deprecated_module(__name__)

__all__ = ["VGGPerceptualLoss", "CombinedLoss", "GeometricMeanLoss", "AdaptiveGeometricMeanLoss"]
