"""Run the parity records of a checkout and collect what they compare."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch

from ..catalog import Catalog, Symbol, builtin_catalog
from ..parity import Comparison, measured_memory
from .tally import Entry, Tally

__all__ = ["Record", "ReportError", "collect", "find_checkout", "load_records"]

REPEATS, WARM_UP = 5, 3


class ReportError(RuntimeError):
    """There are no records to run, or they cannot be imported."""


class Record(Protocol):
    """What the report needs of a parity record (``tests/support/parity.py``)."""

    symbol: str
    system: str
    dtypes: tuple[torch.dtype, ...]
    batch: tuple[int, int]
    factor: float
    golden: Any
    note: str
    reason: str

    @property
    def id(self) -> str:
        """Unique name."""

    @property
    def row(self) -> Symbol:
        """The symbol of the catalog."""

    def run(self, sample: Any) -> Iterator[Comparison]:
        """Compare old and new on batches made from ``sample``."""

    def run_golden(self) -> Iterator[tuple[str, torch.dtype, Comparison]]:
        """Compare both on recorded inputs."""


def find_checkout(start: Path | None = None) -> Path:
    """The folder above ``start`` (default: the current one), or around this package, that has the parity records.

    Raises:
        ReportError: none has.
    """
    first = (start or Path.cwd()).resolve()
    for folder in (first, *first.parents, Path(__file__).resolve().parents[2]):
        if (folder / "tests" / "support" / "parity.py").is_file() and (folder / "tests" / "parity").is_dir():
            return folder
    raise ReportError(
        f"no parity records in {first} or above: they are part of the repository (tests/parity) and not of the "
        "installed package; run the report in a checkout. `python -m training_losses compare` needs none."
    )


def load_records(checkout: Path) -> tuple[ModuleType, list[Record]]:
    """The module that makes samples, and all records of the checkout.

    Raises:
        ReportError: they cannot be imported.
    """
    for folder in (checkout / "src", checkout):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module("tests.support.parity")
        records: list[Record] = module.all_records()
    except ImportError as error:
        raise ReportError(f"the records of {checkout} cannot be imported ({error}): pip install -e '.[dev]'") from error
    return module, records


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Old code prints and logs; the report shows numbers."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _large(record: Record, samples: Sequence[Any]) -> Any:
    """A sample for the costs: the largest, in float32 where the record has it."""
    wanted = [s for s in samples if s.dtype == torch.float32] or list(samples)
    return max(wanted, key=lambda s: (s.batch, s.dim))


def _costs(record: Record, sample: Any, tally: Tally) -> None:
    # the last of several steps: the first pays for what is made once
    repeated: Record = replace(record, steps=WARM_UP) if is_dataclass(record) and hasattr(record, "steps") else record
    for _ in range(REPEATS):
        *_, comparison = repeated.run(sample)
        tally.cost(comparison)
    with measured_memory():
        *_, comparison = repeated.run(sample)
        tally.cost(comparison)


def _run(record: Record, module: ModuleType, tally: Tally) -> None:
    samples = list(module.sweep(record))
    for sample in samples:
        where = f"{record.id}, batch {sample.batch}, seed {sample.seed}"
        for comparison in record.run(sample):
            tally.add(comparison, sample.dtype, where, factor=record.factor)
    if record.golden is not None:
        for name, dtype, comparison in record.run_golden():
            tally.recorded += 1
            tally.add(comparison, dtype, name, factor=record.factor)
    _costs(record, _large(record, samples), tally)


def collect(
    checkout: Path, *, only: Sequence[str] = (), catalog: Catalog | None = None, say: Callable[[str, int], None]
) -> list[Entry]:
    """Run all records (those whose name has one of the texts ``only``).

    Args:
        checkout: the folder with ``tests/parity``.
        only: parts of names of records.
        catalog: the rows; default: those of this project.
        say: called with the name of each record and the number of all before it runs.

    Raises:
        ReportError: nothing to run.
    """
    module, records = load_records(checkout)
    chosen = [r for r in records if not only or any(text in r.id for text in only)]
    if not chosen:
        raise ReportError(f"--only {', '.join(only)}: no record of {len(records)} has this in its name")
    symbols = (catalog or builtin_catalog()).symbols
    entries = {(s.system, s.old): Entry(s) for s in symbols}
    for record in chosen:
        say(record.id, len(chosen))
        entry = entries[record.system, record.symbol]
        if record.reason:
            entry.reason = record.reason
            continue
        entry.notes += [record.note] if record.note else []
        tally = entry.tally
        try:
            with _quiet():
                _run(record, module, tally)
        except Exception as error:  # one broken record must not hide the others
            tally.failures.append(f"{record.id}: {type(error).__name__}: {error}")
    kept = [e for e in entries.values() if not only or e.tally.calls or e.tally.failures or e.reason]
    for entry in kept:
        worst = [v for kinds in entry.tally.worst.values() for v in kinds.values()]
        if any(math.isnan(v) for v in worst):
            entry.tally.failures.append(f"{entry.symbol.old}: a deviation is not a number")
    return kept
