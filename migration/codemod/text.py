"""A source text with the offsets of its syntax tree, findings at its lines, and edits of its ranges."""

from __future__ import annotations

import ast
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

NEWLINE = re.compile(r"\r\n|\r|\n")
SKIP = re.compile(r"#\s*codemod:\s*skip(?!-file)\b")
SKIP_FILE = re.compile(r"^\s*#\s*codemod:\s*skip-file\b", re.M)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    ``level`` is ``change`` (rewritten, or would be), ``left`` (a person has to look), ``note`` (for information) or
    ``error`` (the file could not be treated).
    """

    path: str
    line: int
    column: int
    code: str
    level: str
    message: str
    symbol: str = ""


@dataclass(frozen=True, order=True)
class Edit:
    """Replace ``text[start:end]`` by ``new``. Edits at one place apply in the order in which they were made."""

    start: int
    end: int
    new: str = field(compare=False)


class Source:
    """The decoded text of one module."""

    def __init__(self, text: str, path: str = "<text>", lines: Sequence[int] | None = None) -> None:
        self.text = text
        self.path = path
        self.lines = lines
        self.starts = [0, *(match.end() for match in NEWLINE.finditer(text))]
        self.ascii = text.isascii()
        first = NEWLINE.search(text)
        self.newline = first.group() if first else "\n"

    def offset(self, line: int, column: int) -> int:
        """Character offset of a 1-based line and a UTF-8 byte column, as syntax trees give them."""
        start = self.starts[line - 1]
        if self.ascii:
            return start + column
        end = self.starts[line] if line < len(self.starts) else len(self.text)
        return start + len(self.text[start:end].encode("utf-8", "surrogatepass")[:column].decode("utf-8", "ignore"))

    def span(self, node: ast.expr | ast.stmt | ast.keyword | ast.alias) -> tuple[int, int]:
        """Start and end offset of a node."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.offset(node.lineno, node.col_offset), self.offset(node.end_lineno, node.end_col_offset)

    def segment(self, node: ast.expr | ast.stmt) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.text[start:end]

    def real_line(self, line: int) -> int:
        """The line of the file, where the text is only a part of one."""
        return self.lines[min(line, len(self.lines)) - 1] if self.lines else line

    def line_of(self, offset: int) -> int:
        """1-based line of a character offset."""
        return bisect_right(self.starts, offset)

    def line_start(self, offset: int) -> int:
        """Offset of the first character of the line that holds ``offset``."""
        return self.starts[self.line_of(offset) - 1]

    def line_end(self, offset: int) -> int:
        """Offset of the newline (or of the end of the text) that ends the line of ``offset``."""
        match = NEWLINE.search(self.text, offset)
        return match.start() if match else len(self.text)

    def indent(self, offset: int) -> str:
        """The white space at the start of the line of ``offset``."""
        match = re.match(r"[ \t\f]*", self.text[self.line_start(offset) :])
        return match.group() if match else ""

    def starts_line(self, offset: int) -> bool:
        """Whether only white space stands before ``offset`` on its line."""
        return not self.text[self.line_start(offset) : offset].strip()

    def skipped(self, first: int, last: int | None = None) -> bool:
        """Whether one of the lines ``first`` .. ``last`` carries ``# codemod: skip``."""
        for line in range(first, (last or first) + 1):
            start = self.starts[line - 1]
            if SKIP.search(self.text[start : self.line_end(start)]):
                return True
        return False


def apply(text: str, edits: Iterable[Edit]) -> str:
    """``text`` with all ``edits``; those inside a deleted range vanish with it.

    Raises:
        ValueError: two edits overlap otherwise.
    """
    ordered = sorted(edits, key=lambda edit: (edit.start, edit.end != edit.start, -edit.end))
    parts: list[str] = []
    position = 0
    deleted_to = -1
    last: Edit | None = None
    for edit in ordered:
        if edit == last and edit.new == last.new and edit.end > edit.start:
            continue
        if edit.start < position:
            if edit.end <= deleted_to:
                continue
            raise ValueError(f"edits overlap at offset {edit.start}")
        parts += text[position : edit.start], edit.new
        position = edit.end
        deleted_to = edit.end if not edit.new and edit.end > edit.start else -1
        last = edit
    parts.append(text[position:])
    return "".join(parts)


def split_lines(text: str) -> list[str]:
    """The lines of a text with their ends, as Python counts them in source."""
    ends = [match.end() for match in NEWLINE.finditer(text)]
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True) if start < end]


def unparsed(value: object, quote: str = '"') -> str:
    """Python source of a literal, with double quotes, or with ``quote``."""
    if isinstance(value, str):
        body = repr(value)
        return body if quote in value or body[1:-1] != value else f"{quote}{value}{quote}"
    if isinstance(value, (list, tuple)):
        items = ", ".join(unparsed(item, quote) for item in value)
        return f"[{items}]" if isinstance(value, list) else f"({items}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{unparsed(key, quote)}: {unparsed(item, quote)}" for key, item in value.items()) + "}"
    return repr(value)


def literal(node: ast.expr) -> tuple[bool, object]:
    """Whether ``node`` is a literal, and its value."""
    try:
        return True, ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False, None
