"""Training code. The losses are in ``training.losses``."""

from __future__ import annotations

import sys
from typing import Any

if __name__ != "training":
    # Imported as src.training, with the root of this repository on sys.path: stand aside for the one real package.
    from importlib import import_module
    from pathlib import Path

    source = str(Path(__file__).parents[1])
    if source not in sys.path:
        sys.path.append(source)
    import_module("training.losses")
    sys.modules[__name__] = import_module("migration.shims").old_package(__name__)


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .losses.base import compat

    return compat.legacy_attribute(__name__, name)
