"""Mutation test of the losses: small changes of the mathematics, each of which must fail a test.

    python tools/mutants.py [--per-module 8] [--module PART] [--minimum 85] [--jobs 2] [--json FILE]

Changes arithmetic, comparisons, numbers, axes and reductions in ``src/training/losses``, one at a time. First the tests
run once and record which test executes which line; then every mutant runs the tests of its line (the quickest ones of
every test file first) in a forked process that has torch loaded already. ``--per-module 0`` takes all mutants, another
number a fixed sample. Survivors that cannot change any result are listed with the reason in
``tools/mutants_equivalent.toml``.

Exit codes: 0 the killed share reaches the minimum, 1 it does not, 2 the tests fail without any mutant.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.machinery
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "training" / "losses"
TESTS = ["tests/unit", "tests/contract", "tests/parity"]
SECONDS = 60
MOST_TESTS = 80


@dataclass(frozen=True)
class Mutant:
    """One change: ``before`` at line and column becomes ``after``."""

    path: Path
    line: int
    column: int
    before: str
    after: str
    end_line: int
    end_column: int

    @property
    def name(self) -> str:
        return f"{self.path.relative_to(SOURCE)}:{self.line}:{self.column} {self.before} -> {self.after}"

    def apply(self, text: str) -> str:
        """The mutated file. Offsets of ``ast`` count bytes."""
        lines = text.encode().splitlines(keepends=True)
        start = sum(map(len, lines[: self.line - 1])) + self.column
        end = sum(map(len, lines[: self.end_line - 1])) + self.end_column
        data = text.encode()
        assert data[start:end].decode() == self.before, (self, data[start:end])
        return (data[:start] + self.after.encode() + data[end:]).decode()


BINARY = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.Pow: "*", ast.Mod: "//", ast.MatMult: None}
COMPARE = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
METHODS = {"mean": "sum", "sum": "mean", "amax": "amin", "amin": "amax", "any": "all", "all": "any", "square": "abs"}
METHODS |= {"cumsum": "cumprod", "argmin": "argmax", "argmax": "argmin", "exp": "expm1", "logsumexp": "sum"}


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


class Finder(ast.NodeVisitor):
    """All mutants of a file. Annotations, docstrings, messages and representations are left alone."""

    def __init__(self, path: Path) -> None:
        self.path, self.text = path, path.read_text(encoding="utf-8")
        self.found: list[Mutant] = []
        self.lines = self.text.encode().splitlines(keepends=True)

    def source(self, line: int, column: int, end_line: int, end_column: int) -> str:
        start = sum(map(len, self.lines[: line - 1])) + column
        end = sum(map(len, self.lines[: end_line - 1])) + end_column
        return self.text.encode()[start:end].decode()

    def add(self, place: tuple[int, int, int, int], after: str) -> None:
        before = self.source(*place)
        if before.strip() and before != after:
            self.found.append(Mutant(self.path, place[0], place[1], before, after, place[2], place[3]))

    def between(self, left: ast.expr, right: ast.expr, new: str, symbols: tuple[str, ...]) -> None:
        place = (left.end_lineno or 0, left.end_col_offset or 0, right.lineno, right.col_offset)
        text = self.source(*place)
        for symbol in symbols:
            if text.count(symbol) == 1 and "#" not in text:
                self.add(place, text.replace(symbol, new))
                return

    def visit_BinOp(self, node: ast.BinOp) -> None:
        new = BINARY.get(type(node.op))
        symbols = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.Mod: "%"}
        if new is not None and not any(_is_text(side) for side in (node.left, node.right)):
            self.between(node.left, node.right, new, (symbols[type(node.op)],))
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) == 1 and type(node.ops[0]) in COMPARE:
            symbol = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
            op = type(node.ops[0])
            self.between(node.left, node.comparators[0], COMPARE[op], (symbol[op],))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        place = (node.lineno, node.col_offset, node.operand.lineno, node.operand.col_offset)
        if isinstance(node.op, (ast.USub, ast.Invert, ast.Not)) and not isinstance(node.operand, ast.Constant):
            self.add(place, "")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            after = str(not value)
        elif isinstance(value, int):
            after = str(value + 1)
        elif isinstance(value, float):
            after = repr(value * 1.5 if value else 1.0)
        else:
            return
        self.add((node.lineno, node.col_offset, node.end_lineno or 0, node.end_col_offset or 0), after)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in METHODS:
            end = (function.end_lineno or 0, function.end_col_offset or 0)
            place = (end[0], end[1] - len(function.attr), end[0], end[1])
            if not (isinstance(function.value, ast.Name) and function.value.id == "self"):
                self.add(place, METHODS[function.attr])
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in ("extra_repr", "__repr__"):
            return
        for part in [*node.args.defaults, *[d for d in node.args.kw_defaults if d is not None], *node.body]:
            self.visit(part)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        return

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        return


def mutants(path: Path) -> list[Mutant]:
    """Every mutant of a file that compiles."""
    finder = Finder(path)
    finder.visit(ast.parse(finder.text))
    good = []
    for mutant in finder.found:
        try:
            compile(mutant.apply(finder.text), str(path), "exec")
        except SyntaxError:
            continue
        good.append(mutant)
    return good


# --- which test executes which line --------------------------------------------------------------------------------


def record(folder: Path, jobs: int) -> tuple[dict[tuple[str, int], set[str]], dict[str, float]]:
    """Line -> tests that execute it, and test -> seconds."""
    data, report = folder / "coverage", folder / "junit.xml"
    command = [sys.executable, "-m", "pytest", "-q", *TESTS, "-n", str(jobs), "--cov=src", "--cov-context=test"]
    command += ["--cov-report=", f"--junitxml={report}", "-o", "junit_family=xunit1", "-p", "no:cacheprovider"]
    environment = {**os.environ, "COVERAGE_FILE": str(data), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        print(run.stdout[-3000:], run.stderr[-2000:], file=sys.stderr)
        raise SystemExit(2)
    import coverage

    seconds = {}
    for case in ElementTree.parse(report).iter("testcase"):
        seconds[f"{case.get('file')}::{_inside(case)}"] = float(case.get("time") or 0)
    stored = coverage.CoverageData(basename=str(data))
    stored.read()
    lines: dict[tuple[str, int], set[str]] = defaultdict(set)
    for path in stored.measured_files():
        for line, contexts in stored.contexts_by_lineno(path).items():
            lines[path, line] |= {context.partition("|")[0] for context in contexts if context}
    return lines, seconds


def _inside(case: ElementTree.Element) -> str:
    module = (case.get("file") or "").removesuffix(".py").replace("/", ".")
    classes = (case.get("classname") or "").removeprefix(module).strip(".")
    return f"{classes.replace('.', '::')}::{case.get('name')}" if classes else case.get("name") or ""


def choose(tests: set[str], seconds: dict[str, float]) -> list[str]:
    """The quickest tests of every file in turn, up to a limit."""
    by_file: dict[str, list[str]] = defaultdict(list)
    for test in sorted(tests, key=lambda t: (seconds.get(t, 1.0), t)):
        by_file[test.partition("::")[0]].append(test)
    chosen: list[str] = []
    for rank in range(max(map(len, by_file.values()), default=0)):
        for tests_of_file in by_file.values():
            if rank < len(tests_of_file) and len(chosen) < MOST_TESTS:
                chosen.append(tests_of_file[rank])
    return chosen


# --- running one mutant -----------------------------------------------------------------------------------------------


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads the mutated text in place of the file."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self.text = text

    def get_code(self, fullname: str) -> object:
        return compile(self.text, self.path, "exec", dont_inherit=True)


class _Importer(importlib.abc.MetaPathFinder):
    def __init__(self, name: str, path: Path, text: str) -> None:
        self.name, self.path, self.text = name, path, text

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> object:
        if fullname != self.name:
            return None
        package = [str(self.path.parent)] if self.path.name == "__init__.py" else None
        loader = _Loader(fullname, str(self.path), self.text)
        return importlib.util.spec_from_file_location(
            fullname, self.path, loader=loader, submodule_search_locations=package
        )


def run(mutant: Mutant, tests: list[str]) -> int:
    """Start the tests on the mutant in a forked process; its process id."""
    process = os.fork()
    if process:
        return process
    try:
        signal.alarm(SECONDS)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        parts = ["training", "losses", *mutant.path.relative_to(SOURCE).with_suffix("").parts]
        name = ".".join(part for part in parts if part != "__init__")
        text = mutant.apply(mutant.path.read_text(encoding="utf-8"))
        sys.meta_path.insert(0, _Importer(name, mutant.path, text))
        import pytest

        os.chdir(ROOT)
        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:cov", *tests])))
    finally:
        os._exit(1)


def warm() -> None:
    """What every child needs and no mutant touches."""
    import hypothesis  # noqa: F401
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    assert "training" not in sys.modules


def execute(work: list[tuple[Mutant, list[str]]], jobs: int) -> Iterator[tuple[Mutant, bool, int]]:
    """Mutant, whether a test failed on it, number of tests."""
    running: dict[int, tuple[Mutant, list[str]]] = {}
    waiting = list(reversed(work))
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant, tests = waiting.pop()
            if not tests:
                yield mutant, False, 0
                continue
            running[run(mutant, tests)] = (mutant, tests)
        if running:
            process, status = os.wait()
            mutant, tests = running.pop(process)
            yield mutant, status != 0, len(tests)


def equivalents() -> dict[str, str]:
    """Mutants that cannot change a result -> the reason. The line number may have moved; the text may not."""
    path = ROOT / "tools" / "mutants_equivalent.toml"
    if not path.exists():
        return {}
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("equivalent", [])
    return {f"{entry['file']} {entry['code']} {entry['before']} -> {entry['after']}": entry["why"] for entry in entries}


def main() -> int:
    """Record, mutate, count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--per-module", type=int, default=8, help="mutants per file; 0: all")
    parser.add_argument("--module", action="append", default=[], metavar="PART", help="files whose path has PART")
    parser.add_argument("--minimum", type=float, default=85.0, help="killed share that is asked for")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    arguments = parser.parse_args()

    paths = [
        p for p in sorted(SOURCE.rglob("*.py")) if not arguments.module or any(m in str(p) for m in arguments.module)
    ]
    chosen: list[Mutant] = []
    for path in paths:
        found = mutants(path)
        if arguments.per_module and len(found) > arguments.per_module:
            found = random.Random(str(path.relative_to(SOURCE))).sample(found, arguments.per_module)
        chosen += sorted(found, key=lambda m: (m.line, m.column))
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        lines, seconds = record(Path(folder), arguments.jobs)
    print(f"{len(seconds)} tests recorded in {time.monotonic() - start:.0f} s, {len(chosen)} mutants", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    warm()
    work = [(m, choose(lines.get((str(m.path), m.line), set()), seconds)) for m in chosen]
    known = equivalents()
    count: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    survivors: list[dict[str, object]] = []
    for mutant, killed, tests in execute(work, arguments.jobs):
        module = str(mutant.path.relative_to(SOURCE))
        code = mutant.path.read_text(encoding="utf-8").splitlines()[mutant.line - 1].strip()
        why = known.get(f"{module} {code} {mutant.before} -> {mutant.after}")
        count[module][0 if killed else 2 if why else 1] += 1
        if not killed:
            survivors.append({"mutant": mutant.name, "code": code, "tests": tests, "equivalent": why})
    print("\n| module | killed | survived | equivalent |\n|---|---|---|---|")
    for module, (killed_count, survived, same) in sorted(count.items()):
        print(f"| {module} | {killed_count} | {survived} | {same} |")
    for survivor in survivors:
        note = (
            f"equivalent: {survivor['equivalent']}" if survivor["equivalent"] else f"survived {survivor['tests']} tests"
        )
        print(f"{survivor['mutant']}\n    {survivor['code']}\n    {note}")
    killed_all = sum(c[0] for c in count.values())
    real = killed_all + sum(c[1] for c in count.values())
    share = 100 * killed_all / real if real else 100.0
    print(
        f"\n{killed_all} of {real} killed: {share:.1f} % (minimum {arguments.minimum:g} %)"
        f", {time.monotonic() - start:.0f} s"
    )
    if arguments.json:
        result = {"killed": killed_all, "total": real, "modules": count, "survivors": survivors}
        arguments.json.write_text(json.dumps(result, indent=2), encoding="utf-8")
    return 0 if share >= arguments.minimum else 1


if __name__ == "__main__":
    sys.exit(main())
