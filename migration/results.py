"""Results of new losses in the form of the old ones: keys, order, kinds of values, graphs. Asked by ``bridge``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from .catalog import Case, ResultKey, Symbol, builtin_catalog
from .members import comes_from

__all__ = ["old_entries", "require_results"]


@cache
def _rows(owners: tuple[str, ...], name: str) -> tuple[tuple[Symbol, Case], ...]:
    catalog = builtin_catalog()
    return tuple(
        (symbol, case)
        for owner in owners
        for symbol, case in catalog.of_successor(owner)
        if name in (symbol.old, symbol.name, symbol.twin, *symbol.all_paths)
    )


def require_results(owners: tuple[str, ...], name: str) -> None:
    """Whether what became of the old class ``name`` can answer as it did.

    Raises:
        ValueError: it cannot; the message says which names could be meant.
    """
    rows = _rows(owners, name)
    if len({(symbol.system, symbol.old) for symbol, _ in rows}) == 1 and any(case.keeps_results for _, case in rows):
        return
    known = {s.old: None for owner in owners for s, case in builtin_catalog().of_successor(owner) if case.keeps_results}
    loss = owners[0].rpartition(".")[2]
    raise ValueError(
        f"results_like must name the old class of {loss} ({', '.join(known) or 'it has none'}), found {name!r}"
    )


def old_entries(loss: Any, owners: tuple[str, ...], name: str, entries: Mapping[str, Any]) -> Any:
    """The result of the old class ``name`` for the ``entries`` (with their graphs) of ``loss``: nested, or a tuple."""
    cases = [case for _, case in _rows(owners, name)]
    case = next((case for case in cases if comes_from(loss, case)), cases[0])
    nested: dict[str, Any] = {}
    for old, rule in case.results.items():
        found = list(_values(loss, rule, entries))
        if not found:
            continue
        *path, last = old.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        value = _of_kind(found[0], rule.kind or ("graph" if rule.new == "loss" else case.entries))
        place[last] = next((was for was, now in rule.map if math.isclose(value, now, rel_tol=1e-6)), value)
    return tuple(nested.values()) if case.returns is not None and case.returns[0] == "tuple" else nested


def _values(loss: Any, rule: ResultKey, entries: Mapping[str, Any]) -> Iterable[Any]:
    if rule.new is not None and rule.new in entries:
        value = entries[rule.new]
        yield value / getattr(loss, rule.divide) if rule.divide else value
    elif rule.attribute:
        yield getattr(loss, rule.attribute)


def _of_kind(value: Any, kind: str) -> Any:
    if kind == "graph" or not hasattr(value, "detach"):
        return value
    value = value.detach()
    return value if kind == "tensor" else int(value) if kind == "int" else float(value)
