"""Losses that align sequences of embeddings in time."""

from __future__ import annotations

from .gtcc import GTCCLoss, gtcc_loss
from .intra_contrast import IntraContrastLoss, intra_contrast
from .lav import LAVLoss, lav_loss
from .mixture_fit import fit_histogram_mixture
from .objective import AlignmentObjective, PairBudget, objective_from_config
from .sinkhorn import sinkhorn_plan, transport_cost
from .soft_dtw import SoftDTWLoss
from .tcc import TCCLoss, tcc_loss
from .vava import VAVALoss, VAVATerms, vava_loss

__all__ = [
    "AlignmentObjective",
    "GTCCLoss",
    "IntraContrastLoss",
    "LAVLoss",
    "PairBudget",
    "SoftDTWLoss",
    "TCCLoss",
    "VAVALoss",
    "VAVATerms",
    "fit_histogram_mixture",
    "gtcc_loss",
    "intra_contrast",
    "lav_loss",
    "objective_from_config",
    "sinkhorn_plan",
    "tcc_loss",
    "transport_cost",
    "vava_loss",
]
