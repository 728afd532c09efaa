"""Which place, process, input, result and state of the migrated run answers to which of the old one."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..catalog import Case, Catalog, Symbol
from ..state import rule_for
from ..translate import Untranslatable, select
from .log import Log, Site

__all__ = ["Names", "line_map", "names_of", "pair_logs", "pair_sites"]

LOSS = ("loss", "total_loss", "total", "0", "0.loss", "")
"""Where a result keeps the loss itself: the first of these that is there."""


@dataclass
class Names:
    """Old names to new ones, for one pair of places."""

    inputs: dict[str, str] | None = None
    """``None``: the names are the same on both sides."""
    results: dict[str, str] | None = None
    case: Case | None = None
    symbol: Symbol | None = None
    moved: set[str] = field(default_factory=set)
    """Old inputs that the migration changes in value: they are not compared."""

    def input(self, name: str) -> str | None:
        """The new name of an input; ``None`` if there is none."""
        if self.inputs is None:
            return name
        head, dot, rest = name.partition(".")
        new = self.inputs.get(head)
        return None if new is None else f"{new}{dot}{rest}"

    def result(self, name: str) -> str | None:
        """The new name of an entry of the result."""
        return name if self.results is None else self.results.get(name)

    def state(self, name: str) -> tuple[list[str], bool]:
        """The new names of a parameter or buffer, and whether only its norm stays."""
        if self.case is None:
            return [name], False
        found = rule_for(self.case.state, name)
        if found is None:
            return [], False
        rule, rest = found
        return [new.replace("*", rest) for new in rule.new], rule.transpose


def _case(symbol: Symbol, new: str, given: Mapping[str, Any] | None) -> Case | None:
    """The row that leads to ``new``: the one that holds for the old arguments, else the first."""
    rows = [case for case in symbol.cases if case.new == new]
    if given is not None and len(rows) > 1:
        with contextlib.suppress(Untranslatable):
            return next((row for row in rows if row is select(symbol, (), given)), rows[0])
    return rows[0] if rows else None


def names_of(catalog: Catalog, old: str, new: str, given: Mapping[str, Any] | None = None) -> Names:
    """How the names of a call of ``old`` (built with ``given``) are those of a call of ``new`` (canonical paths)."""
    symbol = next((s for s in catalog.symbols if s.twin == old), None)
    if old == new or symbol is None:
        return Names(symbol=symbol)
    case = _case(symbol, new, given)
    if case is None:
        return Names(symbol=symbol)
    signature = case.arguments if symbol.kind == "function" else case.forward
    inputs = None
    moved = set()
    if signature is not None:
        inputs = {a.name: a.new_name for a in signature.values() if a.drop is None and a.report is None}
        moved = {a.name for a in signature.values() if a.scale is not None or a.invert or a.map is not None}
    results = {key: rule.new for key, rule in case.results.items() if rule.new is not None and not rule.differs}
    return Names(inputs, results, case, symbol, moved)


def line_map(old: Sequence[str], new: Sequence[str]) -> Callable[[int], int]:
    """New line number -> the old line, or the first line of the old block that was replaced."""
    places: dict[int, int] = {}
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        for j in range(j1, j2):
            places[j + 1] = i1 + (j - j1) + 1 if tag == "equal" or i2 - i1 == j2 - j1 else -(i1 + 1)
    return lambda line: places.get(line, line)


class _Lines:
    """Blocks of lines that answer to each other, per file."""

    def __init__(self, old: Path, new: Path) -> None:
        self.roots = old, new
        self.known: dict[str, tuple[Callable[[int], int], dict[int, int]]] = {}

    def _load(self, file: str) -> tuple[Callable[[int], int], dict[int, int]]:
        if file not in self.known:
            texts = []
            for root in self.roots:
                path = root / file
                readable = path.is_file() and path.stat().st_size < 4 << 20
                texts.append(path.read_text("utf-8", "replace").splitlines() if readable else [])
            old, new = texts
            replaced: dict[int, int] = {}
            for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
                if tag != "equal" and i2 - i1 != j2 - j1:
                    replaced.update(dict.fromkeys(range(i1 + 1, i2 + 1), -(i1 + 1)))
            self.known[file] = line_map(old, new), replaced
        return self.known[file]

    def key(self, site: Site, side: int) -> tuple[str, int]:
        file, line = str(site.data["file"]), int(site.data["line"])
        mapped, replaced = self._load(file)
        return file, (mapped(line) if side else replaced.get(line, line))


def _fits(catalog: Catalog) -> Callable[[Site, Site], bool]:
    wanted: dict[str, set[str]] = {}
    for symbol in catalog.symbols:
        wanted.setdefault(symbol.twin, {symbol.twin}).update(case.new for case in symbol.cases if case.new)

    def fits(old: Site, new: Site) -> bool:
        return old.data["kind"] == new.data["kind"] and new.what in wanted.get(old.what, {old.what})

    return fits


def pair_sites(
    old: Iterable[Site], new: Iterable[Site], trees: tuple[Path, Path], catalog: Catalog
) -> tuple[list[tuple[Site, Site]], list[Site], list[Site]]:
    """Pairs of places, and those of either side that stay alone.

    The edits of the codemod move lines, so places are looked up through the lines that are the same in both files;
    inside a block that was replaced, and for what is left, the order in which they were met decides.
    """
    lines, fits = _Lines(*trees), _fits(catalog)
    olds, news = ([site for site in sites if not site.inner] for sites in (old, new))
    pairs: list[tuple[Site, Site]] = []

    def match(keyed: Callable[[Site, int], object]) -> None:
        waiting: dict[object, list[Site]] = {}
        for site in news:
            waiting.setdefault(keyed(site, 1), []).append(site)
        for site in list(olds):
            candidates = waiting.get(keyed(site, 0), [])
            found = next((other for other in candidates if fits(site, other)), None)
            if found is not None:
                candidates.remove(found)
                olds.remove(site)
                news.remove(found)
                pairs.append((site, found))

    match(lambda site, side: lines.key(site, side))
    match(lambda site, side: site.data["file"])
    match(lambda site, side: None)
    order = {id(site): place for place, site in enumerate(old)}
    pairs.sort(key=lambda pair: order.get(id(pair[0]), 0))
    return pairs, olds, news


def pair_logs(old: Sequence[Log], new: Sequence[Log]) -> list[tuple[Log | None, Log | None]]:
    """Processes of both runs that have met losses: by rank, else in the order in which they started."""

    def ranked(logs: Sequence[Log]) -> Mapping[tuple[str, int], Log]:
        counts: dict[str, int] = {}
        found = {}
        for log in logs:
            if log.sites:
                rank = str(log.header.get("rank", ""))
                found[rank, counts.get(rank, 0)] = log
                counts[rank] = counts.get(rank, 0) + 1
        return found

    olds, news = ranked(old), ranked(new)
    return [(olds.get(key), news.get(key)) for key in dict.fromkeys([*olds, *news])]
