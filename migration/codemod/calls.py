"""Converts the arguments of one call by a row of the catalog."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..catalog import Argument, Case, Symbol, Unconvertible
from .rules import Rules
from .text import Edit, Source, literal, remove_items, unparsed

_EFFECTS = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
_ATOMS = (ast.Constant, ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.List, ast.Tuple, ast.Dict, ast.Set)


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
    """Edits of a call, or the reasons why it is left; ``notes`` say what was dropped and pinned."""

    edits: list[Edit] = field(default_factory=list)
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


def _value_edits(source: Source, argument: Argument, node: ast.expr) -> tuple[list[Edit], str]:
    """Edits that convert a value in place, or why there are none."""
    if argument.map is None and argument.scale is None and not argument.invert:
        return [], ""
    start, end = source.span(node)
    known, value = literal(node)
    if known:
        try:
            new = argument.convert(value)
        except Unconvertible as error:
            return [], str(error)
        return ([] if type(new) is type(value) and new == value else [Edit(start, end, unparsed(new))]), ""
    if argument.map is not None:
        return [], f"{argument.name}={ast.unparse(node)} is not a literal, and its values have a table"
    bare = isinstance(node, _ATOMS)
    opening, closing = ("", "") if bare else ("(", ")")
    if argument.invert:
        return [Edit(start, start, f"not {opening}"), Edit(end, end, closing)] if not bare else [
            Edit(start, start, "not ")
        ], ""
    edits = [Edit(start, start, opening)] if opening else []
    return [*edits, Edit(end, end, f"{closing} * {argument.scale!r}")], ""


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
    """Edits that turn a call under the old ``signature`` into one of the successor.

    ``keywords_only``: the successor takes no positional arguments (a constructor), so they get names.
    ``order``: what the successor takes by place, if it is known; an argument elsewhere in it gets a name.
    ``skip``: leading positional arguments that are not the old callable's (``functools.partial``).
    """
    result = Conversion()
    arguments = arguments or bind(call, signature, skip)
    if arguments.problems:
        return Conversion(problems=arguments.problems)
    doomed: set[int] = set()
    items = _items(source, call)
    places = {id(node): index for index, (node, _) in enumerate(items)}
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
            doomed.add(index)
            named = True
            result.notes.append(("TL007", f"dropped {name}: {argument.drop or argument.report}"))
            continue
        edits, problem = _value_edits(source, argument, value)
        if problem:
            result.problems.append(problem)
            continue
        result.edits += edits
        start = items[index][1][0]
        if keyword is None:
            named = named or (order is not None and order[place : place + 1] != (argument.new_name,))
            place += 1
            if named:
                result.edits.append(Edit(start, start, f"{argument.new_name}="))
        elif argument.new_name != name:
            result.edits.append(Edit(start, start + len(name), argument.new_name))
    pins = [(name, value) for name, value in rules.pins(case, signature, arguments.bound) if name not in passed]
    for name, pinned in pins:
        result.notes.append(("TL008", f"pinned {name}={unparsed(pinned)}"))
    if result.problems:
        return Conversion(problems=result.problems)
    spans = [span for _, span in items]
    _, close = source.span(call)
    close -= 1
    opening = source.text.index("(", source.span(call.func)[1]) + 1
    removals = remove_items(source, spans, doomed, close)
    result.edits += removals
    texts = [f"{name}={unparsed(value)}" for name, value in pins]
    longer = sum(len(edit.new) - (edit.end - edit.start) for edit in result.edits) + len(", ".join(["", *texts]))
    if pins and _breaks(source, call, longer, rules.width):
        kept = [index for index in range(len(spans)) if index not in doomed]
        before, behind = _broken(source, spans, kept, texts, opening, close)
        result.edits = [*before, *result.edits, *behind]
    elif pins:
        result.edits += _append(source, spans, doomed, texts, opening, removals)
    return result


def _breaks(source: Source, call: ast.Call, longer: int, width: int) -> bool:
    """Whether a call on one line, in no other bracket of that line (nor behind a semicolon), would make it too long."""
    start, end = source.span(call)
    before = source.text[source.line_start(start) : start]
    if (
        ";" in before
        or call.lineno != call.end_lineno
        or sum(before.count(c) for c in "([{") > sum(before.count(c) for c in ")]}")
    ):
        return False
    length = source.line_end(end) - source.line_start(start)
    return length <= width < length + longer


def _broken(
    source: Source, spans: list[tuple[int, int]], kept: list[int], texts: list[str], opening: int, close: int
) -> tuple[list[Edit], list[Edit]]:
    """One argument per line, with a comma behind the last: edits before and behind what else happens to arguments."""
    outer = source.newline + source.indent(opening)
    inner = outer + ("\t" if outer.endswith("\t") else "    ")
    added = f",{inner}".join(texts)
    if not kept:
        return [Edit(opening, opening, f"{inner}{added},{outer}")], []
    edits = [Edit(opening, spans[0][0], inner)]
    for index in kept[:-1]:
        comma = source.text.index(",", spans[index][1])
        edits.append(Edit(comma + 1, spans[index + 1][0], inner))
    last = spans[kept[-1]][1]
    comma = source.text.find(",", spans[-1][1], close)
    behind = [Edit(last, last, f",{inner}{added}" + ("" if comma >= 0 else f",{outer}"))]
    if comma >= 0:
        behind.append(Edit(spans[-1][1], close, f",{outer}"))
    return edits, behind


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


def _items(source: Source, call: ast.Call) -> list[tuple[ast.AST, tuple[int, int]]]:
    """Arguments in source order with their spans, parentheses included."""
    items: list[tuple[ast.AST, tuple[int, int]]] = [(node, source.span(node)) for node in call.args]
    items += [(node, source.span(node)) for node in call.keywords]
    items.sort(key=lambda item: item[1])
    _, begin = source.span(call.func)
    _, finish = source.span(call)
    widened = []
    for index, (node, (start, end)) in enumerate(items):
        before = items[index - 1][1][1] if index else begin
        after = items[index + 1][1][0] if index + 1 < len(items) else finish
        if not isinstance(node, ast.keyword):
            start, end = _parenthesised(source.text, start, end, before, after, bool(index))
        widened.append((node, (start, end)))
    return widened


_GAP = re.compile(r"(?:\s|#[^\r\n]*|\\\r?\n)*")


def _parenthesised(text: str, start: int, end: int, before: int, after: int, inner: bool) -> tuple[int, int]:
    """Widen the span of a positional argument over the parentheses around it."""
    while True:
        gap = _GAP.match(text, end)
        right = gap.end() if gap else end
        left = start - 1
        while left >= before and text[left] in " \t\f\r\n":
            left -= 1
        # the outermost "(" before the first argument is the call's own
        opens = text[before : left + 1].count("(")
        if (
            right < after
            and text[right] == ")"
            and left >= before
            and text[left] == "("
            and opens > (0 if inner else 1)
        ):
            start, end = left, right + 1
        else:
            return start, end


def _append(
    source: Source,
    spans: list[tuple[int, int]],
    doomed: set[int],
    texts: list[str],
    opening: int,
    removals: list[Edit],
) -> list[Edit]:
    """Add keyword arguments after the last kept one, in the style of the call."""
    kept = [span for index, span in enumerate(spans) if index not in doomed]
    if not kept:
        lead = source.newline + source.indent(spans[0][0]) if spans and source.starts_line(spans[0][0]) else ""
        return [Edit(opening, opening, "".join(f"{lead}{text}," for text in texts) if lead else ", ".join(texts))]
    start, end = kept[-1]
    if not source.starts_line(start):
        return [Edit(end, end, "".join(f", {text}" for text in texts))]
    lead = source.newline + source.indent(start)
    comma = re.compile(r"[ \t]*,[ \t]*(?:#[^\r\n]*)?").match(source.text, end)
    if comma and not any(edit.start < comma.end() <= edit.end for edit in removals):
        return [Edit(comma.end(), comma.end(), "".join(f"{lead}{text}," for text in texts))]
    return [Edit(end, end, "".join(f",{lead}{text}" for text in texts))]


def problem_code(problem: str) -> str:
    """The rule of a problem with the arguments."""
    if problem.startswith("*"):
        return "TL030"
    if "today" in problem:
        return "TL031"
    return "TL032"
