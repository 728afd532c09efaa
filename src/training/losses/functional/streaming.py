"""Kernels that keep neither the bank nor the logits for the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .derivatives import first_derivative_only
from .precision import autocast_off, upcast


def bank_logsumexp(query: Tensor, bank: Tensor, scale: float | Tensor, keep: Tensor) -> Tensor:
    """``log sum_k keep_ik exp(scale <query_i, bank_k>)`` per row, with the bank as a constant.

    The backward pass needs the softmax-weighted mean of the bank's rows, which is computed in the forward pass. So the
    bank may be written in place between forward and backward, and nothing of size ``B x K`` or ``K x D`` is kept.
    To differentiate it twice raises ``RuntimeError``.

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
    if torch.compiler.is_compiling():
        # the tangent at the point: it adds exact zeros to the value, and its gradient is that of the log-sum-exp
        along = factor * ((query - point) * mean_key).sum(dim=1)
        return lse + along + (scale - factor) * (point * mean_key).sum(dim=1), best
    found: Tensor = _Tangent.apply(query, scale, lse, mean_key)  # type: ignore[no-untyped-call]  # untyped in torch
    return found, best


class _Tangent(torch.autograd.Function):
    """``lse``, with the gradient of the log-sum-exp: ``scale`` times the mean key for the query."""

    generate_vmap_rule = True

    @staticmethod
    def forward(query: Tensor, scale: Tensor, lse: Tensor, mean_key: Tensor) -> Tensor:
        return lse.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        query, scale, _, mean_key = inputs
        ctx.save_for_backward(query, scale, mean_key)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        query, scale, mean_key = ctx.saved_tensors
        sources = query, scale, grads[0]
        with torch.no_grad(), autocast_off(query):
            pull = grads[0][:, None] * mean_key
            found = pull * scale, (pull * query).sum()
        what = "the gradient of bank_logsumexp"
        at_query, at_scale = (first_derivative_only(what, each, *sources) for each in found)
        return at_query, at_scale, None, None
