"""Temporal cycle-consistency: there and back again, to the frame one started from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import require_choice, require_number
from ..functional import autocast_off
from ..loss_registry import LossRegistry
from .presets import PresetMixin
from .sequences import DIRECT_LIMIT, DISTANCES, Sequences, cached, distances

__all__ = ["TCCLoss", "tcc_loss"]


def _pair_distances(sequences: Sequences) -> Tensor:
    """Distances of all frames of all sequences, ``[S, S, L, L]``.

    One product for all pairs. Where it rounds visibly (zero distances within a sequence, short sequences beside long
    ones) each sequence is taken by itself, so that the numbers do not depend on the company a sequence is in.
    """
    x, size = sequences.padded, sequences.longest
    count = len(sequences)
    flat = x.reshape(1, count * size, x.shape[2])
    found = distances(flat, flat).view(count, size, count, size).transpose(1, 2)
    if count * size <= DIRECT_LIMIT:
        return found
    own = [distances(item, item) for item in sequences.items]
    own = [F.pad(d, (0, size - len(d), 0, size - len(d))) for d in own]
    same = torch.eye(count, dtype=torch.bool, device=x.device)[:, :, None, None]
    found = torch.where(same, torch.stack(own)[:, None], found)
    short = [i for i, length in enumerate(sequences.lengths) if length <= DIRECT_LIMIT]
    if len(short) > 1:
        places = torch.tensor(short, device=x.device)
        part = x[places][:, :DIRECT_LIMIT].reshape(1, -1, x.shape[2])
        width = min(size, DIRECT_LIMIT)
        block = distances(part, part, direct=True).view(len(short), width, len(short), width).transpose(1, 2)
        block = F.pad(block, (0, size - width, 0, size - width))
        found = found.index_put((places[:, None], places), block)
    return found


def _return_distances(neighbours: Tensor, sequences: Sequences) -> Tensor:
    """Distances ``[S, S, L, L]`` of the soft neighbours ``[S, S, L, D]`` from the frames they started from."""
    x = sequences.padded
    count, _, size, width = neighbours.shape
    flat = neighbours.reshape(count, count * size, width)
    short = [i for i, length in enumerate(sequences.lengths) if length <= DIRECT_LIMIT]
    found = distances(flat, x, direct=len(short) == count)
    if 0 < len(short) < count:
        places = torch.tensor(short, device=x.device)
        found = found.index_copy(0, places, distances(flat[places], x[places], direct=True))
    return found.view(count, count, size, size)


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

    torch.compile: the lengths are Python numbers; every new set of them is compiled anew.

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
        x, real = given.padded, given.mask
        with autocast_off(x):
            alpha = self._attention(_pair_distances(given), real[None, :, None, :], given)
            neighbours = torch.matmul(alpha, x)
            beta = self._attention(_return_distances(neighbours, given), real[:, None, None, :], given)
            time = cached(_times, given.lengths, self.normalize_timestamps, like=x)
            moments = self._errors(beta, time, real[:, None, :].expand(count, count, -1))
        if self.frame_reduction == "mean":
            moments = moments / torch.tensor(given.lengths, device=x.device)[:, None]
        if not self.include_self_pairs:
            moments = moments - moments.diag().diag()
        return moments.sum() / (count * (count - (not self.include_self_pairs)))

    def _attention(self, gaps: Tensor, real: Tensor, given: Sequences) -> Tensor:
        if self.distance == "squared_euclidean":
            gaps = gaps.square()
        logits = gaps / -(self.temperature * (given.padded.shape[2] if self.scale_by_dim else 1))
        if len(set(given.lengths)) > 1:
            logits = logits.masked_fill(~real, -torch.inf)
        return torch.softmax(logits, dim=-1)

    def _errors(self, beta: Tensor, time: Tensor, real: Tensor) -> Tensor:
        """The sums over frames, ``[S, S]``, of weights ``[S, S, L, L]`` and times ``[S, L]``."""
        mean = torch.matmul(beta, time[:, None, :, None]).squeeze(-1)
        missed = (time[:, None, :] - mean).square()
        if self.variance == "per_column":
            spread = torch.matmul(beta, missed[..., None]).squeeze(-1)
        else:
            spread = (beta * (time[:, None, None, :] - mean[..., None]).square()).sum(dim=-1)
        # frames behind the end count for nothing, and 1 keeps their division harmless
        spread = torch.where(real, spread + self.variance_eps, 1.0).clamp_min(torch.finfo(beta.dtype).tiny ** 0.5)
        log = spread.log() if self.log_term == "var" else torch.log(spread.sqrt() + 1e-20)
        return torch.where(real, missed / spread + self.variance_weight * log, 0.0).sum(dim=-1)


def _times(lengths: tuple[int, ...], normalize: bool) -> Tensor:
    index = torch.arange(max(lengths), dtype=torch.float64).expand(len(lengths), -1)
    return index / (torch.tensor(lengths)[:, None] - 1) if normalize else index


def tcc_loss(sequences: Sequence[Tensor], *, variance_weight: float = 0.1, temperature: float = 1.0) -> Tensor:
    """:class:`TCCLoss` with its default options, as a function."""
    return TCCLoss(temperature=temperature, variance_weight=variance_weight).forward(sequences)
