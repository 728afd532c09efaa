"""Frozen twin of the limits in ``models.alignment_training_loop``: pairs of sequences above them were skipped.

Use :class:`training_losses.alignment.PairBudget` in new code; it holds the same table.
"""

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

__all__ = ["MAX_PAIRWISE_THRESHOLDS"]

MAX_PAIRWISE_THRESHOLDS = {
    "LAV": 3_000_000,
    "GTCC": 8_000_000,
    "tcc": 8_000_000,
    "VAVA": 6_000_000,
    "default": 8_000_000,
}
