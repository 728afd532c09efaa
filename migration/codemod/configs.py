"""Names and arguments of losses in YAML, JSON and TOML files, under the paths that the catalog declares.

Each format is read into the same tree of nodes with places, and only the characters of a changed name, key or value
are replaced, so comments, order and layout stay.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..catalog import Case, ConfigRule, Symbol, Unconvertible
from .errors import FileError
from .jsontext import Node, parse_json
from .rules import Rules, Target, converts
from .text import Edit, Finding, Source

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass
class Entry:
    """A loss in a configuration file: the node of its name and the table of its arguments."""

    name: Node
    symbol: Symbol
    arguments: Node | None
    beside: bool
    holder: Node

    @property
    def own(self) -> bool:
        """Whether the name stands in the holder, and no merge key brings it."""
        members = self.holder.value.values() if isinstance(self.holder.value, dict) else ()
        return self.holder is self.name or any(value is self.name for _, value in members)


@dataclass
class Result:
    """Edits and findings of one file."""

    edits: list[Edit] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    symbols: set[str] = field(default_factory=set)

    def joined(self, other: Result) -> Result:
        """Both results."""
        return Result(self.edits + other.edits, self.findings + other.findings, self.symbols | other.symbols)


# -- trees with places ----------------------------------------------------------------------------------------------


def tree(text: str, suffix: str) -> list[Node]:
    """The documents of a file.

    Raises:
        FileError: it does not parse.
    """
    try:
        if suffix == ".json":
            return [parse_json(text)]
        if suffix == ".toml":
            return [_Toml(text).parse()]
        return _yaml(text)
    except RecursionError as error:
        raise FileError("TL093", "nested too deeply") from error
    except ValueError as error:
        raise FileError("TL090", f"not valid {suffix[1:].upper()}: {str(error).splitlines()[0]}") from error


MOST_NODES = 200_000
"""How many nodes the aliases of a file may stand for."""
_PROPERTIES = re.compile(r"(?:[&!][^\s,\[\]{}]*(?:\s+|#[^\n]*\n)+)+")


def _yaml(text: str) -> list[Node]:
    from . import yamltext

    reader = yamltext.reader()
    try:
        roots = [node for node in reader.compose_all(text) if node is not None]
        return [_Yaml(text, reader).convert(root) for root in roots]
    except yamltext.YAMLError as error:
        raise ValueError(str(error)) from error


class _Yaml:
    """Nodes of YAML, each converted once, however many aliases refer to it."""

    def __init__(self, text: str, reader: Any) -> None:
        from . import yamltext

        self.library = yamltext
        self.text, self.reader = text, reader
        self.made: dict[int, Node | None] = {}
        self.sizes: dict[int, int] = {}

    def convert(self, node: Any) -> Node:
        """The node with its places.

        Raises:
            FileError: it contains itself, or aliases make it too large.
        """
        if id(node) in self.made:
            known = self.made[id(node)]
            if known is None:
                raise FileError("TL095", "a node of the file contains itself by an alias")
            known.uses += 1
            return known
        self.made[id(node)] = None
        made = self.made[id(node)] = self._new(node)
        return made

    def _new(self, node: Any) -> Node:
        start, end = node.start_mark.index, node.end_mark.index
        properties = _PROPERTIES.match(self.text, start, end) if node.anchor or node.tag else None
        start = properties.end() if properties else start
        if isinstance(node, self.library.MappingNode):
            members = {str(key.value): pair for key, pair in self._members(node)}
            made = Node(start, end, members)
            size = 1 + sum(self.sizes[id(value)] for _, value in node.value)
        elif isinstance(node, self.library.SequenceNode):
            made = Node(start, end, [self.convert(item) for item in node.value])
            size = 1 + sum(self.sizes[id(item)] for item in node.value)
        else:
            self.sizes[id(node)] = 1
            return Node(start, end, self.library.value(self.reader, node))
        if size > MOST_NODES and len(self.sizes) < size:
            raise FileError("TL095", f"its aliases stand for more than {MOST_NODES} nodes")
        self.sizes[id(node)] = size
        if not node.flow_style:
            made.end = start + len(self.text[start:end].rstrip())
        return made

    def _members(self, node: Any) -> Iterator[tuple[Any, tuple[Node, Node]]]:
        for key, value in node.value:
            converted = self.convert(value)
            if isinstance(key, self.library.ScalarNode):
                yield key, (self.convert(key), converted)


class _Toml:
    """Places of keys and values; that the text is TOML was checked by the real parser."""

    _KEY = re.compile(
        r"""[ \t]*((?:[\w-]+|"[^"\n]*"|'[^'\n]*')(?:[ \t]*\.[ \t]*(?:[\w-]+|"[^"\n]*"|'[^'\n]*'))*)[ \t]*=[ \t]*"""
    )
    _HEADER = re.compile(r"[ \t]*(\[\[?)([^\]\n]+)\]\]?")
    _GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
    _STRING = re.compile(r'"""(?:[^\\]|\\.)*?"""|' r"'''.*?'''|" r'"(?:[^"\\\n]|\\.)*"|' r"'[^'\n]*'", re.S)
    _SCALAR = re.compile(r"[^,\]}\s#]+(?: \d\d:[\d:.]+[^,\]}\s#]*)?")

    def __init__(self, text: str) -> None:
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(str(error)) from error
        self.text = text

    def parse(self) -> Node:
        root = Node(0, len(self.text), {})
        table = root
        position = 0
        while position < len(self.text):
            position = self._skip(position)
            header = self._HEADER.match(self.text, position)
            key = self._KEY.match(self.text, position)
            if header and not key:
                table = self._open(root, header, len(header.group(1)) == 2)
                position = header.end()
            elif key:
                value, end = self._value(key.end())
                self._put(table, key, value)
                table.end = max(table.end, end)
                position = end
            else:
                break
        return root

    def _skip(self, position: int) -> int:
        match = self._GAP.match(self.text, position)
        return match.end() if match else position

    @staticmethod
    def _names(dotted: str) -> list[str]:
        return [part.strip().strip("\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|[^.]+", dotted)]

    def _open(self, root: Node, header: re.Match[str], array: bool) -> Node:
        node = root
        *parents, last = self._names(header.group(2))
        for name in parents:
            node = self._child(node, name, header)
        fresh = Node(header.start(), header.end(), {})
        key = Node(header.start(2), header.end(2), last)
        if array:
            members = node.value.setdefault(last, (key, Node(header.start(), header.end(), [])))[1]
            members.value.append(fresh)
            return fresh
        known = node.value.get(last)
        if known is not None and isinstance(known[1].value, dict):
            table: Node = known[1]
            return table
        node.value[last] = (key, fresh)
        return fresh

    def _child(self, node: Node, name: str, header: re.Match[str]) -> Node:
        key = Node(header.start(2), header.end(2), name)
        child: Node = node.value.setdefault(name, (key, Node(header.start(), header.end(), {})))[1]
        return child.value[-1] if isinstance(child.value, list) else child

    def _put(self, table: Node, key: re.Match[str], value: Node) -> None:
        *parents, last = self._names(key.group(1))
        for name in parents:
            place = Node(key.start(1), key.end(1), name)
            table = table.value.setdefault(name, (place, Node(key.start(1), value.end, {})))[1]
        table.value[last] = (Node(key.start(1), key.end(1), last), value)

    def _value(self, position: int) -> tuple[Node, int]:
        start = position
        opening = self.text[position : position + 1]
        if opening == "{":
            node = Node(start, start, {})
            position = self._skip(position + 1)
            while self.text[position] != "}":
                key = self._KEY.match(self.text, position)
                if key is None:
                    raise ValueError(f"cannot locate the keys of an inline table at offset {position}")
                value, position = self._value(key.end())
                self._put(node, key, value)
                position = self._skip(position)
                position = self._skip(position + 1) if self.text[position] == "," else position
            node.end = position + 1
            return node, position + 1
        if opening == "[":
            items: list[Node] = []
            position = self._skip(position + 1)
            while self.text[position] != "]":
                item, position = self._value(position)
                items.append(item)
                position = self._skip(position)
                position = self._skip(position + 1) if self.text[position] == "," else position
            return Node(start, position + 1, items), position + 1
        match = self._STRING.match(self.text, position) or self._SCALAR.match(self.text, position)
        if match is None:
            raise ValueError(f"cannot locate the value at offset {position}")
        return Node(start, match.end(), tomllib.loads(f"v = {match.group()}")["v"]), match.end()


