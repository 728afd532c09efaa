"""A closer look at the text of a file that the scout does not pass over: old names as words."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from .scout import prefixes, sections, strings

_KEY = re.compile(r"^\s*\"?([\w.-]+)\"?\s*=", re.M)


class OldWords:
    """Old names in the catalogs ``texts``, and old paths (``full``), as patterns for bytes."""

    def __init__(self, texts: Sequence[str], full: set[str]) -> None:
        self.texts, self.full = texts, full
        self.dotted = {prefix for path in full for prefix in prefixes(path) if "." in prefix}

    @functools.cached_property
    def names(self) -> set[str]:
        """Old names."""
        names: set[str] = set()
        for text in self.texts:
            for header, body in sections(text):
                if header == "symbol":
                    found = {key: strings(body, key) for key in ("old", "exported", "aliases")}
                    names |= {path.rpartition(".")[2] for values in found.values() for path in values}
        return names

    @functools.cached_property
    def configs(self) -> set[str]:
        """Names of losses in configuration files, and what marks the sections of an old factory."""
        found: dict[str, list[str]] = {"config.names": [], "config": []}
        for text in self.texts:
            for header, body in sections(text):
                found.get(header, []).append(body)
        marks = {word for body in found["config"] for key in ("marks", "types") for word in strings(body, key)}
        return marks.union(*map(_KEY.findall, found["config.names"]))

    @functools.cached_property
    def words(self) -> re.Pattern[bytes]:
        """Old names and dotted paths as words."""
        return _alternatives(self.names | self.dotted)

    @functools.cached_property
    def _roots(self) -> tuple[tuple[bytes, ...], re.Pattern[bytes]]:
        """Old packages at the top level, whose names are common words, and a pattern for strings that begin so."""
        roots = sorted(path for path in self.full if "." not in path)
        pattern = rf"[\"'](?:{'|'.join(map(re.escape, roots))})\\?[\"'.:]"
        return tuple(root.encode() for root in roots), re.compile(pattern.encode())

    @functools.cached_property
    def leaves(self) -> re.Pattern[bytes]:
        """A quoted relative path."""
        parts = {re.escape(part) for path in self.full for part in path.split(".")}
        return re.compile(rf"[\"']\.+(?:{'|'.join(sorted(parts))})\b".encode())

    @functools.cached_property
    def _config_words(self) -> re.Pattern[bytes]:
        return _alternatives(map(str.lower, self.configs))

    @functools.cached_property
    def _covers(self) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        return cover(self.names | self.dotted), cover(map(str.lower, self.configs))

    def mentioned(self, data: bytes) -> bool:
        """Whether an old name or path stands in the text."""
        return any(needle in data for needle in self._covers[0]) and self.words.search(data) is not None

    def rooted(self, data: bytes) -> bool:
        """Whether an old package at the top level is quoted, perhaps without the name of a loss."""
        return any(root in data for root in self._roots[0]) and self._roots[1].search(data) is not None

    @functools.cached_property
    def _starts(self) -> tuple[bytes, ...]:
        """What old paths of more than one name begin with."""
        return tuple(sorted({".".join(path.split(".")[:2]).encode() for path in self.full if "." in path}))

    def pathed(self, data: bytes) -> bool:
        """Whether a dotted old path stands in the text."""
        return any(start in data for start in self._starts) and self._paths.search(data) is not None

    @functools.cached_property
    def _paths(self) -> re.Pattern[bytes]:
        return _alternatives(self.dotted)

    def in_config(self, data: bytes) -> bool:
        """Whether the name of a loss stands in a configuration file; old factories did not mind its case."""
        data = data.lower()
        return any(needle in data for needle in self._covers[1]) and self._config_words.search(data) is not None


def _alternatives(words: Iterable[str]) -> re.Pattern[bytes]:
    found = sorted(words, key=lambda word: (-len(word), word))
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, found))})\b".encode())


def cover(words: Iterable[str]) -> tuple[bytes, ...]:
    """Few strings, one of which is in each word (greedy, of four letters where they serve many)."""
    left = sorted(words)
    enough = len(left) / 3
    chosen: list[str] = []
    while left:
        counts = Counter(word[i : i + 4] for word in left for i in range(len(word) - 3))
        piece, count = max(counts.items(), key=lambda item: (item[1], item[0]), default=("", 0))
        if count < min(3, enough) or not piece:
            piece = left[0]
        chosen.append(piece)
        left = [word for word in left if piece not in word]
    return tuple(piece.encode() for piece in chosen)
