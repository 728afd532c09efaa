"""Pure functions: the mathematics of the losses. They import torch only and hold no state; all are listed here."""

from __future__ import annotations

from .bounds import bounded_exp as bounded_exp
from .bounds import returning_clamp as returning_clamp
from .cross_entropy import class_cross_entropy as class_cross_entropy
from .cross_entropy import info_nce as info_nce
from .cross_entropy import nt_xent as nt_xent
from .cross_entropy import reduce as reduce
from .cross_entropy import self_logits as self_logits
from .cross_entropy import smooth_targets as smooth_targets
from .cross_entropy import soft_cross_entropy as soft_cross_entropy
from .cross_entropy import supervised_contrastive as supervised_contrastive
from .cross_entropy import uniform_targets as uniform_targets
from .derivatives import first_derivative_only as first_derivative_only
from .moments import center as center
from .moments import covariance as covariance
from .moments import covariance_energy as covariance_energy
from .moments import moments as moments
from .moments import off_diagonal_energy as off_diagonal_energy
from .moments import squared_difference as squared_difference
from .moments import standardize as standardize
from .multi_positive import masked_logsumexp as masked_logsumexp
from .multi_positive import pair_info_nce as pair_info_nce
from .precision import autocast_off as autocast_off
from .precision import eps_for as eps_for
from .precision import most_precise as most_precise
from .precision import not_finite as not_finite
from .precision import shown as shown
from .precision import upcast as upcast
from .retrieval import retrieval_accuracy as retrieval_accuracy
from .retrieval import retrieval_metrics as retrieval_metrics
from .retrieval import retrieval_recall as retrieval_recall
from .similarity import dot_similarity as dot_similarity
from .similarity import encode_ids as encode_ids
from .similarity import fill_diagonal as fill_diagonal
from .similarity import l2_normalize as l2_normalize
from .similarity import match_mask as match_mask
from .similarity import view_matches as view_matches
from .soft_dtw import soft_dtw as soft_dtw
from .streaming import bank_logsumexp as bank_logsumexp
from .streaming import bank_logsumexp_max as bank_logsumexp_max

__all__ = [name for name, value in globals().items() if callable(value)]
