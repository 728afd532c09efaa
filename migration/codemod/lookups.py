"""Uses by a name that is a string, or by a module that is handed on: what is done there is out of sight."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .references import References
from .scopes import Scope, callee


class Lookups(References):
    """Modules and names as objects."""

    def _modules_as_objects(self) -> None:
        """An old module whose names are read dynamically hides uses of all its symbols."""
        for name in self.names_read():
            for node in self.scopes.chain(name):
                path = self.module_path(node)
                if path is None or self.symbol(path[0]) is not None:
                    break
            if path is None or self.symbol(path[0]) is not None:
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
            if isinstance(parent, ast.Call) and callee(parent.func) == "getattr" and self.refer(parent):
                continue
            path[1].escaped = True
            if isinstance(parent, ast.Expr):
                continue
            for symbol in {id(s): s for s in self.rules.in_module[path[0]].values()}.values():
                self.block(symbol, node, "TL039", f"{path[0]} is used as an object here")

    def _provided(self, name: ast.Name, path: str) -> bool:
        """Whether another `import a.b` binds what ``path`` needs."""
        resolved = self.scopes.resolve(name.id, self.scopes.scope_of[name])
        return any(
            isinstance(b.node, ast.alias) and id(b.node) not in self.sites and f"{path}.".startswith(f"{b.node.name}.")
            for b in (resolved[1] if resolved else ())
        )

    def _names_by_string(self) -> None:
        """``globals()["Name"]`` hands the class on: what is done with it is out of sight."""
        for space, scope in self._namespaces():
            key = self._key_of(space)
            if key is None or self.source.skipped(getattr(key, "lineno", 0)):
                continue
            names = self._names_of(key, scope)
            self.looked_up |= names
            for name in sorted(names):
                bound = name in scope.bindings
                reference = self._name_reference(scope.bindings[name], scope, frozenset()) if bound else None
                reference = reference or self._star_reference(name)
                for symbol in reference.symbols.values() if reference else ():
                    if self.rules.arguments_change(symbol):
                        message = f"{symbol.name} is looked up by its name; calls are out of sight"
                        self.block(symbol, space, "TL034", message)

    def _namespaces(self) -> Iterator[tuple[ast.expr, Scope]]:
        """Expressions that stand for all names of a scope: ``globals()``, ``sys.modules[__name__]``."""
        for node, scope in self.scopes.scope_of.items():
            if isinstance(node, ast.Call) and not node.args:
                called = callee(node.func)
                if called == "globals":
                    yield node, self.scopes.module
                elif called in ("locals", "vars"):
                    yield node, scope
        for name in self.scopes.names:
            parent = self.scopes.parents.get(name)
            if name.id == "__name__" and isinstance(parent, ast.Subscript) and callee(parent.value) == "modules":
                yield parent, self.scopes.module

    def _key_of(self, space: ast.expr) -> ast.expr | None:
        """The name that is read from a namespace."""
        parent = self.scopes.parents.get(space)
        if isinstance(parent, ast.Subscript) and parent.value is space and isinstance(parent.ctx, ast.Load):
            return parent.slice
        if isinstance(parent, ast.Call) and space in parent.args[:1]:
            if callee(parent.func) == "getattr" and len(parent.args) > 1:
                return parent.args[1]
            return self._key_of(parent) if callee(parent.func) == "vars" else None
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
        stars = {name for _, module in self.stars for name in self.rules.in_module[module]}
        names = self.interesting.intersection({*scope.bindings, *(stars if scope is self.scopes.module else ())})
        whole = first is key and begin
        return {name for name in names if (name == begin if whole else name.startswith(begin))}
