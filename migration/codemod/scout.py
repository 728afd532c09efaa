"""The first look at a file: can it use an old loss at all?

Most files end here, so this part is built for speed: it knows the catalog only by the names in its text, looks for a
few short strings that every use must contain, and then for an import or a quoted path that mentions them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..catalog import Catalog

_TOP = re.compile(r"\A(?:(?!\[).*\n?)*")
_HEADED = re.compile(r"^\[\[(module|symbol)\]\][^\n]*\n((?:(?!\[).*\n?)*)", re.M)
_ENTRY = re.compile(r"^(old|roots|parents|paths|aliases|exported)\s*=\s*(\[[^\]]*\]|\"[^\"]*\")", re.M)
_NO_PACKAGE = re.compile(r"^package\s*=\s*false", re.M)
_CONFIG_NAMES = re.compile(r"^\[config\.names\][^\n]*\n((?:(?!\[).*\n?)*)", re.M)
_KEYS = re.compile(r"^\s*\"?([\w.-]+)\"?\s*=", re.M)
_QUOTED = re.compile(r'"([\w.]+)"')


_BEHIND = tuple(mark + gap + word for mark in (b":", b";") for gap in (b"", b" ") for word in (b"from ", b"import "))


@dataclass(frozen=True)
class Scout:
    """What to look for.

    ``needles``: each Python file that uses an old loss from outside its package contains one, and matches the pattern
    beside it (it imports, or quotes, something that contains it). ``words``: old names as words, the test for all
    other files and the last one for Python. ``folders``: names of directories whose files may use an old loss without
    naming its package (relative imports).
    """

    needles: tuple[tuple[bytes, re.Pattern[bytes]], ...]
    quoted: tuple[bytes, ...]
    words: re.Pattern[bytes]
    configs: re.Pattern[bytes] | None
    folders: frozenset[str]

    def python(self, path: str, data: bytes) -> bool:
        """Whether a Python file deserves to be parsed."""
        if not self.folders.isdisjoint(path.split(os.sep)[:-1]):
            return self.words.search(data) is not None
        for needle, gate in self.needles:
            if needle in data and (gate.search(data) or gate.search(_head(data)) or self._elsewhere(data)):
                return self.words.search(data) is not None
        return False

    def _elsewhere(self, data: bytes) -> bool:
        """Imports in rarer places (behind a colon or semicolon, old line ends), and quoted paths."""
        if b"\r" in data and data.count(b"\r") > data.count(b"\r\n"):
            return True
        return any(mark in data for mark in _BEHIND) or any(path in data for path in self.quoted)

    def interesting(self, path: str, kind: str, data: bytes) -> bool:
        """Whether a file of any kind deserves a second look."""
        if kind == "python":
            return self.python(path, data)
        if kind == "config":
            return self.configs is not None and self.configs.search(data) is not None
        return self.words.search(data) is not None


def _head(data: bytes) -> bytes:
    """The first line, as if another came before it."""
    return b"\n" + data.lstrip(b"\xef\xbb\xbf").partition(b"\n")[0]


def scout(texts: Iterable[str]) -> Scout:
    """The scout for catalogs with these texts. It may see more names than there are, never fewer."""
    modules: set[str] = set()
    names: set[str] = set()
    parents: set[str] = set()
    aliased: set[tuple[str, str]] = set()
    configs: set[str] = set()
    for text in texts:
        top = _entries(_TOP.match(text))
        roots = top.get("roots", [])
        if not _NO_PACKAGE.search(text):
            modules.update(roots)
        parents.update(top.get("parents", []))
        for header in _HEADED.finditer(text):
            entry = _entries(header, 2)
            old = entry.get("old", [""])[0]
            if header.group(1) == "module":
                modules.update(entry.get("paths") or [f"{root}.{old}" for root in roots])
                continue
            names.add(old.rpartition(".")[2])
            names.update(entry.get("exported", []))
            for path in entry.get("aliases", []):
                module, _, name = path.rpartition(".")
                names.add(name)
                if module in parents:
                    aliased.add((module, name))
                else:
                    modules.add(module)
        for block in _CONFIG_NAMES.findall(text):
            configs.update(_KEYS.findall(block))
    return _build(modules, names, parents, aliased, configs)


def of_catalog(catalog: Catalog) -> Scout:
    """The scout for a catalog that was read already."""
    parents = {
        p for p in catalog.packages if any(s.package_paths for s in catalog.symbols) and p not in catalog.modules
    }
    modules = {*catalog.modules, *(path.rpartition(".")[0] for s in catalog.symbols for path in s.all_paths)}
    names = {path.rpartition(".")[2] for s in catalog.symbols for path in s.all_paths}
    return _build(modules, names, parents, set(), {name for rule in catalog.configs for name in rule.names})


def _entries(match: re.Match[str] | None, group: int = 0) -> dict[str, list[str]]:
    text = match.group(group) if match else ""
    return {key: _QUOTED.findall(value) for key, value in _ENTRY.findall(text)}


def _build(
    modules: set[str], names: set[str], parents: set[str], aliased: set[tuple[str, str]], configs: set[str]
) -> Scout:
    # outside of the folders, a use names each part of the module (`src` may be hidden by a relative import),
    # or, below a package that only re-exported names, the name
    groups = [set(module.split(".")) - {"src"} for module in sorted(modules)] + [{name} for _, name in sorted(aliased)]
    needles = _cover([group for group in groups if group])
    starts = {".".join(module.split(".")[:2]) for module in (*modules, *parents)}
    heads = {start for start in starts if "." in start}
    heads |= {f"{quote}{start}{end}" for start in starts - heads for quote in "\"'" for end in (quote, ".")}
    words = sorted({*names, *(m for m in (*modules, *parents) if "." in m)}, key=lambda w: (-len(w), w))
    return Scout(
        tuple((needle.encode(), _gate(needle, aliased)) for needle in needles),
        tuple(head.encode() for head in sorted(heads)),
        re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b".encode()),
        re.compile(rf"\b(?:{'|'.join(sorted(map(re.escape, configs)))})\b".encode()) if configs else None,
        frozenset(part for module in modules for part in module.split(".")) - {"src"},
    )


def _gate(needle: str, aliased: set[tuple[str, str]]) -> re.Pattern[bytes]:
    """An import on a line of its own that has ``needle`` in it, or the package that re-exported it."""
    parts = {needle, *(module.rpartition(".")[2] for module, name in aliased if needle in name)}
    gate = "|".join(sorted(map(re.escape, parts)))
    return re.compile(rf"\n[ \t\f]*(?:from|import)\b(?:[ \t]*\\\r?\n)?[^\n]*(?:{gate})".encode())


def _cover(groups: Sequence[set[str]]) -> list[str]:
    """Few and rare strings, one of which is in a member of each group (greedy; a short one only if it serves many)."""
    left = list(groups)
    chosen: list[str] = []
    while left:
        counts: Counter[str] = Counter()
        for group in left:
            counts.update({word[i : i + 4] for word in group for i in range(len(word) - 3)})
        piece, count = max(counts.items(), key=lambda item: (item[1], item[0]), default=("", 0))
        if count < len(groups) / 3:
            words = sorted({word for group in left for word in group})
            piece = max(words, key=lambda w: (sum(any(w in word for word in group) for group in left), len(w)))
        chosen.append(piece)
        left = [group for group in left if not any(piece in word for word in group)]
    return chosen


def read_texts(paths: Sequence[Path]) -> list[str]:
    """The catalogs as text; a file that cannot be read is left to the reader of the catalog, which says why."""
    texts = []
    for path in paths:
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            continue
    return texts
