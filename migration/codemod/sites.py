"""What the imports of a module bind, and what is reported."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..catalog import Case, Symbol
from .edits.requests import Request
from .rules import Rules, Target
from .scopes import Scope, Scopes
from .text import Finding, Source


@dataclass(eq=False)
class Site:
    """One imported name, or one module import: what an import statement binds."""

    statement: ast.Import | ast.ImportFrom
    index: int
    scope: Scope
    local: str
    symbol: Symbol | None
    path: str
    editable: bool
    targets: dict[str, Target] = field(default_factory=dict)
    used: bool = False
    escaped: bool = False

    @property
    def alias(self) -> ast.alias:
        return self.statement.names[self.index]


@dataclass(eq=False)
class Use:
    """One reference to an old symbol. ``target`` is set for calls, whose arguments tell the case."""

    symbol: Symbol
    node: ast.expr
    kind: str
    site: Site | None
    target: Target | None = None
    edits: list[Request] = field(default_factory=list)
    changes: list[tuple[str, int, str]] = field(default_factory=list)


@dataclass
class Blocker:
    """A reason why a symbol cannot be rewritten anywhere."""

    symbol: Symbol
    finding: Finding


Instance = tuple[Symbol, Case, Target]


class Imports:
    """The imports of old symbols in one module.

    Args:
        source: the text.
        tree: its syntax tree.
        rules: the catalog.
        packages: dotted names that the directory of the file may have as a package (for relative imports).
        modules: dotted names that the file itself may have.
        is_package: the file is an ``__init__``.
        standalone: the text is a notebook or a document; nobody imports from it.
    """

    def __init__(
        self,
        source: Source,
        tree: ast.Module,
        rules: Rules,
        packages: Sequence[str] = (),
        modules: Sequence[str] = (),
        is_package: bool = False,
        standalone: bool = False,
    ) -> None:
        self.source, self.rules = source, rules
        self.packages, self.modules, self.is_package, self.standalone = packages, modules, is_package, standalone
        self.scopes = Scopes(tree)
        self.sites: dict[int, Site] = {}
        self.uses: list[Use] = []
        self.blockers: list[Blocker] = []
        self.notes: list[tuple[Symbol | None, Finding]] = []
        self.chain_sites: list[Site] = []
        self.constructed: dict[ast.Call, list[Instance]] = {}
        self.forwarded: dict[ast.Call, list[Instance]] = {}
        self.handled: set[ast.AST] = set()
        self.string_edits: list[tuple[Symbol, Target, list[Request], Finding]] = []
        self.interesting: set[str] = set()
        self.looked_up: set[str] = set()
        self.self_attributes: dict[tuple[ast.AST, str], list[ast.AST]] = {}
        self.returns: dict[ast.AST, list[ast.AST]] = {}
        self.stars: list[tuple[ast.ImportFrom, str]] = []
        self.followed: dict[str, Symbol] = {}
        """Names by a star import of a file of the tree that re-exports them; it stays as it is."""
        self.star_uses: dict[int, dict[str, list[Use]]] = {}
        self._find_imports()
        self.interesting |= set(self.followed)
        self.relevant = bool(self.sites or self.stars or self.followed)

    # -- reporting ----------------------------------------------------------------------------------------------------

    def names_read(self) -> Iterator[ast.Name]:
        """Where a name is read that may lead to an old symbol."""
        return (n for n in self.scopes.names if isinstance(n.ctx, ast.Load) and n.id in self.interesting)

    def finding(self, node: ast.AST, code: str, level: str, message: str, symbol: str = "") -> Finding:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        return Finding(self.source.path, self.source.real_line(line), column + 1, code, level, message, symbol)

    def block(self, symbol: Symbol, node: ast.AST, code: str, message: str) -> None:
        """The symbol cannot be rewritten because of ``node``; a twin takes any use that the old class took."""
        if self.rules.only_twin(symbol) and code not in ("TL038", "TL039", "TL040"):
            return
        self.blockers.append(Blocker(symbol, self.finding(node, code, "left", message, symbol.name)))

    def note(self, symbol: Symbol, node: ast.AST, code: str, message: str) -> None:
        self.notes.append((symbol, self.finding(node, code, "note", message, symbol.name)))

    # -- imports ------------------------------------------------------------------------------------------------------

    def absolute(self, node: ast.ImportFrom) -> list[str]:
        """Dotted names that the module of a ``from`` import may have."""
        if node.level == 0:
            return [node.module] if node.module else []
        found = []
        for package in self.packages:
            parts = package.split(".")
            if node.level - 1 < len(parts):
                base = parts[: len(parts) - node.level + 1]
                found.append(".".join([*base, node.module] if node.module else base))
        return found

    def _find_imports(self) -> None:
        for statement in self.scopes.imports:
            scope = self.scopes.scope_of[statement]
            if isinstance(statement, ast.Import):
                for index, alias in enumerate(statement.names):
                    if alias.name in self.rules.prefixes:
                        local = alias.asname or alias.name.partition(".")[0]
                        self._site(
                            Site(statement, index, scope, local, None, alias.name, alias.name in self.rules.modules)
                        )
                continue
            for module in self.absolute(statement):
                if self._from(statement, module, scope):
                    break

    def _from(self, statement: ast.ImportFrom, module: str, scope: Scope) -> bool:
        found = False
        for index, alias in enumerate(statement.names):
            if alias.name == "*":
                if module in self.rules.in_module:
                    self.stars.append((statement, module))
                    found = True
                elif module in self.rules.reexported:
                    found_names = {name: self.symbol(f"{module}.{name}") for name in self.rules.reexported[module]}
                    self.followed.update((n, s) for n, s in found_names.items() if s is not None and n[:1] != "_")
                    found = True
                continue
            path = f"{module}.{alias.name}"
            symbol = self.symbol(path)
            if path in self.rules.foreign:
                message = f"{path} is defined in this tree and is not the old one"
                self.notes.append((None, self.finding(statement, "TL044", "note", message)))
            local = alias.asname or alias.name
            if symbol is not None and path in self.rules.prefixes and self._used_as_module(local, path):
                symbol = None
            if symbol is not None:
                self._site(Site(statement, index, scope, local, symbol, path, self.rules.editable(path)))
                found = True
            elif path in self.rules.prefixes:
                self._site(Site(statement, index, scope, local, None, path, path in self.rules.modules))
                found = True
        return found

    def symbol(self, path: str) -> Symbol | None:
        """The old symbol that ``path`` means in this file: of modules with one name, the one beside the file counts."""
        known = self.rules.reexporters.get(path)
        if known is None:
            return self.rules.symbol(path)
        place = os.path.join(os.path.dirname(os.path.abspath(self.source.path)), *path.split(".")[:-1])
        beside = next((f for f in (f"{place}.py", os.path.join(place, "__init__.py")) if os.path.isfile(f)), None)
        return known.get(beside) if beside else self.rules.symbol(path)

    def _used_as_module(self, local: str, path: str) -> bool:
        """A name that is both a function and a submodule of the old package: is it used as the module?"""
        names = self.rules.in_module.get(path, {})
        return any(
            node.id == local
            and isinstance(parent := self.scopes.parents.get(node), ast.Attribute)
            and parent.attr in names
            for node in self.scopes.names
        )

    def _site(self, site: Site) -> None:
        if self.source.skipped(site.statement.lineno, site.statement.end_lineno):
            return
        if site.local in site.scope.outer:
            site.scope = site.scope.target(site.local)
        self.sites[id(site.alias)] = site
        self.interesting.add(site.local)

    def _suppress(self) -> None:
        """A use on a line with ``# codemod: skip`` takes its import, and so all uses of that import, out."""
        if "codemod:" not in self.source.text:
            return
        for name in self.scopes.names:
            if name.id in self.interesting and self.source.skipped(name.lineno):
                resolved = self.scopes.resolve(name.id, self.scopes.scope_of[name])
                for binding in resolved[1] if resolved else ():
                    self.sites.pop(id(binding.node), None)

    def _find_guards(self) -> None:
        """Names that are imported from an old place and from elsewhere too are somebody's own compatibility code."""
        for site in self.sites.values():
            others = [
                b
                for b in site.scope.bindings.get(site.local, [])
                if b.kind == "import" and id(b.node) not in self.sites and site.symbol is not None
            ]
            if others and site.editable and site.symbol is not None:
                site.editable = False
                self.notes.append(
                    (
                        None,
                        self.finding(
                            site.statement, "TL025", "left", f"{site.local} is imported from elsewhere as well"
                        ),
                    )
                )
