"""The catalog as look-ups, and the decision where each row leads."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ..catalog import MISSING, Argument, Case, Catalog, Symbol


@dataclass(frozen=True)
class Target:
    """What an old name becomes: a class or function of a module, the twin or the successor."""

    module: str
    name: str
    case: Case
    twin: bool

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class Rules:
    """What the catalog says under the chosen ``numbers`` mode, for the selected symbols.

    ``reexports`` are further paths, found in the tree under migration, that lead to an old symbol: modules of the
    user's that import it and are imported by others. ``foreign`` are old paths that are somebody else's in this tree.
    """

    catalog: Catalog
    numbers: str = "documented"
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    width: int = 88
    """Longest line that a call may get."""
    python: tuple[int, int] = sys.version_info[:2]
    """The oldest Python that the code is for."""
    blocked: set[str] = field(default_factory=set)
    reexports: dict[str, Symbol] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.reexported: dict[str, dict[str, Symbol]] = {}
        self.reexporters: dict[str, dict[str, Symbol]] = {}
        """What a further path means in each file of that name."""
        self.by_path: dict[str, Symbol] = {
            path: symbol for path, symbol in self.catalog.by_path.items() if self.wanted(symbol)
        }
        self.modules: set[str] = {*self.catalog.modules, *self.catalog.packages}
        self.prefixes: set[str] = set()
        for path in (*self.modules, *(p.rpartition(".")[0] for p in self.by_path)):
            self._add_prefixes(path)
        self.in_module: dict[str, dict[str, Symbol]] = {}
        for path, symbol in self.by_path.items():
            module, _, name = path.rpartition(".")
            self.in_module.setdefault(module, {})[name] = symbol

    def _add_prefixes(self, path: str) -> None:
        while path and path not in self.prefixes:
            self.prefixes.add(path)
            path = path.rpartition(".")[0]

    def wanted(self, symbol: Symbol) -> bool:
        """Whether ``--select`` and ``--ignore`` leave the symbol in."""
        names = {symbol.system, symbol.old, symbol.name, f"{symbol.system}:{symbol.old}", *symbol.all_paths}
        if self.select and not names.intersection(self.select):
            return False
        return not names.intersection(self.ignore)

    def symbol(self, path: str) -> Symbol | None:
        """The old symbol that the full dotted ``path`` means, if it is one."""
        if path in self.foreign:
            return None
        return self.by_path.get(path) or self.reexports.get(path)

    def editable(self, path: str) -> bool:
        """Whether an import of ``path`` is to be rewritten (re-exports are followed, not rewritten)."""
        return path in self.by_path and path not in self.foreign

    def add_reexport(self, path: str, symbol: Symbol, file: str) -> bool:
        """Note that ``path`` leads to ``symbol`` by way of ``file``; ``False`` when that was known."""
        if path in self.by_path or file in self.reexporters.get(path, ()):
            return False
        self.reexporters.setdefault(path, {})[file] = symbol
        if path in self.reexports:
            return True
        self.reexports[path] = symbol
        module, _, name = path.rpartition(".")
        self.reexported.setdefault(module, {})[name] = symbol
        self._add_prefixes(module)
        return True

    def key(self, symbol: Symbol) -> str:
        """A name of the symbol that is unique over all systems."""
        return f"{symbol.system}:{symbol.old}"

    def leads_to_twin(self, case: Case) -> bool:
        """Whether the numbers mode sends this row to the frozen twin."""
        if case.new is None:
            return True
        if self.numbers == "new":
            return False
        return case.parity == "fixed" or (self.numbers == "exact" and case.parity != "exact")

    def target(self, symbol: Symbol, case: Case) -> Target:
        """Where a use of ``symbol`` under ``case`` leads."""
        twin = self.leads_to_twin(case)
        path = symbol.twin if twin or case.new is None else case.new
        module, _, name = path.rpartition(".")
        return Target(module, name, case, twin)

    def default_target(self, symbol: Symbol) -> Target | None:
        """The target of a call without arguments, or the only one that there is."""
        targets = {t.path: t for t in (self.target(symbol, case) for case in symbol.cases)}
        if len(targets) == 1:
            return next(iter(targets.values()))
        case = symbol.case_for({})
        return self.target(symbol, case) if case else None

    def only_twin(self, symbol: Symbol) -> bool:
        """Whether every use of the symbol leads to the twin, which behaves as the old class in all ways."""
        return all(self.leads_to_twin(case) for case in symbol.cases)

    def arguments_change(self, symbol: Symbol) -> bool:
        """Whether some call with old arguments would mean something else, or fail, under the new class."""
        targets = [self.target(symbol, case) for case in symbol.cases]
        if len({t.path for t in targets}) > 1:
            return True
        return any(
            not t.twin and (changes(t.case.arguments) or bool(self.pins(t.case, t.case.arguments, ()))) for t in targets
        )

    def pins(self, case: Case, signature: Mapping[str, Argument], passed: Collection[str]) -> list[tuple[str, object]]:
        """Arguments to add so that defaults that changed keep their old values."""
        if self.numbers == "new":
            return []
        found: list[tuple[str, object]] = [
            (argument.new_name, argument.pin)
            for name, argument in signature.items()
            if name not in passed and _has_pin(argument)
        ]
        if signature is case.arguments:
            found += [(pin.name, pin.value) for pin in case.pins.values()]
        return found

    def deep(self, text: str) -> bool:
        """Whether a string begins with an old path (of a module or a name)."""
        while "." in text:
            text = text.rpartition(".")[0]
            if text in self.by_path or text in self.catalog.modules:
                return True
        return False

    def leaves(self) -> set[str]:
        """Bare names of all symbols."""
        return {path.rpartition(".")[2] for path in self.by_path}


def _has_pin(argument: Argument) -> bool:
    return argument.pin is not MISSING


def changes(arguments: Mapping[str, Argument]) -> bool:
    """Whether any argument has another name, meaning or fate in the new signature."""
    return renames(arguments) or converts(arguments)


def renames(arguments: Mapping[str, Argument]) -> bool:
    """Whether an argument has another name."""
    return any(a.rename is not None and a.rename != a.name for a in arguments.values())


def converts(arguments: Mapping[str, Argument]) -> bool:
    """Whether an argument is dropped, or has another meaning or default."""
    return any(
        a.drop is not None or a.report is not None or a.map is not None or a.scale is not None or a.invert
        or _has_pin(a)
        for a in arguments.values()
    )  # fmt: skip
