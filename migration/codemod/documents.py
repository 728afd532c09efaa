"""Python inside other files: cells of notebooks, code blocks of Markdown and reStructuredText.

Each file gives parts; a part is a virtual module (cells or blocks that share their names) whose edits can be carried
back to the file.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from .errors import FileError
from .jsontext import Node, parse_json
from .syntax import parse, parses
from .text import Edit, Source, apply, split_lines

_LANGUAGES = {"python", "py", "python3", "py3", "pyi", "pycon", "ipython", "ipython3", "python-repl", "pytb"}
_FENCE = re.compile(
    r"(?P<prefix>[ \t>]*(?:[-*+] +)?)(?P<fence>`{3,}|~{3,})[ \t]*\{?\.?(?P<info>[\w-]*)(?P<rest>[^\r\n]*)"
)
_DIRECTIVE = re.compile(
    r"(?P<indent>[ \t]*)\.\. (?:code-block|code|sourcecode|ipython|testcode|testsetup|prompt)::"
    r"[ \t]*(?P<info>[\w-]*)[ \t]*\r?\n?"
)
_PROMPT = re.compile(r"[ \t>]*(?:>>>|\.\.\.)(?: |$)")
_CELL_MAGIC = re.compile(r"\s*%%(\w+)")
_PYTHON_MAGICS = {"time", "timeit", "capture", "prun", "python", "python3"}
_LINE_MAGIC = re.compile(r"\s*(%{1,2}(?:time|timeit|prun)\b(?: +-\w+(?: *[\d.]+)?)*) +(?=[^\s#-])")
_ASSIGNED = re.compile(r"(\s*[\w.,\[\]\"' ]+=\s*)[!%](?=.)")
_WORD = re.compile(r"\w+|[^\w]")
_MAGIC = re.compile(r"\s*(?:%{1,2}\w|!|\?|[\w.]+\?+\s*$)")


@dataclass
class Piece:
    """A run of a part that stands in the file as it is. ``prefix`` comes before each further line there."""

    start: int
    end: int
    place: int
    prefix: str = ""


@dataclass
class Part:
    """A virtual module: its text, and where it comes from."""

    text: str = ""
    pieces: list[Piece] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    cells: list[tuple[int, int, Node]] = field(default_factory=list)

    def carry(self, edits: Iterable[Edit], file_text: str) -> list[Edit]:
        """Edits of whole statements in terms of the file.

        Raises:
            FileError: an edit reaches over what belongs together.
        """
        if self.cells:
            small = [part for edit in edits for part in refined(self.text[edit.start : edit.end], edit)]
            return self._cells(small, file_text)
        return [self._lines(edit, file_text) for edit in edits]

    def _lines(self, edit: Edit, file_text: str) -> Edit:
        """The edit of lines that stand behind a prompt, an indentation or a mark of a quotation."""
        pieces = [piece for piece in self.pieces if edit.start <= piece.start < edit.end]
        ends = [piece.place + piece.end - piece.start for piece in pieces]
        between = [file_text[end : piece.place] for end, piece in zip(ends, pieces[1:], strict=False)]
        if not pieces or pieces[0].start != edit.start or any("\n" in gap or "\r" in gap for gap in between):
            raise FileError("TL095", "an edit crosses the border of a code block")
        old, new = split_lines(self.text[edit.start : edit.end]), split_lines(edit.new)
        prompt = pieces[0].prefix.rstrip().endswith(">>>")
        head = tail = 0
        if not prompt:  # lines that stay keep what is before them
            most = min(len(old), len(new)) - 1
            head = next((i for i in range(most) if old[i] != new[i]), most)
            tail = next((i for i in range(most - head) if old[-1 - i] != new[-1 - i]), most - head)
        firsts = _first_lines(edit.new) if prompt else set()
        lead = pieces[0].prefix
        parts = [new[head]]
        for number in range(head + 1, len(new) - tail):
            before = lead if not prompt or number in firsts else lead.replace(">>>", "...")
            parts.append((before if new[number].strip() else before.rstrip()) + new[number])
        text = "".join(parts)
        last = len(old) - 1 - tail
        if not file_text[pieces[last].place : ends[last]].endswith(("\n", "\r")):
            text = text.rstrip("\r\n")
        return Edit(pieces[head].place, ends[last], text)

    def _cells(self, edits: Iterable[Edit], file_text: str) -> list[Edit]:
        todo: dict[int, list[Edit]] = {}
        for edit in edits:
            index = next((i for i, (s, e, _) in enumerate(self.cells) if s <= edit.start and edit.end <= e), None)
            if index is None:
                raise FileError("TL095", "an edit crosses the border of a cell")
            start, _, node = self.cells[index]
            shown = self.text[edit.start : edit.end]
            if _cell_text(node)[edit.start - start : edit.end - start] != shown:
                raise FileError("TL095", "an edit crosses a magic of the notebook")
            todo.setdefault(index, []).append(Edit(edit.start - start, edit.end - start, edit.new))
        carried = []
        for index, own in todo.items():
            node = self.cells[index][2]
            carried.append(Edit(node.start, node.end, _render(node, apply(_cell_text(node), own), file_text)))
        return carried


def refined(old: str, edit: Edit) -> list[Edit]:
    """An edit as edits of what differs, by words."""
    words, others = (_WORD.findall(text) for text in (old, edit.new))
    at = [edit.start]
    for word in words:
        at.append(at[-1] + len(word))
    matcher = SequenceMatcher(None, words, others, autojunk=False)
    return [
        Edit(at[first], at[last], "".join(others[begin:end]))
        for kind, first, last, begin, end in matcher.get_opcodes()
        if kind != "equal"
    ]


def _first_lines(text: str) -> set[int]:
    """The lines at which the statements of ``text`` begin, from 0."""
    found: set[int] = set()
    for statement in parse(text).body:
        found.add(min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))]) - 1)
    return found


def _blank(text: str) -> str:
    """``text`` without its characters, but with its lines."""
    return re.sub(r"[^\r\n]", " ", text)


# -- notebooks ------------------------------------------------------------------------------------------------------


def _cell_text(node: Node) -> str:
    return "".join(str(item.value) for item in node.items) if isinstance(node.value, list) else str(node.value)


def _render(node: Node, text: str, file_text: str) -> str:
    """JSON of a changed cell in the layout of the file; lines that stayed keep their spelling."""
    raw = file_text[node.start : node.end]
    plain = raw.isascii()
    if not isinstance(node.value, list):
        return json.dumps(text, ensure_ascii=plain)
    items = node.items
    known = {item.value: file_text[item.start : item.end] for item in items}
    lead = file_text[node.start + 1 : items[0].start] if items else ""
    tail = file_text[items[-1].end : node.end - 1] if items else ""
    glue = file_text[items[0].end : items[1].start] if len(items) > 1 else "," + lead
    lines = text.splitlines(keepends=True) or [""]
    return (
        "[" + lead + glue.join(known.get(line) or json.dumps(line, ensure_ascii=plain) for line in lines) + tail + "]"
    )


def _without_magics(text: str) -> str:
    """The cell as Python of the same length: IPython's lines are numbers with a comment, what they time is code."""
    if parses(text):
        return text
    magic = _CELL_MAGIC.match(text)
    if magic and magic.group(1) not in _PYTHON_MAGICS:
        return _blank(text)
    return "".join(_without_magic(line) for line in text.splitlines(keepends=True))


