"""What the parity suite measures, as a page, as data and as Markdown."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ..console import progress, say, show_table
from .collect import ReportError, collect, find_checkout
from .page import as_html, as_markdown
from .tally import COLUMNS, Entry, table_rows

__all__ = ["ReportError", "as_data", "run_report"]


def as_data(entries: Sequence[Entry]) -> dict[str, Any]:
    """The whole report as plain data."""
    symbols = [entry.as_data() for entry in entries]
    largest: dict[str, float | None] = {"float64": 0.0, "float32": 0.0}
    for kinds_of in (symbol["largest_deviation"] for symbol in symbols):
        for dtype, kinds in kinds_of.items():
            known = largest.get(dtype, 0.0)
            values = [known, *kinds.values()]
            largest[dtype] = None if None in values else max(values)
    return {
        "made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "numbers": sum(symbol["numbers"] for symbol in symbols),
        "largest_deviation": largest,
        "symbols": symbols,
    }


def run_report(output: Path, *, only: Sequence[str] = (), as_json: bool = False) -> int:
    """Run the parity records of the checkout; write ``report.html``, ``report.json`` and ``report.md`` to ``output``.

    Returns:
        0, or 1 if a number is beyond its tolerance.

    Raises:
        ReportError: there is no checkout, or nothing to run.
    """
    checkout = find_checkout()
    output.mkdir(parents=True, exist_ok=True)
    with progress() as bar:
        task = bar.add_task("parity records", total=None)

        def step(name: str, total: int) -> None:
            bar.update(task, description=name, total=total, advance=1)

        entries = collect(checkout, only=only, say=step)
    data = as_data(entries)
    text = json.dumps(data, indent=2, allow_nan=False)
    (output / "report.json").write_text(text + "\n", encoding="utf-8")
    (output / "report.html").write_text(as_html(data), encoding="utf-8")
    (output / "report.md").write_text(as_markdown(data), encoding="utf-8")
    failures = [failure for entry in entries for failure in entry.tally.failures]
    if as_json:
        sys.stdout.write(text + "\n")
    else:
        compared = [symbol for symbol in data["symbols"] if symbol["calls"]]
        show_table("Parity of old and new losses", COLUMNS, table_rows(compared), text_columns=4)
        for failure in failures[:20]:
            say(failure, "red")
        say(f"\n{len(failures)} beyond the tolerance; {output / 'report.html'}", "bold red" if failures else "green")
    return 1 if failures else 0
