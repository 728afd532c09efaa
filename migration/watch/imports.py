"""Tells when one of the watched modules has been imported.

The warnings at old imports look at the frames of the running import statement; ``deprecation`` therefore knows this
module as part of the import system.
"""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Callable, Container, Sequence
from types import ModuleType
from typing import Any

__all__ = ["AfterImport"]


class _Loader:
    """Does what ``inner`` does, then tells."""

    def __init__(self, inner: Any, tell: Callable[[ModuleType], None]) -> None:
        self.inner = inner
        self.tell = tell

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self.inner.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        spec = vars(module).get("__spec__")
        if spec is not None and spec.loader is self:
            spec.loader = self.inner  # nobody sees this loader afterwards
        if vars(module).get("__loader__") is self:
            module.__loader__ = self.inner
        self.inner.exec_module(module)
        self.tell(sys.modules.get(name, module))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class AfterImport:
    """Meta path finder in front of all others: finds nothing itself."""

    def __init__(self, names: Container[str], tell: Callable[[ModuleType], None]) -> None:
        self.names = names
        self.tell = tell

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """What the other finders find, with a loader that tells."""
        if fullname not in self.names:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            if finder is self or find is None:
                continue
            spec: importlib.machinery.ModuleSpec | None = find(fullname, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, self.tell)  # type: ignore[assignment]  # a loader by protocol
                return spec
        return None
