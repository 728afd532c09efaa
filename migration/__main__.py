"""``python -m training_losses``: everything that leads from the old losses to the new ones."""

from __future__ import annotations

import argparse
import json
import os
import runpy
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .catalog import Case, Catalog, CatalogError, Symbol, builtin_catalog, load_catalog
from .console import MissingPackage, Parser, say, show_table
from .watch.cli import ShadowError, add_shadow, add_verify, shadowed

__all__ = ["main", "parse"]

OK, FINDINGS, ERROR, INTERRUPTED = 0, 1, 2, 130


def _fail(message: str) -> int:
    say(f"error: {message}", "red", stderr=True)
    return ERROR


def _catalog(arguments: argparse.Namespace) -> Catalog:
    return load_catalog(arguments.catalog) if arguments.catalog else builtin_catalog()


def _row(case: Case) -> dict[str, Any]:
    return {
        "when": case.describe(),
        "new": case.new,
        "registry": case.registry,
        "parity": case.parity,
        "domain": case.domain,
        "deviations": list(case.deviations),
        "reason": case.reason,
        "arguments": {name: _fate(argument) for name, argument in case.arguments.items()},
        "pins": {pin.name: {"value": pin.value, "reason": pin.reason} for pin in case.pins.values()},
        "forward": {name: _fate(argument) for name, argument in (case.forward or {}).items()},
        "results": {key: result.new or f"dropped: {result.drop}" for key, result in case.results.items()},
        "state": {rule.old or "(nothing)": ", ".join(rule.new) or f"dropped: {rule.drop}" for rule in case.state},
    }


def _fate(argument: Any) -> str:
    if argument.drop is not None:
        return f"dropped: {argument.drop}"
    if argument.report is not None:
        return f"reported: {argument.report}"
    change = f" x {argument.scale:g}" if argument.scale else " (inverted)" if argument.invert else ""
    values = f" by {dict(argument.map)}" if argument.map and all(isinstance(k, str) for k, _ in argument.map) else ""
    return f"{argument.new_name}{change}{values}"


def _show(symbol: Symbol) -> dict[str, Any]:
    return {
        "old": symbol.old,
        "system": symbol.system,
        "paths": list(symbol.all_paths),
        "twin": symbol.twin,
        "deprecated_in": symbol.deprecated_in,
        "removed_in": symbol.removed_in,
        "rows": [_row(case) for case in symbol.cases],
    }


_PARITY = {"exact": "bold green", "documented": "bold blue", "fixed": "bold yellow"}


def _print_symbol(data: dict[str, Any]) -> None:
    say(f"{data['old']}  ({data['system']})", "bold")
    say(f"  twin: {data['twin']}, deprecated in {data['deprecated_in']}, removed in {data['removed_in']}")
    say("  old paths: " + ", ".join(data["paths"]))
    for row in data["rows"]:
        condition = f" if {row['when']}" if row["when"] else ""
        say(f"\n-> {row['new'] or 'no successor'}{condition}  [{row['parity']}]", _PARITY.get(row["parity"], ""))
        for key in ("domain", "reason"):
            if row[key]:
                say(f"   {key}: {row[key]}")
        for deviation in row["deviations"]:
            say(f"   deviation: {deviation}")
        lines = []
        for key, word in (("arguments", "argument"), ("forward", "forward"), ("results", "result"), ("state", "state")):
            lines += [(word, old, new) for old, new in row[key].items()]
        lines += [("pin", name, f"{pin['value']!r} ({pin['reason']})") for name, pin in row["pins"].items()]
        if lines:
            say("")
            show_table("", ("what", "old", "new"), lines, text_columns=3)


def _run_catalog(arguments: argparse.Namespace) -> int:
    catalog = _catalog(arguments)
    if arguments.action == "show":
        found = catalog.find(arguments.name)
        if not found:
            import difflib

            names = [name for symbol in catalog.symbols for name in (symbol.name, symbol.old, *symbol.all_paths)]
            close = difflib.get_close_matches(arguments.name, names, n=3)
            return _fail(f"no row for {arguments.name!r}" + (f"; did you mean {', '.join(close)}?" if close else ""))
        data = [_show(symbol) for symbol in found]
        if arguments.json:
            print(json.dumps(data, indent=2, default=repr))
        else:
            for number, symbol_data in enumerate(data):
                say("") if number else None
                _print_symbol(symbol_data)
        return OK
    from .catalog.check import check_catalog

    problems = check_catalog(catalog)
    rows = sum(len(symbol.cases) for symbol in catalog.symbols)
    paths = sum(len(symbol.all_paths) for symbol in catalog.symbols)
    if arguments.json:
        print(
            json.dumps({"symbols": len(catalog.symbols), "rows": rows, "paths": paths, "problems": problems}, indent=2)
        )
    else:
        for problem in problems:
            say(problem, "red")
        total = f"{len(catalog.symbols)} symbols, {rows} rows, {paths} old paths: {len(problems)} problems"
        say(total, "bold red" if problems else "green")
    return FINDINGS if problems else OK


