"""Learning by aligning videos: soft-DTW between sequences, contrast within them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..base import require_choice, require_number
from ..functional import l2_normalize, most_precise, soft_dtw
from ..loss_registry import LossRegistry
from .intra_contrast import IntraContrastLoss
from .presets import PresetMixin
from .sequences import Sequences, SequencesLike, squared_costs

__all__ = ["LAVLoss", "lav_loss"]


@LossRegistry.register("lav")
class LAVLoss(PresetMixin):
    """Alignment of sequences by soft-DTW, with a contrast that keeps each of them from collapsing.

    Use it for recordings of one process at different speeds, when the order of events is the same in all of them.

    Over ordered pairs ``i != j``, with smoothing ``g`` and contrast weight ``c``::

        loss = sum_{i != j} softdtw_g(X_i, X_j) + c (IC(X_i) + IC(X_j))

    ``softdtw`` has squared Euclidean costs, ``IC`` is :class:`IntraContrastLoss` with a window of 15. Both orders of
    a pair have the same value, and every ``IC`` occurs ``2 (S - 1)`` times: each is computed once. The contrast
    carries its gradient.

    Paper: Haresh et al. 2021 (arXiv 2103.17260), in the reading of Donahue and Elhamifar 2024.
    ``LAVLoss.preset("paper")`` has the weights, the contrast (with an attracting near term on squared distances,
    window 10 inclusive), unit-length embeddings, mean over pairs and division by length of the LAV authors' code.

    Args:
        smoothing: ``g``, greater than 0.
        contrast_weight: ``c``, at least 0.
        contrast: options of :class:`IntraContrastLoss` other than its defaults; ``window`` is 15 unless given.
        pair_reduction: ``sum`` over ordered pairs, or ``mean``.
        count_contrast: ``per_ordered_pair`` (as above) or ``once`` for each sequence.
        divergence: subtract half of both self terms from each soft-DTW.
        normalize_by_length: divide each soft-DTW and each contrast by its number of frames.
        normalize_embeddings: scale the frames to unit length first.

    Shape: a list of ``S`` tensors ``[N_i, D]``, or a padded batch ``([S, L, D], lengths)``; the result is 0-d. Fewer
    than two sequences give a zero that keeps the graph.

    Raises:
        ValueError: an option out of range, an empty list, mixed sizes, dtypes or devices.

    torch.compile: not supported (the wavefront of soft-DTW is a Python loop with a hand-written backward).

    Costs and paths are summed in float64, where the device has it.

    Differs from the old ``LAV_loss``: soft-DTW on the device of the input, and no table of it is rounded to float32; a
    single sequence gives zero (it raised ``AttributeError``); nothing is printed.
    """

    PRESETS = {
        "paper": {
            "contrast_weight": 0.5,
            "contrast": {
                "window": 10,
                "inclusive_window": True,
                "near_term": "distance",
                "distance": "squared_euclidean",
            },
            "pair_reduction": "mean",
            "count_contrast": "per_ordered_pair",
            "normalize_by_length": True,
            "normalize_embeddings": True,
        },
        "gtcc_repository": {"smoothing": 0.1, "contrast_weight": 0.01},
    }

    def __init__(
        self,
        *,
        smoothing: float = 0.1,
        contrast_weight: float = 0.01,
        contrast: Mapping[str, Any] | None = None,
        pair_reduction: str = "sum",
        count_contrast: str = "per_ordered_pair",
        divergence: bool = False,
        normalize_by_length: bool = False,
        normalize_embeddings: bool = False,
    ) -> None:
        super().__init__()
        require_number("smoothing", smoothing, low=0.0, exclusive=True)
        require_number("contrast_weight", contrast_weight, low=0.0)
        require_choice("pair_reduction", pair_reduction, ("sum", "mean"))
        require_choice("count_contrast", count_contrast, ("per_ordered_pair", "once"))
        self.smoothing, self.contrast_weight = smoothing, contrast_weight
        self.pair_reduction, self.count_contrast = pair_reduction, count_contrast
        self.divergence, self.normalize_by_length = divergence, normalize_by_length
        self.normalize_embeddings = normalize_embeddings
        self.contrast = IntraContrastLoss(**{"window": 15, **(contrast or {})})

    def forward(self, sequences: SequencesLike) -> Tensor:
        """The loss of ``[N_i, D]`` sequences."""
        given = Sequences.of(sequences)
        if self.normalize_embeddings:
            given = Sequences.of([l2_normalize(x) for x in given.items])
        count = len(given)
        if count < 2:
            return given.zero
        contrast = self.contrast.per_sequence(given)
        if self.normalize_by_length:
            contrast = contrast / contrast.new_tensor(given.lengths)
        times = 2 * (count - 1) if self.count_contrast == "per_ordered_pair" else 1
        total = 2 * self._alignment(given).sum() + self.contrast_weight * times * contrast.sum()
        return total / (count * (count - 1)) if self.pair_reduction == "mean" else total

    def _alignment(self, given: Sequences) -> Tensor:
        """Soft-DTW of the pairs ``i < j``."""
        first, second = torch.triu_indices(len(given), len(given), offset=1).tolist()
        # costs of float32 embeddings have the error of float32, which the smoothing magnifies
        padded = most_precise(given.padded)
        rows, columns = [given.lengths[i] for i in first], [given.lengths[j] for j in second]
        value = self._between(padded[first], padded[second], rows, columns)
        if self.divergence:
            own = self._between(padded, padded, given.lengths, given.lengths)
            value = value - 0.5 * (own[first] + own[second])
        if self.normalize_by_length:
            value = value / (value.new_tensor(rows) + value.new_tensor(columns))
        return value.to(given.padded.dtype)

    def _between(self, x: Tensor, y: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
        cost = squared_costs(x, y)
        return soft_dtw(cost, self.smoothing, lengths_x=rows, lengths_y=columns, batch_last=True)


def lav_loss(sequences: SequencesLike, *, smoothing: float = 0.1, contrast_weight: float = 0.01) -> Tensor:
    """:class:`LAVLoss` with its default options, as a function."""
    return LAVLoss(smoothing=smoothing, contrast_weight=contrast_weight).forward(sequences)
