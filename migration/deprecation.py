"""Warnings at the lines that import old code.

A statement is found by its bytecode: the frame that executes ``IMPORT_NAME`` knows the module and the names it asks
for. A module in ``sys.modules`` is noticed, too, because the interpreter reads ``__spec__`` of a cached module at every
import statement, and twins have ``__spec__`` as a property. Python 3.10 does so for statements only: there a second
``importlib.import_module`` of the same old module is silent.
"""

from __future__ import annotations

import dis
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import CodeType, FrameType, ModuleType
from typing import TYPE_CHECKING, Any

from .aliases import canonical
from .catalog import Catalog, Symbol, builtin_catalog

if TYPE_CHECKING:
    from deprecation import DeprecatedWarning

__all__ = ["COMMAND", "ImportStatement", "deprecated_module", "importing_statement", "warn_attribute", "warn_import"]

COMMAND = "python -m training_losses codemod --write PATH"

_WATCHING = ("importlib", "migration.watch.imports", "training_losses.migration.watch.imports")
"""The import system, and what looks on when a run is recorded."""
_MACHINERY = (
    *_WATCHING,
    "pickle",
    "pkgutil",
    "runpy",
    "unittest.mock",
    "_pytest.monkeypatch",
    "torch.serialization",
    "torch._weights_only_unpickler",
)
_INTERNAL = ("training_losses",)


def _below(name: str, roots: tuple[str, ...]) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


@dataclass(frozen=True)
class ImportStatement:
    """What a frame is importing: ``from module import names``, or ``import module`` with no names."""

    frame: FrameType
    module: str
    names: tuple[str, ...]
    start: int
    """Offset of the ``IMPORT_NAME`` instruction; that of the current one for imports by function call."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The dotted paths that are asked for."""
        return tuple(f"{self.module}.{name}" for name in self.names) or (self.module,)


def _instructions(code: CodeType, until: int) -> list[dis.Instruction]:
    skipped = ("EXTENDED_ARG", "CACHE")
    return [i for i in dis.get_instructions(code) if i.offset <= until and i.opname not in skipped]


def _statement(frame: FrameType) -> ImportStatement | None:
    """The import statement that ``frame`` is executing, if it is."""
    instructions = _instructions(frame.f_code, frame.f_lasti)
    if not instructions or instructions[-1].opname not in (
        "IMPORT_NAME",
        "IMPORT_FROM",
        "IMPORT_STAR",
        "CALL_INTRINSIC_1",
    ):
        return None
    index = next((i for i in range(len(instructions) - 1, -1, -1) if instructions[i].opname == "IMPORT_NAME"), None)
    if index is None or index < 2:
        return None
    level, names = instructions[index - 2].argval, instructions[index - 1].argval
    module = instructions[index].argval
    if level:
        module = importlib.util.resolve_name("." * level + module, frame.f_globals.get("__package__") or "")
    return ImportStatement(frame, module, tuple(names or ()), instructions[index].offset)


def _outwards(start: FrameType) -> Iterator[FrameType]:
    frame: FrameType | None = start
    while frame is not None:
        yield frame
        frame = frame.f_back


def importing_statement(default: str, start: FrameType) -> ImportStatement | None:
    """The user's statement behind the import that is going on; ``None`` if this project's own code imports.

    Args:
        default: module name where the statement does not tell (an import by function call of a cached module).
        start: innermost frame that can be the user's: the caller of our hook.
    """
    asked = default
    direct = True
    for frame in _outwards(start):
        name = frame.f_globals.get("__name__") or ""
        if not _below(name, _MACHINERY):
            if _below(name, _INTERNAL):
                return None
            statement = _statement(frame) if direct else None
            return statement or ImportStatement(frame, asked, (), frame.f_lasti)
        function = frame.f_code.co_name
        if function in ("_find_and_load", "import_module") and name.startswith("importlib"):
            asked = frame.f_locals.get("name", asked)
            if asked.startswith("."):
                asked = importlib.util.resolve_name(asked, frame.f_locals.get("package") or "")
            direct = direct and function != "import_module"
        elif not _below(name, _WATCHING):
            direct = False
    return None


def _successors(catalog: Catalog, path: str) -> tuple[str, str, str]:
    """What replaces ``path``, with the versions of deprecation and removal."""
    if path.partition(".")[0] == "legacy":
        path = canonical(path) or path
    found = catalog.find(path)
    symbols: list[Symbol] = found if len(found) == 1 else []
    if not symbols:
        twin = catalog.modules.get(path, path)
        symbols = [s for s in catalog.symbols if s.twin.rpartition(".")[0] == twin or twin == "*"]
    if not symbols:
        package = next((p for p in (path, path.rpartition(".")[0]) if p in catalog.versions), "")
        deprecated, removed = catalog.versions.get(package, ("1.0.0", "2.0.0"))
        return "see the migration guide", deprecated, removed
    single = len(symbols) == 1
    new = dict.fromkeys(
        case.new if single else case.new.rpartition(".")[0] for s in symbols for case in s.cases if case.new
    )
    reasons = [case.reason for s in symbols for case in s.cases if not case.new]
    text = f"use {' or '.join(new)}" if new else f"it has no successor: {reasons[0] if reasons else 'see the guide'}"
    return text, symbols[0].deprecated_in, symbols[0].removed_in