def _run_script(arguments: argparse.Namespace) -> int:
    script = Path(arguments.script)
    if not script.is_file():
        return _fail(f"SCRIPT {arguments.script!r} does not exist or is no file")
    from deprecation import DeprecatedWarning

    from .shims import install_for_children

    install_for_children()
    if not sys.warnoptions:
        warnings.simplefilter("default", DeprecatedWarning)
    sys.argv = [arguments.script, *arguments.arguments]
    sys.path.insert(0, str(script.resolve().parent))

    def go() -> int:
        runpy.run_path(str(script), run_name="__main__")
        return OK

    try:
        return shadowed(arguments, go)
    except ShadowError as error:
        return _fail(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m training_losses", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    catalog = commands.add_parser(
        "catalog",
        help="check or show the table of old and new names",
        description="The table of old and new names, on which all other commands rest.",
    )
    actions = catalog.add_subparsers(dest="action", required=True)
    check = actions.add_parser("check", help="compare the catalog with the twins and the new losses")
    show = actions.add_parser("show", help="everything about an old name")
    show.add_argument("name", metavar="OLD.NAME", help="full old path, module.Name, or a bare name")
    for action in (check, show):
        action.add_argument("--catalog", type=Path, action="append", metavar="FILE", help="read this file instead")
        action.add_argument("--json", action="store_true", help="machine-readable output")
        action.set_defaults(run=_run_catalog)

    run = commands.add_parser(
        "run",
        help="run an unmodified old script with the old import paths served",
        description="Runs SCRIPT as `python SCRIPT ARGS` does. Old imports lead to the frozen twins, and warn.",
    )
    add_shadow(run)
    run.add_argument("script", metavar="SCRIPT", help="path of a Python file")
    run.add_argument("arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="its own arguments")
    run.set_defaults(run=_run_script)

    commands.add_parser("codemod", help="move a repository to the new losses", add_help=False)
    _add_checkpoint(commands)
    _add_report(commands)
    _add_compare(commands)
    add_verify(commands)
    demo = commands.add_parser(
        "demo",
        help="migrate the example repository and compare its runs before and after",
        description="Runs a small training repository before and after its migration, in a temporary folder, and draws "
        "both curves. Exit code 1: a run deviates.",
    )
    demo.add_argument("--output", type=Path, default=Path("demo-output"), help="where the PNG and the JSON go")
    demo.add_argument("--only", metavar="NAME", action="append", help="scripts to run (default: all)")
    demo.add_argument("--json", action="store_true", help="machine-readable output")
    demo.set_defaults(run=_run_demo)
    return parser


def _add_checkpoint(commands: Any) -> None:
    parser = commands.add_parser(
        "checkpoint",
        help="rename the keys of old losses in a checkpoint file",
        description="Lists the keys that would change. --write writes a new file; the given one is never touched.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help=".pt, .pth, .ckpt or .safetensors")
    parser.add_argument("--write", action="store_true", help="write the converted file")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to (default: FILE with .migrated)")
    parser.add_argument("--force", action="store_true", help="replace an existing output file")
    parser.add_argument("--reverse", action="store_true", help="from new keys back to old ones")
    parser.add_argument(
        "--loss", action="append", default=[], metavar="PREFIX=OLD.NAME", help="which old loss stands below a prefix"
    )
    parser.add_argument("--skip", action="append", default=[], metavar="PREFIX", help="leave these keys alone")
    parser.add_argument(
        "--drop-optimizer", action="store_true", help="empty optimizer states that number their parameters"
    )
    parser.add_argument(
        "--order",
        choices=("module", "name", "file"),
        help="where several fit, in which the program hands parameters to its optimizer: as parameters() gives them, "
        "sorted by name, or in an order of its own that the new program keeps",
    )
    parser.add_argument(
        "--trust", action="store_true", help="load pickled objects, which can run code: for your own files only"
    )
    parser.add_argument("--catalog", type=Path, action="append", metavar="FILE", help="read this file instead")
    parser.add_argument("--json", action="store_true", help="machine-readable output")
    parser.set_defaults(run=_run_checkpoint)


def _run_checkpoint(arguments: argparse.Namespace) -> int:
    from .checkpoint import CheckpointError, convert_file

    try:
        plan, written = convert_file(
            arguments.file,
            _catalog(arguments),
            output=arguments.output,
            write=arguments.write,
            losses=arguments.loss,
            skip=arguments.skip,
            trust=arguments.trust,
            reverse=arguments.reverse,
            force=arguments.force,
            drop_optimizer=arguments.drop_optimizer,
            order=arguments.order,
        )
    except CheckpointError as error:
        return _fail(str(error))
    if arguments.json:
        data = {
            "changes": [vars(c) for c in plan.changes],
            "problems": plan.problems,
            "notes": plan.notes,
            "written": written and str(written),
        }
        print(json.dumps(data, indent=2))
    else:
        rows = [(c.place, c.old, c.new or "dropped", c.symbol, c.note) for c in plan.changes]
        if rows:
            show_table("", ("where", "key", "becomes", "loss", "note"), rows, text_columns=5)
        for word, texts, style in (("note", plan.notes, "yellow"), ("not understood", plan.problems, "red")):
            for text in texts:
                say(f"{word}: {text}", style)
        if plan.empty:
            say("nothing to convert: no keys of old losses")
        elif written is not None:
            say(f"{len(plan.changes)} keys converted, written to {written}", "green")
        elif plan.problems:
            say("nothing was written", "bold red")
        else:
            say(f"{len(plan.changes)} keys would change; --write converts")
    return ERROR if plan.problems else FINDINGS if plan.changes and not arguments.write else OK


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="run the parity suite and write an HTML page, JSON and Markdown",
        description="Runs the parity records of a checkout: every old loss against its successor.",
    )
    report.add_argument("--output", type=Path, default=Path("parity-report"), help="folder (default: parity-report)")
    report.add_argument("--only", metavar="TEXT", action="append", default=[], help="records with TEXT in their name")
    report.add_argument("--json", action="store_true", help="print the JSON and not the table")
    report.set_defaults(run=_run_report)


def _run_report(arguments: argparse.Namespace) -> int:
    from .report import ReportError, run_report

    try:
        return run_report(arguments.output, only=arguments.only, as_json=arguments.json)
    except (ReportError, OSError) as error:
        return _fail(str(error))


def _add_compare(commands: Any) -> None:
    compare = commands.add_parser(
        "compare",
        help="an old loss and its successor side by side on your own tensors",
        description="The tensors are the arguments of the old call, by name; exit code 1: they deviate, 2: bad input.",
    )
    compare.add_argument("name", metavar="OLD.NAME", help="full old path, module.Name, or a bare name")
    source = compare.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="FILE", help=".npz or .pt: arguments by name, or a list of such")
    source.add_argument("--entry", metavar="MODULE:FUNCTION", help="function that yields the arguments of each batch")
    compare.add_argument("--args", default="{}", metavar="JSON", help="arguments of the old constructor")
    compare.add_argument("--state", type=Path, metavar="FILE", help="state_dict of the old loss to start from")
    compare.add_argument("--batches", type=int, default=20, metavar="N", help="at most so many (default: 20)")
    compare.add_argument("--eval", action="store_true", help="compare in eval mode")
    compare.add_argument("--seed", type=int, default=0, help="of both, before each call (default: 0)")
    compare.add_argument(
        "--outside-domain",
        action="store_true",
        help="the data are known to lie outside the domain of a documented row: its deviations are no findings",
    )
    compare.add_argument("--json", action="store_true", help="machine-readable output")
    compare.set_defaults(run=_run_compare)


