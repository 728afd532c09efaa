"""The result of a verification on the terminal, as JSON, and as annotations for GitHub."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..console import say, show_table
from ..report.tally import ratio

__all__ = ["COLUMNS", "row", "show"]

COLUMNS = ("place", "loss", "verdict", "calls", "value", "gradient", "state", "time", "memory")
_STYLES = {0: "bold green", 1: "bold red", 2: "bold yellow"}


def number(value: float | None) -> str:
    """A deviation in few characters."""
    return "∞" if value is None else "0" if value == 0 else f"{value:.1e}"


def calls(place: Mapping[str, Any]) -> str:
    """Calls, both numbers where they differ."""
    old, new = place["calls"]
    return str(old) if old == new else f"{old} -> {new}"


def names(place: Mapping[str, Any]) -> str:
    """Old and new bare name."""
    old, new = (str(place[key] or "-").rpartition(".")[2] for key in ("old", "new"))
    kept = place["old"] == place["new"]
    return f"{old} (kept)" if kept else f"{old} -> {new}"


def row(place: Mapping[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    nth = f" #{place['nth'] + 1}" if place["nth"] else ""
    where = f"{place['file']}:{place['line']}{nth}"
    deviations = [number(place[key]) for key in ("value", "gradient", "state")]
    costs = [ratio(place["time_ratio"]), ratio(place["memory_ratio"])]
    return (where, names(place), place["verdict"], calls(place), *deviations, *costs)


def _text(data: Mapping[str, Any], page: Path | None) -> None:
    if data["places"]:
        show_table("", COLUMNS, [row(place) for place in data["places"]], text_columns=3)
        say("")
    for place in data["places"]:
        if place["first"] is not None:
            style = "red" if place["first"]["cause"] else "yellow"
            say(f"{place['label']}, call {place['first']['call']}: {place['first']['text']}", style)
    for difference in data["printed"][:8]:
        say(f"output, line {difference['line']}: {difference['old']!r} -> {difference['new']!r}", "yellow")
    for note in data.get("notes", [])[:10]:
        say(f"note: {note}")
    if data.get("repeat", {}).get("deterministic"):
        say("the program is the same twice by itself")
    hint = _hint(data)
    if hint:
        say(hint, "yellow")
    if page is not None:
        say(f"page: {page}")
    say(f"{data['verdict']}: {data['message']}", _STYLES[data["exit_code"]])


def _hint(data: Mapping[str, Any]) -> str:
    """What to try where the program itself may differ from run to run."""
    kinds = {place["first"]["kind"] for place in data["places"] if place["first"] and place["first"]["cause"]}
    if kinds & {"input", "calls"} and data["repeat"]["deterministic"] is None:
        return "if the program draws without a seed, --repeat 2 tells: the old tree is then run twice"
    return ""


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _github(data: Mapping[str, Any]) -> None:
    for place in data["places"]:
        if place["first"] is not None:
            level = "error" if place["first"]["cause"] and place["verdict"] == "deviates" else "warning"
            title = f"{names(place)}, call {place['first']['call']}"
            print(
                f"::{level} file={place['file']},line={place['line']},title={title}::{_escaped(place['first']['text'])}"
            )
    level = {0: "notice", 1: "error", 2: "error"}[data["exit_code"]]
    print(f"::{level} title=verify: {data['verdict']}::{_escaped(data['message'])}")


def show(data: Mapping[str, Any], form: str, page: Path | None = None, *, stderr: bool = False) -> None:
    """Print the result as ``form`` says: text, json or github; ``stderr``: apart from what a script has printed."""
    if stderr:
        with contextlib.redirect_stdout(sys.stderr):
            show(data, form, page)
        return
    if form == "json":
        sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")
    elif form == "github":
        _github(data)
    else:
        _text(data, page)
