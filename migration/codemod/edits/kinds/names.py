"""Names: what stands for an old loss stands for its successor, and members have their new names."""

from __future__ import annotations

import libcst as cst

from .. import requests
from ..base import Editor, expression, register


@register
class Names(Editor):
    """Replaces names, dotted names and the last part of dotted names."""

    order = 2
    serves = (requests.Name, requests.Member)

    def _renamed(self, node: cst.BaseExpression, updated: cst.BaseExpression) -> cst.BaseExpression:
        for asked in self.wanted.of(node, requests.Name):
            updated = expression(asked.new, updated)
        return updated

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
        return self._renamed(original_node, updated_node)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        return self._renamed(original_node, updated_node)

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        for member in self.wanted.of(original_node, requests.Member):
            updated_node = updated_node.with_changes(attr=updated_node.attr.with_changes(value=member.new))
        return self._renamed(original_node, updated_node)
