"""What the codemod assumes of every row of the built-in catalog, checked against the successors themselves."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

from tests.codemod.support import codes
from training_losses.migration.catalog import Case, Symbol, builtin_catalog
from training_losses.migration.codemod.project import rewrite_text
from training_losses.migration.codemod.rules import Rules
from training_losses.migration.codemod.signatures import positional

ROWS = [
    pytest.param(symbol, case, id=f"{symbol.system}:{symbol.old} {case.describe()}")
    for symbol, case in builtin_catalog().successors()
    if case.parity != "fixed"
]
SYMBOLS = [pytest.param(symbol, id=f"{symbol.system}:{symbol.old}") for symbol in builtin_catalog().symbols]


def successor(case: Case) -> Any:
    assert case.new is not None
    module, _, name = case.new.rpartition(".")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("symbol", "case"), ROWS)
def test_positional_arguments_of_calls_mean_the_same(symbol: Symbol, case: Case) -> None:
    """Calls keep positional arguments where the successor has them at the same place, and the codemod must know it."""
    function = symbol.kind == "function"
    old = case.arguments if function else case.forward
    if old is None:
        return
    new = successor(case)
    parameters = inspect.signature(new if function or not isinstance(new, type) else new.forward).parameters
    names = [p.name for p in parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)]
    names = names if function else names[1:]
    assert case.new is not None
    assert positional(case.new) in (tuple(names), None)
    if positional(case.new) is not None:
        return  # the codemod sees itself which arguments need a name
    for place, argument in enumerate(a for a in old.values() if not a.variadic and not a.keyword_only):
        if argument.drop is not None or argument.report is not None:
            return  # the codemod names the arguments behind these
        assert names[place] == argument.new_name


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_every_old_path_is_rewritten_or_reported(symbol: Symbol) -> None:
    for path in symbol.all_paths:
        module, _, name = path.rpartition(".")
        text = f"from {module} import {name}\nisinstance(x, {name})\n"
        new, outcome = rewrite_text(text, Rules(builtin_catalog()))
        assert new != text or codes(outcome, "left"), path
        assert f"from {module} import" not in new or codes(outcome, "left")
        assert not outcome.errors


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_the_twin_keeps_the_call(symbol: Symbol) -> None:
    path = symbol.all_paths[0]
    module, _, name = path.rpartition(".")
    rules = Rules(builtin_catalog(), "exact")
    if not rules.only_twin(symbol):
        return
    text = f"from {module} import {name}\n{name}(*a, **b)\nclass Mine({name}): ...\n"
    new, outcome = rewrite_text(text, rules)
    twin, _, twin_name = symbol.twin.rpartition(".")
    assert new.startswith(f"from {twin} import {twin_name}")
    assert new.endswith("(*a, **b)\nclass Mine(" + twin_name + "): ...\n")
    assert codes(outcome) == {"TL021"}
