"""Comparisons summed up: how many numbers, how large the deviations, what they cost."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..catalog import Case, Symbol
from ..parity import Comparison

__all__ = ["COLUMNS", "KINDS", "Entry", "Tally", "number", "plain", "ratio", "row_of"]

KINDS = ("value", "gradient", "state")
LOWEST, HIGHEST = -18, -3
"""Powers of ten between which deviations are counted by decade."""


def short(dtype: torch.dtype) -> str:
    """``float64`` of ``torch.float64``."""
    return str(dtype).removeprefix("torch.")


def decade(value: float) -> int:
    """The place of a deviation in the histogram: 0 for no deviation at all, then one place per power of ten."""
    if value == 0:
        return 0
    return 1 + min(max(math.floor(math.log10(value)), LOWEST), HIGHEST) - LOWEST if math.isfinite(value) else bins() - 1


def bins() -> int:
    """Number of places of the histogram."""
    return HIGHEST - LOWEST + 2


@dataclass
class Tally:
    """What was compared for one old symbol."""

    calls: int = 0
    recorded: int = 0
    numbers: int = 0
    worst: dict[str, dict[str, float]] = field(default_factory=lambda: defaultdict(lambda: dict.fromkeys(KINDS, 0.0)))
    histogram: list[int] = field(default_factory=lambda: [0] * bins())
    points: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: list[tuple[float, float]] = field(default_factory=list)
    bytes: list[tuple[float, float]] = field(default_factory=list)

    def add(self, comparison: Comparison, dtype: torch.dtype, where: str, *, factor: float = 1.0) -> None:
        """Take up one comparison; what is beyond the tolerance becomes a failure."""
        self.calls += 1
        for kind, part in zip(KINDS, (comparison.values, comparison.gradients, comparison.state), strict=True):
            self.numbers += len(part)
            known = self.worst[short(dtype)]
            known[kind] = max([known[kind], *part.values()])
            for value in part.values():
                self.histogram[decade(value)] += 1
        if math.isfinite(comparison.old_loss) and math.isfinite(comparison.new_loss):
            self.points.append((comparison.old_loss, comparison.new_loss))
        self.failures += [f"{where}: {failure}" for failure in comparison.failures(dtype, factor=factor)]

    def cost(self, comparison: Comparison) -> None:
        """Take up what the calls of one comparison cost."""
        for known, pair in (
            (self.seconds, (comparison.old_seconds, comparison.new_seconds)),
            (self.bytes, (comparison.old_bytes, comparison.new_bytes)),
        ):
            if all(math.isfinite(value) and value > 0 for value in pair):
                known.append(pair)

    @property
    def time_ratio(self) -> float:
        """Median over the calls of new seconds per old second; not a number without any."""
        return statistics.median([new / old for old, new in self.seconds]) if self.seconds else math.nan

    @property
    def memory_ratio(self) -> float:
        """The same of bytes."""
        return statistics.median([new / old for old, new in self.bytes]) if self.bytes else math.nan

    def as_data(self) -> dict[str, Any]:
        """For JSON: infinite and missing numbers are ``null``."""
        return {
            "calls": self.calls,
            "recorded_calls": self.recorded,
            "numbers": self.numbers,
            "largest_deviation": {d: {k: _plain(v) for k, v in kinds.items()} for d, kinds in self.worst.items()},
            "histogram": self.histogram,
            "losses": self.points[:: max(1, len(self.points) // 60)],
            "failures": self.failures,
            "time_ratio": _plain(self.time_ratio),
            "memory_ratio": _plain(self.memory_ratio),
        }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def plain(value: Any) -> Any:
    """``value`` with ``None`` in place of numbers that JSON lacks, at any depth."""
    if isinstance(value, float):
        return _plain(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@dataclass
class Entry:
    """An old symbol with its rows and what was compared."""

    symbol: Symbol
    tally: Tally = field(default_factory=Tally)
    notes: list[str] = field(default_factory=list)
    """How the records compare, where that needs words."""
    reason: str = ""
    """Why nothing is compared although there is a successor."""

    @property
    def parity(self) -> str:
        """The parity class; the weakest of several rows, ``none`` without a successor."""
        found = {case.parity for case in self.symbol.cases if case.new is not None}
        return next((p for p in ("fixed", "documented", "exact") if p in found), "none")

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "system": self.symbol.system,
            "old": self.symbol.old,
            "kind": self.symbol.kind,
            "parity": self.parity,
            "rows": [row_of(case) for case in self.symbol.cases],
            "notes": self.notes,
            "not_compared": self.reason,
            **self.tally.as_data(),
        }


def row_of(case: Case) -> dict[str, Any]:
    """What the catalog says about one row, for JSON."""
    return {
        "when": case.describe(),
        "new": case.new,
        "registry": case.registry,
        "parity": case.parity if case.new else "none",
        "domain": case.domain,
        "deviations": list(case.deviations),
        "reason": case.reason,
    }


def number(value: float | None) -> str:
    """A deviation in few characters."""
    if value is None:
        return "∞"
    return "0" if value == 0 else f"{value:.1e}"


def ratio(value: float | None) -> str:
    """A ratio in few characters."""
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


def successors(entry: Mapping[str, Any]) -> str:
    """The bare names of the successors."""
    return ", ".join(dict.fromkeys(str(row["new"]).rpartition(".")[2] for row in entry["rows"] if row["new"]))


COLUMNS = ("old symbol", "successor", "parity", "dtype", "numbers", "value", "gradient", "state", "time", "memory")


def table_rows(entries: Iterable[Mapping[str, Any]]) -> Sequence[tuple[str, ...]]:
    """The table of the report, one row per symbol and dtype."""
    rows = []
    for entry in entries:
        head = (entry["old"], successors(entry) or "none", entry["parity"])
        found: Mapping[str, Mapping[str, float | None]] = entry["largest_deviation"] or {"-": {}}
        for dtype, worst in found.items():
            kinds = [number(worst[kind]) if worst else "-" for kind in KINDS]
            costs = [ratio(entry["time_ratio"]), ratio(entry["memory_ratio"])]
            rows.append((*head, dtype, str(entry["numbers"]), *kinds, *costs))
    return rows
