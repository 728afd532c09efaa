"""Rewrites import statements in place: names, modules, comments and parentheses stay where they are."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...text import Edit, Source

_TOKEN = re.compile(
    r"(?P<word>\w+)|(?P<comment>#[^\r\n]*)|(?P<newline>\r\n|\r|\n)|(?P<mark>[.,()*;])|(?P<space>[ \t\f\\]+)"
)
_PRAGMA = re.compile(r"#\s*(noqa|type:|pylint|pragma|isort|fmt|pyright|ruff|mypy)")


@dataclass(frozen=True)
class New:
    """One name that the rewritten statement binds. ``module`` is empty in ``import a.b``."""

    module: str
    name: str
    asname: str | None = None

    @property
    def text(self) -> str:
        return f"{self.name} as {self.asname}" if self.asname and self.asname != self.name else self.name


@dataclass
class _Item:
    text: str
    above: list[str] = field(default_factory=list)
    behind: str = ""


def _tokens(text: str, start: int, end: int) -> Iterator[tuple[str, str, int, int]]:
    position = start
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            position += 1
            continue
        yield str(match.lastgroup), match.group(), match.start(), match.end()
        position = match.end()


def module_span(source: Source, node: ast.ImportFrom) -> tuple[int, int]:
    """Where the module of ``from module import ...`` stands."""
    start, end = source.span(node)
    first = last = -1
    for kind, text, at, to in _tokens(source.text, start + len("from"), end):
        if kind == "word" and text == "import" and first >= 0 and (source.text[at - 1] != "." or not node.module):
            break
        if kind in ("word", "mark"):
            first = at if first < 0 else first
            last = to
    return first, last


def rewrite_from(source: Source, node: ast.ImportFrom, outputs: Mapping[int, Sequence[New]]) -> list[Edit]:
    """Edits for ``from module import names`` where alias ``i`` becomes ``outputs[i]`` (absent: stays)."""
    modules = {new.module for news in outputs.values() for new in news}
    at, to = module_span(source, node)
    if len(outputs) == len(node.names) and len(modules) == 1 and all(len(news) == 1 for news in outputs.values()):
        edits = []
        if len({(news[0].text) for news in outputs.values()}) == len(outputs):
            if source.text[at:to] != next(iter(modules)):
                glue = " " if source.text[at - 1 : at].isalnum() else ""
                tail = " " if source.text[to : to + 1].isalnum() else ""
                edits.append(Edit(at, to, glue + next(iter(modules)) + tail))
            for index, (new,) in outputs.items():
                edits += _alias_edit(source, node.names[index], new)
            return edits
    return _split(source, node, outputs)


def _alias_edit(source: Source, alias: ast.alias, new: New) -> list[Edit]:
    start, end = source.span(alias)
    if alias.asname and new.asname == alias.asname:
        name_end = start + len(alias.name)
        return [] if alias.name == new.name else [Edit(start, name_end, new.name)]
    return [] if source.text[start:end] == new.text else [Edit(start, end, new.text)]


def _split(source: Source, node: ast.ImportFrom, outputs: Mapping[int, Sequence[New]]) -> list[Edit]:
    start, end = source.span(node)
    at, to = module_span(source, node)
    items, head, tail = _items(source, node, to, end)
    groups: dict[str, list[_Item]] = {}
    for index, item in enumerate(items):
        if index not in outputs:
            groups.setdefault(source.text[at:to], []).append(item)
            continue
        for number, new in enumerate(outputs[index]):
            made = _Item(new.text, item.above if number == 0 else [], item.behind if number == 0 else "")
            group = groups.setdefault(new.module, [])
            if all(made.text != other.text for other in group):
                group.append(made)
    indent = source.indent(start)
    line_rest = source.text[end : source.line_end(end)].strip()
    own_lines = source.starts_line(start) and not line_rest.startswith(";")
    multiline = "\n" in source.text[start:end].replace("\r", "\n")
    inner = indent + "    "
    for alias in node.names:
        alias_start, _ = source.span(alias)
        if source.starts_line(alias_start):
            inner = source.indent(alias_start)
            break
    statements = []
    for number, (module, group) in enumerate(groups.items()):
        opening = head if number == 0 else ""
        closing = tail if number == len(groups) - 1 else []
        noted = opening or closing or any(item.behind or item.above for item in group)
        if own_lines and len(group) == 1 and not closing:
            (item,) = group
            comments = [c for c in (opening, item.behind) if c]
            above = "".join(f"{comment}{source.newline}{indent}" for comment in item.above)
            if not (comments and number == len(groups) - 1 and line_rest):
                behind = f"  {'  '.join(comments)}" if comments else ""
                statements.append(f"{above}from {module} import {item.text}{behind}")
                continue
        if noted or (multiline and len(group) > 1):
            lines = [f"from {module} import (" + (f"  {opening}" if opening else "")]
            for item in group:
                lines += [f"{inner}{comment}" for comment in item.above]
                lines.append(f"{inner}{item.text}," + (f"  {item.behind}" if item.behind else ""))
            lines += [f"{inner}{comment}" for comment in closing]
            statements.append(source.newline.join([*lines, f"{indent})"]))
        else:
            statements.append(f"from {module} import {', '.join(item.text for item in group)}")
    if own_lines and _PRAGMA.match(line_rest):
        statements = [s if "#" in s.rpartition("\n")[2] else f"{s}  {line_rest}" for s in statements[:-1]] + statements[
            -1:
        ]
    joint = source.newline + indent if own_lines else "; "
    return [Edit(start, end, joint.join(statements))]


def _items(source: Source, node: ast.ImportFrom, begin: int, end: int) -> tuple[list[_Item], str, list[str]]:
    """The names of a statement with their comments; the comment behind the bracket; the comments before its end."""
    spans = [source.span(alias) for alias in node.names]
    items = [_Item(alias.name if not alias.asname else f"{alias.name} as {alias.asname}") for alias in node.names]
    head = ""
    pending: list[str] = []
    for kind, text, at, _ in _tokens(source.text, begin, end):
        if kind != "comment":
            continue
        before = [index for index, span in enumerate(spans) if span[1] <= at]
        after = [index for index, span in enumerate(spans) if span[0] >= at]
        inside = [index for index, span in enumerate(spans) if span[0] < at < span[1]]
        if source.starts_line(at):
            if after:
                items[after[0]].above.append(text)
            else:
                pending.append(text)
        elif inside:
            items[inside[0]].above.append(text)
        elif before:
            items[before[-1]].behind = f"{items[before[-1]].behind}  {text}".strip()
        else:
            head = text
    return items, head, pending


def rewrite_import(source: Source, node: ast.Import, outputs: Mapping[int, Sequence[New]]) -> list[Edit]:
    """Edits for ``import a.b, c as d`` where alias ``i`` becomes ``outputs[i]``."""
    edits = []
    for index, news in outputs.items():
        start, end = source.span(node.names[index])
        text = ", ".join(dict.fromkeys(new.text for new in news))
        if text != source.text[start:end]:
            edits.append(Edit(start, end, text))
    return edits
