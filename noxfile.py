"""Sessions. Plain ``nox`` runs lint, types, tests, parity, coverage and duplication.

All sessions share one environment (``.nox/shared``), made on first use and again when its inputs change.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
ENVIRONMENT = ROOT / ".nox" / "shared"
BIN = ENVIRONMENT / ("Scripts" if os.name == "nt" else "bin")
CODE = ["src", "migration", "legacy", "tools", "tests", "benchmarks", "examples/loss_usage_examples.py", "noxfile.py"]
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

nox.options.sessions = ["lint", "types", "tests", "parity", "coverage", "duplication"]
nox.options.default_venv_backend = "none"
nox.needs_version = ">=2024.10.9"


def setup(session: nox.Session) -> None:
    """Make the shared environment unless it is up to date."""
    inputs = [ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    stamp = hashlib.sha256(b"".join(p.read_bytes() for p in inputs) + sys.version.encode()).hexdigest()
    marker = ENVIRONMENT / "stamp"
    if not (marker.exists() and marker.read_text() == stamp):
        session.run(sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT), external=True)
        pip = [
            str(BIN / "python"),
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "-c",
            "constraints.txt",
        ]
        # torch first: it is taken from its pin, and everything else finds it installed
        session.run(*pip, "torch", external=True)
        session.run(*pip, "-e", ".[dev]", external=True)
        marker.write_text(stamp)


def python(session: nox.Session, *arguments: str, env: dict[str, str] | None = None) -> None:
    """Run Python of the shared environment."""
    setup(session)
    session.run(str(BIN / "python"), *arguments, external=True, env={**THREADS, **(env or {})})


def covered(session: nox.Session, name: str, *arguments: str) -> None:
    """Run pytest on two processes and keep its coverage data for the session ``coverage``."""
    data = {"COVERAGE_FILE": str(ROOT / ".nox" / f".coverage.{name}")}
    plugins = ["-n", "2", "--dist", "worksteal", "--cov", "--cov-report="]
    python(session, "-m", "pytest", "-q", *plugins, *(session.posargs or arguments), env=data)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and format; the catalog against the code; the generated tables in the docs."""
    existing = [path for path in CODE if (ROOT / path).exists()]
    python(session, "-m", "ruff", "check", *existing)
    python(session, "-m", "ruff", "format", "--check", *existing)
    python(session, "-m", "training_losses", "catalog", "check")
    python(session, "tools/public_names.py", "--check")
    python(session, "tools/docs_tables.py", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, on src and migration."""
    python(session, "-m", "mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests but parity and the slow ones."""
    covered(session, "tests", "tests", "--ignore", "tests/parity", "-m", "not slow")


@nox.session
def parity(session: nox.Session) -> None:
    """Twins against the recorded cases, new losses against twins."""
    covered(session, "parity", "tests/parity")


@nox.session
def slow(session: nox.Session) -> None:
    """Tests of more than ten seconds: every example through verify, types against the wheel, the hooks on a clone."""
    chosen = session.posargs or ("tests", "-m", "slow")
    python(session, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", *chosen)


@nox.session
def coverage(session: nox.Session) -> None:
    """Coverage of the last tests and parity sessions against the limits."""
    python(session, "tools/coverage_limits.py")


@nox.session
def duplication(session: nox.Session) -> None:
    """Duplicated lines in src and migration, by jscpd."""
    python(session, "tools/duplication.py")


@nox.session
def demo(session: nox.Session) -> None:
    """Migrate examples/downstream in a temporary folder; compare every run before and after."""
    python(session, "-m", "training_losses", "demo", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """All benchmarks; ratios within one process each."""
    for script in sorted((ROOT / "benchmarks").glob("bench_*.py")):
        python(session, str(script), *session.posargs)


@nox.session
def portability(session: nox.Session) -> None:
    """The parity suite under other code paths of torch and MKL, and other numbers of threads; a table of what flips."""
    python(session, "tools/portability.py", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Put the documented bugs back, each of which must fail a test; then small changes of all of the mathematics.

    ``nox -s mutants -- --per-module 8`` takes a sample of the second, ``--table`` prints what is known.
    """
    python(session, "tools/mutants_alignment.py")
    python(session, "tools/mutants.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Fill the generated tables of the docs from the catalog; build the site into site/."""
    setup(session)
    pip = [str(BIN / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", "constraints.txt"]
    session.run(*pip, "-e", ".[docs]", external=True)
    python(session, "tools/docs_tables.py")
    python(session, "tools/docs_site.py", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})
