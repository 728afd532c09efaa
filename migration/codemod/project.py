"""Takes the decisions that concern all files: what is re-exported, what is blocked, which names are public."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..catalog import Symbol
from .decide import Analysis, Blocker
from .files import Encoded, FileError, decode, read
from .rewrite import Context, Plan, Rewriter
from .rules import Rules, Target
from .text import Edit, Finding, Source, apply
from .walk import module_names, package_names, walk

MAX_BYTES = 2_000_000


@dataclass
class Change:
    """A file that is, or would be, rewritten."""

    path: str
    old: bytes
    new: bytes
    old_text: str
    new_text: str
    symbols: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)


@dataclass
class Outcome:
    """What a run found."""

    changes: list[Change] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    scanned: int = 0
    matched: int = 0

    def counts(self) -> Counter[str]:
        """Findings per rule."""
        return Counter(finding.code for finding in self.findings)

    @property
    def errors(self) -> bool:
        return any(finding.level == "error" for finding in self.findings)

    @property
    def left(self) -> bool:
        return any(finding.level == "left" for finding in self.findings)


@dataclass
class Module:
    """A matching Python file."""

    path: str
    encoded: Encoded
    source: Source
    tree: ast.Module
    packages: list[str]
    modules: list[str]
    analysis: Analysis


class Project:
    """One run over some paths."""

    def __init__(self, rules: Rules, max_bytes: int = MAX_BYTES, gitignore: bool = True) -> None:
        self.rules, self.max_bytes, self.gitignore = rules, max_bytes, gitignore
        self.outcome = Outcome()
        self.modules: dict[str, Module] = {}
        self.python_files: list[str] = []
        self.pattern = prefilter(rules)

    # -- reading -------------------------------------------------------------------------------------------------

    def error(self, path: str, code: str, message: str, line: int = 1) -> None:
        self.outcome.findings.append(Finding(path, line, 1, code, "error", message))

    def scan(self, paths: Sequence[Path], progress: Callable[[int, str], None] | None = None) -> None:
        """Read everything below ``paths`` and analyse what mentions an old name."""
        seen: set[str] = set()
        for top in paths:
            for path, kind in walk(top, lambda p, e: self.error(p, "TL092", e.strerror or str(e)), self.gitignore):
                if path in seen:
                    continue
                seen.add(path)
                self.outcome.scanned += 1
                if progress is not None:
                    progress(self.outcome.scanned, path)
                if kind == "python":
                    self.python_files.append(path)
                    self._python(path, self.pattern)

    def _python(self, path: str, pattern: re.Pattern[bytes]) -> bool:
        try:
            data = read(path)
            if not pattern.search(data):
                return False
            self.outcome.matched += 1
            if len(data) > self.max_bytes:
                raise FileError("TL093", f"larger than {self.max_bytes} bytes")
            self.add(path, data)
        except FileError as error:
            self.error(path, error.code, str(error))
        return True

    def add(self, path: str, data: bytes) -> None:
        """Analyse one Python file.

        Raises:
            FileError: it cannot be decoded or parsed.
        """
        encoded = decode(data)
        source = Source(encoded.text, path)
        if source.skip_file:
            return
        tree = parse(encoded.text)
        packages, modules = package_names(Path(path)), module_names(Path(path))
        self.modules[path] = Module(
            path, encoded, source, tree, packages, modules, self._analysis(source, tree, packages, modules)
        )

    def _analysis(self, source: Source, tree: ast.Module, packages: list[str], modules: list[str]) -> Analysis:
        is_package = Path(source.path).stem == "__init__"
        try:
            return Analysis(source, tree, self.rules, packages, modules, is_package)
        except RecursionError as error:
            raise FileError("TL093", "nested too deeply") from error

    # -- decisions -----------------------------------------------------------------------------------------------

    def decide(self) -> Context:
        """Analyse the uses in all files and settle what concerns all of them."""
        self._follow_reexports()
        for path, module in list(self.modules.items()):
            if not module.analysis.relevant and not module.analysis.scopes.strings:
                continue
            try:
                module.analysis.run()
            except RecursionError:
                self.error(path, "TL093", "nested too deeply")
                del self.modules[path]
        context = Context(self.rules)
        for module in self.modules.values():
            for symbol, target in module.analysis.used_targets():
                context.used.setdefault(self.rules.key(symbol), {}).setdefault(target.path, target)
        context.keep = self._public_names()
        blockers = [b for m in self.modules.values() for b in m.analysis.blockers]
        while True:
            self._block(blockers)
            blockers = []
            for plan in (Rewriter(m.analysis, context).make() for m in self.modules.values()):
                blockers += [b for b in plan.blockers if not context.blocked(b.symbol)]
            if not blockers:
                return context

    def _block(self, blockers: Iterable[Blocker]) -> None:
        for blocker in blockers:
            self.rules.blocked.add(self.rules.key(blocker.symbol))
            if blocker.finding not in self.outcome.findings:
                self.outcome.findings.append(blocker.finding)

    def _follow_reexports(self) -> None:
        """Modules of this tree that import an old symbol and are imported by others lead to it as well."""
        self._own_modules()
        grown = True
        while grown:
            grown = False
            names: set[str] = set()
            for module in self.modules.values():
                for name, symbol in module.analysis.exports().items():
                    for dotted in module.modules:
                        if self.rules.add_reexport(f"{dotted}.{name}", symbol):
                            grown = True
                            names.add(name)
            if not grown:
                return
            strange = names - self.rules.leaves()
            if strange:
                pattern = re.compile("|".join(rf"\b{re.escape(n)}\b" for n in sorted(strange)).encode())
                for path in self.python_files:
                    if path not in self.modules:
                        self._python(path, pattern)
            for module in self.modules.values():
                if names & set(re.findall(r"\w+", module.source.text)):
                    module.analysis = self._analysis(module.source, module.tree, module.packages, module.modules)

    def _own_modules(self) -> None:
        """A file of this tree under an old path that holds something else shadows the old symbol."""
        leaves = {path.rpartition(".")[2] for path in self.rules.modules}
        redo = False
        for path in self.python_files:
            stem = Path(path).parent.name if Path(path).stem == "__init__" else Path(path).stem
            if stem not in leaves:
                continue
            for dotted in module_names(Path(path)):
                for name, symbol in self.rules.in_module.get(dotted, {}).items():
                    if not self._holds(path, name, symbol):
                        self.rules.foreign.add(f"{dotted}.{name}")
                        redo = True
        if redo:
            for module in self.modules.values():
                module.analysis = self._analysis(module.source, module.tree, module.packages, module.modules)

    def _holds(self, path: str, name: str, symbol: Symbol) -> bool:
        """Whether the file at an old path defines or imports the old symbol as ``name``."""
        module = self.modules.get(path)
        if module is None:
            return False
        bindings = module.analysis.scopes.module.bindings.get(name, [])
        if not bindings and module.analysis.scopes.module.stars:
            return True
        for binding in bindings:
            if binding.kind == "import":
                exported = module.analysis.exports().get(name)
                if exported is None or exported is symbol:
                    return exported is symbol or binding.kind == "import"
            elif isinstance(binding.node, (ast.ClassDef, ast.FunctionDef)):
                return _same_signature(binding.node, symbol)
        return False

    def _public_names(self) -> dict[str, set[str]]:
        """Local names of each file that other files refer to."""
        keep: dict[str, set[str]] = {}
        by_name = {dotted: path for path, module in self.modules.items() for dotted in module.modules}
        for path, module in self.modules.items():
            for statement in module.analysis.scopes.imports:
                if isinstance(statement, ast.ImportFrom):
                    for dotted in module.analysis.absolute(statement):
                        target = by_name.get(dotted)
                        if target is not None and target != path:
                            keep.setdefault(target, set()).update(a.name for a in statement.names)
            dotted_strings = {str(s.value) for s in module.analysis.scopes.strings if "." in str(s.value)}
            for other, owner in self.modules.items():
                if other == path:
                    continue
                stems = {dotted.rpartition(".")[2] for dotted in owner.modules}
                for name in owner.analysis.scopes.module.bindings:
                    if (
                        name in module.analysis.scopes.attributes and any(stem in module.source.text for stem in stems)
                    ) or any(s.endswith(f".{name}") and s.split(".")[-2] in stems for s in dotted_strings):
                        keep.setdefault(other, set()).add(name)
        for path, names in list(keep.items()):
            if "*" in names:
                names.update(self.modules[path].analysis.scopes.module.bindings)
        return keep

    # -- result --------------------------------------------------------------------------------------------------

    def finish(self, context: Context) -> Outcome:
        """Make, check and collect the changes of all files."""
        noted: set[str] = set()
        for module in self.modules.values():
            plan = Rewriter(module.analysis, context).make()
            self._left_alone(module, context)
            self.outcome.findings += [f for f in plan.findings if f.level == "left"]
            self.outcome.findings += [f for symbol, f in module.analysis.notes if symbol is None]
            try:
                change = self._change(module, plan, context)
            except FileError as error:
                self.error(module.path, error.code, str(error))
                continue
            if change is not None:
                self.outcome.changes.append(change)
                self.outcome.findings += change.findings
                self._numbers(change, module, context, noted)
                self.outcome.findings += [
                    f for s, f in module.analysis.notes if s is not None and self.rules.key(s) in plan.symbols
                ]
        self.outcome.findings = sorted(set(self.outcome.findings), key=lambda f: (f.path, f.line, f.column, f.code))
        return self.outcome

    def _left_alone(self, module: Module, context: Context) -> None:
        """Name the imports that stay because of another place."""
        reasons = {f.symbol: f for f in self.outcome.findings if f.level == "left"}
        for site in module.analysis.sites.values():
            if site.symbol is not None and site.editable and context.blocked(site.symbol):
                cause = reasons.get(site.symbol.name)
                here = cause is not None and cause.path == module.path
                if cause is not None and not here:
                    message = f"{site.symbol.name} stays, because of {cause.path}:{cause.line} ({cause.code})"
                    self.outcome.findings.append(
                        module.analysis.finding(site.statement, "TL043", "left", message, site.symbol.name)
                    )

    def _change(self, module: Module, plan: Plan, context: Context) -> Change | None:
        if not plan.edits:
            return None
        try:
            text = apply(module.source.text, plan.edits)
        except ValueError as error:
            raise FileError("TL095", str(error)) from error
        if text == module.source.text:
            return None
        self._verify(module, text, context)
        changes = [f for f in plan.findings if f.level == "change"]
        encoded = module.encoded
        return Change(module.path, encoded.data, encoded.encode(text), encoded.text, text, plan.symbols, changes)

    def _verify(self, module: Module, text: str, context: Context) -> None:
        """The result must parse, and a second run must not change it.

        Raises:
            FileError: it does not.
        """
        try:
            tree = parse(text)
        except FileError as error:
            raise FileError("TL095", f"the result would not parse: {error}") from error
        again = self._analysis(Source(text, module.path), tree, module.packages, module.modules)
        again.run()
        second = Rewriter(again, context).make()
        try:
            stable = apply(text, second.edits) == text
        except ValueError:
            stable = False
        if not stable:
            raise FileError("TL095", "a second run would change the result again")

    def _numbers(self, change: Change, module: Module, context: Context, noted: set[str]) -> None:
        """Say once per row what differs from the old loss, and which names went to the frozen twin."""
        for finding in change.findings:
            if finding.code not in ("TL001", "TL002", "TL003", "TL004"):
                continue
            for symbol in (s for s in self.rules.catalog.symbols if s.name == finding.symbol):
                if self.rules.key(symbol) not in change.symbols:
                    continue
                for target in (self.rules.target(symbol, case) for case in symbol.cases):
                    used = context.used.get(self.rules.key(symbol), {})
                    if (used and target.path not in used) or target.path in noted:
                        continue
                    if not used and target not in context.targets(symbol):
                        continue
                    note = _number_note(symbol, target)
                    if note is not None:
                        noted.add(target.path)
                        code, message = note
                        self.outcome.findings.append(
                            Finding(finding.path, finding.line, finding.column, code, "note", message, symbol.name)
                        )


def _number_note(symbol: Symbol, target: Target) -> tuple[str, str] | None:
    case = target.case
    if target.twin:
        reason = case.reason or "; ".join(case.deviations) or "it has no successor with the same numbers"
        return "TL021", f"{symbol.name} stays on its frozen twin {target.path}: {reason}"
    if case.parity == "exact":
        return None
    what = "; ".join(case.deviations)
    where = f"same numbers in this domain: {case.domain}. Elsewhere: " if case.domain else ""
    return "TL020", f"{symbol.name} -> {target.name}: {where}{what}"


def _same_signature(node: ast.ClassDef | ast.FunctionDef, symbol: Symbol) -> bool:
    function: ast.AST = node
    if isinstance(node, ast.ClassDef):
        function = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), node)
    if not isinstance(function, ast.FunctionDef):
        return not symbol.signature
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    expected = [name for name, a in symbol.signature.items() if not a.variadic]
    return names[1 if isinstance(node, ast.ClassDef) else 0 :] == expected


def parse(text: str) -> ast.Module:
    """The syntax tree of ``text``.

    Raises:
        FileError: it does not parse, or is nested too deeply.
    """
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        raise FileError("TL090", f"line {error.lineno}: {error.msg}") from error
    except ValueError as error:
        raise FileError("TL090", str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise FileError("TL093", "nested too deeply") from error


def prefilter(rules: Rules) -> re.Pattern[bytes]:
    """One expression that every file with an old name matches."""
    words = {*rules.leaves(), *(m for m in rules.modules if "." in m)}
    return re.compile("|".join(rf"\b{re.escape(word)}\b" for word in sorted(words)).encode())


def rewrite_text(text: str, rules: Rules, path: str = "<stdin>") -> tuple[str, Outcome]:
    """Rewrite one Python text (for stdin, tests and documents)."""
    project = Project(rules)
    project.outcome.scanned = project.outcome.matched = 1
    try:
        project.add(path, text.encode())
    except FileError as error:
        project.error(path, error.code, str(error))
    outcome = project.finish(project.decide())
    return (outcome.changes[0].new_text if outcome.changes else text), outcome


__all__ = ["MAX_BYTES", "Change", "Edit", "Outcome", "Project", "parse", "prefilter", "rewrite_text"]
