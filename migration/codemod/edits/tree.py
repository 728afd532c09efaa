"""Edits the tree of one text: all kinds of edits in one walk, then the lines that became too long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import libcst as cst

from ..errors import FileError
from .base import Editor, Together, Wanted, editors, positions
from .kinds.calls import broken
from .requests import Request

_NEWER = (3, 12)
_PASSES = 50


def edited(text: str, requests: Iterable[Request], width: int, target: tuple[int, int]) -> str:
    """``text`` after its edits.

    Raises:
        FileError: libcst does not read it, or the result would be wrong.
    """
    module = _parsed(text)
    wanted = Wanted(module, text, requests)
    new = transformed(module, wanted, editors(), width)
    if any(wanted.quotes.values()) and target < _NEWER and _old_strings(module) and not _old_strings(new):
        raise FileError("TL095", "no quotes are left for an argument inside this f-string before Python 3.12")
    return new.code


def transformed(module: cst.Module, wanted: Wanted, kinds: Sequence[type[Editor]], width: int) -> cst.Module:
    """The tree after some kinds of edits."""
    new = module.visit(Together([kind(wanted) for kind in kinds], wanted))
    assert isinstance(new, cst.Module)
    return _shortened(new, wanted.changed, width) if wanted.changed else new


def _parsed(text: str) -> cst.Module:
    try:
        module = cst.parse_module(text)
    except cst.ParserSyntaxError as error:
        raise FileError("TL090", f"libcst does not read it: {error.message}") from error
    if module.code != text:
        raise FileError("TL095", "libcst would change the text elsewhere")
    return module


# -- long lines -----------------------------------------------------------------------------------------------------


def _shortened(module: cst.Module, calls: list[cst.Call], width: int) -> cst.Module:
    """Put the arguments of changed calls on lines of their own where the line became too long, outer calls first."""
    for _ in range(_PASSES):
        text = module.code
        lines = text.split("\n")
        if max(map(len, lines)) <= width:
            break
        call, indent = next(_long(module, calls, lines, width), (None, ""))
        if call is None:
            break
        replacer = _Replacer(call, broken(call, indent), calls)
        new = module.visit(replacer)
        assert isinstance(new, cst.Module)
        module, calls = new, replacer.calls
    return module


def _long(
    module: cst.Module, calls: Sequence[cst.Call], lines: Sequence[str], width: int
) -> Iterator[tuple[cst.Call, str]]:
    places = positions(module)
    found = [(places[call], call) for call in calls if call in places]
    # of two calls that begin at one place, as in f(a)(b), the first one is shorter
    for place, call in sorted(found, key=lambda one: (one[0].start.line, one[0].start.column, -one[0].end.column)):
        line = lines[place.start.line - 1]
        single = place.start.line == place.end.line and bool(call.args)
        shorter = places[call.func].end.column < width < len(line)
        # what follows a semicolon may be the rest of a magic of a notebook, which is one line
        if single and shorter and ";" not in line[: place.start.column]:
            yield call, line[: len(line) - len(line.lstrip())]


class _Replacer(cst.CSTTransformer):
    """Replaces one call, and keeps account of what becomes of the others."""

    def __init__(self, old: cst.Call, new: cst.Call, calls: Sequence[cst.Call]) -> None:
        super().__init__()
        self.old, self.new = old, new
        self.known = {id(call): call for call in calls if call is not old}

    @property
    def calls(self) -> list[cst.Call]:
        """The other calls as they are in the new tree."""
        return list(self.known.values())

    def on_visit(self, node: cst.CSTNode) -> bool:
        return node is not self.old

    def on_leave(self, original_node: cst.CSTNodeT, updated_node: cst.CSTNodeT) -> cst.CSTNodeT:
        if original_node is self.old:
            return self.new  # type: ignore[return-value]  # a call for a call
        if id(original_node) in self.known and isinstance(updated_node, cst.Call):
            self.known[id(original_node)] = updated_node
        return updated_node


# -- f-strings ------------------------------------------------------------------------------------------------------


def _old_strings(module: cst.Module) -> bool:
    """Whether Python before 3.12 reads the f-strings: no quotes of theirs, backslash or comment inside their fields."""
    todo: list[cst.CSTNode] = [module]
    while todo:
        node = todo.pop()
        if isinstance(node, cst.FormattedString):
            for part in node.parts:
                if isinstance(part, cst.FormattedStringExpression):
                    code = module.code_for_node(part)
                    if node.quote in code or "\\" in code or "#" in code or (len(node.quote) == 1 and "\n" in code):
                        return False
        todo += node.children
    return True
