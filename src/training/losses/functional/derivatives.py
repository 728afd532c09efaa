"""Backward passes that are written by hand, and what may be asked of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["first_derivative_only"]


class _Refuse(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(what: str, gradient: Tensor, *sources: Tensor | None) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.what = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError(
            f"{ctx.what} cannot be differentiated again: its backward pass is written by hand. A gradient penalty, a "
            "Hessian, and torch.func.hessian need a loss whose page does not say so; create_graph=True alone is fine"
        )


def first_derivative_only(what: str, gradient: Tensor, *sources: Tensor | None) -> Tensor:
    """``gradient``, which a backward pass returns without a graph, such that to differentiate it raises.

    Without this a second derivative would be silently zero: a constant has none. (``once_differentiable`` of torch
    does the same only if the *incoming* gradient needs one, which under ``create_graph`` it seldom does.)

    ``sources``: all that the gradient depends on, as the backward pass got it. ``what`` begins the message.
    """
    if not torch.is_grad_enabled():
        return gradient
    refused: Tensor = _Refuse.apply(what, gradient, *sources)  # type: ignore[no-untyped-call]  # untyped in torch
    return refused
