"""Distances of images in the feature space of fixed networks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .lpips import LPIPSLoss, lpips_distance
from .vgg import VGGPerceptualLoss

__all__ = ["LPIPSLoss", "VGGPerceptualLoss", "image_reconstruction_losses", "lpips_distance"]


def image_reconstruction_losses(
    *,
    layers: Sequence[str] | None = None,
    detach_target: bool = True,
    weights: str | None = "imagenet",
    safe_norm: bool | None = None,
) -> dict[str, nn.Module]:
    """The trio ``perceptual`` (VGG-19), ``l1``, ``lpips``, to be handed to a balancer as its ``terms``.

    Args:
        layers: of the VGG distance; ``None``: its default.
        detach_target: no gradient for the target in the two networks.
        weights: of both networks, see their classes.
        safe_norm: of the LPIPS distance, see ``LPIPSLoss``.
    """
    return {
        "perceptual": VGGPerceptualLoss(layers=layers, detach_target=detach_target, weights=weights),
        "l1": nn.L1Loss(),
        "lpips": LPIPSLoss(detach_target=detach_target, weights=weights, safe_norm=safe_norm),
    }