_last: dict[str, Any] = {}


def _is_repetition(frame: FrameType, start: int, emitter: str) -> bool:
    """Whether the running statement has warned already: one statement asks for several names and parents."""
    key = (id(frame), id(frame.f_code), start)
    repeated = key == _last.get("key") and (
        frame.f_lasti > _last["at"] or (frame.f_lasti == _last["at"] and emitter != _last["emitter"])
    )
    # the code object is kept alive, so that no later one (another notebook cell) gets its address
    _last.update(key=key, at=frame.f_lasti, emitter=emitter, code=frame.f_code)
    return repeated


@cache
def installed_version() -> str:
    """The version of this package; a checkout that was not installed has none, and nothing is overdue there."""
    from importlib import metadata

    try:
        return metadata.version("training-losses")
    except metadata.PackageNotFoundError:
        return "0"


def _kind(removed_in: str) -> type[DeprecatedWarning]:
    """``UnsupportedWarning`` from the version of removal on: ``fail_if_not_removed`` makes a failing test of it."""
    from deprecation import DeprecatedWarning, UnsupportedWarning
    from packaging.version import Version

    overdue = Version(installed_version()) >= Version(removed_in)
    kind: type[DeprecatedWarning] = UnsupportedWarning if overdue else DeprecatedWarning
    return kind


def _emit(frame: FrameType, paths: tuple[str, ...]) -> None:
    catalog = builtin_catalog()
    advice = [_successors(catalog, path) for path in paths]
    details = "; ".join(
        text if len(paths) == 1 else f"{path}: {text}" for path, (text, _, _) in zip(paths, advice, strict=True)
    )
    warning = _kind(advice[0][2])(
        ", ".join(paths), advice[0][1], advice[0][2], f"Instead {details} (rewrite with `{COMMAND}`)"
    )
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    name = frame.f_globals.get("__name__") or "<unknown>"
    warnings.warn_explicit(warning, None, frame.f_code.co_filename, frame.f_lineno, name, registry)


def warn_import(module: str, twin: str, start: FrameType) -> None:
    """Warn at the user's statement that imports the old ``module`` (served by ``twin``), found from ``start``."""
    statement = importing_statement(module, start)
    if statement is None or _is_repetition(statement.frame, statement.start, twin):
        return
    catalog = builtin_catalog()
    paths = tuple(p for p in statement.paths if p in catalog.by_path or p in catalog.modules)
    _emit(statement.frame, paths or statement.paths)


def warn_attribute(package: str, name: str, depth: int = 1, *, only_imports: bool = False) -> None:
    """Warn at the line that reads the old ``name`` from ``package``: a from-import, a star import or an attribute.

    Args:
        package: the old package.
        name: what is read from it.
        depth: frames between this call and the reader.
        only_imports: an attribute does not warn (a sub-module whose import has warned is used).
    """
    frame = sys._getframe(depth + 1)
    if _below(frame.f_globals.get("__name__") or "", ("importlib", *_INTERNAL)):
        return  # the import system only asks whether the name exists
    while frame.f_back is not None and _below(frame.f_globals.get("__name__") or "", _MACHINERY):
        frame = frame.f_back  # mock.patch and its like read it for the user
    statement = _statement(frame)
    if statement is None:
        if not only_imports:
            _emit(frame, (f"{package}.{name}",))
        return
    star = statement.names == ("*",)
    if _is_repetition(frame, statement.start, name if star else package):
        return
    if star:
        _emit(frame, (f"{package}.*",))
        return
    catalog = builtin_catalog()
    paths = tuple(p for p in statement.paths if p in catalog.by_path or p in catalog.modules)
    _emit(frame, paths or (f"{package}.{name}",))


class _TwinModule(ModuleType):
    """A module that notices every import statement that asks for it."""

    @property
    def __spec__(self) -> Any:
        caller = sys._getframe(1)
        # the import system reads it on the way to a cached module; tools that inspect modules import nothing
        if caller.f_code.co_name == "_find_and_load" or _executes_import(caller):
            warn_import(self.__name__, self.__name__, caller)
        return self.__dict__["__spec__"]

    @__spec__.setter
    def __spec__(self, value: Any) -> None:
        self.__dict__["__spec__"] = value


def _executes_import(frame: FrameType) -> bool:
    code, offset = frame.f_code.co_code, frame.f_lasti
    return 0 <= offset < len(code) and dis.opname[code[offset]] == "IMPORT_NAME"


def deprecated_module(name: str) -> None:
    """Make the module ``name`` (the twin that calls this at import) warn at every statement that imports it."""
    sys.modules[name].__class__ = _TwinModule
    warn_import(name, name, sys._getframe(2))
