"""``training-losses verify``: the user's command before and after the migration, compared call by call."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..catalog import Catalog
from .command import Ran, run_command
from .inforce import catalogs_in_force, targets
from .judge import Event, Place, Result, compare_logs, natural_drift
from .log import Log, read_logs
from .printed import Difference, differences, unsteady
from .process import environment, prepare
from .tree import copies, copy_tree, moved

__all__ = ["FAILED", "OK", "STATED", "Options", "Session", "VerifyError", "run_verify"]

OK, DEVIATES, FAILED = 0, 1, 2
NUDGE = 1e-6
"""About what two orders of the same sums differ by, relative, in float32."""
POINTS = 400
"""Points of a curve in the report."""
STATED = "fixed"
"""The parity of rows whose deviations are stated without a domain."""


class VerifyError(RuntimeError):
    """The comparison could not be made; the message says why."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    path: Path
    command: Sequence[str]
    numbers: str = "documented"
    in_place: bool = False
    repeat: int = 1
    catalogs: Sequence[Path] = ()
    timeout: float | None = None
    outside_domain: bool = False
    quiet: bool = False


@dataclass
class _Run:
    """One run of the command."""

    tree: Path
    ran: Ran
    logs: list[Log] = field(default_factory=list)


class Session:
    """The steps of one verification."""

    def __init__(self, options: Options, scratch: Path) -> None:
        self.options = options
        self.scratch = scratch
        self.root = options.path.resolve()
        self.catalog: Catalog = catalogs_in_force(options.catalogs)
        self.runs: list[_Run] = []
        self.codemod: dict[str, Any] = {"files": 0, "left": []}
        self.wrote = False

    def say(self, text: str) -> None:
        """Progress, on the error output."""
        if not self.options.quiet:
            from ..console import say

            say(f"verify: {text}", stderr=True)

    def run(self, tree: Path, name: str, nudge: float = 0.0) -> _Run:
        """Run the command on ``tree`` with the recorder.

        Raises:
            VerifyError: it cannot be started, or takes too long.
        """
        folder = self.scratch / f"log-{name}"
        prepare(folder, tree, targets(self.catalog), nudge=nudge)
        here = Path.cwd().resolve()
        inside = here.relative_to(self.root) if here.is_relative_to(self.root) else Path()
        words = moved(self.options.command, self.root, tree)
        with _live(folder, name, self.options.quiet) as tick:
            try:
                ran = run_command(
                    words, tree / inside, environment(folder), tick=tick, timeout=self.options.timeout
                )  # fmt: skip
            except OSError as error:
                raise VerifyError(f"{words[0]!r} cannot be run: {error.strerror or error}") from error
        made = _Run(tree, ran, read_logs(folder))
        calls = sum(site.total for log in made.logs for site in log.sites if not site.inner)
        self.say(f"{name}: {calls} calls of losses, {ran.seconds:.1f} s")
        return made

    def old(self, tree: Path, again: Sequence[Path] = ()) -> None:
        """Run the command before the migration, more than once if asked for.

        Raises:
            VerifyError: it fails, or meets no loss.
        """
        for number, place in enumerate([tree, *again]):
            made = self.run(place, "before" if not number else f"before, run {number + 1}")
            if made.ran.code:
                tail = (made.ran.output + made.ran.errors).strip()[-2000:]
                raise VerifyError(f"COMMAND {made.ran.ending()} before anything was migrated:\n{tail}")
            self.runs.append(made)
        if not any(site.total for log in self.runs[0].logs for site in log.sites):
            raise VerifyError(
                "COMMAND called no loss that the catalogs name, so there is nothing to compare"
                + ("" if self.runs[0].logs else " (it started no Python that sees this project)")
            )

    def migrate(self, tree: Path) -> None:
        """Write the migration of ``tree``.

        Raises:
            VerifyError: the codemod fails.
        """
        from ..codemod.cli import main as codemod

        words = [str(tree), "--write", "--force", "--format", "json", "--numbers", self.options.numbers]
        words += [word for file in self.options.catalogs for word in ("--catalog", str(file))]
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            code = codemod(words)
        if code == FAILED:
            raise VerifyError(f"the codemod failed:\n{output.getvalue()[-2000:]}")
        self.took(json.loads(output.getvalue()) if output.getvalue().startswith("{") else {}, tree)

    def took(self, report: dict[str, Any], tree: Path) -> None:
        """Keep what the codemod has reported."""
        self.wrote = True
        findings = report.get("findings", [])
        left = [finding for finding in findings if finding["level"] == "left"]
        names = {finding["path"] for finding in findings if finding["level"] == "change"}
        self.codemod = {
            "files": len(names),
            "left": [f"{os.path.relpath(f['path'], tree)}:{f['line']}: {f['code']} {f['message']}" for f in left[:20]],
        }
        self.say(f"migrated: {len(names)} files change, {len(left)} places are left")

    def new(self, tree: Path) -> dict[str, Any]:
        """Run the command after the migration and compare.

        Raises:
            VerifyError: it was killed.
        """
        made = self.run(tree, "after")
        if made.ran.code < 0:
            raise VerifyError(f"COMMAND {made.ran.ending()} after the migration")
        self.runs.append(made)
        return self.report()

    def report(self) -> dict[str, Any]:
        """The comparison as plain data, for all ways to show it."""
        first, last = self.runs[0], self.runs[-1]
        trees = self.lines_of(first), last.tree
        result = compare_logs(first.logs, last.logs, trees, self.catalog)
        steady, ignored = self._repeated()
        if _perhaps_drift(result) and not last.ran.code and steady["deterministic"] is not False:
            self.say("inputs part after rounding: the old program runs once more with its gradients nudged")
            nudged = self.run(first.tree, "nudged", nudge=NUDGE)
            natural = natural_drift(first.logs, nudged.logs, first.tree, self.catalog)
            result = compare_logs(first.logs, last.logs, trees, self.catalog, natural)
            ignored |= unsteady(first.ran.output, nudged.ran.output, (str(first.tree), str(nudged.tree)))
        printed = self._printed(first, last, ignored)
        code, verdict = self._verdict(result, printed, last, steady)
        return {
            "command": list(self.options.command),
            "path": str(self.options.path),
            "verdict": verdict[0],
            "exit_code": code,
            "message": verdict[1],
            "places": [self._place(place) for place in result.places if _worth(place)],
            "printed": [vars(difference) for difference in printed],
            "repeat": steady,
            "notes": [*result.notes, *_prints_note(first, last)],
            "codemod": self.codemod,
            "runs": {
                name: {"seconds": round(run.ran.seconds, 3), "exit_code": run.ran.code, "printed_bytes": run.ran.size}
                for name, run in (("before", first), ("after", last))
            },
            "made": time.strftime("%Y-%m-%d %H:%M"),
        }

    def lines_of(self, run: _Run) -> Path:
        """Where the files of a run still are as they were then."""
        kept = self.scratch / "kept"
        return kept if kept.is_dir() else run.tree

    def _repeated(self) -> tuple[dict[str, Any], set[int]]:
        """Whether the old program is the same twice, and which lines it prints differently."""
        befores = self.runs[:-1]
        found: dict[str, Any] = {"runs": len(befores), "deterministic": None, "first": ""}
        ignored: set[int] = set()
        for other in befores[1:]:
            result = compare_logs(befores[0].logs, other.logs, (befores[0].tree, other.tree), self.catalog)
            roots = (str(befores[0].tree), str(other.tree))
            ignored |= unsteady(befores[0].ran.output, other.ran.output, roots)
            found["deterministic"] = found["deterministic"] is not False and not result.events
            if result.events and not found["first"]:
                found["first"] = f"{result.events[0].what} of {result.events[0].where}"
        return found, ignored

    def _printed(self, first: _Run, last: _Run, ignored: set[int]) -> list[Difference]:
        return differences(first.ran.output, last.ran.output, (str(first.tree), str(last.tree)), ignored)

    def _verdict(
        self, result: Result, printed: list[Difference], last: _Run, steady: dict[str, Any]
    ) -> tuple[int, tuple[str, str]]:
        causes = [event for event in result.causes if not self._stated(event)]
        calls = sum(place.compared for place in result.places)
        drifts = [place for place in result.places if place.verdict == "drift"]
        known = [event for event in result.causes if self._stated(event)]
        unknown = sum(place.unknown for place in result.places)
        tail = f"; {unknown} numbers are not finite on both sides, so nothing is known of them" if unknown else ""
        if steady["deterministic"] is False and (causes or printed):
            text = (
                f"the program is not the same twice by itself: {steady['first']}. The migration cannot be judged by it"
            )
            return FAILED, ("not deterministic", text + tail)
        if last.ran.code:
            errors = last.ran.errors.strip().splitlines()
            begins = f"; it begins at {causes[0].where}" if causes else f"; all {calls} calls up to there agree"
            text = f"COMMAND {last.ran.ending()} after the migration: {errors[-1] if errors else 'no message'}{begins}"
            return DEVIATES, ("fails", text + tail)
        if causes:
            return DEVIATES, ("deviates", f"it begins at {causes[0].where}: {explain(causes[0])}{tail}")
        if printed and not known:
            one = printed[0]
            text = f"all {calls} calls agree, but line {one.line} of the output differs: {one.old!r} -> {one.new!r}"
            return DEVIATES, ("prints differ", text + tail)
        if known:
            return OK, ("as stated", f"all else agrees; {known[0].where} deviates as the catalog states{tail}")
        if drifts:
            worst = max(drifts, key=lambda place: place.value)
            text = f"all {calls} calls agree up to drift, which grows smoothly to {worst.value:.1e} at {worst.label}"
            return OK, ("drift", text + tail)
        return OK, ("equal", f"all {calls} calls agree{tail}")

    def _stated(self, event: Event) -> bool:
        case = event.place.names.case
        if case is None or event.kind not in ("value", "state", "gradient", "raised"):
            return False
        if not event.hint and _outside(case.outside, event.flags):
            return True
        return case.parity == STATED or (self.options.outside_domain and case.parity == "documented")

    def _explain(self, event: Event) -> str:
        return explain(event) + self._documented(event)

    def _documented(self, event: Event) -> str:
        case = event.place.names.case
        if case is None or event.kind not in ("value", "state", "gradient") or not event.cause:
            return ""
        said = "; ".join(case.deviations)
        if event.hint:
            return ""
        if _outside(case.outside, event.flags):
            return f" Such a call ({event.flags}) lies outside the domain, where the catalog states: {said}"
        if case.parity == STATED:
            return f" The catalog states for this row (fixed): {said}"
        domain = f" Old and new agree within the domain: {case.domain}. Outside of it: {said}." if case.domain else ""
        return domain + (" If your data lie outside the domain, that is known: add --outside-domain" if domain else "")

    def _place(self, place: Place) -> dict[str, Any]:
        site = place.old or place.new
        assert site is not None
        first = place.first
        step = max(1, math.ceil(len(place.curve) / POINTS))
        times = [b / a for a, b in place.costs[1:] if a > 0]
        memory = place.new.memory / place.old.memory if place.old and place.new and place.old.memory else math.nan
        return {
            "label": place.label,
            "file": site.data["file"],
            "line": site.data["line"],
            "nth": site.data.get("nth", 0),
            "code": site.data.get("code", ""),
            "old": place.old.what if place.old else None,
            "new": place.new.what if place.new else None,
            "new_line": place.new.data["line"] if place.new else None,
            "rank": place.rank,
            "verdict": "as stated" if first and first.cause and self._stated(first) else place.verdict,
            "calls": [place.old.total if place.old else 0, place.new.total if place.new else 0],
            "compared": place.compared,
            "value": _plain(place.value),
            "gradient": _plain(place.gradient),
            "state": _plain(place.state),
            "tolerance": place.tolerance,
            "not_finite": place.unknown,
            "first": None if first is None else self._event(first),
            "time_ratio": _plain(statistics.median(times)) if times else None,
            "memory_ratio": _plain(memory),
            "seconds": [_plain(sum(column)) for column in zip(*place.costs, strict=True)] if place.costs else [],
            "curve": [[n, *map(_plain, rest)] for n, *rest in place.curve[::step]],
        }

    def _event(self, event: Event) -> dict[str, Any]:
        return {
            "kind": event.kind,
            "call": event.call + 1,
            "what": event.what,
            "size": _plain(event.size),
            "cause": event.cause,
            "text": self._explain(event),
        }


