"""Two recorded runs, call by call: what deviates, where it begins, and what only follows from that."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..catalog import MISSING, Catalog
from ..translate import translate
from .log import Call, Entry, Log, Site
from .pairing import LOSS, Names, names_of, pair_logs, pair_sites

__all__ = ["AMPLIFIED", "TOLERANCES", "Event", "Natural", "Place", "Result", "compare_logs", "natural_drift"]

TOLERANCES = {"float64": 1e-10, "float32": 2e-5, "float16": 5e-3, "bfloat16": 4e-2}
"""Those of ``parity``, by name; a test compares them."""
AMPLIFIED = 50.0
"""A value may deviate so many times as much as what went in, before the loss itself is held to be the cause."""
JUMP = 10.0
"""Inputs that deviate more than so many times the drift so far have changed by more than drift."""
KEPT = 50
"""Events of a place that are kept; the rest follows from the first ones."""


@dataclass
class Event:
    """Something that differs at one call."""

    kind: str
    """``value``, ``state``, ``gradient``: the loss itself; ``input``, ``changed``: before the call; ``use``: after it;
    ``raised``; ``calls``."""
    place: Place
    call: int
    order: int
    what: str
    size: float
    cause: bool = True
    origin: Event | None = None
    """Where the cause of a consequence lies."""
    after: str = ""
    """The last call before it that agrees, and where random draws part."""
    flags: str = ""
    """Of the old call: ``no_grad``, ``inference``, ``eval``."""
    hint: str = ""
    """In what the two objects differ."""

    @property
    def where(self) -> str:
        """The place and the call."""
        return f"{self.place.label}, call {self.call + 1}"


@dataclass
class Place:
    """A place of construction on both sides, and what its calls showed."""

    old: Site | None
    new: Site | None
    names: Names = field(default_factory=Names)
    rank: str = ""
    compared: int = 0
    value: float = 0.0
    gradient: float = 0.0
    state: float = 0.0
    drift: float = 0.0
    unknown: int = 0
    """Numbers that are not finite on both sides."""
    events: list[Event] = field(default_factory=list)
    curve: list[tuple[int, float, float, float]] = field(default_factory=list)
    """Call, old loss, new loss, deviation."""
    tolerance: float = TOLERANCES["float32"]
    costs: list[tuple[float, float]] = field(default_factory=list)
    written: tuple[dict[str, Any], dict[str, Any]] = field(default_factory=lambda: ({}, {}))
    """Attributes that were written after the construction, old and new."""

    @property
    def label(self) -> str:
        """The old place in words."""
        site = self.old or self.new
        assert site is not None
        name = site.what.rpartition(".")[2]
        nth = f" (no. {site.data['nth'] + 1} there)" if site.data.get("nth") else ""
        return f"{name} at {site.place}{nth}{f', rank {self.rank}' if self.rank else ''}"

    @property
    def first(self) -> Event | None:
        """The first call that deviates."""
        return min(self.events, key=lambda event: event.order, default=None)

    @property
    def verdict(self) -> str:
        """``equal``, ``drift``, ``deviates``, ``follows`` (a consequence), ``not finite``, ``not compared``."""
        if any(event.cause for event in self.events):
            return "deviates"
        if self.events:
            return "follows"
        if self.old is None or self.new is None or not self.compared:
            return "not compared"
        if self.unknown and not any(math.isfinite(old) for _, old, _, _ in self.curve):
            return "not finite"
        return "drift" if self.value > self.tolerance else "equal"


@dataclass
class Result:
    """All places of all processes."""

    places: list[Place] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def events(self) -> list[Event]:
        """All events in the order in which they happened."""
        return sorted((e for place in self.places for e in place.events), key=lambda event: event.order)

    @property
    def causes(self) -> list[Event]:
        """Those that nothing before explains."""
        return [event for event in self.events if event.cause]


def deviation(old: Entry, new: Entry, *, norm_only: bool = False) -> tuple[float, bool]:
    """How far two entries are apart, and whether they hold what is no number on both sides."""
    if old.kind == "x" or new.kind == "x":
        same = old.kind == new.kind and (old.dtype == new.dtype)
        return (0.0 if same or old.role != "in" else math.inf), False
    a, b = np.asarray(old.values, float), np.asarray(new.values, float)
    if old.kind == "k" or new.kind == "k":
        return (0.0 if a[0] == b[0] else math.inf), False
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        both = bool(np.isfinite(a[:1]).all() == np.isfinite(b[:1]).all())
        same = both and (math.isnan(a[0]) == math.isnan(b[0])) and (math.isnan(a[0]) or a[0] == b[0])
        return (0.0 if same else math.inf), bool(same)
    if old.kind == "v" and new.kind == "v":
        return float(abs(b[0] - a[0]) / (1 + abs(a[0]))), False
    if len(a) == 1 or len(b) == 1 or norm_only:
        return float(abs(b[0] - a[0]) / max(abs(a[0]), abs(b[0]), 1e-30)), False
    # the mean square of the projections of the difference is its squared length, in the mean
    length = math.sqrt(float(np.mean((b[1:] - a[1:]) ** 2)))
    gap = max(length, abs(float(b[0] - a[0])))
    return gap / max(float(a[0]), float(b[0]), 1e-30), False


def _tolerance(call: Call) -> float:
    found = [TOLERANCES[e.dtype] for e in call.entries if e.role in ("in", "out") and e.dtype in TOLERANCES]
    tensors = [TOLERANCES[e.dtype] for e in call.entries if e.role == "in" and e.kind in "pn" and e.dtype in TOLERANCES]
    found = tensors or found
    found += [TOLERANCES[flag[9:]] for flag in call.flags.split() if flag[9:] in TOLERANCES]
    return max(found, default=TOLERANCES["float32"])


def _loss(entries: dict[str, Entry]) -> str | None:
    return next((name for name in LOSS if name in entries and entries[name].kind != "x"), None)


def built_otherwise(place: Place) -> list[str]:
    """Arguments of the new constructor that are not what the catalog makes of the old ones."""
    symbol, case = place.names.symbol, place.names.case
    if symbol is None or case is None or place.old is None or place.new is None or symbol.kind != "class":
        return []
    old, new = place.old.data.get("given"), place.new.data.get("given")
    if old is None or new is None:
        return []
    try:
        found, wanted = translate(symbol, (), old)
    except ValueError:
        return []
    if found.new != case.new:
        return [f"the catalog leads to {found.new} for these arguments"]
    said = []
    for name, value in wanted.items():
        if isinstance(value, dict) or isinstance(new.get(name), dict):
            continue
        if name not in new:
            pinned = name in case.pins or any(
                a.new_name == name and a.pin is not MISSING for a in case.arguments.values()
            )
            said.append(f"{name} is left out, the catalog {'pins' if pinned else 'says'} {value!r}")
        elif _listed(new[name]) != _listed(value):
            said.append(f"{name}={new[name]!r}, the catalog says {value!r}")
    return said


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def written_otherwise(place: Place) -> list[str]:
    """Attributes that one side has written after the construction, and the other has not, or otherwise."""
    old, new = place.written
    case = place.names.case
    said = []
    for name, value in old.items():
        other = name
        if case is not None and name not in case.arguments and name not in case.members:
            continue  # what the loss has computed itself
        if case is not None:
            argument = case.arguments.get(name)
            member = case.members.get(name)
            other = member if isinstance(member, str) else argument.new_name if argument is not None else name
        if other in new and new[other] != value:
            said.append(f"{name} was set to {value!r} before the migration, {other} to {new[other]!r} after it")
        elif other not in new and name != "training":
            said.append(f"{name} was set to {value!r} before the migration only")
    return said


Natural = dict[tuple[object, ...], list[tuple[int, float]]]
"""Place -> (call, deviation of the inputs) in a run that was nudged."""
AHEAD = 4


def _key(site: Site, rank: str) -> tuple[object, ...]:
    return site.data["file"], site.data["line"], site.data["nth"], site.what, rank


class _Walk:
    """One pair of processes."""

    def __init__(
        self, old: Log, new: Log, trees: tuple[Path, Path], catalog: Catalog, natural: Natural | None = None
    ) -> None:
        pairs, alone, extra = pair_sites(old.sites, new.sites, trees, catalog)
        rank = str(old.header.get("rank", ""))
        self.places = [Place(a, b, names_of(catalog, a.what, b.what, a.data.get("given")), rank) for a, b in pairs]
        self.alone = [Place(a, None, rank=rank) for a in alone] + [Place(None, b, rank=rank) for b in extra]
        self.drift = 0.0
        self.natural = natural or {}
        self.states: dict[int, tuple[dict[str, Entry], dict[str, Entry]]] = {}
        self.last = ""
        self.parted: tuple[int, str] | None = None
        self.events: list[Event] = []

    def run(self) -> list[Place]:
        """Compare all calls, in the order of the old run."""
        pairs: list[tuple[Call, Call, Place]] = []
        for place in self.places:
            assert place.old is not None
            assert place.new is not None
            others = {call.number: call for call in place.new.calls}
            inner = any(call.outer is not None for call in place.old.calls)
            for call in place.old.calls:
                other = others.get(call.number)
                if other is not None:
                    pairs.append((call, other, place))
            if place.old.total != place.new.total and not inner:
                self._count(place)
        pairs.sort(key=lambda pair: pair[0].order)
        for old, new, place in pairs:
            self._call(old, new, place)
        for place in self.alone:
            self._alone(place)
        self._causes()
        parted = self.parted = self._draws(pairs)
        for event in self.events:
            if event.cause and event.kind in ("input", "changed") and parted and parted[0] <= event.order:
                event.after += f"; the random draws of torch part {parted[1]}"
        return [*self.places, *self.alone]

    def _draws(self, pairs: Sequence[tuple[Call, Call, Place]]) -> tuple[int, str] | None:
        """Where torch's generator first stands elsewhere."""
        marks = [(a.order, a.random, b.random, f"in the call of {p.label}") for a, b, p in pairs]
        for place in self.places:
            if place.old is not None and place.new is not None and "rng" in place.old.data and "rng" in place.new.data:
                rng = place.old.data["rng"], place.new.data["rng"]
                marks.append((place.old.data["q"], rng[0], rng[1], f"in the construction of {place.label}"))
        marks.sort(key=lambda mark: mark[0])
        for order, old, new, where in marks:
            if old is None or new is None or list(old) == list(new):
                continue
            return order, where if old[0] == new[0] else where.replace("in the", "before the", 1)
        return None

    def _count(self, place: Place) -> None:
        assert place.old is not None
        assert place.new is not None
        a, b = place.old.total, place.new.total
        longer = place.old if a > b else place.new
        order = next((call.order for call in longer.calls if call.number >= min(a, b)), 1 << 60)
        self._event("calls", place, min(a, b), order, f"{a} call{'s' * (a != 1)} before, {b} after", math.inf)

    def _alone(self, place: Place) -> None:
        site = place.old or place.new
        assert site is not None
        if site.total:
            side = "only before the migration" if place.old else "only after the migration"
            order = site.calls[0].order if site.calls else 1 << 60
            self._event("calls", place, 0, order, f"{site.total} call{'s' * (site.total > 1)}, {side}", math.inf)

    def _event(self, kind: str, place: Place, call: int, order: int, what: str, size: float, *more: str) -> None:
        flags, hint = (*more, "", "")[:2]
        event = Event(kind, place, call, order, what, size, after=self.last, flags=flags, hint=hint)
        if len(place.events) < KEPT:
            place.events.append(event)
            self.events.append(event)

    def _call(self, old: Call, new: Call, place: Place) -> None:
        place.compared += 1
        if math.isfinite(old.seconds) and math.isfinite(new.seconds):
            place.costs.append((old.seconds, new.seconds))
        if bool(old.raised) != bool(new.raised):
            side = f"before: {old.raised}" if old.raised else f"after: {new.raised}"
            self._event("raised", place, old.number, old.order, f"raises only {side}", math.inf)
            return
        limit = place.tolerance = _tolerance(old)
        place.written[0].update(old.attributes)
        place.written[1].update(new.attributes)
        came, changed = self._inputs(old, new, place), self._state(old, new, place, "before")
        allowed = max(limit, JUMP * self.drift, JUMP * self._natural(place, old.number))
        differs = self._before(old, place, came, changed, allowed)
        value = self._values(old, new, place)
        after = self._state(old, new, place, "after")
        place.state = max(place.state, after[0])
        own = max(limit, AMPLIFIED * max(came[0], changed[0]))
        if value[0] > own:
            self._event("value", place, old.number, old.order, value[1], value[0], old.flags, self._hint(place))
        elif after[0] > own:
            self._event("state", place, old.number, old.order, after[1], after[0])
        elif not differs:
            self._gradients(old, new, place, own)
            self.drift = max(self.drift, came[0], min(value[0], limit))
            place.drift = max(place.drift, value[0])
            self.last = f"{place.label}, call {old.number + 1}"

    @staticmethod
    def _hint(place: Place) -> str:
        """In what the two objects differ from what the catalog makes of the old one."""
        return "; ".join([*built_otherwise(place), *written_otherwise(place)])

    def _natural(self, place: Place, number: int) -> float:
        """How far the program itself carries rounding up to a call (and some calls on: it need not be in step)."""
        assert place.old is not None
        known = self.natural.get(_key(place.old, place.rank), [])
        return max((size for call, size in known if call <= number + AHEAD), default=0.0)

    def _before(
        self, old: Call, place: Place, came: tuple[float, str], changed: tuple[float, str], allowed: float
    ) -> bool:
        """Whether what the loss starts from has changed by more than drift."""
        for kind, (size, name) in (("input", came), ("changed", changed)):
            if size > allowed:
                self._event(kind, place, old.number, old.order, name, size)
                return True
        return False

    def _pairs(self, old: Call, new: Call, place: Place) -> Iterator[tuple[str, Entry, Entry]]:
        olds, news = old.of("in"), new.of("in")
        used = set()
        for name, entry in olds.items():
            head = name.partition(".")[0]
            other = place.names.input(name)
            if head in place.names.moved or (place.names.inputs is not None and other is None):
                continue
            if other in news:
                used.add(other)
                yield name, entry, news[other]
            elif entry.kind != "x" and not (entry.kind == "v" and len(olds) != len(news)):
                # an argument by position under another name: the next tensor of the same shape
                found = next((n for n, e in news.items() if n not in used and e.shape == entry.shape), None)
                if found is not None:
                    used.add(found)
                    yield name, entry, news[found]

    def _inputs(self, old: Call, new: Call, place: Place) -> tuple[float, str]:
        worst = (0.0, "")
        for name, a, b in self._pairs(old, new, place):
            size, unknown = deviation(a, b)
            place.unknown += unknown
            if size > worst[0]:
                worst = (size, f"argument {name!r}")
        return worst

    def _values(self, old: Call, new: Call, place: Place) -> tuple[float, str]:
        olds, news = old.of("out"), new.of("out")
        a, b = _loss(olds), _loss(news)
        worst = (0.0, "")
        lost = a is not None and b is not None and not np.isfinite([*olds[a].values, *news[b].values]).any()
        for name, entry in olds.items():
            other = b if name == a else place.names.result(name)
            if entry.kind == "x" or other is None:
                continue
            if other not in news:
                continue  # metrics that are not asked for; whoever reads them is told at once
            size, unknown = deviation(entry, news[other])
            if lost and name != a and not np.isfinite(news[other].values).all():
                size, unknown = 0.0, True  # a metric of values that are not finite: nothing is known of it
            place.unknown += unknown
            if name != a and news[other].dtype == "float32" and size <= TOLERANCES["float32"]:
                continue  # metrics are single numbers whatever the input
            if size > worst[0] and (worst[1] != "the loss" or worst[0] <= place.tolerance):
                worst = (size, "the loss" if name == a else f"result {name!r}")
        if a is not None and b is not None:
            x, y = (float(entries[name].values[0]) for entries, name in ((olds, a), (news, b)))
            place.curve.append((old.number, x, y, abs(y - x) / (1 + abs(x))))
        place.value = max(place.value, worst[0])
        return worst

    def _state(self, old: Call, new: Call, place: Place, role: str) -> tuple[float, str]:
        """Compare what both sides hold now; entries are written when they change."""
        known = self.states.setdefault(id(place), ({}, {}))
        fresh = old.of(role), new.of(role)
        known[0].update(fresh[0])
        known[1].update(fresh[1])
        if not fresh[0] and not fresh[1]:
            return 0.0, ""
        worst = (0.0, "")
        for name, entry in known[0].items():
            others, norm = place.names.state(name)
            for other in others:
                if other in known[1] and (name in fresh[0] or other in fresh[1]):
                    size, _ = deviation(entry, known[1][other], norm_only=norm)
                    if size > worst[0]:
                        worst = (size, f"state {name!r}")
        return worst

    def _gradients(self, old: Call, new: Call, place: Place, own: float) -> None:
        """Gradients that arrive at the loss, then those that it hands on."""
        found = self._arrivals(old, new, place)
        for role, kind in (("out", "use"), ("in", "gradient")):
            for order, size, shown in found[role]:
                if role == "in":
                    place.gradient = max(place.gradient, size)
                if size > 10 * own:
                    self._event(kind, place, old.number, order, shown, size)
                    return

    def _arrivals(self, old: Call, new: Call, place: Place) -> dict[str, list[tuple[int, float, str]]]:
        """When, how far apart and where the gradients of a call arrived.

        Other entries of an old result are left out: they may be links of the chain that makes the loss.
        """
        numbers = {(entry.role, entry.name): number for number, entry in enumerate(new.entries)}
        loss = _loss(old.of("out")), _loss(new.of("out"))
        inputs = {a.name: b.name for _, a, b in self._pairs(old, new, place)}
        found: dict[str, list[tuple[int, float, str]]] = {"out": [], "in": []}
        for number, (order, value) in old.gradients.items():
            entry = old.entries[number]
            other = inputs.get(entry.name) if entry.role == "in" else loss[1] if entry.name == loss[0] else None
            at = numbers.get((entry.role, other)) if other is not None else None
            if at is None:
                continue
            size = self._gap(value, new.gradients.get(at, (0, 0.0))[1], place)
            what = "the loss" if entry.role == "out" else f"argument {entry.name!r}"
            found[entry.role].append((order, size, f"the gradient that arrives at {what}"))
        return found

    @staticmethod
    def _gap(old: float, new: float, place: Place) -> float:
        if math.isfinite(old) and math.isfinite(new):
            return abs(new - old) / max(abs(old), abs(new), 1e-12)
        place.unknown += 1
        return 0.0 if str(old) == str(new) else math.inf

    def _causes(self) -> None:
        """The first event is a cause; a later one is, too, if the loss deviates by itself."""
        self.events.sort(key=lambda event: event.order)
        first = self.events[0] if self.events else None
        for event in self.events:
            if event is first or event.kind == "value":
                continue
            event.cause, event.origin = False, first
        if first is not None:
            self._own_values(first)

    def _own_values(self, first: Event) -> None:
        """Of the values that deviate at one place, the first says it; the later ones follow from it."""
        seen: set[int] = set()
        for event in self.events:
            if event is first or event.kind != "value":
                seen.add(id(event.place)) if event.kind == "value" else None
                continue
            if id(event.place) in seen:
                event.cause, event.origin = False, first
            seen.add(id(event.place))


