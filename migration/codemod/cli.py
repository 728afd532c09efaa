"""The command line of the codemod."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ..catalog import Catalog, CatalogError, builtin_catalog, load_catalog
from . import report
from .codes import RULES
from .files import FileError, check_writable, exclusive, journal_directory, replace, uncommitted, undo, write_journal
from .project import MAX_BYTES, Outcome, Project
from .rules import NUMBERS, Rules

NOTHING, SOMETHING, ERRORS = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the codemod with ``argv``. Exit codes: 0 nothing to do, 1 something to do or left undone, 2 errors."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        return _run(options)
    except (CatalogError, FileError) as error:
        print(f"codemod: {error}", file=sys.stderr)
        return ERRORS
    except KeyboardInterrupt:
        print("codemod: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="codemod",
        description="Move code from the old losses to training.losses. Prints a diff; writes only with --write.",
        epilog="Exit code: 0 nothing to do, 1 something to do or left undone, 2 errors.",
    )
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files and directories; - reads stdin")
    parser.add_argument("--write", action="store_true", help="write the changes")
    parser.add_argument("--check", action="store_true", help="report only, without a diff (for CI)")
    parser.add_argument("--diff", action="store_true", help="print the diff also with --write or --check")
    parser.add_argument("--force", action="store_true", help="write over uncommitted changes")
    parser.add_argument("--format", choices=report.FORMATS, default="text", help="of the report")
    parser.add_argument("--numbers", choices=NUMBERS, default="documented", help="how much may differ (see the docs)")
    parser.add_argument(
        "--catalog", type=Path, action="append", metavar="FILE", help="use this catalog instead; repeatable"
    )
    parser.add_argument("--select", action="append", metavar="NAME", help="only these systems or symbols")
    parser.add_argument("--ignore", action="append", metavar="NAME", help="not these systems or symbols")
    parser.add_argument("--max-bytes", type=int, default=MAX_BYTES, metavar="N", help="larger files are reported only")
    parser.add_argument("--no-gitignore", action="store_true", help="also treat files that git ignores")
    parser.add_argument("--undo", action="store_true", help="take the last --write back")
    parser.add_argument("--explain", metavar="RULE", help="explain a rule code and exit")
    return parser


def _catalog(options: argparse.Namespace) -> Catalog:
    return load_catalog(options.catalog) if options.catalog else builtin_catalog()


def _run(options: argparse.Namespace) -> int:
    if options.explain:
        return _explain(options.explain)
    paths: list[Path] = options.paths or [Path()]
    for path in paths:
        if not path.exists():
            raise FileError("TL092", f"{path}: no such file or directory")
    if options.undo:
        return _undo(paths[0])
    rules = Rules(_catalog(options), options.numbers, tuple(_names(options.select)), tuple(_names(options.ignore)))
    project = Project(rules, options.max_bytes, not options.no_gitignore)
    project.scan(paths)
    outcome = project.finish(project.decide())
    if options.write:
        _write(outcome, paths[0], options.force)
    show = options.diff or not (options.write or options.check)
    if options.format == "json":
        sys.stdout.write(report.as_json(outcome, options.write, show))
    elif options.format == "sarif":
        sys.stdout.write(report.sarif(outcome.findings, _version()))
    elif options.format == "github":
        sys.stdout.write(report.github(outcome.findings))
    else:
        sys.stdout.write(report.text(outcome, options.write, show))
    if outcome.errors:
        return ERRORS
    return SOMETHING if outcome.left or (outcome.changes and not options.write) else NOTHING


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("training-losses")
    except metadata.PackageNotFoundError:
        return "0"


def _names(values: list[str] | None) -> list[str]:
    return [name.strip() for value in values or [] for name in value.split(",") if name.strip()]


def _explain(code: str) -> int:
    rule = RULES.get(code.upper())
    if rule is None:
        raise FileError("TL092", f"unknown rule {code!r} (known: {', '.join(RULES)})")
    print(f"{code.upper()}: {rule.title} ({rule.level})\n\n{rule.text}")
    return NOTHING


def _undo(path: Path) -> int:
    directory = journal_directory(path)
    with exclusive(directory):
        restored, changed = undo(directory)
    print("".join(f"restored {name}\n" for name in restored) + f"{len(restored)} files restored.")
    for name in changed:
        print(f"codemod: {name} was changed since the codemod wrote it; it was left", file=sys.stderr)
    return ERRORS if changed else NOTHING


def _write(outcome: Outcome, path: Path, force: bool) -> None:
    ready = []
    for change in outcome.changes:
        try:
            check_writable(change.path)
            ready.append(change)
        except FileError as error:
            _failed(outcome, change.path, error)
    outcome.changes = ready
    if not ready:
        return
    dirty = [] if force else uncommitted([change.path for change in ready])
    if dirty:
        shown = ", ".join(dirty[:5]) + (" ..." if len(dirty) > 5 else "")
        raise FileError("TL096", f"uncommitted changes in {shown}: commit them, or use --force. Nothing was written.")
    directory = journal_directory(path)
    with exclusive(directory):
        write_journal(directory, [(c.path, c.old, c.new) for c in ready])
        for change in list(ready):
            try:
                replace(change.path, change.new, change.old)
            except FileError as error:
                outcome.changes.remove(change)
                _failed(outcome, change.path, error)


def _failed(outcome: Outcome, path: str, error: FileError) -> None:
    from .text import Finding

    outcome.findings.append(Finding(path, 1, 1, error.code, "error", str(error)))