def _perhaps_drift(result: Result) -> bool:
    """Whether the first thing that differs is the input of a loss, after all losses have agreed up to rounding."""
    first = next(iter(result.causes), None)
    if first is None or first.kind not in ("input", "changed") or not first.after:
        return False
    small = [max(place.drift, place.gradient, place.state) for place in result.places]
    return max(small, default=0.0) > 0 and math.isfinite(first.size)


def _worth(place: Place) -> bool:
    """Places that were built and never called are not listed."""
    return any(site is not None and site.total for site in (place.old, place.new))


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _prints_note(first: _Run, last: _Run) -> list[str]:
    if first.ran.complete and last.ran.complete:
        return []
    return [f"of {first.ran.size} and {last.ran.size} printed bytes only the beginning was compared"]


def _outside(kinds: Sequence[str], flags: str) -> bool:
    """Whether a call with ``flags`` is of one of the kinds that lie outside a domain."""
    found = set(flags.replace("inference", "no_grad").split())
    return bool(found.intersection(kinds))


def explain(event: Event) -> str:
    """One event in words: whether the loss is the cause, or where the cause lies."""
    size = f" ({event.size:.1e})" if math.isfinite(event.size) else ""
    if not event.cause and event.origin is not None:
        return f"{event.what} differs{size}: this follows from {event.origin.where}"
    since = f" Since {event.after}" if event.after else " Since the start"
    texts = {
        "value": f"{event.what} differs{size} although all that went in was equal: this loss is the cause."
        + (f" The two objects differ: {event.hint}." if event.hint else ""),
        "state": f"{event.what} differs{size} after the call although all that went in was equal: "
        "this loss is the cause.",
        "gradient": f"{event.what} differs{size} although the values agree: the backward pass of this loss "
        "is the cause.",
        "input": f"{event.what} differs{size} and no loss before it deviates: the cause lies before this call, in the "
        f"program's own code.{since}.",
        "changed": f"{event.what} differs{size} before the call: something outside the loss has changed it, or failed "
        f"to.{since}.",
        "use": f"{event.what} differs{size} although all values of the call agree: the program does something "
        "else with the result.",
        "calls": f"{event.what}: the program makes another number of calls.",
        "raised": f"{event.what}.",
    }
    return texts[event.kind]


