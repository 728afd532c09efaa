"""Kernels that keep neither the bank nor the logits for the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import autocast_off, upcast


def bank_logsumexp(query: Tensor, bank: Tensor, scale: float | Tensor, keep: Tensor) -> Tensor:
    """``log sum_k keep_ik exp(scale <query_i, bank_k>)`` per row, with the bank as a constant.

    The backward pass needs the softmax-weighted mean of the bank's rows, which is computed in the forward pass. So the
    bank may be written in place between forward and backward, and nothing of size ``B x K`` or ``K x D`` is kept.
    First derivatives only.

    ``query`` is ``[B, D]``; ``bank`` ``[K, D]`` gets no gradient; ``scale`` (1 / temperature) gets one if it is a 0-d
    tensor; ``keep``, boolean ``[B, K]`` or ``[1, K]``, are the entries that count. A row without any gives -inf and no
    gradient.
    """
    return bank_logsumexp_max(query, bank, scale, keep)[0]


def bank_logsumexp_max(query: Tensor, bank: Tensor, scale: float | Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """As ``bank_logsumexp``, with the largest scaled inner product of each row (no gradient, -inf for none)."""
    query = upcast(query)
    scale = torch.as_tensor(scale, dtype=query.dtype, device=query.device)
    point, factor = query.detach(), scale.detach()
    with torch.no_grad(), autocast_off(query):
        bank = bank.to(query.dtype)
        scaled = ((point * factor) @ bank.mT).masked_fill_(~keep, float("-inf"))
        best = scaled.amax(dim=1)
        # an empty row has no largest entry; its weights are zero, not NaN
        shift = best.masked_fill(torch.isinf(best), 0.0)
        weights = scaled.sub_(shift[:, None]).exp_()
        total = weights.sum(dim=1)
        lse = shift + total.log()
        mean_key = weights @ bank / total.clamp(min=torch.finfo(total.dtype).tiny)[:, None]
    # the tangent at the point: it adds exact zeros to the value, and its gradient is that of the log-sum-exp
    tangent = factor * ((query - point) * mean_key).sum(dim=1) + (scale - factor) * (point * mean_key).sum(dim=1)
    return lse + tangent, best
