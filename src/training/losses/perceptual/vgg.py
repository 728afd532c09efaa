"""Distance of two images in the feature space of VGG-19."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import require_choice, require_number
from ..functional import upcast
from ..loss_registry import LossRegistry
from .frozen import (
    FrozenNetworkLoss,
    check_images,
    check_installed,
    check_precision,
    he_init,
    hidden_by_network,
    require_package,
)

__all__ = ["DEFAULT_LAYERS", "IMAGENET_MEAN", "IMAGENET_STD", "VGGPerceptualLoss", "layer_positions", "vgg19_features"]

DEFAULT_LAYERS = ("conv1_2", "conv2_2", "conv3_4", "conv4_4")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
VGG19_WIDTHS = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
VGG19_KINDS = tuple(kind for block in VGG19_WIDTHS for kind in (*(("conv", "relu") * len(block)), "pool"))


def vgg19_features() -> nn.Sequential:
    """The convolutional part of VGG-19 with random weights (always the same): no download, no torchvision."""
    layers: list[nn.Module] = []
    channels = 3
    with torch.random.fork_rng(devices=[]):  # the constructors draw weights that are then replaced
        for block in VGG19_WIDTHS:
            for width in block:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
    features = nn.Sequential(*layers)
    he_init(features)
    return features


def layer_positions(kinds: Iterable[str]) -> dict[str, int]:
    """Name -> position for a sequence of kinds: ``conv1_1 relu1_1 conv1_2 ... pool1 conv2_1 ...``."""
    positions: dict[str, int] = {}
    block, index = 1, 0
    for position, kind in enumerate(kinds):
        index += kind == "conv"
        positions[f"pool{block}" if kind == "pool" else f"{kind}{block}_{index}"] = position
        if kind == "pool":
            block, index = block + 1, 0
    return positions


def _kind(module: nn.Module) -> str:
    name = type(module).__name__.lower()
    return next((kind for kind in ("conv", "relu", "pool") if kind in name), name)


@LossRegistry.register("vgg_perceptual")
class VGGPerceptualLoss(FrozenNetworkLoss):
    """Compare images by what a fixed classifier sees in them rather than pixel by pixel.

    Use it for reconstruction and synthesis, where small shifts matter less than missing structure. It needs no
    training; as it ignores low-frequency colour errors in deep layers, combine it with an L1 term.

    ``L = sum_l w_l mean_chw d(phi_l(x), phi_l(y)) / sum_l w_l``
    with ``phi_l`` the output of layer l on the normalised image, d the squared or absolute difference.

    Args:
        layers: names of layers: ``conv3_4`` is the fourth convolution of the third block *before* its ReLU,
            ``relu3_4`` the same after it, ``pool3`` the end of the block. Every layer is computed once for all.
            ``None``: ``conv1_2``, ``conv2_2``, ``conv3_4``, ``conv4_4``.
        layer_weights: name -> ``w_l >= 0``; missing ones count 1.
        distance: ``mse`` or ``l1``.
        resize: side, or height and width, to which both images are resized (bilinear, anti-aliased) before.
        mean, std: per channel, of the images on which the network was trained; ``None`` for both: no normalisation.
        gray_to_rgb: repeat a single channel three times; without it, one channel is an error.
        detach_target: no gradient, and no graph, for the target.
        weights: ``imagenet`` (torchvision's, from its usual cache or the network, loaded at the first call) or
            ``None``: random ones, always the same, which need neither torchvision nor a download.
        backbone: a network to use instead: an ``nn.Sequential`` of convolutions, ReLUs and pools, or a module with such
            ``features``. Its layers are named by the same rule. It is frozen, and not copied.
        reduction: ``mean``, ``sum`` over images, or ``none`` (one value per image).

    Inputs ``rendered`` and ``target``: ``[B, 3, H, W]`` in [0, 1]. Every pooling layer before the deepest layer halves
    the size, which must not vanish (8 pixels for ``conv4``, 16 for ``conv5``).

    Returns:
        The distance, 0-d, or ``[B]`` for ``reduction="none"``.

    Raises:
        ImportError: torchvision is missing (at construction) or does not fit this torch (at the first call).
        ValueError: unknown or repeated layers, wrong options; unequal shapes, too small images, wrong channels.

    Paper: Johnson, Alahi, Fei-Fei: Perceptual Losses for Real-Time Style Transfer and Super-Resolution, ECCV 2016. They
    use ReLU outputs of VGG-16; the default here are convolution outputs of VGG-19.

    Differs from the old class: shared layers are computed once (the old one ran the network again for every layer);
    the target has no graph; the network is not part of the state; repeated layers and other channel counts are errors;
    the normalisation constants have the precision of the images.
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        layer_weights: Mapping[str, float] | None = None,
        distance: str = "mse",
        resize: int | tuple[int, int] | None = None,
        mean: Sequence[float] | None = IMAGENET_MEAN,
        std: Sequence[float] | None = IMAGENET_STD,
        gray_to_rgb: bool = False,
        detach_target: bool = True,
        weights: str | None = "imagenet",
        backbone: nn.Module | None = None,
        reduction: str = "mean",
    ) -> None:
        features = getattr(backbone, "features", backbone)
        if features is not None and not isinstance(features, nn.Sequential):
            raise ValueError(
                f"backbone must be an nn.Sequential or have one as features, found {type(backbone).__name__}"
            )
        super().__init__(network=features, reduction=reduction)
        require_choice("distance", distance, ("mse", "l1"))
        require_choice("weights", weights, ("imagenet", None))
        layers = DEFAULT_LAYERS if layers is None else layers
        known = layer_positions(VGG19_KINDS if features is None else map(_kind, features))
        if not layers or len(set(layers)) < len(layers) or not set(layers) <= set(known):
            raise ValueError(f"layers must be one or more distinct names of {list(known)}, found {list(layers)}")
        given = dict(layer_weights or {})
        if not set(given) <= set(layers):
            raise ValueError(f"layer_weights must name layers of {list(layers)}, found {list(given)}")
        for name, weight in given.items():
            require_number(f"layer_weights[{name!r}]", weight, low=0)
        if (mean is None) != (std is None) or (mean is not None and (len(mean) != 3 or len(std or ()) != 3)):
            raise ValueError(f"mean and std must be given together, three values each, found {mean!r} and {std!r}")
        if backbone is None and weights is not None:
            check_installed(type(self).__name__, "torchvision")
        self.layers = tuple(layers)
        self.layer_weights = {name: float(given.get(name, 1.0)) for name in self.layers}
        if not sum(self.layer_weights.values()):
            raise ValueError(f"layer_weights must not all be 0, found {given}")
        self.positions = {name: known[name] for name in self.layers}
        deepest = max(self.positions.values())
        self.minimum_size = 2 ** sum(name.startswith("pool") and at <= deepest for name, at in known.items())
        self.distance, self.resize, self.weights = distance, resize, weights
        self.mean, self.std = mean, std
        self.gray_to_rgb, self.detach_target = gray_to_rgb, detach_target

    def build_network(self) -> nn.Module:
        """VGG-19 up to its last convolutional block."""
        if self.weights is None:
            return vgg19_features()
        models = require_package(type(self).__name__, "torchvision").models
        network: nn.Module = models.vgg19(weights="IMAGENET1K_V1").features
        return network

    def forward(self, rendered: Tensor, target: Tensor) -> Tensor:
        """The distance of ``rendered`` and ``target``, both ``[B, 3, H, W]``."""
        check_images(rendered, target, 1 if self.resize is not None else self.minimum_size)
        check_precision(self.network, rendered=rendered, target=target)
        ours = self.features(rendered)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach_target):
            theirs = self.features(target)
        total = sum(
            (self.layer_weights[name] * self._distance(ours[name], theirs[name]) for name in self.layers),
            start=upcast(rendered.new_zeros(())),
        )
        return self.apply_reduction(total / sum(self.layer_weights.values()) + hidden_by_network(rendered, target))

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """Output of each layer, in one pass."""
        x = self._prepared(images)
        names = {position: name for name, position in self.positions.items()}
        taps: dict[str, Tensor] = {}
        for position, module in enumerate(islice(self.network.children(), max(names) + 1)):
            # an in-place layer may change neither the caller's image nor what was taken
            protect = getattr(module, "inplace", False) and (position == 0 or position - 1 in names)
            x = module(x.clone() if protect else x)
            if position in names:
                taps[names[position]] = x
        return taps

    def _prepared(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1 and self.gray_to_rgb:
            x = x.expand(-1, 3, -1, -1)
        if x.shape[1] != 3:
            hint = " (gray_to_rgb=True repeats a single channel)" if x.shape[1] == 1 else ""
            raise ValueError(f"images must have 3 channels, found shape {list(x.shape)}{hint}")
        if self.resize is not None:
            size = (self.resize, self.resize) if isinstance(self.resize, int) else self.resize
            x = F.interpolate(upcast(x), size=size, mode="bilinear", align_corners=False, antialias=True).to(x.dtype)
        if self.mean is None or self.std is None:
            return x
        # numbers, not tensors: exact in every dtype, and nothing has to be copied to the device
        channels = zip(x.unbind(1), self.mean, self.std, strict=True)
        return torch.stack([(channel - mean) / std for channel, mean, std in channels], dim=1)

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        difference = upcast(a) - upcast(b)
        return (difference.square() if self.distance == "mse" else difference.abs()).flatten(1).mean(1)

    def extra_repr(self) -> str:
        """Configuration."""
        return (
            f"layers={list(self.layers)}, distance={self.distance!r}, weights={self.weights!r}, {super().extra_repr()}"
        )