# -- entries --------------------------------------------------------------------------------------------------------


def _descend(node: Node, steps: list[str]) -> Iterator[Node]:
    if not steps:
        yield node
        return
    step, rest = steps[0], steps[1:]
    if step == "":
        yield from _descend(node, rest)
        return
    name = step.removesuffix("[]")
    child = node.get(name) if name else node
    if child is None:
        return
    if not step.endswith("[]"):
        yield from _descend(child, rest)
        return
    children = (
        child.items
        if isinstance(child.value, list)
        else [v for _, v in child.value.values()]
        if isinstance(child.value, dict)
        else []
    )
    for item in children:
        yield from _descend(item, rest)


def entries(root: Node, rule: ConfigRule, symbols: dict[str, Symbol]) -> Iterator[Entry]:
    """The losses that ``rule`` finds below ``root``, also those that a merge key of YAML brings."""
    for holder in _descend(root, rule.path.split(".") if rule.path else []):
        name = holder.get(rule.name) or _merged(holder, rule.name)
        symbol = symbols.get(rule.names.get(str(name.value), "")) if name is not None else None
        if name is None or symbol is None:
            continue
        arguments = holder.get(rule.arguments) if rule.arguments else holder
        yield Entry(name, symbol, arguments, not rule.arguments, holder)


