"""State that a batch without a finite loss leaves as it was."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _NormBase

from .recomputation import recomputed

P = ParamSpec("P")
R = TypeVar("R")

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def keeps_state(method: Callable[P, R]) -> Callable[P, R]:
    """Let a call that gives no finite loss, or raises, leave the state of the module as if it had not been made.

    State is what modules in training mode (``self`` and those in it) name in ``changing``, a tuple of their buffers;
    the statistics of batch normalisation; and what a module looks after itself that has ``begin()``, which gives a
    place to go back to, and ``settle(place, keep)``. The decision is made by ``torch.where``: nothing waits for the
    device, and compiled code does the same. ``BaseLoss`` puts this around every ``forward``.

    A call that activation checkpointing repeats in the backward pass sees the state that it saw at first, and changes
    nothing (``recomputed``). A compiled loss cannot know a repetition: call it outside of such regions, or compile the
    function that contains the region.
    """

    @functools.wraps(method)
    def kept(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            return settled(*args, **kwargs)
        with recomputed(args[0]):  # type: ignore[arg-type]  # a method of a module
            return settled(*args, **kwargs)

    def settled(*args: P.args, **kwargs: P.kwargs) -> R:
        before = _remembered(args[0])
        if not before:
            return method(*args, **kwargs)
        keep: Tensor | bool = False
        try:
            result = method(*args, **kwargs)
            loss = result["loss"] if isinstance(result, Mapping) else result[0] if isinstance(result, tuple) else result
            keep = loss.detach().isfinite().all() if isinstance(loss, Tensor) else True
        finally:
            _settle(before, keep)
        return result

    return kept


def _remembered(module: Any) -> list[tuple[Any, Any]]:
    """Buffers with copies of them, and modules with their places."""
    before: list[tuple[Any, Any]] = []
    for part in module.modules():
        if not part.training:
            continue
        if hasattr(part, "settle"):
            before.append((part, part.begin()))
        names: tuple[str, ...] = _STATISTICS if isinstance(part, _NormBase) else getattr(part, "changing", ())
        buffers = [getattr(part, name) for name in names]
        before += [(buffer, buffer.clone()) for buffer in buffers if buffer is not None]
    return before


def _settle(before: list[tuple[Any, Any]], keep: Tensor | bool) -> None:
    for changed, old in reversed(before):
        if not isinstance(changed, Tensor):
            changed.settle(old, keep)
            continue
        kept = torch.as_tensor(keep, device=changed.device)
        # not an in-place operation for autograd: the values are those that the graph has seen
        changed.data.copy_(torch.where(kept, changed, old))
