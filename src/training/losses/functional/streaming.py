"""Kernels that keep neither the bank nor the logits for the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import autocast_off, upcast

__all__ = ["bank_logsumexp"]


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
    scale = scale.to(query.dtype)
    point, factor = query.detach(), scale.detach()
    with torch.no_grad(), autocast_off(query):
        bank = bank.to(query.dtype)
        logits = point @ bank.mT
        scaled = (logits * factor).masked_fill(~keep, float("-inf"))
        lse = torch.logsumexp(scaled, dim=1)
        # an empty row has lse -inf; its weights are zero, not NaN
        p = torch.exp(scaled - lse.masked_fill(torch.isinf(lse), 0.0)[:, None])
        mean_key, mean_logit = p @ bank, (p * logits).sum(dim=1)
    # the tangent at the point: it adds exact zeros to the value, and its gradient is that of the log-sum-exp
    return lse + factor * ((query - point) * mean_key).sum(dim=1) + (scale - factor) * mean_logit
