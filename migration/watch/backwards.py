"""A new loss as the old one that it could have come from: the rows of the catalog read from right to left."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..catalog import MISSING, Argument, Case, Catalog, Symbol
from ..resolve import resolve
from ..state import convert_state
from ..translate import Untranslatable

__all__ = ["old_call", "predecessor"]


def _same(a: Any, b: Any) -> bool:
    try:
        return a is b or bool(a == b)
    except (RuntimeError, ValueError):
        return False


def _undone(argument: Argument, value: Any) -> Any:
    """The old value whose conversion is ``value``.

    Raises:
        Untranslatable: there is none.
    """
    if argument.map is not None:
        for old, new in argument.map:
            if _same(new, value):
                return old
        raise Untranslatable(f"{argument.new_name}={value!r} has no old counterpart")
    if argument.scale:
        return value / argument.scale
    return not value if argument.invert else value


def _old_arguments(case: Case, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The old constructor's arguments for the new ones.

    Raises:
        Untranslatable: this row leads to no such object.
    """
    rest = {**defaults, **given}
    for pin in case.pins.values():
        if not _same(rest.pop(pin.name, pin.value), pin.value):
            raise Untranslatable(f"{pin.name} is not {pin.value!r}")
    old = {name: options[0] for name, options in case.when.items()}
    for name, argument in case.arguments.items():
        if argument.drop is None and argument.report is None and argument.new_name in rest:
            old[name] = _undone(argument, rest.pop(argument.new_name))
    for name, value in rest.items():
        if not _same(defaults.get(name, MISSING), value):
            raise Untranslatable(f"{name}={value!r} has no old counterpart")
    return old


def predecessor(
    new: nn.Module, path: str, given: Mapping[str, Any], catalog: Catalog
) -> tuple[nn.Module, Symbol, Case]:
    """The twin that answers to ``new`` (of the class at ``path``, built with ``given``), with its state.

    Raises:
        Untranslatable: no row of the catalog leads to this object.
    """
    parameters = inspect.signature(resolve(path)).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    reasons = []
    for symbol, case in catalog.of_successor(path):
        try:
            arguments = _old_arguments(case, given, defaults)
            if symbol.kind != "class" or symbol.case_for(arguments) is not case:
                continue
            twin: nn.Module = resolve(symbol.twin)(**arguments)
            twin.load_state_dict(convert_state(case, new.state_dict(), reverse=True), strict=False)
        except (Untranslatable, KeyError, RuntimeError, TypeError, ValueError) as error:
            reasons.append(f"{symbol.old}: {error}")
            continue
        state = new.state_dict()
        for rule in case.state:
            for name, attribute in zip(rule.new, rule.kept, strict=False):
                if name in state and not isinstance(getattr(twin, attribute, None), (dict, list)):
                    setattr(twin, attribute, state[name].item() if not state[name].dim() else state[name])
        return twin.train(new.training), symbol, case
    raise Untranslatable(f"no old loss answers to this {path.rpartition('.')[2]} ({'; '.join(reasons) or 'no row'})")


def old_call(case: Case, given: Mapping[str, Any]) -> dict[str, Any]:
    """The old forward arguments for the new ones."""
    if case.forward is None:
        return dict(given)
    names = {a.new_name: a for a in case.forward.values() if a.drop is None and a.report is None}
    unknown = [name for name in given if name not in names]
    if unknown:
        raise Untranslatable(f"the old call has no argument for {unknown[0]!r}")
    return {names[name].name: _undone(names[name], value) for name, value in given.items()}
