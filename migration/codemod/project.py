"""Takes the decisions that concern all files: what is re-exported, what is blocked, which names are public."""

from __future__ import annotations

import ast
import copy
import dataclasses
import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..catalog import Symbol
from .config import MAX_BYTES
from .configs import Converter, Result
from .decide import Analysis
from .documents import Part, document, notebook
from .dotted import Dotted
from .edits.perform import perform
from .errors import FileError
from .files import Encoded, check_writable, decode, read
from .oldpaths import OldPaths
from .places import module_names, package_names
from .remains import Tree, leftover, unsaid
from .rewrite import Context, Plan, Rewriter
from .rules import Rules, Target
from .scout import Scout, Seen, of_catalog, search
from .sections import Sections
from .sites import Blocker
from .syntax import parse, plain
from .text import SKIP, SKIP_FILE, Edit, Finding, Source, apply
from .texts import told
from .walk import walk

_STAR = re.compile(rb"import[ \t(\\]*\*")


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
    unsought: list[str] = field(default_factory=list)
    """Packages whose quoted paths were not looked for."""

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
    kind: str = "python"
    part: Part | None = None
    """Set for notebooks and documents, whose Python is only a part of the file."""

    def carried(self, edits: list[Edit]) -> list[Edit]:
        """Edits of the source in terms of the file."""
        return edits if self.part is None else self.part.carry(edits, self.encoded.text)


