"""Losses for contrastive, multimodal, supervised, alignment, predictive, temporal and perceptual training.

Every public name is imported when it is first asked for. Families: ``contrastive``, ``multimodal``, ``supervised``,
``alignment``, ``predictive``, ``temporal``, ``perceptual``, ``balancing``; by name: ``create_loss``; from a dict or a
file: ``create_loss_from_config``.

Names that the package of the old code base exported (``ContrastiveLoss``, ``VICRegLoss``, ...) give the frozen twins,
with a deprecation warning, until they are removed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._public import PUBLIC, REGISTRY
from .base import compat
from .loss_registry import LossRegistry

if TYPE_CHECKING:
    from torch import nn

__all__ = ["create_loss", *sorted(PUBLIC)]  # noqa: PLE0604  # names from the table are strings


def create_loss(name: str, /, **kwargs: Any) -> nn.Module:
    """A loss by its registry name, with the keyword arguments of its class.

    Raises:
        ValueError: unknown name (the message lists close ones), or an argument out of range.
        TypeError: unknown argument.
    """
    return LossRegistry.create(name, **kwargs)


def _load(name: str | None) -> None:
    modules = REGISTRY.values() if name is None else [REGISTRY[name]] if name in REGISTRY else []
    for module in dict.fromkeys(modules):
        import_module(f"{__name__}.{module}")


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        value = getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)
        globals()[name] = value
        return value
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return compat.legacy_attribute(__name__, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


LossRegistry.set_loader(_load, {name: f"{__name__}.{module}" for name, module in REGISTRY.items()})
if _bridge := compat.bridge():
    _bridge.install_finder()  # of old import paths; it reads the catalog when the first of them is asked for
