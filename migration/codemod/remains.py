"""Old paths that stay in Python: imports, strings that are used as code or as paths, doctests, links of Sphinx."""

from __future__ import annotations

import ast
import io
import os
import re
import textwrap
import tokenize
from collections.abc import Callable, Collection, Iterable, Iterator
from difflib import SequenceMatcher
from functools import cached_property
from pathlib import Path

from .documents import cells
from .errors import FileError
from .oldpaths import Hit, OldPaths
from .places import module_names, package_names
from .rules import Rules
from .scopes import callee
from .scout import LARGEST, prefixes
from .syntax import parse, plain
from .text import SKIP_FILE, Finding, Source
from .texts import CODE, PROSE, Place, findings, linked, places, sentence

MESSAGES = frozenset(
    {
        "print", "pprint", "warn", "warning", "info", "debug", "error", "exception", "critical", "log", "echo",
        "secho", "write", "writelines", "fail", "skip", "xfail", "deprecated", "warn_deprecated", "add_argument",
        "option", "Option", "field", "Field", "getLogger", "get_logger", "deprecate", "format_message",
    }
)  # fmt: skip
_PROSE_KEYWORDS = frozenset(
    {
        "help", "description", "msg", "message", "reason", "doc", "title", "match", "epilog", "metavar", "text",
    }
)  # fmt: skip
_REGEX = frozenset(
    {
        "compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer",
    }
)  # fmt: skip
RUNNERS = frozenset(
    {
        "exec", "eval", "compile", "timeit", "repeat", "Timer", "run", "call", "check_call", "check_output",
        "Popen", "system", "popen", "getoutput", "runpy", "run_module", "run_cell", "run_line_magic",
        "getstatusoutput", "execute", "runsource", "literal_eval",
    }
)  # fmt: skip
_FORMATTED = re.compile(r"[\w.:]*(?:%[sdr]|%\(\w+\)[sdr]|\{[^{}\s]*\})[\w.:%{}()]*\Z")
_ENTRY_POINT = re.compile(r"\s*[\w.-]+\s*=\s*[\w.]+(?::[\w.]+)?\s*(?:\[[^\]]*\])?\s*\Z")
_COMMAND = re.compile(r"(?:^|\s|/)(?:python[\d.]*|pytest|torchrun|accelerate|ipython)\b[^\n]*?\s-[mc]\s")


