"""Soft dynamic time warping as a loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..base import BaseLoss, kind_of, require_choice, require_number, require_numbers
from ..functional import l2_normalize, most_precise, soft_dtw, upcast
from ..loss_registry import LossRegistry
from .sequences import squared_costs, squared_distances

__all__ = ["SoftDTWLoss"]

Lengths = Sequence[int]


@LossRegistry.register("soft_dtw")
class SoftDTWLoss(BaseLoss):
    """Soft-DTW between pairs of sequences: a differentiable cost of the best monotone alignment.

    Use it to compare or align two sequences of different speed; :class:`LAVLoss` builds on it.

    With costs ``D_nm`` between ``x_n`` and ``y_m`` and smoothing ``g``: ``-g log sum exp(-cost(path) / g)`` over all
    monotone paths from the first cell to the last. It can be negative.

    Papers: Cuturi and Blondel 2017 (arXiv 1703.01541); the divergence: Blondel, Mensch and Vert 2021 (arXiv
    2010.08354).

    Args:
        smoothing: ``g``, greater than 0.
        distance: ``squared_euclidean`` or ``cosine`` (1 minus the cosine).
        divergence: subtract half of ``sdtw(x, x) + sdtw(y, y)``: then it is 0 for equal sequences and never negative.
        open_end: let ``x`` end anywhere.
        bandwidth: paths stay at cells with ``|n - m|`` of at most this (Sakoe and Chiba's band), an integer at least 0;
            default: anywhere. It must reach the end of each pair: at least ``|N - M|``.
        normalize_by_length: divide by ``N + M``.
        reduction: ``none`` (one value a pair), ``mean`` or ``sum`` over the pairs.

    Shape: ``[N, D], [M, D]`` gives a 0-d tensor, ``[B, N, D], [B, M, D]`` (either ``B`` may be 1) gives ``[B]``.

    Raises:
        ValueError: an option out of range, shapes that do not fit, lengths out of range, a pair whose lengths differ by
            more than the bandwidth.

    torch.compile: not supported; the backward pass is hand-written. It can be differentiated once more.

    Costs and sums along paths are taken in float64, where the device has it: the gradient of float32 embeddings is
    exact for them, however long and large they are.

    Differs from the old ``SoftDTW`` classes: runs where the tensors are, in their precision (tables were rounded to
    float32 on the host); memory ``N x M`` (was ``N x M x D``); padded batches through ``lengths``; the divergence and
    the open end of the second class work and have gradients.
    """

    def __init__(
        self,
        *,
        smoothing: float = 1.0,
        distance: str = "squared_euclidean",
        divergence: bool = False,
        open_end: bool = False,
        bandwidth: int | None = None,
        normalize_by_length: bool = False,
        reduction: str = "none",
    ) -> None:
        super().__init__(reduction=reduction)
        require_number("smoothing", smoothing, low=0.0, exclusive=True)
        require_choice("distance", distance, ("squared_euclidean", "cosine"))
        require_numbers(0, integer=True, optional=True, bandwidth=bandwidth)
        if divergence and open_end:
            raise ValueError("divergence must be False with open_end=True, found True: the self terms have no open end")
        self.smoothing, self.distance, self.divergence = smoothing, distance, divergence
        self.open_end, self.bandwidth, self.normalize_by_length = open_end, bandwidth, normalize_by_length

    def forward(
        self, x: Tensor, y: Tensor, lengths_x: Lengths | None = None, lengths_y: Lengths | None = None
    ) -> Tensor:
        """Soft-DTW of each pair.

        Args:
            x: ``[N, D]`` or ``[B, N, D]``.
            y: ``[M, D]`` or ``[B, M, D]``.
            lengths_x: valid frames of each ``x``; default: all.
            lengths_y: valid frames of each ``y``.
        """
        a, b, rows, columns = self._check(x, y, lengths_x, lengths_y)
        # what is behind the lengths must not be multiplied by the zeros of its gradient
        value = self._batched(_cut(a, rows), _cut(b, columns), rows, columns)
        if x.dim() == 2:
            return value[0]
        return self.apply_reduction(value)

    def alignment(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The value, and how much of the soft minimum goes through each cell (as the costs), both detached."""
        a, b, lengths_x, lengths_y = self._check(x, y, None, None)
        with torch.enable_grad():
            cost = self.costs(a.detach(), b.detach()).requires_grad_()
            value = self._soft_dtw(cost, lengths_x, lengths_y)
            (expected,) = torch.autograd.grad(value.sum(), cost)
        value = value.detach()
        return (value[0], expected[0]) if x.dim() == 2 else (value, expected)

    def costs(self, x: Tensor, y: Tensor) -> Tensor:
        """``D_nm`` of batches, ``[B, N, M]``."""
        if self.distance == "cosine":
            return 1.0 - l2_normalize(x) @ l2_normalize(y).mT
        return squared_distances(x, y)

    def _batched(self, x: Tensor, y: Tensor, lengths_x: list[int], lengths_y: list[int]) -> Tensor:
        # costs of float32 embeddings have the error of float32, which the smoothing magnifies
        a, b = most_precise(x), most_precise(y)
        total = self._between(a, b, lengths_x, lengths_y)
        if self.divergence:
            own_x, own_y = self._between(a, a, lengths_x, lengths_x), self._between(b, b, lengths_y, lengths_y)
            total = total - 0.5 * (own_x + own_y)
        if self.normalize_by_length:
            total = total / (torch.tensor(lengths_x) + torch.tensor(lengths_y)).to(total)
        return total.to(x.dtype)

    def _between(self, x: Tensor, y: Tensor, rows: list[int], columns: list[int]) -> Tensor:
        if self.distance == "squared_euclidean":
            return self._soft_dtw(squared_costs(x, y), rows, columns, batch_last=True)
        return self._soft_dtw(self.costs(x, y), rows, columns)

    def _soft_dtw(self, cost: Tensor, rows: list[int], columns: list[int], *, batch_last: bool = False) -> Tensor:
        return soft_dtw(
            cost,
            self.smoothing,
            lengths_x=rows,
            lengths_y=columns,
            open_end=self.open_end,
            bandwidth=self.bandwidth,
            batch_last=batch_last,
        )

    @staticmethod
    def _check(
        x: Tensor, y: Tensor, lengths_x: Lengths | None, lengths_y: Lengths | None
    ) -> tuple[Tensor, Tensor, list[int], list[int]]:
        if not isinstance(x, Tensor) or not isinstance(y, Tensor):
            raise ValueError(f"x and y must be tensors, found {kind_of(x)} and {kind_of(y)}")
        shapes = f"found {list(x.shape)} and {list(y.shape)}"
        if x.dim() != y.dim() or x.dim() not in (2, 3) or x.shape[-1] != y.shape[-1]:
            raise ValueError(f"x and y must both be [N, D] or both [B, N, D] with one D, {shapes}")
        if 0 in x.shape or 0 in y.shape:
            raise ValueError(f"x and y must have at least one pair, frame and feature, {shapes}")
        if x.dtype != y.dtype or x.device != y.device or not x.is_floating_point():
            raise ValueError(
                "x and y must share a floating dtype and a device, "
                f"found {x.dtype} on {x.device}, {y.dtype} on {y.device}"
            )
        a, b = (upcast(t)[None] if t.dim() == 2 else upcast(t) for t in (x, y))
        batch = max(len(a), len(b))
        if any(len(t) not in (1, batch) for t in (a, b)):
            raise ValueError(f"x and y must have the same number of pairs, or one, {shapes}")
        a, b = a.expand(batch, -1, -1), b.expand(batch, -1, -1)
        checked = []
        for name, lengths, frames in (("lengths_x", lengths_x, a.shape[1]), ("lengths_y", lengths_y, b.shape[1])):
            values = [frames] * batch if lengths is None else [int(n) for n in lengths]
            if len(values) != batch or any(not 1 <= n <= frames for n in values):
                raise ValueError(f"{name} must hold {batch} numbers from 1 to {frames}, found {values}")
            checked.append(values)
        return a, b, checked[0], checked[1]


def _cut(x: Tensor, lengths: list[int]) -> Tensor:
    """``x``, with zeros behind the lengths."""
    if min(lengths) == x.shape[1]:
        return x
    behind = torch.arange(x.shape[1], device=x.device) >= torch.tensor(lengths, device=x.device)[:, None]
    return x.masked_fill(behind[:, :, None], 0.0)
