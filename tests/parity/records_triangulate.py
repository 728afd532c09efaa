"""Image losses of triangulate, old and new over the same narrow networks."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.golden import Case
from tests.support.harness_triangulate import narrow_features, replaced_networks
from tests.support.parity import GoldenCall, ParityRecord, Sample
from training_losses.migration.parity import Comparison

LAYERS = ["conv1_2", "conv3_4"]


def seeded_features(seed: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return narrow_features()


def recorded_features(case: Case) -> nn.Sequential:
    """The network whose weights the recorded case holds (positions that no layer needs keep their own)."""
    features = seeded_features(0)
    own = features.state_dict()
    for key, value in case.data.get("state_before", {}).items():
        head, _, tail = key.partition("feature_extractors.")
        if tail and head in ("", "perceptual_loss."):
            own[tail.partition(".")[2]] = case.decode(value)
    features.load_state_dict(own)
    return features.double()


@contextlib.contextmanager
def networks(features: nn.Sequential) -> Iterator[None]:
    """Whoever builds a VGG-19 meanwhile gets a copy of ``features``."""

    def vgg19(**_: Any) -> SimpleNamespace:
        return SimpleNamespace(features=copy.deepcopy(features))

    with replaced_networks(vgg19):
        yield


@dataclass(frozen=True)
class ImageRecord(ParityRecord):
    """Runs while the networks are replaced."""

    def run(self, sample: Sample) -> Iterator[Comparison]:
        with networks(seeded_features(sample.seed)):
            yield from super().run(sample)

    def run_case(self, case: Case) -> Iterator[tuple[str, torch.dtype, Comparison]]:
        with networks(recorded_features(case)):
            yield from super().run_case(case)


def images(sample: Sample, step: int = 0) -> dict[str, Tensor]:
    """Images of at least 8 x 8 pixels, every fourth batch with one channel."""
    shape = (sample.batch, 1 if sample.seed % 4 == 3 else 3, 8 + sample.dim % 5, 8 + sample.dim % 3)
    return {
        name: torch.sigmoid(sample.randn(*shape, salt=2 * step + salt))
        for salt, name in enumerate(("rendered", "target"))
    }


def in_color(sample: Sample, step: int = 0) -> dict[str, Tensor]:
    """Three channels: the old combinations took one channel in VGG and LPIPS, as it happened."""
    shape = (sample.batch, 3, 8 + sample.dim % 5, 8 + sample.dim % 3)
    return {
        name: torch.sigmoid(sample.randn(*shape, salt=2 * step + salt))
        for salt, name in enumerate(("rendered", "target"))
    }


def exact_constants(twin: Any, sample: Sample) -> None:
    """In float64 the old constants are those of a twin built in float64; see the first deviation of the row."""
    vgg = getattr(twin, "perceptual_loss", twin)
    with torch.no_grad():
        for buffer, numbers in ((vgg.mean, (0.485, 0.456, 0.406)), (vgg.std, (0.229, 0.224, 0.225))):
            buffer.copy_(torch.tensor(numbers, dtype=torch.float64).view(1, 3, 1, 1))
    if hasattr(twin, "multiplicative_loss"):
        exact_constants(twin.multiplicative_loss, sample)


def single(call: GoldenCall) -> bool:
    """Recorded in float32, with layers, images large enough and weights that the new classes take."""
    names = call.init.get("layer_names", call.init.get("vgg_layers", LAYERS))
    return call.dtype == torch.float32 and len(set(names)) == len(names) > 0


def vgg_kwargs(sample: Sample) -> dict[str, Any]:
    return {"layer_names": (LAYERS, None, ["conv2_1"])[sample.seed % 3], "device": "cpu"}


def combined(sample: Sample) -> dict[str, Any]:
    weights = ({}, {"alpha": 0.0, "beta": 10.0}, {"alpha": 0.01, "gamma": 0.0})[sample.seed % 3]
    return {"vgg_layers": LAYERS, "device": "cpu", **weights}


def geometric(sample: Sample) -> dict[str, Any]:
    options = (
        {},
        {"min_loss_value": 0.2, "regularization_weight": 3.0},
        {"epsilon": 0.0, "regularization_weight": 0.0},
    )
    return {"vgg_layers": LAYERS, "device": "cpu", **options[sample.seed % 3]}


def adaptive(sample: Sample) -> dict[str, Any]:
    options = ({}, {"min_loss_value": 0.2, "initial_regularization": 2.0, "warmup_epochs": 7})[sample.seed % 2]
    return {"vgg_layers": LAYERS, "device": "cpu", **options}


def product(sample: Sample) -> dict[str, Any]:
    options = ({}, {"normalize": False, "epsilon": 0.5}, {"use_log_space": True})[sample.seed % 3]
    return {"vgg_layers": LAYERS, "device": "cpu", **options}


def hybrid(sample: Sample) -> dict[str, Any]:
    options = ({}, {"alpha": 0.0, "multiplicative_weight": 0.6}, {"multiplicative_weight": 1.0})[sample.seed % 3]
    return {"vgg_layers": LAYERS, "device": "cpu", **options}


COMMON: Mapping[str, Any] = {
    "system": "triangulate",
    "inputs": in_color,
    "prepare": exact_constants,
    "ids": ("none",),
    "batch": (1, 3),
}
RECORDS = [
    ImageRecord(
        "perceptual.VGGPerceptualLoss", **{**COMMON, "inputs": images}, kwargs=vgg_kwargs, golden=single, examples=10
    ),
    ImageRecord("perceptual.CombinedLoss", **COMMON, kwargs=combined, golden=single, examples=8),
    ImageRecord("geometric_mean.GeometricMeanLoss", **COMMON, kwargs=geometric, golden=single, examples=8),
    ImageRecord("geometric_mean.AdaptiveGeometricMeanLoss", **COMMON, kwargs=adaptive, examples=6),
    # the old running means carry float32 rounding in every dtype: training is compared in float32
    ImageRecord(
        "multiplicative.MultiplicativeLoss", **COMMON, variant="eval", kwargs=product, train=(False,), examples=6
    ),
    ImageRecord(
        "multiplicative.MultiplicativeLoss",
        **COMMON,
        variant="training",
        kwargs=product,
        train=(True,),
        dtypes=(torch.float32,),
        steps=13,
        examples=3,
    ),
    ImageRecord("multiplicative.HybridLoss", **COMMON, variant="eval", kwargs=hybrid, train=(False,), examples=6),
    ImageRecord(
        "multiplicative.HybridLoss",
        **COMMON,
        variant="training",
        kwargs=hybrid,
        train=(True,),
        dtypes=(torch.float32,),
        steps=13,
        examples=3,
    ),
]
