"""What is asked of an edit: data without libcst, so that deciding needs none.

A request names the node that it is for by the offsets of its text, parentheses around it not counted, as ``ast`` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Request:
    """Something to do to the node at ``start`` .. ``end``; ``nodes`` are the types of libcst that it may have."""

    nodes: ClassVar[tuple[str, ...]] = ()
    start: int
    end: int


@dataclass(frozen=True)
class New:
    """One name that a rewritten import binds. ``module`` is empty in ``import a.b``."""

    module: str
    name: str
    asname: str | None = None

    @property
    def text(self) -> str:
        return f"{self.name} as {self.asname}" if self.asname and self.asname != self.name else self.name


@dataclass(frozen=True)
class Import(Request):
    """Alias ``i`` of an import statement becomes ``outputs[i]``; those that are not named stay."""

    nodes = ("Import", "ImportFrom")
    outputs: tuple[tuple[int, tuple[New, ...]], ...]


@dataclass(frozen=True)
class Name(Request):
    """An expression becomes the expression ``new``."""

    nodes = ("Name", "Attribute", "Call")
    new: str


@dataclass(frozen=True)
class Member(Request):
    """The last name of an attribute becomes ``new``."""

    nodes = ("Attribute",)
    new: str


@dataclass(frozen=True)
class Argument:
    """What becomes of the argument at a place (in the order of the text)."""

    place: int
    drop: bool = False
    keyword: str = ""
    """A new name."""
    value: str = ""
    """A new value."""
    invert: bool = False
    scale: str = ""
    """A factor."""


@dataclass(frozen=True)
class Call(Request):
    """Arguments of a call change, go and come (name and value)."""

    nodes = ("Call",)
    arguments: tuple[Argument, ...] = ()
    added: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.arguments or self.added)


@dataclass(frozen=True)
class Key(Request):
    """A string becomes the string ``new``, in the quotes that it has."""

    nodes = ("SimpleString", "ConcatenatedString")
    new: str


@dataclass(frozen=True)
class Flatten(Request):
    """``result["a"]["b"]`` becomes ``result["a"]``, whose key is another request."""

    nodes = ("Subscript",)


@dataclass(frozen=True)
class Take(Request):
    """A call becomes ``call.attribute``."""

    nodes = ("Call",)
    attribute: str


@dataclass(frozen=True)
class Text(Request):
    """``old`` inside a string becomes ``new``: the first place, or (``words``) each where it is a word."""

    nodes = ("SimpleString", "ConcatenatedString")
    old: str
    new: str
    words: bool = False