def _run_compare(arguments: argparse.Namespace) -> int:
    from .compare import CompareError, run_compare

    try:
        return run_compare(
            arguments.name,
            data=arguments.data,
            entry=arguments.entry,
            args=arguments.args,
            state=arguments.state,
            batches=arguments.batches,
            train=not arguments.eval,
            seed=arguments.seed,
            outside_domain=arguments.outside_domain,
            as_json=arguments.json,
        )
    except CompareError as error:
        return _fail(str(error))


def _run_demo(arguments: argparse.Namespace) -> int:
    from .demo import run_demo

    return run_demo(arguments.output, only=arguments.only, as_json=arguments.json)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options of a command line.

    Raises:
        SystemExit: with code 2, after a message, if it is wrong.
    """
    if argv[:1] == ["codemod"]:
        from .codemod.cli import _parser as codemod_parser

        return codemod_parser().parse_args(argv[1:])
    return _parser().parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 fine, 1 findings, 2 errors."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["codemod"]:
        from .codemod.cli import main as codemod

        return codemod(given[1:])
    arguments = parse(given)
    try:
        code: int = arguments.run(arguments)
    except (CatalogError, MissingPackage) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        if arguments.command == "run":
            raise
        _fail("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # the reader (head, less) has seen enough; nothing may be flushed into the closed pipe at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return code


if __name__ == "__main__":
    sys.exit(main())
