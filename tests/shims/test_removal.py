"""No old name of any system outlives the version that the catalog states for its removal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from deprecation import UnsupportedWarning, deprecated, fail_if_not_removed
from packaging.version import Version

from training_losses.migration import deprecation
from training_losses.migration.catalog import builtin_catalog

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CATALOG = builtin_catalog()
SYSTEMS = sorted({symbol.system for symbol in CATALOG.symbols})
PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def rows(system: str) -> Iterator[tuple[str, str, str]]:
    """Old names of a system, with the versions of deprecation and removal."""
    symbols = [symbol for symbol in CATALOG.symbols if symbol.system == system]
    yield from ((symbol.old, symbol.deprecated_in, symbol.removed_in) for symbol in symbols)


def overdue(named: Iterator[tuple[str, str, str]], version: str) -> list[str]:
    """The names that should be gone in ``version``, by the library that warns about them."""
    found = []
    for name, deprecated_in, removed_in in named:

        def use() -> None:
            pass

        old = deprecated(deprecated_in, removed_in, version, "")(use)
        try:
            fail_if_not_removed(old)()
        except AssertionError:
            found.append(name)
    return found


def test_all_five_systems_have_rows() -> None:
    assert SYSTEMS == ["alignment", "dynvision", "hjepa", "multimodal_insight", "triangulate"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_nothing_outlives_its_removal_version(system: str) -> None:
    version = PROJECT["version"]
    assert overdue(rows(system), version) == [], "remove these twins and their rows, or move removed_in"


def test_no_old_import_path_outlives_its_removal_version() -> None:
    version = PROJECT["version"]
    assert overdue(((path, *versions) for path, versions in CATALOG.versions.items()), version) == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_guard_fails_for_every_row_once_its_version_is_reached(system: str) -> None:
    every = list(rows(system))
    for version in {removed_in for _, _, removed_in in every}:
        assert overdue(iter(every), version) == [
            name for name, _, removed in every if Version(removed) <= Version(version)
        ]
    assert overdue(iter(every), "1.999") == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_old_import_is_unsupported_from_then_on(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    symbol = next(s for s in CATALOG.symbols if s.system == system)

    @fail_if_not_removed
    def old_line() -> None:
        deprecation._emit(sys._getframe(), (symbol.all_paths[0],))

    for version in ("0", "1.999"):
        monkeypatch.setattr(deprecation, "installed_version", lambda version=version: version)
        old_line()
    monkeypatch.setattr(deprecation, "installed_version", lambda: symbol.removed_in)
    with pytest.raises(AssertionError, match="should be removed"):
        old_line()
    with pytest.warns(UnsupportedWarning, match=f"unsupported as of {symbol.removed_in}"):
        deprecation._emit(sys._getframe(), (symbol.all_paths[0],))
