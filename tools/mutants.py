"""Mutation test of the losses: small changes of the mathematics, each of which must fail a test.

    python tools/mutants.py [--per-module N] [--module PART] [--minimum 85] [--jobs 2] [--markdown FILE]

Changes arithmetic, comparisons, numbers, axes and reductions in ``src/training/losses``, one at a time. The tests are
imported once; every mutant is put into the loaded code of a forked process, which runs the tests of its lines until one
fails: first those that have failed for the same function, then the quickest ones of every test file.

Which test executes which line is recorded (``.nox/mutants-lines.json.gz``) and recorded again for test files that have
changed (``--record``: for all). Results are kept (``.nox/mutants.json``) under the text of the changed function: an
interrupted run goes on where it was, killed mutants stay killed, survivors run again once a test file has changed.
``--per-module N`` takes a fixed sample. Survivors that cannot change any result are listed with the reason in
``tools/mutants_equivalent.toml``.

Exit codes: 0 the killed share reaches the minimum, 1 it does not, 2 too many tests fail without any mutant.
"""

from __future__ import annotations

import argparse
import difflib
import gc
import gzip
import hashlib
import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mutation import ROOT, SOURCE, Mutant, graft, mutants

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TESTS = ["tests/unit", "tests/contract", "tests/parity"]
EXPENSIVE = ("compile", "test_demo", "test_readme", "usage_examples", "test_tools")
INTERFACE = "tests/contract/test_interface.py"
DEFAULTS = f"{INTERFACE}::test_defaults"
LONGEST = 8.0
"""Seconds: slower tests are left out."""
QUICK = 0.5
"""Seconds: slower tests come last."""
FEW = 5
"""With fewer tests of a line (it may be newer than the record) those of the function, then of the file join."""
BUDGET, MOST = 10.0, 200
"""Seconds of recorded time, and number of tests, that one mutant gets."""
MEMORY = 8 << 30
INTRODUCTION = """# Mutants of the losses

`nox -s mutants` changes the mathematics of `src/training/losses`, one place at a time (arithmetic, comparison, numbers,
axes, reductions), and runs the tests that execute the place. A change that no test notices survives. *mutants* is how
many there are, *tried* how many of them ran (less: a sample); equivalent ones cannot change a result and do not count:
`tools/mutants_equivalent.toml` says why. A first run takes two hours on one core; later ones try what has changed.

The documented bugs of the alignment losses, and slips of the same kind, are put back by `tools/mutants_alignment.py`:
see [Video alignment](../guide/alignment.md#what-was-restored-and-how-to-see-that-it-stays-so).
"""
KEPT = ROOT / ".nox"
EQUIVALENT = ROOT / "tools" / "mutants_equivalent.toml"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_bytes(data)
    os.replace(partial, path)


class Lines:
    """Which test executes which lines of which text of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        known = json.loads(gzip.decompress(path.read_bytes())) if path.exists() else {"texts": {}, "tests": {}}
        self.texts: dict[str, str] = known["texts"]
        self.tests: dict[str, dict[str, Any]] = known["tests"]

    def stale(self, test: str) -> bool:
        """Never recorded, or from another text of its test file."""
        return test not in self.tests or self.tests[test]["file"] != digest(ROOT / test.partition("::")[0])

    def take(self, test: str, seconds: float, passed: bool, lines: Mapping[str, Sequence[int]]) -> None:
        """One recorded run of a test."""
        found = {}
        for path, numbers in lines.items():
            text = Path(path).read_text(encoding="utf-8")
            known = hashlib.sha256(text.encode()).hexdigest()[:16]
            self.texts[known] = text
            found[str(Path(path).relative_to(SOURCE))] = [known, sorted(numbers)]
        file = digest(ROOT / test.partition("::")[0])
        self.tests[test] = {"file": file, "seconds": seconds, "passed": passed, "lines": found}

    def save(self) -> None:
        used = {known for test in self.tests.values() for known, _ in test["lines"].values()}
        texts = {known: text for known, text in self.texts.items() if known in used}
        write(self.path, gzip.compress(json.dumps({"texts": texts, "tests": self.tests}).encode(), 3))

    def by_line(self, module: str, now: str) -> dict[int, set[str]]:
        """Line of the present text -> tests; lines that are new since the recording have none."""
        moved: dict[str, dict[int, int]] = {}
        found: dict[int, set[str]] = defaultdict(set)
        for test, entry in self.tests.items():
            if module not in entry["lines"] or not entry["passed"]:
                continue
            known, numbers = entry["lines"][module]
            if known not in moved:
                then = self.texts[known].splitlines()
                blocks = difflib.SequenceMatcher(None, then, now.splitlines(), autojunk=False).get_matching_blocks()
                moved[known] = {b.a + i + 1: b.b + i + 1 for b in blocks for i in range(b.size)}
            for line in numbers:
                if line in moved[known]:
                    found[moved[known][line]].add(test)
        return found


# --- pytest inside this process -------------------------------------------------------------------------------------


class Runner:
    """A pytest plugin: collects once, then hands the tests to ``work``."""

    def __init__(self, work: Any) -> None:
        self.work, self.failed, self.code = work, False, 0
        self.items: dict[str, Any] = {}

    def pytest_sessionstart(self) -> None:
        """Load what every test needs. A failing example is enough, it need not be the smallest."""
        import torch
        from hypothesis import Phase, settings

        from training_losses.loss_registry import LossRegistry

        settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], database=None)
        settings.load_profile("mutants")
        torch.set_num_threads(1)
        LossRegistry.available()

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.failed |= bool(report.failed)

    def pytest_runtestloop(self, session: Any) -> bool:
        if session.testsfailed:
            self.code = 2
            return True
        self.items = {item.nodeid: item for item in session.items if not any(e in item.nodeid for e in EXPENSIVE)}
        self.code = self.work(self)
        return True

    def run(self, tests: Sequence[str]) -> Iterator[tuple[str, bool, float]]:
        """Test, whether it passed, seconds."""
        for test, following in zip(tests, [*tests[1:], None], strict=True):
            self.failed = False
            start = time.perf_counter()
            after = self.items[following] if following else None
            self.items[test].ihook.pytest_runtest_protocol(item=self.items[test], nextitem=after)
            yield test, not self.failed, time.perf_counter() - start


def forked(work: Any, seconds: float, *arguments: Any) -> tuple[int, int]:
    """Run ``work(write, ...)`` in a forked process; its id and the end of a pipe with what it wrote."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    try:
        os.close(reading)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        if seconds:
            signal.alarm(int(seconds))
        with open(writing, "w", encoding="utf-8") as pipe:
            work(pipe, *arguments)
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


