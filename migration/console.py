"""Output with rich: tables, progress, help in colour."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["MissingPackage", "Parser", "brief", "console", "progress", "say", "show_table", "table"]


class MissingPackage(RuntimeError):
    """A command needs a package of an extra that is not installed."""


def brief(error: Exception) -> str:
    """The first sentence of a message."""
    return str(error).splitlines()[0].partition(". ")[0] if str(error) else type(error).__name__


def _rich(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"rich.{name}")
    except ImportError as error:
        raise MissingPackage("this command needs rich: pip install 'training-losses[codemod]'") from error


def console(*, stderr: bool = False) -> Any:
    """A rich console; outside a terminal it wraps nothing."""
    made = _rich("console").Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else _rich("console").Console(stderr=stderr, highlight=False, width=200)


def progress() -> Any:
    """A progress display on the error output."""
    return _rich("progress").Progress(
        _rich("progress").TextColumn("{task.description:<60}"),
        _rich("progress").BarColumn(),
        _rich("progress").MofNCompleteColumn(),
        _rich("progress").TimeElapsedColumn(),
        console=console(stderr=True),
        transient=True,
    )


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, text_columns: int = 1) -> Any:
    """A table whose columns after the first ``text_columns`` hold numbers."""
    made = _rich("table").Table(title=title, title_justify="left", box=_rich("box").SIMPLE_HEAD)
    for number, column in enumerate(columns):
        made.add_column(column, justify="left" if number < text_columns else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def _terminal(stderr: bool = False) -> Any | None:
    """A rich console, if somebody looks at a terminal and rich is there."""
    if not (sys.stderr if stderr else sys.stdout).isatty():
        return None
    try:
        return console(stderr=stderr)
    except MissingPackage:
        return None


def say(text: str, style: str = "", *, stderr: bool = False) -> None:
    """A line, in colour on a terminal."""
    made = _terminal(stderr)
    if made is not None:
        made.print(text, style=style or None, markup=False)
    else:
        (sys.stderr if stderr else sys.stdout).write(f"{text}\n")


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 1) -> None:
    """A table: with colours and lines on a terminal, else aligned columns that other programs can read."""
    made = _terminal()
    if made is not None:
        shown = [[_rich("text").Text(cell) for cell in row] for row in rows]
        made.print(table(title, columns, shown, text_columns=text_columns))
        return
    every = [tuple(columns), *map(tuple, rows)]
    widths = [max(len(row[i]) for row in every) for i in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in every]
    heading = [title] if title else []
    sys.stdout.write("\n".join([*heading, lines[0], "-" * max(map(len, lines)), *lines[1:]]) + "\n")


_COLOURS = ((r"^\w[\w ]*:", "bold yellow"), (r"(?<![\w-])--?[a-z][\w-]*", "cyan"), (r"\b[A-Z][A-Z.:=]+\b", "green"))


class Parser(argparse.ArgumentParser):
    """Help in colour on a terminal; plain where rich is missing or nobody looks."""

    def print_help(self, file: Any = None) -> None:
        """Print the help."""
        try:
            target = console()
        except MissingPackage:
            return super().print_help(file)
        if file is not None or not sys.stdout.isatty():
            return super().print_help(file)
        text = _rich("text").Text(self.format_help())
        for pattern, style in _COLOURS:
            text.highlight_regex(re.compile(pattern, re.MULTILINE), style)
        target.print(text)
        return None
