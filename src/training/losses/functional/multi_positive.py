"""InfoNCE over pairs: terms for anchors with several positives, masked log-sum-exp."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .precision import upcast


def masked_logsumexp(logits: Tensor, keep: Tensor) -> Tensor:
    """``log sum_j keep_ij exp(s_ij)`` per row, in float32 or better.

    A row that keeps nothing gives the lowest finite number and no gradient (``-inf`` would turn the gradient into NaN).
    """
    logits = upcast(logits)
    return torch.logsumexp(logits.masked_fill(~keep, torch.finfo(logits.dtype).min), dim=1)


def pair_info_nce(
    logits: Tensor,
    positive: Tensor,
    *,
    positives: Literal["per_pair", "pooled"] = "per_pair",
    denominator: Literal["all", "own_positive"] = "all",
    log_weights: Tensor | None = None,
    negative_lse: Tensor | None = None,
) -> Tensor:
    """InfoNCE terms of anchors with any number of positives, summed per anchor; anchors without positives give zero.

    With ``P_i`` the positives of anchor ``i`` and ``N_i`` all its other columns:

    * ``per_pair``, ``all``: ``sum_{p in P_i} (log sum_j e^{s_ij} - s_ip)``;
    * ``per_pair``, ``own_positive``: ``sum_{p in P_i} log(1 + e^{E_i - s_ip})`` with
      ``E_i = log sum_{n in N_i} w_in e^{s_in}``: the other positives are neither attracted nor repelled by this term;
    * ``pooled``: ``log(1 + e^{E_i - log sum_{p in P_i} e^{s_ip}})``, one term per anchor (no matter which
      ``denominator``).

    ``logits`` are ``s``, ``[B, C]``, already divided by the temperature; ``positive`` is boolean ``[B, C]``;
    ``log_weights`` are ``log w``, ``[B, C]``, of which those of negatives are used, and not by ``all``;
    ``negative_lse`` ``[B]`` is the log-sum-exp of further negatives (a queue).
    """
    logits = upcast(logits)
    if positives == "per_pair" and denominator == "all":
        total = torch.logsumexp(logits, dim=1)
        if negative_lse is not None:
            total = torch.logaddexp(total, negative_lse)
        return torch.where(positive, total[:, None] - logits, 0.0).sum(dim=1)
    weighted = logits if log_weights is None else logits + log_weights
    negatives = masked_logsumexp(weighted, ~positive)
    if negative_lse is not None:
        negatives = torch.logaddexp(negatives, negative_lse)
    if positives == "pooled":
        terms = -F.logsigmoid(masked_logsumexp(logits, positive) - negatives)
        return torch.where(positive.any(dim=1), terms, torch.zeros_like(terms))
    # log(1 + e^x) as logsigmoid: softplus turns linear at x = 20, an error of 2e-9
    return -F.logsigmoid(logits - negatives[:, None]).masked_fill(~positive, 0.0).sum(dim=1)
