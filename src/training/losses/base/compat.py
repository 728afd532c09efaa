"""The one bridge from new to old code.

Nothing is imported until an old key or an old path is asked for, and everything works without ``migration``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Container
from functools import cache
from types import ModuleType
from typing import Any

__all__ = ["LazyShimFinder", "bridge", "install_finder", "new_result_key", "path_of", "upgrade_state"]


@cache
def bridge() -> ModuleType | None:
    """``migration.bridge``, or ``None`` where ``migration`` is not installed."""
    try:
        return importlib.import_module("migration.bridge")
    except ModuleNotFoundError as error:
        if error.name in ("migration", "migration.bridge"):
            return None
        raise


def path_of(cls: type) -> str:
    """Dotted path of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def new_result_key(owner: str, key: str, known: Container[str]) -> str | None:
    """The key that replaced ``key`` of an old result, if the catalog has one among the ``known`` (warns)."""
    module = bridge()
    return module.new_result_key(owner, key, known) if module is not None and owner else None


def upgrade_state(loss: Any, state_dict: dict[str, Any], prefix: str) -> None:
    """Rename the old keys of ``loss`` in ``state_dict`` in place; does nothing unless a key of its own is missing."""
    own = loss.state_dict(keep_vars=True)
    if all(prefix + key in state_dict for key in own):
        return
    module = bridge()
    if module is not None:
        module.upgrade_state(path_of(type(loss)), set(own), state_dict, prefix)


class LazyShimFinder:
    """Stands at the end of ``sys.meta_path`` and reads the catalog only when an old root is asked for."""

    roots = ("src", "training.losses", "losses", "utils", "external_util", "dynvision", "triangulate_ai")

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
        """Hand the import of an old path to ``migration.shims``; ``None`` for everything else."""
        if not any(fullname == root or fullname.startswith(f"{root}.") for root in cls.roots):
            return None
        if bridge() is None:
            return None
        shims = importlib.import_module("migration.shims")
        return shims.find_spec(fullname, path)


def install_finder() -> None:
    """Append the finder once."""
    if LazyShimFinder not in sys.meta_path:
        sys.meta_path.append(LazyShimFinder)
