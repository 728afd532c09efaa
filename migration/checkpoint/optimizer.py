"""Optimizer states: parameters by number or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .model import Slot, rebuilt

_LIKE_PARAMETER = ("exp_avg", "momentum_buffer", "square_avg", "sum")
"""Entries of optimizer states that have the shape of their parameter."""


def entry_of(entry: Any, transposed: bool) -> Any:
    if not transposed:
        return entry
    return {k: v.mT.contiguous() if isinstance(v, Tensor) and v.dim() >= 2 else v for k, v in entry.items()}


def fits(states: Mapping[Any, Any], numbers: Sequence[int], shapes: Sequence[torch.Size | None]) -> bool:
    for number, shape in zip(numbers, shapes, strict=True):
        entry = states.get(number, {})
        if any(isinstance(entry.get(k), Tensor) and entry[k].shape != shape for k in _LIKE_PARAMETER):
            return False
    return True


def renumbered(optimizer: Mapping[str, Any], groups: list[list[Slot]]) -> Any:
    """The optimizer state with its parameters in the order of ``groups``."""
    state, made, count = {}, [], 0
    for group, slots in zip(optimizer["param_groups"], groups, strict=True):
        new_group = {**group, "params": list(range(count, count + len(slots)))}
        if "param_names" in group:
            new_group["param_names"] = [slot.name for slot in slots]
        for number, slot in enumerate(slots, count):
            if slot.number in optimizer["state"]:
                state[number] = entry_of(optimizer["state"][slot.number], slot.transposed)
        count += len(slots)
        made.append(new_group)
    return rebuilt(optimizer, {**optimizer, "state": state, "param_groups": made})
