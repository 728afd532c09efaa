"""YAML as the new factories read it: version 1.2, where ``1e-8`` is a number.

``yes``, ``no``, ``on`` and ``off`` are what the old readers took them for, booleans; where an entry is rewritten, it
says ``true`` or ``false``, which every version understands.
"""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

__all__ = ["OLD_BOOLEAN", "MappingNode", "Node", "ScalarNode", "SequenceNode", "YAMLError", "reader", "value"]

OLD_BOOLEAN = re.compile("yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF")
_HALF_NUMBER = re.compile(r"[-+]?\.[0-9]+[eE][-+]?[0-9]+")
"""A number by YAML 1.2 that the library takes for a text."""


def reader() -> Any:
    """The library's reader (untyped there): ``load_all``, ``compose_all``, ``constructor``."""
    made = YAML(typ="safe", pure=True)
    assert made.resolver.versioned_resolver  # read once, since it fills the table that is added to
    for tag, pattern, first in (("bool", OLD_BOOLEAN, "yYnNoO"), ("float", _HALF_NUMBER, "-+.")):
        anchored = re.compile(f"^(?:{pattern.pattern})$")
        made.resolver.add_version_implicit_resolver((1, 2), f"tag:yaml.org,2002:{tag}", anchored, list(first))
    return made


def value(made: Any, node: Node) -> Any:
    """What ``made``, a reader, makes of a scalar; its text where the tag means nothing to it."""
    try:
        return made.constructor.construct_object(node, deep=True)
    except YAMLError:
        return node.value
