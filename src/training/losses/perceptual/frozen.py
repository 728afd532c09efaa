"""Frozen networks that are loaded when they are first needed and stay out of states and parameter lists."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from abc import abstractmethod
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..base import BaseLoss, require_floating
from ..functional import not_finite, upcast

__all__ = ["FrozenNetworkLoss", "check_images", "check_installed", "check_precision", "he_init", "require_package"]

INSTALL = "pip install 'training-losses[perceptual]'"


def check_installed(user: str, *names: str) -> None:
    """Look for optional packages without importing them.

    Raises:
        ImportError: one is missing; the message says what to install.
    """
    for name in names:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            raise ImportError(f"{user} needs the package {name}: {INSTALL}")


def require_package(user: str, name: str) -> ModuleType:
    """Import an optional package that needs torchvision.

    Raises:
        ImportError: it is missing, or torchvision was built for another torch; the message says what to install.
    """
    check_installed(user, name)
    try:
        return importlib.import_module(name)
    except (RuntimeError, ImportError, AttributeError, OSError) as error:
        raise ImportError(
            f"{user} needs a torchvision that belongs to torch {torch.__version__}; importing {name} failed with: "
            f"{error}. Install the release of torchvision made for this torch from the same package index "
            f"(extras: {INSTALL}), or give a backbone, or weights=None where the loss offers it."
        ) from error


def he_init(module: nn.Module) -> nn.Module:
    """Random weights that keep the size of activations, the same every time, without the global random state."""
    generator = torch.Generator()
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter, generator=generator)
        else:
            nn.init.zeros_(parameter)
    return module


def check_images(rendered: Tensor, target: Tensor, minimum: int = 1) -> None:
    """Raise ``ValueError`` unless both are floating ``[B, C, H, W]`` of one shape, B >= 1, H and W >= ``minimum``."""
    require_floating(rendered=rendered, target=target)
    if rendered.dim() != 4 or rendered.shape != target.shape or not rendered.shape[0]:
        raise ValueError(
            f"rendered and target must have one shape [B, C, H, W] with B >= 1, found {_sizes(rendered, target)}"
        )
    if min(rendered.shape[2:]) < minimum:
        found = _sizes(rendered, target)
        raise ValueError(f"images must be at least {minimum} x {minimum} pixels for these layers, found {found}")


def _sizes(rendered: Tensor, target: Tensor) -> str:
    return f"rendered {list(rendered.shape)}, target {list(target.shape)}"


def check_precision(network: nn.Module, **images: Tensor) -> None:
    """Raise ``ValueError`` unless the images have the dtype of the network, or autocast sees to it."""
    weight = next((x for x in network.parameters() if x.is_floating_point()), None)
    if weight is None or torch.is_autocast_enabled(weight.device.type):
        return
    for name, x in images.items():
        if x.dtype != weight.dtype:
            raise ValueError(
                f"{name} must be {weight.dtype} as the network is, found {x.dtype}: convert one of them, or call the "
                "loss under torch.autocast"
            )


def hidden_by_network(*images: Tensor) -> Tensor:
    """``[B]``: 0, or NaN for a sample with a pixel that is not finite, which the ReLUs of a network may hide."""
    return torch.stack([not_finite(upcast(x)).flatten(1).sum(dim=1) for x in images]).sum(dim=0)


class FrozenNetworkLoss(BaseLoss):
    """A loss that looks through a fixed network.

    The network stands beside the module tree: it is not in ``state_dict``, ``parameters`` or ``modules``, stays frozen
    and in eval mode whatever ``train`` says, and follows ``to`` all the same. It is built once, when first needed.
    """

    def __init__(self, *, network: nn.Module | None, reduction: str) -> None:
        super().__init__(reduction=reduction)
        # where the network goes when it is loaded; moved and cast with the loss
        self.register_buffer("_anchor", torch.zeros(()), persistent=False)
        self._loaded: list[nn.Module] = [] if network is None else [network.eval().requires_grad_(False)]

    @abstractmethod
    def build_network(self) -> nn.Module:
        """The network with its weights."""

    @property
    def network(self) -> nn.Module:
        """The frozen network; loads it if necessary."""
        if not self._loaded:
            anchor = self.get_buffer("_anchor")
            network = self.build_network().eval().requires_grad_(False)
            self._loaded.append(network.to(anchor.device, anchor.dtype))
        return self._loaded[0]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        for network in self._loaded:
            network._apply(fn)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # the same
