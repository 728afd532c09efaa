"""The kinds of edits as commands of ``libcst.codemod``: ``Move`` does all of them, and each kind has one of its name.

    python -m libcst.tool codemod --no-format -x training_losses.migration.codemod.edits.commands.Move FILE ...

Each file is decided by itself: what concerns several (re-exports, all or nothing of a loss) only the codemod sees.
A single kind makes its part of the edits and is for review, or for a chain of commands of one's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import libcst as cst
from libcst.codemod import CodemodCommand, CodemodContext

from ...catalog import builtin_catalog, load_catalog
from .. import config
from ..project import Project
from ..rules import Rules
from .base import Editor, Wanted, editors
from .tree import transformed


class Move(CodemodCommand):
    """Moves a file from the old losses to the new ones."""

    DESCRIPTION = "Move code from the old losses to their successors."
    KINDS: ClassVar[Sequence[type[Editor]]] = editors()

    def __init__(self, context: CodemodContext, numbers: str = "documented", catalog: Sequence[str] = ()) -> None:
        super().__init__(context)
        self.numbers, self.catalog = numbers, catalog

    @staticmethod
    def add_args(arg_parser: argparse.ArgumentParser) -> None:
        arg_parser.add_argument("--numbers", choices=config.NUMBERS, default="documented", help="which rows are moved")
        arg_parser.add_argument(
            "--catalog", action="append", default=[], metavar="FILE", help="use this catalog instead"
        )

    def transform_module_impl(self, tree: cst.Module) -> cst.Module:
        """The tree after the edits; what is left is a warning."""
        path = self.context.filename or "stdin.py"
        catalog = load_catalog([Path(file) for file in self.catalog]) if self.catalog else builtin_catalog()
        rules = Rules(catalog, self.numbers)
        rules.width, rules.python = config.style(path)
        project = Project(rules)
        project.take(path, tree.bytes, "python")
        project.decide()
        for finding in project.outcome.findings:
            self.warn(f"{finding.path}:{finding.line}: {finding.code} {finding.message}")
        text = tree.code
        if path not in project.made or project.modules[path].source.text != text:
            return tree
        plan, _ = project.made[path]
        serves = tuple(one for kind in self.KINDS for one in kind.serves)
        asked = [request for request in plan.edits if isinstance(request, serves)]
        return transformed(tree, Wanted(tree, text, asked), self.KINDS, rules.width) if asked else tree


def _command(kind: type[Editor]) -> type[Move]:
    description = (kind.__doc__ or "").strip()
    members = {"__doc__": description, "__module__": __name__, "KINDS": (kind,), "DESCRIPTION": description}
    return type(kind.__name__, (Move,), members)


globals().update({kind.__name__: _command(kind) for kind in editors()})
