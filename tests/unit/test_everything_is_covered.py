"""Every registered loss stands in the contract test, the parity table, the docs and the config round trip."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

import training_losses
from tests.contract.record import all_records as contract_records
from tests.parity.test_successors import EVERY as PARITY_RECORDS
from tests.unit.test_config import RECORDS as ROUND_TRIPS
from training_losses._public import REGISTRY
from training_losses.loss_registry import LossRegistry
from training_losses.migration.catalog import builtin_catalog
from training_losses.migration.parity import resolve

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "losses"

NO_OLD_COUNTERPART = {
    "cross_modal_vicreg": "VICReg over heads of different widths, new here",
    "dcl": "Yeh et al. 2022; the old class of this name was intra_inter_modal",
    "gradnorm": "Chen et al. 2018, new here",
    "lpips": "the old combinations called the package lpips directly; it is part of the image_* losses",
    "uncertainty": "Kendall et al. 2018, new here",
}
"""Losses that replace no old symbol, so that there is nothing to be at parity with."""


@cache
def registered() -> set[str]:
    for module in pkgutil.walk_packages(training_losses.__path__, "training_losses."):
        importlib.import_module(module.name)
    return set(LossRegistry.available())


def of_successors(paths: Iterable[str]) -> set[str]:
    """Registered losses that are one of ``paths``, a base of one, or the class of its function's module."""
    found = set()
    for path in paths:
        new = resolve(path)
        for name in registered():
            loss = LossRegistry.get(name)
            same_module = not isinstance(new, type) and loss.__module__ == path.rpartition(".")[0]
            if same_module or (isinstance(new, type) and issubclass(new, loss)):
                found.add(name)
    return found


@cache
def in_catalog() -> set[str]:
    return of_successors({case.new for _, case in builtin_catalog().successors() if case.new})


@cache
def in_parity_table() -> set[str]:
    """Losses that a parity record compares with their old ones, or says why it cannot."""
    return of_successors({c.new for record in PARITY_RECORDS for c in record.row.cases if c.new})


def missing(name: str) -> list[str]:
    """Where the loss ``name`` is missing."""
    places = {
        "training_losses._public.REGISTRY": set(REGISTRY),
        "the contract test (tests/contract/records_*.py)": {record.name for record in contract_records()},
        "the catalog (migration/catalog/*.toml)": in_catalog() | set(NO_OLD_COUNTERPART),
        "the parity table (tests/parity/records_*.py)": in_parity_table() | set(NO_OLD_COUNTERPART),
        "the config round trip (tests/unit/test_config.py)": {record.name for record in ROUND_TRIPS},
        "the docs (docs/losses/*.md)": {path.stem for path in DOCS.glob("*.md")},
    }
    return [place for place, names in places.items() if name not in names]


@pytest.mark.parametrize("name", sorted(registered()))
def test_every_registered_loss_is_everywhere(name: str) -> None:
    assert missing(name) == []


def test_a_missing_loss_is_noticed() -> None:
    assert len(missing("no_such_loss")) == 6


def test_exemptions_are_needed() -> None:
    assert set(NO_OLD_COUNTERPART) <= registered()
    assert not set(NO_OLD_COUNTERPART) & in_catalog()