def _record(pipe: Any, runner: Runner, tests: Sequence[str]) -> None:
    import coverage

    watch = coverage.Coverage(data_file=None, include=[f"{SOURCE}/*"], config_file=False)
    watch.start()
    done = []
    watch.switch_context(tests[0])
    for (test, passed, seconds), following in zip(runner.run(tests), [*tests[1:], "end"], strict=True):
        done.append((test, seconds, passed))
        watch.switch_context(following)
    watch.stop()
    lines: dict[str, dict[str, list[int]]] = defaultdict(dict)
    found = watch.get_data()
    for path in found.measured_files():
        for line, contexts in found.contexts_by_lineno(path).items():
            for context in contexts:
                lines[context].setdefault(path, []).append(line)
    for test, seconds, passed in done:
        pipe.write(json.dumps([test, seconds, passed, lines.get(test, {})]) + "\n")


def record(runner: Runner, lines: Lines, everything: bool, jobs: int) -> list[str]:
    """Record what is not known; the tests that fail."""
    due = [test for test in runner.items if everything or lines.stale(test)]
    files = sorted({test.partition("::")[0] for test in due})
    parts = [[t for t in due if files.index(t.partition("::")[0]) % jobs == job] for job in range(jobs)]
    children = [forked(_record, 0, runner, part) for part in parts if part]
    for process, reading in children:
        with open(reading, encoding="utf-8") as pipe:
            for line in pipe:
                lines.take(*json.loads(line))
        os.waitpid(process, 0)
    if due:
        lines.save()
    return [test for test in runner.items if not lines.tests.get(test, {"passed": False})["passed"]]


def _try(pipe: Any, runner: Runner, mutant: Mutant, text: str, tests: Sequence[str]) -> None:
    gc.disable()
    try:
        changed = graft(mutant, text)
    except Exception as error:
        pipe.write(f"killed\nimport: {type(error).__name__}")
        return
    if not changed:
        pipe.write("unchanged\n")
        return
    for test, passed, _ in runner.run(tests):
        if not passed:
            pipe.write(f"killed\n{test}")
            return
    pipe.write("survived\n")


# --- all mutants ----------------------------------------------------------------------------------------------------


