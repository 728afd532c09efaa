"""Results: their keys have new names, nested dictionaries are flat, and a tensor became a part of an output."""

from __future__ import annotations

import re

import libcst as cst

from .. import requests
from ..base import Editor, register

_QUOTE = re.compile("[\"']")


@register
class Keys(Editor):
    """Replaces whole strings, and reads results in their new shape."""

    order = 3
    serves = (requests.Key, requests.Flatten, requests.Take)

    def leave_SimpleString(self, original_node: cst.SimpleString, updated_node: cst.SimpleString) -> cst.BaseExpression:
        return self._replaced(original_node, updated_node, original_node.value)

    def leave_ConcatenatedString(
        self, original_node: cst.ConcatenatedString, updated_node: cst.ConcatenatedString
    ) -> cst.BaseExpression:
        if not self.wanted.of(original_node, requests.Key):
            return updated_node
        return self._replaced(original_node, updated_node, self.wanted.module.code_for_node(original_node.left))

    def _replaced(self, node: cst.BaseString, updated: cst.BaseString, old: str) -> cst.BaseExpression:
        for asked in self.wanted.of(node, requests.Key):
            found = _QUOTE.search(old)
            quote = found.group() if found else '"'
            updated = cst.SimpleString(f"{quote}{asked.new}{quote}", lpar=updated.lpar, rpar=updated.rpar)
        return updated

    def leave_Subscript(self, original_node: cst.Subscript, updated_node: cst.Subscript) -> cst.BaseExpression:
        if not self.wanted.of(original_node, requests.Flatten):
            return updated_node
        inner = updated_node.value
        return inner.with_changes(lpar=[*updated_node.lpar, *inner.lpar], rpar=[*inner.rpar, *updated_node.rpar])

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        made: cst.BaseExpression = updated_node
        for asked in self.wanted.of(original_node, requests.Take):
            outer = {"lpar": made.lpar, "rpar": made.rpar} if made.lpar else {}
            inner = made.with_changes(lpar=(), rpar=()) if made.lpar else made
            made = cst.Attribute(value=inner, attr=cst.Name(asked.attribute)).with_changes(**outer)
        return made
