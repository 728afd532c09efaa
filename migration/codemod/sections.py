"""Sections of configuration files that an old factory read, rewritten to what builds the same loss today.

A section such as ``{type: combined, vicreg_weight: 0.1}`` becomes a registry name and keyword arguments, as a form of
the catalog says. The text of each entry moves as it stands, with its comments. A section that has no exact counterpart
stays, since the new factory reads old sections as well.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..catalog import Argument, FactoryForm, FactoryRule, Symbol, Unconvertible
from . import yamltext
from .configs import Result, plain, scalar, tree
from .jsontext import Node
from .rules import Rules
from .text import Edit, Finding, Source, apply

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Readers = Callable[[Collection[str]], str]
"""Where the code reads one of these keys of a section (``file:line``), or an empty string."""

_GAP = re.compile(r"\s*,?\s*")


class _Stays(Exception):
    """The section cannot be rewritten; the message says why."""

    def __init__(self, message: str, code: str = "TL046") -> None:
        super().__init__(message)
        self.code = code


@dataclass
class _Entry:
    """An argument of the new form: an entry of the old section under another name, or a value that is written out."""

    value: Any
    old: str = ""
    changed: bool = False


@dataclass
class _Loss:
    """A loss of the new form, its arguments in order."""

    name: str
    arguments: dict[str, _Entry | _Loss] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """As the new factory reads it."""
        made = {k: v.data() if isinstance(v, _Loss) else v.value for k, v in self.arguments.items()}
        return {"name": self.name, "kwargs": made} if made else {"name": self.name}


# -- what it becomes ------------------------------------------------------------------------------------------------


def _checked(argument: Argument, key: str, value: Any, entries: Sequence[str] | None) -> Any:
    """The new value; the default says which kind of value the old factory could use.

    Raises:
        _Stays: another kind, or a value without a counterpart.
    """
    if entries is not None:
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise _Stays(f"{key}: expected a list of tables, found {value!r}")
        for item in value:
            for name, number in item.items():
                if name not in entries:
                    raise _Stays(f"{key}: {name!r} has no counterpart there")
                _require(f"{key}: {name}", number, float)
        return value
    if argument.map is None:
        _require(key, value, type(argument.default))
        return value
    try:
        return argument.convert(value)
    except Unconvertible as error:
        raise _Stays(str(error)) from error


def _require(key: str, value: Any, kind: type) -> None:
    parts = value if kind is float and isinstance(value, list) and value else [value]
    for part in parts:
        fits = isinstance(part, (int, float)) and not isinstance(part, bool) if kind is float else type(part) is kind
        if not fits:
            raise _Stays(f"{key} is {part!r}, not {'a number' if kind in (int, float) else 'true or false'}")


def _translate(section: Mapping[str, Any], form: FactoryForm, rule: FactoryRule, pins: bool) -> tuple[_Loss, set[str]]:
    """The new form of ``section``, and the keys that it no longer needs."""
    root = _Loss(form.new)
    holders = {"": root, **{part: _Loss(name) for part, name in form.parts.items()}}
    root.arguments.update((part, loss) for part, loss in holders.items() if part)
    dropped: set[str] = set()

    def put(name: str, entry: _Entry) -> None:
        part, _, leaf = name.rpartition(".")
        holders[part].arguments.setdefault(leaf, entry)

    for key, value in section.items():
        if key == rule.type:
            continue
        argument = form.case.arguments.get(key)
        if argument is None:
            raise _Stays(f"the old factory ignored {key!r}: remove it, or write the new form if it is to count")
        if argument.drop is None:
            new = _checked(argument, key, value, form.entries.get(key))
            if new is not None:
                put(argument.new_name, _Entry(new, key, new != value or type(new) is not type(value)))
                continue
        dropped.add(key)
    for name, value in form.pins.items() if pins else ():
        put(name, _Entry(value))
    return root, dropped


# -- the text of a section ------------------------------------------------------------------------------------------


def _end(node: Node) -> int:
    """Where the last scalar of a YAML node ends: the end of a block is that of the blanks and comments behind it."""
    if isinstance(node.value, dict) and node.value:
        return max(_end(value) for _, value in node.value.values())
    return max(map(_end, node.items)) if isinstance(node.value, list) and node.value else node.end


class _Writer:
    """Writes one section in the new form, in the layout of the old one."""

    def __init__(self, source: Source, suffix: str, section: Node, type_key: str) -> None:
        self.source, self.text, self.suffix = source, source.text, suffix
        self.section, self.type_key = section, type_key
        self.members = sorted(section.value.items(), key=lambda item: item[1][0].start)
        following = [*(key.start for _, (key, _) in self.members[1:]), len(self.text)]
        for (_, (key, value)), after in zip(self.members, following, strict=True):
            if not key.end <= value.start <= after:
                raise _Stays("a value stands elsewhere (an alias)")

    def edits(self, loss: _Loss, dropped: Collection[str]) -> list[Edit]:
        if self.suffix == ".toml":
            return list(self._toml(loss, dropped))
        if self.text[self.section.start] == "{":
            return [self._braces(loss)]
        return [self._block(loss, dropped)]

    def _renamed(self, old: str, new: str, value: Any, changed: bool, start: int, end: int) -> str:
        """``text[start:end]``, which has the entry ``old``, with its new name and value."""
        key, node = self.section.value[old]
        edits = [Edit(key.start - start, key.end - start, self._key(new, key))]
        raw = self.text[node.start : node.end]
        if changed or (isinstance(value, bool) and yamltext.OLD_BOOLEAN.fullmatch(raw)):
            if raw[:1] in "&*!":
                raise _Stays(f"{old}: an anchor or a tag stands before the value")
            edits.append(Edit(node.start - start, node.end - start, scalar(value, self.suffix, raw)))
        return apply(self.text[start:end], edits)

    def _key(self, name: str, key: Node) -> str:
        quote = self.text[key.start]
        return f"{quote}{name}{quote}" if quote in "'\"" and self.suffix != ".toml" else name

    # YAML in block style: lines

    def _block(self, loss: _Loss, dropped: Collection[str]) -> Edit:
        starts: list[int] = []
        ends: list[int] = []
        first = self.members[0][1][0].start
        if not self.source.starts_line(first):
            raise _Stays("the section begins in the middle of a line")
        for position, (_, (_, value)) in enumerate(self.members):
            starts.append(ends[-1] if position else self._above(first))
            ends.append(min(self.source.line_end(_end(value)) + len(self.source.newline), len(self.text)))
        self.chunks = {name: self.text[s:e] for (name, _), s, e in zip(self.members, starts, ends, strict=True)}
        self.spans = {name: (s, e) for (name, _), s, e in zip(self.members, starts, ends, strict=True)}
        self.indent = self.source.indent(first)
        outside = self.text[: self.source.line_start(first)].rstrip().rpartition("\n")[2] if self.indent else ""
        step = len(self.indent) - (len(outside) - len(outside.lstrip()))
        self.step = step if 0 < step <= 8 else 2
        start, end = self.spans[self.type_key]
        head = self._renamed(self.type_key, "name", loss.name, True, start, end)
        lines = [self._ended(head), *(self._comments(name) for name in self.chunks if name in dropped)]
        lines += self._arguments(loss, len(self.indent))
        text = "".join(lines)
        return Edit(starts[0], ends[-1], text if self.text[: ends[-1]].endswith(("\n", "\r")) else text.rstrip("\r\n"))

    def _above(self, first: int) -> int:
        """Where the comments of the first entry begin; those at the top of a file are the file's."""
        start = self.source.line_start(first)
        indent = self.source.indent(first)
        while indent and start and self.text.startswith(f"{indent}#", self.source.line_start(start - 1)):
            start = self.source.line_start(start - 1)
        return start

    def _ended(self, text: str) -> str:
        return text if text.endswith(("\n", "\r")) else text + self.source.newline

    def _comments(self, name: str) -> str:
        """The comments of an entry that goes."""
        key, value = self.section.value[name]
        start, end = self.spans[name]
        before, after = self.text[start : self.source.line_start(key.start)], self.text[_end(value) : end].strip()
        return before + (f"{self.indent}{after}{self.source.newline}" if after else "")

    def _arguments(self, loss: _Loss, indent: int) -> Iterator[str]:
        if loss.arguments:
            yield f"{' ' * indent}kwargs:{self.source.newline}"
        inner = indent + self.step
        for name, entry in loss.arguments.items():
            if isinstance(entry, _Loss):
                yield f"{' ' * inner}{name}:{self.source.newline}"
                yield f"{' ' * (inner + self.step)}name: {entry.name}{self.source.newline}"
                yield from self._arguments(entry, inner + self.step)
            elif entry.old:
                text = self._renamed(entry.old, name, entry.value, entry.changed, *self.spans[entry.old])
                shift = " " * (inner - len(self.indent))
                lines = self._ended(text).splitlines(keepends=True)
                yield "".join(shift + line if line.strip() else line for line in lines)
            else:
                yield f"{' ' * inner}{name}: {scalar(entry.value, self.suffix)}{self.source.newline}"

    # JSON, and YAML between braces

    def _braces(self, loss: _Loss) -> Edit:
        first, last = self.members[0][1][0].start, self.members[-1][1][1].end
        ends = [value.end for _, (_, value) in self.members]
        gaps = [self.text[e : m[1][0].start] for e, m in zip(ends, self.members[1:], strict=False)]
        gaps += [self.text[self.section.start + 1 : first], self.text[last : self.section.end - 1]]
        if not all(_GAP.fullmatch(gap) for gap in gaps):
            raise _Stays("comments stand between the braces")
        lines = self.source.starts_line(first)
        self.indent = self.source.indent(first) if lines else ""
        step = len(self.indent) - len(self.source.indent(self.section.end - 1)) if lines else 0
        self.step = step if step > 0 else 2
        body = self._braced(loss, len(self.indent), lines)
        return Edit(first, last, body.strip())

    def _braced(self, loss: _Loss, indent: int, lines: bool) -> str:
        """The members, without the braces."""
        quote = '"' if self.suffix == ".json" else ""
        key, value = self.section.value[self.type_key]
        if indent == len(self.indent):
            made = [self._renamed(self.type_key, "name", loss.name, True, key.start, value.end)]
        else:
            made = [f"{quote}name{quote}: {quote}{loss.name}{quote}"]
        if loss.arguments:
            inner = indent + self.step
            made.append(f"{quote}kwargs{quote}: {self._in_braces(self._listed(loss, inner, lines), indent, lines)}")
        return self._joined(made, indent, lines)

    def _listed(self, loss: _Loss, indent: int, lines: bool) -> str:
        quote = '"' if self.suffix == ".json" else ""
        made = []
        for name, entry in loss.arguments.items():
            if isinstance(entry, _Loss):
                inside = self._braced(entry, indent + self.step, lines)
                made.append(f"{quote}{name}{quote}: {self._in_braces(inside, indent, lines)}")
            elif entry.old:
                key, node = self.section.value[entry.old]
                text = self._renamed(entry.old, name, entry.value, entry.changed, key.start, node.end)
                shift = " " * (indent - len(self.indent))
                made.append(
                    "\n".join([p if i == 0 or not lines else shift + p for i, p in enumerate(text.split("\n"))])
                )
            else:
                made.append(f"{quote}{name}{quote}: {scalar(entry.value, self.suffix)}")
        return self._joined(made, indent, lines)

    def _joined(self, made: Sequence[str], indent: int, lines: bool) -> str:
        return (f",{self.source.newline}{' ' * indent}" if lines else ", ").join(made)

    def _in_braces(self, body: str, indent: int, lines: bool) -> str:
        if not lines:
            return f"{{{body}}}"
        newline = self.source.newline
        return f"{{{newline}{' ' * (indent + self.step)}{body}{newline}{' ' * indent}}}"

    # TOML: dotted keys, so that every line stays where it is

    def _toml(self, loss: _Loss, dropped: Collection[str]) -> Iterator[Edit]:
        for _, (key, value) in self.members:
            if not re.fullmatch(r"[ \t]*=[ \t]*", self.text[key.end : value.start]):
                raise _Stays("a table stands in the section")
        inline = self.text[self.section.start] == "{" and bool(self.section.start)
        key, value = self.section.value[self.type_key]
        yield Edit(key.start, value.end, self._renamed(self.type_key, "name", loss.name, True, key.start, value.end))
        kept = [member for member in self.members if member[0] not in dropped]
        last = kept[-1][1][1].end
        for position, (name, (key, value)) in enumerate(self.members):
            if name not in dropped:
                continue
            if not inline:
                rest = self.text[value.end : self.source.line_end(value.end)].strip()
                start, end = self.source.line_start(key.start), self.source.line_end(value.end)
                yield Edit(start, end if rest else min(end + len(self.source.newline), len(self.text)), rest)
            elif key.start < last:
                yield Edit(key.start, self.members[position + 1][1][0].start, "")
            elif self.members[position - 1] is kept[-1]:
                yield Edit(last, self.members[-1][1][1].end, "")
        added: list[str] = []
        for path, entry in self._dotted(loss, "kwargs"):
            if entry.old:
                key, value = self.section.value[entry.old]
                text = self._renamed(entry.old, path, entry.value, entry.changed, key.start, value.end)
                yield Edit(key.start, value.end, text)
            else:
                added.append(f"{path} = {scalar(entry.value, self.suffix)}")
        if inline:
            yield Edit(last, last, "".join(f", {text}" for text in added))
        else:
            # behind the last entry that is kept: the line of another may go
            end, indent = self.source.line_end(last), self.source.indent(self.members[-1][1][0].start)
            yield Edit(end, end, "".join(f"{self.source.newline}{indent}{text}" for text in added))

    def _dotted(self, loss: _Loss, path: str) -> Iterator[tuple[str, _Entry]]:
        for name, entry in loss.arguments.items():
            if isinstance(entry, _Loss):
                yield f"{path}.{name}.name", _Entry(entry.name)
                yield from self._dotted(entry, f"{path}.{name}.kwargs")
            else:
                yield f"{path}.{name}", entry


