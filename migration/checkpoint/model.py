"""What a conversion would do, and the words in which it is said."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..catalog import Case, Symbol

WRAPPERS = ("module", "_orig_mod", "_forward_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What DistributedDataParallel, torch.compile, Lightning, FSDP and activation checkpointing put into a name."""

Row = tuple[Symbol, Case]
Rows = Mapping[str, Row]
"""Prefix (empty, or with a dot at the end) -> the row whose old class stands there."""
Assignments = Mapping[str, list[Row]]


class CheckpointError(ValueError):
    """The file cannot be read or written, or holds something that is not understood."""


@dataclass(frozen=True)
class KeyChange:
    """One entry of one state_dict: old key, new key (empty: dropped), and the old class that it belongs to."""

    place: str
    old: str
    new: str
    symbol: str
    note: str = ""


@dataclass
class Plan:
    """What a conversion would do."""

    changes: list[KeyChange] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Nothing to convert."""
        return not self.changes and not self.problems


@dataclass
class Source:
    """The names of a state_dict (or module) in their order, and the rows that were applied, inner losses later."""

    shapes: dict[str, torch.Size]
    uncounted: frozenset[str] = frozenset()
    """No parameters: not floating, or a tensor that an earlier name holds, too."""
    passes: list[Rows] = field(default_factory=list)
    exact: bool = False
    """All names are parameters."""


def canonical(name: str) -> str:
    """``name`` without what wrappers put into it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def dotted(prefix: str) -> str:
    """``prefix`` with a dot at its end, unless it is empty."""
    return prefix and prefix.removesuffix(".") + "."


def rebuilt(like: Mapping[Any, Any], items: Mapping[Any, Any]) -> Any:
    """``items`` as a mapping of the type of ``like``, with its attributes (``_metadata`` of a state_dict)."""
    if not isinstance(like, dict):
        return dict(items)
    made = copy.copy(like)
    made.clear()
    made.update(items)
    return made
