"""Follows losses that were built in sight: their attributes, their calls, and the results of these."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from ..catalog import Case, ResultKey, Symbol
from . import calls
from .edits import requests
from .edits.requests import Request
from .references import References
from .rules import Target, converts, renames
from .scopes import FUNCTIONS, Scope, callee, is_none
from .signatures import positional
from .sites import Instance

TRANSPARENT = frozenset({
    "to", "cuda", "cpu", "xpu", "eval", "train", "double", "float", "half", "bfloat16", "requires_grad_", "apply",
    "type", "share_memory",
})  # fmt: skip
"""Methods of modules that return the module."""
MODULE_API = TRANSPARENT | {
    "state_dict", "load_state_dict", "parameters", "named_parameters", "buffers", "named_buffers", "children",
    "named_children", "modules", "named_modules", "zero_grad", "training", "forward", "register_buffer",
    "register_parameter", "register_module", "add_module", "register_forward_hook", "register_forward_pre_hook",
    "register_full_backward_hook", "get_parameter", "get_buffer", "get_submodule", "extra_repr", "compile",
}  # fmt: skip
"""What every module has: the same in old and new losses."""
_OTHER = ast.Pass()


class Instances(References):
    """Losses as objects."""

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
            if value is not None and not is_none(value):
                more, sure = self.instances(value, seen)
                found += [m for m in more if m not in found]
                pure = pure and sure and bool(more)
        return found, pure

    def _returned(self, func: ast.expr | None, depth: int = 0) -> list[ast.AST | None]:
        """What a function of this file returns: one bound once, perhaps to a second name, undecorated, no generator."""
        if not isinstance(func, ast.Name) or func not in self.scopes.scope_of or depth > 5:
            return []
        resolved = self.scopes.resolve(func.id, self.scopes.scope_of[func])
        if resolved is None or len(resolved[1]) != 1:
            return []
        binding = resolved[1][0]
        if isinstance(binding.value, ast.Lambda):
            return [binding.value.body]
        if binding.kind == "assign" and isinstance(binding.value, ast.Name):
            return self._returned(binding.value, depth + 1)
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
                    self.instance_escapes(parent, made)
        elif isinstance(parent, (ast.NamedExpr, ast.IfExp, ast.Expr, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.If)) or (
            isinstance(parent, ast.Call)
            and callee(parent.func)
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
        elif isinstance(parent, ast.Call) and callee(parent.func) in ("hasattr", "getattr") and len(parent.args) > 1:
            self._dynamic_member(parent, made)
        else:
            self.instance_escapes(node, made)

    def _dynamic_member(self, call: ast.Call, made: list[Instance]) -> None:
        name = call.args[1]
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
            return
        for symbol, case, target in made:
            new = case.members.get(name.value) if not target.twin else None
            if isinstance(new, str) and new != name.value:
                edit = requests.Key(*self.source.span(name), new)
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

    def instance_escapes(self, node: ast.AST, made: list[Instance]) -> None:
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
            edit = requests.Member(*self.source.span(node), new)
            target = self.rules.target(symbol, found[0])
            self.string_edits.append(
                (symbol, target, [edit], self.finding(node, "TL011", "change", f"{node.attr} -> {new}", symbol.name))
            )

    # -- calls of a loss ----------------------------------------------------------------------------------------------

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
                self.block(symbol, call, calls.problem_code(problem), f"call of {symbol.name}: {problem}")
            plans.append((instance, conversion))
        asked = {plan.request for _, plan in plans}
        if len(asked) > 1 or (not pure and asked != {None}):
            for symbol, _, _ in made:
                self.block(symbol, call, "TL037", f"this call may be of {symbol.name} or of something else")
            return
        (symbol, case, target), plan = plans[0]
        if plan.request is not None:
            finding = self.finding(call, "TL009", "change", f"arguments of a call of {symbol.name}", symbol.name)
            self.string_edits.append((symbol, target, [plan.request], finding))
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
                take = requests.Take(*self.source.span(call), "loss")
                finding = self.finding(call, "TL010", "change", f"{symbol.name} returns a LossOutput", symbol.name)
                self.string_edits.append((symbol, target, [take], finding))
                continue
            self.block(symbol, call, "TL041", f"{symbol.name} returns {new} instead of {old}")

    # -- results ------------------------------------------------------------------------------------------------------

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
        edits: list[Request] = []
        nested_key = "." in rule.old and rule.old != name
        if nested_key or rule.new != name:
            edits.append(requests.Key(*self.source.span(key), rule.new))
        if nested_key:
            assert isinstance(inner, ast.Subscript)
            edits.append(requests.Flatten(*self.source.span(inner)))
        if edits:
            finding = self.finding(key, "TL010", "change", f"{rule.old} -> {rule.new}", symbol.name)
            self.string_edits.append((symbol, target, edits, finding))
        if rule.differs:
            self.note(symbol, key, "TL023", f"{rule.new}: {rule.differs}")


def _is_membership(compare: ast.Compare, container: ast.expr) -> bool:
    """``key in container``."""
    return isinstance(compare.ops[0], (ast.In, ast.NotIn)) and compare.comparators == [container]