def _merged(holder: Node, name: str) -> Node | None:
    """The member ``name`` that a merge key of YAML brings into a mapping."""
    merged = holder.get(MERGE)
    for source in (merged, *merged.items) if merged is not None else ():
        found = source.get(name) or _merged(source, name)
        if found is not None:
            return found
    return None


MERGE = "<<"


@dataclass
class Conversion:
    """What becomes of an entry: why it stays, or the edits of its name and of its arguments."""

    entry: Entry
    problem: str = ""
    named: list[Edit] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    finding: Finding | None = None
    """What was said of its problem."""


class Converter:
    """Makes the edits of one configuration file."""

    def __init__(self, text: str, path: str, suffix: str, rules: Rules) -> None:
        self.text, self.path, self.suffix, self.rules = text, path, suffix, rules
        self.source = Source(text, path)
        self.result = Result()

    def run(self) -> Result:
        """Edits and findings.

        Raises:
            FileError: the file does not parse.
        """
        roots = tree(self.text, self.suffix)
        seen: set[tuple[int, int]] = set()
        made: list[Conversion] = []
        for rule in self.rules.catalog.configs:
            wanted = {
                s.old: s
                for s in self.rules.catalog.symbols
                if (not rule.system or s.system == rule.system) and self.rules.wanted(s)
            }
            for root in roots:
                for entry in entries(root, rule, wanted):
                    if (entry.holder.start, entry.name.start) not in seen:
                        seen.add((entry.holder.start, entry.name.start))
                        made += self._entry(entry, rule.name if entry.beside else "")
        self._finish(made)
        return self.result

    def _finish(self, made: list[Conversion]) -> None:
        """Take what can be done at once: a table that aliases share must become the same for all of them."""
        tables: dict[int, list[Conversion]] = {}
        for conversion in made:
            table = conversion.entry.arguments
            if table is not None:
                tables.setdefault(table.start, []).append(conversion)
        for sharing in tables.values():
            table = sharing[0].entry.arguments
            holders = {conversion.entry.holder.start for conversion in sharing}
            same = all(c.edits == sharing[0].edits and _news(c) == _news(sharing[0]) for c in sharing)
            alone = table is None or table is sharing[0].entry.holder or table.uses <= len(holders)
            if not (same and alone) and any(c.edits for c in sharing):
                for conversion in sharing:
                    conversion.problem = conversion.problem or "an alias shares its arguments with another place"
            elif any(c.problem for c in sharing):
                for conversion in sharing:
                    conversion.problem = conversion.problem or "an alias shares its arguments with one that stays"
        done: set[tuple[int, int, str]] = set()
        for conversion in made:
            symbol, old = conversion.entry.symbol, str(conversion.entry.name.value)
            if conversion.problem:
                at = conversion.entry.name if conversion.entry.own else conversion.entry.holder
                self._say(at, "left", "TL032", f"{old}: {conversion.problem}", symbol)
                conversion.finding = self.result.findings[-1]
                continue
            for edit in (*conversion.named, *conversion.edits):
                if (edit.start, edit.end, edit.new) not in done:
                    self.result.edits.append(edit)
            done |= {(edit.start, edit.end, edit.new) for edit in (*conversion.named, *conversion.edits)}
            if conversion.named or conversion.edits:
                self.result.symbols.add(self.rules.key(symbol))
            for note in conversion.notes:
                self._say(conversion.entry.name, "change", "TL012", note, symbol)

    def _say(self, node: Node, level: str, code: str, message: str, symbol: Symbol) -> None:
        line = self.source.line_of(node.start)
        column = node.start - self.source.line_start(node.start) + 1
        self.result.findings.append(Finding(self.path, line, column, code, level, message, symbol.name))

    def _entry(self, entry: Entry, name_key: str) -> list[Conversion]:
        if self.source.skipped(self.source.line_of(entry.name.start)):
            return []
        merged = isinstance(entry.holder.value, dict) and MERGE in entry.holder.value
        if merged and (entry.beside or not entry.own):
            return [Conversion(entry, f"a merge key ({MERGE}) brings a part of it; write it out")]
        members = (
            entry.arguments.value if entry.arguments is not None and isinstance(entry.arguments.value, dict) else {}
        )
        if MERGE in members and not entry.beside:
            return [Conversion(entry, f"a merge key ({MERGE}) brings a part of its arguments; write them out")]
        given = {k: v for k, v in members.items() if not (entry.beside and k == name_key)}
        given = {k: v for k, v in given.items() if not self._unrelated(entry, k)}
        problem, edits, notes = self._convert(entry, given)
        place = entry.name.start, entry.name.end
        named = [edit for edit in edits if (edit.start, edit.end) == place]
        return self._allowed(Conversion(entry, problem, named, [edit for edit in edits if edit not in named], notes))

    def _allowed(self, conversion: Conversion) -> list[Conversion]:
        """The conversion, unless its loss stays because of another place."""
        entry = conversion.entry
        if conversion.problem or self.rules.key(entry.symbol) not in self.rules.blocked:
            return [conversion]
        message = f"{entry.name.value} stays, because {entry.symbol.name} stays elsewhere"
        self._say(entry.name, "left", "TL043", message, entry.symbol)
        return []

    def _unrelated(self, entry: Entry, name: str) -> bool:
        """Whether a key beside the name is no argument."""
        return entry.beside and name not in entry.symbol.signature

    def _name(self, entry: Entry, case: Case, target: Target) -> str | None:
        """The new name, if there is one."""
        return None if target.twin else case.registry

    def _convert(self, entry: Entry, given: dict[str, tuple[Node, Node]]) -> tuple[str, list[Edit], list[str]]:
        symbol = entry.symbol
        values = {name: plain(node) for name, (_, node) in given.items() if name in symbol.selectors}
        unclear = next((name for name, value in values.items() if isinstance(value, str) and "${" in value), "")
        if unclear:
            return f"{unclear}: {values[unclear]} chooses the successor", [], []
        case = symbol.case_for(values)
        if case is None:
            return "no successor for these values", [], []
        target = self.rules.target(symbol, case)
        called = self._name(entry, case, target)
        if called is None:
            return f"{symbol.name} has no successor in the registry", [], []
        if target.twin:
            edit = Edit(entry.name.start, entry.name.end, self._scalar(called, entry.name))
            return "", [edit], [f"{entry.name.value} -> {called}"]
        unknown = [name for name in given if name not in case.arguments]
        new_names = {*case.pins, *(a.new_name for a in case.arguments.values())}
        if called == entry.name.value and new_names.issuperset(unknown):
            return "", [], []  # this entry was rewritten before
        if unknown:
            return f"the old loss has no argument {unknown[0]!r}: it was never applied, or raises today", [], []
        edits: list[Edit] = []
        notes = [f"{entry.name.value} -> {called}"] if called != entry.name.value else []
        if notes:
            edits.append(Edit(entry.name.start, entry.name.end, self._scalar(called, entry.name)))
        doomed: list[str] = []
        for name, (key, node) in given.items():
            argument = case.arguments[name]
            value = plain(node)
            if isinstance(value, str) and "${" in value and (argument.report or converts({name: argument})):
                return f"{name}: {value} cannot be converted", [], []
            if argument.report is not None and value != argument.default:
                return f"{name}: {argument.report}", [], []
            if argument.report is not None or argument.drop is not None:
                doomed.append(name)
                notes.append(f"dropped {name}")
                continue
            try:
                new = argument.convert(value)
            except Unconvertible as error:
                return str(error), [], []
            if new != value or type(new) is not type(value):
                if node.uses > 1:
                    return f"{name}: aliases share the value", [], []
                if new is None and self.suffix == ".toml":
                    return f"{name} becomes None, which TOML cannot say", [], []
                edits.append(Edit(node.start, node.end, self._scalar(new, node)))
            if argument.new_name != name:
                edits.append(Edit(key.start, key.end, self._key(argument.new_name, key)))
                notes.append(f"{name} -> {argument.new_name}")
        pins = self.rules.pins(case, case.arguments, given)
        if pins and (entry.arguments is None or not isinstance(entry.arguments.value, dict)):
            return f"it needs {', '.join(f'{k}={v!r}' for k, v in pins)}, but has no table of arguments", [], []
        if any(value is None for _, value in pins) and self.suffix == ".toml":
            return "it needs None for a default, which TOML cannot say", [], []
        notes += [f"pinned {k}={v!r}" for k, v in pins]
        edits += self._members(entry, given, doomed, pins)
        return "", edits, notes

    # -- spelling --------------------------------------------------------------------------------------------------

    def _scalar(self, value: Any, node: Node | None = None) -> str:
        return scalar(value, self.suffix, self.text[node.start : node.end] if node is not None else '""')

    def _key(self, name: str, key: Node) -> str:
        raw = self.text[key.start : key.end]
        head = raw.rpartition(".")[0] + "." if self.suffix == ".toml" and "." in raw and raw[:1] not in "'\"" else ""
        return f"{raw[0]}{name}{raw[0]}" if raw[:1] in "'\"" else f"{head}{name}"

    def _pair(self, name: str, value: Any) -> str:
        if self.suffix == ".json":
            return f'"{name}": {json.dumps(value)}'
        return f"{name} = {self._scalar(value)}" if self.suffix == ".toml" else f"{name}: {self._scalar(value)}"

    def _members(
        self, entry: Entry, given: dict[str, tuple[Node, Node]], doomed: list[str], pins: list[tuple[str, object]]
    ) -> list[Edit]:
        """Delete and add entries of the table of arguments."""
        table = entry.arguments
        if table is None or not (doomed or pins):
            return []
        pairs = [(key.start, node.end, name) for name, (key, node) in table.value.items()]
        pairs.sort()
        added = [self._pair(name, value) for name, value in pins]
        opening = self.text[table.start : table.start + 1]
        if opening == "{":
            return self._flow(table, pairs, doomed, added)
        edits = [Edit(self.source.line_start(s), self._next_line(e), "") for s, e, name in pairs if name in doomed]
        if added and not pairs:
            end = self.source.line_end(table.start)
            return [Edit(end, end, "".join(self.source.newline + text for text in added))]
        kept = [pair for pair in pairs if pair[2] not in doomed]
        anchor = max((p for p in kept if p[2] in given), default=max(kept, default=pairs[-1]))
        indent = " " * (anchor[0] - self.source.line_start(anchor[0]))
        if anchor[2] in doomed:
            place = self.source.line_start(pairs[0][0])
            return [Edit(place, place, "".join(f"{indent}{text}{self.source.newline}" for text in added)), *edits]
        if added:
            end = self.source.line_end(anchor[1])
            edits.append(Edit(end, end, "".join(f"{self.source.newline}{indent}{text}" for text in added)))
        return edits

    def _next_line(self, offset: int) -> int:
        end = self.source.line_end(offset)
        line = self.source.line_of(end)
        return self.source.starts[line] if line < len(self.source.starts) else len(self.text)

    def _flow(self, table: Node, pairs: list[tuple[int, int, str]], doomed: list[str], added: list[str]) -> list[Edit]:
        kept = [pair for pair in pairs if pair[2] not in doomed]
        edits = []
        for index, (start, end, name) in enumerate(pairs):
            if name not in doomed:
                continue
            if any(p[0] > start for p in kept):
                edits.append(Edit(start, pairs[index + 1][0], ""))
            elif kept:
                edits.append(Edit(pairs[index - 1][1], end, ""))
            else:
                edits.append(Edit(start, pairs[index + 1][0] if index + 1 < len(pairs) else end, ""))
        if added and kept:
            start, end, _ = kept[-1]
            glue = f",{self.source.newline}{self.source.indent(start)}" if self.source.starts_line(start) else ", "
            edits.append(Edit(end, end, "".join(glue + text for text in added)))
        elif added:
            at = pairs[0][0] if pairs else table.start + 1
            glue = f",{self.source.newline}{self.source.indent(at)}" if pairs and self.source.starts_line(at) else ", "
            edits.append(Edit(at, at, glue.join(added)))
        return edits


def _news(conversion: Conversion) -> list[str]:
    return [edit.new for edit in conversion.edits]


def scalar(value: Any, suffix: str, raw: str = "") -> str:
    """How a file spells ``value``, with the quotes of ``raw``, which stood there."""
    if isinstance(value, str):
        if raw[:1] in "'\"" and raw[:1]:
            quote = '"' if suffix == ".json" else raw[0]
            return f"{quote}{value}{quote}" if re.fullmatch(r"[\w .:@-]*", value) else json.dumps(value)
        bare = suffix in (".yaml", ".yml") and re.fullmatch(r"[A-Za-z][\w-]*(?:[.:][\w-]+)*", value) is not None
        return value if bare and value.lower() not in _YAML_WORDS else json.dumps(value)
    if isinstance(value, float) and suffix in (".yaml", ".yml") and "e" in repr(value):
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))
    return json.dumps(value)


_YAML_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def plain(node: Node) -> Any:
    """The value of a node without its places."""
    if isinstance(node.value, dict):
        return {name: plain(value) for name, (_, value) in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value
