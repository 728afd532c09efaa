"""Activity of the units of one layer, for a backward pass that keeps little."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .precision import upcast

__all__ = ["mean_activity"]


class _MeanMagnitude(torch.autograd.Function):
    """``mean |a|`` over all but the first dimension of ``[B, U]``.

    The gradient needs the sign of every element and nothing else, so five signs are kept in a byte (1.6 bits an
    element) instead of the activation. A later in-place operation on the activation does no harm either.
    """

    @staticmethod
    def forward(flat: Tensor) -> Tensor:
        return _mean_magnitude(flat)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        (flat,) = inputs
        ctx.save_for_backward(_pack_signs(flat))
        ctx.shape, ctx.dtype = flat.shape, flat.dtype

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        scale: Tensor = (grads[0] / max(ctx.shape[1], 1)).to(ctx.dtype)
        return _unpack_signs(ctx.saved_tensors[0], ctx.shape, ctx.dtype) * scale[:, None]


def _mean_magnitude(flat: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(upcast(flat), 1, dim=1)  # needs no copy of the magnitudes
    return norm / max(flat.shape[1], 1)


def _pack_signs(x: Tensor) -> Tensor:
    """Signs of all elements as base-3 digits (-1, 0, 1, shifted by 121), five to a byte."""
    signs = nn.functional.pad(x.reshape(-1), (0, -x.numel() % 5)).sign_().view(5, -1)
    packed = signs[0]
    for sign in signs[1:]:
        packed = torch.add(sign, packed, alpha=3)
    return (packed + 121).to(torch.uint8)


def _unpack_signs(packed: Tensor, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """The signs as -1, 0, 1: all bytes are looked up in a table of their digits."""
    powers = 3 ** torch.arange(4, -1, -1, device=packed.device)[:, None]
    digits = (torch.arange(243, device=packed.device) // powers % 3 - 1).to(dtype)
    return digits.index_select(1, packed.int()).view(-1)[: shape.numel()].view(shape)


def mean_activity(activation: Tensor, *, mode: str = "absolute", order: float = 1) -> Tensor:
    """Activity ``[B]`` of the outputs ``[B, ...]`` of one module at one time step.

    ``absolute``: ``(mean_u |a_bu|^p)^(1/p)`` over the ``U`` units of a sample, that is the ``p``-norm divided by
    ``U^(1/p)``; for ``p = 1`` the mean magnitude, for ``p = inf`` the largest one. ``signed``: ``|mean_u a_bu|``, the
    net drive. Half precision is accumulated in float32. Order 1 keeps 1.6 bits an element for the backward pass,
    other orders keep the activation.
    """
    flat = activation.flatten(1) if activation.dim() > 1 else activation[:, None]
    if mode == "signed":
        return upcast(flat).mean(dim=1).abs()
    if order == 1:
        # a compiler decides itself what it keeps
        if not (torch.is_grad_enabled() and flat.requires_grad) or torch.compiler.is_compiling():
            return _mean_magnitude(flat)
        activity: Tensor = _MeanMagnitude.apply(flat)  # type: ignore[no-untyped-call]  # torch gives it no types
        return activity
    scale: float = max(flat.shape[1], 1) ** (1.0 / order)
    norm: Tensor = torch.linalg.vector_norm(upcast(flat), order, dim=1)
    return norm / scale
