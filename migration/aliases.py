"""The names of version 1.0 as the same objects as under ``training_losses``.

A package that is ours is an alias (``legacy``, ``migration``) or an object of its own with the modules of
``training_losses`` below it (``training.losses``: it answers the exports of the old package with twins).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

__all__ = ["AliasFinder", "canonical", "find_old_name", "stand_aside"]

ROOT = "training_losses"
_SAME = {"legacy": f"{ROOT}.legacy", "migration": f"{ROOT}.migration"}
_OWN = ("training.losses", "src.training.losses")
"""Packages of their own whose new modules are those of the root."""


def canonical(name: str) -> str | None:
    """The name below ``training_losses`` that the module or object ``name`` has; ``None`` if it is not an old one."""
    for old, new in (*_SAME.items(), *((own, ROOT) for own in _OWN)):
        if name == old or name.startswith(f"{old}."):
            return new + name[len(old) :]
    return None


class _Alias:
    """Puts the module ``target`` into ``sys.modules`` under another name; its ``__spec__`` stays its own."""

    def __init__(self, target: str) -> None:
        self.target = target

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        sys.modules[name] = importlib.import_module(self.target)
        # an import of a module that is loaded would bind it in its package, over a function of the same name
        for loaded in [known for known in sys.modules if known.startswith(f"{self.target}.")]:
            sys.modules.setdefault(name + loaded[len(self.target) :], sys.modules[loaded])
        if self.target.startswith(f"{_SAME['legacy']}."):
            from .deprecation import warn_import

            warn_import(name, self.target, sys._getframe(1))

    def get_code(self, fullname: str) -> CodeType | None:
        """The code of the module, for ``python -m``."""
        spec = importlib.util.find_spec(self.target)
        code: CodeType | None = spec.loader.get_code(self.target) if spec else None  # type: ignore[union-attr]  # a file's
        return code


def alias(fullname: str, target: str) -> ModuleSpec | None:
    """A spec that gives the module ``target`` under the name ``fullname``; ``None`` if there is no such module."""
    spec = importlib.util.find_spec(target)
    if spec is None:
        return None
    package = spec.submodule_search_locations is not None
    return ModuleSpec(fullname, _Alias(target), origin=spec.origin, is_package=package)  # type: ignore[arg-type]  # a loader by protocol


class AliasFinder:
    """Meta path finder below packages that are ours. It stands first: the path finder would load a second copy."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for a module of ``training_losses`` under an old name."""
        parent, _, name = fullname.rpartition(".")
        new = canonical(parent)
        if new is None or not _is_ours(parent, new):
            return None
        return alias(fullname, f"{new}.{name}")


def _is_ours(package: str, new: str) -> bool:
    from .shims import OldPackage

    module = sys.modules.get(package)
    return isinstance(module, OldPackage) or (module is not None and module is sys.modules.get(new))


def install_finder() -> None:
    """Serve the modules below packages that are ours."""
    if AliasFinder not in sys.meta_path:
        sys.meta_path.insert(0, AliasFinder)


def find_old_name(fullname: str) -> ModuleSpec | None:
    """A spec for a name that 1.0 had and that nobody else has; ``None`` for any other."""
    from . import shims

    if fullname in _SAME:
        install_finder()
        return alias(fullname, _SAME[fullname])
    if fullname.partition(".")[0] != "training":
        return None
    if fullname == "training":
        return shims.stand_in(fullname) if shims.leads_to(fullname, _OWN, depth=2) else None
    if not isinstance(sys.modules.get(fullname.rpartition(".")[0]), shims.StandIn):
        return None
    return shims.stand_in(fullname) if fullname in _OWN else shims.ShimFinder.find_spec(fullname)


def stand_aside(name: str) -> None:
    """Give the place of the package ``name``, which the path finder has found in a checkout, to the served one."""
    from . import shims

    install_finder()
    if name in _SAME:
        sys.modules[name] = importlib.import_module(_SAME[name])
    else:
        sys.modules[name] = importlib.util.module_from_spec(shims.stand_in(name))
