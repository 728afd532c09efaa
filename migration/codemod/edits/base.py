"""What all kinds of edits share: which request belongs to which node, and the walk that serves them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, TypeVar

import libcst as cst
from libcst.metadata import CodePosition, CodeRange, MetadataWrapper, PositionProvider

from ..errors import FileError
from . import kinds
from .requests import Request

R = TypeVar("R", bound=Request)
E = TypeVar("E", bound="type[Editor]")
_BOUNDED = (cst.BaseExpression, cst.BaseStatement, cst.BaseSmallStatement)
"""What is in these nodes is in their places; the one of a parameter is its name, the one of a definition has no
decorators."""
Places = Mapping[cst.CSTNode, CodeRange]


class Wanted:
    """The requests of a module by the nodes that they are for.

    Args:
        module: the tree.
        text: what it was made of.
        requests: what is to be done; offsets are those of the text of the module.
        shift: what is to be taken from the offsets of the requests.

    Raises:
        FileError: a request is for no node.
    """

    def __init__(self, module: cst.Module, text: str, requests: Iterable[Request], shift: int = 0) -> None:
        self.module = module
        self.places = positions(module)
        self.starts = line_starts(text)
        self.open: dict[tuple[int, int], list[Request]] = {}
        for request in dict.fromkeys(requests):
            self.open.setdefault((request.start - shift, request.end - shift), []).append(request)
        self.found: dict[int, list[Request]] = {}
        self.path: set[int] = set()
        self.quotes: dict[int, str] = {}
        """Quotes of the f-strings around a node."""
        self.changed: list[cst.Call] = []
        """Calls that became longer."""
        self._match(module, "")
        if self.open:
            at = min(start for start, _ in self.open)
            raise FileError("TL095", f"no node of libcst at offset {at + shift}")

    def of(self, node: cst.CSTNode, kind: type[R]) -> list[R]:
        """The requests of a kind for a node of the tree."""
        return [request for request in self.found.get(id(node), ()) if isinstance(request, kind)]

    def _span(self, node: cst.CSTNode) -> tuple[int, int] | None:
        place = self.places.get(node)
        if place is None:
            return None
        return self._offset(place.start), self._offset(place.end)

    def _offset(self, at: CodePosition) -> int:
        # without a newline at its end, a module ends on a line that there is not
        return self.starts[at.line - 1] + at.column if at.line <= len(self.starts) else self.starts[-1]

    def _match(self, node: cst.CSTNode, quotes: str) -> bool:
        """Find the requests for ``node`` and what is in it; whether there were any."""
        span = self._span(node)
        bounded = isinstance(node, _BOUNDED) and not getattr(node, "decorators", ())
        if span and bounded and not any(span[0] <= start and end <= span[1] for start, end in self.open):
            return False
        hit = self._take(node, span, quotes) if span is not None else False
        if isinstance(node, cst.FormattedString):
            quotes += node.quote
        for child in node.children if self.open else ():
            hit = self._match(child, quotes) or hit
        if hit:
            self.path.add(id(node))
        return hit

    def _take(self, node: cst.CSTNode, span: tuple[int, int], quotes: str) -> bool:
        asked = self.open.get(span, [])
        mine = [request for request in asked if type(node).__name__ in request.nodes]
        if not mine:
            return False
        self.found[id(node)] = mine
        self.quotes[id(node)] = quotes
        rest = [request for request in asked if request not in mine]
        if rest:
            self.open[span] = rest
        else:
            del self.open[span]
        return True


class Editor(cst.CSTTransformer):
    """One kind of edit: does what is asked of the nodes of a tree."""

    order: ClassVar[int] = 0
    """Editors of one node work in this order."""
    serves: ClassVar[tuple[type[Request], ...]] = ()
    """The requests that it knows."""

    def __init__(self, wanted: Wanted) -> None:
        super().__init__()
        self.wanted = wanted


_EDITORS: list[type[Editor]] = []


def register(editor: E) -> E:
    """Class decorator: the kind of edit takes part in all runs."""
    _EDITORS.append(editor)
    _EDITORS.sort(key=lambda one: one.order)
    return editor


def editors() -> Sequence[type[Editor]]:
    """All kinds of edits: every file of ``kinds`` registers its own."""
    for module in pkgutil.iter_modules(kinds.__path__):
        importlib.import_module(f"{kinds.__name__}.{module.name}")
    return tuple(_EDITORS)


class Together(cst.CSTTransformer):
    """Several kinds of edits in one walk, which leaves out what nothing is asked of."""

    def __init__(self, parts: Sequence[Editor], wanted: Wanted) -> None:
        super().__init__()
        self.parts, self.wanted = parts, wanted

    def on_visit(self, node: cst.CSTNode) -> bool:
        return id(node) in self.wanted.path

    def on_leave(
        self, original_node: cst.CSTNodeT, updated_node: cst.CSTNodeT
    ) -> cst.CSTNodeT | cst.RemovalSentinel | cst.FlattenSentinel[cst.CSTNodeT]:
        if id(original_node) not in self.wanted.path:
            return updated_node
        for part in self.parts:
            changed = part.on_leave(original_node, updated_node)
            if not isinstance(changed, cst.CSTNode):
                return changed
            updated_node = changed
        return updated_node


def positions(module: cst.Module) -> Places:
    """Where each node of a tree stands."""
    found: Places = MetadataWrapper(module, unsafe_skip_copy=True).resolve(PositionProvider)
    return found


def line_starts(text: str) -> list[int]:
    """Offsets of the lines of a text with ``\\n`` only, or as libcst counts them."""
    from ..text import NEWLINE

    return [0, *(match.end() for match in NEWLINE.finditer(text))]


def expression(text: str, old: cst.BaseExpression | None = None) -> cst.BaseExpression:
    """The expression that ``text`` is, in the parentheses of ``old``."""
    made = cst.parse_expression(text)
    if old is None or not old.lpar:
        return made
    return made.with_changes(lpar=[*old.lpar, *made.lpar], rpar=[*made.rpar, *old.rpar])


def newline_in(space: cst.BaseParenthesizableWhitespace) -> bool:
    """Whether white space inside brackets ends a line."""
    return isinstance(space, cst.ParenthesizedWhitespace)
