"""Contract records of the image distances and of their ready-made combinations, on narrow networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.contract.record import Inputs, LossRecord
from training_losses.perceptual import LPIPSLoss, VGGPerceptualLoss


def narrow_vgg() -> nn.Sequential:
    """Two blocks of VGG's order; layers conv1_1 ... conv2_1. Smooth, so that gradcheck meets no kinks."""
    return nn.Sequential(
        nn.Conv2d(3, 2, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(2, 3, 3, padding=1)
    )


class SquaredDistance(nn.Module):
    """Stands for the network of lpips: weighted squared differences per channel, ``[B, 1, 1, 1]``."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.25, 0.5, 0.125]).view(1, 3, 1, 1))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.w * (a - b) ** 2).sum(1, keepdim=True).mean((2, 3), keepdim=True)


def images(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    """Two batches of 4 x 4 images in [0, 1]."""
    draw = torch.rand(2, batch, 3, 4, 4, generator=g, dtype=torch.float64).to(dtype)
    return {"rendered": draw[0], "target": draw[1]}


def vgg(**kwargs: Any) -> Any:
    return lambda: {"layers": ["conv1_1", "conv2_1"], "backbone": narrow_vgg(), **kwargs}


def trio(**kwargs: Any) -> Any:
    def build() -> dict[str, Any]:
        vgg_loss = VGGPerceptualLoss(layers=["conv1_1", "conv2_1"], backbone=narrow_vgg(), detach_target=False)
        lpips_loss = LPIPSLoss(backbone=SquaredDistance(), detach_target=False)
        return {"networks": {"perceptual": vgg_loss, "l1": nn.L1Loss(), "lpips": lpips_loss}, **kwargs}

    return build


BESIDE = {"built_on_the_meta_device": "its networks stand beside the state, and their values with them"}
COMMON: Any = {"reductions": ("mean", "sum", "none"), "exempt": BESIDE}
RECORDS = [
    LossRecord("vgg_perceptual", images, grad=("rendered",), kwargs=vgg(), **COMMON),
    LossRecord(
        "vgg_perceptual",
        images,
        grad=("rendered", "target"),
        variant="both_sides",
        kwargs=vgg(detach_target=False, resize=6, layer_weights={"conv1_1": 0.5}, distance="l1"),
        **COMMON,
    ),
    LossRecord("lpips", images, grad=("rendered",), kwargs=lambda: {"backbone": SquaredDistance()}, **COMMON),
    LossRecord(
        "lpips",
        images,
        grad=("rendered", "target"),
        variant="signed_range",
        kwargs=lambda: {"backbone": SquaredDistance(), "input_range": (-1.0, 1.0), "detach_target": False},
        **COMMON,
    ),
    *(
        LossRecord(
            name,
            images,
            grad=("rendered", "target"),
            kwargs=trio(**kwargs),
            exempt=BESIDE,
            advance=(lambda loss, step: loss.step_schedule(step)) if "ramp_length" in kwargs else None,
        )
        for name, kwargs in (
            ("image_weighted_sum", {}),
            (
                "image_geometric_mean",
                {"floor": 0.1, "floor_weight": 0.1, "final_floor_weight": 1.0, "ramp_length": 2},
            ),
            ("image_product", {"warmup": 1, "product_weight": 0.5}),
        )
    ),
]
