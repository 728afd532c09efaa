"""Finds every use of an old symbol in one module, and what has to be done to it.

``Analysis`` looks at one file alone. What concerns all files (is a symbol blocked somewhere, which successors are used,
which names are public) is decided in ``project``; then ``Analysis.edits`` gives the edits.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ..catalog import Argument, Case, ResultKey, Symbol
from . import calls
from .rules import Rules, Target, converts, renames
from .scopes import FUNCTIONS, Binding, Scope, Scopes, neighbours
from .signatures import positional
from .text import Edit, Finding, Source

TRANSPARENT = frozenset(
    [
        "to",
        "cuda",
        "cpu",
        "xpu",
        "eval",
        "train",
        "double",
        "float",
        "half",
        "bfloat16",
        "requires_grad_",
        "apply",
        "type",
        "share_memory",
    ]
)
MODULE_API = (
    frozenset(
        [
            "state_dict",
            "load_state_dict",
            "parameters",
            "named_parameters",
            "buffers",
            "named_buffers",
            "children",
            "named_children",
            "modules",
            "named_modules",
            "zero_grad",
            "training",
            "forward",
            "register_buffer",
            "register_parameter",
            "register_module",
            "add_module",
            "register_forward_hook",
            "register_forward_pre_hook",
            "register_full_backward_hook",
            "get_parameter",
            "get_buffer",
            "get_submodule",
            "extra_repr",
            "compile",
        ]
    )
    | TRANSPARENT
)
PATCHERS = frozenset({"setattr", "object", "delattr", "multiple"})
_IDENTIFIER_PATH = re.compile(r"[A-Za-z_][\w.]*\Z")


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
    edits: list[Edit] = field(default_factory=list)
    changes: list[tuple[str, int, str]] = field(default_factory=list)


@dataclass
class Blocker:
    """A reason why a symbol cannot be rewritten anywhere."""

    symbol: Symbol
    finding: Finding


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


Instance = tuple[Symbol, Case, Target]


class Analysis:
    """The uses of old symbols in one module.

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
        self.string_edits: list[tuple[Symbol, Target, list[Edit], Finding]] = []
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

    def run(self) -> None:
        """Classify all uses. Separate from the constructor, which needs no knowledge of other files."""
        self._suppress()
        self._find_guards()
        self._find_aliases()
        self._find_self_attributes()
        self._find_returns()
        for use in list(self._references()):
            self._classify(use)
        self._follow_instances()
        self._follow_results()
        self._modules_as_objects()
        self._names_by_string()

    # -- reporting -----------------------------------------------------------------------------------------------

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

    # -- imports -------------------------------------------------------------------------------------------------

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
                    names = self.rules.reexported[module]
                    self.followed.update((name, symbol) for name, symbol in names.items() if name[:1] != "_")
                    found = True
                continue
            path = f"{module}.{alias.name}"
            symbol = self.rules.symbol(path)
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
                            site.statement, "TL025", "note", f"{site.local} is imported from elsewhere as well"
                        ),
                    )
                )

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

    # -- what an expression stands for -----------------------------------------------------------------------------

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
            symbol = self.rules.symbol(path[0]) if path else None
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
        if isinstance(node, ast.Call) and _called(node.func) == "getattr" and len(node.args) >= 2:
            attribute = node.args[1]
            if isinstance(attribute, ast.Constant) and isinstance(attribute.value, str):
                base = self.module_path(node.args[0])
                symbol = self.rules.symbol(f"{base[0]}.{attribute.value}") if base else None
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
            elif binding.kind in ("declared", "annotation") or _is_none(binding.value):
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
        if _called(call.func) not in ("import_module", "__import__", "importorskip") or not call.args:
            return None
        argument = call.args[0]
        if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
            return None
        known = self.sites.get(id(argument))
        if known is not None:
            return known
        if argument.value not in self.rules.modules or _called(call.func) == "__import__":
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

    # -- uses ----------------------------------------------------------------------------------------------------

    def _references(self) -> Iterator[Use]:
        """Each maximal expression that stands for old symbols, one use per symbol."""
        seen: set[ast.AST] = set()
        for name in self.scopes.names:
            if not isinstance(name.ctx, ast.Load) or name.id not in self.interesting:
                continue
            node: ast.expr = name
            reference = self.refer(node)
            while reference is None:
                parent = self.scopes.parents.get(node)
                if not (isinstance(parent, ast.Attribute) and parent.value is node):
                    break
                node = parent
                reference = self.refer(node)
            if reference is not None and node not in seen:
                seen.add(node)
                yield from self._uses(node, reference)
        for call in [n for n in self.scopes.scope_of if isinstance(n, ast.Call)]:
            chain: ast.expr = call
            reference = self.refer(call) if _called(call.func) == "getattr" else None
            if reference is None and self._imported_module(call):
                parent = self.scopes.parents.get(call)
                if isinstance(parent, ast.Attribute):
                    chain, reference = parent, self.refer(parent)
            if reference is not None and chain not in seen:
                seen.add(chain)
                yield from self._uses(chain, reference)

    def _uses(self, node: ast.expr, reference: Reference) -> Iterator[Use]:
        if len(reference.symbols) > 1 or not reference.pure:
            yield from self._ambiguous(node, reference)
            return
        (symbol,) = reference.symbols.values()
        site = reference.sites[0] if reference.sites else None
        for each in reference.sites:
            each.used = True
        direct = isinstance(node, (ast.Attribute, ast.Call)) or self._is_direct(node)
        use = Use(symbol, node, "direct" if direct else "alias", site)
        if site is None and isinstance(node, ast.Name):
            for statement, module in self.stars:
                if node.id in self.rules.in_module[module]:
                    self.star_uses[id(statement)].setdefault(node.id, []).append(use)
        yield use

    def _is_direct(self, node: ast.expr) -> bool:
        """Whether the name is bound by the import itself, not by an assignment."""
        if not isinstance(node, ast.Name):
            return False
        resolved = self.scopes.resolve(node.id, self.scopes.scope_of[node])
        if resolved is None:
            return any(node.id in self.rules.in_module[module] for _, module in self.stars)
        return any(id(b.node) in self.sites for b in resolved[1])

    def _ambiguous(self, node: ast.expr, reference: Reference) -> Iterator[Use]:
        """The expression may be one of several things: fine where it does not matter which."""
        for site in reference.sites:
            site.used = True
        kind = self.context(node)
        if not reference.pure and self._guard(node):
            return
        if reference.pure and kind == "call":
            call = self.scopes.parents[node]
            assert isinstance(call, ast.Call)
            if self._agreed_call(node, call, reference):
                return
        for symbol in reference.symbols.values():
            neutral = kind in ("check", "annotation", "assign", "key")
            if neutral or (reference.pure and not self.rules.arguments_change(symbol)):
                use = Use(symbol, node, "alias", next((s for s in reference.sites if s.symbol is symbol), None))
                use.kind = "alias-neutral"
                self.uses.append(use)
                continue
            others = ", ".join(sorted(s.name for s in reference.symbols.values() if s is not symbol))
            what = others if others else "something else"
            self.block(symbol, node, "TL037", f"{ast.unparse(node)} may be {symbol.name} or {what} here")
        yield from ()

    def _guard(self, node: ast.expr) -> bool:
        """Hand-written `try: from new import X / except ImportError: from old import X`."""
        if not isinstance(node, ast.Name):
            return False
        resolved = self.scopes.resolve(node.id, self.scopes.scope_of[node])
        if resolved is None or any(b.kind not in ("import", "annotation") for b in resolved[1]):
            return False
        return any(id(b.node) not in self.sites for b in resolved[1] if b.kind == "import")

    def _agreed_call(self, node: ast.expr, call: ast.Call, reference: Reference) -> bool:
        """A call of one of several classes whose arguments change in the same way."""
        made = []
        for symbol in reference.symbols.values():
            use = Use(symbol, node, "alias", None)
            before = len(self.blockers)
            self._call(use, call)
            if len(self.blockers) > before:
                return True
            made.append(use)
        texts = {tuple((e.start, e.end, e.new) for e in use.edits) for use in made}
        if len(texts) > 1:
            return False
        for use in made[1:]:
            use.edits = []
        self.uses += made
        return True

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
            called = _called(parent.func)
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
        if isinstance(parent, ast.arg) or self._in_annotation(child):
            return "annotation"
        if isinstance(parent, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) and child is parent.value:
            targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
            scope = self.scopes.scope_of.get(targets[0])
            if all(isinstance(t, ast.Name) for t in targets) and (scope is None or scope.kind != "class"):
                return "assign" if not isinstance(child, ast.Tuple) else "escape"
        if isinstance(parent, (ast.ExceptHandler, ast.FormattedValue, ast.Delete)):
            return "check"
        return "escape"

    def _in_annotation(self, node: ast.AST) -> bool:
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

    def _classify(self, use: Use) -> None:
        kind = self.context(use.node)
        parent = self.scopes.parents.get(use.node)
        symbol = use.symbol
        if kind == "conditional call":
            kind = "escape"
        if kind == "call":
            assert isinstance(parent, ast.Call)
            self._call(use, parent)
        elif kind == "partial":
            assert isinstance(parent, ast.Call)
            self._partial(use, parent)
        elif kind == "subclass":
            self.block(symbol, use.node, "TL035", f"subclass of {symbol.name}: check its methods and forward signature")
        elif kind == "patch":
            self.block(symbol, use.node, "TL036", f"{symbol.name} is patched here")
        elif kind == "attribute":
            assert isinstance(parent, ast.Attribute)
            if not (parent.attr.startswith("__") and parent.attr.endswith("__")):
                self._member(use.symbol, parent, None)
        elif (kind == "escape" and symbol.kind == "class" and self.rules.arguments_change(symbol)) or (
            kind == "escape" and symbol.kind == "function" and self.rules.arguments_change(symbol)
        ):
            self.block(symbol, use.node, "TL034", f"{symbol.name} is handed on; calls of it are out of sight")
        if use.kind == "direct" and kind not in ("call",):
            use.kind = "check" if kind == "check" else "neutral"
        self.uses.append(use)

    # -- calls ---------------------------------------------------------------------------------------------------

    def _call(self, use: Use, call: ast.Call) -> None:
        symbol = use.symbol
        arguments = calls.bind(call, symbol.signature)
        case, why = calls.choose(symbol, arguments)
        if case is None:
            self.block(symbol, call, "TL030" if why.startswith("*") else "TL033", f"{symbol.name}: {why}")
            return
        use.target = self.rules.target(symbol, case)
        if not use.target.twin:
            conversion = self._converted(use, call, case)
            if conversion is None:
                return
        instance: Instance = (symbol, case, use.target)
        if symbol.kind == "class":
            self.constructed.setdefault(call, []).append(instance)
        else:
            self.forwarded.setdefault(call, []).append(instance)

    def _converted(self, use: Use, call: ast.Call, case: Case) -> calls.Conversion | None:
        arguments = calls.bind(call, case.arguments)
        conversion = calls.convert(
            self.source, call, case, case.arguments, self.rules,
            keywords_only=use.symbol.kind == "class", order=positional(case.new or ""), arguments=arguments,
        )  # fmt: skip
        if conversion.problems:
            for problem in conversion.problems:
                self.block(use.symbol, call, _problem_code(problem), f"{use.symbol.name}: {problem}")
            return None
        use.edits += conversion.edits
        if conversion.edits and any(edit.new or edit.end > edit.start for edit in conversion.edits):
            use.changes.append(("TL006", call.lineno, f"arguments of {use.symbol.name}"))
        use.changes += [(code, call.lineno, f"{use.symbol.name}: {text}") for code, text in conversion.notes]
        return conversion

    def _partial(self, use: Use, call: ast.Call) -> None:
        symbol = use.symbol
        arguments = calls.bind(call, symbol.signature, 1, partial=True)
        complete = self._called_without_arguments(call)
        case, why = calls.choose(symbol, arguments)
        if case is None or (not complete and not set(symbol.selectors) <= set(arguments.bound)):
            self.block(symbol, call, "TL033", f"{symbol.name} in partial: {why or 'later arguments may choose'}")
            return
        use.target = self.rules.target(symbol, case)
        if use.target.twin:
            return
        conversion = calls.convert(
            self.source, call, case, case.arguments, self.rules,
            keywords_only=symbol.kind == "class", order=positional(case.new or ""), skip=1, arguments=arguments,
        )  # fmt: skip
        later = [name for name, a in case.arguments.items() if name not in arguments.bound and _changed(a)]
        if conversion.problems or (later and not complete):
            problem = conversion.problems[0] if conversion.problems else f"{later[0]} may be passed later"
            self.block(symbol, call, "TL030", f"{symbol.name} in partial: {problem}")
            return
        use.edits += conversion.edits
        use.changes.append(("TL006", call.lineno, f"arguments of {symbol.name}"))
        use.changes += [(code, call.lineno, f"{symbol.name}: {text}") for code, text in conversion.notes]

    def _called_without_arguments(self, partial: ast.Call) -> bool:
        """Whether the partial object is bound to a local name that is only ever called without arguments."""
        parent = self.scopes.parents.get(partial)
        if isinstance(parent, ast.Call) and parent.func is partial:
            return not parent.args and not parent.keywords
        if not (
            isinstance(parent, ast.Assign) and len(parent.targets) == 1 and isinstance(parent.targets[0], ast.Name)
        ):
            return False
        name = parent.targets[0]
        scope = self.scopes.scope_of[name]
        if scope is self.scopes.module and not self.standalone and self.is_package:
            return False
        for other in self.scopes.names:
            if other.id == name.id and isinstance(other.ctx, ast.Load):
                call = self.scopes.parents.get(other)
                if not (isinstance(call, ast.Call) and call.func is other and not call.args and not call.keywords):
                    return False
        return True

    # -- instances -----------------------------------------------------------------------------------------------

    def _find_returns(self) -> None:
        """The values that each function returns; generators are left out."""
        generators: set[ast.AST] = set()
        for node in self.scopes.leaving:
            function = next((a for a in self.scopes.ancestors(node) if isinstance(a, FUNCTIONS)), None)
            if function is not None and isinstance(node, ast.Return):
                self.returns.setdefault(function, []).append(node.value or _OTHER)
            elif function is not None:
                generators.add(function)
        for generator in generators:
            self.returns.pop(generator, None)

    def _find_self_attributes(self) -> None:
        for node in self.scopes.scope_of:
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                owner = self._self_class(node)
                parent = self.scopes.parents.get(node)
                if owner is not None:
                    value = parent.value if isinstance(parent, (ast.Assign, ast.AnnAssign)) else None
                    self.self_attributes.setdefault((owner, node.attr), []).append(value or ast.Pass())

    def _self_class(self, node: ast.Attribute) -> ast.ClassDef | None:
        """The class whose method uses ``self.attribute``."""
        if not isinstance(node.value, ast.Name):
            return None
        scope: Scope | None = self.scopes.scope_of.get(node.value)
        while scope is not None and scope.kind != "module":
            function = scope.node
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                every = [*function.args.posonlyargs, *function.args.args]
                owner = scope.owner
                if owner is not None and owner.kind == "class":
                    is_self = bool(every) and every[0].arg == node.value.id
                    return owner.node if is_self and isinstance(owner.node, ast.ClassDef) else None
                if node.value.id in scope.bindings:
                    return None
            scope = scope.parent
        return None

    def instances(self, node: ast.AST | None, seen: frozenset[int] = frozenset()) -> tuple[list[Instance], bool]:
        """The old losses that ``node`` may be an instance of, and whether it can be nothing else."""
        if node is None or id(node) in seen:
            return [], True
        seen |= {id(node)}
        if isinstance(node, ast.Call):
            if node in self.constructed:
                return self.constructed[node], True
            if isinstance(node.func, ast.Attribute) and node.func.attr in TRANSPARENT:
                return self.instances(node.func.value, seen)
            returned = self._returned(node.func)
            return self._union(returned, seen) if returned else ([], False)
        values: list[ast.AST | None]
        if isinstance(node, ast.Name):
            resolved = (
                self.scopes.resolve(node.id, self.scopes.scope_of[node]) if node in self.scopes.scope_of else None
            )
            values = (
                [
                    b.value if b.kind == "assign" else _OTHER
                    for b in resolved[1]
                    if b.kind not in ("annotation", "declared")
                ]
                if resolved
                else [_OTHER]
            )
        elif isinstance(node, ast.Attribute):
            owner = self._self_class(node)
            values = list(self.self_attributes.get((owner, node.attr), [_OTHER])) if owner else [_OTHER]
        elif isinstance(node, ast.IfExp):
            values = [node.body, node.orelse]
        elif isinstance(node, ast.NamedExpr):
            values = [node.value]
        else:
            return [], False
        return self._union(values, seen)

    def _union(self, values: Sequence[ast.AST | None], seen: frozenset[int]) -> tuple[list[Instance], bool]:
        found: list[Instance] = []
        pure = True
        for value in values:
            if value is not None and not _is_none(value):
                more, sure = self.instances(value, seen)
                found += [m for m in more if m not in found]
                pure = pure and sure and bool(more)
        return found, pure

    def _returned(self, func: ast.expr) -> list[ast.AST | None]:
        """What a function of this file returns: one bound once, undecorated, and no generator."""
        if not isinstance(func, ast.Name) or func not in self.scopes.scope_of:
            return []
        resolved = self.scopes.resolve(func.id, self.scopes.scope_of[func])
        if resolved is None or len(resolved[1]) != 1:
            return []
        binding = resolved[1][0]
        if isinstance(binding.value, ast.Lambda):
            return [binding.value.body]
        function = binding.node
        if not isinstance(function, ast.FunctionDef) or function.decorator_list:
            return []
        return list(self.returns.get(function, []))

    def _follow_instances(self) -> None:
        if not self.constructed:
            return
        for call, made in list(self.constructed.items()):
            self._instance_use(call, made, True)
        for node in list(self.scopes.scope_of):
            read = isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load)
            if read or (isinstance(node, ast.Call) and node not in self.constructed and self._returned(node.func)):
                made, pure = self.instances(node)
                if made and isinstance(node, ast.expr):
                    self._instance_use(node, made, pure)

    def _instance_use(self, node: ast.expr, made: list[Instance], pure: bool) -> None:
        parent = self.scopes.parents.get(node)
        if isinstance(parent, ast.Attribute) and parent.value is node:
            grand = self.scopes.parents.get(parent)
            if parent.attr in TRANSPARENT and isinstance(grand, ast.Call) and grand.func is parent:
                self._instance_use(grand, made, pure)
            elif parent.attr == "forward" and isinstance(grand, ast.Call) and grand.func is parent:
                self._forward(grand, made, pure)
            elif parent.attr not in MODULE_API:
                for symbol, case, target in made:
                    if not target.twin:
                        self._member(symbol, parent, case)
            elif parent.attr in ("state_dict", "load_state_dict"):
                for symbol, case, target in made:
                    if case.state and not target.twin:
                        self.note(symbol, parent, "TL024", f"state of {symbol.name} has other keys now")
        elif isinstance(parent, ast.Call) and parent.func is node:
            self._forward(parent, made, pure)
        elif isinstance(parent, (ast.Assign, ast.AnnAssign)) and parent.value is node:
            targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
            for target_node in targets:
                tracked = isinstance(target_node, ast.Name) or (
                    isinstance(target_node, ast.Attribute) and self._self_class(target_node) is not None
                )
                if not tracked:
                    self._instance_escapes(parent, made)
        elif isinstance(parent, (ast.NamedExpr, ast.IfExp, ast.Expr, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.If)) or (
            isinstance(parent, ast.Call)
            and _called(parent.func)
            in (
                "isinstance",
                "type",
                "print",
                "id",
                "repr",
                "len",
            )
        ):
            return
        elif isinstance(parent, ast.Call) and _called(parent.func) in ("hasattr", "getattr") and len(parent.args) > 1:
            self._dynamic_member(parent, made)
        else:
            self._instance_escapes(node, made)

    def _dynamic_member(self, call: ast.Call, made: list[Instance]) -> None:
        name = call.args[1]
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
            return
        for symbol, case, target in made:
            new = case.members.get(name.value) if not target.twin else None
            if isinstance(new, str) and new != name.value:
                start, end = self.source.span(name)
                quote = self.source.text[start]
                edit = Edit(start, end, f"{quote}{new}{quote}")
                self.string_edits.append(
                    (
                        symbol,
                        target,
                        [edit],
                        self.finding(name, "TL011", "change", f"{name.value} -> {new}", symbol.name),
                    )
                )
            elif isinstance(new, dict):
                self.block(symbol, call, "TL042", f"{symbol.name}.{name.value}: {new.get('report', 'no counterpart')}")

    def _instance_escapes(self, node: ast.AST, made: list[Instance]) -> None:
        for symbol, case, target in made:
            if target.twin:
                continue
            if (
                case.returns is not None
                and case.returns[0] != case.returns[1]
                and set(case.returns) != {"dict", "LossOutput"}
            ):
                self.block(
                    symbol, node, "TL041",
                    f"{symbol.name} is handed on and returns {case.returns[1]} instead of {case.returns[0]}",
                )  # fmt: skip
            elif case.forward is not None and converts(case.forward):
                self.note(symbol, node, "TL022", f"{symbol.name} is handed on; arguments of its calls have changed")
            elif (case.forward is not None and renames(case.forward)) or any(
                k.old != k.new for k in case.results.values()
            ):
                self.note(symbol, node, "TL022", f"{symbol.name} is handed on; its callers may use old names")

    def _member(self, symbol: Symbol, node: ast.Attribute, case: Case | None) -> None:
        found = [c for c in ([case] if case else symbol.cases) if not self.rules.leads_to_twin(c)]
        news = [c.members.get(node.attr) for c in found]
        if not news or all(new is None for new in news):
            if case is None and found and not node.attr.startswith("__"):
                self.block(symbol, node, "TL042", f"{symbol.name}.{node.attr} is not in the catalog")
            return
        if any(isinstance(new, dict) for new in news):
            reason = next(new["report"] for new in news if isinstance(new, dict))
            self.block(symbol, node, "TL042", f"{symbol.name}.{node.attr}: {reason}")
            return
        if len(set(news)) > 1:
            self.block(symbol, node, "TL033", f"{symbol.name}.{node.attr} has several counterparts")
            return
        new = news[0]
        if new != node.attr and isinstance(new, str):
            _, end = self.source.span(node)
            edit = Edit(end - len(node.attr), end, new)
            target = self.rules.target(symbol, found[0])
            self.string_edits.append(
                (symbol, target, [edit], self.finding(node, "TL011", "change", f"{node.attr} -> {new}", symbol.name))
            )

    def _forward(self, call: ast.Call, made: list[Instance], pure: bool) -> None:
        plans: list[tuple[Instance, calls.Conversion]] = []
        for instance in made:
            symbol, case, target = instance
            if target.twin or case.forward is None:
                plans.append((instance, calls.Conversion()))
                continue
            arguments = calls.bind(call, case.forward)
            hidden = [p for p in arguments.problems if p.startswith("*")]
            if hidden:
                if converts(case.forward) or renames(case.forward):
                    self.note(symbol, call, "TL022", f"{symbol.name}: {hidden[0]}; its arguments have changed")
                plans.append((instance, calls.Conversion()))
                continue
            conversion = calls.convert(
                self.source, call, case, case.forward, self.rules,
                keywords_only=False, order=positional(target.path), arguments=arguments,
            )  # fmt: skip
            for problem in conversion.problems:
                self.block(symbol, call, _problem_code(problem), f"call of {symbol.name}: {problem}")
            plans.append((instance, conversion))
        texts = {tuple((e.start, e.end, e.new) for e in plan.edits) for _, plan in plans}
        if len(texts) > 1 or (not pure and texts != {()}):
            for symbol, _, _ in made:
                self.block(symbol, call, "TL037", f"this call may be of {symbol.name} or of something else")
            return
        (symbol, case, target), plan = plans[0]
        if plan.edits:
            finding = self.finding(call, "TL009", "change", f"arguments of a call of {symbol.name}", symbol.name)
            self.string_edits.append((symbol, target, plan.edits, finding))
        self.forwarded[call] = made
        self._result_kind(call, made)

    def _result_kind(self, call: ast.Call, made: list[Instance]) -> None:
        for symbol, case, target in made:
            if target.twin or case.returns is None:
                continue
            old, new = case.returns
            if old == new or {old, new} == {"dict", "LossOutput"}:
                continue
            if old == "tensor" and new == "LossOutput" and len(made) == 1:
                _, end = self.source.span(call)
                finding = self.finding(call, "TL010", "change", f"{symbol.name} returns a LossOutput", symbol.name)
                self.string_edits.append((symbol, target, [Edit(end, end, ".loss")], finding))
                continue
            self.block(symbol, call, "TL041", f"{symbol.name} returns {new} instead of {old}")

    # -- results -------------------------------------------------------------------------------------------------

    def results(self, node: ast.AST | None) -> list[Instance]:
        """The losses whose result ``node`` must be."""
        if isinstance(node, ast.Call):
            return self.forwarded.get(node, [])
        if isinstance(node, ast.Name) and node in self.scopes.scope_of:
            resolved = self.scopes.resolve(node.id, self.scopes.scope_of[node])
            if resolved is None:
                return []
            found: list[Instance] = []
            for binding in resolved[1]:
                more = self.forwarded.get(binding.value, []) if isinstance(binding.value, ast.Call) else []
                if not more:
                    return []
                found += [m for m in more if m not in found]
            return found
        return []

    def _follow_results(self) -> None:
        if not self.forwarded:
            return
        nodes: list[ast.expr] = [n for n in self.scopes.names if isinstance(n.ctx, ast.Load)]
        for node in [*nodes, *self.forwarded]:
            made = self.results(node)
            if made:
                self._result_use(node, made)

    def _result_use(self, node: ast.expr, made: list[Instance]) -> None:
        parent = self.scopes.parents.get(node)
        if isinstance(parent, ast.Subscript) and parent.value is node:
            self._key(parent.slice, made, parent)
        elif isinstance(parent, ast.Attribute) and parent.attr in ("get", "pop", "setdefault"):
            call = self.scopes.parents.get(parent)
            if isinstance(call, ast.Call) and call.func is parent and call.args:
                self._key(call.args[0], made, None)
        elif isinstance(parent, ast.Compare) and _is_membership(parent, node):
            self._key(parent.left, made, None)

    def _key(self, key: ast.expr, made: list[Instance], subscript: ast.Subscript | None) -> None:
        if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
            return
        rules: list[tuple[Symbol, Target, ResultKey | None]] = []
        name = key.value
        inner = self.scopes.parents.get(subscript) if subscript else None
        for symbol, case, target in made:
            if target.twin:
                rules.append((symbol, target, None))
                continue
            rule = case.results.get(name)
            if rule is None and any(old.startswith(name + ".") for old in case.results):
                nested = inner.slice if isinstance(inner, ast.Subscript) and inner.value is subscript else None
                if isinstance(nested, ast.Constant) and isinstance(nested.value, str):
                    rule = case.results.get(f"{name}.{nested.value}")
                if rule is None:
                    self.block(symbol, key, "TL041", f"{symbol.name}: {name!r} is no nested dictionary any more")
                    return
            rules.append((symbol, target, rule))
        news = {rule.new if rule else name for _, _, rule in rules}
        if len(news) > 1:
            for symbol, _, _ in rules:
                self.block(
                    symbol, key, "TL037", f"{name!r} has another name in each of the losses that it may come from"
                )
            return
        symbol, target, rule = rules[0]
        if rule is None:
            return
        if rule.new is None:
            self.block(symbol, key, "TL041", f"{symbol.name}: the result has no {name!r} any more: {rule.drop}")
            return
        start, end = self.source.span(key)
        nested_key = "." in rule.old and rule.old != name
        if nested_key:
            assert subscript is not None
            assert isinstance(inner, ast.Subscript)
            _, stop = self.source.span(inner)
            _, begin = self.source.span(subscript)
            edits = [Edit(start, end, _quoted(self.source.text[start:end], rule.new)), Edit(begin, stop, "")]
        elif rule.new == name:
            edits = []
        else:
            edits = [Edit(start, end, _quoted(self.source.text[start:end], rule.new))]
        if edits:
            finding = self.finding(key, "TL010", "change", f"{rule.old} -> {rule.new}", symbol.name)
            self.string_edits.append((symbol, target, edits, finding))
        if rule.differs:
            self.note(symbol, key, "TL023", f"{rule.new}: {rule.differs}")

    # -- modules used as objects -----------------------------------------------------------------------------------

    def _modules_as_objects(self) -> None:
        """An old module whose names are read dynamically hides uses of all its symbols."""
        for name in self.scopes.names:
            if not isinstance(name.ctx, ast.Load) or name.id not in self.interesting:
                continue
            node: ast.expr = name
            path = self.module_path(node)
            while path is not None and self.rules.symbol(path[0]) is None:
                parent = self.scopes.parents.get(node)
                if not (isinstance(parent, ast.Attribute) and parent.value is node):
                    break
                node = parent
                path = self.module_path(node)
            if path is None or self.rules.symbol(path[0]) is not None:
                continue
            if path[0] not in self.rules.in_module:
                # an unknown name below an old module, or a plain package such as `src`
                owner = path[0].rpartition(".")[0]
                if owner in self.rules.modules and path[0] not in self.rules.prefixes:
                    path[1].escaped = True
                elif path[0] not in self.rules.prefixes and not self._provided(name, path[0]):
                    path[1].escaped = path[1].escaped or not path[0].startswith(path[1].path)
                continue
            parent = self.scopes.parents.get(node)
            if isinstance(parent, ast.Call) and _called(parent.func) == "getattr" and self.refer(parent):
                continue
            path[1].escaped = True
            if isinstance(parent, ast.Expr):
                continue
            for symbol in {id(s): s for s in self.rules.in_module[path[0]].values()}.values():
                self.block(symbol, node, "TL039", f"{path[0]} is used as an object here")

    def _names_by_string(self) -> None:
        """``globals()["Name"]`` hands the class on: what is done with it is out of sight."""
        for space, scope in self._namespaces():
            key = self._key_of(space)
            if key is None or self.source.skipped(getattr(key, "lineno", 0)):
                continue
            names = self._names_of(key, scope)
            self.looked_up |= names
            for name in sorted(names):
                reference = self._name_reference(scope.bindings[name], scope, frozenset())
                for symbol in reference.symbols.values() if reference else ():
                    if self.rules.arguments_change(symbol):
                        message = f"{symbol.name} is looked up by its name; calls are out of sight"
                        self.block(symbol, space, "TL034", message)

    def _namespaces(self) -> Iterator[tuple[ast.expr, Scope]]:
        """Expressions that stand for all names of a scope: ``globals()``, ``sys.modules[__name__]``."""
        for node, scope in self.scopes.scope_of.items():
            if isinstance(node, ast.Call) and not node.args:
                called = _called(node.func)
                if called == "globals":
                    yield node, self.scopes.module
                elif called in ("locals", "vars"):
                    yield node, scope
        for name in self.scopes.names:
            parent = self.scopes.parents.get(name)
            if name.id == "__name__" and isinstance(parent, ast.Subscript) and _called(parent.value) == "modules":
                yield parent, self.scopes.module

    def _key_of(self, space: ast.expr) -> ast.expr | None:
        """The name that is read from a namespace."""
        parent = self.scopes.parents.get(space)
        if isinstance(parent, ast.Subscript) and parent.value is space and isinstance(parent.ctx, ast.Load):
            return parent.slice
        if isinstance(parent, ast.Call) and space in parent.args[:1]:
            if _called(parent.func) == "getattr" and len(parent.args) > 1:
                return parent.args[1]
            return self._key_of(parent) if _called(parent.func) == "vars" else None
        if not isinstance(parent, ast.Attribute):
            return None
        call = self.scopes.parents.get(parent)
        if parent.attr == "__dict__":
            return self._key_of(parent)
        if parent.attr in ("get", "pop", "__getitem__") and isinstance(call, ast.Call) and call.func is parent:
            return call.args[0] if call.args else None
        whole = isinstance(space, ast.Subscript) and isinstance(parent.ctx, ast.Load)
        return ast.copy_location(ast.Constant(parent.attr), parent) if whole else None

    def _names_of(self, key: ast.expr, scope: Scope) -> set[str]:
        """Names in ``scope`` that ``key`` may be: one, or all that begin as it does."""
        first = key
        if isinstance(key, ast.JoinedStr) and key.values:
            first = key.values[0]
        elif isinstance(key, ast.BinOp):
            first = key.left
        begin = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
        names = self.interesting.intersection(scope.bindings)
        whole = first is key and begin
        return {name for name in names if (name == begin if whole else name.startswith(begin))}

    def _provided(self, name: ast.Name, path: str) -> bool:
        """Whether another `import a.b` binds what ``path`` needs."""
        resolved = self.scopes.resolve(name.id, self.scopes.scope_of[name])
        return any(
            isinstance(b.node, ast.alias) and id(b.node) not in self.sites and f"{path}.".startswith(f"{b.node.name}.")
            for b in (resolved[1] if resolved else ())
        )

    # -- demands on the whole project ------------------------------------------------------------------------------

    def used_targets(self) -> Iterable[tuple[Symbol, Target]]:
        """What calls in this file become."""
        return [(use.symbol, use.target) for use in self.uses if use.target is not None]


_OTHER = ast.Pass()


def _called(func: ast.expr) -> str:
    """The last name of a called expression."""
    if isinstance(func, ast.Name):
        return func.id
    return func.attr if isinstance(func, ast.Attribute) else ""


def _is_none(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _changed(argument: Argument) -> bool:
    return renames({"": argument}) or converts({"": argument})


def _is_membership(compare: ast.Compare, container: ast.expr) -> bool:
    """``key in container``."""
    return isinstance(compare.ops[0], (ast.In, ast.NotIn)) and compare.comparators == [container]


def _quoted(old: str, new: str) -> str:
    """``new`` in the quotes of ``old``."""
    quote = next((c for c in old if c in "'\""), '"')
    return f"{quote}{new}{quote}"


def _problem_code(problem: str) -> str:
    if problem.startswith("*"):
        return "TL030"
    if "today" in problem:
        return "TL031"
    return "TL032"
