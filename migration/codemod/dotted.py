"""Old dotted paths as values of configuration files: Hydra, Lightning, OmegaConf, registries that import.

A path is rewritten with the arguments beside or below it, by the row of the catalog, or it stays and is reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ..catalog import Case, Symbol
from .configs import Conversion, Converter, Entry, Result, plain, tree
from .jsontext import Node
from .rules import Rules, Target
from .sites import Blocker
from .text import Edit


class Form(NamedTuple):
    """How a library writes what it builds: the key of the path, where its arguments are, what is no argument."""

    key: str
    arguments: str = ""
    """The key of the table of arguments; empty: they stand beside the path."""
    apart: frozenset[str] = frozenset()


FORMS: Final = (
    Form("_target_", "", frozenset(["_recursive_", "_convert_", "_partial_", "_args_"])),  # Hydra
    Form("class_path", "init_args"),  # Lightning, jsonargparse
    Form("target", "params"),  # OmegaConf with a function that imports
    Form("_component_"),
    Form("type"),  # registries that also import
)


@dataclass
class Found(Result):
    """A result, with what it means for all files."""

    blockers: list[Blocker] = field(default_factory=list)
    targets: list[tuple[Symbol, Target]] = field(default_factory=list)


class Dotted(Converter):
    """Makes the edits of the old dotted paths in one configuration file."""

    def __init__(self, text: str, path: str, suffix: str, rules: Rules) -> None:
        super().__init__(text, path, suffix, rules)
        self.found = Found()
        self.form = Form("")

    def run(self) -> Found:
        """Edits and findings; what stays is a reason for its loss to stay everywhere.

        Raises:
            FileError: the file does not parse.
        """
        made: list[Conversion] = []
        for root in tree(self.text, self.suffix):
            for holder, key, node in values(root):
                path = node.value.replace(":", ".")
                symbol = self.rules.symbol(path)
                if symbol is not None and self.rules.editable(path):
                    made += self._path(root, holder, key, node, symbol)
        self._finish(made)
        for conversion in made:
            symbol = conversion.entry.symbol
            if conversion.finding is not None:
                self.found.blockers.append(Blocker(symbol, conversion.finding))
        self.found.edits, self.found.findings, self.found.symbols = (
            self.result.edits,
            self.result.findings,
            self.result.symbols,
        )
        return self.found

    def _path(self, root: Node, holder: Node | None, key: str, node: Node, symbol: Symbol) -> list[Conversion]:
        self.form = next((form for form in FORMS if form.key == key and holder is not None), Form(""))
        if not self.form.key or holder is None:
            return self._bare(node, symbol)
        arguments = holder.get(self.form.arguments) if self.form.arguments else holder
        entry = Entry(node, symbol, arguments, not self.form.arguments, holder)
        problem = self._incomplete(root, holder, symbol)
        return [Conversion(entry, problem)] if problem else self._entry(entry, key)

    def _bare(self, node: Node, symbol: Symbol) -> list[Conversion]:
        """A path of which it cannot be seen with which arguments the loss is built."""
        entry = Entry(node, symbol, None, False, node)
        if self.source.skipped(self.source.line_of(node.start)):
            return []
        if self.rules.arguments_change(symbol):
            return [Conversion(entry, "what builds it by this path, and with which arguments?")]
        target = self.rules.default_target(symbol)
        if target is None:
            return [Conversion(entry, "which successor is meant?")]
        return self._allowed(
            Conversion(entry, "", [self._renamed(entry, target)], [], [f"{node.value} -> {target.path}"])
        )

    def _incomplete(self, root: Node, holder: Node, symbol: Symbol) -> str:
        """Why the arguments in sight may not be all that the loss gets."""
        if not self.rules.arguments_change(symbol):
            return ""
        given = {name: plain(node) for name, (_, node) in holder.value.items() if name in ("_partial_", "_args_")}
        if given.get("_partial_") not in (None, False):
            return "_partial_: further arguments come later"
        if given.get("_args_"):
            return "_args_: arguments without names"
        if "dict_kwargs" in holder.value:
            return "dict_kwargs: arguments that the signature does not name"
        for step in root.get("defaults").items if root.get("defaults") is not None else ():  # type: ignore[union-attr]
            whole = isinstance(step.value, str) and step.value != "_self_"
            parts = list(step.value) if isinstance(step.value, dict) else []
            inside = [
                name for name in parts if root.get(name.split()[-1].partition("@")[2] or name.split()[-1]) is not None
            ]
            if whole or inside:
                return "defaults: other files may add arguments"
        return ""

    def _unrelated(self, entry: Entry, name: str) -> bool:
        return name in self.form.apart

    def _name(self, entry: Entry, case: Case, target: Target) -> str | None:
        self.found.targets.append((entry.symbol, target))
        old = str(entry.name.value)
        return f"{target.module}:{target.name}" if ":" in old else target.path

    def _renamed(self, entry: Entry, target: Target) -> Edit:
        new = self._name(entry, target.case, target)
        return Edit(entry.name.start, entry.name.end, self._scalar(new, entry.name))


def values(root: Node) -> Iterator[tuple[Node | None, str, Node]]:
    """Each string below ``root`` once, with the mapping and the key that it stands in (or none, in a list)."""
    seen: set[int] = set()
    todo: list[tuple[Node | None, str, Node]] = [(None, "", root)]
    while todo:
        holder, key, node = todo.pop()
        if isinstance(node.value, str):
            yield holder, key, node
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node.value, dict):
            todo += [(node, name, value) for name, (_, value) in reversed(node.value.items())]
        elif isinstance(node.value, list):
            todo += [(None, "", item) for item in reversed(node.value)]
