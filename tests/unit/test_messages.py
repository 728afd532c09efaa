"""What a wrong call is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from training.losses import create_loss


def tiny_vgg() -> nn.Sequential:
    widths = (4, 4, "M", 4, 4, "M", 4, 4, 4, 4, "M", 4, 4, 4, 4)
    parts: list[nn.Module] = []
    channels = 3
    for width in widths:
        if isinstance(width, str):
            parts.append(nn.MaxPool2d(2))
        else:
            parts += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
    return nn.Sequential(*parts)


def test_the_pair_that_a_model_returns_is_not_logits() -> None:
    loss = create_loss("temporal_cross_entropy")
    with pytest.raises(
        ValueError, match=r"logits must be a tensor, found tuple; .*\(outputs, responses\) give"
    ):
        loss((torch.randn(3, 4), {}), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"targets must be a tensor, found numpy\.ndarray"):
        loss(torch.randn(3, 4), np.array([0, 1, 2]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_images_have_the_dtype_of_the_network(dtype: torch.dtype) -> None:
    x, y = torch.rand(2, 1, 3, 32, 32).to(dtype).unbind()
    loss = create_loss("vgg_perceptual", backbone=tiny_vgg())
    with pytest.raises(ValueError, match=f"rendered must be torch.float32 as the network is, found {dtype}"):
        loss(x, y)
    with pytest.raises(ValueError, match=f"target must be torch.float32 as the network is, found {dtype}"):
        loss(x.float(), y)
    if dtype == torch.bfloat16:
        with torch.autocast("cpu", dtype=dtype):
            assert torch.isfinite(loss(x, y))
    assert torch.isfinite(loss.to(dtype)(x, y))


def test_heads_name_the_argument_that_has_another_dtype() -> None:
    heads = {"input_dim": 4, "projection_dim": 3}
    x = torch.randn(5, 4, dtype=torch.float64)
    with pytest.raises(
        ValueError, match=r"vision_features must be torch\.float32 as vision_head is, found"
    ):
        create_loss("clip", **heads)(x, x)
    with pytest.raises(ValueError, match=r"z_a must be torch\.float32 as vision_head is, found torch\.float64"):
        create_loss("simclr", **heads)(x, x)


def test_levels_are_named() -> None:
    x = torch.randn(2, 3, 4)
    with pytest.raises(ValueError, match=r"targets\[1\] must be floating point, found torch\.int64 \[2, 3, 4\]"):
        create_loss("hjepa")([x, x], [x, x.long()])
    with pytest.raises(ValueError, match=r"predictions must be a tensor, or one for each level, found None"):
        create_loss("hjepa")(None, x)
