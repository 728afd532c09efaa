"""Bounds that a parameter can come back from."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def returning_clamp(x: Tensor, low: float, high: float) -> Tensor:
    """``x`` clamped to ``[low, high]``; at a bound and beyond, the gradient passes where descent leads back inside.

    Where descent leads further out it is 0. (``clamp`` has the gradient 0 in both cases, so that a parameter beyond a
    bound stays there.) The decision is made by the sign of the whole gradient that arrives: call this once per loss.
    """
    result: Tensor = _ReturningClamp.apply(x, low, high)  # type: ignore[no-untyped-call]  # torch gives it no types
    return result


def bounded_exp(x: Tensor, bound: float) -> Tensor:
    """``min(exp(x), bound)`` by ``returning_clamp``; exactly ``bound`` from ``log(bound)`` in the dtype of ``x`` on."""
    limit = math.log(bound)
    inside = returning_clamp(x, -math.inf, limit)
    result = inside.exp()
    # near the bound, exp rounds to a little more or less than it
    exact = torch.where(inside.detach() >= limit, bound, result.detach().clamp(max=bound))
    return result + (exact - result.detach())


class _ReturningClamp(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, low: float, high: float) -> Tensor:
        return x.clamp(low, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.low, ctx.high = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        outward = ((x <= ctx.low) & (grads[0] > 0)) | ((x >= ctx.high) & (grads[0] < 0))
        return torch.where(outward, 0.0, grads[0]), None, None
