"""The catalog as typed data: what each old symbol is called now, and how a use of it is rewritten.

One TOML file describes one old system. The file is data with a closed set of operations::

    schema = 1
    system = "multimodal_insight"
    deprecated_in = "1.0.0"
    removed_in = "2.0.0"
    twins = "legacy"                        # package that holds the frozen twins
    roots = ["src.training.losses", ...]    # old packages; each module is importable under each of them
    package = true                          # a root itself can be imported and exports names (default true)
    parents = ["src.training"]              # optional: packages above the roots that re-exported names

    [[module]]
    old = "clip_style_loss"                 # path below the roots; also below `twins`, unless `twin` says otherwise
    twin = "clip_style_loss"                # optional
    paths = ["utils.loss_functions"]        # optional: full old paths, in place of root + old

    [[symbol]]
    old = "clip_style_loss.CLIPStyleLoss"   # module.Name
    kind = "class"                          # class | function
    exported = ["CLIPStyleLoss"]            # optional: names that the root packages exported it under
    aliases = ["src.training.X"]            # optional: further full old paths
    new = "training_losses.contrastive.clip_loss.CLIPLoss"      # or "none", then `reason` says why
    registry = "clip"                       # optional: its name in the registry
    parity = "exact"                        # exact | documented | fixed
    domain = "..."                          # documented: where old and new agree
    deviations = ["..."]                    # documented and fixed: what differs elsewhere, and why
    outside = ["no_grad"]                   # optional, documented: calls that lie outside the domain, as runs show them
    reason = "..."
    returns = ["dict", "LossOutput"]        # optional: kind of result, old and new

    [symbol.arguments]                      # the old signature, complete and in order
    temperature = { default = 0.07 }        # same name and meaning
    smoothing = { default = 0.1, rename = "label_smoothing", pin = 0.1 }
    coef = { default = 1.0, scale = 0.5 }                       # new value = old value * scale
    keep = { default = true, rename = "drop", invert = true }   # new value = not old value
    mode = { default = "a", map = { a = "mean", b = "sum" } }   # or map = [[old, new], ...]
    cache = { default = true, drop = "nothing is cached" }
    loader = { default = "@None", report = "why a call that passes it is left alone" }
    args = { variadic = "*" }               # *args / **kwargs of the old signature; passing any is reported
    kwargs = { variadic = "**", drop = "nothing read them" }    # ... or left out, where the old code ignored them
    step = { by_kwargs = true, default = "@None" }              # what the old code took out of its **kwargs, after it
    eps = { default = 1e-8, also = ["other_eps"] }              # two new arguments for one old

    [symbol.pins]                           # written into every rewritten call: the new default differs
    center_invariance = { value = true, reason = "..." }

    [symbol.forward]                        # the old forward signature, same operations
    entries = "float"                       # (a key of the symbol:) the kind of the old entries beside the loss: graph,
                                            # tensor (detached), float or int; says that the table of results is whole
    [symbol.results]                        # old key = "new key", in the old order; nested keys with dots
    accuracy = "accuracy"
    tip = { drop = "a string, no metric" }
    mean_similarity = { rename = "similarity_mean", differs = "cosine, not divided by the temperature" }
    gap = { rename = "gap", differs = "of cosines", divide = "temperature" }    # the old one: divided by an attribute
    warmup = { rename = "warmup", differs = "in epoch 0", map = [[0.1, 0.01]] } # the old one: by a table [old, new]
    weight = { drop = "an argument", attribute = "weight" }     # the new loss has it as an attribute
    accuracy = { rename = "accuracy", kind = "tensor" }         # of another kind than the other entries
    [symbol.members]                        # attributes and methods that callers use
    update_epoch = "step_epoch"             # the same under another name, to read and to write
    gone = { report = "what to do now" }    # no counterpart
    alpha = { at = "weights.perceptual" }   # elsewhere: attributes, or keys of what is a mapping
    lr = { at = "rate", scale = 0.5 }       # with other values: scale, invert or map, as in [symbol.arguments]
    mode = { argument = "mode" }            # as the argument of that name
    size = { at = "queue.size", fixed = true }          # to read alone
    [[symbol.state]]
    old = "vision_projection.0.*"           # "*" matches the rest of the key
    new = "vision_head.layers.0.*"          # or a list (copied to each), or drop = "reason"
    transpose = true                        # optional: swap the last two dimensions; squeeze = true: [1] -> []
    of = ["[02].weight", "[02].bias"]       # optional, what "*" of old stands for: a loss holds nothing else
    dims = 2                                # optional, the number of dimensions
    frozen = true                           # optional, beside drop: never trained, so no optimizer holds a state of it
    [[symbol.state]]
    new = "vision_queue.ids"                # a key that the old state lacks: the new object's own value stays
    fresh = "the old queue had no ids"      # beside it, optional: kept = [...], attributes of pickled objects
    [[symbol.state]]
    new = "vision_queue.filled"             # a key that the old state lacks: the number of rows of another new key
    rows = "vision_queue.features"

    [symbol.kept]                           # optional: where a pickled object keeps an argument of its constructor, if
    input_dim = "head.0.in_features"        # not as an attribute of that name; of a list the first that is there
    running = ["print_counter"]             # (a key of the symbol:) attributes that nothing depends on later

    [[symbol.case]]                         # optional: one row per value of arguments that choose a successor
    when = { loss_type = "nt_xent" }        # literal, or list of literals; a missing argument counts as its default
    new = "..."                             # any key of the symbol; tables are merged entry by entry

    [[config]]                              # where configuration files name these losses
    path = "stages[].losses[]"              # "[]" descends into a list
    name = "name"                           # key of the loss' name
    arguments = "params"                    # key of the table of its arguments; "" = beside the name
    [config.names]
    clip_style_loss = "clip_style_loss.CLIPStyleLoss"

    [[config]]                              # sections that an old factory function reads
    factory = "combined.create_loss_from_config"    # only trees that use it are looked at
    sections = ["loss", ""]                 # paths of the section, the first that is there; "" = the whole file
    type = "type"                           # key of the section that chooses the form, in any case
    marks = ["hierarchy_weights"]           # keys by which a whole file is told from others
    partial = ["defaults"]                  # keys at the top of files that are completed by others
    outer = { num_hierarchies = "model.num_hierarchies" }   # keys that the factory took from elsewhere in the file
    [[config.form]]
    types = ["hjepa_sigreg"]
    when = { use_contrastive = true }       # as in [[symbol.case]]
    new = "hjepa_combined"                  # registry name
    parts = { jepa_loss = "hjepa" }         # arguments that are losses
    [config.form.keys]                      # old key -> argument, as in [symbol.arguments]; "part.argument" for those
    hierarchy_weights = { default = 1.0, rename = "jepa_loss.hierarchy_weights" }   # of a part; a default says the kind
    [config.form.pins]                      # written out unless a key leads there
    "jepa_loss.eps" = 1e-8

``pin`` is the value to write, in the new meaning, when a call leaves the argument out. The string ``"@None"`` stands
for Python's ``None``, which TOML lacks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "MISSING",
    "Argument",
    "Case",
    "Catalog",
    "CatalogError",
    "ConfigRule",
    "FactoryForm",
    "FactoryRule",
    "Pin",
    "ResultKey",
    "StateRule",
    "Symbol",
    "Unconvertible",
    "load_catalog",
    "parse_catalog",
]


class _Missing:
    """Sentinel: no default, no pin. ``None`` is a legal value of both."""

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False

    def __copy__(self) -> _Missing:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Missing:
        return self


MISSING: Final[Any] = _Missing()


class CatalogError(ValueError):
    """A catalog file breaks the schema. The message names file, line, row and key."""


class Unconvertible(ValueError):
    """A value has no counterpart in the new interface; the message says why."""


@dataclass(frozen=True)
class Argument:
    """One parameter of an old signature and its way into the new one."""

    name: str
    default: Any = MISSING
    rename: str | None = None
    drop: str | None = None
    report: str | None = None
    pin: Any = MISSING
    map: tuple[tuple[Any, Any], ...] | None = None
    scale: float | None = None
    invert: bool = False
    variadic: str = ""
    keyword_only: bool = False
    by_kwargs: bool = False
    """Not in the signature: the old code took it out of its ``**kwargs``."""
    also: tuple[str, ...] = ()
    """Further new arguments that get the same value."""
    note: str = ""

    @property
    def required(self) -> bool:
        """The old signature has no default for it."""
        return self.default is MISSING and not self.variadic

    @property
    def new_name(self) -> str:
        """Its name in the new signature."""
        return self.rename or self.name

    @property
    def needs_literal(self) -> bool:
        """Only a literal can be converted (a value table has no expression form)."""
        return self.map is not None

    @property
    def changes(self) -> bool:
        """Its values are others in the new interface."""
        return self.map is not None or self.scale is not None or self.invert

    def revert(self, value: Any) -> Any:
        """The old value for a new one.

        Raises:
            Unconvertible: the value table does not list it.
        """
        if self.map is not None:
            for old, new in self.map:
                if type(new) is type(value) and new == value:
                    return old
            raise Unconvertible(f"{self.new_name}={value!r} had no counterpart")
        return not value if self.invert else value if self.scale is None else value / self.scale

    def convert(self, value: Any) -> Any:
        """The new value for an old literal ``value``.

        Raises:
            Unconvertible: the value table does not list it, or the operation does not apply to its type.
        """
        if self.map is not None:
            for old, new in self.map:
                if type(old) is type(value) and old == value:
                    return new
            known = ", ".join(repr(old) for old, _ in self.map)
            raise Unconvertible(f"{self.name}={value!r} has no counterpart (known: {known})")
        if self.scale is not None and value is not None:
            # tensors have a product, too
            if isinstance(value, (bool, str, bytes, list, tuple)) or not hasattr(value, "__mul__"):
                raise Unconvertible(f"{self.name}={value!r} is not a number")
            return value * self.scale
        if self.invert:
            if not isinstance(value, bool):
                raise Unconvertible(f"{self.name}={value!r} is not a bool")
            return not value
        return value


@dataclass(frozen=True)
class Pin:
    """A new argument that has no old counterpart and is written to keep the old behaviour."""

    name: str
    value: Any
    reason: str


@dataclass(frozen=True)
class ResultKey:
    """An entry of the old result. ``new`` is ``None`` when it was dropped.

    The old value is of ``kind`` (empty: that of the row's entries), and the new one divided by the new loss's attribute
    ``divide``, or its ``attribute``, or what ``map`` has for the new one.
    """

    old: str
    new: str | None
    drop: str = ""
    differs: str = ""
    kind: str = ""
    divide: str = ""
    attribute: str = ""
    map: tuple[tuple[float, float], ...] = ()

    @property
    def kept(self) -> bool:
        """Its old value can be had from the new loss."""
        return bool(self.attribute) or (self.new is not None and (not self.differs or bool(self.divide or self.map)))


@dataclass(frozen=True)
class StateRule:
    """State_dict keys ``old`` -> each of ``new`` (empty: dropped). ``fresh``: ``new`` had no counterpart.

    ``kept``: attributes of old objects that hold it, one per entry of ``new``. ``rows``: ``new`` had no counterpart
    either; its value is the number of rows of that new key. ``of``: what ``*`` may stand for (shell patterns; empty:
    anything). ``dims``: the number of dimensions. ``frozen``: never trained, so that optimizers hold no state for it.
    The rules stand in the order in which the new object holds its parameters.
    """

    old: str
    new: tuple[str, ...]
    transpose: bool = False
    squeeze: bool = False
    drop: str = ""
    fresh: str = ""
    rows: str = ""
    kept: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    dims: int | None = None
    frozen: bool = False

    def match(self, key: str) -> str | None:
        """The part that ``*`` stands for if ``key`` matches ``old``, else ``None``."""
        return self._within(_match(self.old, key)) if self.old else None

    def match_new(self, key: str) -> str | None:
        """The same for the first of the new keys, which is the one that a reverse conversion reads."""
        return self._within(_match(self.new[0], key)) if self.new else None

    def _within(self, rest: str | None) -> str | None:
        return rest if rest is None or not self.of or any(fnmatchcase(rest, pattern) for pattern in self.of) else None


def _match(pattern: str, key: str) -> str | None:
    head, star, tail = pattern.partition("*")
    if not star:
        return "" if key == pattern else None
    if key.startswith(head) and key.endswith(tail) and len(key) >= len(head) + len(tail):
        return key[len(head) : len(key) - len(tail)]
    return None


@dataclass(frozen=True)
class Case:
    """A row: one successor of an old symbol under the condition ``when`` (empty: always)."""

    new: str | None
    parity: str
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    registry: str | None = None
    domain: str = ""
    deviations: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    """Kinds of calls that lie outside the domain: ``no_grad``, ``eval``."""
    reason: str = ""
    returns: tuple[str, str] | None = None
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    pins: Mapping[str, Pin] = field(default_factory=dict)
    forward: Mapping[str, Argument] | None = None
    results: Mapping[str, ResultKey] = field(default_factory=dict)
    entries: str = ""
    """The kind of the old entries beside the loss; empty where the old result cannot be made."""
    members: Mapping[str, Any] = field(default_factory=dict)
    state: tuple[StateRule, ...] = ()
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    running: tuple[str, ...] = ()

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the condition holds for the literal argument ``values`` (defaults filled in)."""
        return all(
            any(type(values.get(name, MISSING)) is type(option) and values[name] == option for option in options)
            for name, options in self.when.items()
        )

    @property
    def keeps_results(self) -> bool:
        """The whole old result can be had from the new loss (keyword ``results_like`` of ``BaseLoss``)."""
        return bool(self.entries) and all(result.kept for result in self.results.values())

    def describe(self) -> str:
        """The condition in words, empty when there is none."""
        return " and ".join(
            f"{name}={options[0]!r}" if len(options) == 1 else f"{name} in {{{', '.join(map(repr, options))}}}"
            for name, options in self.when.items()
        )


@dataclass(frozen=True)
class Symbol:
    """An old class or function with all names under which it was importable."""

    system: str
    old: str
    kind: str
    twin: str
    paths: tuple[str, ...]
    package_paths: tuple[str, ...]
    cases: tuple[Case, ...]
    deprecated_in: str
    removed_in: str
    line: int = 0

    @property
    def name(self) -> str:
        """The bare name."""
        return self.old.rpartition(".")[2]

    @property
    def all_paths(self) -> tuple[str, ...]:
        """Module-level and package-level old paths."""
        return self.paths + self.package_paths

    @property
    def selectors(self) -> tuple[str, ...]:
        """Arguments whose value chooses between the cases, in order of first use."""
        return tuple(dict.fromkeys(name for case in self.cases for name in case.when))

    @property
    def signature(self) -> Mapping[str, Argument]:
        """The old constructor or function signature (the same in all cases)."""
        return self.cases[0].arguments

    def case_for(self, values: Mapping[str, Any]) -> Case | None:
        """The first case that holds for literal argument ``values``; absent arguments count as their defaults."""
        filled = {name: arg.default for name, arg in self.signature.items() if arg.default is not MISSING}
        filled.update(values)
        return next((case for case in self.cases if case.holds(filled)), None)


@dataclass(frozen=True)
class ConfigRule:
    """Where a configuration file names old losses."""

    path: str
    name: str
    arguments: str
    names: Mapping[str, str]
    system: str = ""


@dataclass(frozen=True)
class FactoryForm:
    """One kind of section of an old factory, as the registry name and arguments that build the same loss."""

    types: tuple[str, ...]
    new: str
    case: Case
    """The condition, the keys as arguments."""
    parts: Mapping[str, str]
    pins: Mapping[str, Any]
    entries: Mapping[str, tuple[str, ...]]
    """Keys that hold a list of tables -> the keys of these."""


@dataclass(frozen=True)
class FactoryRule:
    """Sections of configuration files that an old factory reads."""

    factory: str
    sections: tuple[str, ...]
    type: str
    marks: tuple[str, ...]
    partial: tuple[str, ...]
    outer: Mapping[str, str]
    forms: tuple[FactoryForm, ...]
    system: str = ""

    @property
    def words(self) -> set[str]:
        """Words of which each such file has one."""
        return {*self.marks, *(kind for form in self.forms for kind in form.types)}


@dataclass(frozen=True)
class Catalog:
    """All rows of one or more systems, with the look-ups that the consumers need."""

    symbols: tuple[Symbol, ...]
    modules: Mapping[str, str]
    """Old module path -> twin module path."""
    packages: Mapping[str, str]
    """Old package path (a root) -> twin package path."""
    configs: tuple[ConfigRule, ...] = ()
    factories: tuple[FactoryRule, ...] = ()
    versions: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Old module or package path -> (deprecated_in, removed_in)."""
    owned: frozenset[str] = frozenset()
    """Old packages that held losses and nothing else: whatever is below them goes with them."""

    def __post_init__(self) -> None:
        by_path: dict[str, Symbol] = {}
        for symbol in self.symbols:
            for path in symbol.all_paths:
                if path in by_path:
                    raise CatalogError(
                        f"old path {path!r} is claimed by two rows: {by_path[path].old!r} ({by_path[path].system}) "
                        f"and {symbol.old!r} ({symbol.system})"
                    )
                by_path[path] = symbol
        object.__setattr__(self, "_by_path", by_path)

    @property
    def by_path(self) -> Mapping[str, Symbol]:
        """Every full old path -> its symbol."""
        paths: Mapping[str, Symbol] = self.__dict__["_by_path"]
        return paths

    def find(self, name: str) -> list[Symbol]:
        """Symbols by full old path, twin path, ``module.Name`` or bare name."""
        if name in self.by_path:
            return [self.by_path[name]]
        return [s for s in self.symbols if name in (s.old, s.twin, s.name)]

    def successors(self) -> Iterator[tuple[Symbol, Case]]:
        """Every row that has a successor."""
        for symbol in self.symbols:
            for case in symbol.cases:
                if case.new is not None:
                    yield symbol, case

    def of_successor(self, new: str) -> list[tuple[Symbol, Case]]:
        """Rows whose successor is the dotted path ``new``."""
        return [(symbol, case) for symbol, case in self.successors() if case.new == new]

    @classmethod
    def merge(cls, catalogs: Iterable[Catalog]) -> Catalog:
        """One catalog of several."""
        parts = list(catalogs)
        return cls(
            symbols=tuple(s for c in parts for s in c.symbols),
            modules={k: v for c in parts for k, v in c.modules.items()},
            packages={k: v for c in parts for k, v in c.packages.items()},
            configs=tuple(r for c in parts for r in c.configs),
            factories=tuple(r for c in parts for r in c.factories),
            versions={k: v for c in parts for k, v in c.versions.items()},
            owned=frozenset().union(*(c.owned for c in parts)),
        )


# --- reading -----------------------------------------------------------------------------------------------------

_TOP = {
    "schema",
    "system",
    "deprecated_in",
    "removed_in",
    "twins",
    "roots",
    "package",
    "parents",
    "module",
    "symbol",
} | {"config"}
_MODULE = {"old", "twin", "paths"}
_CASE = {"new", "registry", "parity", "domain", "deviations", "reason", "returns", "arguments", "pins", "forward"} | {
    "outside",
    "results",
    "entries",
    "members",
    "state",
    "kept",
    "running",
}
_SYMBOL = _CASE | {"old", "kind", "exported", "aliases", "case"}
_ARGUMENT = {
    *("default", "rename", "drop", "report", "pin", "map", "scale", "invert"),
    *("variadic", "keyword_only", "by_kwargs", "also", "note"),
}
_MEMBER = {"at", "argument", "scale", "invert", "map", "fixed", "report"}
_STATE = {"old", "new", "transpose", "squeeze", "drop", "fresh", "rows", "kept", "of", "dims", "frozen"}
_CONFIG = {"path", "name", "arguments", "names"}
_FACTORY = {"factory", "sections", "type", "marks", "partial", "outer", "form"}
_FORM = {"types", "when", "new", "parts", "keys", "pins", "entries"}
_KINDS = ("graph", "tensor", "float", "int")
_PARITY = ("exact", "documented", "fixed")
_MERGED = ("arguments", "pins", "forward", "results", "members")


class _Reader:
    """Checks one file against the schema; every complaint carries the line."""

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        self.lines = text.splitlines()
        self.places: dict[str, list[int]] = {}

    def line_of(self, header: str, index: int, key: str | None = None) -> int:
        """Line of the ``index``-th ``[[header]]``, or of ``key`` (dotted: table.key) inside that block."""
        places = self.places.get(header)
        if places is None:
            pattern = re.compile(rf"\s*\[\[\s*{re.escape(header)}\s*\]\]")
            places = [number for number, line in enumerate(self.lines, 1) if pattern.match(line)]
            self.places[header] = places
        start = places[index] if index < len(places) else 0
        end = places[index + 1] - 1 if index + 1 < len(places) else len(self.lines)
        if not start:
            return 1
        if key is not None:
            last = key.rpartition(".")[2]
            pattern = re.compile(
                rf'\s*(\[+[^\]]*\b)?["\']?{re.escape(last)}["\']?\s*(=|\]|\.)|.*[{{,]\s*{re.escape(last)}\s*='
            )
            for number in range(start + 1, end + 1):
                if pattern.match(self.lines[number - 1]):
                    return number
        return start

    def fail(self, line: int, row: str, message: str) -> CatalogError:
        return CatalogError(f"{self.source}:{line}: {row}: {message}")

    def top_line(self, key: str) -> int:
        return next((n for n, line in enumerate(self.lines, 1) if re.match(rf"\s*\[*{re.escape(key)}\b", line)), 1)


class _Row:
    """A table under inspection: typed access, complaints with file, line, row and key."""

    def __init__(self, reader: _Reader, data: Any, header: str, index: int, label: str) -> None:
        self.reader, self.header, self.index, self.label = reader, header, index, label
        if not isinstance(data, dict):
            raise self.fail("", f"expected a table, found {type(data).__name__}")
        self.data: dict[str, Any] = data

    def fail(self, key: str, message: str) -> CatalogError:
        line = self.reader.line_of(self.header, self.index, key or None) if self.header else self.reader.top_line(key)
        return self.reader.fail(line, self.label, f"key {key!r}: {message}" if key else message)

    def only(self, allowed: set[str], where: str = "", data: Mapping[str, Any] | None = None) -> None:
        for key in self.data if data is None else data:
            if key not in allowed:
                raise self.fail(f"{where}{key}", f"unknown (allowed: {', '.join(sorted(allowed))})")

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = MISSING) -> Any:
        if key not in self.data:
            if default is MISSING:
                raise self.fail("", f"key {key!r} is missing")
            return default
        value = self.data[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            wanted = kind.__name__ if isinstance(kind, type) else " or ".join(k.__name__ for k in kind)
            raise self.fail(key, f"expected {wanted}, found {value!r}")
        return value

    def strings(self, key: str, default: Any = MISSING) -> tuple[str, ...]:
        values = self.get(key, list, default)
        if not all(isinstance(value, str) for value in values):
            raise self.fail(key, f"expected a list of strings, found {values!r}")
        return tuple(values)


def _literal(value: Any) -> Any:
    if value == "@None" and isinstance(value, str):
        return None
    if isinstance(value, list):
        return [_literal(item) for item in value]
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    return value


def _argument(row: _Row, table: str, name: str, data: Any) -> Argument:
    where = f"{table}.{name}"
    if not isinstance(data, dict):
        raise row.fail(where, f"expected a table such as {{ default = 1.0 }}, found {data!r}")
    row.only(_ARGUMENT, f"{where}.", data)
    for key in ("rename", "drop", "report", "variadic", "note"):
        if key in data and not isinstance(data[key], str):
            raise row.fail(f"{where}.{key}", f"expected a string, found {data[key]!r}")
    for key in ("invert", "keyword_only", "by_kwargs"):
        if key in data and not isinstance(data[key], bool):
            raise row.fail(f"{where}.{key}", f"expected true or false, found {data[key]!r}")
    fates = [key for key in ("drop", "report") if key in data]
    changes = [key for key in ("map", "scale", "invert") if data.get(key)]
    if len(fates) > 1 or len(changes) > 1 or (fates and (changes or "pin" in data or "rename" in data)):
        raise row.fail(where, f"{', '.join([*fates, *changes])} cannot be combined")
    table_of_values = data.get("map")
    pairs: tuple[tuple[Any, Any], ...] | None = None
    if isinstance(table_of_values, dict):
        pairs = tuple((old, _literal(new)) for old, new in table_of_values.items())
    elif isinstance(table_of_values, list) and all(isinstance(p, list) and len(p) == 2 for p in table_of_values):
        pairs = tuple((_literal(old), _literal(new)) for old, new in table_of_values)
    elif table_of_values is not None:
        raise row.fail(f"{where}.map", f"expected a table or a list of pairs, found {table_of_values!r}")
    scale = data.get("scale")
    if scale is not None and (isinstance(scale, bool) or not isinstance(scale, (int, float)) or scale == 0):
        raise row.fail(f"{where}.scale", f"expected a number other than 0, found {scale!r}")
    also = data.get("also", [])
    if not isinstance(also, list) or not all(isinstance(name, str) for name in also):
        raise row.fail(f"{where}.also", f"expected a list of names, found {also!r}")
    if data.get("by_kwargs") and "default" not in data:
        raise row.fail(f"{where}.by_kwargs", "expected a default beside it: what its absence means")
    if data.get("variadic", "*") not in ("*", "**"):
        raise row.fail(f"{where}.variadic", f"expected '*' or '**', found {data['variadic']!r}")
    return Argument(
        name=name,
        default=_literal(data["default"]) if "default" in data else MISSING,
        rename=data.get("rename"),
        drop=data.get("drop"),
        report=data.get("report"),
        pin=_literal(data["pin"]) if "pin" in data else MISSING,
        map=pairs,
        scale=scale,
        invert=data.get("invert", False),
        variadic=data.get("variadic", ""),
        keyword_only=bool(data.get("keyword_only", data.get("by_kwargs", False))),
        by_kwargs=data.get("by_kwargs", False),
        also=tuple(also),
        note=data.get("note", ""),
    )


def _arguments(row: _Row, table: str) -> dict[str, Argument]:
    return {name: _argument(row, table, name, data) for name, data in row.get(table, dict, {}).items()}


def _result(row: _Row, old: str, data: Any) -> ResultKey:
    if isinstance(data, str):
        return ResultKey(old, data)
    if not isinstance(data, dict) or not all(isinstance(value, str) for key, value in data.items() if key != "map"):
        raise row.fail(f"results.{old}", f"expected a new key or a table, found {data!r}")
    row.only({"rename", "drop", "differs", "kind", "divide", "attribute", "map"}, f"results.{old}.", data)
    kind = data.get("kind", "")
    if kind not in ("", *_KINDS):
        raise row.fail(f"results.{old}.kind", f"expected one of {', '.join(_KINDS)}, found {kind!r}")
    new = None if "drop" in data else data.get("rename", old)
    rest = {name: data.get(name, "") for name in ("drop", "differs", "divide", "attribute")}
    return ResultKey(old, new, kind=kind, map=tuple((old, new) for old, new in data.get("map", ())), **rest)


def _entries(row: _Row) -> str:
    entries: str = row.get("entries", str, "")
    if entries not in ("", *_KINDS):
        raise row.fail("entries", f"expected one of {', '.join(_KINDS)}, found {entries!r}")
    return entries


def _state(row: _Row, data: Any) -> StateRule:
    if not isinstance(data, dict):
        raise row.fail("state", f"expected tables, found {data!r}")
    row.only(_STATE, "state.", data)
    fresh, rows = data.get("fresh", ""), data.get("rows", "")
    old, new = data.get("old", "" if fresh or rows else None), data.get("new", [])
    if not isinstance(old, str):
        raise row.fail("state.old", f"expected a string, found {old!r}")
    targets = (new,) if isinstance(new, str) else tuple(new)
    for name in ("fresh", "rows"):
        if data.get(name) and (not targets or set(data) - {"new", name, "kept"}):
            raise row.fail(f"state.{name}", "stands beside new alone")
    kept = tuple(data.get("kept", ()))
    if kept and not (fresh and len(kept) == len(targets)):
        raise row.fail("state.kept", "stands beside fresh, with one attribute per new key")
    if bool(targets) == bool(data.get("drop")):
        raise row.fail("state.new", f"{old!r} needs either new or drop")
    for target in targets:
        if ("*" in old) != ("*" in target):
            raise row.fail("state.new", f"{old!r} -> {target!r}: both or neither need '*'")
    of, dims = data.get("of", []), data.get("dims")
    if not isinstance(of, list) or not all(isinstance(pattern, str) for pattern in of):
        raise row.fail("state.of", f"expected a list of patterns, found {of!r}")
    if of and "*" not in old:
        raise row.fail("state.of", f"says what '*' stands for, and {old!r} has none")
    if dims is not None and type(dims) is not int:
        raise row.fail("state.dims", f"expected a number, found {dims!r}")
    return StateRule(
        old,
        targets,
        bool(data.get("transpose")),
        bool(data.get("squeeze")),
        drop=str(data.get("drop", "")),
        fresh=str(fresh),
        rows=str(rows),
        kept=kept,
        of=tuple(of),
        dims=dims,
        frozen=bool(data.get("frozen")),
    )


def _pin(row: _Row, name: str, data: Any) -> Pin:
    if not isinstance(data, dict) or set(data) != {"value", "reason"}:
        raise row.fail(f"pins.{name}", f"expected {{ value = ..., reason = ... }}, found {data!r}")
    return Pin(name, _literal(data["value"]), str(data["reason"]))


def _member(row: _Row, name: str, data: Any, arguments: Mapping[str, Argument]) -> str | dict[str, Any]:
    """The new name; or, where the member cannot simply be renamed, a table with what to say (``report``).

    A table with ``at``, the place of the member, has ``convert``, its way there as that of an argument.
    """
    if isinstance(data, str):
        return data
    if not isinstance(data, dict):
        raise row.fail(f"members.{name}", f"expected a name or a table, found {data!r}")
    row.only(_MEMBER, f"members.{name}.", data)
    if not {"at", "argument"} & set(data):
        if set(data) != {"report"}:
            raise row.fail(f"members.{name}", "without at or argument, there is report alone")
        return data
    if "argument" in data:
        given = arguments.get(data["argument"])
        if given is None or set(data) - {"argument", "report"}:
            raise row.fail(f"members.{name}.argument", "names an argument, and stands alone or beside report")
        gone = given.drop if given.drop is not None else given.report
        if gone is not None:
            return {"report": data.get("report", gone)}
        converted, at = given, given.new_name
        if not given.changes and "report" not in data:
            return at
    else:
        operation: dict[str, Any] = {key: data[key] for key in ("scale", "invert", "map") if key in data}
        converted, at = _argument(row, "members", name, operation), data["at"]
    changed = " (with other values)" if converted.changes else ""
    if data.get("fixed") not in (None, True):
        raise row.fail(f"members.{name}.fixed", f"is true or left out, found {data['fixed']!r}")
    return {
        "at": at,
        "convert": converted,
        "fixed": "fixed" in data,
        "report": data.get("report", f"it is {at!r} now{changed}"),
    }


def _case(row: _Row, when: Mapping[str, tuple[Any, ...]]) -> Case:
    new = row.get("new", str)
    parity = row.get("parity", str, "exact" if new != "none" else "fixed")
    if parity not in _PARITY:
        raise row.fail("parity", f"expected one of {', '.join(_PARITY)}, found {parity!r}")
    domain, reason = row.get("domain", str, ""), row.get("reason", str, "")
    deviations = row.strings("deviations", [])
    if new == "none" and not reason:
        raise row.fail("new", "a row without a successor needs a reason")
    if new != "none" and "." not in new:
        raise row.fail("new", f"expected a dotted path or 'none', found {new!r}")
    if parity == "documented" and not (domain and deviations):
        raise row.fail("parity", "documented rows state their domain and their deviations")
    if parity == "fixed" and new != "none" and not deviations:
        raise row.fail("parity", "fixed rows state their deviations")
    outside = row.strings("outside", [])
    if outside and (parity != "documented" or not {"no_grad", "eval"}.issuperset(outside)):
        raise row.fail("outside", f"documented rows list no_grad or eval, found {list(outside)!r}")
    returns = row.strings("returns", [])
    if len(returns) not in (0, 2):
        raise row.fail("returns", f"expected [old, new], found {list(returns)!r}")
    arguments, kept = _arguments(row, "arguments"), row.get("kept", dict, {})
    for name in kept:
        if name not in arguments:
            raise row.fail(f"kept.{name}", "not an argument of the old signature")
    return Case(
        new=None if new == "none" else new,
        parity=parity,
        when=when,
        registry=row.get("registry", str, None),
        domain=domain,
        deviations=deviations,
        outside=outside,
        reason=reason,
        returns=(returns[0], returns[1]) if returns else None,
        arguments=arguments,
        pins={name: _pin(row, name, data) for name, data in row.get("pins", dict, {}).items()},
        forward=_arguments(row, "forward") if "forward" in row.data else None,
        results={old: _result(row, old, data) for old, data in row.get("results", dict, {}).items()},
        entries=_entries(row),
        members={name: _member(row, name, data, arguments) for name, data in row.get("members", dict, {}).items()},
        state=tuple(_state(row, data) for data in row.get("state", list, [])),
        kept={n: (p,) if isinstance(p, str) else tuple(p) for n, p in kept.items()},
        running=row.strings("running", []),
    )


def _merge(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    merged = {key: value for key, value in base.items() if key in _CASE}
    for key, value in override.items():
        if key in _MERGED and isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = {**merged[key], **value}
        elif key != "when":
            merged[key] = value
    return merged


def _cases(row: _Row) -> tuple[Case, ...]:
    overrides = row.get("case", list, [])
    if not overrides:
        return (_case(row, {}),)
    cases = []
    for number, override in enumerate(overrides, 1):
        part = _Row(row.reader, override, row.header, row.index, f"{row.label} case {number}")
        part.only(_CASE | {"when"})
        when = part.get("when", dict, {})
        options = _options(when)
        whole = _Row(row.reader, _merge(row.data, override), row.header, row.index, part.label)
        case = _case(whole, options)
        for name in options:
            if name not in case.arguments:
                raise whole.fail(f"when.{name}", "not an argument of the old signature")
        cases.append(case)
    return tuple(cases)


def _options(when: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {k: tuple(_literal(v)) if isinstance(v, list) else (_literal(v),) for k, v in when.items()}


def _form(row: _Row) -> FactoryForm:
    row.only(_FORM)
    keys, when = _arguments(row, "keys"), _options(row.get("when", dict, {}))
    for name in when:
        if name not in keys:
            raise row.fail(f"when.{name}", "not a key of the form")
    parts = row.get("parts", dict, {})
    pins = {name: _literal(value) for name, value in row.get("pins", dict, {}).items()}
    for name in (*(a.new_name for a in keys.values()), *pins):
        part, dot, _ = name.rpartition(".")
        if dot and part not in parts:
            raise row.fail("parts", f"{name!r} is an argument of no part")
    entries = {name: tuple(known) for name, known in row.get("entries", dict, {}).items()}
    new = row.get("new", str)
    return FactoryForm(row.strings("types"), new, Case(None, "documented", when, arguments=keys), parts, pins, entries)


def _factory(row: _Row, known: set[str], system: str) -> FactoryRule:
    row.only(_FACTORY)
    factory = row.get("factory", str)
    if factory not in known:
        raise row.fail("factory", f"no [[symbol]] row for {factory!r}")
    forms = [
        _form(_Row(row.reader, entry, "config.form", index, f"{row.label} form {index + 1}"))
        for index, entry in enumerate(row.get("form", list))
    ]
    return FactoryRule(
        factory,
        row.strings("sections"),
        row.get("type", str),
        row.strings("marks", []),
        row.strings("partial", []),
        row.get("outer", dict, {}),
        tuple(forms),
        system,
    )


def parse_catalog(text: str, source: str = "<catalog>") -> Catalog:
    """The catalog in ``text``; ``source`` is its name in errors.

    Raises:
        CatalogError: not TOML, or not by the schema; names file, line, row and key.
    """
    reader = _Reader(text, source)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        raise CatalogError(f"{source}:{line.group(1) if line else 1}: not valid TOML: {error}") from error
    top = _Row(reader, data, "", 0, "top level")
    top.only(_TOP)
    if top.get("schema", int) != 1:
        raise top.fail("schema", f"this version reads schema 1, found {data['schema']!r}")
    system, twins = top.get("system", str), top.get("twins", str, "training_losses.legacy")
    versions = (top.get("deprecated_in", str), top.get("removed_in", str))
    roots, parents = top.strings("roots"), top.strings("parents", [])

    modules: dict[str, str] = {}
    module_paths: dict[str, tuple[str, ...]] = {}
    module_twins: dict[str, str] = {}
    for index, entry in enumerate(top.get("module", list, [])):
        row = _Row(reader, entry, "module", index, f"module {index + 1}")
        row.only(_MODULE)
        old = row.get("old", str)
        if old in module_paths:
            raise row.fail("old", f"{old!r} has two rows")
        paths = row.strings("paths", [f"{root}.{old}" for root in roots])
        module_paths[old] = paths
        module_twins[old] = ".".join(filter(None, [twins, row.get("twin", str, old)]))
        modules.update(dict.fromkeys(paths, module_twins[old]))

    symbols: list[Symbol] = []
    for index, entry in enumerate(top.get("symbol", list, [])):
        row = _Row(reader, entry, "symbol", index, f"symbol {index + 1}")
        old = row.get("old", str)
        row.label = f"symbol {old}"
        row.only(_SYMBOL)
        module, _, name = old.rpartition(".")
        if module not in module_paths:
            raise row.fail("old", f"no [[module]] row for {module!r}")
        kind = row.get("kind", str)
        if kind not in ("class", "function"):
            raise row.fail("kind", f"expected class or function, found {kind!r}")
        exported = row.strings("exported", [])
        if exported and not top.get("package", bool, True):
            raise row.fail("exported", "the roots of this system are no packages that export names")
        symbols.append(
            Symbol(
                system=system,
                old=old,
                kind=kind,
                twin=f"{module_twins[module]}.{name}",
                paths=tuple(f"{path}.{name}" for path in module_paths[module]),
                package_paths=(*(f"{root}.{n}" for root in roots for n in exported), *row.strings("aliases", [])),
                cases=_cases(row),
                deprecated_in=versions[0],
                removed_in=versions[1],
                line=reader.line_of("symbol", index),
            )
        )
    known = {symbol.old for symbol in symbols}
    configs = []
    factories = []
    for index, entry in enumerate(top.get("config", list, [])):
        row = _Row(reader, entry, "config", index, f"config {index + 1}")
        if "factory" in row.data:
            factories.append(_factory(row, known, system))
            continue
        row.only(_CONFIG)
        names = row.get("names", dict)
        for name, target in names.items():
            if target not in known:
                raise row.fail(f"names.{name}", f"no [[symbol]] row for {target!r}")
        configs.append(
            ConfigRule(row.get("path", str), row.get("name", str), row.get("arguments", str, ""), names, system)
        )
    packages = dict.fromkeys(roots, twins) if top.get("package", bool, True) else {}
    owned = frozenset(packages)
    packages.update(dict.fromkeys(parents, twins))
    try:
        return Catalog(
            symbols=tuple(symbols),
            modules=modules,
            packages=packages,
            configs=tuple(configs),
            factories=tuple(factories),
            versions=dict.fromkeys([*modules, *packages], versions),
            owned=owned,
        )
    except CatalogError as error:
        raise CatalogError(f"{source}: {error}") from error


def load_catalog(paths: Sequence[Path]) -> Catalog:
    """The merged catalog of the files ``paths``.

    Raises:
        CatalogError: a file cannot be read, breaks the schema, or two files claim the same old path.
    """
    parts = []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CatalogError(f"{path}: cannot read the catalog: {error}") from error
        parts.append(parse_catalog(text, str(path)))
    return Catalog.merge(parts)
