"""A JSON text as a tree that knows where each value stands, so that single strings can be replaced."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.S)
_SCALAR = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null|NaN|-?Infinity")


@dataclass
class Node:
    """A value with its place; ``value`` is a scalar, a list of nodes, or a dict of (key node, node)."""

    start: int
    end: int
    value: Any
    uses: int = 1
    """How often the file refers to it (aliases of YAML)."""

    def get(self, key: str) -> Node | None:
        """The member ``key`` of an object."""
        found = self.value.get(key) if isinstance(self.value, dict) else None
        return found[1] if found else None

    @property
    def items(self) -> list[Node]:
        """The elements of an array."""
        return self.value if isinstance(self.value, list) else []


def parse_json(text: str) -> Node:
    """The tree of ``text``.

    Raises:
        ValueError: it is not JSON.
    """
    node, position = _value(text, _skip(text, 0))
    if _skip(text, position) != len(text):
        raise ValueError(f"unexpected text at offset {position}")
    return node


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _string(text: str, position: int) -> tuple[Node, int]:
    match = _STRING.match(text, position)
    if match is None:
        raise ValueError(f"expected a string at offset {position}")
    return Node(position, match.end(), json.loads(match.group(), strict=False)), match.end()


def _value(text: str, position: int) -> tuple[Node, int]:
    start = position
    opening = text[position : position + 1]
    if opening == '"':
        return _string(text, position)
    if opening in ("{", "["):
        closing = "}" if opening == "{" else "]"
        members: dict[str, tuple[Node, Node]] = {}
        elements: list[Node] = []
        position = _skip(text, position + 1)
        while text[position : position + 1] != closing:
            if members or elements:
                if text[position : position + 1] != ",":
                    raise ValueError(f"expected ',' at offset {position}")
                position = _skip(text, position + 1)
            if opening == "{":
                key, position = _string(text, position)
                position = _skip(text, position)
                if text[position : position + 1] != ":":
                    raise ValueError(f"expected ':' at offset {position}")
                node, position = _value(text, _skip(text, position + 1))
                members[key.value] = (key, node)
            else:
                node, position = _value(text, position)
                elements.append(node)
            position = _skip(text, position)
        return Node(start, position + 1, members if opening == "{" else elements), position + 1
    match = _SCALAR.match(text, position)
    if match is None:
        raise ValueError(f"expected a value at offset {position}")
    return Node(start, match.end(), json.loads(match.group())), match.end()