def _without_magic(line: str) -> str:
    timed = _LINE_MAGIC.match(line)
    if timed and parses(line[timed.end() :].strip()):
        return line[: timed.start(1)] + "0;" + " " * (timed.end() - timed.start(1) - 2) + line[timed.end() :]
    assigned = _ASSIGNED.match(line)
    if assigned:
        return line[: assigned.end(1)] + "0#" + line[assigned.end(1) + 2 :]
    if not _MAGIC.match(line):
        return line
    body = line.strip()
    at = line.index(body)
    return line[:at] + ("0#" + body[2:] if len(body) > 1 else "0") + line[at + len(body) :]


def notebook(text: str) -> Part:
    """The code cells of a notebook as one module.

    Raises:
        FileError: it is no notebook.
    """
    try:
        tree = parse_json(text)
    except ValueError as error:
        raise FileError("TL090", f"not JSON: {error}") from error
    except RecursionError as error:
        raise FileError("TL093", "nested too deeply") from error
    cells = tree.get("cells")
    if cells is None or not isinstance(cells.value, list):
        raise FileError("TL090", "no notebook of format 4 (no list of cells)")
    part = Part()
    metadata = tree.get("metadata")
    kernel = metadata.get("kernelspec") if metadata else None
    language = kernel.get("language") if kernel else None
    if language is not None and language.value != "python":
        return part
    source = Source(text)
    for number, cell in enumerate(cells.items, 1):
        kind, content = cell.get("cell_type"), cell.get("source")
        if kind is None or kind.value != "code" or content is None:
            continue
        code = _without_magics(_cell_text(content))
        if not parses(code):
            part.bad.append((source.line_of(content.start), f"cell {number} does not parse: {_cell_text(content)}"))
            code = _blank(code)
        start = len(part.text)
        part.text += code + "\n"
        part.cells.append((start, start + len(code), content))
        places = [source.line_of(item.start) for item in content.items] or [source.line_of(content.start)]
        count = code.count("\n") + 1
        part.lines += [places[min(i, len(places) - 1)] for i in range(count)]
    part.lines.append(part.lines[-1] if part.lines else 1)
    return part


