"""What ``tools/mutants.py`` changes: finding mutants in a file, and putting one into the loaded package."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "training" / "losses"


@dataclass(frozen=True)
class Mutant:
    """One change: ``before`` at line and column becomes ``after``."""

    path: Path
    line: int
    column: int
    before: str
    after: str
    end_line: int
    end_column: int
    first: int
    """Whoever executes a line from here ..."""
    last: int
    """... to here executes the change: the statement, for a default value the function, else the file."""
    scope: tuple[int, int]
    """First and last line of the function, else of the file."""
    inside: str
    """Qualified name of the function or class."""
    key: str
    """Equal as long as the text of the function and the change are."""

    @property
    def module(self) -> str:
        return str(self.path.relative_to(SOURCE))

    @property
    def name(self) -> str:
        return f"{self.module}:{self.line}:{self.column} {self.before} -> {self.after}"

    def apply(self, text: str) -> str:
        """The mutated file. Offsets of ``ast`` count bytes."""
        lines = text.encode().splitlines(keepends=True)
        start = sum(map(len, lines[: self.line - 1])) + self.column
        end = sum(map(len, lines[: self.end_line - 1])) + self.end_column
        data = text.encode()
        assert data[start:end].decode() == self.before, (self, data[start:end])
        return (data[:start] + self.after.encode() + data[end:]).decode()


BINARY = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.Pow: "*", ast.Mod: "//", ast.MatMult: None}
COMPARE = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
METHODS = {"mean": "sum", "sum": "mean", "amax": "amin", "amin": "amax", "any": "all", "all": "any", "square": "abs"}
METHODS |= {"cumsum": "cumprod", "argmin": "argmax", "argmax": "argmin", "exp": "expm1", "logsumexp": "sum"}


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


class Finder(ast.NodeVisitor):
    """All mutants of a file.

    Annotations, docstrings, messages, representations, plots and ``zip(..., strict=True)`` are left alone: they are no
    mathematics.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.text = path, path.read_text(encoding="utf-8")
        self.found: list[Mutant] = []
        self.lines = self.text.encode().splitlines(keepends=True)
        self.span = (1, len(self.lines))
        self.scope = (1, len(self.lines))
        self.names: list[str] = []

    def source(self, line: int, column: int, end_line: int, end_column: int) -> str:
        start = sum(map(len, self.lines[: line - 1])) + column
        end = sum(map(len, self.lines[: end_line - 1])) + end_column
        return self.text.encode()[start:end].decode()

    def add(self, place: tuple[int, int, int, int], after: str) -> None:
        before = self.source(*place)
        if not before.strip() or before == after:
            return
        text = b"".join(self.lines[self.scope[0] - 1 : self.scope[1]])
        offset = (place[0] - self.scope[0], place[1])
        inside = ".".join(self.names)
        parts = [str(self.path.relative_to(SOURCE)), inside, text.decode(), str(offset), before, after]
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
        self.found.append(
            Mutant(self.path, place[0], place[1], before, after, *place[2:], *self.span, self.scope, inside, key)
        )

    def between(self, left: ast.expr, right: ast.expr, new: str, symbols: tuple[str, ...]) -> None:
        place = (left.end_lineno or 0, left.end_col_offset or 0, right.lineno, right.col_offset)
        text = self.source(*place)
        for symbol in symbols:
            if text.count(symbol) == 1 and "#" not in text:
                self.add(place, text.replace(symbol, new))
                return

    def visit_BinOp(self, node: ast.BinOp) -> None:
        new = BINARY.get(type(node.op))
        symbols = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.Mod: "%"}
        if new is not None and not any(_is_text(side) for side in (node.left, node.right)):
            self.between(node.left, node.right, new, (symbols[type(node.op)],))
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) == 1 and type(node.ops[0]) in COMPARE:
            symbol = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
            op = type(node.ops[0])
            self.between(node.left, node.comparators[0], COMPARE[op], (symbol[op],))
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        place = (node.lineno, node.col_offset, node.operand.lineno, node.operand.col_offset)
        if isinstance(node.op, (ast.USub, ast.Invert, ast.Not)) and not isinstance(node.operand, ast.Constant):
            self.add(place, "")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            after = str(not value)
        elif isinstance(value, int):
            after = str(value + 1)
        elif isinstance(value, float):
            after = repr(value * 1.5 if value else 1.0)
        else:
            return
        self.add((node.lineno, node.col_offset, node.end_lineno or 0, node.end_col_offset or 0), after)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in METHODS:
            end = (function.end_lineno or 0, function.end_col_offset or 0)
            place = (end[0], end[1] - len(function.attr), end[0], end[1])
            if not (isinstance(function.value, ast.Name) and function.value.id == "self"):
                self.add(place, METHODS[function.attr])
        self.generic_visit(node)

    def visit(self, node: ast.AST) -> None:
        """Keeps the lines of the innermost statement of a function, of compound ones the head."""
        before = self.span
        if isinstance(node, ast.stmt) and self.scope != (1, len(self.lines)):
            body = getattr(node, "body", None)
            self.span = (node.lineno, max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno)
        super().visit(node)
        self.span = before

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.names.append(node.name)
        for part in node.body:
            self.visit(part)
        self.names.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in ("extra_repr", "__repr__", "plot"):
            return
        scope, self.scope = self.scope, (node.lineno, node.end_lineno or node.lineno)
        span, self.span = self.span, self.scope
        self.names.append(node.name)
        for part in [*node.args.defaults, *[d for d in node.args.kw_defaults if d is not None], *node.body]:
            self.visit(part)
        self.names.pop()
        self.scope, self.span = scope, span

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in ("strict", "use_reentrant", "preserve_rng_state"):
            self.visit(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        return

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        return


def mutants(path: Path) -> list[Mutant]:
    """Every mutant of a file that compiles."""
    finder = Finder(path)
    finder.visit(ast.parse(finder.text))
    good = []
    for mutant in finder.found:
        try:
            compile(mutant.apply(finder.text), str(path), "exec")
        except SyntaxError:
            continue
        good.append(mutant)
    return good


# --- putting a mutant into the package that is loaded ---------------------------------------------------------------

_PLAIN = (bool, int, float, str, bytes, tuple, frozenset, type(None))


def _functions(owner: Any, module: str, found: dict[str, types.FunctionType], where: str = "") -> None:
    """The functions below ``owner`` by their place: methods, wrapped ones, and entries of tables."""
    if isinstance(owner, (staticmethod, classmethod)):
        owner = owner.__func__
    if isinstance(owner, property):
        for part in ("fget", "fset"):
            _functions(getattr(owner, part), module, found, f"{where}.{part}")
        return
    if callable(owner) and not isinstance(owner, type):
        owner = inspect.unwrap(owner)
    if isinstance(owner, types.FunctionType):
        if owner.__module__ == module:
            found.setdefault(where, owner)
    elif isinstance(owner, dict):
        for key, item in owner.items():
            _functions(item, module, found, f"{where}[{key!r}]")
    elif isinstance(owner, (list, tuple)):
        for number, item in enumerate(owner):
            _functions(item, module, found, f"{where}[{number}]")
    elif isinstance(owner, type) and owner.__module__ == module:
        for name, item in list(vars(owner).items()):
            if name not in ("__dict__", "__weakref__"):
                _functions(item, module, found, f"{where}.{name}")


def _values(owner: Any, module: str, where: str = "") -> Iterator[tuple[str, Any, str, Any]]:
    """Plain values of a module and of its classes: place, owner, name, value."""
    for name, value in list(vars(owner).items()):
        if name.startswith("__"):
            continue
        if isinstance(value, _PLAIN) or (isinstance(value, (dict, list, set)) and " at 0x" not in repr(value)):
            yield f"{where}.{name}", owner, name, value
        elif isinstance(value, type) and value.__module__ == module and not where:
            yield from _values(value, module, name)


def _executed(name: str, path: Path, text: str) -> types.ModuleType:
    spare = types.ModuleType(name)
    spare.__file__ = str(path)
    spare.__package__ = name if path.name == "__init__.py" else name.rpartition(".")[0]
    exec(compile(text, str(path), "exec", dont_inherit=True), spare.__dict__)
    return spare


def graft(mutant: Mutant, text: str) -> int:
    """Put the mutant into the loaded module: the code and defaults of its functions, and its constants.

    Returns:
        How many places have changed; 0: the change shows only in what was made at import.
    """
    from training_losses.loss_registry import LossRegistry

    parts = ["training_losses", *mutant.path.relative_to(SOURCE).with_suffix("").parts]
    name = ".".join(part for part in parts if part != "__init__")
    live = sys.modules[name]
    registered = dict(LossRegistry._classes)
    before, after = (_executed(name, mutant.path, t) for t in (text, mutant.apply(text)))
    LossRegistry._classes.clear()
    LossRegistry._classes.update(registered)
    changed = 0
    homes: list[dict[str, types.FunctionType]] = []
    for module in (live, before, after):
        homes.append({})
        for key, item in list(vars(module).items()):
            _functions(item, name, homes[-1], key)
    for place, new in homes[2].items():
        old, target = homes[1].get(place), homes[0].get(place)
        if old is None or target is None:
            continue
        if old.__code__ != new.__code__:
            target.__code__ = new.__code__
            changed += 1
        if repr((old.__defaults__, old.__kwdefaults__)) != repr((new.__defaults__, new.__kwdefaults__)):
            target.__defaults__, target.__kwdefaults__ = new.__defaults__, new.__kwdefaults__
            changed += 1
    olds = {place: value for place, _, _, value in _values(before, name)}
    lives = {place: (owner, value) for place, owner, _, value in _values(live, name)}
    for place, _, attribute, value in _values(after, name):
        if place in lives and place in olds and repr(olds[place]) != repr(value):
            owner, known = lives[place]
            if isinstance(known, (dict, list, set)):
                known.clear()
                known.extend(value) if isinstance(known, list) else known.update(value)
            else:
                for module in [owner, *(m for n, m in list(sys.modules.items()) if n.startswith("training_losses."))]:
                    if vars(module).get(attribute) is known:
                        type.__setattr__(module, attribute, value) if isinstance(module, type) else setattr(
                            module, attribute, value
                        )
            changed += 1
    return changed