class PythonRemains:
    """The old paths in one Python text.

    Args:
        absolute: the dotted names that the module of a ``from`` import may have.
    """

    def __init__(
        self,
        text: str,
        path: str,
        old: OldPaths,
        absolute: Callable[[ast.ImportFrom], list[str]],
        tree: ast.Module | None = None,
    ) -> None:
        self.source, self.old, self.absolute = Source(text, path), old, absolute
        self.tree = tree or parse(text)
        self.parents: dict[ast.AST, ast.AST] = {}
        for node in ast.walk(self.tree):
            for child in ast.iter_child_nodes(node):
                self.parents[child] = node

    def places(self) -> list[Place]:
        """What stays, in the order of the lines."""
        if SKIP_FILE.search(self.source.text):
            return []
        found = [*self._imports(), *self._strings(), *self._comments()]
        skipped = self.source.skipped
        return sorted((p for p in found if not skipped(p.line)), key=lambda p: (p.line, p.column))

    def _place(self, node: ast.AST, hit: Hit, kind: str = CODE) -> Place:
        line: int = getattr(node, "lineno", 1)
        return Place(line, getattr(node, "col_offset", 0) + 1, hit, kind)

    # -- imports ---------------------------------------------------------------------------------------------------

    def _imports(self) -> Iterator[Place]:
        for node in ast.walk(self.tree):
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            if self.source.skipped(node.lineno, node.end_lineno) or self._excused(node):
                continue
            for module in self.absolute(node) if isinstance(node, ast.ImportFrom) else [""]:
                for alias in node.names:
                    old, symbol = self.old.from_import(module, alias.name) if module else self.old.imports(alias.name)
                    if old and (symbol is not None or not getattr(node, "level", 0)):
                        path = f"{module}.{alias.name}" if module else alias.name
                        yield self._place(node, Hit(0, 0, path, symbol, True))

    def _excused(self, node: ast.Import | ast.ImportFrom) -> bool:
        """Whether a use of what is imported carries the mark that leaves it alone."""
        names = {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        return any(name in names and self.source.skipped(line) for name, line in self._read)

    @cached_property
    def _read(self) -> list[tuple[str, int]]:
        marked = "codemod:" in self.source.text
        return [(n.id, n.lineno) for n in ast.walk(self.tree) if isinstance(n, ast.Name)] if marked else []

    # -- strings ---------------------------------------------------------------------------------------------------

    def _strings(self) -> Iterator[Place]:
        joined = {id(value) for node in ast.walk(self.tree) if isinstance(node, ast.JoinedStr) for value in node.values}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "{}" for v in node.values]
                yield from self._string(node, "".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in joined:
                if self._documents(node):
                    yield from self._docstring(node, node.value)
                elif "." in node.value:
                    yield from self._string(node, node.value)

    def _string(self, node: ast.expr, value: str) -> Iterator[Place]:
        hits = list(self.old.hits(value))
        if not hits or self._said(node):
            return
        for hit in hits:
            if self._used(node, value, hit):
                yield self._place(node, hit)
                return

    def _used(self, node: ast.expr, value: str, hit: Hit) -> bool:
        """Whether something looks the path up, runs it or puts a path together from it."""
        if not re.search(r"\s", value.strip()):
            if "/" in value:
                return False
            return value == hit.path or "=" in value or _is_pieced(value)
        if hit.imported or _COMMAND.search(value):
            return self._runs(node) or bool(_COMMAND.search(value)) or plain(textwrap.dedent(value))
        return bool(_ENTRY_POINT.match(value)) or (self._runs(node) and not sentence(value, hit.start, hit.end))

    def _calls(self, node: ast.AST) -> Iterator[tuple[str, str]]:
        """The names of the calls around ``node`` in its statement, and the keywords that lead there."""
        child, keyword = node, ""
        while child in self.parents and not isinstance(child, ast.stmt):
            parent = self.parents[child]
            if isinstance(parent, ast.keyword):
                keyword = parent.arg or ""
            elif isinstance(parent, ast.Call) and parent.func is not child:
                yield callee(parent.func) or "", keyword
                keyword = ""
            elif isinstance(parent, ast.Call) and isinstance(child, ast.Attribute):
                pass
            child = parent

    def _said(self, node: ast.AST) -> bool:
        """Whether the string is a message, or the pattern of a regular expression."""
        for name, keyword in self._calls(node):
            if name in MESSAGES or keyword in _PROSE_KEYWORDS or name.endswith(("Error", "Exception", "Warning")):
                return True
            if name in _REGEX and self._of_regex(node):
                return True
        statement = node
        while statement in self.parents and not isinstance(statement, ast.stmt):
            statement = self.parents[statement]
        return isinstance(statement, (ast.Raise, ast.Assert)) and not any(True for _ in self._lookups(node))

    def _lookups(self, node: ast.AST) -> Iterator[str]:
        return (name for name, _ in self._calls(node) if name in RUNNERS)

    def _of_regex(self, node: ast.AST) -> bool:
        parent = self.parents.get(node)
        function = parent.func if isinstance(parent, ast.Call) else None
        return isinstance(function, ast.Attribute) and callee(function.value) in ("re", "regex")

    def _runs(self, node: ast.AST) -> bool:
        return any(name in RUNNERS for name, _ in self._calls(node))

    # -- texts in Python -------------------------------------------------------------------------------------------

    def _documents(self, node: ast.Constant) -> bool:
        return isinstance(self.parents.get(node), ast.Expr)

    def _docstring(self, node: ast.Constant, value: str) -> Iterator[Place]:
        for hit in self.old.hits(value):
            line = value[value.rfind("\n", 0, hit.start) + 1 : hit.start]
            if re.match(r"\s*(?:>>>|\.\.\.) ", f"{line} ") or linked(value, hit.start):
                at = node.lineno + value.count("\n", 0, hit.start)
                yield Place(at, hit.start - value.rfind("\n", 0, hit.start), hit, CODE)

    def _comments(self) -> Iterator[Place]:
        text = self.source.text
        if not any("#" in text[self.source.line_start(m.start()) : m.start()] for m in self.old.pattern.finditer(text)):
            return
        try:
            for token in tokenize.generate_tokens(io.StringIO(text).readline):
                if token.type == tokenize.COMMENT:
                    for hit in self.old.hits(token.string):
                        yield Place(token.start[0], token.start[1] + 1 + hit.start, hit, PROSE)
        except (tokenize.TokenError, SyntaxError):  # newer Python, whose strings may nest
            return


def _is_pieced(value: str) -> bool:
    """Whether a path is put together from this: it ends in a point, or has a place to fill."""
    return value.endswith((".", ":")) or _FORMATTED.match(value) is not None


# -- files ----------------------------------------------------------------------------------------------------------


class Tree:
    """The Python files under migration, by what they are called when imported."""

    def __init__(self, files: Collection[str], rules: Rules) -> None:
        self.files, self.rules = files, rules

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for file in self.files:
            folder, name = os.path.split(os.path.abspath(file))
            stem = os.path.splitext(name)[0]
            place = folder if stem == "__init__" else os.path.join(folder, stem)
            found.setdefault(os.path.basename(place), []).append(place)
        return found

    def _place(self, dotted: str) -> str:
        """Folder and name of the file that may be imported as ``dotted``."""
        end = os.sep + dotted.replace(".", os.sep)
        return next((p for p in self._by_stem.get(dotted.rpartition(".")[2], ()) if p.endswith(end)), "")

    def own(self, dotted: str) -> bool:
        """Whether ``dotted`` is a file of this tree, or a name in one, that is no copy of an old one."""
        for prefix in reversed(prefixes(dotted)):
            place = self._place(prefix)
            if not place:
                continue
            if prefix not in self.rules.catalog.owned:
                return not self._copied(prefix)
            if not any(self._place(module) and self._copied(module) for module in self._below(prefix)):
                return True
            return dotted[len(prefix) + 1 :].partition(".")[0] in _bound(place, self.rules)
        return False

    def _copied(self, module: str) -> bool:
        """Whether the file at an old path holds one of the old losses."""
        names = self.rules.in_module.get(module, {})
        return any(f"{module}.{name}" not in self.rules.foreign for name in names)

    def _below(self, package: str) -> list[str]:
        return [module for module in self.rules.catalog.modules if module.startswith(f"{package}.")]


def _bound(place: str, rules: Rules) -> set[str]:
    """The names that a package of the tree binds to something of its own."""
    try:
        tree = ast.parse(Path(place, "__init__.py").read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            old = node.level and (node.module or "") in {m.rpartition(".")[2] for m in rules.in_module}
            names |= set() if old else {alias.asname or alias.name for alias in node.names}
    return names


def leftover(path: str, kind: str, text: str, new: str | None, old: OldPaths) -> list[Place]:
    """The old paths that stay in a file, at the lines that it had before it became ``new``."""
    try:
        found = _leftover(path, kind, text if new is None else new, old)
    except (FileError, RecursionError):
        return []  # reported, where it matters
    if new is None or not found:
        return found
    before = _lines_before(text, new)
    for place in found:
        place.line = before(place.line)
    return found


def _leftover(path: str, kind: str, text: str, old: OldPaths) -> list[Place]:
    if kind != "python" and len(text) > LARGEST * (10 if kind == "notebook" else 1):
        return []
    if kind == "notebook":
        return _in_notebook(text, path, old)
    if kind != "python":
        return places(text, path, old)
    if not any(True for _ in old.hits(text)) and "import" not in text:
        return []
    modules = module_names(Path(path))
    rules = old.rules
    if any(m in rules.in_module and not old.own(m) for m in modules):
        return []  # a copy of an old file, which goes with the package
    packages = package_names(Path(path))
    return PythonRemains(text, path, old, lambda node: _absolute(node, packages)).places()


def _absolute(node: ast.ImportFrom, packages: Collection[str]) -> list[str]:
    if not node.level:
        return [node.module] if node.module else []
    found = []
    for package in packages:
        parts = package.split(".")
        if node.level <= len(parts):
            base = parts[: len(parts) - node.level + 1]
            found.append(".".join([*base, node.module] if node.module else base))
    return found


def _in_notebook(text: str, path: str, old: OldPaths) -> list[Place]:
    found: list[Place] = []
    for lines, kind, raw, code in cells(text):
        if kind != "code":
            made = [Place(raw.count("\n", 0, hit.start) + 1, 1, hit, PROSE) for hit in old.hits(raw)]
        else:
            made = PythonRemains(code, path, old, lambda node: _absolute(node, ())).places() if plain(code) else []
            for number, (line, left) in enumerate(zip(raw.split("\n"), code.split("\n"), strict=False), 1):
                if line != left:
                    made += [Place(number, 1, hit, CODE) for hit in old.hits(line)]
        for place in made:
            place.line = lines[min(place.line, len(lines)) - 1]
        found += made
    return found


def _lines_before(text: str, new: str) -> Callable[[int], int]:
    """From a line of ``new`` to that of ``text``."""
    old_lines, new_lines = text.splitlines(), new.splitlines()
    blocks = SequenceMatcher(None, old_lines, new_lines, autojunk=False).get_matching_blocks()

    def before(line: int) -> int:
        last = (0, 0)
        for a, b, size in blocks:
            if b <= line - 1 < b + size:
                return a + line - b
            if line - 1 < b:  # it came in the place of some
                return max(min(last[0] + line - last[1], a), last[0] + 1, 1)
            last = a + size, b + size
        return max(1, len(old_lines))

    return before


def unsaid(path: str, kind: str, found: list[Place], known: Iterable[Finding], rules: Rules) -> list[Finding]:
    """Findings for the places of which nothing is said yet."""
    if not found:
        return []
    said = [f for f in known if f.path == path and f.level in ("left", "error")]
    if any(f.level == "error" for f in said):
        return []
    lines = {f.line for f in said}
    names = {name for f in said for name in f.symbol.split(", ") if name}

    def new(place: Place) -> bool:
        return place.kind != CODE or not (place.line in lines or _named(place.hit, names, rules))

    code = "TL048" if kind in ("python", "notebook") else "TL045"
    return findings(path, [place for place in found if new(place)], code)


def _named(hit: Hit, names: Collection[str], rules: Rules) -> bool:
    """Whether a reason is given for the loss, or for one in the module, that stays imported."""
    if hit.symbol is not None:
        return hit.imported and hit.symbol.name in names
    inside = (known for module, known in rules.in_module.items() if f"{module}.".startswith(f"{hit.path}."))
    return any(symbol.name in names for known in inside for symbol in known.values())
