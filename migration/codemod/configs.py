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

from ..catalog import ConfigRule, Symbol, Unconvertible
from .errors import FileError
from .jsontext import Node, parse_json
from .rules import Rules
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


def _yaml(text: str) -> list[Node]:
    from . import yamltext

    reader = yamltext.reader()

    def convert(node: yamltext.Node) -> Node:
        start, end = node.start_mark.index, node.end_mark.index
        if isinstance(node, yamltext.MappingNode):
            members: dict[str, tuple[Node, Node]] = {}
            for key, value in node.value:
                if isinstance(key, yamltext.ScalarNode):
                    members[str(key.value)] = (convert(key), convert(value))
            made = Node(start, end, members)
        elif isinstance(node, yamltext.SequenceNode):
            made = Node(start, end, [convert(item) for item in node.value])
        else:
            return Node(start, end, yamltext.value(reader, node))
        if not node.flow_style:
            made.end = start + len(text[start:end].rstrip())
        return made

    try:
        return [convert(node) for node in reader.compose_all(text) if node is not None]
    except yamltext.YAMLError as error:
        raise ValueError(str(error)) from error


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
    """The losses that ``rule`` finds below ``root``."""
    for holder in _descend(root, rule.path.split(".") if rule.path else []):
        name = holder.get(rule.name)
        symbol = symbols.get(rule.names.get(str(name.value), "")) if name is not None else None
        if name is None or symbol is None:
            continue
        arguments = holder.get(rule.arguments) if rule.arguments else holder
        yield Entry(name, symbol, arguments, not rule.arguments, holder)


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
        seen: set[int] = set()
        for rule in self.rules.catalog.configs:
            wanted = {
                s.old: s
                for s in self.rules.catalog.symbols
                if (not rule.system or s.system == rule.system) and self.rules.wanted(s)
            }
            for root in roots:
                for entry in entries(root, rule, wanted):
                    if entry.name.start not in seen:
                        seen.add(entry.name.start)
                        self._entry(entry, rule)
        return self.result

    def _say(self, node: Node, level: str, code: str, message: str, symbol: Symbol) -> None:
        line = self.source.line_of(node.start)
        column = node.start - self.source.line_start(node.start) + 1
        self.result.findings.append(Finding(self.path, line, column, code, level, message, symbol.name))

    def _entry(self, entry: Entry, rule: ConfigRule) -> None:
        symbol, old = entry.symbol, str(entry.name.value)
        if self.source.skipped(self.source.line_of(entry.name.start)):
            return
        if self.rules.key(symbol) in self.rules.blocked:
            self._say(entry.name, "left", "TL043", f"{old} stays, because {symbol.name} stays elsewhere", symbol)
            return
        members = (
            entry.arguments.value if entry.arguments is not None and isinstance(entry.arguments.value, dict) else {}
        )
        given = {k: v for k, v in members.items() if not (entry.beside and k == rule.name)}
        if entry.beside:
            given = {k: v for k, v in given.items() if k in symbol.signature}
        problem, edits, notes = self._convert(entry, given)
        if problem:
            self._say(entry.name, "left", "TL032", f"{old}: {problem}", symbol)
            return
        self.result.edits += edits
        if edits:
            self.result.symbols.add(self.rules.key(symbol))
            for note in notes:
                self._say(entry.name, "change", "TL012", note, symbol)

    def _convert(self, entry: Entry, given: dict[str, tuple[Node, Node]]) -> tuple[str, list[Edit], list[str]]:
        symbol = entry.symbol
        values = {name: plain(node) for name, (_, node) in given.items() if name in symbol.selectors}
        case = symbol.case_for(values)
        if case is None:
            return "no successor for these values", [], []
        target = self.rules.target(symbol, case)
        if target.twin or case.registry is None:
            return f"{symbol.name} has no successor in the registry", [], []
        unknown = [name for name in given if name not in case.arguments]
        new_names = {*case.pins, *(a.new_name for a in case.arguments.values())}
        if case.registry == entry.name.value and new_names.issuperset(unknown):
            return "", [], []  # this entry was rewritten before
        if unknown:
            return f"the old loss has no argument {unknown[0]!r}: it was never applied, or raises today", [], []
        edits: list[Edit] = []
        notes = [f"{entry.name.value} -> {case.registry}"] if case.registry != entry.name.value else []
        if notes:
            edits.append(Edit(entry.name.start, entry.name.end, self._scalar(case.registry, entry.name)))
        doomed: list[str] = []
        for name, (key, node) in given.items():
            argument = case.arguments[name]
            value = plain(node)
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


def scalar(value: Any, suffix: str, raw: str = "") -> str:
    """How a file spells ``value``, with the quotes of ``raw``, which stood there."""
    if isinstance(value, str):
        if raw[:1] in "'\"" and raw[:1]:
            quote = '"' if suffix == ".json" else raw[0]
            return f"{quote}{value}{quote}" if re.fullmatch(r"[\w .@-]*", value) else json.dumps(value)
        bare = suffix in (".yaml", ".yml") and re.fullmatch(r"[A-Za-z][\w-]*", value) is not None
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
