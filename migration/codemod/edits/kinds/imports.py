"""Imports: names and modules change in place; a statement whose names part is split, with its comments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import libcst as cst

from .. import requests
from ..base import Editor, expression, newline_in, register
from ..requests import New

_PRAGMA = re.compile(r"#\s*(noqa|type:|pylint|pragma|isort|fmt|pyright|ruff|mypy)")
_SPACE = cst.SimpleWhitespace(" ")
Outputs = Mapping[int, Sequence[New]]


@register
class Imports(Editor):
    """Rewrites import statements where they stand."""

    order = 5
    serves = (requests.Import,)

    def _outputs(self, node: cst.BaseSmallStatement) -> Outputs:
        return {index: news for asked in self.wanted.of(node, requests.Import) for index, news in asked.outputs}

    def leave_Import(self, original_node: cst.Import, updated_node: cst.Import) -> cst.Import:
        names: list[cst.ImportAlias] = []
        outputs = self._outputs(original_node)
        for index, alias in enumerate(updated_node.names):
            texts = list(dict.fromkeys(new.text for new in outputs.get(index, ())))
            if not texts or texts == [_text(alias)]:
                names.append(alias)
                continue
            made = _statement(f"import {', '.join(texts)}")
            assert isinstance(made, cst.Import)
            names += [*made.names[:-1], made.names[-1].with_changes(comma=alias.comma)]
        return updated_node.with_changes(names=names)

    def leave_ImportFrom(
        self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom
    ) -> cst.ImportFrom | cst.FlattenSentinel[cst.BaseSmallStatement]:
        outputs = self._outputs(original_node)
        if not outputs:
            return updated_node
        if _in_place(original_node, outputs):
            return _replaced(updated_node, outputs)
        lines = _Split(self.wanted.module, original_node, outputs).statements("; ")
        made = [_statement(line) for line in lines]
        made[-1] = made[-1].with_changes(semicolon=original_node.semicolon)
        return cst.FlattenSentinel(made)

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.SimpleStatementLine | cst.FlattenSentinel[cst.BaseStatement]:
        node = original_node.body[0]
        outputs = self._outputs(node)
        alone = len(original_node.body) == 1 and isinstance(node.semicolon, cst.MaybeSentinel)
        if not (outputs and alone and isinstance(node, cst.ImportFrom)) or _in_place(node, outputs):
            return updated_node
        rest = original_node.trailing_whitespace
        comment = rest.comment.value if rest.comment else ""
        made = [
            cst.ensure_type(cst.parse_statement(text), cst.SimpleStatementLine)
            for text in _Split(self.wanted.module, node, outputs).statements("", comment)
        ]
        made[0] = made[0].with_changes(leading_lines=[*original_node.leading_lines, *made[0].leading_lines])
        if made[-1].trailing_whitespace.comment is None:
            made[-1] = made[-1].with_changes(trailing_whitespace=rest)
        return cst.FlattenSentinel(made)


def _statement(text: str) -> cst.BaseSmallStatement:
    return cst.ensure_type(cst.parse_statement(text), cst.SimpleStatementLine).body[0]


def _text(alias: cst.ImportAlias) -> str:
    name = alias.evaluated_name
    return f"{name} as {alias.evaluated_alias}" if alias.evaluated_alias else name


def _aliases(node: cst.ImportFrom) -> Sequence[cst.ImportAlias]:
    return () if isinstance(node.names, cst.ImportStar) else node.names


# -- in place -------------------------------------------------------------------------------------------------------


def _in_place(node: cst.ImportFrom, outputs: Outputs) -> bool:
    """Whether each name becomes one name, all of them of one module."""
    count = len(_aliases(node)) or 1
    modules = {new.module for news in outputs.values() for new in news}
    texts = {news[0].text for news in outputs.values() if len(news) == 1}
    return len(outputs) == len(texts) == count and len(modules) == 1


def _replaced(node: cst.ImportFrom, outputs: Outputs) -> cst.ImportFrom:
    (module,) = {new.module for news in outputs.values() for new in news}
    if isinstance(node.names, cst.ImportStar):
        node = node.with_changes(
            names=[_renamed(cst.ImportAlias(cst.Name("_")), outputs[0][0])],
            whitespace_after_import=node.whitespace_after_import if _text_of(node.whitespace_after_import) else _SPACE,
        )
    else:
        node = node.with_changes(names=[_renamed(alias, outputs[i][0]) for i, alias in enumerate(node.names)])
    made = expression(module)
    if node.module is not None and not node.relative and node.module.deep_equals(made):
        return node
    spaces = {
        name: _SPACE
        for name in ("whitespace_after_from", "whitespace_before_import")
        if not _text_of(getattr(node, name))
    }
    return node.with_changes(module=made, relative=(), **spaces)


def _text_of(space: cst.BaseParenthesizableWhitespace) -> str:
    return space.value if isinstance(space, cst.SimpleWhitespace) else "\n"


def _renamed(alias: cst.ImportAlias, new: New) -> cst.ImportAlias:
    if _text(alias) == new.text:
        return alias
    if alias.asname is not None and new.asname == alias.evaluated_alias:
        return alias.with_changes(name=cst.Name(new.name))
    known = new.asname if new.asname and new.asname != new.name else None
    return alias.with_changes(name=cst.Name(new.name), asname=cst.AsName(name=cst.Name(known)) if known else None)


# -- split ----------------------------------------------------------------------------------------------------------


@dataclass
class _Item:
    text: str
    above: list[str] = field(default_factory=list)
    behind: str = ""


class _Split:
    """A ``from`` import whose names go to several modules, as the text of several statements."""

    def __init__(self, module: cst.Module, node: cst.ImportFrom, outputs: Outputs) -> None:
        self.module, self.node = module, node
        self.head = ""
        self.closing: list[str] = []
        self.inner = "    "
        self.items = [_Item(_text(alias)) for alias in _aliases(node)] or [_Item("*")]
        self._comments()
        self.groups: dict[str, list[_Item]] = {}
        for index, item in enumerate(self.items):
            if index not in outputs:
                stays = self._code(*node.relative) + (self._code(node.module) if node.module else "")
                self.groups.setdefault(stays, []).append(item)
                continue
            for number, new in enumerate(outputs[index]):
                made = _Item(new.text, item.above if number == 0 else [], item.behind if number == 0 else "")
                group = self.groups.setdefault(new.module, [])
                if all(made.text != other.text for other in group):
                    group.append(made)

    def _code(self, *nodes: cst.CSTNode) -> str:
        return "".join(map(self.module.code_for_node, nodes))

    # -- comments of the statement

    def _comments(self) -> None:
        """Give each comment to the name behind it, or before it on its line."""
        aliases = _aliases(self.node)
        opening = self.node.lpar.whitespace_after if isinstance(self.node.lpar, cst.LeftParen) else None
        self._gap(opening, -1)
        for index, alias in enumerate(aliases):
            if alias.asname is not None:
                for space in (alias.asname.whitespace_before_as, alias.asname.whitespace_after_as):
                    self.items[index].above += [text for text, _ in _comments_of(space)]
            if isinstance(alias.comma, cst.Comma):
                self._gap(alias.comma.whitespace_before, index)
                self._gap(alias.comma.whitespace_after, index)
        if isinstance(self.node.rpar, cst.RightParen):
            self._gap(self.node.rpar.whitespace_before, len(aliases) - 1)
        between = [alias.comma.whitespace_after for alias in aliases[:-1] if isinstance(alias.comma, cst.Comma)]
        lines = (one for one in (opening, *between) if isinstance(one, cst.ParenthesizedWhitespace))
        self.inner = next((one.last_line.value for one in lines), self.inner)

    def _gap(self, space: cst.BaseParenthesizableWhitespace | None, before: int) -> None:
        """Comments between the item ``before`` and the next one."""
        for text, own_line in _comments_of(space):
            if own_line and before + 1 < len(self.items):
                self.items[before + 1].above.append(text)
            elif own_line:
                self.closing.append(text)
            elif before >= 0:
                self.items[before].behind = f"{self.items[before].behind}  {text}".strip()
            else:
                self.head = text

    # -- statements

    def statements(self, joint: str, rest: str = "") -> list[str]:
        """The statements; ``joint`` is set where they share a line, ``rest`` is the comment behind the last one."""
        made = []
        for number, module in enumerate(self.groups):
            last = number == len(self.groups) - 1
            made.append(
                self._one(module, self.head if number == 0 else "", self.closing if last else [], joint, rest, last)
            )
        if not joint and _PRAGMA.match(rest):
            made = [s if "#" in s.rpartition("\n")[2] else f"{s}  {rest}" for s in made[:-1]] + made[-1:]
        return made

    def _one(self, module: str, opening: str, closing: list[str], joint: str, rest: str, last: bool) -> str:
        group = self.groups[module]
        if not joint and len(group) == 1 and not closing:
            (item,) = group
            comments = [c for c in (opening, item.behind) if c]
            if not (comments and last and rest):
                above = "".join(f"{comment}\n" for comment in item.above)
                return f"{above}from {module} import {item.text}" + (f"  {'  '.join(comments)}" if comments else "")
        several = newlines(self._code(self.node)) and len(group) > 1
        if not (opening or closing or several or any(item.behind or item.above for item in group)):
            return f"from {module} import {', '.join(item.text for item in group)}"
        lines = [f"from {module} import (" + (f"  {opening}" if opening else "")]
        for item in group:
            lines += [f"{self.inner}{comment}" for comment in item.above]
            lines.append(f"{self.inner}{item.text}," + (f"  {item.behind}" if item.behind else ""))
        lines += [f"{self.inner}{comment}" for comment in closing]
        return "\n".join([*lines, ")"])


def newlines(text: str) -> bool:
    """Whether a text has several lines."""
    return "\n" in text or "\r" in text


def _comments_of(space: cst.BaseParenthesizableWhitespace | None) -> Iterator[tuple[str, bool]]:
    """Comments in white space, and whether they have a line for themselves."""
    if space is not None and newline_in(space) and isinstance(space, cst.ParenthesizedWhitespace):
        if space.first_line.comment is not None:
            yield space.first_line.comment.value, False
        for line in space.empty_lines:
            if line.comment is not None:
                yield line.comment.value, True
