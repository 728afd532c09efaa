"""Which binding a name has: the scopes of a module, by Python's rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@dataclass
class Binding:
    """One place that gives a name a value.

    ``kind`` is ``import`` (``node`` is the alias, ``statement`` its statement), ``assign`` (``value`` is the
    expression) or ``other``.
    """

    kind: str
    node: ast.AST
    statement: ast.stmt | None = None
    value: ast.expr | None = None


@dataclass
class Scope:
    """A module, class, function, lambda or comprehension, or the type parameters of one (kind ``type``)."""

    kind: str
    node: ast.AST
    parent: Scope | None
    bindings: dict[str, list[Binding]] = field(default_factory=dict)
    outer: dict[str, str] = field(default_factory=dict)
    stars: list[ast.ImportFrom] = field(default_factory=list)

    @property
    def owner(self) -> Scope | None:
        """The scope around it, type parameters aside."""
        scope = self.parent
        while scope is not None and scope.kind == "type":
            scope = scope.parent
        return scope

    def add(self, name: str, binding: Binding) -> None:
        scope = self
        if name in self.outer:
            scope = self.target(name)
        scope.bindings.setdefault(name, []).append(binding)

    def target(self, name: str) -> Scope:
        """The scope that ``global name`` or ``nonlocal name`` refers to."""
        scope: Scope = self
        if self.outer[name] == "global":
            while scope.parent is not None:
                scope = scope.parent
            return scope
        while scope.parent is not None:
            scope = scope.parent
            if scope.kind == "function" and name in scope.bindings:
                return scope
        return scope


class Scopes:
    """All scopes of a module, the scope and parent of each node, and name resolution."""

    def __init__(self, tree: ast.Module) -> None:
        self.module = Scope("module", tree, None)
        self.every: list[Scope] = [self.module]
        self.leaving: list[ast.Return | ast.Yield | ast.YieldFrom] = []
        self.parents: dict[ast.AST, ast.AST] = {}
        self.scope_of: dict[ast.AST, Scope] = {}
        self.names: list[ast.Name] = []
        self.strings: list[ast.Constant] = []
        self.imports: list[ast.Import | ast.ImportFrom] = []
        self.attributes: set[str] = set()
        for statement in tree.body:
            self._visit(statement, tree, self.module)

    def resolve(self, name: str, scope: Scope) -> tuple[Scope, list[Binding]] | None:
        """The scope that binds ``name`` as seen from ``scope``, and its bindings."""
        current: Scope | None = scope
        first = True
        while current is not None:
            if name in current.outer:
                current = current.target(name)
                return (current, current.bindings[name]) if name in current.bindings else None
            if name in current.bindings and (first or current.kind != "class"):
                return current, current.bindings[name]
            first = first and current.kind == "type"
            current = current.parent
        return None

    def bound_anywhere(self, name: str) -> list[Binding]:
        """Bindings of ``name`` in all scopes."""
        return [b for scope in self.all_scopes() for b in scope.bindings.get(name, [])]

    def all_scopes(self) -> Iterator[Scope]:
        """Each scope once."""
        return iter(self.every)

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """Parents, from the inside out."""
        current = self.parents.get(node)
        while current is not None:
            yield current
            current = self.parents.get(current)

    def chain(self, node: ast.expr) -> Iterator[ast.expr]:
        """``node``, the attribute that is taken from it, the attribute of that, and so on."""
        yield node
        while isinstance(parent := self.parents.get(node), ast.Attribute) and parent.value is node:
            node = parent
            yield node

    # -- building ------------------------------------------------------------------------------------------------

    def _visit(self, node: ast.AST, parent: ast.AST, scope: Scope) -> None:
        self.parents[node] = parent
        if isinstance(node, ast.Name):
            self.names.append(node)
            self.scope_of[node] = scope
            if not isinstance(node.ctx, ast.Load):
                scope.add(node.id, self._target(node, parent))
            return
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):
                self.strings.append(node)
                self.scope_of[node] = scope
            return
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self._import(node, scope)
            return
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            self._definition(node, scope)
            return
        if isinstance(node, COMPREHENSIONS):
            inner = Scope("comprehension", node, scope)
            self.every.append(inner)
            for index, generator in enumerate(node.generators):
                self.parents[generator] = node
                self._visit(generator.iter, generator, scope if index == 0 else inner)
                self._visit(generator.target, generator, inner)
                for condition in generator.ifs:
                    self._visit(condition, generator, inner)
            for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
                self._visit(part, node, inner)
            return
        if isinstance(node, (ast.Global, ast.Nonlocal)):
            kind = "global" if isinstance(node, ast.Global) else "nonlocal"
            scope.outer.update(dict.fromkeys(node.names, kind))
            for name in node.names:
                scope.add(name, Binding("declared", node))
            return
        if isinstance(node, ast.NamedExpr):
            self._visit(node.value, node, scope)
            holder = scope
            while holder.kind == "comprehension" and holder.parent is not None:
                holder = holder.parent
            self.parents[node.target] = node
            self.names.append(node.target)
            self.scope_of[node.target] = holder
            holder.add(node.target.id, Binding("assign", node.target, value=node.value))
            return
        if isinstance(node, ast.Attribute):
            self.attributes.add(node.attr)
            self.scope_of[node] = scope
        elif isinstance(node, ast.Call):
            self.scope_of[node] = scope
        elif isinstance(node, (ast.Return, ast.Yield, ast.YieldFrom)):
            self.leaving.append(node)
        elif (isinstance(node, ast.ExceptHandler) and node.name) or (
            isinstance(node, (ast.MatchAs, ast.MatchStar)) and node.name
        ):
            scope.add(node.name, Binding("other", node))
        elif isinstance(node, ast.MatchMapping) and node.rest:
            scope.add(node.rest, Binding("other", node))
        elif type(node).__name__ in ("TypeVar", "ParamSpec", "TypeVarTuple"):
            scope.add(node.name, Binding("other", node))  # type: ignore[attr-defined]  # node types of Python 3.12
        elif type(node).__name__ == "TypeAlias":
            scope = self._type_scope(node, scope)
        for child in ast.iter_child_nodes(node):
            self._visit(child, node, scope)

    def _type_scope(self, node: ast.AST, scope: Scope) -> Scope:
        """The scope of the type parameters of a definition, if it has any."""
        parameters = getattr(node, "type_params", None)
        if not parameters:
            return scope
        made = Scope("type", node, scope)
        self.every.append(made)
        if type(node).__name__ != "TypeAlias":
            for parameter in parameters:
                self._visit(parameter, node, made)
        return made

    def _target(self, node: ast.Name, parent: ast.AST) -> Binding:
        if isinstance(node.ctx, ast.Store):
            if isinstance(parent, ast.Assign):
                return Binding("assign", node, parent, parent.value)
            if isinstance(parent, ast.AnnAssign):
                return Binding("assign" if parent.value is not None else "annotation", node, parent, parent.value)
        return Binding("other", node)

    def _import(self, node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        self.imports.append(node)
        self.scope_of[node] = scope
        for alias in node.names:
            self.parents[alias] = node
            if alias.name == "*" and isinstance(node, ast.ImportFrom):
                scope.stars.append(node)
                continue
            name = alias.asname or (alias.name.partition(".")[0] if isinstance(node, ast.Import) else alias.name)
            scope.add(name, Binding("import", alias, node))

    def _definition(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda, scope: Scope
    ) -> None:
        self.scope_of[node] = scope
        if not isinstance(node, ast.Lambda):
            scope.add(node.name, Binding("other", node))
            for decorator in node.decorator_list:
                self._visit(decorator, node, scope)
        outside, scope = scope, self._type_scope(node, scope)
        inner = Scope("class" if isinstance(node, ast.ClassDef) else "function", node, scope)
        self.every.append(inner)
        if isinstance(node, ast.ClassDef):
            for base in (*node.bases, *node.keywords):
                self._visit(base, node, scope)
            body: list[ast.stmt] | list[ast.expr] = node.body
        else:
            arguments = node.args
            self.parents[arguments] = node
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
            every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
            for argument in every:
                self.parents[argument] = arguments
                inner.add(argument.arg, Binding("other", argument))
                if argument.annotation is not None:
                    self._visit(argument.annotation, argument, scope)
            for default in (*arguments.defaults, *arguments.kw_defaults):
                if default is not None:
                    self._visit(default, arguments, outside)
            if not isinstance(node, ast.Lambda) and node.returns is not None:
                self._visit(node.returns, node, scope)
            body = [node.body] if isinstance(node, ast.Lambda) else node.body
        for item in body:
            self._visit(item, node, inner)


def neighbours(node: ast.AST, parent: ast.AST | None) -> list[ast.AST]:
    """The strings that belong to ``node`` in a table: its dictionary key, or what follows in a tuple or call."""
    if isinstance(parent, ast.Dict):
        if node in parent.values:
            key = parent.keys[parent.values.index(node)]
            return [key] if key is not None else []
        if node in parent.keys:
            return [parent.values[parent.keys.index(node)]]
    items: list[ast.expr] = []
    if isinstance(parent, (ast.Tuple, ast.List)):
        items = parent.elts
    elif isinstance(parent, ast.Call):
        items = parent.args
    if node in items:
        index = items.index(node)
        return [*items[index + 1 : index + 2], *items[max(index - 1, 0) : index]]
    return []


def callee(func: ast.expr) -> str:
    """The last name of a called expression."""
    if isinstance(func, ast.Name):
        return func.id
    return func.attr if isinstance(func, ast.Attribute) else ""


def is_none(node: ast.AST | None) -> bool:
    """Whether ``node`` is the constant."""
    return isinstance(node, ast.Constant) and node.value is None