class Chooser:
    """The tests of a mutant, the most promising ones first."""

    def __init__(self, lines: Lines, known: Iterable[str]) -> None:
        self.lines = lines
        self.usable = {t for t in known if lines.tests[t]["passed"] and lines.tests[t]["seconds"] <= LONGEST}
        self.maps: dict[str, dict[int, set[str]]] = {}
        self.killers: dict[str, Counter[str]] = defaultdict(Counter)

    def learn(self, mutant: Mutant, test: str) -> None:
        """A test has failed on a mutant."""
        self.killers[f"{mutant.module}:{mutant.inside}"][test] += 1
        self.killers[mutant.module][test] += 1

    def __call__(self, mutant: Mutant, text: str) -> list[str]:
        if mutant.module not in self.maps:
            self.maps[mutant.module] = self.lines.by_line(mutant.module, text)
        by_line = self.maps[mutant.module]
        tests: set[str] = set()
        for first, last in ((mutant.first, mutant.last), mutant.scope, (1, text.count("\n") + 1)):
            if len(tests) < FEW:
                tests |= {t for n in range(first, last + 1) for t in by_line.get(n, ())} & self.usable
        if (mutant.first, mutant.last) == mutant.scope:
            # defaults are read without executing a line
            tests |= {f"{DEFAULTS}[{name}]" for name in mutant.inside.split(".")} & self.usable
        seconds = {test: self.lines.tests[test]["seconds"] for test in tests}
        by_file: dict[str, list[str]] = defaultdict(list)
        for test in sorted(tests, key=lambda t: (seconds[t], t)):
            by_file[test.partition("::")[0]].append(test)
        interface = [test for test in tests if test.startswith(INTERFACE)]
        # the quickest of every file, the second quickest of every file, ...
        turns = [t for rank in range(max(map(len, by_file.values()), default=0)) for t in _at(by_file.values(), rank)]
        turns.sort(key=lambda test: seconds[test] > QUICK)
        known = [
            test
            for place in (f"{mutant.module}:{mutant.inside}", mutant.module)
            for test, _ in self.killers[place].most_common(8)
            if test in tests
        ]
        chosen, total = [], 0.0
        for test in dict.fromkeys([*known, *interface, *turns]):
            # a slow test makes room for many quick ones
            if len(chosen) < MOST and (not chosen or total + seconds[test] <= BUDGET):
                total += seconds[test]
                chosen.append(test)
        return chosen


def _at(lists: Iterable[list[str]], rank: int) -> list[str]:
    return [items[rank] for items in lists if rank < len(items)]


def execute(
    runner: Runner, work: Sequence[Mutant], texts: Mapping[Path, str], choose: Chooser, jobs: int
) -> Iterator[tuple[Mutant, dict[str, Any]]]:
    """Mutant and what became of it."""
    running: dict[int, tuple[Mutant, int, int, float]] = {}
    waiting = list(reversed(work))
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            tests = choose(mutant, texts[mutant.path])
            if not tests:
                yield mutant, {"status": "uncovered", "tests": 0, "seconds": 0.0}
                continue
            limit = 30 + 10 * sum(choose.lines.tests[t]["seconds"] for t in tests)
            process, reading = forked(_try, limit, runner, mutant, texts[mutant.path], tests)
            running[process] = (mutant, reading, len(tests), time.perf_counter())
        if not running:
            continue
        process, status = os.wait()
        mutant, reading, count, start = running.pop(process)
        with open(reading, encoding="utf-8") as pipe:
            word, _, test = pipe.read().partition("\n")
        result: dict[str, Any] = {"tests": count, "seconds": time.perf_counter() - start}
        if os.WIFSIGNALED(status) or os.WEXITSTATUS(status) or not word:
            # the mutant ran for ever, took all memory or broke the interpreter
            yield mutant, {"status": "killed", "by": "timeout or crash", **result}
            continue
        if word == "killed":
            choose.learn(mutant, test)
        yield mutant, {"status": word, "by": test, **result}


def equivalents() -> dict[str, str]:
    """Mutants that cannot change a result -> the reason. The line number may have moved; the text may not."""
    if not EQUIVALENT.exists():
        return {}
    entries = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("equivalent", [])
    return {mutant: entry["why"] for entry in entries for mutant in entry["mutants"]}


def summary(
    done: Sequence[tuple[Mutant, dict[str, Any]]], texts: Mapping[Path, str], found: Mapping[str, int]
) -> tuple[str, float]:
    """The table per module and the survivors, as Markdown, and the killed share in percent."""
    known = equivalents()
    count: dict[str, Counter[str]] = defaultdict(Counter)
    lists: dict[str, list[str]] = {"Survivors": [], "Equivalent": []}
    for mutant, result in done:
        code = texts[mutant.path].splitlines()[mutant.line - 1].strip()
        change = f"{mutant.before.strip()} -> {mutant.after.strip()}"
        why = known.get(f"{mutant.module} | {code} | {change}")
        word = "killed" if result["status"] == "killed" else "equivalent" if why else "survived"
        count[mutant.module][word] += 1
        if word != "killed":
            note = why or (f"{result['tests']} tests passed" if result["tests"] else "no test executes it")
            place = f"{mutant.module}:{mutant.line}:{mutant.column}"
            lists["Equivalent" if why else "Survivors"].append(f"* `{place}` `{change}` in `{code}`: {note}")
    rows = [
        "| module | mutants | tried | killed | survived | equivalent | killed share |",
        "|---|---|---|---|---|---|---|",
    ]
    total: Counter[str] = Counter()
    for module, words in [*sorted(count.items()), ("all", total)]:
        if words is not total:
            total.update(words)
        everything = found[module] if module in found else sum(found.values())
        numbers = [words["killed"], words["survived"], words["equivalent"]]
        rows.append(
            f"| {module} | {everything} | {sum(numbers)} | {' | '.join(map(str, numbers))} | {share_of(words):.1f} % |"
        )
    parts = [f"\n{title} ({len(lines)}):\n\n" + "\n".join(lines) for title, lines in lists.items() if lines]
    return "\n".join([*rows, *parts]) + "\n", share_of(total)


