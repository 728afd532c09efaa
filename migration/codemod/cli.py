"""The command line of the codemod."""

from __future__ import annotations

import os
import sys

from . import config
from .closing import closing
from .config import FORMATS, MAX_BYTES, NUMBERS
from .errors import FileError, MissingExtra
from .scout import Scout, Seen, builtin_texts, of_catalog, scout, search
from .walk import KINDS, walk

TYPE_CHECKING = False  # see scout
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Collection, Sequence
    from typing import Any

    from .project import Change, Outcome
    from .rules import Rules

NOTHING, SOMETHING, ERRORS = 0, 1, 2
_FLAGS = ("--write", "--check", "--diff", "--force")  # they do not matter for the search


def main(argv: Sequence[str] | None = None) -> int:
    """Run the codemod with ``argv``. Exit codes: 0 nothing to do, 1 something to do or left undone, 2 errors."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        survey = _plain(given)
        if survey is not None and survey.empty:
            return _nothing(survey, "--write" in given)
        return _run(_parser().parse_args(given), survey)
    except FileError as error:
        print(f"codemod: {error.code}: {error}", file=sys.stderr)
        return ERRORS
    except MissingExtra as error:
        print(f"codemod: {error}", file=sys.stderr)
        return ERRORS
    except KeyboardInterrupt:
        print("codemod: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return ERRORS


def _plain(given: list[str]) -> _Survey | None:
    """The survey of a run that sets nothing: most of them find nothing, and then no parser is needed."""
    paths = [argument for argument in given if argument not in _FLAGS] or ["."]
    if any(path.startswith("-") or not os.path.exists(path) for path in paths) or config.load(paths[0]):
        return None
    return _Survey(paths)


def _nothing(survey: _Survey, wrote: bool) -> int:
    sys.stdout.write(closing(len(survey.files), 0, 0, wrote, unsought=survey.seen.unsought))
    return NOTHING


def _parser() -> argparse.ArgumentParser:
    from ..console import Parser

    parser = Parser(
        prog="codemod",
        description="Move code from the old losses to training_losses. Prints a diff; writes only with --write.",
        epilog="Exit code: 0 nothing to do, 1 something to do or left undone, 2 errors.",
    )
    add = parser.add_argument
    add("paths", nargs="*", metavar="PATH", help="files and directories (default: .); - reads stdin")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--write", action="store_true", help="write the changes")
    mode.add_argument("--check", action="store_true", help="report without the diff (for CI)")
    mode.add_argument("--interactive", action="store_true", help="ask for each file, then write")
    mode.add_argument("--undo", action="store_true", help="take the last write back")
    mode.add_argument("--explain", metavar="RULE", help="explain a rule code and exit")
    add("--verify", metavar="COMMAND", help="with --write: run it before and after; take back what changes numbers")
    add("--diff", action="store_true", help="print the diff also with --write or --check")
    add("--force", action="store_true", help="write over uncommitted changes")
    add("--stdin-filename", metavar="NAME", help="name (and place) of what stdin holds")
    add("--format", choices=FORMATS, default="text", help="of the report")
    add("--json", dest="format", action="store_const", const="json", help="the same as --format json")
    add("--numbers", choices=NUMBERS, help="rewrite rows of parity exact only, also documented ones (default), or all")
    add("--catalog", action="append", metavar="FILE", help="use this catalog instead; repeatable")
    add("--select", action="append", metavar="NAME", help="only these systems or symbols")
    add("--ignore", action="append", metavar="NAME", help="not these systems, symbols or rule codes of notes")
    add("--exclude", action="append", metavar="GLOB", help="skip these paths, in the syntax of .gitignore")
    add("--max-bytes", type=int, metavar="N", help=f"larger files are reported only (default {MAX_BYTES})")
    add("--thorough", action="store_true", help="search also large trees for all quoted paths")
    add("--no-gitignore", action="store_true", help="also treat files that git ignores")
    add("--jobs", type=int, metavar="N", help="processes that read and search (default 1)")
    return parser


def _settle(options: argparse.Namespace, start: str) -> None:
    """Fill in what the command line left out: pyproject.toml, then the defaults."""
    defaults = {"numbers": "documented", "max_bytes": MAX_BYTES, "jobs": 1}
    for key, value in {**defaults, **config.load(start)}.items():
        if getattr(options, key) is None:
            setattr(options, key, value)
    if options.jobs < 1 or options.max_bytes < 1:
        raise FileError("TL092", "--jobs and --max-bytes must be positive")


def _rules(options: argparse.Namespace) -> Rules:
    from pathlib import Path

    from ..catalog import CatalogError, builtin_paths, load_catalog, moved_paths
    from .codes import RULES
    from .rules import Rules

    try:
        own = [*builtin_paths(), *moved_paths()]
        catalog = load_catalog([Path(file) for file in options.catalog] if options.catalog else own)
    except CatalogError as error:
        raise FileError("TL092", str(error)) from error
    rules = Rules(catalog, options.numbers, tuple(_names(options.select)), tuple(_names(options.ignore)))
    start = (options.stdin_filename or ".") if options.paths == ["-"] else (options.paths or ["."])[0]
    rules.width, rules.python = config.style(start)
    known = {name for s in catalog.symbols for name in (s.system, s.old, s.name, f"{s.system}:{s.old}", *s.all_paths)}
    for name in (*rules.select, *rules.ignore):
        if name not in known and not (name in RULES and name in rules.ignore):
            raise FileError("TL092", f"{name!r} is no system or symbol of the catalog")
    return rules


def _run(options: argparse.Namespace, survey: _Survey | None = None) -> int:
    if options.explain:
        return _explain(options.explain)
    paths: list[str] = options.paths or ["."]
    if paths[0] == "-":
        return _stdin(options)
    for path in paths:
        if not os.path.exists(path):
            raise FileError("TL092", f"{path}: no such file or directory")
    if options.undo:
        return _undo(paths[0])
    _settle(options, paths[0])
    wrote = bool(options.write or options.interactive)
    look = None
    if options.catalog or options.select or options.ignore:
        rules = _rules(options)  # what was named is checked before anything else
        look = of_catalog(rules.catalog) if options.catalog else None
    survey = survey or _Survey(
        paths, look, not options.no_gitignore, options.exclude or (), options.jobs, options.thorough
    )
    if survey.empty and options.format == "text":
        return _nothing(survey, wrote)
    outcome = _decide(survey, options)
    if options.interactive:
        declined = _ask(outcome.changes)
        if declined:
            # what was declined stays everywhere, so everything is decided anew without it
            outcome = _decide(survey, options, declined)
    if options.verify is not None:
        return _verified(outcome, options, paths)
    if wrote:
        _write(outcome, paths[0], options.force)
    outcome.findings = [f for f in outcome.findings if f.code not in _names(options.ignore)]
    _print(outcome, options, wrote)
    if outcome.errors:
        return ERRORS
    return SOMETHING if outcome.left or (outcome.changes and not wrote) else NOTHING


def _verified(outcome: Outcome, options: argparse.Namespace, paths: Sequence[str]) -> int:
    """Write, with a command run before and after; the write is taken back if it shows a deviation."""
    import shlex

    from ..watch.written import verified

    if not options.write or len(paths) != 1 or not os.path.isdir(paths[0]):
        raise FileError("TL092", "--verify goes with --write and one directory")

    def write() -> list[dict[str, Any]]:
        _write(outcome, paths[0], options.force)
        return [{**vars(finding)} for finding in outcome.findings]

    def undo() -> None:
        _undo(paths[0])

    code = verified(paths[0], shlex.split(options.verify), write, undo, options.catalog or [])
    outcome.findings = [f for f in outcome.findings if f.code not in _names(options.ignore)]
    if code == NOTHING:
        _print(outcome, options, True)
        return ERRORS if outcome.errors else SOMETHING if outcome.left else NOTHING
    return code


class _Survey:
    """The files of a run and what the first look at them found; the rest of the codemod is loaded if it is needed."""

    def __init__(
        self,
        paths: Sequence[str],
        look: Scout | None = None,
        gitignore: bool = True,
        exclude: Sequence[str] = (),
        jobs: int = 1,
        thorough: bool = False,
    ) -> None:
        self.files: dict[str, str] = {}
        unreadable: list[tuple[str, OSError]] = []
        for top in paths:
            for path, kind in walk(top, lambda *failure: unreadable.append(failure), gitignore, exclude):
                self.files.setdefault(path, kind)
        self.look = look or scout(builtin_texts())
        self.seen: Seen = search(self.look, list(self.files.items()), _progress(), jobs, thorough)
        self.seen.failed += unreadable

    @property
    def empty(self) -> bool:
        return not (self.seen.found or self.seen.failed)


def _decide(survey: _Survey, options: argparse.Namespace, blocked: Collection[str] = ()) -> Outcome:
    """Look at the files again and decide; ``blocked`` symbols stay."""
    from .project import Project

    rules = _rules(options)
    rules.blocked.update(blocked)
    project = Project(rules, options.max_bytes, look=survey.look)
    project.take_up(survey.files, survey.seen)
    return project.finish(project.decide()) if project.outcome.matched else project.outcome


def _print(outcome: Outcome, options: argparse.Namespace, wrote: bool) -> None:
    from . import report

    show = options.diff or not (wrote or options.check)
    if options.format == "json":
        sys.stdout.write(report.as_json(outcome, wrote, show))
    elif options.format == "sarif":
        sys.stdout.write(report.sarif(outcome.findings, _version()))
    elif options.format == "github":
        sys.stdout.write(report.github(outcome.findings))
    else:
        sys.stdout.write(report.text(outcome, wrote, show))


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("training-losses")
    except metadata.PackageNotFoundError:
        return "0"


def _names(values: list[str] | None) -> list[str]:
    return [name.strip() for value in values or [] for name in value.split(",") if name.strip()]


def _progress() -> Callable[[int, str], None] | None:
    """A counter on stderr, on a terminal only."""
    if not sys.stderr.isatty():
        return None

    def show(count: int, path: str) -> None:
        if count % 50 == 0:
            sys.stderr.write(f"\r\x1b[K{count} files  {path[-60:]}")
            sys.stderr.flush()
        if count < 0:
            sys.stderr.write("\r\x1b[K")

    return show


def _explain(code: str) -> int:
    from .codes import RULES

    rule = RULES.get(code.upper())
    if rule is None:
        raise FileError("TL092", f"unknown rule {code!r} (known: {', '.join(RULES)})")
    print(f"{code.upper()}: {rule.title} ({rule.level})\n\n{rule.text}")
    return NOTHING


def _stdin(options: argparse.Namespace) -> int:
    """Rewrite standard input to standard output; the report goes to stderr."""
    from . import report
    from .project import Project

    name: str = options.stdin_filename or "stdin.py"
    _settle(options, name if os.path.isdir(os.path.dirname(os.path.abspath(name))) else ".")
    project = Project(_rules(options), options.max_bytes)
    data = sys.stdin.buffer.read()
    project.outcome.scanned = 1
    project.take(name, data, KINDS.get(os.path.splitext(name)[1], "python"))
    outcome = project.finish(project.decide())
    new = outcome.changes[0].new if outcome.changes else data
    sys.stdout.buffer.write(new)
    sys.stdout.flush()
    sys.stderr.write("".join(f"{report.line(f)}\n" for f in outcome.findings if f.level != "change"))
    if outcome.errors:
        return ERRORS
    return SOMETHING if outcome.left else NOTHING


def _ask(changes: list[Change]) -> set[str]:
    """Show each diff and ask; returns the symbols of the declined files."""
    from . import report

    declined: set[str] = set()
    everything = False
    for index, change in enumerate(changes):
        if everything:
            break
        sys.stdout.write(report.diff(change))
        try:
            answer = input(f"rewrite {change.path}? [y]es, [n]o, [a]ll, [q]uit: ").strip().lower()
        except EOFError:
            answer = "q"
        if answer in ("a", "all"):
            everything = True
        elif answer in ("q", "quit"):
            return declined.union(*(c.symbols for c in changes[index:]))
        elif answer not in ("y", "yes"):
            declined |= change.symbols
    return declined


def _undo(path: str) -> int:
    from pathlib import Path

    from .files import exclusive, journal_directory, undo

    directory = journal_directory(Path(path))
    with exclusive(directory):
        restored, changed = undo(directory)
    print("".join(f"restored {name}\n" for name in restored) + f"{len(restored)} files restored.")
    for name in changed:
        print(f"codemod: {name} was changed since the codemod wrote it; it was left", file=sys.stderr)
    return ERRORS if changed else NOTHING


def _write(outcome: Outcome, path: str, force: bool) -> None:
    from pathlib import Path

    from .files import check_writable, exclusive, journal_directory, replace, uncommitted, write_journal

    ready = [c for c in outcome.changes if _attempt(outcome, c, check_writable, c.path)]
    outcome.changes = ready
    if not ready:
        return
    dirty = [] if force else uncommitted([change.path for change in ready])
    if dirty:
        shown = ", ".join(dirty[:5]) + (" ..." if len(dirty) > 5 else "")
        raise FileError("TL096", f"uncommitted changes in {shown}: commit them, or use --force. Nothing was written.")
    directory = journal_directory(Path(path))
    with exclusive(directory):
        write_journal(directory, [(c.path, c.old, c.new) for c in ready])
        outcome.changes = [c for c in ready if _attempt(outcome, c, replace, c.path, c.new, c.old)]


def _attempt(outcome: Outcome, change: Change, action: Callable[..., None], *arguments: Any) -> bool:
    """A file that cannot be written is an error of its own and does not end the run."""
    try:
        action(*arguments)
    except FileError as error:
        from .text import Finding

        outcome.findings = [f for f in outcome.findings if f not in change.findings]
        outcome.findings.append(Finding(change.path, 1, 1, error.code, "error", str(error)))
        return False
    return True