def cells(text: str) -> Iterator[tuple[list[int], str, str, str]]:
    """Lines in the file, kind, text and (for code) Python of each cell; magics are blank or numbers there.

    Raises:
        FileError: it is no notebook.
    """
    try:
        found = parse_json(text).get("cells")
    except (ValueError, RecursionError) as error:
        raise FileError("TL090", str(error)) from error
    source = Source(text)
    for cell in found.items if found else ():
        kind, content = cell.get("cell_type"), cell.get("source")
        if kind is not None and content is not None:
            raw = _cell_text(content)
            lines = [source.line_of(item.start) for item in content.items] or [source.line_of(content.start)]
            yield lines, str(kind.value), raw, _without_magics(raw) if kind.value == "code" else ""


# -- Markdown and reStructuredText ----------------------------------------------------------------------------------


@dataclass
class _Block:
    lines: list[tuple[int, int, str]] = field(default_factory=list)
    """Start and end (newline included) of the code of each line in the file, and what precedes it."""


def _markdown_blocks(source: Source) -> list[_Block]:
    blocks = []
    current: _Block | None = None
    fence = prefix = ""
    for start, end in _lines(source):
        line = source.text[start:end]
        if not fence:
            match = _FENCE.match(line)
            if match:
                fence = match["fence"]
                prefix = re.sub(r"[-*+] ", "  ", match["prefix"])
                known = match["info"].lower() in _LANGUAGES or "python" in match["rest"].lower().split("}")[0]
                current = _Block() if known else None
            continue
        bare = line.strip(" \t>\r\n")
        if bare.startswith(fence) and not bare.strip(fence[0]):
            if current is not None and current.lines:
                blocks.append(current)
            fence, current = "", None
        elif current is not None:
            width = len(prefix) if line.startswith(prefix) else len(line) - len(line.lstrip(" \t>"))
            width = min(width, len(line.rstrip("\r\n")))
            current.lines.append((start + width, end, line[:width]))
    return blocks


def _rst_blocks(source: Source) -> list[_Block]:
    blocks = []
    lines = list(_lines(source))
    index = 0
    while index < len(lines):
        start, end = lines[index]
        match = _DIRECTIVE.match(source.text[start:end])
        index += 1
        if match is None or (match["info"] and match["info"].lower() not in _LANGUAGES):
            if match is None and _PROMPT.match(source.text[start:end]):
                block = _Block()
                index -= 1
                while index < len(lines) and source.text[lines[index][0] : lines[index][1]].strip():
                    at, to = lines[index]
                    width = len(source.text[at:to]) - len(source.text[at:to].lstrip(" \t"))
                    block.lines.append((at + width, to, source.text[at : at + width]))
                    index += 1
                blocks.append(block)
            continue
        outer = len(match["indent"])
        block, width = _Block(), -1
        while index < len(lines):
            at, to = lines[index]
            line = source.text[at:to]
            indent = len(line) - len(line.lstrip(" \t"))
            if line.strip() and indent <= outer:
                break
            index += 1
            if width < 0 and (not line.strip() or line.strip().startswith(":")):
                continue
            if width < 0:
                width = indent
            cut = min(width, len(line.rstrip("\r\n")))
            block.lines.append((at + cut, to, line[:cut]))
        if block.lines:
            blocks.append(block)
    return blocks


def _lines(source: Source) -> Iterable[tuple[int, int]]:
    ends = [*source.starts[1:], len(source.text)]
    return [(s, e) for s, e in zip(source.starts, ends, strict=True) if s < e]


def _unprompted(source: Source, block: _Block) -> _Block:
    """A console session without prompts and output."""
    made = _Block()
    for start, end, prefix in block.lines:
        line = source.text[start:end]
        if _PROMPT.match(line):
            cut = 4 if line[3:4] == " " else 3
            made.lines.append((start + cut, end, prefix + line[:3] + " "))
    return made


def document(text: str, rst: bool) -> list[Part]:
    """The Python blocks of a text: blocks share a part until one imports a name anew."""
    source = Source(text)
    parts = [Part()]
    taken: set[str] = set()
    for block in _rst_blocks(source) if rst else _markdown_blocks(source):
        if any(_PROMPT.match(source.text[s:e]) for s, e, _ in block.lines[:1]):
            block = _unprompted(source, block)
        code = "".join(source.text[s:e] for s, e, _ in block.lines)
        if not code.endswith(("\n", "\r")):
            code += "\n"
        bound = _imported(code)
        if bound is None:
            parts[-1].bad.append((source.line_of(block.lines[0][0]), code))
            continue
        if bound & taken:
            parts.append(Part())
            taken = set()
        taken |= bound
        part = parts[-1]
        for start, end, prefix in block.lines:
            at = len(part.text)
            part.text += source.text[start:end]
            part.pieces.append(Piece(at, len(part.text), start, prefix))
            part.lines.append(source.line_of(start))
        if not part.text.endswith(("\n", "\r")):
            part.text += source.newline
        part.text += source.newline
        part.lines.append(part.lines[-1])
    return parts


def _imported(code: str) -> set[str] | None:
    """Names that ``code`` imports; ``None`` if it does not parse."""
    if not parses(code):
        return None
    names: set[str] = set()
    for node in ast.walk(parse(code)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return names - {"*"}


__all__: Sequence[str] = ("Part", "document", "notebook")
