"""Which losses are watched: the names that the catalogs in force give, by module."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..catalog import Catalog, builtin_catalog, load_catalog

__all__ = ["Targets", "catalogs_in_force", "spellings", "targets"]

Targets = dict[str, dict[str, list[str]]]
"""Module -> name in it -> ``[side, canonical path, kind]``; the side is ``old`` or ``new``."""

_ROOTS = (
    ("training_losses.migration", "migration"),
    ("training_losses.legacy", "legacy"),
    ("training_losses", "training.losses"),
)


def catalogs_in_force(files: Sequence[Path] = ()) -> Catalog:
    """The one place that says which catalogs hold: the given files, else those of this project."""
    return load_catalog(list(files)) if files else builtin_catalog()


def spellings(module: str) -> list[str]:
    """``module`` under each import root of this project that it may be known by."""
    found = [module]
    for one, other in _ROOTS:
        for known, alias in ((one, other), (other, one)):
            if module == known or module.startswith(f"{known}."):
                found.append(alias + module[len(known) :])
    return list(dict.fromkeys(found))


def targets(catalog: Catalog) -> Targets:
    """What is to be watched, for processes that read no catalog themselves."""
    found: Targets = {}

    def add(path: str, entry: list[str]) -> None:
        module, _, name = path.rpartition(".")
        for spelling in spellings(module):
            found.setdefault(spelling, {}).setdefault(name, entry)

    for symbol in catalog.symbols:
        entry = ["old", symbol.twin, symbol.kind]
        # the old paths, too: where the old files still lie in the tree, they come first
        for path in (symbol.twin, *symbol.paths):
            add(path, entry)
    for symbol, case in catalog.successors():
        assert case.new is not None
        add(case.new, ["new", case.new, symbol.kind])
    return found
