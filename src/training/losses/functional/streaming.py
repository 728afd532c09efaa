"""Kernels that keep neither the bank nor the logits for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .precision import autocast_off, upcast

__all__ = ["bank_logsumexp"]


class _BankLogSumExp(torch.autograd.Function):
    """Log-sum-exp of scaled inner products with constant rows; saves ``[B, D]``, not the bank and not ``[B, K]``."""

    @staticmethod
    def forward(query: Tensor, scale: Tensor, bank: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with autocast_off(query):
            logits = query @ bank.mT
            scaled = (logits * scale).masked_fill(~keep, float("-inf"))
            lse = torch.logsumexp(scaled, dim=1)
            # an empty row has lse -inf; its weights are zero, not NaN
            p = torch.exp(scaled - lse.masked_fill(torch.isinf(lse), 0.0)[:, None])
            return lse, p @ bank, (p * logits).sum(dim=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, mean_key, mean_logit = output
        ctx.mark_non_differentiable(mean_key, mean_logit)
        ctx.save_for_backward(inputs[1], mean_key, mean_logit)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor, None, None]:
        scale, mean_key, mean_logit = ctx.saved_tensors
        return grad[:, None] * mean_key * scale, (grad * mean_logit).sum().reshape(scale.shape), None, None


def bank_logsumexp(query: Tensor, bank: Tensor, scale: float | Tensor, keep: Tensor) -> Tensor:
    """``log sum_k keep_ik exp(scale <query_i, bank_k>)`` per row, with the bank as a constant.

    The backward pass needs the softmax-weighted mean of the bank's rows, which is computed in the forward pass. So the
    bank may be written in place between forward and backward, and nothing of size ``B x K`` or ``K x D`` is kept.
    First derivatives only.

    Args:
        query: ``[B, D]``.
        bank: ``[K, D]``; gets no gradient.
        scale: factor of the inner products (1 / temperature); a 0-d tensor gets a gradient.
        keep: boolean ``[B, K]`` or ``[1, K]``: entries that count. A row without any gives -inf and no gradient.
    """
    query = upcast(query)
    if not isinstance(scale, Tensor):
        scale = torch.as_tensor(scale, dtype=query.dtype, device=query.device)
    apply: Callable[..., tuple[Tensor, Tensor, Tensor]] = _BankLogSumExp.apply
    return apply(query, scale.to(query.dtype), bank.detach().to(query.dtype), keep)[0]
