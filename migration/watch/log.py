"""Reads what the recorder has written."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .prints import SIZE

__all__ = ["Call", "Entry", "Log", "Site", "read_logs"]


@dataclass(frozen=True)
class Entry:
    """One number or fingerprint of a call."""

    role: str
    name: str
    kind: str
    """``v`` a number, ``p`` norm and projections, ``n`` a norm, ``k`` a check sum, ``x`` no number (then ``dtype`` says
    what it was)."""
    dtype: str
    values: Any
    shape: str = ""


@dataclass
class Site:
    """A place of construction, or a place where a function is called."""

    number: int
    data: dict[str, Any]
    calls: list[Call] = field(default_factory=list)
    total: int = 0
    memory: float = math.nan

    @property
    def what(self) -> str:
        """The canonical path of the loss."""
        return str(self.data["what"])

    @property
    def place(self) -> str:
        """``file:line``."""
        return f"{self.data['file']}:{self.data['line']}"

    @property
    def inner(self) -> bool:
        """Whether another loss has built it, or called it as a function: its place is that one's."""
        return "inside" in self.data


@dataclass
class Call:
    """One call of a loss."""

    site: Site
    number: int
    order: int
    entries: list[Entry] = field(default_factory=list)
    seconds: float = math.nan
    outer: int | None = None
    random: tuple[int, int] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    flags: str = ""
    raised: str = ""
    gradients: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Number of the entry -> (when it arrived, norm)."""

    def of(self, role: str) -> dict[str, Entry]:
        """The entries of one role by name."""
        return {entry.name: entry for entry in self.entries if entry.role == role}


@dataclass
class Log:
    """What one process has done."""

    header: dict[str, Any]
    sites: list[Site] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ended: bool = False


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8", errors="replace") as handle:
        for line in handle:
            try:
                yield json.loads(line)
            except ValueError:
                continue  # the last line of a process that was killed


def _entries(names: list[list[str]], shapes: str, data: str) -> list[Entry]:
    values = np.frombuffer(base64.b64decode(data), dtype=np.float64)
    shape = iter(shapes.split(","))
    made, at = [], 0
    for role, name, kind, dtype in names:
        size = {"x": 0, "p": SIZE}.get(kind, 1)
        made.append(Entry(role, name, kind, dtype, values[at : at + size], next(shape, "") if kind in "pnk" else ""))
        at += size
    return made


class _Reader:
    def __init__(self, header: dict[str, Any]) -> None:
        self.log = Log(header)
        self.sites: dict[int, Site] = {}
        self.names: dict[int, list[list[str]]] = {}
        self.calls: dict[int, Call] = {}

    def take(self, line: dict[str, Any]) -> None:
        """Take up one line."""
        kind = line.get("k")
        if kind == "s":
            site = self.sites[line["i"]] = Site(line["i"], line)
            self.log.sites.append(site)
        elif kind == "h":
            self.names[line["i"]] = line["e"]
        elif kind == "c":
            self._call(line)
        elif kind == "g" and line["q"] in self.calls:
            number = int(line["w"].lstrip("inout"))
            value = line["v"] if "v" in line else float(np.frombuffer(base64.b64decode(line["d"]), dtype=np.float64)[0])
            # of several backward passes through one call the first is kept
            self.calls[line["q"]].gradients.setdefault(number, (line["o"], value))
        elif kind == "m" and line["s"] in self.sites:
            self.sites[line["s"]].memory = line["v"]
        elif kind == "x":
            self._trouble(line)
        elif kind == "e":
            self.log.ended = True
            for number, total in line.get("calls", {}).items():
                if int(number) in self.sites:
                    self.sites[int(number)].total = total

    def _call(self, line: dict[str, Any]) -> None:
        site = self.sites[line["s"]]
        random = (line["r"][0], line["r"][1]) if "r" in line else None
        call = Call(site, line["n"], line["q"], _entries(self.names[line["h"]], line.get("z", ""), line["d"]),
                    line["t"] / 1e6, line.get("u"), random, line.get("a", {}), line.get("f", ""))  # fmt: skip
        self._add(call)

    def _add(self, call: Call) -> None:
        self.calls[call.order] = call
        self.log.calls.append(call)
        call.site.calls.append(call)
        call.site.total = max(call.site.total, call.number + 1)

    def _trouble(self, line: dict[str, Any]) -> None:
        if "raised" in line and line["s"] in self.sites:
            text = f"{line['raised']}: {line['what']}"
            self._add(Call(self.sites[line["s"]], line["n"], line["q"], raised=text))
        else:
            self.log.notes.append(str(line.get("what", "")))


def read_log(path: Path) -> Log | None:
    """One file; ``None`` if not even its first line is whole."""
    lines = _lines(path)
    header = next(lines, None)
    if header is None or header.get("k") != "p":
        return None
    reader = _Reader(header)
    for line in lines:
        reader.take(line)
    reader.log.calls.sort(key=lambda call: call.order)
    return reader.log


def read_logs(folder: Path) -> list[Log]:
    """All processes of a run, in the order in which they started."""
    found = [read_log(path) for path in sorted(folder.glob("*.jsonl"))]
    return [log for log in found if log is not None]
