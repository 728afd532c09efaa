"""Old import paths, served from the catalog. There is no shim file per module.

``install()`` appends one finder to ``sys.meta_path``. It is asked only for names that no other finder knows, so a
project that still has the old files keeps using them. Old modules are the twins themselves (the same module object);
old packages and their missing parents are stand-ins, each of which becomes the real package as soon as one of its name
is on the path.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from . import aliases
from .catalog import builtin_catalog
from .deprecation import importing_statement, warn_attribute, warn_import

__all__ = [
    "ENVIRONMENT",
    "OldPackage",
    "ShimFinder",
    "StandIn",
    "install",
    "installed",
    "legacy_attribute",
    "uninstall",
]

ENVIRONMENT = "TRAINING_LOSSES_SHIMS"
"""Set to 1, this variable installs the finder at the start of every interpreter that has the wheel installed."""

_FIRST = ("src", "training", "losses", "utils", "external_util", "models", "dynvision", "triangulate_ai")
"""First components of old paths: everything else is turned away without reading the catalog (a test compares)."""

_TWINS = "training_losses.legacy."
_NEW = ("training.losses", "src.training.losses")
"""Old packages below which new names are served, too, as 1.0 did."""


def _twin(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def legacy_attribute(package: str, name: str, depth: int = 1) -> Any:
    """The twin that the old ``package`` exported as ``name``, with a warning at the caller's line.

    Raises:
        AttributeError: the old package had no such name.
    """
    module = sys.modules.get(package)  # none yet while the import system sets it up
    modules = {} if module is None else vars(module).get(_MODULES, {})
    if name in modules:
        warn_attribute(package, name, depth + 1, only_imports=True)
        return modules[name]
    catalog = builtin_catalog()
    path = f"{package}.{name}"
    symbol = catalog.by_path.get(path)
    if not name.startswith("__") and package in catalog.packages:
        if symbol is not None:
            warn_attribute(package, name, depth + 1)
            return _twin(symbol.twin)
        if path in catalog.modules and hasattr(importlib.import_module(catalog.packages[package]), name):
            # the old package imported this sub-module itself
            warn_attribute(package, name, depth + 1)
            return importlib.import_module(catalog.modules[path])
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


_MODULES = "_old_modules"


class _LaterPath(list[str]):
    """``__path__`` of a stand-in. Each use looks whether the real package can be found by now."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __iter__(self) -> Iterator[str]:
        module = sys.modules.get(self.name)
        if isinstance(module, StandIn):
            module._become_real()
            if module.__path__ is not self:
                return iter(module.__path__)
        return super().__iter__()