@contextlib.contextmanager
def _live(folder: Path, name: str, quiet: bool) -> Iterator[Any]:
    """A line on the terminal that tells how far the run is."""
    if quiet or not sys.stderr.isatty():
        yield None
        return

    def tick(seconds: float) -> None:
        size = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
        sys.stderr.write(f"\r\x1b[Kverify: {name}: {seconds:.0f} s, {size / 1024:.0f} KiB recorded")
        sys.stderr.flush()

    try:
        yield tick
    finally:
        sys.stderr.write("\r\x1b[K")


def verify(options: Options) -> dict[str, Any]:
    """Run, migrate a copy, run again, compare; the result as plain data.

    Raises:
        VerifyError: the comparison could not be made.
    """
    if not options.path.is_dir():
        raise VerifyError(f"PATH {str(options.path)!r} is no folder")
    if not options.command:
        raise VerifyError("there is no COMMAND: training-losses verify [PATH] -- COMMAND")
    with tempfile.TemporaryDirectory(prefix="losses-verify-") as scratch, _terminable():
        session = Session(options, Path(scratch))
        try:
            return _in_place(session) if options.in_place else _on_copies(session)
        except TimeoutError as error:
            raise VerifyError(f"COMMAND took too long: {error}") from error


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Whoever ends this program leaves neither copies nor a half-written tree."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _on_copies(session: Session) -> dict[str, Any]:
    names = ["before", *(f"before{number}" for number in range(2, session.options.repeat + 1)), "after"]
    with copies(session.root, names, session.scratch) as made:
        session.old(made[0], made[1:-1])
        session.migrate(made[-1])
        return session.new(made[-1])


def _in_place(session: Session) -> dict[str, Any]:
    """The same in the tree itself, which is as it was in the end."""
    from ..codemod.files import exclusive, journal_directory, undo

    copy_tree(session.root, session.scratch / "kept")
    session.old(session.root, [session.root] * (session.options.repeat - 1))
    session.migrate(session.root)
    try:
        return session.new(session.root)
    finally:
        if session.codemod["files"]:
            directory = journal_directory(session.root)
            with exclusive(directory):
                _, changed = undo(directory)
            for name in changed:
                session.say(f"{name} was changed by the run and stays migrated")


def run_verify(options: Options, *, form: str = "text", html: Path | None = None) -> int:
    """Verify and show the result. Returns 0 equal within the promise, 1 a deviation, 2 it could not be done."""
    from .show import show

    try:
        data = verify(options)
    except VerifyError as error:
        data = {"verdict": "could not run", "exit_code": FAILED, "message": str(error), "places": [], "printed": []}
    if html is not None and data["places"]:
        from .page import as_html

        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(as_html(data), encoding="utf-8")
    show(data, form, html if data["places"] else None)
    return int(data["exit_code"])
