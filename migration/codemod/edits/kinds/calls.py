"""Calls: arguments get new names and values, go and come, in the layout that the call has."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import libcst as cst

from ...text import unparsed
from .. import requests
from ..base import Editor, expression, newline_in, register

_ATOMS = (
    cst.BaseNumber, cst.SimpleString, cst.FormattedString, cst.Ellipsis, cst.Name, cst.Attribute, cst.Call,
    cst.Subscript, cst.List, cst.Tuple, cst.Dict, cst.Set,
)  # fmt: skip
_NONE = cst.SimpleWhitespace("")
_SPACE = cst.SimpleWhitespace(" ")
Space = cst.BaseParenthesizableWhitespace


@dataclass(frozen=True)
class Item:
    """An argument without its comma; the white space before the comma, and behind it (or the argument)."""

    arg: cst.Arg
    comma: bool = False
    before: Space = _NONE
    gap: Space = _NONE


@dataclass(frozen=True)
class Row:
    """What stands between the brackets of a call."""

    opening: Space
    items: tuple[Item, ...]

    @classmethod
    def of(cls, call: cst.Call) -> Row:
        return cls(call.whitespace_before_args, tuple(map(_item, call.args)))

    def put(self, call: cst.Call) -> cst.Call:
        """The call with these arguments."""
        return call.with_changes(whitespace_before_args=self.opening, args=[_arg(item) for item in self.items])

    def lead(self, place: int) -> Space:
        """The white space before an argument."""
        return self.items[place - 1].gap if place else self.opening

    def own_line(self, place: int) -> bool:
        """Whether an argument has its lines for itself."""
        return newline_in(self.lead(place)) and newline_in(self.items[place].gap)


def _item(arg: cst.Arg) -> Item:
    bare = arg.with_changes(comma=cst.MaybeSentinel.DEFAULT, whitespace_after_arg=_NONE)
    if not isinstance(arg.comma, cst.Comma):
        return Item(bare, gap=arg.whitespace_after_arg)
    gap = arg.whitespace_after_arg if arg.comma.whitespace_after.empty else arg.comma.whitespace_after
    return Item(bare, True, arg.comma.whitespace_before, gap)


def _arg(item: Item) -> cst.Arg:
    if not item.comma:
        return item.arg.with_changes(whitespace_after_arg=item.gap)
    return item.arg.with_changes(comma=cst.Comma(whitespace_before=item.before, whitespace_after=item.gap))


@register
class Calls(Editor):
    """Changes the arguments of calls."""

    order = 1
    serves = (requests.Call,)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        for asked in self.wanted.of(original_node, requests.Call):
            quotes = self.wanted.quotes[id(original_node)]
            row = Row.of(updated_node)
            items = list(row.items)
            for change in asked.arguments:
                items[change.place] = replace(
                    items[change.place], arg=_changed(items[change.place].arg, change, quotes)
                )
            row = changed(
                Row(row.opening, tuple(items)),
                {change.place for change in asked.arguments if change.drop},
                [_keyword(name, value, quotes) for name, value in asked.added],
            )
            updated_node = row.put(updated_node)
            if not quotes:
                self.wanted.changed.append(updated_node)
        return updated_node


def changed(row: Row, doomed: set[int], added: Sequence[cst.Arg]) -> Row:
    """The row without the ``doomed`` places and with further arguments behind."""
    if doomed and len(doomed) == len(row.items):
        return _refilled(row, added)
    return append(remove(row, doomed), added)


# -- one argument ---------------------------------------------------------------------------------------------------


def _keyword(name: str, value: str, quotes: str) -> cst.Arg:
    return cst.Arg(keyword=cst.Name(name), value=_literal(value, quotes), equal=_equal())


def _equal() -> cst.AssignEqual:
    return cst.AssignEqual(whitespace_before=_NONE, whitespace_after=_NONE)


def _literal(text: str, quotes: str) -> cst.BaseExpression:
    """A literal; inside f-strings in quotes that Python before 3.12 reads there, if there are any."""
    if quotes and any(quote in text for quote in quotes):
        other = next((quote for quote in "'\"" if quote not in quotes), '"')
        text = unparsed(ast.literal_eval(text), other)
    return expression(text)


def _changed(arg: cst.Arg, change: requests.Argument, quotes: str) -> cst.Arg:
    value = arg.value
    if change.value:
        own = isinstance(value, (cst.Tuple, cst.GeneratorExp))  # these brackets are a part of the value
        outer = (value.lpar[:-1], value.rpar[1:]) if own else (value.lpar, value.rpar)
        value = _literal(change.value, quotes)
        value = value.with_changes(lpar=[*outer[0], *value.lpar], rpar=[*value.rpar, *outer[1]])
    elif change.invert or change.scale:
        value = _computed(value, change)
    if not change.keyword:
        return arg.with_changes(value=value)
    if arg.keyword is not None:
        return arg.with_changes(value=value, keyword=arg.keyword.with_changes(value=change.keyword))
    if isinstance(value, cst.NamedExpr) and not value.lpar:
        value = _bracketed(value)
    return arg.with_changes(value=value, keyword=cst.Name(change.keyword), equal=_equal())


def _bracketed(value: cst.BaseExpression) -> cst.BaseExpression:
    return value.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def _computed(value: cst.BaseExpression, change: requests.Argument) -> cst.BaseExpression:
    """``not value``, or ``value * scale``, inside the brackets that the value has."""
    lpar, rpar = value.lpar, value.rpar
    if isinstance(value, cst.Tuple):
        lpar, rpar = (), ()
    elif not isinstance(value, _ATOMS):
        value = _bracketed(value)
    elif value.lpar:
        value = value.with_changes(lpar=(), rpar=())
    if change.invert:
        return cst.UnaryOperation(cst.Not(whitespace_after=_SPACE), value, lpar=lpar, rpar=rpar)
    return cst.BinaryOperation(value, cst.Multiply(), expression(change.scale), lpar=lpar, rpar=rpar)


# -- the row of arguments -------------------------------------------------------------------------------------------


def remove(row: Row, doomed: set[int]) -> Row:
    """The row without some of its arguments (at least one stays, or none goes)."""
    kept = [place for place in range(len(row.items)) if place not in doomed]
    tail = kept[-1] + 1 if kept else 0
    if tail < len(row.items) and not all(map(row.own_line, range(tail, len(row.items)))):
        row = _without_tail(row, tail)
    for place in sorted(doomed, reverse=True):
        if place < len(row.items):
            row = _without(row, place)
    return row


def _without_tail(row: Row, tail: int) -> Row:
    """What is behind the last argument that stays goes at once, with the comma before it."""
    last, end = row.items[tail - 1], row.items[-1]
    if _comment(last.gap):  # it is about what stays
        last = replace(last, gap=_below(last.gap, end.gap))
    else:
        last = replace(last, comma=end.comma, before=end.before, gap=end.gap)
    return Row(row.opening, (*row.items[: tail - 1], last))


def _without(row: Row, place: int) -> Row:
    gap = row.lead(place)
    if row.own_line(place):
        gap = _below(gap, row.items[place].gap)
    items = [*row.items[:place], *row.items[place + 1 :]]
    if not place:
        return Row(gap, tuple(items))
    items[place - 1] = replace(items[place - 1], gap=gap)
    return Row(row.opening, tuple(items))


def _comment(space: Space) -> bool:
    return isinstance(space, cst.ParenthesizedWhitespace) and space.first_line.comment is not None


def _lines(space: Space) -> Sequence[cst.EmptyLine]:
    return space.empty_lines if isinstance(space, cst.ParenthesizedWhitespace) else ()


def _below(before: Space, after: Space) -> Space:
    """The white space around lines that go: what was above them, then what was below them."""
    if not isinstance(before, cst.ParenthesizedWhitespace):
        return after
    lines = [*before.empty_lines, *_lines(after)]
    if isinstance(after, cst.ParenthesizedWhitespace):
        return before.with_changes(empty_lines=lines, indent=after.indent, last_line=after.last_line)
    return before.with_changes(empty_lines=lines)


def _fresh(space: Space, first: cst.TrailingWhitespace | None = None, lines: Iterable[cst.EmptyLine] = ()) -> Space:
    """The beginning of a line like the one that ``space`` begins."""
    if not isinstance(space, cst.ParenthesizedWhitespace):
        return _SPACE
    return space.with_changes(first_line=first or cst.TrailingWhitespace(_NONE), empty_lines=tuple(lines))


def append(row: Row, added: Sequence[cst.Arg]) -> Row:
    """The row with arguments behind the last one, in the style of the call."""
    if not added:
        return row
    if not row.items:
        items = [Item(arg, True, gap=_SPACE) for arg in added]
        items[-1] = Item(added[-1], gap=row.opening)
        return Row(_NONE, tuple(items))
    last = row.items[-1]
    lead = row.lead(len(row.items) - 1)
    if not newline_in(lead):
        return _extended(row, replace(last, comma=True, before=_NONE, gap=_SPACE), added, _SPACE, last)
    first = last.gap.first_line if isinstance(last.gap, cst.ParenthesizedWhitespace) else None
    end = replace(last, before=_NONE, gap=_fresh(last.gap, lines=_lines(last.gap)) if first else last.gap)
    return _extended(row, replace(last, comma=True, gap=_fresh(lead, first)), added, _fresh(lead), end)


def _extended(row: Row, last: Item, added: Sequence[cst.Arg], gap: Space, end: Item) -> Row:
    new = [Item(arg, True, gap=gap) for arg in added]
    new[-1] = replace(end, arg=added[-1])
    return Row(row.opening, (*row.items[:-1], last, *new))


def _refilled(row: Row, added: Sequence[cst.Arg]) -> Row:
    """The row with all arguments replaced by others."""
    last = row.items[-1]
    gap = row.opening
    for item in row.items[:-1]:
        if _lines(item.gap):
            gap = _below(gap, item.gap)
    if not added:
        kept = _below(gap, last.gap) if newline_in(gap) and newline_in(last.gap) else _NONE
        return Row(kept, ())
    several = newline_in(row.opening)
    items = [Item(arg, True, gap=_fresh(row.opening)) for arg in added]
    end = last.gap if several or newline_in(last.gap) or not last.comma else _NONE
    items[-1] = Item(added[-1], last.comma and several, gap=end)
    return Row(gap if several else row.opening, tuple(items))


# -- long lines -----------------------------------------------------------------------------------------------------


def broken(call: cst.Call, indent: str) -> cst.Call:
    """The call, which is on a line that ``indent`` begins, with one argument per line and a comma behind the last."""

    def line(white: str) -> Space:
        return cst.ParenthesizedWhitespace(indent=False, last_line=cst.SimpleWhitespace(white))

    inner = indent + ("\t" if indent.endswith("\t") else "    ")
    items = [replace(item, comma=True, before=_NONE, gap=line(inner)) for item in Row.of(call).items]
    items[-1] = replace(items[-1], gap=line(indent))
    return Row(line(inner), tuple(items)).put(call)