class StandIn(ModuleType):
    """Stands for a package that is not there, and becomes it when it is: nothing hides a package that appears later."""

    def _become_real(self) -> bool:
        """Run the code of the real package in this module, if it can be found."""
        parent = sys.modules.get(self.__name__.rpartition(".")[0])
        spec = PathFinder.find_spec(self.__name__, None if parent is None else list(parent.__path__))
        if spec is None or _is_own(spec) or not isinstance(self.__path__, _LaterPath):
            return False
        self.__spec__, self.__file__, self.__loader__ = spec, spec.origin, spec.loader
        self.__path__ = spec.submodule_search_locations or []
        if spec.loader is not None and spec.origin is not None:  # else a folder without an __init__.py
            spec.loader.exec_module(self)
        return True

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and self._become_real() and name in vars(self):
            return vars(self)[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


def _is_own(spec: ModuleSpec) -> bool:
    """Whether the path finder has found the folder of a checkout of this project."""
    root = Path(__file__).parents[1]
    folders = [Path(spec.origin).parent] if spec.origin else map(Path, spec.submodule_search_locations or ())
    return any(folder in (root / "src", root / "src/training", root / "src/training/losses") for folder in folders)


class OldPackage(StandIn):
    """Stands for an old package: its exports are the twins, looked up when they are asked for.

    It keeps its old sub-modules aside, so that each import statement for one is noticed. As plain attributes they would
    answer ``from package import module`` without asking anybody.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and value.__name__.startswith(_TWINS):
            vars(self).setdefault(_MODULES, {})[name] = value
            vars(self).pop(name, None)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if vars(self).get(_MODULES, {}).pop(name, None) is None:
            super().__delattr__(name)

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return _exports(self.__name__)
        if not name.startswith("__"):  # those are asked for while the import system sets it up
            with contextlib.suppress(AttributeError):
                return legacy_attribute(self.__name__, name, depth=1)
        if (
            self.__name__ in _NEW
            and not name.startswith("__")
            and hasattr(root := importlib.import_module(aliases.ROOT), name)
        ):
            return getattr(root, name)
        return super().__getattr__(name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_exports(self.__name__)})


def _exports(package: str) -> list[str]:
    catalog = builtin_catalog()
    names = [p.rpartition(".")[2] for s in catalog.symbols for p in s.package_paths if p.rpartition(".")[0] == package]
    if package == _NEW[0]:  # a star import of it has given the new names since 1.0
        return [name for name in importlib.import_module(aliases.ROOT).__all__ if name not in names]
    if package in catalog.packages:
        order: list[str] = list(getattr(importlib.import_module(catalog.packages[package]), "__all__", ()))
        names.sort(key=lambda name: order.index(name) if name in order else len(order))
    return names


def stand_in(name: str) -> ModuleSpec:
    """A spec for the old package ``name``, or for a parent of one."""
    old = name in _NEW or (name != "training" and name in builtin_catalog().packages)
    if old:
        aliases.install_finder()
    loader = _Loader(None, OldPackage if old else StandIn)
    spec = ModuleSpec(name, loader, is_package=True)  # type: ignore[arg-type]  # a loader by protocol
    spec.submodule_search_locations = _LaterPath(name)
    return spec


class _Loader:
    """Puts a stand-in (or what importing ``target`` gives) into ``sys.modules`` under the old name."""

    def __init__(self, target: str | None, kind: type[ModuleType] = ModuleType) -> None:
        self.target = target
        self.kind = kind

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.kind(spec.name) if self.target is None else None

    def exec_module(self, module: ModuleType) -> None:
        if self.target is not None:
            name = module.__name__
            sys.modules[name] = importlib.import_module(self.target)
            if name in builtin_catalog().modules:
                warn_import(name, self.target, sys._getframe(1))


def leads_to(name: str, known: Iterable[str], depth: int = 1) -> bool:
    """Whether the running import of ``name`` goes on to a known old path: only then may a parent be made up."""
    statement = importing_statement(name, sys._getframe(depth + 1))
    if statement is None:
        return True
    wanted = (statement.module, *statement.paths)
    return any(path == old or path.startswith(f"{old}.") for path in wanted for old in known)


class ShimFinder:
    """Meta path finder for the old paths of the built-in catalog."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for old modules, old packages and their missing parents."""
        if fullname.partition(".")[0] not in _FIRST:
            return None
        catalog = builtin_catalog()
        if fullname in catalog.modules:
            return ModuleSpec(fullname, _Loader(catalog.modules[fullname]))  # type: ignore[arg-type]  # a loader by protocol
        known = (*catalog.modules, *catalog.packages)
        if fullname in catalog.packages:
            return stand_in(fullname)
        if any(old.startswith(f"{fullname}.") for old in known) and leads_to(fullname, known):
            return stand_in(fullname)
        return None


def install() -> None:
    """Serve old import paths in this process. Calling it again does nothing."""
    if ShimFinder not in sys.meta_path:
        sys.meta_path.append(ShimFinder)


def uninstall() -> None:
    """Stop serving old import paths; modules that are imported stay."""
    if ShimFinder in sys.meta_path:
        sys.meta_path.remove(ShimFinder)


def installed() -> bool:
    """Whether old paths are served."""
    return ShimFinder in sys.meta_path


def install_for_children() -> None:
    """Serve old paths in this process and in every interpreter that it starts."""
    os.environ[ENVIRONMENT] = "1"
    install()
