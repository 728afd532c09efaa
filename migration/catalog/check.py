"""Whether the catalog agrees with the code: every path importable, every argument really there."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from ..resolve import resolve
from .model import MISSING, Argument, Case, Catalog, Symbol

__all__ = ["check_catalog"]


def _parameters(function: Any) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(function).parameters.values() if p.name != "self"]


def _new_parameters(function: Any) -> list[inspect.Parameter]:
    """Of a class those of its constructor; ``**kwargs`` go on to the next constructor among its bases."""
    if not inspect.isclass(function):
        return _parameters(function)
    found: dict[str, inspect.Parameter] = {}
    for base in function.__mro__:
        if "__init__" in vars(base):
            own = {p.name: p for p in _parameters(vars(base)["__init__"])}
            found = {**{n: p for n, p in own.items() if p.kind is not p.VAR_KEYWORD}, **found}
            if all(p.kind is not p.VAR_KEYWORD for p in own.values()):
                break
    return list(found.values())


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, float) and isinstance(b, (int, float)) and not isinstance(b, bool):
        return a == b
    return type(a) is type(b) and bool(a == b)


def _check_old(where: str, table: Mapping[str, Argument], function: Any) -> Iterator[str]:
    real = _parameters(function)
    taken = [name for name, argument in table.items() if argument.by_kwargs]
    if taken and not any(p.kind is p.VAR_KEYWORD for p in real):
        yield f"{where}: the old signature has no **kwargs to take {', '.join(taken)} out of"
    table = {name: argument for name, argument in table.items() if not argument.by_kwargs}
    if list(table) != [p.name for p in real]:
        yield f"{where}: the old signature is ({', '.join(p.name for p in real)}), the row has ({', '.join(table)})"
        return
    for parameter in real:
        argument = table[parameter.name]
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else stars
        if argument.variadic != stars:
            yield f"{where}.{parameter.name}: variadic is {argument.variadic!r}, the old signature says {stars!r}"
        elif not stars and (parameter.default is parameter.empty) != argument.required:
            yield f"{where}.{parameter.name}: the row and the old signature differ on whether there is a default"
        elif not stars and not argument.required and not _comparable(parameter.default, argument.default):
            yield f"{where}.{parameter.name}: default {argument.default!r}, the old signature has {parameter.default!r}"
        if argument.keyword_only != (parameter.kind is parameter.KEYWORD_ONLY):
            yield f"{where}.{parameter.name}: keyword_only differs from the old signature"


def _comparable(real: Any, stated: Any) -> bool:
    """Equal, or a default that TOML cannot hold (an object), which the row states as its ``repr``."""
    if isinstance(real, (bool, int, float, str, list, tuple, dict, type(None))):
        return _same(real, stated)
    return isinstance(stated, str)


def _check_new(where: str, case: Case, table: Mapping[str, Argument], function: Any, pins: bool) -> Iterator[str]:
    new = {p.name: p for p in _new_parameters(function)}
    for argument in table.values():
        if argument.variadic or argument.drop is not None or argument.report is not None:
            continue
        for name in argument.also:
            if name not in new:
                yield f"{where}.{argument.name}: the new signature has no argument {name!r}"
        target = new.get(argument.new_name)
        if target is None:
            yield f"{where}.{argument.name}: the new signature has no argument {argument.new_name!r}"
            continue
        if argument.required or not pins:
            continue
        if target.default is target.empty:
            if argument.pin is MISSING:
                yield f"{where}.{argument.name}: {argument.new_name!r} is required now and needs a pin"
            continue
        wanted = argument.pin
        if wanted is MISSING:
            try:
                wanted = argument.convert(argument.default)
            except ValueError as error:
                yield f"{where}.{argument.name}: its own default cannot be converted: {error}"
                continue
            if not _comparable(target.default, wanted):
                yield (
                    f"{where}.{argument.name}: left out, it meant {wanted!r}, but {argument.new_name!r} defaults to "
                    f"{target.default!r}: a pin is missing"
                )
    if pins:
        for pin in case.pins.values():
            if pin.name not in new:
                yield f"{where}: the new signature has no argument {pin.name!r} to pin"
        if any(a.required and a.report is not None for a in table.values()):
            return  # no call is ever translated: a required argument is always left to the user
        covered = {a.new_name for a in table.values() if a.drop is None and a.report is None} | set(case.pins)
        for parameter in new.values():
            if (
                parameter.default is parameter.empty
                and parameter.kind is parameter.KEYWORD_ONLY
                and (parameter.name not in covered)
            ):
                yield f"{where}: {parameter.name!r} is required by the new signature and has no source"


def _check_row(symbol: Symbol, case: Case, twin: Any) -> Iterator[str]:
    where = f"{symbol.system}: {symbol.old}" + (f" [{case.describe()}]" if case.when else "")
    yield from _check_old(f"{where} arguments", case.arguments, twin.__init__ if symbol.kind == "class" else twin)
    if symbol.kind == "class" and case.forward is not None:
        yield from _check_old(f"{where} forward", case.forward, twin.forward)
    if case.new is None:
        return
    try:
        new = resolve(case.new)
    except (ImportError, AttributeError) as error:
        yield f"{where}: the successor {case.new} cannot be imported: {error}"
        return
    is_class = inspect.isclass(new)
    yield from _check_new(f"{where} arguments", case, case.arguments, new, True)
    if is_class and symbol.kind == "class" and case.forward is not None:
        yield from _check_new(f"{where} forward", case, case.forward, new.forward, False)
    if case.registry is not None:
        registry = resolve("training_losses.loss_registry.LossRegistry")
        try:
            registered = registry.get(case.registry)
        except ValueError as error:
            yield f"{where}: {error}"
        else:
            if registered is not new:
                yield f"{where}: the registry has {registered.__name__} under {case.registry!r}"


def check_catalog(catalog: Catalog) -> list[str]:
    """Every disagreement of catalog and code, one line each. Imports torch, the twins and the new losses."""
    problems: list[str] = []
    for symbol in catalog.symbols:
        try:
            twin = resolve(symbol.twin)
        except (ImportError, AttributeError) as error:
            problems.append(f"{symbol.system}: {symbol.old}: the twin {symbol.twin} cannot be imported: {error}")
            continue
        for case in symbol.cases:
            problems += _check_row(symbol, case, twin)
    return problems