# -- files ----------------------------------------------------------------------------------------------------------


def load(text: str, suffix: str) -> list[Any]:
    """The documents of a file as plain data."""
    if suffix == ".json":
        return [json.loads(text)]
    return [tomllib.loads(text)] if suffix == ".toml" else list(yamltext.reader().load_all(text))


def _inside(data: Any, path: str) -> Any:
    for step in filter(None, path.split(".")):
        data = data.get(step) if isinstance(data, dict) else None
    return data


class Sections:
    """Rewrites the sections of one file that the used factories read."""

    def __init__(self, text: str, path: str, suffix: str, rules: Rules, used: Collection[str], reads: Readers) -> None:
        self.text, self.path, self.suffix, self.rules = text, path, suffix, rules
        self.used, self.reads = used, reads
        self.source = Source(text, path)

    def run(self) -> Result:
        """Edits and findings.

        Raises:
            FileError: the file does not parse.
        """
        result = Result()
        text = self.text.lower()
        for rule in self.rules.catalog.factories:
            symbol = next(s for s in self.rules.catalog.symbols if (s.system, s.old) == (rule.system, rule.factory))
            usable = self.rules.wanted(symbol) and self.rules.key(symbol) in self.used
            if not usable or self.rules.only_twin(symbol) or not any(word.lower() in text for word in rule.words):
                continue
            for index, root in enumerate(tree(self.text, self.suffix)):
                found = self._find(root, rule)
                if found is not None:
                    self._section(index, root, *found, rule, symbol, result)
        return result

    def _find(self, root: Node, rule: FactoryRule) -> tuple[str, Node, FactoryForm] | None:
        for path in rule.sections:
            node: Node | None = root
            for step in filter(None, path.split(".")):
                node = node.get(step) if node is not None else None
            if node is None:
                continue
            kind = node.get(rule.type) if isinstance(node.value, dict) else None
            if kind is None or not isinstance(kind.value, str):
                return None
            if not path and not set(rule.marks).intersection(node.value):
                return None
            data = plain(node)
            for form in rule.forms:
                defaults = {name: argument.default for name, argument in form.case.arguments.items()}
                if kind.value.lower() in form.types and form.case.holds({**defaults, **data}):
                    return path, node, form
            return None
        return None

    def _section(
        self,
        index: int,
        root: Node,
        path: str,
        node: Node,
        form: FactoryForm,
        rule: FactoryRule,
        symbol: Symbol,
        result: Result,
    ) -> None:
        place, kind = node.value[rule.type]
        if self.source.skipped(self.source.line_of(place.start)):
            return

        def say(level: str, code: str, message: str) -> None:
            line = self.source.line_of(place.start)
            column = place.start - self.source.line_start(place.start) + 1
            result.findings.append(Finding(self.path, line, column, code, level, message, symbol.name))

        where = path or "the file"
        if self.rules.key(symbol) in self.rules.blocked:
            say("left", "TL043", f"{where} stays, because {symbol.name} stays elsewhere")
            return
        try:
            loss, dropped, edits = self._rewrite(index, root, path, node, form, rule)
        except _Stays as error:
            say("left", error.code, f"{where}, type {kind.value}: {error}")
            return
        result.edits += edits
        result.symbols.add(self.rules.key(symbol))
        say("change", "TL012", f"{where}: {rule.type} {kind.value} -> {loss.name} with keyword arguments")
        for key in sorted(dropped):
            say("change", "TL012", f"dropped {key}")

    def _rewrite(
        self, index: int, root: Node, path: str, node: Node, form: FactoryForm, rule: FactoryRule
    ) -> tuple[_Loss, set[str], list[Edit]]:
        whole = plain(root)
        for key in rule.partial:
            if key in whole or key in node.value:
                raise _Stays(f"{key!r}: the file is completed by others")
        own = [key for key in node.value if key != rule.type]
        seen = self.reads([key for key in own if key in rule.marks])
        if seen:
            raise _Stays(f"{seen} reads its keys", "TL047")
        section = {key: value for key, value in plain(node).items() if path or key not in self._tables(rule)}
        outer = self._outer(whole, section, rule, form)
        loss, dropped = _translate({**section, **outer}, form, rule, self.rules.numbers != "new")
        for entry in _entries(loss):
            if entry.old in outer:
                entry.old = ""
        members = {key: value for key, value in node.value.items() if key in section}
        writer = _Writer(self.source, self.suffix, Node(node.start, node.end, members), rule.type)
        edits = writer.edits(loss, dropped.difference(outer))
        self._verify(index, path, edits, loss.data(), section)
        return loss, dropped, edits

    @staticmethod
    def _tables(rule: FactoryRule) -> set[str]:
        """Top-level keys that the factory read beside a section that is the whole file."""
        return {place.partition(".")[0] for place in rule.outer.values()}

    def _outer(
        self, whole: dict[str, Any], section: dict[str, Any], rule: FactoryRule, form: FactoryForm
    ) -> dict[str, Any]:
        """Keys that the factory took from elsewhere in the file; they won over the section's."""
        found = {}
        for key, place in rule.outer.items():
            value = _inside(whole, place)
            argument = form.case.arguments.get(key)
            if value is None or argument is None or argument.drop is not None:
                continue
            if section.get(key, value) != value:
                raise _Stays(f"{key} is {section[key]!r} here, and {place} is {value!r}, which counted")
            if key not in section:
                found[key] = value
        return found

    def _verify(self, index: int, path: str, edits: list[Edit], new: dict[str, Any], section: dict[str, Any]) -> None:
        """The file must hold what it held, with the new section."""
        try:
            wanted = load(self.text, self.suffix)
            got = load(apply(self.text, edits), self.suffix)
        except (ValueError, yamltext.YAMLError) as error:
            raise _Stays(f"the layout is not understood ({str(error).splitlines()[0]})") from error
        if path:
            parent, _, leaf = path.rpartition(".")
            _inside(wanted[index], parent)[leaf] = new
        else:
            wanted[index] = {**{k: v for k, v in wanted[index].items() if k not in section}, **new}
        if _canonical(got) != _canonical(wanted):
            raise _Stays("the layout is not understood")


def _entries(loss: _Loss) -> Iterator[_Entry]:
    for entry in loss.arguments.values():
        if isinstance(entry, _Loss):
            yield from _entries(entry)
        else:
            yield entry


def _canonical(data: Any) -> str:
    """The same for equal data, with 1 and 1.0 apart."""
    return json.dumps(data, sort_keys=True, default=repr)