def share_of(words: Counter[str]) -> float:
    """Killed mutants in percent of those that are not equivalent."""
    real = words["killed"] + words["survived"]
    return 100 * words["killed"] / real if real else 100.0


def main() -> int:
    """Record, mutate, count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--per-module", type=int, default=0, metavar="N", help="a fixed sample per file; 0: all")
    parser.add_argument("--module", action="append", default=[], metavar="PART", help="files whose path has PART")
    parser.add_argument("--minimum", type=float, default=85.0, help="killed share that is asked for")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--record", action="store_true", help="record all tests again")
    parser.add_argument("--again", action="store_true", help="run survivors again")
    parser.add_argument("--kept", type=Path, default=KEPT, metavar="FOLDER", help="where record and results are kept")
    parser.add_argument("--table", action="store_true", help="run nothing, print what is known")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there as well")
    arguments = parser.parse_args()

    every = {path: mutants(path) for path in sorted(SOURCE.rglob("*.py"))}
    texts = {path: path.read_text(encoding="utf-8") for path in every}
    chosen: list[Mutant] = []
    for path, of_file in every.items():
        module = str(path.relative_to(SOURCE))
        if arguments.module and not any(part in module for part in arguments.module):
            continue
        size = arguments.per_module
        found = random.Random(module).sample(of_file, size) if 0 < size < len(of_file) else of_file
        chosen += sorted(found, key=lambda m: (m.line, m.column))
    kept = arguments.kept / "mutants.json"
    results: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    out = os.fdopen(os.dup(1), "w")

    def say(text: str) -> None:
        print(text, file=out, flush=True)

    def work(runner: Runner) -> int:
        start = time.monotonic()
        lines = Lines(arguments.kept / "mutants-lines.json.gz")
        failing = record(runner, lines, arguments.record, arguments.jobs)
        say(f"{len(runner.items)} tests known after {time.monotonic() - start:.0f} s")
        if failing:
            say(f"{len(failing)} left out, they fail without any mutant: {', '.join(failing[:5])} ...")
        if len(failing) > len(runner.items) / 20:
            return 2
        choose = Chooser(lines, runner.items)
        tests_now = hashlib.sha256("".join(sorted(lines.tests[t]["file"] for t in runner.items)).encode()).hexdigest()
        due = []
        for mutant in chosen:
            known = results.get(mutant.key)
            if known and known["status"] == "killed":
                if known["by"] in choose.usable:
                    choose.learn(mutant, known["by"])
            elif not known or arguments.again or known.get("after") != tests_now:
                due.append(mutant)
        say(f"{len(chosen)} mutants, {len(chosen) - len(due)} of them known")
        gc.collect()
        gc.freeze()  # pages of the parent stay shared
        start, saved = time.monotonic(), time.monotonic()
        for number, (mutant, result) in enumerate(execute(runner, due, texts, choose, arguments.jobs), 1):
            results[mutant.key] = {"mutant": mutant.name, **result, "after": tests_now}
            if time.monotonic() - saved > 20 or number == len(due):
                saved = time.monotonic()
                write(kept, json.dumps(results).encode())
                say(f"{number}/{len(due)} {mutant.module}, {(saved - start) / number:.2f} s each")
        return 0

    code = 0 if arguments.table else _collect(work)
    if code:
        return code
    done = [(mutant, results[mutant.key]) for mutant in chosen if mutant.key in results]
    text, share = summary(done, texts, {str(path.relative_to(SOURCE)): len(found) for path, found in every.items()})
    say(f"\n{text}\n{share:.1f} % killed (minimum {arguments.minimum:g} %)")
    if arguments.markdown:
        arguments.markdown.write_text(f"{INTRODUCTION}\n{text}", encoding="utf-8")
    return 0 if share >= arguments.minimum else 1


def _collect(work: Any) -> int:
    """Import all losses and all tests, then work."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for folder in (ROOT, ROOT / "tools" / "checkout"):
        sys.path.insert(0, str(folder))
    os.chdir(ROOT)
    import pytest

    runner = Runner(work)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    code = pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:cov", "-p", "no:xdist", *TESTS], plugins=[runner])
    return runner.code or (int(code) if int(code) not in (0, 5) else 0)


if __name__ == "__main__":
    sys.exit(main())
