"""Strings: old paths that are looked up, and old names in quoted annotations."""

from __future__ import annotations

import re

import libcst as cst

from .. import requests
from ..base import Editor, register


@register
class Strings(Editor):
    """Replaces a part of a string; its quotes, prefix and the rest stay."""

    order = 4
    serves = (requests.Text,)

    def leave_SimpleString(self, original_node: cst.SimpleString, updated_node: cst.SimpleString) -> cst.BaseExpression:
        for asked in self.wanted.of(original_node, requests.Text):
            updated_node = _replaced(updated_node, asked)
        return updated_node

    def leave_ConcatenatedString(
        self, original_node: cst.ConcatenatedString, updated_node: cst.ConcatenatedString
    ) -> cst.BaseExpression:
        for asked in self.wanted.of(original_node, requests.Text):
            updated_node = _in_row(updated_node, asked)
        return updated_node


def _replaced(node: cst.SimpleString, asked: requests.Text) -> cst.SimpleString:
    lead = len(node.prefix) + len(node.quote)
    head, body = node.value[:lead], node.value[lead:]
    if asked.words:
        body = re.sub(rf"(?<![\w.]){re.escape(asked.old)}(?!\w)", asked.new, body)
    else:
        body = body.replace(asked.old, asked.new, 1)
    return node.with_changes(value=head + body)


def _in_row(node: cst.ConcatenatedString, asked: requests.Text) -> cst.ConcatenatedString:
    """Strings side by side: the first part that has the text, or (words) all."""
    parts: dict[str, cst.BaseString] = {}
    for side in ("left", "right"):
        part = getattr(node, side)
        if isinstance(part, cst.ConcatenatedString):
            parts[side] = _in_row(part, asked)
        elif isinstance(part, cst.SimpleString) and asked.old in part.value:
            parts[side] = _replaced(part, asked)
        if not asked.words and parts.get(side, part) is not part and not parts[side].deep_equals(part):
            break
    return node.with_changes(**parts)
