"""What a wrong call is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from training_losses import create_loss
from training_losses.base import BaseContrastiveLoss


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
    with pytest.raises(ValueError, match=r"logits must be a tensor, found tuple; .*\(outputs, responses\) give"):
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
    with pytest.raises(ValueError, match=r"vision_features must be torch\.float32 as vision_head is, found"):
        create_loss("clip", **heads)(x, x)
    with pytest.raises(ValueError, match=r"z_a must be torch\.float32 as vision_head is, found torch\.float64"):
        create_loss("simclr", **heads)(x, x)


def test_levels_are_named() -> None:
    x = torch.randn(2, 3, 4)
    with pytest.raises(ValueError, match=r"targets\[1\] must be floating point, found torch\.int64 \[2, 3, 4\]"):
        create_loss("hjepa")([x, x], [x, x.long()])
    with pytest.raises(ValueError, match=r"predictions must be a tensor, or one for each level, found None"):
        create_loss("hjepa")(None, x)


@pytest.mark.parametrize(
    ("name", "keywords", "message"),
    [
        ("clip", {"temprature": 0.1}, r"CLIPLoss\(\) got .*'temprature'; did you mean 'temperature'\?"),
        ("vicreg", {"sim_coeff": 25.0}, r"VICRegLoss\(\) got .* old VICRegLoss is called 'invariance_weight' now"),
        ("adaptive_vicreg", {"sim_coeff": 1.0}, r"AdaptiveVICRegLoss\(\) got .* is called 'invariance_weight' now"),
        ("clip", {"cache_labels": True}, r"CLIPLoss\(\) got .* of the old CLIPStyleLoss is gone: nothing is cached"),
        ("mse", {"zzz": 1}, r"WeightedMSELoss\(\) got an unexpected keyword argument 'zzz' \(known: max_value, red"),
    ],
)
def test_unknown_keywords_of_constructors(name: str, keywords: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        create_loss(name, **keywords)


def test_unknown_keywords_of_calls() -> None:
    x = torch.randn(4, 3)
    with pytest.raises(TypeError, match=r"CLIPLoss\.forward\(\) got .*'; did you mean 'vision_fe"):
        create_loss("clip")(vision_featurs=x, text_features=x)
    with pytest.raises(TypeError, match=r"'similarity_matrix' of the old CLIPStyleLoss is called 'logits' now"):
        create_loss("clip")(x, x, similarity_matrix=x @ x.T)


def test_a_class_of_the_user_is_named() -> None:
    class Mine(BaseContrastiveLoss):
        def __init__(self, *, margin: float = 1.0, **options: Any) -> None:
            super().__init__(**options)
            self.margin = margin

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.full(x.shape, fill=self.margin)  # type: ignore[call-overload]  # a mistake inside

    with pytest.raises(TypeError, match=r"^Mine\(\) got an unexpected keyword argument 'margn'; did you mean 'margin'"):
        Mine(margn=2.0)
    assert Mine(temperature=0.5).temperature == 0.5
    with pytest.raises(TypeError) as caught:  # what is called inside is not blamed on the caller
        Mine()(x=torch.ones(2))
    assert "Mine" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("CLIPLoss", "'clip'"),
        ("clip_loss", "'clip'"),
        ("SimCLR", "'simclr'"),
        ("InfoNCE", "'info_nce'"),
        ("vicerg", "'vicreg'"),
        ("EMAMoCoLoss", "'moco'"),
        ("MemoryQueueContrastiveLoss", "'memory_queue'"),
        ("ContrastiveLoss", "'clip' or 'memory_queue' or 'simclr' or 'supcon'"),
    ],
)
def test_losses_are_found_by_other_names(name: str, wanted: str) -> None:
    with pytest.raises(ValueError, match=rf"{name!r}; did you mean {wanted}\?"):
        create_loss(name)
