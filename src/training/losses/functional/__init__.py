"""Pure functions: the mathematics of the losses. They import torch only and hold no state; all are listed here."""

from __future__ import annotations

from .cross_entropy import (
    class_cross_entropy,
    info_nce,
    nt_xent,
    reduce,
    self_logits,
    smooth_targets,
    soft_cross_entropy,
    supervised_contrastive,
    uniform_targets,
)
from .moments import (
    center,
    covariance,
    covariance_energy,
    moments,
    off_diagonal_energy,
    squared_difference,
    standardize,
)
from .multi_positive import masked_logsumexp, pair_info_nce
from .precision import autocast_off, eps_for, upcast
from .retrieval import retrieval_accuracy, retrieval_metrics, retrieval_recall
from .similarity import dot_similarity, encode_ids, l2_normalize, match_mask
from .soft_dtw import soft_dtw
from .streaming import bank_logsumexp, bank_logsumexp_max

__all__ = [
    "autocast_off",
    "bank_logsumexp",
    "bank_logsumexp_max",
    "center",
    "class_cross_entropy",
    "covariance",
    "covariance_energy",
    "dot_similarity",
    "encode_ids",
    "eps_for",
    "info_nce",
    "l2_normalize",
    "masked_logsumexp",
    "match_mask",
    "moments",
    "nt_xent",
    "off_diagonal_energy",
    "pair_info_nce",
    "reduce",
    "retrieval_accuracy",
    "retrieval_metrics",
    "retrieval_recall",
    "self_logits",
    "smooth_targets",
    "soft_cross_entropy",
    "soft_dtw",
    "squared_difference",
    "standardize",
    "supervised_contrastive",
    "uniform_targets",
    "upcast",
]
