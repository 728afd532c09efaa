"""Defaults and bounds are part of the interface: a change of one changes somebody's training run, or breaks it.

``interface.json`` lists the default of every argument of the public classes and functions, and which of a row of
numbers the constructor of each registered loss accepts for each numeric argument (``x`` accepted, ``.`` refused, with
the other arguments as in the first contract record). After an intended change::

    python -m tests.contract.test_interface

and a line in the changelog.
"""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from tests.contract.record import LossRecord, all_records
from training_losses._public import PUBLIC

FILE = Path(__file__).with_name("interface.json")
PROBES = (-1, -0.001, 0, 1, 2, 3, 7, 0.001, 0.3, 0.5, 0.999, 1.001, 1.5, 2.5)
FAMILIES = ("alignment", "balancing", "contrastive", "multimodal", "perceptual", "predictive", "supervised", "temporal")
PLACES = {name: f"training_losses.{module}" for name, module in PUBLIC.items()} | {
    name: f"training_losses.{package}"
    for package in (*FAMILIES, "base", "functional")
    for name in importlib.import_module(f"training_losses.{package}").__all__
}
RECORDS = {record.name: record for record in reversed(all_records())}


def arguments(found: Any) -> list[inspect.Parameter]:
    """Of a function its own; of a class those of its constructor, whose ``**options`` go on to that of a base."""
    constructors = [vars(base)["__init__"] for base in getattr(found, "__mro__", ()) if "__init__" in vars(base)]
    known: dict[str, inspect.Parameter] = {}
    for function in constructors[:-1] or [found]:
        own = inspect.signature(function).parameters
        known = {name: p for name, p in own.items() if p.kind is not p.VAR_KEYWORD} | known
        if len(own) == len([p for p in own.values() if p.kind is not p.VAR_KEYWORD]):
            break
    return list(known.values())


def defaults(name: str) -> dict[str, str]:
    """Argument -> its default as written; arguments of public methods as ``method.argument``."""
    found = getattr(importlib.import_module(PLACES[name]), name)
    if not callable(found):
        return {}
    try:
        parameters = arguments(found)
    except ValueError:  # no signature: an alias of a built-in type
        return {}
    made = {p.name: repr(p.default) for p in parameters if p.default is not inspect.Parameter.empty}
    methods = vars(found).items() if isinstance(found, type) else ()
    for method, function in methods:
        if inspect.isfunction(function) and not method.startswith("_"):
            parameters = inspect.signature(function).parameters.values()
            made |= {f"{method}.{p.name}": repr(p.default) for p in parameters if p.default is not p.empty}
    return made


def numeric(record: LossRecord) -> list[str]:
    """Arguments that take a number."""
    parameters = arguments(type(record.build()))
    words = ("int", "float")
    return [p.name for p in parameters if any(w in str(p.annotation).replace("|", " ").split() for w in words)]


def accepted(record: LossRecord, name: str) -> str:
    """A mark for each probe."""

    def mark(value: float) -> str:
        try:
            record.build(**{name: value})
        except (ValueError, TypeError):
            return "."
        return "x"

    return "".join(mark(value) for value in PROBES)


def public() -> list[str]:
    return [name for name in sorted(PLACES) if defaults(name)]


KNOWN = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {"defaults": {}, "accepted": {}}


@pytest.mark.parametrize("name", public())
def test_defaults(name: str) -> None:
    assert defaults(name) == KNOWN["defaults"][name]


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_bounds(name: str) -> None:
    record = RECORDS[name]
    assert {argument: accepted(record, argument) for argument in numeric(record)} == KNOWN["accepted"].get(name, {})


def test_nothing_is_left_over() -> None:
    assert set(KNOWN["defaults"]) == set(public())
    assert set(KNOWN["accepted"]) <= set(RECORDS)
    assert list(PROBES) == KNOWN["probes"]


def main() -> None:
    """Write what holds now."""
    bounds = {n: {a: accepted(r, a) for a in numeric(r)} for n, r in sorted(RECORDS.items())}
    made = {"probes": PROBES, "defaults": {n: defaults(n) for n in public()}, "accepted": bounds}
    FILE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
