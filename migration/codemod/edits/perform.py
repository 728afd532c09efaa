"""Serves the requests for one text: each statement that has some is parsed by itself, edited and written anew."""

from __future__ import annotations

import ast
import re
import sys
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from itertools import accumulate
from typing import Any, TypeVar

from ..errors import FileError, MissingExtra
from ..text import NEWLINE, Edit, Source, split_lines
from .requests import Request

_STACK = 1 << 28
_DEPTH = 400
_FRAMES = 20_000
_BLOCK = "if _:\n"
_JOINED = re.compile(r"(?:[ \t\f;]|\\(?:\r\n|\r|\n))*")
T = TypeVar("T")


@dataclass
class _Chunk:
    """Lines that are a block of statements, between what makes a module of them."""

    start: int
    end: int
    statements: Sequence[Any]
    requests: list[Request] = field(default_factory=list)
    before: str = ""
    behind: str = ""


def perform(
    source: Source,
    tree: ast.Module,
    requests: Iterable[Request],
    width: int,
    target: tuple[int, int],
    whole: bool = False,
) -> list[Edit]:
    """The text of each statement that changes. ``target`` is the oldest Python that the file is for.

    The innermost statements are taken, or (``whole``) those at the top.

    Raises:
        FileError: libcst does not read a statement, or the result would be wrong.
        MissingExtra: libcst is not installed.
    """
    asked = sorted(requests, key=lambda request: (request.start, request.end))
    if not asked:
        return []
    try:
        from . import tree as trees
    except ImportError as error:
        if str(error.name).partition(".")[0] != "libcst":
            raise
        raise MissingExtra("rewriting Python code needs libcst: pip install 'training-losses[codemod]'") from error
    chunks = list(_chunks(source, tree.body, asked, whole))
    if sum(len(chunk.requests) for chunk in chunks) < len(asked):
        raise FileError("TL095", "an edit is for no statement")
    if any(_depth(chunk.statements) > _DEPTH for chunk in chunks):
        raise FileError("TL093", "nested too deeply")

    def edits() -> list[Edit]:
        made = []
        for chunk in chunks:
            old = source.text[chunk.start : chunk.end]
            new = _faithful(old, source.newline, chunk, lambda text, some: trees.edited(text, some, width, target))
            if new != old:
                made.append(Edit(chunk.start, chunk.end, new))
        return made

    return _with_room(edits)


def _faithful(text: str, newline: str, chunk: _Chunk, edit: Callable[[str, list[Request]], str]) -> str:
    """Edit a text with ``\n`` at its lines, as libcst writes them, and give each line the end that it had."""
    lines = split_lines(text)
    plain = [NEWLINE.sub("\n", line) for line in lines]
    lost = [0, *accumulate(len(line) - len(bare) for line, bare in zip(lines, plain, strict=True))]
    starts = [0, *accumulate(map(len, lines))]

    def place(at: int) -> int:
        inside = at - chunk.start
        return inside - lost[bisect_right(starts, inside) - 1] + len(chunk.before)

    moved = [replace(one, start=place(one.start), end=place(one.end)) for one in chunk.requests]
    new = edit(chunk.before + "".join(plain) + chunk.behind, moved)
    new = new[len(chunk.before) : len(new) - len(chunk.behind)]
    ends = [line[len(line.rstrip("\r\n")) :] for line in lines]
    if set(ends) <= {"\n", ""} and newline == "\n":
        return new
    if len(set(ends) - {""}) < 2:
        return new.replace("\n", ends[0] or newline)
    return "".join(_ended(plain, split_lines(new), ends, newline))


def _ended(old: list[str], new: list[str], ends: list[str], newline: str) -> Iterator[str]:
    """New lines with the ends of the old ones that they are, or replace."""
    for _, first, last, begin, stop in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for number, line in enumerate(new[begin:stop], first):
            end = ends[number] if number < last else newline
            yield line[:-1] + (end or newline) if line.endswith("\n") else line


# -- which lines ----------------------------------------------------------------------------------------------------


