"""Learned perceptual distance of two images."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import require_choice, require_number
from ..functional import not_finite, upcast
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

__all__ = ["LPIPSLoss", "lpips_distance"]

# smallest image that the trunk's pooling layers leave something of
MINIMUM_SIZE = {"vgg": 16, "alex": 31, "squeeze": 15}


def lpips_distance(
    features_a: Sequence[Tensor],
    features_b: Sequence[Tensor],
    linear_weights: Sequence[Tensor],
    *,
    eps: float = 1e-10,
    safe_norm: bool = False,
    size: tuple[int, int] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """LPIPS of given features: ``sum_l mean_hw sum_c w_lc (n(f)_lc - n(g)_lc)^2``.

    Args:
        features_a, features_b: per layer ``[B, C_l, H_l, W_l]``.
        linear_weights: per layer ``[C_l]``.
        eps: in ``n(f) = f / (|f| + eps)``, the norm over channels.
        safe_norm: ``n(f) = f / sqrt(|f|^2 + eps^2)`` instead, whose gradient is finite where
            all channels are 0. The root at zero has none: there the plain form gives NaN gradients.
        size: keep the places: every layer is resized to this height and width in place of its mean.

    Returns:
        The total ``[B, 1, 1, 1]`` (``[B, 1, H, W]`` with ``size``) and the list of its terms.
    """

    def normalized(f: Tensor) -> Tensor:
        squares = f.square().sum(1, keepdim=True)
        # a length that overflows would turn the features into zeros
        return f / (((squares + eps**2).sqrt() if safe_norm else squares.sqrt() + eps) + not_finite(squares))

    layers = []
    for a, b, w in zip(features_a, features_b, linear_weights, strict=True):
        difference = (normalized(upcast(a)) - normalized(upcast(b))).square()
        layer = (difference * w.view(1, -1, 1, 1)).sum(1, keepdim=True)
        if size is None:
            layers.append(layer.mean((2, 3), keepdim=True))
        else:
            layers.append(F.interpolate(layer, size=size, mode="bilinear", align_corners=False))
    return torch.stack(layers).sum(0), layers


def _has_parts(network: nn.Module) -> bool:
    return all(hasattr(network, part) for part in ("net", "lins", "scaling_layer"))


@LossRegistry.register("lpips")
class LPIPSLoss(FrozenNetworkLoss):
    """LPIPS, the distance of deep features weighted so that it agrees with human judgements; a wrapper of ``lpips``.

    Use it as a term of image reconstruction, or as a metric. The package's network is kept frozen and in eval mode
    whatever ``train`` says: in training mode its dropout would make the distance random.

    The formula is that of ``lpips_distance`` over five layers of VGG-16 (or AlexNet, SqueezeNet).

    Args:
        net: ``vgg``, ``alex`` or ``squeeze``.
        input_range: lowest and highest value of the images; they are mapped to [-1, 1], which the network expects.
        spatial: a distance per pixel.
        safe_norm: finite gradients where all channels of a layer are 0 (blank images). ``False``: the package's own
            formula, with its NaN gradients; values differ by less than 1e-9 of the length of the features. Default:
            wherever the network has the parts of an LPIPS network, which another ``backbone`` may not have.
        eps: of the norm, with ``safe_norm``.
        detach_target: no gradient, and no graph, for the target.
        weights: ``imagenet`` (trunk from torchvision's cache or the network, loaded at the first call) or ``None``: a
            random trunk, always the same, under the linear weights that the package ships.
        backbone: a network to use instead, called with two batches in [-1, 1]; it is frozen, and not copied.
        reduction: ``mean``, ``sum``, or ``none`` (``[B]``, with ``spatial`` ``[B, H, W]``).

    Inputs ``rendered`` and ``target``: ``[B, 3, H, W]``, for ``vgg`` at least 16 x 16.

    Returns:
        The distance, 0-d or as ``reduction`` says.

    Raises:
        ImportError: ``lpips`` or torchvision is missing (at construction), or torchvision does not fit this torch.
        ValueError: wrong options, ``safe_norm`` with a backbone that is no LPIPS network; unequal shapes, too small
            images.

    Paper: Zhang, Isola, Efros, Shechtman, Wang: The Unreasonable Effectiveness of Deep Features as a Perceptual Metric,
    CVPR 2018.

    Differs from the old use, ``lpips.LPIPS(net="vgg")(2 * x - 1, 2 * y - 1).mean()``: the range is converted here, the
    network is not part of the state, the target has no graph.
    """

    def __init__(
        self,
        *,
        net: str = "vgg",
        input_range: tuple[float, float] = (0.0, 1.0),
        spatial: bool = False,
        safe_norm: bool | None = None,
        eps: float = 1e-10,
        detach_target: bool = True,
        reduction: str = "mean",
        backbone: nn.Module | None = None,
        weights: str | None = "imagenet",
    ) -> None:
        super().__init__(network=backbone, reduction=reduction)
        require_choice("net", net, tuple(MINIMUM_SIZE))
        require_choice("weights", weights, ("imagenet", None))
        low, high = input_range
        require_number("input_range[1]", high, low=low, exclusive=True)
        require_number("eps", eps, low=0, exclusive=True)
        if backbone is None:
            check_installed(type(self).__name__, "lpips", "torchvision")
        elif safe_norm and not _has_parts(backbone):
            raise ValueError("safe_norm needs the parts of an LPIPS network (net, lins, scaling_layer) in backbone")
        self.net, self.input_range, self.spatial = net, (float(low), float(high)), spatial
        self.safe_norm, self.eps, self.detach_target, self.weights = safe_norm, eps, detach_target, weights

    def build_network(self) -> nn.Module:
        """The network of the package ``lpips``."""
        package = require_package(type(self).__name__, "lpips")
        # it draws weights that it then replaces, and uses names of torchvision that are on their way out
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
            network: nn.Module = package.LPIPS(
                net=self.net, spatial=self.spatial, pnet_rand=self.weights is None, verbose=False
            )
        if self.weights is None:
            trunk = network.get_submodule("net")
            he_init(trunk)
        return network

    def forward(self, rendered: Tensor, target: Tensor) -> Tensor:
        """The distance of ``rendered`` and ``target``, both ``[B, 3, H, W]``."""
        network = self.network
        # a size is known for the networks of the package only, which bear the name of their trunk
        check_images(rendered, target, MINIMUM_SIZE.get(getattr(network, "pnet_type", ""), 1))
        check_precision(network, rendered=rendered, target=target)
        a, b = self._scaled(rendered), self._scaled(target.detach() if self.detach_target else target)
        safe = _has_parts(network) if self.safe_norm is None else self.safe_norm
        value = self._safe_distance(a, b) if safe else network(a, b)
        value = upcast(value).squeeze(1)
        value = value if self.spatial else value.flatten(1).mean(1)
        return self.apply_reduction(value + hidden_by_network(rendered, target).view(-1, *[1] * (value.dim() - 1)))

    def _scaled(self, x: Tensor) -> Tensor:
        low, high = self.input_range
        if (low, high) == (-1.0, 1.0):
            return x
        return 2 * x - 1 if (low, high) == (0.0, 1.0) else (x - low) * (2 / (high - low)) - 1

    def _safe_distance(self, a: Tensor, b: Tensor) -> Tensor:
        network = self.network
        scale, trunk = network.get_submodule("scaling_layer"), network.get_submodule("net")
        linear = [parameter.flatten() for parameter in network.get_submodule("lins").parameters()]
        size = (a.shape[2], a.shape[3]) if self.spatial else None
        return lpips_distance(trunk(scale(a)), trunk(scale(b)), linear, eps=self.eps, safe_norm=True, size=size)[0]

    def extra_repr(self) -> str:
        """Configuration."""
        return (
            f"net={self.net!r}, input_range={self.input_range}, spatial={self.spatial}, safe_norm={self.safe_norm}, "
            f"weights={self.weights!r}, {super().extra_repr()}"
        )
