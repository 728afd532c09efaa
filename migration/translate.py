"""A call of an old symbol as a call of its successor. No code is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .catalog import MISSING, Argument, Case, Symbol

__all__ = ["Untranslatable", "bind", "select", "translate", "translate_forward"]


class Untranslatable(ValueError):
    """The call cannot be expressed with the new symbol; the message says why."""


def bind(signature: Mapping[str, Argument], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The given arguments by parameter name, in the order of the old signature (defaults are not filled in).

    Raises:
        Untranslatable: too many or unknown arguments, or one given twice: the old call raised, too.
    """
    places = [a for a in signature.values() if not a.variadic and not a.keyword_only]
    if len(args) > len(places):
        raise Untranslatable(f"{len(args)} positional arguments for {len(places)} parameters")
    bound = dict(zip((a.name for a in places), args, strict=False))
    # the old call took any keyword, and read none of those that have no row
    ignored = any(a.variadic == "**" and a.drop is not None for a in signature.values())
    for name, value in kwargs.items():
        if name in bound:
            raise Untranslatable(f"argument {name!r} is given twice")
        if name not in signature or signature[name].variadic:
            if ignored:
                continue
            raise Untranslatable(f"the old signature has no argument {name!r}")
        bound[name] = value
    return {name: bound[name] for name in signature if name in bound}


def _convert(signature: Mapping[str, Argument], given: Mapping[str, Any], pins: Mapping[str, Any]) -> dict[str, Any]:
    new: dict[str, Any] = {}
    for name, argument in signature.items():
        if argument.variadic or argument.drop is not None:
            continue
        if name in given:
            same_as_default = argument.default is not MISSING and _same(given[name], argument.default)
            if argument.report is not None:
                if not same_as_default:
                    raise Untranslatable(f"{name}={given[name]!r}: {argument.report}")
                continue
            new |= dict.fromkeys((argument.new_name, *argument.also), argument.convert(given[name]))
        elif argument.pin is not MISSING:
            new[argument.new_name] = argument.pin
    return {**new, **{name: value for name, value in pins.items() if name not in new}}


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and isinstance(a, (bool, int, float, str, type(None), list, tuple)) and bool(a == b)


def select(symbol: Symbol, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Case:
    """The row that holds for a call of ``symbol``.

    Raises:
        Untranslatable: no row does, or the arguments do not fit the old signature.
    """
    case = symbol.case_for(bind(symbol.signature, args, kwargs))
    if case is None:
        raise Untranslatable(f"no row of {symbol.old} holds for these arguments")
    return case


def translate(
    symbol: Symbol, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> tuple[Case, dict[str, Any]]:
    """The row and the keyword arguments of the successor for a call ``symbol(*args, **kwargs)``, pins included.

    Raises:
        Untranslatable: no successor, or an argument that has no counterpart.
        Unconvertible: a value that has none.
    """
    case = select(symbol, args, kwargs or {})
    if case.new is None:
        raise Untranslatable(f"{symbol.old} has no successor: {case.reason}")
    given = bind(symbol.signature, args, kwargs or {})
    return case, _convert(case.arguments, given, {pin.name: pin.value for pin in case.pins.values()})


def translate_forward(case: Case, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of the successor's ``forward`` for a call of the old object.

    Raises:
        Untranslatable: an argument that has no counterpart.
    """
    signature = case.forward or {}
    return _convert(signature, bind(signature, args, kwargs), {})
