"""Import frozen twins in tests, where their deprecation warning is expected."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType
from typing import Any

from deprecation import DeprecatedWarning

SUB_PACKAGES = ("alignment", "hjepa", "dynvision", "triangulate")


def twin_module(name: str = "") -> ModuleType:
    """The twin module ``training_losses.legacy.NAME`` (``hjepa.vicreg``); the package itself for ``""``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecatedWarning)
        return importlib.import_module(f"training_losses.legacy.{name}" if name else "training_losses.legacy")


def twin(path: str) -> Any:
    """The object at ``MODULE.NAME``, for instance ``twin("hjepa.vicreg.VICRegLoss")``."""
    module, _, name = path.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecatedWarning)
        return getattr(twin_module(module), name)


def golden_module(system: str, module: str) -> ModuleType:
    """The twin of a golden module."""
    parts = [] if system == "multimodal_insight" else [system]
    if module not in ("__init__", "package"):
        parts.append(module)
    return twin_module(".".join(parts))


def golden_name(dotted: str) -> str:
    """The golden module that a twin's ``__module__`` stands for (``...legacy.hjepa.vicreg`` -> ``vicreg``)."""
    root, _, name = dotted.partition("legacy")
    if root != "training_losses.":
        return dotted
    rest = name.split(".")[1:]
    if rest and rest[0] in SUB_PACKAGES:
        return rest[1] if len(rest) > 1 else "package"
    return rest[0] if rest else "__init__"
