"""Objects by dotted path."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

__all__ = ["resolve"]


def resolve(path: str) -> Any:
    """The object at ``module.name``. That a twin is deprecated is known to whoever asks for it here.

    Raises:
        ImportError: no such module.
        AttributeError: no such name in it.
    """
    module, _, name = path.rpartition(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return getattr(importlib.import_module(module), name)