def natural_drift(old: Sequence[Log], nudged: Sequence[Log], tree: Path, catalog: Catalog) -> Natural:
    """How far the inputs of each place are carried in a run whose gradients were nudged."""
    found: Natural = {}
    for a, b in pair_logs(old, nudged):
        if a is None or b is None:
            continue
        walk = _Walk(a, b, (tree, tree), catalog)
        for place in walk.places:
            assert place.old is not None
            assert place.new is not None
            others = {call.number: call for call in place.new.calls}
            pairs = [(call, others[call.number]) for call in place.old.calls if call.number in others]
            found[_key(place.old, place.rank)] = [
                (call.number, max(walk._inputs(call, other, place)[0], walk._state(call, other, place, "before")[0]))
                for call, other in pairs
            ]
    return found


def compare_logs(
    old: Sequence[Log],
    new: Sequence[Log],
    trees: tuple[Path, Path],
    catalog: Catalog,
    natural: Natural | None = None,
) -> Result:
    """Compare two runs, process by process."""
    result = Result()
    for a, b in pair_logs(old, new):
        if a is not None and b is not None:
            walk = _Walk(a, b, trees, catalog, natural)
            result.places += walk.run()
            if walk.parted is not None:
                result.notes.append(f"the random draws of torch part {walk.parted[1]}")
        else:
            log = a or b
            assert log is not None
            side = "before the migration" if a else "after it"
            result.notes.append(f"process {log.header.get('argv')} met losses only {side}")
            places = [Place(site, None) if a else Place(None, site) for site in log.sites if not site.inner]
            for place, site in zip(places, (s for s in log.sites if not s.inner), strict=True):
                if site.total:
                    place.events.append(
                        Event("calls", place, 0, 0, f"{site.total} call{'s' * (site.total > 1)}, only {side}", math.inf)
                    )
            result.places += places
    for side, logs in (("before", old), ("after", new)):
        notes: dict[str, int] = {}
        for log in logs:
            for note in log.notes:
                notes[note] = notes.get(note, 0) + 1
        result.notes += [f"{side}: {note}" + (f" ({n} times)" if n > 1 else "") for note, n in list(notes.items())[:20]]
    return result


def as_plain(value: Any) -> Any:
    """Numbers that JSON lacks become ``null`` or words."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("infinite" if value > 0 else "-infinite")
    return value
