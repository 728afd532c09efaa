"""The catalog: one TOML file per old system, and the typed model that reads them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from .model import (
    MISSING,
    Argument,
    Case,
    Catalog,
    CatalogError,
    ConfigRule,
    FactoryForm,
    FactoryRule,
    Pin,
    ResultKey,
    StateRule,
    Symbol,
    Unconvertible,
    load_catalog,
    parse_catalog,
)

__all__ = [
    "MISSING",
    "Argument",
    "Case",
    "Catalog",
    "CatalogError",
    "ConfigRule",
    "FactoryForm",
    "FactoryRule",
    "Pin",
    "ResultKey",
    "StateRule",
    "Symbol",
    "Unconvertible",
    "builtin_catalog",
    "builtin_paths",
    "load_catalog",
    "moved_paths",
    "parse_catalog",
]


def builtin_paths() -> list[Path]:
    """The catalog files of this project, sorted by name."""
    return sorted(Path(__file__).parent.glob("*.toml"))


def moved_paths() -> list[Path]:
    """The catalogs of names that only moved, between versions of this project: the codemod reads them, too."""
    return sorted((Path(__file__).parent / "moved").glob("*.toml"))


@cache
def builtin_catalog() -> Catalog:
    """The catalog of all systems of this project, read once per process."""
    return load_catalog(builtin_paths())
