"""Old import paths, served from the catalog. There is no shim file per module.

``install()`` appends one finder to ``sys.meta_path``. It is asked only for names that no other finder knows, so a
project that still has the old files keeps using them. Old modules are the twins themselves (the same module object);
old packages are thin stand-ins with an empty ``__path__``, so that no file below them is ever loaded twice.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from .catalog import Catalog, builtin_catalog
from .deprecation import importing_statement, warn_attribute, warn_import

__all__ = ["ENVIRONMENT", "ShimFinder", "install", "installed", "legacy_attribute", "old_package", "uninstall"]

ENVIRONMENT = "TRAINING_LOSSES_SHIMS"
"""Set to 1, this variable installs the finder at the start of every interpreter that has the wheel installed."""

_FIRST = ("src", "training", "losses", "utils", "external_util", "dynvision", "triangulate_ai")
"""First components of old paths: everything else is turned away without reading the catalog (a test compares)."""

_NEW = "training.losses"
_NEW_UNDER_SRC = f"src.{_NEW}"


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


class _Package(ModuleType):
    """A package that keeps its old sub-modules aside, so that each import statement for one is noticed.

    As plain attributes they would answer ``from package import module`` without asking anybody.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and value.__name__.startswith("legacy."):
            vars(self).setdefault(_MODULES, {})[name] = value
            vars(self).pop(name, None)
        else:
            super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if vars(self).get(_MODULES, {}).pop(name, None) is None:
            super().__delattr__(name)


class _OldPackage(_Package):
    """Stands for an old package: its exports are the twins, looked up when they are asked for."""

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            return _exports(self.__name__)
        try:
            return legacy_attribute(self.__name__, name, depth=1)
        except AttributeError:
            if self.__name__ != _NEW_UNDER_SRC or name.startswith("__"):
                raise
        return getattr(importlib.import_module(_NEW), name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_exports(self.__name__)})


def _exports(package: str) -> list[str]:
    catalog = builtin_catalog()
    names = [p.rpartition(".")[2] for s in catalog.symbols for p in s.package_paths if p.rpartition(".")[0] == package]
    if package in catalog.packages:
        order: list[str] = list(getattr(importlib.import_module(catalog.packages[package]), "__all__", ()))
        names.sort(key=lambda name: order.index(name) if name in order else len(order))
    return names


class _NewPackage(ModuleType):
    """A new package under ``src.training.losses``: the same objects as under ``training.losses``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__all__":
            # above all no __path__: files below the package must not be loaded a second time
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(self.__name__.removeprefix("src.")), name)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if not name.startswith("__") and not isinstance(value, ModuleType):
            setattr(importlib.import_module(self.__name__.removeprefix("src.")), name, value)

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module(self.__name__.removeprefix("src.")))


def old_package(name: str) -> ModuleType:
    """The stand-in for the old package ``name``."""
    package = _OldPackage(name, f"Old package {name}, served by the frozen twins.")
    package.__path__ = []
    return package


class _Loader:
    """Puts ``module`` (or what importing ``target`` gives) into ``sys.modules`` under the old name."""

    def __init__(self, target: str | None, kind: type[ModuleType] = ModuleType) -> None:
        self.target = target
        self.kind = kind

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.kind(spec.name) if self.target is None else None

    def exec_module(self, module: ModuleType) -> None:
        if self.target is not None:
            name = module.__name__
            sys.modules[name] = importlib.import_module(self.target)
            if name in builtin_catalog().modules:
                warn_import(name, self.target, sys._getframe(1))


def _leads_to_old_path(catalog: Catalog, name: str) -> bool:
    """Whether the running statement goes on to an old path below ``name``: only then may a parent be made up."""
    statement = importing_statement(name, sys._getframe(2))
    if statement is None:
        return True
    known = (*catalog.modules, *catalog.packages)
    wanted = (statement.module, *statement.paths)
    return any(path == old or path.startswith(f"{old}.") for path in wanted for old in known)


class ShimFinder:
    """Meta path finder for the old paths of the built-in catalog."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec for old modules, old packages, their missing parents, and new modules under ``src.``."""
        if fullname.partition(".")[0] not in _FIRST:
            return None
        catalog = builtin_catalog()
        if fullname in catalog.modules:
            return cls._spec(fullname, _Loader(catalog.modules[fullname]))
        if fullname in catalog.packages and fullname != _NEW:
            return cls._spec(fullname, _Loader(None, _OldPackage))
        if fullname.startswith(f"{_NEW_UNDER_SRC}."):
            new = fullname.removeprefix("src.")
            spec = importlib.util.find_spec(new)
            if spec is None:
                return None
            package = spec.submodule_search_locations is not None
            return cls._spec(fullname, _Loader(None, _NewPackage) if package else _Loader(new))
        if any(old.startswith(f"{fullname}.") for old in (*catalog.modules, *catalog.packages)):
            return cls._spec(fullname, _Loader(None)) if _leads_to_old_path(catalog, fullname) else None
        return None

    @staticmethod
    def _spec(fullname: str, loader: _Loader) -> importlib.machinery.ModuleSpec:
        return importlib.machinery.ModuleSpec(fullname, loader, is_package=loader.target is None)  # type: ignore[arg-type]  # a loader by protocol


def install() -> None:
    """Serve old import paths in this process. Calling it again does nothing."""
    if ShimFinder not in sys.meta_path:
        sys.meta_path.append(ShimFinder)
    package = sys.modules.get(_NEW)
    if package is not None and type(package) is ModuleType:
        package.__class__ = _Package


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