class Project:
    """One run over some paths."""

    def __init__(
        self,
        rules: Rules,
        max_bytes: int = MAX_BYTES,
        gitignore: bool = True,
        exclude: Sequence[str] = (),
        look: Scout | None = None,
    ) -> None:
        self.rules, self.max_bytes, self.gitignore, self.exclude = rules, max_bytes, gitignore, exclude
        self.outcome = Outcome()
        self.modules: dict[str, Module] = {}
        self.documents: dict[str, list[Module]] = {}
        self.configs: dict[str, Encoded] = {}
        self.python_files: list[str] = []
        self.look = look or of_catalog(self.rules.catalog)
        self.made: dict[str, tuple[Plan, Change | None]] = {}
        """What was decided for each Python file and notebook."""
        self.kept: dict[str, str] = {}
        """Symbols that stay because of a file that cannot be changed."""
        self.configured: list[tuple[Symbol, Target]] = []
        """What is built by a path in a configuration."""
        self.taken: dict[str, tuple[Encoded, str]] = {}
        """Text and kind of each file that was read, for what stays in it."""

    # -- reading -------------------------------------------------------------------------------------------------

    def error(self, path: str, code: str, message: str, line: int = 1) -> None:
        self.outcome.findings.append(Finding(path, line, 1, code, "error", message))

    def scan(self, paths: Iterable[Path], progress: Callable[[int, str], None] | None = None, jobs: int = 1) -> None:
        """Read everything below ``paths`` and take up what mentions an old name."""
        files: dict[str, str] = {}
        for top in paths:
            for path, kind in walk(top, self._unreadable, self.gitignore, self.exclude):
                files.setdefault(path, kind)
        self.take_up(files, search(self.look, list(files.items()), progress, jobs))

    def take_up(self, files: Mapping[str, str], seen: Seen) -> None:
        """Take up what the first look found among the ``files`` (path and kind)."""
        self.python_files = [path for path, kind in files.items() if kind == "python"]
        self.outcome.scanned = len(files)
        self.outcome.unsought = seen.unsought
        for path, error in seen.failed:
            self._unreadable(path, error)
        for path in seen.found:
            self._file(path, files[path])

    def _unreadable(self, path: str, error: OSError) -> None:
        self.error(path, "TL092", error.strerror or str(error))

    def _file(self, path: str, kind: str, needles: Sequence[bytes] = ()) -> None:
        """Take up a file; with ``needles`` only if it has one of them, or a star import."""
        try:
            data = read(path)
        except FileError as error:
            self.error(path, error.code, str(error))
            return
        if not needles or any(needle in data for needle in needles) or _STAR.search(data):
            self.take(path, data, kind)

    def take(self, path: str, data: bytes, kind: str) -> None:
        """Take up one matching file; what is wrong with it becomes a finding."""
        self.outcome.matched += 1
        try:
            if len(data) > self.max_bytes * (10 if kind == "notebook" else 1):
                raise FileError("TL093", f"larger than {self.max_bytes} bytes")
            self.add(path, data, kind)
        except FileError as error:
            self.error(path, error.code, str(error))

    def add(self, path: str, data: bytes, kind: str = "python") -> None:
        """Take up one matching file.

        Raises:
            FileError: it cannot be decoded or parsed.
        """
        encoded = decode(data, kind == "python")
        self.taken[path] = encoded, kind
        if kind == "text":
            return
        if kind == "config":
            self.configs[path] = encoded
        elif kind == "shell":
            self._mention(path, encoded.text)
        else:
            modules = self.load(path, encoded, kind)
            if kind == "document":
                self.documents[path] = modules
            elif modules:
                self.modules[path] = modules[0]

    def load(self, path: str, encoded: Encoded, kind: str, again: bool = False) -> list[Module]:
        """The modules in a file: one, or the parts of a document; ``again``: nothing is reported.

        Raises:
            FileError: it cannot be parsed.
        """
        if SKIP_FILE.search(encoded.text):
            return []
        if kind == "python":
            source = Source(encoded.text, path)
            packages, modules = package_names(Path(path)), module_names(Path(path))
            tree = parse(encoded.text)
            return [
                Module(path, encoded, source, tree, packages, modules, self._analysis(source, tree, packages, modules))
            ]
        parts = [notebook(encoded.text)] if kind == "notebook" else document(encoded.text, path.endswith(".rst"))
        loaded = []
        for part in parts:
            for _, what in part.bad:
                if not again and kind == "notebook" and self.look.old.words.search(what.encode()):
                    raise FileError("TL090", what.partition(":")[0])
            source = Source(part.text, path, part.lines)
            tree = parse(part.text)
            analysis = self._analysis(source, tree, [], [], standalone=True)
            loaded.append(Module(path, encoded, source, tree, [], [], analysis, kind, part))
        return loaded

    def _mention(self, path: str, text: str) -> None:
        for number, line in enumerate(text.splitlines(), 1):
            found = self.look.old.words.search(line.encode())
            if found and not (SKIP.search(line) or told(line)):
                message = f"mentions {found.group().decode()}; scripts are not edited"
                self.outcome.findings.append(Finding(path, number, found.start() + 1, "TL045", "left", message))

    def _analysis(
        self, source: Source, tree: ast.Module, packages: list[str], modules: list[str], standalone: bool = False
    ) -> Analysis:
        is_package = Path(source.path).stem == "__init__"
        try:
            return Analysis(source, tree, self.rules, packages, modules, is_package, standalone)
        except RecursionError as error:
            raise FileError("TL093", "nested too deeply") from error

    # -- decisions -----------------------------------------------------------------------------------------------

    def decide(self) -> Context:
        """Analyse the uses in all files and settle what concerns all of them."""
        self._follow_reexports()
        context = Context(self.rules)
        context.keep = self._public_names()
        self._drop_bystanders()
        for path, module in list(self.modules.items()):
            try:
                module.analysis.run()
            except RecursionError:
                self.error(path, "TL093", "nested too deeply")
                del self.modules[path]
        self._settle_unwritable()
        blockers = [b for m in self.modules.values() for b in m.analysis.blockers]
        blockers += self._paths_in_configs()
        while True:
            context.used = self._used_targets()
            self._block(blockers)
            blockers = []
            plans = {path: Rewriter(m.analysis, context).make() for path, m in self.modules.items()}
            for plan in plans.values():
                blockers += [b for b in plan.blockers if not context.blocked(b.symbol)]
            if not blockers and self._makes(plans, context):
                return context

    def _used_targets(self) -> dict[str, dict[str, Target]]:
        """What the calls in all files become, by symbol and path."""
        used: dict[str, dict[str, Target]] = {}
        for symbol, target in (
            *(pair for module in self.modules.values() for pair in module.analysis.used_targets()),
            *self.configured,
        ):
            used.setdefault(self.rules.key(symbol), {}).setdefault(target.path, target)
        return used

    def _paths_in_configs(self) -> list[Blocker]:
        """What stays because a configuration names it by its path; also notes what the others become."""
        blockers: list[Blocker] = []
        for path, encoded in self.configs.items():
            try:
                found = Dotted(encoded.text, path, Path(path).suffix, self.rules).run()
            except FileError:
                continue  # reported with the other configurations
            blockers += found.blockers
            self.configured += found.targets
        return blockers

    def _makes(self, plans: Mapping[str, Plan], context: Context) -> bool:
        """Make the new text of each file; what one of them cannot take stays everywhere, and all is decided anew."""
        self.made = {}
        well = True
        for path, plan in plans.items():
            module = self.modules[path]
            try:
                self.made[path] = plan, self._change(path, [(module, plan)], context, module.kind)
            except FileError as error:
                self._fail(module, error)
                self._keep(module, plan.symbols)
                well = False
        return well

    def _fail(self, module: Module, error: FileError) -> None:
        """Leave a file out."""
        del self.modules[module.path]
        self.error(module.path, error.code, str(error))

    def _keep(self, module: Module, symbols: Iterable[str] = ()) -> None:
        """What a file that stays uses stays everywhere."""
        found = [use.symbol for use in module.analysis.uses]
        found += [site.symbol for site in module.analysis.sites.values() if site.symbol is not None]
        for key in {*map(self.rules.key, found), *symbols}:
            self.rules.blocked.add(key)
            self.kept.setdefault(key, module.path)

    def _settle_unwritable(self) -> None:
        """Links are left out; what a read-only file uses stays everywhere."""
        for path, module in list(self.modules.items()):
            try:
                if os.path.lexists(path):
                    check_writable(path)
            except FileError as error:
                if not (module.analysis.sites or module.analysis.stars):
                    continue
                self._fail(module, error)
                if not os.path.islink(path):
                    self._keep(module)

    def _block(self, blockers: Iterable[Blocker], rules: Rules | None = None) -> None:
        rules = rules or self.rules
        for blocker in blockers:
            rules.blocked.add(rules.key(blocker.symbol))
            if blocker.finding not in self.outcome.findings:
                self.outcome.findings.append(blocker.finding)

    def _follow_reexports(self) -> None:
        """Modules of this tree that import an old symbol and are imported by others lead to it as well."""
        self._own_modules()
        broken = {finding.path for finding in self.outcome.findings if finding.level == "error"}
        grown = True
        while grown:
            grown = False
            names: set[str] = set()
            for module in list(self.modules.values()):
                for name, symbol in module.analysis.exports().items():
                    for dotted in module.modules:
                        if self.rules.add_reexport(f"{dotted}.{name}", symbol, os.path.abspath(module.path)):
                            grown = True
                            names.add(name)
            if not grown:
                return
            if names:
                needles = [name.encode() for name in names]
                for path in self.python_files:
                    if path not in self.modules and path not in broken:
                        self._file(path, "python", needles)
            for module in self.modules.values():
                stars = any(scope.stars for scope in module.analysis.scopes.all_scopes())
                if module.part is None and (stars or names & set(re.findall(r"\w+", module.source.text))):
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
                names = self.rules.in_module.get(dotted, {})
                if any(symbol.cases[0].reason == MOVED for symbol in names.values()):
                    self.rules.modules.discard(dotted)  # nobody has a copy of this project; of an old loss, many do
                for name, symbol in names.items():
                    if not self._holds(path, name, symbol):
                        self.rules.foreign.add(f"{dotted}.{name}")
                        redo = True
        if redo:
            for module in (m for m in self.modules.values() if m.part is None):
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
                return symbol.cases[0].reason != MOVED and _same_signature(binding.node, symbol)
        return False

    def _public_names(self) -> dict[str, set[str]]:
        """Local names of each file that other files refer to."""
        keep: dict[str, set[str]] = {}
        by_name: dict[str, set[str]] = {}  # several files may have one name, each for the scripts beside it
        for path, module in self.modules.items():
            for dotted in module.modules:
                by_name.setdefault(dotted, set()).add(path)
        exported = {path: set(module.analysis.exports()) for path, module in self.modules.items()}
        stems: dict[str, set[str]] = {}
        for dotted, paths in by_name.items():
            stems.setdefault(dotted.rpartition(".")[2], set()).update(paths)
        every = set().union(*exported.values())
        for path, module in self.modules.items():
            scopes = module.analysis.scopes
            for statement in scopes.imports:
                if isinstance(statement, ast.ImportFrom):
                    for dotted in module.analysis.absolute(statement):
                        names = {alias.name for alias in statement.names}
                        for target in by_name.get(dotted, set()) - {path}:
                            keep.setdefault(target, set()).update(exported[target] if "*" in names else names)
            for name in every & scopes.attributes:
                for stem in set(re.findall(r"\w+", module.source.text)) & set(stems):
                    for owner in stems[stem] - {path}:
                        if name in exported[owner]:
                            keep.setdefault(owner, set()).add(name)
            for parts in (str(node.value).split(".") for node in scopes.strings if "." in str(node.value)):
                for owner in stems.get(parts[-2], set()) - {path} if parts[-1] in every else ():
                    keep.setdefault(owner, set()).add(parts[-1])
        return keep

    def _drop_bystanders(self) -> None:
        """Forget files that mention old names but use none: look-alikes."""
        for path, module in list(self.modules.items()):
            analysis = module.analysis
            paths = (str(node.value).replace(":", ".") for node in analysis.scopes.strings)
            named = any(
                p in self.rules.prefixes or p.rpartition(".")[0] in self.rules.prefixes or p[:1] == "." for p in paths
            )
            deep = named or any(self.rules.deep(str(node.value)) for node in analysis.scopes.strings)
            if not (analysis.relevant or deep or analysis.notes):
                del self.modules[path]

    # -- result --------------------------------------------------------------------------------------------------

    def finish(self, context: Context) -> Outcome:
        """Make, check and collect the changes of all files."""
        noted: set[str] = set()
        for path, module in self.modules.items():
            plan, change = self.made[path]
            self._collect([(module, plan)], change, context, noted)
        for path, modules in self.documents.items():
            plans = [(m, self._document_plan(m, context)) for m in modules]
            try:
                change = self._change(path, plans, context, "document")
            except FileError as error:
                self.error(path, error.code, str(error))
                change = None
            self._collect(plans, change, context, noted)
        used = {
            self.rules.key(site.symbol)
            for module in self.modules.values()
            for site in module.analysis.sites.values()
            if site.symbol is not None
        }
        for path, encoded in self.configs.items():
            self._config(path, encoded, used)
        new = {change.path: change.new_text for change in self.outcome.changes}
        for path, (encoded, kind) in self.taken.items():
            found = leftover(path, kind, encoded.text, new.get(path), self.old)
            self.outcome.findings += unsaid(path, kind, found, self.outcome.findings, self.rules)
        self.outcome.findings = _merged(self.outcome.findings)
        return self.outcome

    @functools.cached_property
    def old(self) -> OldPaths:
        """What is an old path in this tree."""
        return OldPaths(self.rules, Tree(self.python_files, self.rules).own)

    def _document_plan(self, module: Module, context: Context) -> Plan:
        """A document follows the decisions for the code, and what is wrong in it concerns only itself."""
        rules = copy.copy(self.rules)
        rules.blocked = set(self.rules.blocked)
        own = Context(rules, {k: dict(v) for k, v in context.used.items()})
        module.analysis.rules = rules
        module.analysis.run()
        for symbol, target in module.analysis.used_targets():
            own.used.setdefault(rules.key(symbol), {}).setdefault(target.path, target)
        blockers = module.analysis.blockers
        while True:
            self._block(blockers, rules)
            plan = Rewriter(module.analysis, own).make()
            blockers = [b for b in plan.blockers if not own.blocked(b.symbol)]
            if not blockers:
                return plan

    def _collect(
        self, plans: list[tuple[Module, Plan]], change: Change | None, context: Context, noted: set[str]
    ) -> None:
        for module, plan in plans:
            self._left_alone(module, context)
            self.outcome.findings += [f for f in plan.findings if f.level == "left"]
            self.outcome.findings += [f for symbol, f in module.analysis.notes if symbol is None]
        if change is None:
            return
        self.outcome.changes.append(change)
        self.outcome.findings += change.findings
        for module, plan in plans:
            self._numbers(change, context, noted)
            self.outcome.findings += [
                f for s, f in module.analysis.notes if s is not None and self.rules.key(s) in plan.symbols
            ]

    def _config(self, path: str, encoded: Encoded, used: set[str]) -> None:
        def converted(text: str) -> Result:
            result = Converter(text, path, Path(path).suffix, self.rules).run()
            result = result.joined(Dotted(text, path, Path(path).suffix, self.rules).run())
            return result.joined(Sections(text, path, Path(path).suffix, self.rules, used, self._readers).run())

        try:
            result = converted(encoded.text)
            self.outcome.findings += [f for f in result.findings if f.level != "change"]
            if not result.edits:
                return
            text = apply(encoded.text, result.edits)
            again = converted(text)
            if again.edits:
                raise FileError("TL095", "a second run would change the result again")
            changes = [f for f in result.findings if f.level == "change"]
            new = encoded.encode(text)
            self.outcome.changes.append(Change(path, encoded.data, new, encoded.text, text, result.symbols, changes))
            self.outcome.findings += changes
        except FileError as error:
            self.error(path, error.code, str(error))
        except ValueError as error:
            self.error(path, "TL095", str(error))

    def _readers(self, keys: Collection[str]) -> str:
        """Where Python code reads one of ``keys``, other than the old package itself."""
        return next((self._read_keys[key] for key in keys if key in self._read_keys), "")

    @functools.cached_property
    def _read_keys(self) -> dict[str, str]:
        """Where Python code reads keys of the sections that an old factory reads."""
        names = "|".join({re.escape(mark) for rule in self.rules.catalog.factories for mark in rule.marks})
        pattern = re.compile(
            rf"""(?:\[|\b(?:get|pop|setdefault)\()\s*(["'])(?P<key>{names})\1|\bloss\.(?P<name>{names})\b"""
        )
        places: dict[str, str] = {}
        for path in self.python_files if names else ():
            if self.rules.modules.intersection(module_names(Path(path))):
                continue
            try:
                text = decode(read(path)).text
            except FileError:
                continue
            for found in pattern.finditer(text):
                line = text.count("\n", 0, found.start()) + 1
                places.setdefault(found.group("key") or found.group("name"), f"{path}:{line}")
        return places

    def _left_alone(self, module: Module, context: Context) -> None:
        """Name the imports that stay because of another place."""
        reasons = {f.symbol: f for f in self.outcome.findings if f.level == "left" and f.code != "TL043"}
        for site in module.analysis.sites.values():
            if site.symbol is not None and site.editable and context.blocked(site.symbol):
                cause = reasons.get(site.symbol.name)
                if cause is None or cause.path != module.path:
                    file = self.kept.get(self.rules.key(site.symbol), "another file")
                    where = f"{cause.path}:{cause.line} ({cause.code})" if cause else f"{file}, which cannot be changed"
                    message = f"{site.symbol.name} stays, because of {where}"
                    self.outcome.findings.append(
                        module.analysis.finding(site.statement, "TL043", "left", message, site.symbol.name)
                    )

    def _change(self, path: str, plans: list[tuple[Module, Plan]], context: Context, kind: str) -> Change | None:
        """The new text of a file.

        Raises:
            FileError: an edit cannot be made, or its result would be wrong.
        """
        encoded = plans[0][0].encoded if plans else None
        edits: list[Edit] = []
        expected = ""
        for module, plan in plans:
            made = self._perform(module, plan, kind)
            edits += module.carried(made)
            result = apply(module.source.text, made)
            if made and not plain(result) and plain(module.source.text):
                raise FileError("TL095", "the Python that runs would not read the result")
            expected += result
        if encoded is None or not edits:
            return None
        try:
            text = apply(encoded.text, edits)
        except ValueError as error:
            raise FileError("TL095", str(error)) from error
        if text == encoded.text:
            return None
        new = encoded.encode(text)
        self._verify(path, Encoded(new, text, encoded.encoding, encoded.mark), context, kind, expected)
        changes = [f for _, plan in plans for f in plan.findings if f.level == "change"]
        symbols = {symbol for _, plan in plans for symbol in plan.symbols}
        return Change(path, encoded.data, new, encoded.text, text, symbols, changes)

    def _perform(self, module: Module, plan: Plan, kind: str) -> list[Edit]:
        before = max((len(piece.prefix) for piece in module.part.pieces), default=0) if module.part else 0
        width, python = self.rules.width - before, self.rules.python
        return perform(module.source, module.tree, plan.edits, width, python, whole=kind == "document")

    def _verify(self, path: str, encoded: Encoded, context: Context, kind: str, expected: str) -> None:
        """The result must parse, be what was ``expected``, and a second run must not change it.

        Raises:
            FileError: it does not.
        """
        try:
            modules = self.load(path, encoded, kind, again=True)
        except FileError as error:
            raise FileError("TL095", f"the result would not parse: {error}") from error
        if kind != "python" and "".join(module.source.text for module in modules) != expected:
            raise FileError("TL095", "the result would break the block around the code")
        for again in modules:
            if any(_repeats(node) for node in again.analysis.scopes.scope_of):
                raise FileError("TL095", "the result would pass an argument twice")
            if kind == "document":
                plan = self._document_plan(again, context)
            else:
                again.analysis.run()
                plan = Rewriter(again.analysis, context).make()
            if self._perform(again, plan, kind):
                raise FileError("TL095", "a second run would change the result again")

    def _numbers(self, change: Change, context: Context, noted: set[str]) -> None:
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


