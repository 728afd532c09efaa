"""Syntax trees, also of files in a newer Python than the one that runs.

What ``ast`` cannot read (type parameters, ``type`` statements, the f-strings of Python 3.12) libcst can, whatever
Python runs it. Those places are masked with white space of the same length, so that all positions stay; the rest is
parsed by ``ast``; then the masked parts are parsed alone and put into the tree where Python 3.12 has them.
"""

from __future__ import annotations

import ast
import re
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from .errors import FileError

_STACK = 1 << 28
_DEPTH, _CHAIN = 100, 600
_NEW = re.compile(r"\b(?:def|class)\s+\w+\s*\[|^\s*type\s+\w|[;:]\s*type\s+\w|[fF][rR]?[\"']", re.M)
_LINKS = re.compile(r"[-()\[\]{}\n+*/|&^%@.<>]|\b(?:if|elif|and|or)\b")
_PREFIXES = re.compile(rf"(?:(?:[-+~]|\bnot\b|\bawait\b|\blambda\b[^:\n]*:)\s*){{{_DEPTH}}}")


def parse(text: str) -> ast.Module:
    """The syntax tree of ``text``.

    Raises:
        FileError: it does not parse, or is nested too deeply.
    """
    try:
        return _parsed(text)
    except SyntaxError as error:
        newer = _newer(text)
        if newer is not None:
            return newer
        hint = "" if find_spec("libcst") else " (if this is newer Python, install libcst)"
        raise FileError("TL090", f"line {error.lineno}: {error.msg}{hint}") from error
    except ValueError as error:
        raise FileError("TL090", str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise FileError("TL093", "nested too deeply") from error


def parses(text: str) -> bool:
    """Whether ``text`` is Python."""
    try:
        parse(text)
    except FileError:
        return False
    return True


def plain(text: str) -> bool:
    """Whether the Python that runs reads ``text``."""
    try:
        _parsed(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _parsed(text: str | bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


# -- nodes that an older ``ast`` lacks ------------------------------------------------------------------------------


class TypeVar(ast.expr):
    """A type parameter of any kind."""

    _fields = ("bound", "default_value")


class TypeAlias(ast.stmt):
    """``type name[type_params] = value``."""

    _fields = ("name", "type_params", "value")


# -- masks ----------------------------------------------------------------------------------------------------------


@dataclass
class _Parameter:
    name: str
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)


@dataclass
class _Masks:
    """What was hidden, by the place where the tree shows it: (line, column in bytes)."""

    data: bytearray
    parameters: dict[int, list[_Parameter]] = field(default_factory=dict)
    aliases: set[int] = field(default_factory=set)
    strings: set[int] = field(default_factory=set)

    def blank(self, start: int, end: int) -> None:
        """White space instead of ``data[start:end]``; line ends are kept, with a backslash before them.

        Raises:
            SyntaxError: there is no room for the backslash.
        """
        for at in range(start, end):
            if self.data[at] not in b"\r\n":
                self.data[at] = 32
        for at in range(start, end):
            if self.data[at] in b"\r\n" and not (self.data[at] == 10 and at > start and self.data[at - 1] == 13):
                if at == start or self.data[at - 1] != 32:
                    raise SyntaxError("an empty line inside type parameters")
                self.data[at - 1] = 92


def _newer(text: str) -> ast.Module | None:
    """The tree of a text in newer syntax, or ``None``."""
    if find_spec("libcst") is None or not _NEW.search(text) or _deep(text):
        return None
    found: list[ast.Module] = []
    # the parser recurses in native code, where the end of the stack is the end of the process
    before = threading.stack_size(_STACK)
    try:
        thread = threading.Thread(target=_unmasked, args=(text, found))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    return found[0] if found else None


def _deep(text: str) -> bool:
    """Whether a statement is nested or chained as no hand would do it; what strings and comments hold counts too."""
    depth = chained = branches = 0
    for token in _LINKS.findall(text):
        if token == "\n":
            chained = chained if depth else 0
            continue
        chained += 1
        branches += token == "elif"
        depth = max(depth + (token in "([{") - (token in ")]}"), 0)
        if depth > _DEPTH or max(chained, branches) > _CHAIN:
            return True
    return _PREFIXES.search(text) is not None


def _unmasked(text: str, found: list[ast.Module]) -> None:
    import libcst
    from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper

    try:
        wrapper = MetadataWrapper(libcst.parse_module(text), unsafe_skip_copy=True)
        spans = wrapper.resolve(ByteSpanPositionProvider)
        masks = _Masks(bytearray(text.encode()))
        for node in _nodes(wrapper.module):
            _mask(node, spans, masks)
        if masks.parameters or masks.aliases or masks.strings:
            found.append(_Graft(text, masks).tree(_parsed(bytes(masks.data))))
    except BaseException:  # whatever a parser says of a file that `ast` cannot read; a panic is no Exception
        return


def _nodes(top: Any) -> Iterator[Any]:
    """All nodes below ``top``, without recursion; the parts of f-strings stay with them."""
    import libcst

    todo = [top]
    while todo:
        node = todo.pop()
        yield node
        inner = (libcst.FormattedString, libcst.ConcatenatedString)
        if isinstance(node, inner):
            todo += reversed(list(_expressions(node)))
        else:
            todo += reversed(node.children)


def _expressions(node: Any) -> Iterator[Any]:
    """The expressions inside an f-string or a row of strings, those of format specifications included."""
    import libcst

    if isinstance(node, libcst.ConcatenatedString):
        yield from _expressions(node.left)
        yield from _expressions(node.right)
    elif isinstance(node, libcst.FormattedString):
        yield from _of_parts(node.parts)


def _of_parts(parts: Any) -> Iterator[Any]:
    import libcst

    for part in parts:
        if isinstance(part, libcst.FormattedStringExpression):
            yield part.expression
            yield from _of_parts(part.format_spec or ())


def _mask(node: Any, spans: Any, masks: _Masks) -> None:
    import libcst

    def span(part: Any) -> tuple[int, int]:
        found = spans[part]
        return found.start, found.start + found.length

    if isinstance(node, (libcst.FormattedString, libcst.ConcatenatedString)):
        expressions = list(_expressions(node))
        if not expressions:
            return
        start, end = span(node)
        inside = [span(expression) for expression in expressions]
        # a tuple of the expressions: (   a,   b,  )
        position = start
        for first, last in inside:
            _plain(masks, position, first)
            position = last
        _plain(masks, position, end)
        masks.data[start] = ord("(")
        masks.data[end - 1] = ord(")")
        for _, last in inside:
            masks.data[last] = ord(",")
        masks.strings.add(start)
    elif isinstance(node, libcst.TypeAlias):
        start, _ = span(node)
        masks.data[start : start + 4] = b"0  ;"
        masks.aliases.add(span(node.name)[0])
    if isinstance(node, (libcst.FunctionDef, libcst.ClassDef, libcst.TypeAlias)) and node.type_parameters is not None:
        parameters = []
        for item in node.type_parameters.params:
            kind = item.param
            made = _Parameter(kind.name.value)
            bound, default = getattr(kind, "bound", None), item.default
            made.parts = {k: span(v) for k, v in (("bound", bound), ("default_value", default)) if v is not None}
            parameters.append(made)
        masks.parameters[span(node.name)[0]] = parameters
        masks.blank(*span(node.type_parameters))


def _plain(masks: _Masks, start: int, end: int) -> None:
    """White space between the expressions of a bracket; line ends stay."""
    for at in range(start, end):
        if masks.data[at] not in b"\r\n":
            masks.data[at] = 32


class _Graft:
    """Puts what was masked into the tree of the rest."""

    def __init__(self, text: str, masks: _Masks) -> None:
        self.data = text.encode()
        self.masks = masks
        self.starts = [0]
        self.starts += [at + 1 for at, byte in enumerate(self.data) if byte == 10 or self._old_mac(at)]

    def _old_mac(self, at: int) -> bool:
        return self.data[at] == 13 and self.data[at + 1 : at + 2] != b"\n"

    def offset(self, node: Any) -> int:
        return self.starts[int(node.lineno) - 1] + int(node.col_offset)

    def tree(self, tree: ast.Module) -> ast.Module:
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found = self.masks.parameters.get(self._name_of(node))
                if found is not None:
                    fields = tuple(dict.fromkeys((*type(node)._fields, "type_params")))  # 3.12 has the field
                    vars(node).update(type_params=[self._parameter(one) for one in found], _fields=fields)
            for name, value in ast.iter_fields(node):
                if isinstance(value, list):
                    setattr(node, name, self._statements(value) if name in ("body", "orelse", "finalbody") else value)
        return _Strings(self).visit(tree)  # type: ignore[no-any-return]  # a Module stays one

    def _name_of(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
        """Where the name of a definition stands: behind its keyword."""
        start = self.offset(node)
        keyword = b"class" if isinstance(node, ast.ClassDef) else b"def"
        return self.data.find(node.name.encode(), self.data.find(keyword, start) + len(keyword))

    def _statements(self, body: list[Any]) -> list[Any]:
        made: list[Any] = []
        for statement in body:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else None
            if isinstance(target, ast.Name) and self.offset(target) in self.masks.aliases:
                keyword = made.pop()
                parameters = self.masks.parameters.get(self.offset(target), [])
                alias = TypeAlias()
                made_of = [self._parameter(one) for one in parameters]
                vars(alias).update(name=target, type_params=made_of, value=statement.value)
                ast.copy_location(alias, statement)
                alias.lineno, alias.col_offset = keyword.lineno, keyword.col_offset
                made.append(alias)
            else:
                made.append(statement)
        return made

    def _parameter(self, parameter: _Parameter) -> TypeVar:
        node = TypeVar()
        parts = {name: self._expression(start, end) for name, (start, end) in parameter.parts.items()}
        vars(node).update({"bound": None, "default_value": None, **parts}, name=parameter.name)
        return node

    def _expression(self, start: int, end: int) -> ast.expr:
        """Parse ``data[start:end]`` alone, at its place."""
        line = next(n for n, begin in reversed(list(enumerate(self.starts))) if begin <= start)
        tree = ast.parse(b"(" + self.data[start:end] + b"\n)", mode="eval").body
        for node in ast.walk(tree):
            if isinstance(node, (ast.expr, ast.keyword, ast.arg)):
                first, last = node.lineno == 1, node.end_lineno == 1
                node.lineno += line
                node.end_lineno = (node.end_lineno or 1) + line
                shift = start - self.starts[line] - 1
                node.col_offset += shift if first else 0
                node.end_col_offset = (node.end_col_offset or 0) + (shift if last else 0)
        return tree


class _Strings(ast.NodeTransformer):
    """Turns the tuples that stand for f-strings into f-strings."""

    def __init__(self, graft: _Graft) -> None:
        self.graft = graft

    def visit_Tuple(self, node: ast.Tuple) -> ast.AST:
        """An f-string, if the tuple stands for one."""
        self.generic_visit(node)
        if self.graft.offset(node) not in self.graft.masks.strings:
            return node
        values = [ast.copy_location(ast.FormattedValue(value=v, conversion=-1), v) for v in node.elts]
        return ast.copy_location(ast.JoinedStr(values=list(values)), node)
