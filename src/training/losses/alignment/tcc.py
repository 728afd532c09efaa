"""Temporal cycle-consistency: there and back again, to the frame one started from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import require_choice, require_number
from ..functional import autocast_off
from ..loss_registry import LossRegistry
from .presets import PresetMixin
from .sequences import DIRECT_LIMIT, DISTANCES, Sequences, cached, distances, sum_of_parts

__all__ = ["TCCLoss", "tcc_loss"]


def _distances_from(sequences: Sequences, x: Tensor, i: int) -> Tensor:
    """Distances of the frames of sequence ``i`` from those of all, ``[S, N_i, L]``; ``x`` is the padded batch.

    Each pair is summed as if it were alone (see ``DIRECT_LIMIT``), and the zero distances within a sequence come from a
    call of its own: the numbers do not depend on the company that a sequence is in.
    """
    count, size = len(sequences), sequences.longest
    length = sequences.lengths[i]
    own = x[i, :length]
    if length > DIRECT_LIMIT:
        found = distances(own, x.reshape(count * size, -1), direct=False)
        found = found.view(length, count, size).transpose(0, 1)
        inner = F.pad(distances(own, own), (0, size - length))
        return torch.cat([found[:i], inner[None], found[i + 1 :]])
    parts = [F.pad(distances(own, x[j, :n]), (0, size - n)) for j, n in enumerate(sequences.lengths)]
    return torch.stack(parts)


@LossRegistry.register("tcc")
class TCCLoss(PresetMixin):
    """Temporal cycle-consistency by cycle-back regression.

    Self-supervised alignment of two or more recordings of the same process: each frame of one sequence goes to its soft
    nearest neighbour in another one and back, and should arrive where it started, with little spread.

    For every ordered pair (``X [N, D]``, ``Y [M, D]``; also of a sequence with itself), temperature ``t``, weight
    ``w``::

        alpha = softmax_columns(-|x_a - y_b| / t),  z = alpha Y
        beta  = softmax_columns(-|z_a - x_k| / t),  mu_a = sum_k beta_ak k,  var_a = sum_k beta_ak (k - mu_k)^2
        pair  = sum_a (a - mu_a)^2 / var_a + w log(sqrt(var_a) + 1e-20)
        loss  = mean over the pairs

    ``var_a`` takes the mean of frame ``k``, not of frame ``a``: so does the code that this restores.

    Paper: Dwibedi et al. 2019 (arXiv 1904.07846). It has ``variance="per_frame"``, ``include_self_pairs=False``,
    ``distance="squared_euclidean"``, ``scale_by_dim=True``, ``frame_reduction="mean"``, and ``log_term="var"`` in its
    code: all of them are ``TCCLoss.preset("paper")``.

    Args:
        temperature: ``t``, greater than 0.
        variance_weight: ``w``, at least 0.
        variance: ``per_column`` (above) or ``per_frame`` (``(k - mu_a)^2``, the variance of ``beta_a``).
        include_self_pairs: visit each sequence with itself as well.
        distance: ``euclidean`` or ``squared_euclidean``.
        scale_by_dim: divide distances by ``D``.
        frame_reduction: ``sum`` over the frames of a pair, or ``mean``.
        normalize_timestamps: count time from 0 to 1 in every sequence.
        variance_eps: added to the variance.
        log_term: ``std`` (``log(sqrt(var) + 1e-20)``) or ``var`` (``log var``).

    Shape: a list of ``S`` tensors ``[N_i, D]``, ``N_i >= 2``; the result is 0-d. One sequence without self pairs
    gives a zero that keeps the graph.

    Raises:
        ValueError: an option out of range, an empty list, a sequence of fewer than two frames, mixed sizes, dtypes or
            devices.

    torch.compile: not supported. The gradient is taken together with the value, one sequence with all others at a time,
    so that the tables stay in the cache and none is kept; it cannot be differentiated again.

    Differs from the old ``TCC_loss``: any floating dtype (float64 raised); a sequence of one frame raises
    ``ValueError`` (it gave NaN), an empty list as well (``TypeError``); a variance that underflows to 0 is kept off 0
    (NaN).
    """

    PRESETS = {
        "paper": {
            "temperature": 0.1,
            "variance_weight": 0.001,
            "variance": "per_frame",
            "include_self_pairs": False,
            "distance": "squared_euclidean",
            "scale_by_dim": True,
            "frame_reduction": "mean",
            "log_term": "var",
        }
    }

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        variance_weight: float = 0.1,
        variance: str = "per_column",
        include_self_pairs: bool = True,
        distance: str = "euclidean",
        scale_by_dim: bool = False,
        frame_reduction: str = "sum",
        normalize_timestamps: bool = False,
        variance_eps: float = 0.0,
        log_term: str = "std",
    ) -> None:
        super().__init__()
        require_number("temperature", temperature, low=0.0, exclusive=True)
        require_number("variance_weight", variance_weight, low=0.0)
        require_number("variance_eps", variance_eps, low=0.0)
        require_choice("variance", variance, ("per_column", "per_frame"))
        require_choice("distance", distance, DISTANCES)
        require_choice("frame_reduction", frame_reduction, ("sum", "mean"))
        require_choice("log_term", log_term, ("std", "var"))
        self.temperature, self.variance_weight, self.variance_eps = temperature, variance_weight, variance_eps
        self.variance, self.log_term, self.distance = variance, log_term, distance
        self.include_self_pairs, self.scale_by_dim = include_self_pairs, scale_by_dim
        self.frame_reduction, self.normalize_timestamps = frame_reduction, normalize_timestamps

    def forward(self, sequences: Sequence[Tensor]) -> Tensor:
        """The loss of a list of ``[N_i, D]`` sequences."""
        given = Sequences.of(sequences, minimum_frames=2)
        count = len(given)
        if count == 1 and not self.include_self_pairs:
            return given.zero
        with autocast_off(given.padded):
            total = sum_of_parts(given.padded, [partial(self._from, given, i) for i in range(count)])
        return total / (count * (count - (not self.include_self_pairs)))

    def _from(self, given: Sequences, i: int, x: Tensor) -> Tensor:
        """The sum over the pairs ``(i, j)``."""
        length, own = given.lengths[i], x[i, : given.lengths[i]]
        alpha = self._attention(_distances_from(given, x, i), given.mask[:, None, :], given)
        neighbours = (alpha @ x).reshape(-1, x.shape[2])
        gaps = distances(neighbours, own, direct=length <= DIRECT_LIMIT)
        beta = self._attention(gaps.view(len(given), length, length), None, given)
        errors = self._errors(beta, cached(_times, length, self.normalize_timestamps, like=x))
        if not self.include_self_pairs:
            errors = torch.cat([errors[:i], errors[i + 1 :]])
        return errors.sum() / (length if self.frame_reduction == "mean" else 1)

    def _attention(self, gaps: Tensor, real: Tensor | None, given: Sequences) -> Tensor:
        if self.distance == "squared_euclidean":
            gaps = gaps.square()
        logits = gaps / -(self.temperature * (given.padded.shape[2] if self.scale_by_dim else 1))
        if real is not None and len(set(given.lengths)) > 1:
            logits = logits.masked_fill(~real, -torch.inf)
        return torch.softmax(logits, dim=-1)

    def _errors(self, beta: Tensor, time: Tensor) -> Tensor:
        """The terms ``[S, N]`` of weights ``[S, N, N]`` and times ``[N]``."""
        mean = beta @ time
        missed = (time - mean).square()
        if self.variance == "per_column":
            spread = (beta @ missed[..., None]).squeeze(-1)
        else:
            spread = (beta * (time - mean[..., None]).square()).sum(dim=-1)
        spread = (spread + self.variance_eps).clamp_min(torch.finfo(beta.dtype).tiny ** 0.5)
        log = spread.log() if self.log_term == "var" else torch.log(spread.sqrt() + 1e-20)
        return missed / spread + self.variance_weight * log


def _times(length: int, normalize: bool) -> Tensor:
    return torch.arange(length, dtype=torch.float64) / (length - 1 if normalize else 1)


def tcc_loss(sequences: Sequence[Tensor], *, variance_weight: float = 0.1, temperature: float = 1.0) -> Tensor:
    """:class:`TCCLoss` with its default options, as a function."""
    return TCCLoss(temperature=temperature, variance_weight=variance_weight).forward(sequences)
