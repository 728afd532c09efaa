"""What two runs have printed: the first line that differs, as far as numbers and words go."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

__all__ = ["Difference", "differences", "unsteady"]

_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:e[-+]?\d+)?(?![\w.]*\w)|\b(?:nan|inf)\b", re.IGNORECASE)
_TIMES = re.compile(
    r"\d+(?:\.\d+)?\s*(?:it/s|s/it|ms\b|us\b|µs\b|s\b|sec\w*|min\w*|[KMG]i?B\b|%\|)"
    r"|\d\d?:\d\d(?::\d\d)?(?:[.,]\d+)?|0x[0-9a-f]+|\d{4}-\d\d-\d\d",
    re.IGNORECASE,
)
CLOSE = 1e-4
"""Numbers that are printed differ by this much at least before they count (relative, absolute below 1)."""


@dataclass(frozen=True)
class Difference:
    """A line that differs."""

    line: int
    old: str
    new: str


def _close(old: str, new: str) -> bool:
    a, b = float(old), float(new)
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) == math.isnan(b)
    if math.isinf(a) or math.isinf(b):
        return a == b
    # the last digit that is printed may be rounded either way
    digits = len(old.partition(".")[2].partition("e")[0]) if "." in old and "e" not in old.lower() else 99
    return abs(a - b) <= max(CLOSE * max(1.0, abs(a)), 1.01 * 10.0**-digits if digits < 7 and "." in old else 0.0)


def _same(old: str, new: str) -> bool:
    if old == new:
        return True
    old, new = (_TIMES.sub("<time>", text) for text in (old, new))
    if " ".join(_NUMBER.sub("#", old).split()) != " ".join(_NUMBER.sub("#", new).split()):
        return False
    return all(map(_close, _NUMBER.findall(old), _NUMBER.findall(new)))


def _lines(text: str, root: str) -> list[str]:
    return [
        line.rpartition("\r")[2].rstrip() for line in text.replace(root, "<tree>").replace("\r\n", "\n").split("\n")
    ]


def differences(
    old: str, new: str, roots: tuple[str, str] = ("\0", "\0"), ignored: Collection[int] = (), most: int = 20
) -> list[Difference]:
    """Lines that differ, at most ``most``; ``ignored`` are line numbers that no two runs have in common."""
    olds, news = _lines(old, roots[0]), _lines(new, roots[1])
    if len(olds) != len(news):
        return _aligned(olds, news, ignored, most)
    found = [
        Difference(number, a, b)
        for number, (a, b) in enumerate(zip(olds, news, strict=True), 1)
        if number not in ignored and not _same(a, b)
    ]
    return found[:most]


def _shape(line: str) -> str:
    return " ".join(_NUMBER.sub("#", _TIMES.sub("<time>", line)).split())


def _aligned(olds: Sequence[str], news: Sequence[str], ignored: Collection[int], most: int) -> list[Difference]:
    """The same where lines are missing on one side."""
    found = []
    a, b = ([_shape(line) for line in side[:20000]] for side in (olds, news))
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, a, b, autojunk=len(olds) > 2000).get_opcodes():
        if tag == "equal":
            pairs = [(i, olds[i], news[j1 + i - i1]) for i in range(i1, i2)]
            found += [Difference(i + 1, a, b) for i, a, b in pairs if i + 1 not in ignored and not _same(a, b)]
        else:
            found.append(Difference(i1 + 1, " / ".join(olds[i1:i2])[:300], " / ".join(news[j1:j2])[:300]))
        if len(found) >= most:
            break
    return [d for d in found if d.old.strip() or d.new.strip()][:most]


def unsteady(first: str, second: str, roots: tuple[str, str]) -> set[int]:
    """Numbers of lines that differ between two runs of the same program."""
    return {difference.line for difference in differences(first, second, roots, most=10000)}
