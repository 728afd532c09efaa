"""Cross entropies over similarities: InfoNCE with any number of positives, NT-Xent, SupCon, soft targets."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .precision import upcast
from .similarity import dot_similarity, fill_diagonal, match_mask


def reduce(loss: Tensor, reduction: str, num_valid: Tensor | int | None = None) -> Tensor:
    """Mean, sum or nothing over all elements; ``mean`` divides by ``num_valid`` (at least 1) where it is given.

    The mean of nothing is a zero that keeps the graph.
    """
    if reduction == "none":
        return loss
    total = loss.sum()  # the gradient of a mean is a tensor of the size of the loss, that of a sum is one number
    if reduction == "sum":
        return total
    count = loss.numel() if num_valid is None else num_valid
    return total / (count.to(total.dtype).clamp(min=1) if isinstance(count, Tensor) else max(count, 1))


def uniform_targets(positive: Tensor, dtype: torch.dtype) -> Tensor:
    """Target distribution over the positives of each row: ``positive / count``; rows without any are all zero."""
    weights = positive.to(dtype)
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1)


def smooth_targets(targets: Tensor, smoothing: float) -> Tensor:
    """``(1 - s) q + s / C`` for target distributions ``q`` of shape ``[B, C]``."""
    return targets * (1.0 - smoothing) + smoothing / max(targets.shape[-1], 1) if smoothing else targets


def class_cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None, *, ignore_index: int = -100, smoothing: float = 0.0
) -> Tensor:
    """``-sum_c a_c q_c log softmax(logits)_c`` per row, with ``q = (1 - s) onehot(target) + s / C``.

    ``logits`` are ``[N, C]``, ``targets`` ``[N]``, ``weights`` is ``a`` (default: 1), ``smoothing`` ``s``. Rows of
    target ``ignore_index`` give zero, and no gradient even if their logits are not finite.
    """
    x = upcast(logits).clone(memory_format=torch.contiguous_format)
    # ignored rows are cleared bit by bit: 0 times NaN is NaN, and to broadcast a boolean mask takes ten times as long
    bits = x.detach().view(torch.int64 if x.dtype == torch.float64 else torch.int32)
    bits.bitwise_and_((targets != ignore_index).to(bits.dtype).neg_().unsqueeze(1))
    weights = None if weights is None else weights.to(x.dtype)
    return F.cross_entropy(x, targets, weights, ignore_index=ignore_index, reduction="none", label_smoothing=smoothing)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """``-sum_c q_c log softmax(logits)_c`` per row, for target distributions ``q``.

    A class of logit -inf and target 0 counts nothing.
    """
    log_p = F.log_softmax(upcast(logits), dim=-1)
    return -torch.where(targets == 0, 0.0, targets * log_p).sum(dim=-1)


def info_nce(
    logits: Tensor,
    positive: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    negative_lse: Tensor | None = None,
    dim: int = 1,
) -> Tensor:
    """InfoNCE per row, uniform over all positives of the row.

    ``l_i = logsumexp_j(s_ij) - mean_{p in P_i} s_ip``, with ``s`` the logits (already divided by the temperature).
    With one positive this is the softmax cross entropy of van den Oord et al. 2018; with several it is the expectation
    over a uniformly drawn positive. Rows without positives give zero.

    ``logits`` are ``[B, C]``; ``positive`` boolean ``[B, C]`` (default: the diagonal); ``label_smoothing`` the share of
    the target that is spread evenly over the columns; ``negative_lse`` ``[B]`` the log-sum-exp of further negatives (a
    queue), which enter the denominator only; ``dim=0`` takes the columns for the rows, without a transposed copy.
    """
    scores = upcast(logits)
    excess: Tensor | float = 0.0
    if negative_lse is None:
        scores = F.log_softmax(scores, dim=dim)  # its gradient takes half the memory of that of a log-sum-exp
    else:
        excess = torch.logaddexp(torch.logsumexp(scores, dim=dim), negative_lse)
    if positive is None:
        matched, lone = scores.diagonal(), None
    else:
        count = positive.sum(dim=dim, dtype=torch.int32)  # int64 would be a copy of eight bytes an element
        matched, lone = torch.where(positive, scores, 0.0).sum(dim=dim) / count.clamp(min=1), count == 0
    if label_smoothing:
        matched = (1.0 - label_smoothing) * matched + label_smoothing * scores.mean(dim=dim)
    loss = excess - matched
    return loss if lone is None else loss.masked_fill(lone, 0.0)


def self_logits(z: Tensor, temperature: float | Tensor) -> Tensor:
    """Inner products of all rows over the temperature, ``[N, N]``; those with itself count nothing in a softmax."""
    logits = dot_similarity(z, z) / temperature
    return fill_diagonal(logits, torch.finfo(logits.dtype).min)


def nt_xent(z_a: Tensor, z_b: Tensor, temperature: float | Tensor = 0.5, *, reduction: str = "mean") -> Tensor:
    """NT-Xent of SimCLR (Chen et al. 2020) for rows of unit length.

    ``l_i = -s_{i,p(i)} / t + log sum_{k != i} exp(s_ik / t)`` over the ``2B`` rows of ``[z_a; z_b]``, where ``p(i)`` is
    the other view of the same sample and ``s`` the inner product.

    ``z_a`` and ``z_b`` are ``[B, D]``, normalised by the caller; ``reduction="none"`` gives ``[2B]``.
    """
    if z_a.shape != z_b.shape or z_a.dim() != 2:
        raise ValueError(f"z_a and z_b must both be [B, D], found {list(z_a.shape)} and {list(z_b.shape)}")
    batch = z_a.shape[0]
    partner = torch.arange(2 * batch, device=z_a.device).roll(batch)
    logits = self_logits(torch.cat([z_a, z_b]), temperature)
    return reduce(F.cross_entropy(logits, partner, reduction="none"), reduction)


def supervised_contrastive(
    features: Tensor, labels: Tensor, temperature: float | Tensor = 0.07, *, reduction: str = "mean"
) -> Tensor:
    """Supervised contrastive loss, the ``L_out`` of Khosla et al. 2020, for rows of unit length.

    ``l_i = -1/|P_i| sum_{p in P_i} s_ip / t + log sum_{k != i} exp(s_ik / t)`` with ``P_i`` the other rows of the same
    label. Rows without positives give zero and do not count in the mean. ``features`` are ``[N, D]``, normalised by the
    caller (stack the views of a sample as rows), ``labels`` integer ``[N]``; ``reduction="none"`` gives ``[N]``.
    """
    if features.dim() != 2 or labels.shape != features.shape[:1]:
        found = f"{list(features.shape)} and {list(labels.shape)}"
        raise ValueError(f"features must be [N, D] and labels [N], found {found}")
    positive = fill_diagonal(match_mask(labels), False)
    loss = info_nce(self_logits(features, temperature), positive)
    return reduce(loss, reduction, positive.any(dim=1).sum())
