"""Turns the analysis of one file into edits, under the decisions that were taken for all files."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..catalog import Symbol
from .decide import Analysis
from .edits import requests
from .edits.requests import New, Request
from .rules import Rules, Target
from .scopes import Scope, callee, neighbours
from .sites import Blocker, Site, Use
from .text import Finding

_PATH = re.compile(r"\.*[A-Za-z_]\w*(?:[.:][A-Za-z_]\w*)*\Z")
_RESOLVERS = frozenset(
    [
        "patch",
        "setattr",
        "delattr",
        "import_string",
        "locate",
        "get_class",
        "resolve_name",
        "import_module",
        "importorskip",
        "setitem",
        "delitem",
    ]
)


@dataclass
class Context:
    """What was decided for all files: see ``project``."""

    rules: Rules
    used: dict[str, dict[str, Target]] = field(default_factory=dict)
    keep: dict[str, set[str]] = field(default_factory=dict)
    """Path of a file -> local names that other files rely on."""

    def blocked(self, symbol: Symbol) -> bool:
        return self.rules.key(symbol) in self.rules.blocked

    def targets(self, symbol: Symbol) -> list[Target]:
        """The targets of a use that does not tell its case: those of the calls in all files, or the default one."""
        used = list(self.used.get(self.rules.key(symbol), {}).values())
        default = self.rules.default_target(symbol)
        return used or ([default] if default else [])


@dataclass
class Plan:
    """What is asked of the edits, the findings of one file, and the symbols that turned out not to be movable."""

    edits: list[Request] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    blockers: list[Blocker] = field(default_factory=list)
    symbols: set[str] = field(default_factory=set)


class Rewriter:
    """Makes the plan of one file."""

    def __init__(self, analysis: Analysis, context: Context) -> None:
        self.analysis, self.context, self.rules = analysis, context, context.rules
        self.source, self.scopes = analysis.source, analysis.scopes
        self.plan = Plan()
        self.outputs: dict[ast.stmt, dict[int, list[New]]] = {}
        self.new_names: dict[str, str] = {}
        self.done: set[Use] = set()
        self.moved: dict[tuple[int, str, str], tuple[list[tuple[str, str]], bool]] = {}
        self.comment_names = set(re.findall(r"\w+", " ".join(re.findall(r"#\s*type:[^\r\n]*", self.source.text))))

    def make(self) -> Plan:
        """The plan."""
        analysis = self.analysis
        for use in analysis.uses:
            if use.kind in ("alias", "alias-neutral"):
                self._arguments(use)
        groups: dict[tuple[int, str], list[Site]] = {}
        for site in analysis.sites.values():
            if site.symbol is not None:
                groups.setdefault((id(site.scope), site.local), []).append(site)
        for (_, local), sites in groups.items():
            self._names(local, sites)
        for site in analysis.sites.values():
            if site.symbol is None:
                self._module(site)
        for statement, module in analysis.stars:
            self._star(statement, module)
        self._reexported_uses()
        for symbol, _, edits, finding in analysis.string_edits:
            if not self.context.blocked(symbol):
                self.plan.edits += edits
                self.plan.findings.append(finding)
                self.plan.symbols.add(self.rules.key(symbol))
        self._strings()
        for node, outputs in self.outputs.items():
            pairs = tuple((index, tuple(news)) for index, news in sorted(outputs.items()))
            self.plan.edits.append(requests.Import(*self.source.span(node), pairs))
        return self.plan

    # -- small helpers ---------------------------------------------------------------------------------------------

    def change(self, node: ast.AST, code: str, message: str, symbol: Symbol) -> None:
        self.plan.findings.append(self.analysis.finding(node, code, "change", message, symbol.name))
        self.plan.symbols.add(self.rules.key(symbol))

    def block(self, symbol: Symbol, node: ast.AST, code: str, message: str) -> None:
        self.plan.blockers.append(Blocker(symbol, self.analysis.finding(node, code, "left", message, symbol.name)))

    def free(self, name: str, scope: Scope | None = None) -> bool:
        """Whether ``name`` can be bound by us: nothing in the file binds or reads it."""
        if self.scopes.bound_anywhere(name) or hasattr(builtins, name):
            return False
        return not any(node.id == name for node in self.scopes.names)

    def local_for(self, target: Target, wanted: str) -> bool:
        """Whether ``wanted`` may mean ``target`` in this file (free, or given to the same target before)."""
        known = self.new_names.get(wanted)
        if known is not None:
            return known == target.path
        if wanted == target.name and self._imported_already(target):
            return True
        return self.free(wanted)

    def _imported_already(self, target: Target) -> bool:
        """The file already imports the successor, and binds its name in no other way."""
        bindings = self.scopes.bound_anywhere(target.name)
        return bool(bindings) and all(
            b.kind == "import"
            and isinstance(b.statement, ast.ImportFrom)
            and b.statement.module == target.module
            and isinstance(b.node, ast.alias)
            and b.node.name == target.name
            for b in bindings
        )

    def _arguments(self, use: Use) -> None:
        if use in self.done or self.context.blocked(use.symbol):
            return
        self.done.add(use)  # two star imports of one module have the same uses
        self.plan.edits += use.edits
        for code, line, message in use.changes:
            self.plan.findings.append(
                Finding(self.source.path, self.source.real_line(line), 1, code, "change", message, use.symbol.name)
            )
        if use.edits:
            self.plan.symbols.add(self.rules.key(use.symbol))

    def _demand(self, use: Use) -> list[Target] | None:
        """Targets of one use, or ``None`` when it cannot be told (the symbol is then blocked)."""
        if use.target is not None:
            return [use.target]
        targets = self.context.targets(use.symbol)
        if len(targets) == 1:
            return targets
        if len(targets) > 1 and use.kind == "check":
            parent = self.scopes.parents.get(use.node)
            if isinstance(parent, ast.Call) and callee(parent.func) in ("isinstance", "issubclass"):
                return targets
        self.block(
            use.symbol, use.node, "TL033", f"several successors of {use.symbol.name} are in use, which one is meant?"
        )
        return None

    # -- names ---------------------------------------------------------------------------------------------------

    def _names(self, local: str, sites: list[Site]) -> None:
        symbols = {self.rules.key(s.symbol): s.symbol for s in sites if s.symbol is not None}
        editable = [s for s in sites if s.editable]
        if any(self.context.blocked(s) for s in symbols.values()):
            if len(symbols) > 1:
                for symbol in symbols.values():
                    if not self.context.blocked(symbol):
                        self.block(symbol, sites[0].statement, "TL037", f"{local} is bound to several losses here")
            return
        if not editable:
            for use in self.analysis.uses:
                if use.site in sites and use.kind in ("direct", "check", "neutral"):
                    self._arguments(use)
            return
        scope = sites[0].scope
        nodes = self._nodes(local, scope)
        uses: dict[ast.expr, Use] = {u.node: u for u in self.analysis.uses if u.site in sites and u.node in nodes}
        if len(symbols) > 1 or len(editable) < len(sites):
            self._several(local, sites, uses)
            return
        (symbol,) = symbols.values()
        meant: dict[ast.expr, list[Target]] = {}
        for node, use in uses.items():
            targets = self._demand(use)
            if targets is None:
                return
            meant[node] = targets
            self._arguments(use)
        every = {t.path: t for targets in meant.values() for t in targets}
        if not every:
            fallback = self.context.targets(symbol)
            if len(fallback) != 1:
                self.block(symbol, sites[0].statement, "TL033", f"which successor of {symbol.name} is meant?")
                return
            every = {fallback[0].path: fallback[0]}
        keep = self._kept(local, scope, sites)
        if len(every) > 1 and (keep or not all(self.local_for(t, t.name) for t in every.values())):
            self.block(
                symbol, sites[0].statement, "TL033", f"{local} stands for several successors and must keep its name"
            )
            return
        names = self._choose_names(local, sites, every, keep)
        for node, targets in meant.items():
            new = ", ".join(dict.fromkeys(names[t.path] for t in targets))
            self._rename(node, local, f"({new})" if len(targets) > 1 else new)
        for name in nodes:
            if name not in meant and len(every) == 1:
                self._rename(name, local, names[next(iter(every))])
        if len(every) == 1:
            self._annotations(local, names[next(iter(every))], scope)
        for site in sites:
            self._output(site, [New(t.module, t.name, names[t.path]) for t in every.values()])
            self._explain(site, list(every.values()), symbol)

    def _several(self, local: str, sites: list[Site], uses: dict[ast.expr, Use]) -> None:
        """One name, several imports: each keeps the name."""
        for use in uses.values():
            self._arguments(use)
        for site in sites:
            assert site.symbol is not None
            if not site.editable:
                continue
            targets = self.context.targets(site.symbol)
            targets = (
                list(
                    {
                        t.path: t for u in uses.values() if u.symbol is site.symbol and u.target for t in [u.target]
                    }.values()
                )
                or targets
            )
            if len(targets) != 1:
                self.block(site.symbol, site.statement, "TL033", f"which successor of {site.symbol.name} is meant?")
                continue
            self._output(site, [New(targets[0].module, targets[0].name, local)])
            self._explain(site, targets, site.symbol)

    def _choose_names(self, local: str, sites: list[Site], every: dict[str, Target], keep: bool) -> dict[str, str]:
        if len(every) > 1:
            names = {path: target.name for path, target in every.items()}
        else:
            ((path, target),) = every.items()
            aliased = any(site.alias.asname for site in sites)
            stays = keep or aliased or target.name == local or not self.local_for(target, target.name)
            names = {path: local if stays else target.name}
        self.new_names.update({name: path for path, name in names.items()})
        return names

    def _nodes(self, local: str, scope: Scope) -> list[ast.Name]:
        """All reads of ``local`` that mean its binding in ``scope``."""
        found = []
        for node in self.scopes.names:
            if node.id == local and isinstance(node.ctx, ast.Load):
                resolved = self.scopes.resolve(local, self.scopes.scope_of[node])
                if resolved is not None and resolved[0] is scope:
                    found.append(node)
        return found

    def _rename(self, node: ast.expr, old: str, new: str) -> None:
        if isinstance(node, ast.Name) and new != old:
            self.plan.edits.append(requests.Name(*self.source.span(node), new))

    def _kept(self, local: str, scope: Scope, sites: list[Site]) -> bool:
        """Whether somebody may rely on the local name: see the rules of TL001."""
        if scope.kind == "class" or local in self.comment_names:
            return True
        if any(b.kind != "import" or id(b.node) not in self.analysis.sites for b in scope.bindings.get(local, [])):
            return True
        if scope is self.scopes.module and not self.analysis.standalone:
            if self.analysis.is_package or local in self.context.keep.get(self.source.path, ()):
                return True
            if any(site.alias.asname == site.alias.name for site in sites):
                return True
        if local in self.analysis.looked_up or any(local in s.outer for s in self.scopes.all_scopes()):
            return True
        pattern = re.compile(rf"(?:[\w.]*\.)?{re.escape(local)}\Z")
        return any(
            pattern.match(str(node.value))
            and not self._quoted_annotation(node)
            and str(node.value) not in self.rules.by_path
            and node not in self.analysis.handled
            and not self._beside_module(node)
            for node in self.scopes.strings
        )

    def _quoted_annotation(self, node: ast.Constant) -> bool:
        parent = self.scopes.parents.get(node)
        if isinstance(parent, ast.Call) and callee(parent.func) == "cast" and parent.args and parent.args[0] is node:
            return True
        for ancestor in self.scopes.ancestors(node):
            if isinstance(ancestor, ast.Subscript) and callee(ancestor.value) in ("Literal", "Annotated"):
                return False
            if isinstance(ancestor, ast.Call):
                return False
        return self.analysis.in_annotation(node)

    def _annotations(self, local: str, new: str, scope: Scope) -> None:
        """Rename ``local`` in quoted annotations that mean this binding."""
        if local == new:
            return
        for node in self.scopes.strings:
            value = str(node.value)
            if local not in value or not self._quoted_annotation(node):
                continue
            resolved = self.scopes.resolve(local, self.scopes.scope_of[node])
            if resolved is None or resolved[0] is not scope:
                continue
            self.plan.edits.append(requests.Text(*self.source.span(node), local, new, words=True))
            self.plan.findings.append(self.analysis.finding(node, "TL005", "change", f"{local} -> {new}", local))

    def _output(self, site: Site, news: list[New]) -> None:
        self.outputs.setdefault(site.statement, {})[site.index] = news

    def _explain(self, site: Site, targets: Iterable[Target], symbol: Symbol) -> None:
        for target in targets:
            self.change(site.statement, "TL001", f"{site.path} -> {target.path}", symbol)

    def _reexported_uses(self) -> None:
        """Chains such as ``compat.VICRegLoss(...)`` through a module of the user's: only arguments change."""
        for use in self.analysis.uses:
            site = use.site
            if site is not None and site.symbol is None and use.kind in ("direct", "check", "neutral"):
                path = self.analysis.module_path(use.node)
                if path is not None and path[0] in self.rules.reexports:
                    self._arguments(use)

    # -- modules -------------------------------------------------------------------------------------------------

    def _module(self, site: Site) -> None:
        """An import of an old module, and the dotted uses through it."""
        uses = []
        left = site.escaped
        for use in self.analysis.uses:
            if use.site is not site or use.kind not in ("direct", "check", "neutral"):
                continue
            path = self.analysis.module_path(use.node.args[0] if isinstance(use.node, ast.Call) else use.node)
            if path is not None and path[0] in self.rules.reexports:
                left = True
                continue
            if self.context.blocked(use.symbol):
                left = True
                continue
            targets = self._demand(use)
            if targets is None:
                return
            uses.append((use, targets))
        if not uses:
            if site.editable and not left:
                self._unused_module(site)
            return
        left = left or not site.editable
        modules = list(dict.fromkeys(t.module for _, targets in uses for t in targets))
        prefixes = self._prefixes(site, modules, left)
        if prefixes is None:
            for use, _ in uses:
                self.block(use.symbol, site.statement, "TL039", f"no free name for the successors of {site.path}")
            return
        for use, targets in uses:
            self._arguments(use)
            texts = [f"{prefixes[t.module]}.{t.name}" if prefixes[t.module] else t.name for t in targets]
            self._replace_chain(use, site, texts, targets)
        old = f"{site.path}"
        self.change(site.statement, "TL002", f"{old} -> {', '.join(modules)}", uses[0][0].symbol)
        for use, _ in uses:
            self.plan.symbols.add(self.rules.key(use.symbol))

    def _unused_module(self, site: Site) -> None:
        inside = self.rules.in_module.get(site.path, {})
        symbols = [symbol for name, symbol in inside.items() if f"{site.path}.{name}" not in self.rules.foreign]
        if not symbols:
            return
        twice = self.moved.get((id(site.scope), site.path, site.local))
        if twice is not None:
            self._module_output(site, *twice)
            self.change(site.statement, "TL002", f"{site.path} -> {', '.join(m for m, _ in twice[0])}", symbols[0])
            return
        targets = {t.module for s in symbols for t in self.context.targets(s)}
        movable = len(targets) == 1 and not any(self.context.blocked(s) for s in symbols)
        if not movable or self._kept(site.local, site.scope, [site]):
            beside = isinstance(site.statement, ast.ImportFrom) and site.statement.level > 0
            if not (beside or self.analysis.standalone):  # a package that imports its own modules goes with them
                self.plan.findings.append(
                    self.analysis.finding(
                        site.statement, "TL039", "left", f"{site.path} is imported, but no use is in sight"
                    )
                )
            return
        module = targets.pop()
        if site in self.analysis.chain_sites:
            return
        self._module_output(site, [(module, site.local)], False)
        self.change(site.statement, "TL002", f"{site.path} -> {module}", symbols[0])

    def _prefixes(self, site: Site, modules: list[str], left: bool) -> dict[str, str] | None:
        """New module -> how it is spelled in the file; also sets the output of the import."""
        if site in self.analysis.chain_sites:
            if len(modules) > 1 or left:
                return None
            self.plan.edits.append(requests.Key(*self.source.span(site.statement), modules[0]))
            return {modules[0]: ""}
        dotted = isinstance(site.statement, ast.Import) and not site.alias.asname
        pairs: list[tuple[str, str]] = []
        for index, module in enumerate(modules):
            if dotted and self._root_free(module.partition(".")[0]):
                pairs.append((module, ""))
                continue
            leaf = module.rpartition(".")[2]
            keep = site.alias.asname or (not dotted and self._kept(site.local, site.scope, [site]))
            if index == 0 and not left and not dotted and (keep or not self._leaf_free(leaf, module)):
                local = site.local
            elif self._leaf_free(leaf, module):
                local = leaf
            else:
                return None
            self.new_names[local] = module
            pairs.append((module, local))
        self.moved[id(site.scope), site.path, site.local] = pairs, left
        self._module_output(site, pairs, left)
        return {module: local or module for module, local in pairs}

    def _leaf_free(self, leaf: str, module: str) -> bool:
        return self.new_names.get(leaf, module) == module and (leaf in self.new_names or self.free(leaf))

    def _root_free(self, root: str) -> bool:
        """Whether every binding of ``root`` in the file is an import of it."""
        return all(
            isinstance(b.node, ast.alias) and isinstance(b.statement, ast.Import)
            and not b.node.asname and b.node.name.partition(".")[0] == root
            for b in self.scopes.bound_anywhere(root)
        )  # fmt: skip

    def _module_output(self, site: Site, pairs: list[tuple[str, str]], left: bool) -> None:
        news = []
        if left:
            alias = site.alias
            module = ""
            if isinstance(site.statement, ast.ImportFrom):
                at = "." * site.statement.level + (site.statement.module or "")
                module = at
            news.append(New(module, alias.name, alias.asname))
        for module, local in pairs:
            package, _, leaf = module.rpartition(".")
            if isinstance(site.statement, ast.ImportFrom):
                news.append(New(package, leaf, local or None))
            elif not local or (local == site.local and not site.alias.asname):
                news.append(New("", module))
            else:
                news.append(New("", module, local))
        self._output(site, news)

    def _replace_chain(self, use: Use, site: Site, texts: list[str], targets: list[Target]) -> None:
        node = use.node
        text = f"({', '.join(texts)})" if len(texts) > 1 else texts[0]
        if isinstance(node, ast.Call):
            self.plan.edits.append(requests.Key(*self.source.span(node.args[1]), targets[0].name))
            if site not in self.analysis.chain_sites:
                self.plan.edits.append(requests.Name(*self.source.span(node.args[0]), texts[0].rpartition(".")[0]))
        elif site in self.analysis.chain_sites and isinstance(node, ast.Attribute):
            self.plan.edits.append(requests.Member(*self.source.span(node), targets[0].name))
        else:
            self.plan.edits.append(requests.Name(*self.source.span(node), text))

    # -- star imports ----------------------------------------------------------------------------------------------

    def _star(self, statement: ast.ImportFrom, module: str) -> None:
        uses = self.analysis.star_uses.get(id(statement), {})
        symbols = {id(u.symbol): u.symbol for group in uses.values() for u in group}
        known = self.rules.in_module[module]
        public = self.analysis.is_package or bool(self.context.keep.get(self.source.path))
        unresolved = {
            node.id
            for node in self.scopes.names
            if isinstance(node.ctx, ast.Load)
            and not hasattr(builtins, node.id)
            and self.scopes.resolve(node.id, self.scopes.scope_of[node]) is None
        }
        strange = sorted(unresolved - set(known) - {"__file__", "__name__", "__doc__", "__path__"})
        others = [s for s in self.scopes.module.stars if s is not statement]
        reason = ""
        if public:
            reason = "the file re-exports what it imports by star"
        elif not uses:
            reason = "no name that it supplies is in sight"
        elif self.analysis.looked_up.intersection(known).difference(uses):
            reason = "a name that it may supply is looked up"
        elif strange and not others:
            reason = f"it may also supply {', '.join(strange[:5])}"
        elif any(self.context.blocked(s) for s in symbols.values()):
            reason = "one of its names is left"
        if reason:
            for site in self.analysis.sites.values():
                # a star that stays binds the old name as well
                if site.symbol is not None and site.scope is self.scopes.module and site.local in known:
                    symbols[id(site.symbol)] = site.symbol
            if symbols:
                for symbol in symbols.values():
                    self.block(symbol, statement, "TL038", f"star import of {module}: {reason}")
            else:
                self.plan.findings.append(
                    self.analysis.finding(statement, "TL038", "left", f"star import of {module}: {reason}")
                )
            return
        news: list[New] = []
        for name, group in uses.items():
            every: dict[str, Target] = {}
            meant: dict[ast.expr, list[Target]] = {}
            for use in group:
                targets = self._demand(use)
                if targets is None:
                    return
                meant[use.node] = targets
                every.update({t.path: t for t in targets})
            quoted = name in self.analysis.looked_up or any(str(n.value) == name for n in self.scopes.strings)
            if quoted and len(every) == 1:
                names = dict.fromkeys(every, name)
            elif all(self.local_for(t, t.name) or t.name == name for t in every.values()):
                names = {path: t.name for path, t in every.items()}
            elif len(every) == 1:
                names = dict.fromkeys(every, name)
            else:
                self.block(group[0].symbol, statement, "TL033", f"{name} stands for several successors")
                return
            self.new_names.update({local: path for path, local in names.items()})
            for use in group:
                self._arguments(use)
                new = ", ".join(names[t.path] for t in meant[use.node])
                self._rename(use.node, name, f"({new})" if len(meant[use.node]) > 1 else new)
            news += [New(t.module, t.name, names[path]) for path, t in every.items()]
            self.change(statement, "TL003", f"{module}.* -> {', '.join(every)}", group[0].symbol)
        self.outputs.setdefault(statement, {})[0] = news

    # -- strings -------------------------------------------------------------------------------------------------

    def _strings(self) -> None:
        for node in self.scopes.strings:
            value = str(node.value)
            if node in self.analysis.handled or "." not in value or not _PATH.match(value):
                continue
            if self.source.skipped(node.lineno) or self._pattern(node):
                continue
            self._string(node, value)

    def _pattern(self, node: ast.Constant) -> bool:
        """Whether the string is a regular expression."""
        parent = self.scopes.parents.get(node)
        function = parent.func if isinstance(parent, ast.Call) else None
        return isinstance(function, ast.Attribute) and ast.unparse(function.value) in ("re", "regex")

    def _string(self, node: ast.Constant, value: str) -> None:
        start, end = self.source.span(node)
        raw = self.source.text[start:end]
        at = raw.find(value)
        module = self.analysis.absolute_path(value)
        if module in self.rules.modules:
            self._module_string(node, module, at >= 0)
            return
        dotted = value.replace(":", ".")
        path = dotted
        while path and self.rules.symbol(path) is None:
            path = path.rpartition(".")[0]
        symbol = self.rules.symbol(path) if path else None
        if symbol is None:
            owner = next((m for m in self._parents(dotted) if m in self.rules.catalog.modules), None)
            if owner is not None and self._resolved(node):
                for other in self.rules.in_module.get(owner, {}).values():
                    self.block(other, node, "TL036", f"{value!r} patches the inside of an old module")
            return
        if self.context.blocked(symbol) or not self.rules.editable(path):
            return
        neutral = self._resolved(node) or self._in_all(node)
        if not neutral and self.rules.arguments_change(symbol):
            self.block(symbol, node, "TL040", f"{value!r}: what imports it by this string, and with which arguments?")
            return
        targets = self.context.targets(symbol)
        if len(targets) != 1 or at < 0:
            self.block(symbol, node, "TL033", f"{value!r}: which successor is meant?")
            return
        target = targets[0]
        rest = value[len(path) :]
        member = rest[1:].partition(".")[0]
        new_member = target.case.members.get(member, member) if not target.twin else member
        if isinstance(new_member, dict):
            self.block(symbol, node, "TL042", f"{value!r}: {new_member.get('report', 'no counterpart')}")
            return
        rest = rest.replace(member, new_member, 1) if member else rest
        colon = ":" in value[: len(path)]
        new = f"{target.module}{':' if colon else '.'}{target.name}{rest}"
        self.plan.edits.append(requests.Text(start, end, value, new))
        self.change(node, "TL004", f"{value} -> {new}", symbol)

    def _parents(self, dotted: str) -> Iterable[str]:
        while "." in dotted:
            dotted = dotted.rpartition(".")[0]
            yield dotted

    def _resolved(self, node: ast.Constant) -> bool:
        """Whether the string is an argument of something that looks a path up, or a key of ``sys.modules``."""
        parent = self.scopes.parents.get(node)
        if isinstance(parent, ast.keyword):
            parent = self.scopes.parents.get(parent)
        if isinstance(parent, ast.Call):
            return callee(parent.func) in _RESOLVERS
        if isinstance(parent, ast.Subscript):
            return ast.unparse(parent.value) == "sys.modules"
        return False

    def _in_all(self, node: ast.Constant) -> bool:
        return any(
            isinstance(a, (ast.Assign, ast.AugAssign)) and "__all__" in ast.unparse(a).partition("=")[0]
            for a in self.scopes.ancestors(node)
        )

    def _beside_module(self, node: ast.Constant) -> bool:
        """Whether the string is the name beside an old module in a lazy import table."""
        return any(
            isinstance(other, ast.Constant) and self.analysis.absolute_path(str(other.value)) in self.rules.modules
            for other in neighbours(node, self.scopes.parents.get(node))
        )

    def _module_string(self, node: ast.Constant, module: str, plain: bool) -> None:
        parent = self.scopes.parents.get(node)
        names = self.rules.in_module.get(module, {})
        for other in neighbours(node, parent):
            if isinstance(other, ast.Constant) and isinstance(other.value, str) and other.value in names:
                symbol = names[other.value]
                if self.context.blocked(symbol):
                    return
                exported = "__getattr__" in self.scopes.module.bindings or self._resolved(node)
                if not exported and self.rules.arguments_change(symbol):
                    self.block(
                        symbol, node, "TL040", f"{other.value}: what imports it by this table, and how is it called?"
                    )
                    return
                targets = self.context.targets(symbol)
                as_key = isinstance(parent, ast.Dict)
                if len(targets) != 1 or not plain or (as_key and targets[0].name != other.value):
                    self.block(symbol, node, "TL040", f"table of lazy imports: {other.value} has another name now")
                    return
                place = self.source.span(node)
                self.plan.edits.append(requests.Text(*place, str(node.value), targets[0].module))
                if targets[0].name != other.value:
                    self.plan.edits.append(requests.Key(*self.source.span(other), targets[0].name))
                self.change(node, "TL004", f"{module}.{other.value} -> {targets[0].path}", symbol)
                return
        symbols = {id(s): s for s in names.values()}.values()
        targets = [t for s in symbols for t in self.context.targets(s)]
        modules = {t.module for t in targets}
        if self._resolved(node):
            if len(modules) == 1 and plain and not any(self.context.blocked(s) for s in symbols):
                new = modules.pop()
                self.plan.edits.append(requests.Text(*self.source.span(node), str(node.value), new))
                self.change(node, "TL004", f"{module} -> {new}", next(iter(symbols)))
                return
            for symbol in symbols:
                if not self.context.blocked(symbol):
                    self.block(
                        symbol, node, "TL040", f"{module!r} is looked up by name; its losses have several new homes"
                    )
            return
        self.plan.findings.append(
            self.analysis.finding(node, "TL040", "left", f"{module!r} names an old module; its use is not in sight")
        )
