"""Finds every use of an old symbol in one module, and what has to be done to it.

``Analysis`` looks at one file alone. What concerns all files (is a symbol blocked somewhere, which successors are used,
which names are public) is decided in ``project``; ``rewrite`` makes the edits.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from ..catalog import Argument, Case, Symbol
from . import calls
from .instances import Instances
from .lookups import Lookups
from .references import Reference
from .rules import Target, converts, renames
from .scopes import callee
from .signatures import positional
from .sites import Instance, Use


class Analysis(Instances, Lookups):
    """The uses of old symbols in one module: see ``Imports`` for the arguments."""

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

    # -- uses ---------------------------------------------------------------------------------------------------------

    def _references(self) -> Iterator[Use]:
        """Each maximal expression that stands for old symbols, one use per symbol."""
        seen: set[ast.AST] = set()
        for name in self.names_read():
            for node in self.scopes.chain(name):
                reference = self.refer(node)
                if reference is not None:
                    break
            if reference is not None and node not in seen:
                seen.add(node)
                yield from self._uses(node, reference)
        for call in [n for n in self.scopes.scope_of if isinstance(n, ast.Call)]:
            chain: ast.expr = call
            reference = self.refer(call) if callee(call.func) == "getattr" else None
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
        if len({tuple(use.edits) for use in made}) > 1:
            return False
        for use in made[1:]:
            use.edits = []
        self.uses += made
        return True

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

    # -- calls --------------------------------------------------------------------------------------------------------

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
                self.block(use.symbol, call, calls.problem_code(problem), f"{use.symbol.name}: {problem}")
            return None
        if conversion.request is not None:
            use.edits.append(conversion.request)
            use.changes.append(("TL006", call.lineno, f"arguments of {use.symbol.name}"))
        use.changes += [(code, call.lineno, f"{use.symbol.name}: {text}") for code, text in conversion.notes]
        return conversion

    def _partial(self, use: Use, call: ast.Call) -> None:
        symbol = use.symbol
        arguments = calls.bind(call, symbol.signature, 1, partial=True)
        complete = self._calls_without_arguments(call)
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
        if conversion.request is not None:
            use.edits.append(conversion.request)
        use.changes.append(("TL006", call.lineno, f"arguments of {symbol.name}"))
        use.changes += [(code, call.lineno, f"{symbol.name}: {text}") for code, text in conversion.notes]
        instance: Instance = (symbol, case, use.target)
        if not complete:
            self.instance_escapes(call, [instance])
        for made in complete:
            (self.constructed if symbol.kind == "class" else self.forwarded).setdefault(made, []).append(instance)

    def _calls_without_arguments(self, partial: ast.Call) -> list[ast.Call]:
        """The calls of a partial object, if all are in sight and pass nothing: at once, or by a local name."""
        parent = self.scopes.parents.get(partial)
        if isinstance(parent, ast.Call) and parent.func is partial:
            return [] if parent.args or parent.keywords else [parent]
        if not (
            isinstance(parent, ast.Assign) and len(parent.targets) == 1 and isinstance(parent.targets[0], ast.Name)
        ):
            return []
        name = parent.targets[0]
        scope = self.scopes.scope_of[name]
        if scope is self.scopes.module and not self.standalone and self.is_package:
            return []
        found = []
        for other in self.scopes.names:
            if other.id == name.id and isinstance(other.ctx, ast.Load):
                call = self.scopes.parents.get(other)
                if not (isinstance(call, ast.Call) and call.func is other and not call.args and not call.keywords):
                    return []
                found.append(call)
        return found

    # -- demands on the whole project ---------------------------------------------------------------------------------

    def used_targets(self) -> Iterable[tuple[Symbol, Target]]:
        """What calls in this file become."""
        return [(use.symbol, use.target) for use in self.uses if use.target is not None]


def _changed(argument: Argument) -> bool:
    return renames({"": argument}) or converts({"": argument})
