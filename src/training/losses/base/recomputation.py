"""What activation checkpointing needs of a loss with state: a second run of a call is no second call."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType, GeneratorType
from typing import Any

import torch
from torch import nn
from torch.autograd.function import FunctionCtx
from torch.utils import checkpoint

_ATTRIBUTE = "_states_of_losses"
_here = threading.local()

State = list[tuple[nn.Module, Any, Any]]
"""Modules, each with its buffers (or its moment) and its extra state."""


class _Calls:
    """The states that a module was called in, in one region, and how far each run of the backward pass has come."""

    def __init__(self) -> None:
        self.states: list[State] = []
        self.repeated: dict[int, int] = {}

    def next_state(self) -> State | None:
        run = torch._C._current_graph_task_id()
        position = self.repeated.get(run, 0)
        self.repeated[run] = position + 1
        return self.states[position % len(self.states)] if self.states else None


def recomputed(module: nn.Module) -> AbstractContextManager[None]:
    """Around a call of ``module``: where checkpointing repeats the call, it sees the state that it saw at first.

    ``torch.utils.checkpoint`` (both modes) and every ``autograd.Function`` with a ``ctx`` whose backward pass repeats
    its forward pass are known by their frames on the stack; the state is kept with them for as long as the graph lives.
    What the repeated call changes is dropped. A call within a backward pass that belongs to no such region is taken for
    a recomputation too: it sees the state as it is, and leaves it so.
    """
    if not (module._modules or module._buffers or _has_extra_state(module)):
        return nullcontext()
    regions = _regions()
    if not regions and torch._C._current_graph_task_id() == -1:
        return nullcontext()
    inside = [id(region) for region, _ in regions]
    if getattr(_here, "regions", None) == inside:
        return nullcontext()  # a part of a call that is looked after
    state: State | None = None
    repeated = False
    new: list[_Calls] = []
    for region, repeats in regions:
        calls = region.__dict__.setdefault(_ATTRIBUTE, {}).setdefault(module, _Calls())
        if repeats:
            repeated, state = True, calls.next_state()
            break  # what is farther out waits for a backward pass that has begun within it
        new.append(calls)
    if not repeated:
        repeated = torch._C._current_graph_task_id() != -1
    if state is None:
        state = _state_of(module)
    for calls in new:
        calls.states.append(state)
    return _call(inside, state if repeated else [])


def _regions() -> list[tuple[Any, bool]]:
    """The checkpointed regions around this call, innermost first, and whether each is being repeated."""
    found: dict[int, tuple[Any, bool]] = {}
    torch_file = checkpoint.__file__
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_name in ("forward", "backward") and code.co_varnames[:1] == ("ctx",):
            context = frame.f_locals.get("ctx")
            if isinstance(context, FunctionCtx):
                found.setdefault(id(context), (context, code.co_name == "backward"))
        elif code.co_filename == torch_file:
            for region, repeats in _without_reentry(frame):
                found.setdefault(id(region), (region, repeats))
        frame = frame.f_back
    return list(found.values())


def _without_reentry(frame: FrameType) -> Iterator[tuple[Any, bool]]:
    """A region of ``use_reentrant=False``: its generator waits during the call; a hook repeats it."""
    for value in list(frame.f_locals.values()):
        if isinstance(value, checkpoint._CheckpointFrame):
            yield value, True
        elif isinstance(value, GeneratorType) and value.gi_code.co_filename == frame.f_code.co_filename:
            waiting = [] if value.gi_frame is None else value.gi_frame.f_locals.values()
            yield from ((x, False) for x in waiting if isinstance(x, checkpoint._CheckpointFrame))


def _state_of(module: nn.Module) -> State:
    """As it is now, of all modules in training mode."""
    state: State = []
    for part in module.modules():
        if not part.training:
            continue
        moment = getattr(part, "moment", None)
        buffers = moment() if moment is not None else _copies(part._buffers)
        extra = part.get_extra_state() if _has_extra_state(part) else None
        state.append((part, buffers, extra))
    return state


def _has_extra_state(part: nn.Module) -> bool:
    return type(part).get_extra_state is not nn.Module.get_extra_state


def _copies(buffers: dict[str, Any]) -> dict[str, Any]:
    return {name: buffer.detach().clone() for name, buffer in buffers.items() if buffer is not None}


def _rewind(part: Any, buffers: Any, extra: Any) -> Callable[[], None]:
    """Put ``part`` back, with buffers of its own for the time being; the function that is returned undoes it."""
    if hasattr(part, "rewind"):
        undo: Callable[[], None] = part.rewind(buffers)
        return undo
    now = dict(part._buffers), None if extra is None else part.get_extra_state()
    part._buffers.update(_copies(buffers))
    if extra is not None:
        part.set_extra_state(extra)

    def back() -> None:
        part._buffers.update(now[0])
        if extra is not None:
            part.set_extra_state(now[1])

    return back


@contextmanager
def _call(inside: list[int], state: State) -> Iterator[None]:
    outer, _here.regions = getattr(_here, "regions", None), inside
    back = [_rewind(*entry) for entry in state]
    try:
        yield
    finally:
        for undo in reversed(back):
            undo()
        _here.regions = outer
