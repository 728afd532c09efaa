"""Frames of one sequence that lie far apart in time should lie far apart in the embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..base import require_choice, require_number
from ..loss_registry import LossRegistry
from .sequences import DISTANCES, Sequences, cached, distances, frame_mask

__all__ = ["NEAR_TERMS", "IntraContrastLoss", "intra_contrast"]

NEAR_TERMS = ("constant", "distance", "weighted_distance")


def _masks(lengths: tuple[int, ...], reach: int) -> Tensor:
    """``[2, S, L, L]``: the cells of real frames that are far from each other, and those of near ones."""
    index = torch.arange(max(lengths))
    real = frame_mask(lengths, max(lengths))
    cells, near = real[:, :, None] & real[:, None, :], (index[:, None] - index).abs() < reach
    return torch.stack([cells & ~near, cells & near])


def _weights(t: Tensor) -> Tensor:
    return (t[:, None] - t).square() + 1


def _weighted(lengths: tuple[int, ...], reach: int) -> Tensor:
    """The masks, times the weights of frames at ``0 .. L - 1``."""
    return _masks(lengths, reach) * _weights(torch.arange(max(lengths), dtype=torch.float64))


@LossRegistry.register("intra_contrast")
class IntraContrastLoss(nn.Module):
    """Temporal contrast within one sequence.

    Use it beside an alignment loss, so that frames do not collapse onto one point: pairs of frames farther apart in
    time than ``window`` are pushed to a distance of ``margin``, the more so the farther apart they are.

    With frames ``x_a``, times ``t_a`` (default ``0 .. N-1``), ``d_ab = |x_a - x_b|``, ``W_ab = (t_a - t_b)^2 + 1`` and
    ``near = {|a - b| < window}`` (positions, not times)::

        loss = sum_{far} W_ab max(0, margin - d_ab) + sum_{near} W_ab margin

    The second sum is a constant. A sequence of at most ``window`` frames has no gradient.

    Papers: the contrast of LAV, Haresh et al. 2021 (arXiv 2103.17260), in the reading of Donahue and Elhamifar 2024.
    The LAV code squares the distances, takes ``window`` inclusively and has ``d_ab`` as near term:
    ``near_term="distance", distance="squared_euclidean", inclusive_window=True``. VAVA's code has ``d_ab / W_ab``
    there, and a mean.

    Args:
        window: frames closer than this are near, at least 1.
        margin: distance from which far frames are left alone.
        near_term: ``constant``, ``distance`` (``d_ab``) or ``weighted_distance`` (``d_ab / W_ab``).
        inclusive_window: count ``|a - b| = window`` as near.
        distance: ``euclidean`` or ``squared_euclidean``.
        reduction: ``sum`` over the cells, or ``mean``.

    Returns:
        A 0-d tensor.

    Raises:
        ValueError: an option out of range, embeddings that are not ``[N, D]``, timestamps of another length.

    Differs from the old ``IntraContrast_loss``: any dtype and device; ``window`` 0 raises (it made the mask minus the
    identity). Values and gradients are the same, by default with ``sum`` and with constant near term.
    """

    def __init__(
        self,
        *,
        window: int = 7,
        margin: float = 2.0,
        near_term: str = "constant",
        inclusive_window: bool = False,
        distance: str = "euclidean",
        reduction: str = "sum",
    ) -> None:
        super().__init__()
        require_number("window", window, low=1, integer=True)
        require_number("margin", margin, low=0.0)
        require_choice("near_term", near_term, NEAR_TERMS)
        require_choice("distance", distance, DISTANCES)
        require_choice("reduction", reduction, ("sum", "mean"))
        self.reach = window + inclusive_window
        self.margin, self.near_term, self.distance, self.reduction = margin, near_term, distance, reduction

    def forward(self, embeddings: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """The contrast of ``[N, D]`` embeddings; no gradient goes to the ``[N]`` timestamps."""
        sequences = Sequences.of([embeddings], name="embeddings")
        if timestamps is not None and timestamps.shape != (len(embeddings),):
            raise ValueError(f"timestamps must be [{len(embeddings)}], found {list(timestamps.shape)}")
        return self.per_sequence(sequences, timestamps)[0]

    def per_sequence(self, sequences: Sequences, timestamps: Tensor | None = None) -> Tensor:
        """The contrast of every sequence, ``[S]``; ``timestamps`` are those of all."""
        x = sequences.padded
        gaps = distances(x, x)
        if self.distance == "squared_euclidean":
            gaps = gaps.square()
        if timestamps is None:
            far, near = cached(_weighted, sequences.lengths, self.reach, like=x)
        else:
            masks = cached(_masks, sequences.lengths, self.reach, like=x)
            far, near = masks * _weights(timestamps.detach().to(x))
        total: Tensor = (far * (self.margin - gaps).clamp_min(0)).sum(dim=(1, 2))
        if self.near_term == "constant":
            total = total + near.sum(dim=(1, 2)) * self.margin
        elif self.near_term == "distance":
            total = total + (near.sign() * gaps).sum(dim=(1, 2))
        else:
            total = total + (gaps * near.sign() / near.clamp_min(1)).sum(dim=(1, 2))
        return total / x.new_tensor(sequences.lengths).square() if self.reduction == "mean" else total

    def extra_repr(self) -> str:
        """The options."""
        return f"reach={self.reach}, margin={self.margin}, near_term={self.near_term!r}, distance={self.distance!r}"


def intra_contrast(
    embeddings: Tensor, timestamps: Tensor | None = None, *, window: int = 7, margin: float = 2.0
) -> Tensor:
    """:class:`IntraContrastLoss` with its default options, as a function of ``[N, D]`` embeddings."""
    return IntraContrastLoss(window=window, margin=margin).forward(embeddings, timestamps)