MOVED = "moved"
"""Reason of a row whose name only has another path."""


def _number_note(symbol: Symbol, target: Target) -> tuple[str, str] | None:
    case = target.case
    if case.reason == MOVED:
        return None
    if target.twin:
        reason = case.reason or "; ".join(case.deviations) or "it has no successor with the same numbers"
        return "TL021", f"{symbol.name} stays on its frozen twin {target.path}: {reason}"
    if case.parity == "exact":
        return None
    what = "; ".join(case.deviations)
    where = f"same numbers in this domain: {case.domain}. Elsewhere: " if case.domain else ""
    return "TL020", f"{symbol.name} -> {target.name}: {where}{what}"


def _merged(findings: Iterable[Finding]) -> list[Finding]:
    """The findings in order; what is said of several symbols with the same words is said once."""
    merged: dict[Finding, list[str]] = {}
    for finding in sorted(set(findings), key=lambda f: (f.path, f.line, f.column, f.code, f.message, f.symbol)):
        alone = finding if finding.level == "change" else dataclasses.replace(finding, symbol="")
        merged.setdefault(alone, []).append(finding.symbol)
    return [f if f.symbol else dataclasses.replace(f, symbol=", ".join(names)) for f, names in merged.items()]


def _repeats(node: ast.AST) -> bool:
    """Whether a call has a keyword twice, which parses but does not compile."""
    names = [keyword.arg for keyword in node.keywords if keyword.arg] if isinstance(node, ast.Call) else []
    return len(set(names)) < len(names)


def _same_signature(node: ast.ClassDef | ast.FunctionDef, symbol: Symbol) -> bool:
    function: ast.AST = node
    if isinstance(node, ast.ClassDef):
        function = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), node)
    if not isinstance(function, ast.FunctionDef):
        return not symbol.signature
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    expected = [name for name, a in symbol.signature.items() if not a.variadic]
    return names[1 if isinstance(node, ast.ClassDef) else 0 :] == expected


def rewrite_text(text: str, rules: Rules, path: str = "<stdin>", kind: str = "python") -> tuple[str, Outcome]:
    """Rewrite one text by itself."""
    project = Project(rules)
    project.outcome.scanned = 1
    project.take(path, text.encode(), kind)
    outcome = project.finish(project.decide())
    return (outcome.changes[0].new_text if outcome.changes else text), outcome


__all__ = ["MAX_BYTES", "Change", "Edit", "Outcome", "Project", "parse", "rewrite_text"]
