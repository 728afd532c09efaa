"""Small stand-ins for VGG-19 and LPIPS, so that the example needs no download.

The losses look up ``torchvision.models.vgg19`` and ``lpips.LPIPS``; here both names lead to narrow networks with random
weights from a fixed seed. Remove the call of ``install`` to train with the real ones.
"""

import sys
import types

import torch
from torch import nn
from torch.nn import functional as F

BLOCKS = [(8, 8), (12, 12), (16, 16, 16, 16), (16, 16, 16, 16), (16, 16, 16, 16)]


def vgg19(**_):
    """VGG-19's order of layers, a few channels wide."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers, channels = [], 3
        for block in BLOCKS:
            for width in block:
                convolution = nn.Conv2d(channels, width, 3, padding=1)
                nn.init.kaiming_normal_(convolution.weight)
                nn.init.zeros_(convolution.bias)
                layers += [convolution, nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2))
    return types.SimpleNamespace(features=nn.Sequential(*layers))


class LPIPS(nn.Module):
    """Squared difference of the images at three scales, shape [B, 1, 1, 1] as LPIPS has it."""

    def __init__(self, **_):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3) / 3)
        self.eval()

    def forward(self, a, b):
        total = 0.0
        for weight, size in zip(self.weight, (2, 4, 8)):
            total = total + weight * (F.avg_pool2d(a, size) - F.avg_pool2d(b, size)).square().mean((1, 2, 3), keepdim=True)
        return total


def install():
    """Answer ``import torchvision`` and ``import lpips`` with the stand-ins."""
    torchvision, models, lpips = (types.ModuleType(n) for n in ("torchvision", "torchvision.models", "lpips"))
    models.vgg19, torchvision.models, lpips.LPIPS = vgg19, models, LPIPS
    sys.modules.update({"torchvision": torchvision, "torchvision.models": models, "lpips": lpips})
