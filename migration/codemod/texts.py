"""Old paths that stay in texts of any kind: what breaks without the old package, and what is only mentioned."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from .oldpaths import Hit, OldPaths
from .text import SKIP, SKIP_FILE, Finding, Source

CODE, PROSE = "code", "prose"
_PROSE_SUFFIXES = {".md", ".markdown", ".rst", ".txt", ".tex", ".html", ".htm", ".adoc", ".org", ".diff", ".patch"}
_STRUCTURED = {".yaml", ".yml", ".json", ".toml", ".cfg", ".ini", ".json5", ".jsonc", ".xml", ".properties", ".env"}
_HISTORY = re.compile(r"(?:change(?:s|log)?|history|news|releases?|release[-_]notes|authors|readme|licen[cs]e)\b", re.I)
_REQUIREMENTS = re.compile(r"(?:requirements|constraints|environment)\b.*\.(?:txt|in)\Z", re.I)
_COMMENT = re.compile(r"(?:^|(?<=\s))#.*|(?:^|(?<=\s))//.*|^\s*(?:;|--|%|REM\b|dnl\b).*|<!--.*?-->", re.M)
_SAID = re.compile(r"\s*(?:[-@]|run:|\|\|?|&&)*\s*(?:echo|printf|LABEL|MAINTAINER|say|die|log|warn|fail)\b")
_RUN = re.compile(r"(?:^|[\s\"'\[,])-[mp][\s\"',]+\Z|\bpython[\d.]*\s+-c\b|[=:]\Z")
_ROLE = re.compile(r":(?:py:)?(?:class|func|mod|meth|obj|data|attr|exc|any|const):`[^`]*\Z")
_DIRECTIVE = re.compile(
    r"^\s*\.\. (?:py:)?(?:auto\w+|currentmodule|module|class|function|inheritance-diagram|testsetup)::[^\n]*\Z"
)
_FENCE = re.compile(r"[ \t>]*(?:[-*+][ \t]+)?(`{3,}|~{3,})[ \t]*\{?\.?([\w-]*)")
_SHOWN = {"text", "txt", "log", "diff", "patch", "output", "plain", "pytb", "markdown", "md", "mermaid"}


@dataclass
class Place:
    """An old path that stays at a line and column of a file."""

    line: int
    column: int
    hit: Hit
    kind: str


def told(line: str) -> bool:
    """Whether a line of a script is a comment, or prints something."""
    return line.lstrip().startswith("#") or _SAID.match(line) is not None


def is_prose(path: str) -> bool:
    """Whether a file is there to be read, and no tool reads paths in it."""
    name = os.path.basename(path)
    stem, suffix = os.path.splitext(name)
    if _REQUIREMENTS.match(name):
        return False
    return suffix.lower() in _PROSE_SUFFIXES or (suffix.lower() not in _STRUCTURED and bool(_HISTORY.match(stem)))


def places(text: str, path: str, old: OldPaths) -> list[Place]:
    """The old paths in a text that is no Python."""
    if SKIP_FILE.search(text):
        return []
    source = Source(text, path)
    hits = list(old.hits(text))
    if not hits:
        return []
    suffix = os.path.splitext(path)[1].lower()
    if suffix in (".md", ".markdown"):
        judge = _Markdown(source).kind
    elif suffix == ".rst":
        judge = _Restructured(source).kind
    elif is_prose(path):
        judge = _always_prose
    else:
        judge = _Lines(source, suffix).kind
    found = []
    for hit in sorted(hits, key=lambda hit: hit.start):
        line = source.line_of(hit.start)
        start = source.starts[line - 1]
        if SKIP.search(text[start : source.line_end(start)]):
            continue
        found.append(Place(line, hit.start - start + 1, hit, judge(hit)))
    return found


def _always_prose(hit: Hit) -> str:
    return PROSE


class _Lines:
    """Scripts, recipes and settings, line by line."""

    def __init__(self, source: Source, suffix: str) -> None:
        self.source, self.structured = source, suffix in _STRUCTURED
        self.remarks = suffix != ".json"

    def kind(self, hit: Hit) -> str:
        start = self.source.line_start(hit.start)
        line = self.source.text[start : self.source.line_end(start)]
        at = hit.start - start
        if self.remarks and any(m.start() <= at < m.end() for m in _COMMENT.finditer(line)):
            return PROSE
        if hit.imported or _RUN.search(line[:at]):
            return CODE
        if _SAID.match(line):
            return PROSE
        return PROSE if self.structured and sentence(line, at, at + hit.end - hit.start) else CODE


def sentence(line: str, start: int, end: int) -> bool:
    """Whether the path stands among words, as in a sentence."""
    before = re.split(r"[\"'{}\[\]]|[=:]\s", line[:start])[-1]
    after = re.split(r"[\"'{}\[\]]", line[end:])[0]
    words = [word for word in re.split(r"[\s,;.!?()]+", f"{before} {after}") if word and word != "-"]
    plain = [word for word in words if re.fullmatch(r"[A-Za-z][a-z']*", word)]
    return len(plain) >= 2 and len(plain) * 2 > len(words)


class _Markdown:
    """Fences are code, all else is prose."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.fenced: list[tuple[int, int]] = []
        fence, known, begin = "", False, 0
        for index, start in enumerate(source.starts):
            line = source.text[start : source.line_end(start)]
            match = _FENCE.match(line)
            if match and not fence:
                fence, known, begin = match[1], match[2].lower() not in _SHOWN, index + 2
            elif match and match[1].startswith(fence) and not match[2]:
                if known:
                    self.fenced.append((begin, index))
                fence = ""
        self.lines = _Lines(source, "")

    def kind(self, hit: Hit) -> str:
        line = self.source.line_of(hit.start)
        inside = any(first <= line <= last for first, last in self.fenced)
        return self.lines.kind(hit) if inside else PROSE


