"""Converts the arguments of one call by a row of the catalog."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..catalog import Argument, Case, Symbol, Unconvertible
from .edits import requests
from .rules import Rules
from .text import Source, literal, unparsed

_EFFECTS = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)


@dataclass
class Arguments:
    """The arguments of a call by the names of the old signature."""

    bound: dict[str, tuple[ast.expr, ast.keyword | None]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def sure(self) -> bool:
        return not self.problems


@dataclass
class Conversion:
    """What becomes of a call, or the reasons why it is left; ``notes`` say what was dropped and pinned."""

    request: requests.Call | None = None
    problems: list[str] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


def bind(call: ast.Call, signature: Mapping[str, Argument], skip: int = 0, partial: bool = False) -> Arguments:
    """Bind the arguments after the first ``skip`` to ``signature``, as Python would."""
    result = Arguments()
    positional = [a.name for a in signature.values() if not a.variadic and not a.keyword_only]
    for index, value in enumerate(call.args[skip:]):
        if isinstance(value, ast.GeneratorExp) and len(call.args) + len(call.keywords) == 1:
            result.problems.append("a generator expression is its only argument")
            break
        if isinstance(value, ast.Starred):
            result.problems.append(f"*{ast.unparse(value.value)} hides which arguments are passed")
            break
        if index >= len(positional):
            result.problems.append(
                "positional arguments beyond the named ones have no counterpart"
                if any(a.variadic == "*" for a in signature.values())
                else f"takes {len(positional)} positional arguments, the call passes {len(call.args) - skip}: "
                "it raises TypeError today"
            )
            break
        result.bound[positional[index]] = (value, None)
    for keyword in call.keywords:
        if keyword.arg is None:
            result.problems.append(f"**{ast.unparse(keyword.value)} hides which arguments are passed")
        elif keyword.arg in result.bound:
            result.problems.append(f"{keyword.arg} is passed twice: the call raises TypeError today")
        elif keyword.arg in signature and not signature[keyword.arg].variadic:
            result.bound[keyword.arg] = (keyword.value, keyword)
        elif any(a.variadic == "**" for a in signature.values()):
            result.problems.append(f"{keyword.arg} went into **kwargs and has no counterpart")
        else:
            result.problems.append(
                f"the old signature has no argument {keyword.arg!r}: the call raises TypeError today"
            )
    missing = [name for name, a in signature.items() if a.required and name not in result.bound]
    if missing and not result.problems and not partial:
        result.problems.append(f"the required argument {missing[0]!r} is missing: the call raises TypeError today")
    return result


def choose(symbol: Symbol, arguments: Arguments) -> tuple[Case | None, str]:
    """The case for these arguments, or why it cannot be told."""
    values: dict[str, object] = {}
    for name in symbol.selectors:
        if name in arguments.bound:
            node = arguments.bound[name][0]
            known, value = literal(node)
            if not known:
                return None, f"{name}={ast.unparse(node)} chooses the successor and is not a literal"
            values[name] = value
    if symbol.selectors and arguments.problems:
        return None, arguments.problems[0]
    case = symbol.case_for(values)
    if case is None:
        return None, "no successor for " + ", ".join(f"{k}={v!r}" for k, v in values.items())
    return case, ""


def _new_value(argument: Argument, node: ast.expr) -> tuple[requests.Argument, str]:
    """What converts a value in place, or why nothing does."""
    same = requests.Argument(-1)
    if argument.map is None and argument.scale is None and not argument.invert:
        return same, ""
    known, value = literal(node)
    if known:
        try:
            new = argument.convert(value)
        except Unconvertible as error:
            return same, str(error)
        return (same if type(new) is type(value) and new == value else replace(same, value=unparsed(new))), ""
    if argument.map is not None:
        return same, f"{argument.name}={ast.unparse(node)} is not a literal, and its values have a table"
    if argument.invert:
        return replace(same, invert=True), ""
    return replace(same, scale=repr(argument.scale)), ""


def convert(
    source: Source,
    call: ast.Call,
    case: Case,
    signature: Mapping[str, Argument],
    rules: Rules,
    *,
    keywords_only: bool,
    order: tuple[str, ...] | None = None,
    skip: int = 0,
    arguments: Arguments | None = None,
) -> Conversion:
    """What turns a call under the old ``signature`` into one of the successor.

    ``keywords_only``: the successor takes no positional arguments (a constructor), so they get names.
    ``order``: what the successor takes by place, if it is known; an argument elsewhere in it gets a name.
    ``skip``: leading positional arguments that are not the old callable's (``functools.partial``).
    """
    result = Conversion()
    arguments = arguments or bind(call, signature, skip)
    if arguments.problems:
        return Conversion(problems=arguments.problems)
    changed: list[requests.Argument] = []
    places = _places(call)
    named = keywords_only
    place = 0
    passed = {signature[name].new_name: name for name in arguments.bound}
    for name, (value, keyword) in arguments.bound.items():
        argument = signature[name]
        index = places[id(keyword or value)]
        if argument.report is not None or argument.drop is not None:
            known, constant = literal(value)
            if argument.report is not None and not (known and argument.default == constant):
                result.problems.append(f"{name}: {argument.report}")
                continue
            if any(isinstance(part, _EFFECTS) for part in ast.walk(value)) and not _harmless(value):
                result.problems.append(f"{name} is dropped, but computing {ast.unparse(value)} may have effects")
                continue
            changed.append(requests.Argument(index, drop=True))
            named = True
            result.notes.append(("TL007", f"dropped {name}: {argument.drop or argument.report}"))
            continue
        new, problem = _new_value(argument, value)
        if argument.also:
            problem = f"{name} goes to {', '.join((argument.new_name, *argument.also))}: write it for each"
        if problem:
            result.problems.append(problem)
            continue
        if keyword is None:
            named = named or (order is not None and order[place : place + 1] != (argument.new_name,))
            place += 1
        if named if keyword is None else argument.new_name != name:
            new = replace(new, keyword=argument.new_name)
        if new != requests.Argument(-1):
            changed.append(replace(new, place=index))
    pins = [(name, value) for name, value in rules.pins(case, signature, arguments.bound) if name not in passed]
    for name, pinned in pins:
        result.notes.append(("TL008", f"pinned {name}={unparsed(pinned)}"))
    if result.problems:
        return Conversion(problems=result.problems)
    if changed or pins:
        texts = tuple((name, unparsed(value)) for name, value in pins)
        result.request = requests.Call(*source.span(call), tuple(changed), texts)
    return result


def _harmless(value: ast.expr) -> bool:
    """``config.get("name", 1)`` and ``len(x)``, ``int(x)`` ... have no effects worth keeping."""
    calls = [part for part in ast.walk(value) if isinstance(part, _EFFECTS)]
    return all(
        isinstance(c, ast.Call)
        and (
            (isinstance(c.func, ast.Attribute) and c.func.attr == "get")
            or (
                isinstance(c.func, ast.Name)
                and c.func.id in {"len", "int", "float", "bool", "str", "min", "max", "getattr"}
            )
        )
        for c in calls
    )


def _places(call: ast.Call) -> dict[int, int]:
    """The place of each argument in the text, by the identity of its node."""
    items: list[ast.expr | ast.keyword] = [*call.args, *call.keywords]
    items.sort(key=lambda node: (node.lineno, node.col_offset))
    return {id(node): place for place, node in enumerate(items)}


def problem_code(problem: str) -> str:
    """The rule of a problem with the arguments."""
    if problem.startswith("*"):
        return "TL030"
    if "today" in problem:
        return "TL031"
    return "TL032"
