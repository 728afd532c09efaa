"""What an expression stands for: old symbols, by any name that leads to them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..catalog import Symbol
from .scopes import Binding, Scope, callee, is_none, neighbours
from .sites import Imports, Site

PATCHERS = frozenset({"setattr", "object", "delattr", "multiple"})


@dataclass
class Reference:
    """What an expression may stand for: old symbols, and whether nothing else."""

    symbols: dict[str, Symbol] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)
    pure: bool = True

    def join(self, other: Reference | None) -> None:
        if other is None:
            self.pure = False
            return
        self.symbols.update(other.symbols)
        self.sites += other.sites
        self.pure = self.pure and other.pure


class References(Imports):
    """Names and attributes that stand for old symbols, and what is done with them."""

    def _find_aliases(self) -> None:
        for statement, module in self.stars:
            self.star_uses[id(statement)] = {}
            self.interesting |= set(self.rules.in_module[module])
        grown = True
        while grown:
            grown = False
            for scope in self.scopes.all_scopes():
                for name, bindings in scope.bindings.items():
                    if name in self.interesting:
                        continue
                    if any(
                        b.kind == "assign" and b.value is not None and self._leads(b.value, scope) for b in bindings
                    ):
                        self.interesting.add(name)
                        grown = True

    def _leads(self, value: ast.expr, scope: Scope) -> bool:
        module = isinstance(value, ast.Call) and self._imported_module(value) is not None
        return module or self.refer(value, scope) is not None

    def exports(self) -> dict[str, Symbol]:
        """Module-level names of this file that stand for one old symbol."""
        found: dict[str, Symbol] = {}
        for name, bindings in self.scopes.module.bindings.items():
            if name not in self.interesting and not any(b.kind == "assign" for b in bindings):
                continue
            reference = self._name_reference(bindings, self.scopes.module, frozenset())
            if reference and len(reference.symbols) == 1:
                found[name] = next(iter(reference.symbols.values()))
        for _, module in self.stars:
            for name, symbol in self.rules.in_module[module].items():
                found.setdefault(name, symbol)
        for name, symbol in self.followed.items():
            found.setdefault(name, symbol)
        if "__getattr__" in self.scopes.module.bindings:
            found.update(self._lazy_names())
        return found

    def _lazy_names(self) -> dict[str, Symbol]:
        """Names that a table of lazy imports gives to a module with ``__getattr__``."""
        found = {}
        for node in self.scopes.strings:
            names = self.rules.in_module.get(self.absolute_path(str(node.value)), {})
            for other in neighbours(node, self.scopes.parents.get(node)) if names else ():
                if isinstance(other, ast.Constant) and other.value in names:
                    found[str(other.value)] = names[str(other.value)]
        return found

    def absolute_path(self, value: str) -> str:
        """A module path, relative ones resolved by the place of the file."""
        if not value.startswith("."):
            return value
        dots = len(value) - len(value.lstrip("."))
        fake = ast.ImportFrom(module=value.lstrip("."), names=[], level=dots)
        return next((m for m in self.absolute(fake) if m in self.rules.modules), value)

    # -- what an expression stands for --------------------------------------------------------------------------------

    def refer(self, node: ast.expr, scope: Scope | None = None, seen: frozenset[int] = frozenset()) -> Reference | None:
        """The old symbols that ``node`` may stand for; ``None`` if it stands for none."""
        if isinstance(node, ast.IfExp):
            parts = [self.refer(node.body, scope, seen), self.refer(node.orelse, scope, seen)]
            if not any(parts):
                return None
            joined = Reference()
            for part in parts:
                joined.join(part)
            return joined
        if isinstance(node, ast.NamedExpr):
            return self.refer(node.value, scope, seen)
        if isinstance(node, ast.Attribute):
            path = self.module_path(node)
            symbol = self.symbol(path[0]) if path else None
            if path is None or symbol is None:
                return None
            return Reference({self.rules.key(symbol): symbol}, [path[1]])
        if isinstance(node, ast.Name):
            if scope is None:
                scope = self.scopes.scope_of[node]
            resolved = self.scopes.resolve(node.id, scope)
            if resolved is None:
                return self._star_reference(node.id)
            return self._name_reference(resolved[1], resolved[0], seen)
        if isinstance(node, ast.Call) and callee(node.func) == "getattr" and len(node.args) >= 2:
            attribute = node.args[1]
            if isinstance(attribute, ast.Constant) and isinstance(attribute.value, str):
                base = self.module_path(node.args[0])
                symbol = self.symbol(f"{base[0]}.{attribute.value}") if base else None
                if base is not None and symbol is not None:
                    return Reference({self.rules.key(symbol): symbol}, [base[1]])
        return None

    def _star_reference(self, name: str) -> Reference | None:
        for _, module in reversed(self.stars):
            symbol = self.rules.in_module[module].get(name)
            if symbol is not None:
                return Reference({self.rules.key(symbol): symbol})
        symbol = self.followed.get(name)
        return Reference({self.rules.key(symbol): symbol}) if symbol is not None else None

    def _name_reference(self, bindings: Sequence[Binding], scope: Scope, seen: frozenset[int]) -> Reference | None:
        joined = Reference()
        others = 0
        for binding in bindings:
            site = self.sites.get(id(binding.node)) if binding.kind == "import" else None
            if site is not None and site.symbol is not None:
                joined.join(Reference({self.rules.key(site.symbol): site.symbol}, [site]))
            elif binding.kind in ("declared", "annotation") or is_none(binding.value):
                continue
            elif binding.kind == "assign" and binding.value is not None and id(binding) not in seen:
                reference = self.refer(binding.value, scope, seen | {id(binding)})
                if reference is None:
                    others += 1
                else:
                    joined.join(reference)
            elif id(binding) not in seen:
                others += 1
        if not joined.symbols:
            return None
        joined.pure = joined.pure and not others
        return joined

    def module_path(self, node: ast.expr) -> tuple[str, Site] | None:
        """The dotted path below an old module that ``node`` (a name or attribute chain) spells."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if isinstance(node, ast.Call):
            site = self._imported_module(node)
            return (".".join([site.path, *reversed(parts)]), site) if site else None
        if not isinstance(node, ast.Name) or node.id not in self.interesting or node not in self.scopes.scope_of:
            return None
        resolved = self.scopes.resolve(node.id, self.scopes.scope_of[node])
        if resolved is None:
            return None
        candidates: list[tuple[str, Site]] = []
        for binding in resolved[1]:
            site = self.sites.get(id(binding.node)) if binding.kind == "import" else None
            if site is None or site.symbol is not None:
                if binding.kind == "assign" and isinstance(binding.value, ast.Call):
                    site = self._imported_module(binding.value)
                if site is None or site.symbol is not None:
                    continue
                candidates.append((".".join([site.path, *reversed(parts)]), site))
                continue
            dotted = isinstance(site.statement, ast.Import) and not site.alias.asname
            root = site.path.partition(".")[0] if dotted else site.path
            candidates.append((".".join([root, *reversed(parts)]), site))
        # `import a.b` and `import a.c` both bind `a`: the statement that names most of the path provides it
        fitting = [c for c in candidates if c[0] == c[1].path or c[0].startswith(c[1].path + ".")] or candidates
        return max(fitting, key=lambda c: len(c[1].path)) if fitting else None

    def _imported_module(self, call: ast.Call) -> Site | None:
        """The site of ``importlib.import_module("old.module")``."""
        if callee(call.func) not in ("import_module", "__import__", "importorskip") or not call.args:
            return None
        argument = call.args[0]
        if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
            return None
        known = self.sites.get(id(argument))
        if known is not None:
            return known
        if argument.value not in self.rules.modules or callee(call.func) == "__import__":
            return None
        alias = ast.alias(argument.value, "")
        statement = ast.Import([alias], lineno=argument.lineno, col_offset=argument.col_offset)
        site = Site(statement, 0, self.scopes.scope_of[call], "", None, argument.value, True)
        self.sites[id(argument)] = site
        self.chain_sites.append(site)
        self.handled.add(argument)
        site.statement.end_lineno = argument.end_lineno
        site.statement.end_col_offset = argument.end_col_offset
        return site

    # -- what is done with it -----------------------------------------------------------------------------------------

    def context(self, node: ast.expr) -> str:
        """What the parent of a reference does with it."""
        child: ast.AST = node
        parent = self.scopes.parents.get(child)
        while isinstance(parent, (ast.Tuple, ast.IfExp, ast.Starred)) or (
            isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.BitOr)
        ):
            if isinstance(parent, ast.IfExp) and child is parent.test:
                return "check"
            child, parent = parent, self.scopes.parents.get(parent)
        if isinstance(parent, ast.Call):
            if child is parent.func:
                return "call" if child is node else "conditional call"
            called = callee(parent.func)
            if called in ("isinstance", "issubclass", "type", "hasattr", "id", "repr", "help", "callable"):
                return "check"
            if called == "cast" and child is parent.args[0]:
                return "annotation"
            if called == "partial" and child is parent.args[0] and child is node:
                return "partial"
            if called in PATCHERS and child in parent.args[:1]:
                return "patch"
            return "escape"
        if isinstance(parent, ast.MatchClass):
            return "check" if not parent.patterns else "escape"
        if isinstance(parent, ast.ClassDef):
            return "subclass" if child in parent.bases else "escape"
        if isinstance(parent, ast.Attribute):
            return "patch" if not isinstance(parent.ctx, ast.Load) else "attribute"
        if isinstance(parent, ast.Compare):
            return "check"
        if isinstance(parent, (ast.Expr, ast.Assert, ast.If, ast.While, ast.BoolOp, ast.UnaryOp)):
            return "check"
        if isinstance(parent, ast.Subscript):
            return "key" if child is parent.slice else "annotation"
        if isinstance(parent, ast.Dict) and child in parent.keys:
            return "key"
        if isinstance(parent, (ast.Set,)):
            return "key"
        if isinstance(parent, ast.arg) or self.in_annotation(child):
            return "annotation"
        if isinstance(parent, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and child is parent.value:
            targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
            scope = self.scopes.scope_of.get(targets[0])
            if all(isinstance(t, ast.Name) for t in targets) and (scope is None or scope.kind != "class"):
                return "assign" if not isinstance(child, ast.Tuple) else "escape"
        if isinstance(parent, (ast.ExceptHandler, ast.FormattedValue, ast.Delete)):
            return "check"
        return "escape"

    def in_annotation(self, node: ast.AST) -> bool:
        child = node
        for parent in self.scopes.ancestors(node):
            if isinstance(parent, ast.arg):
                return True
            if isinstance(parent, ast.AnnAssign):
                return child is parent.annotation
            if type(parent).__name__ in ("TypeAlias", "TypeVar", "ParamSpec", "TypeVarTuple"):
                return True
            if isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)):
                return child is parent.returns
            if isinstance(parent, (ast.stmt, ast.Lambda)):
                return False
            child = parent
        return False