class _Restructured:
    """Roles, directives, code and literal blocks are code, all else is prose."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.blocks = set(_literal_lines(source))
        self.lines = _Lines(source, "")

    def kind(self, hit: Hit) -> str:
        if linked(self.source.text, hit.start):
            return CODE
        line = self.source.line_of(hit.start)
        text = self.source.text[self.source.starts[line - 1] : hit.start]
        if line in self.blocks or re.match(r"\s*(?:>>>|\.\.\.) ", text):
            return self.lines.kind(hit)
        return PROSE


def linked(text: str, at: int) -> bool:
    """Whether a role or a directive of Sphinx leads to what stands at ``at``."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return bool(_ROLE.search(line) or _DIRECTIVE.search(line))


def _literal_lines(source: Source) -> Iterator[int]:
    """The lines in blocks of code and in literal blocks."""
    outer, open_ = -1, False
    for number, start in enumerate(source.starts, 1):
        line = source.text[start : source.line_end(start)]
        indent = len(line) - len(line.lstrip())
        if open_ and (not line.strip() or indent > outer):
            if line.strip():
                yield number
            continue
        open_ = False
        stripped = line.strip()
        shown = re.match(r"\.\. (?:code-block|code|sourcecode)::\s*(?:text|none|console-output|diff)\b", stripped)
        comment = stripped.startswith("..") and "::" not in stripped
        directive = re.match(r"\.\. [\w:-]+::", stripped)
        code = directive and re.match(
            r"\.\. (?:code|sourcecode|ipython|testcode|testsetup|doctest|prompt|autosummary)", stripped
        )
        if not shown and not comment and (code or (not directive and stripped.endswith("::"))):
            outer, open_ = indent, True


def findings(path: str, found: list[Place], code: str = "TL045", most: int = 20) -> list[Finding]:
    """What is said of the places in one file: each that breaks, and one note for all that only mention a path."""
    made, lines = [], set()
    for place in found:
        if place.kind == CODE and place.line not in lines:
            lines.add(place.line)
            what = f"imports {place.hit.path}" if place.hit.imported else f"names {place.hit.path}"
            name = place.hit.symbol.name if place.hit.symbol else ""
            made.append(Finding(path, place.line, place.column, code, "left", what, name))
    if len(made) > most:
        rest = len(made) - most + 1
        last = made[most - 1]
        made = [
            *made[: most - 1],
            Finding(path, last.line, last.column, code, "left", f"{last.message}, and {rest - 1} more lines"),
        ]
    prose = [place for place in found if place.kind == PROSE]
    if prose:
        count = len({place.line for place in prose})
        more = f" (and on {count - 1} more lines)" if count > 1 else ""
        first = prose[0]
        made.append(Finding(path, first.line, first.column, "TL049", "note", f"mentions {first.hit.path}{more}"))
    return made
