"""Temporal cycle-consistency: there and back again, to the frame one started from."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import require_choice, require_number
from ..functional import most_precise
from ..loss_registry import LossRegistry
from .presets import PresetMixin
from .sequences import (
    DIRECT_LIMIT,
    DISTANCES,
    Part,
    Sequences,
    SequencesLike,
    cached,
    distances,
    frame_mask,
    squared_distances,
    sum_of_parts,
    tables_at_once,
)

__all__ = ["TCCLoss", "tcc_loss"]


def _distances_from(sequences: Sequences, x: Tensor, i: int, others: range) -> Tensor:
    """Distances of the frames of sequence ``i`` from those of others, ``[J, N_i, L]``, infinite from padding.

    ``x`` is the padded batch. Each pair is summed as if it were alone (see ``DIRECT_LIMIT``), and the zero distances
    within a sequence come from a call of its own: the numbers do not depend on the company that a sequence is in.
    """
    lengths = tuple(sequences.lengths[j] for j in others)
    own = x[i, : sequences.lengths[i]]
    if len(own) > DIRECT_LIMIT:
        y = x[others.start : others.stop]
        found = _gaps(own.expand(len(y), -1, -1), y).add_(cached(_beyond, lengths, x.shape[1], like=x))
        if i in others:
            found[others.index(i), :, : len(own)] = distances(own, own)
        return found
    rest = [(x[j, :n], x.shape[1] - n) for j, n in zip(others, lengths, strict=True)]
    return torch.stack([F.pad(distances(own, other), (0, more), value=torch.inf) for other, more in rest])


def _beyond(lengths: tuple[int, ...], size: int) -> Tensor:
    """``[J, 1, size]``: infinity behind the lengths, 0 before."""
    real = frame_mask(lengths, size)[:, None]
    return torch.zeros(real.shape).masked_fill(~real, torch.inf)


def _gaps(a: Tensor, b: Tensor) -> Tensor:
    """``|a_n - b_m|`` of batches by matrix products."""
    return squared_distances(a, b).sqrt_()


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
    code: all of them are ``TCCLoss.preset("paper")``. ``preset("gtcc_repository")`` has the numbers that the authors
    of GTCC train with.

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

    Shape: a list of ``S`` tensors ``[N_i, D]``, or a padded batch ``([S, L, D], lengths)``, ``N_i >= 2``; the result is
    0-d. One sequence without self pairs gives a zero that keeps the graph.

    Raises:
        ValueError: an option out of range, an empty list, a sequence of fewer than two frames, mixed sizes, dtypes or
            devices.

    torch.compile: not supported. The gradient is taken together with the value, one sequence with all others at a time,
    so that the tables stay in the cache and none is kept; to differentiate it twice raises ``RuntimeError``.
    It is computed in float64, where the device has it: at sharp temperatures the gradient in float32 is lost.

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
        },
        "gtcc_repository": {"temperature": 0.1, "variance_weight": 0.001},
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

    def forward(self, sequences: SequencesLike) -> Tensor:
        """The loss of ``[N_i, D]`` sequences."""
        given = Sequences.of(sequences, minimum_frames=2)
        count = len(given)
        if count == 1 and not self.include_self_pairs:
            return given.zero
        # a frame that comes back to itself divides by how little it missed, which float32 rounds away
        total = sum_of_parts(most_precise(given.padded), self._parts(given))
        return total.to(given.padded.dtype) / (count * (count - (not self.include_self_pairs)))

    def _parts(self, given: Sequences) -> list[Part]:
        """Each sequence with as many others as the tables allow."""
        at_once = tables_at_once(given.longest**2, given.padded.device)
        starts = range(0, len(given), at_once)
        others = [range(start, min(start + at_once, len(given))) for start in starts]
        return [partial(self._from, given, i, some) for i in range(len(given)) for some in others]

    def _from(self, given: Sequences, i: int, others: range, x: Tensor, gradient: Tensor | None) -> Tensor:
        """The sum over the pairs ``(i, j)``; adds its gradient.

        The tables are the cost of this loss. With the gradient written out, each is passed a few times only: the
        derivative of a softmax needs no sum over the table, and those of distances are matrix products.
        """
        length = given.lengths[i]
        own, y = x[i, :length], x[others.start : others.stop]
        scale = 1.0 / (self.temperature * (x.shape[2] if self.scale_by_dim else 1))
        gaps = _distances_from(given, x, i, others)
        alpha = self._attention(gaps, scale)
        z = alpha @ y
        # one matrix product for all sequences
        flat = z.flatten(0, 1)
        back = distances(flat, own, direct=True) if length <= DIRECT_LIMIT else _gaps(flat[None], own[None])
        back = back.view(len(y), length, length)
        beta = self._attention(back, scale)
        time = cached(_times, length, self.normalize_timestamps, like=x)
        mean = beta @ time
        if self.variance == "per_column":
            missed = (time - mean).square()
            spread = (beta @ missed[..., None]).squeeze(-1)
        else:
            missed = (time - mean[..., None]).square()
            spread = (beta * missed).sum(dim=-1)
        with torch.set_grad_enabled(gradient is not None):
            moments = mean.requires_grad_(gradient is not None), spread.requires_grad_(gradient is not None)
            errors = self._errors(time, *moments)
            if i in others and not self.include_self_pairs:
                place = others.index(i)
                errors = torch.cat([errors[:place], errors[place + 1 :]])
            value = errors.sum() / (length if self.frame_reduction == "mean" else 1)
        if gradient is None:
            return value
        at_mean, at_spread = torch.autograd.grad(value, moments)
        mean, spread = mean.detach(), spread.detach()
        if self.variance == "per_column":
            # the mean of every frame occurs in the variance of all
            at_mean = at_mean - 2 * (time - mean) * (at_spread[:, None] @ beta).squeeze(1)
            missed = missed[:, None]
        pull = (time - mean[..., None]).mul_(at_mean[..., None])
        pull.addcmul_(missed - spread[..., None], at_spread[..., None]).mul_(beta)
        pull = self._per_gap(pull, back, scale)
        at_z = z * pull.sum(dim=2, keepdim=True) - pull @ own
        gradient[i, :length] += own * pull.sum(dim=(0, 1))[:, None] - pull.flatten(0, 1).T @ flat
        at_y = gradient[others.start : others.stop]
        at_y += alpha.mT @ at_z
        pull = (at_z @ y.mT).sub_((at_z * z).sum(dim=2, keepdim=True)).mul_(alpha)
        pull = self._per_gap(pull, gaps, scale)
        if i in others:
            pull[others.index(i)].diagonal().zero_()
        at_y += y * pull.sum(dim=1)[..., None] - pull.mT @ own.expand(len(y), -1, -1)
        gradient[i, :length] += own * pull.sum(dim=(0, 2))[:, None] - (pull @ y).sum(dim=0)
        return value.detach()

    def _attention(self, gaps: Tensor, scale: float) -> Tensor:
        logits = (gaps.square() if self.distance == "squared_euclidean" else gaps) * -scale
        return torch.softmax(logits, dim=-1)

    def _per_gap(self, at_logits: Tensor, gaps: Tensor, scale: float) -> Tensor:
        """What ``a - b`` is multiplied with in the gradient of the logits of ``|a - b|``; 0 for a distance of 0."""
        if self.distance == "squared_euclidean":
            return at_logits.mul_(-2 * scale)
        return at_logits.mul_(-scale).div_(F.threshold(gaps, 0.0, torch.inf, inplace=True))

    def _errors(self, time: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
        """The terms of every frame. Those of a variance that all but vanished are such that float32 can hold them."""
        spread = (spread + self.variance_eps).clamp_min(torch.finfo(torch.float32).tiny ** 0.5)
        log = spread.log() if self.log_term == "var" else torch.log(spread.sqrt() + 1e-20)
        return (time - mean).square() / spread + self.variance_weight * log


def _times(length: int, normalize: bool) -> Tensor:
    return torch.arange(length, dtype=torch.float64) / (length - 1 if normalize else 1)


def tcc_loss(sequences: SequencesLike, *, variance_weight: float = 0.1, temperature: float = 1.0) -> Tensor:
    """:class:`TCCLoss` with its default options, as a function."""
    return TCCLoss(temperature=temperature, variance_weight=variance_weight).forward(sequences)
