"""The command lines of this package. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["ShadowError", "add_shadow", "add_verify", "shadowed", "split_command"]


class ShadowError(ValueError):
    """Options that do not go together."""


def split_command(words: list[str]) -> tuple[Path, list[str]]:
    """``[PATH] -- COMMAND`` as argparse leaves it: ``--`` parts the two, and without it all is COMMAND."""
    if "--" in words[:2]:
        at = words.index("--")
        return Path(words[0] if at else "."), words[at + 1 :]
    return Path("."), words


def add_verify(commands: Any) -> None:
    """``verify [PATH] -- COMMAND``."""
    parser = commands.add_parser(
        "verify",
        help="run a command before and after the migration and compare every call of every loss",
        usage="%(prog)s [options] [PATH] -- COMMAND ...",
        description="Runs COMMAND on a copy of PATH as it is, migrates another copy, runs COMMAND there, and compares "
        "call by call. Exit code: 0 equal within the promise, 1 a deviation that the catalog does not state, 2 it "
        "could not be run.",
    )
    add = parser.add_argument
    add("words", nargs=argparse.REMAINDER, metavar="[PATH] -- COMMAND", help="PATH (default: .) and what to run there")
    add("--numbers", choices=("exact", "documented", "new"), default="documented", help="as for the codemod")
    add("--in-place", action="store_true", help="run in PATH itself, which is as before in the end")
    add("--repeat", type=int, default=1, metavar="N", help="run the old tree N times: is it the same by itself?")
    add("--outside-domain", action="store_true", help="deviations of documented rows are known: the data lie outside")
    add("--format", choices=("text", "json", "github"), default="text", help="of the result")
    add("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    add("--html", type=Path, metavar="FILE", help="write a page with all curves")
    add("--timeout", type=float, metavar="SECONDS", help="end COMMAND after so long")
    add("--catalog", type=Path, action="append", default=[], metavar="FILE", help="use this catalog instead")
    parser.set_defaults(run=_run_verify)


def _run_verify(arguments: argparse.Namespace) -> int:
    from .verify import Options, run_verify

    path, command = split_command(arguments.words)
    options = Options(
        path,
        command,
        numbers=arguments.numbers,
        in_place=arguments.in_place,
        repeat=max(1, arguments.repeat),
        catalogs=arguments.catalog,
        timeout=arguments.timeout,
        outside_domain=arguments.outside_domain,
        quiet=False,
    )
    return run_verify(options, form=arguments.format, html=arguments.html)


def add_shadow(parser: Any) -> None:
    """The options of ``run`` that compare on the way."""
    add = parser.add_argument
    add("--shadow", type=float, metavar="RATE", help="compare this share of the calls of old losses with the new ones")
    add("--shadow-new", type=float, metavar="RATE", help="compare this share of the calls of new losses with the twins")
    add("--shadow-log", type=Path, metavar="FOLDER", help="where the log goes (default: a temporary folder)")
    add("--shadow-html", type=Path, metavar="FILE", help="write a page with all curves")
    add("--shadow-format", choices=("text", "json", "github"), default="text", help="of the report (to stderr)")


def shadowed(arguments: argparse.Namespace, run: Callable[[], int]) -> int:
    """Run a script as the options of ``add_shadow`` say.

    Raises:
        ShadowError: a rate out of range, or both ways at once.
    """
    old, new = arguments.shadow, arguments.shadow_new
    if old is None and new is None:
        return run()
    if old is not None and new is not None:
        raise ShadowError("--shadow and --shadow-new exclude each other")
    rate = float(old if old is not None else new)
    if not 0 < rate <= 1:
        raise ShadowError(f"RATE must be above 0 and at most 1, found {rate:g}")
    from .alongside import run_shadowed

    return run_shadowed(run, arguments.script, rate, new=old is None, log=arguments.shadow_log,
                        form=arguments.shadow_format, html=arguments.shadow_html)  # fmt: skip