def _chunks(source: Source, body: Sequence[ast.stmt], asked: Sequence[Request], whole: bool) -> Iterator[_Chunk]:
    """The smallest lines that hold the requests and are statements."""
    waiting = list(reversed(asked))
    for chunk in _lines(source, body):
        while waiting and waiting[-1].start < chunk.end:
            one = waiting.pop()
            if one.start >= chunk.start and one.end <= chunk.end:
                chunk.requests.append(one)
        if not chunk.requests:
            continue
        if whole or len(chunk.statements) > 1:
            yield chunk
        else:
            yield from _inner(source, chunk)


def _inner(source: Source, chunk: _Chunk) -> Iterator[_Chunk]:
    """The parts of a statement that hold its requests: its blocks, and the lines at its head."""
    (statement,) = chunk.statements
    blocks = [block for block in _blocks(source, statement) if _own_line(source, block[0])]
    spans = [(_line_start(source, block[0]), source.span(block[-1])[1]) for block in blocks]
    inside: dict[int, list[Request]] = {}
    for one in chunk.requests:
        fitting = (n for n, (start, end) in enumerate(spans) if start <= one.start and one.end <= end)
        inside.setdefault(next(fitting, -1), []).append(one)
    head = inside.pop(-1, [])
    if head and blocks == _blocks(source, statement) == [getattr(statement, "body", None)]:
        end = spans[0][0]
        behind = f"{source.indent(chunk.start)} pass\n"
        parts = [part for part in ast.iter_child_nodes(statement) if part not in blocks[0]]
        yield _Chunk(chunk.start, end, parts, head, chunk.before, behind)
    elif head:
        yield chunk
        return
    for number, some in inside.items():
        yield from _chunks(source, blocks[number], some, False)


def _blocks(source: Source, statement: ast.AST) -> list[list[ast.stmt]]:
    """The statements inside a statement, block by block."""
    found: list[list[ast.stmt]] = []
    for part in (statement, *getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
        found += [block for name in ("body", "orelse", "finalbody") if (block := getattr(part, name, None))]
    last = found[-1][0] if found else None
    if not (isinstance(statement, ast.If) and isinstance(last, ast.If) and statement.orelse == [last]):
        return found
    alone = not source.text.startswith("elif", source.span(last)[0])
    return found if alone else [*found[:-1], *_blocks(source, last)]


def _first_line(statement: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(one.lineno for one in decorators)])


def _line_start(source: Source, statement: ast.stmt) -> int:
    return source.starts[_first_line(statement) - 1]


def _own_line(source: Source, statement: ast.stmt) -> bool:
    return _first_line(statement) < statement.lineno or source.starts_line(source.span(statement)[0])


def _lines(source: Source, body: Sequence[ast.stmt]) -> Iterator[_Chunk]:
    """The statements of a block; those that share lines are one."""
    current: _Chunk | None = None
    for statement in body:
        begin, end = source.span(statement)
        start = _line_start(source, statement)
        if current is not None and (start < current.end or _JOINED.fullmatch(source.text, current.end, begin)):
            current.statements = [*current.statements, statement]
            current.end = end
            continue
        if current is not None:
            yield _whole(source, current)
        lead = source.indent(start)
        nested = bool(lead.strip("\f"))
        current = _Chunk(start if nested else start + len(lead), end, [statement], before=_BLOCK if nested else "")
    if current is not None:
        yield _whole(source, current)


def _whole(source: Source, chunk: _Chunk) -> _Chunk:
    """The chunk with the rest of its last line."""
    end = source.line_end(chunk.end)
    match = NEWLINE.match(source.text, end)
    chunk.end = match.end() if match else end
    return chunk


def _depth(statements: Iterable[ast.AST]) -> int:
    deepest = 0
    todo: list[tuple[ast.AST, int]] = [(statement, 1) for statement in statements]
    while todo:
        node, depth = todo.pop()
        deepest = max(deepest, depth)
        todo += [(child, depth + 1) for child in ast.iter_child_nodes(node)]
    return deepest


def _with_room(work: Callable[[], T]) -> T:
    """Run on a large stack: the parser of libcst recurses in native code, its trees in Python."""
    made: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, _FRAMES))
        try:
            made.append(work())
        except BaseException as error:  # a panic of the parser is no Exception
            failed.append(error)
        finally:
            sys.setrecursionlimit(limit)

    before = threading.stack_size(_STACK)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    if failed:
        raise failed[0]
    return made[0]
