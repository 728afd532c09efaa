"""Soft dynamic time warping of a batch of cost matrices, by anti-diagonals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .precision import upcast

__all__ = ["soft_dtw"]

Rows = Tensor
"""One anti-diagonal: ``[rows on it, batch]``."""


class _Wavefront:
    """Anti-diagonals of ``[N, M, B]``: the cells with ``i + j = k``, which do not depend on each other.

    Of a band, those with ``|i - j| <= band``.
    """

    def __init__(self, shape: torch.Size, band: int | None) -> None:
        self.rows, self.columns, self.batch = shape
        self.count = self.rows + self.columns - 1
        self.band = self.count if band is None else band

    def span(self, k: int) -> tuple[int, int]:
        """First row, and one past the last row, on diagonal ``k``."""
        stop = min(self.rows, k + 1, (k + self.band) // 2 + 1)
        # a diagonal that misses the band has none
        return min(stop, max(0, k - self.columns + 1, (k - self.band + 1) // 2)), stop

    def cells(self, matrix: Tensor, k: int) -> Rows:
        """The cells of diagonal ``k`` of a contiguous matrix, as a view."""
        first, last = self.span(k)
        offset = matrix.storage_offset() + (first * self.columns + k - first) * self.batch
        return matrix.as_strided((last - first, self.batch), (max(self.columns - 1, 1) * self.batch, 1), offset)


def _paths_to(cost: Tensor, band: int | None) -> Tensor:
    """``log sum`` over the paths from the start to each cell of ``exp(-cost of the path)``.

    By diagonal and row, ``[N + M + 1, N + 1, B]``: two more diagonals in front and one more row above, all of minus
    infinity but the start.
    """
    front = _Wavefront(cost.shape, band)
    table = cost.new_full((front.count + 2, front.rows + 1, front.batch), -math.inf)
    table[0, 0] = 0.0
    diagonals = table.unbind(0)
    for k in range(front.count):
        first, last = front.span(k)
        previous = diagonals[k + 1]
        paths = torch.logaddexp(previous[first:last], previous[first + 1 : last + 1])
        torch.logaddexp(paths, diagonals[k][first:last], out=paths)
        torch.sub(paths, front.cells(cost, k), out=diagonals[k + 2][first + 1 : last + 1])
    return table


def _expected_alignment(cost: Tensor, table: Tensor, row: Tensor, column: Tensor, *, band: int | None) -> Tensor:
    """How much of the soft minimum at the cells ``(row_b, column_b)`` goes through each cell, ``[N, M, B]``.

    The same wavefront in reverse gives the paths from each cell to the end; their product with the paths to it,
    relative to all paths, is the derivative of the value with respect to the cost of the cell.
    """
    front = _Wavefront(cost.shape, band)
    pairs = torch.arange(front.batch, device=cost.device)
    # holds the ends first (one path of cost 0); each diagonal is read, then overwritten with its answer
    result = torch.full_like(cost, -math.inf)
    result[row, column, pairs] = 0.0
    total = table[row + column + 2, row + 1, pairs]
    ahead = [cost.new_full((front.rows + 1, front.batch), -math.inf) for _ in range(2)]
    for k in reversed(range(front.count)):
        first, last = front.span(k)
        cells = front.cells(result, k)
        paths = torch.logaddexp(ahead[0][first + 1 : last + 1], ahead[0][first:last])
        torch.logaddexp(paths, ahead[1][first + 1 : last + 1], out=paths)
        torch.logaddexp(paths, cells, out=paths)
        ahead = [ahead[1].fill_(-math.inf), ahead[0]]
        torch.sub(paths, front.cells(cost, k), out=ahead[0][first:last])
        cells.copy_(paths.add_(table[k + 2, first + 1 : last + 1]).sub_(total).exp_())
    # outside of a band nothing was written
    return result if band is None else result.clamp_min_(0.0)


class _SoftDTW(torch.autograd.Function):
    """Values at the end of each pair. Only the costs and the table (about ``2 N^2`` numbers a pair) are kept."""

    @staticmethod
    def forward(
        ctx: Any, cost: Tensor, gamma: float, row: Tensor, column: Tensor, open_end: bool, band: int | None
    ) -> Tensor:
        cells = torch.div(cost.permute(1, 2, 0), gamma, out=cost.new_empty((*cost.shape[1:], len(cost))))
        table = _paths_to(cells, band)
        pairs = torch.arange(len(cost), device=cost.device)
        if open_end:
            rows = torch.arange(len(cells), device=cost.device)[:, None]
            ends = table[rows + column + 2, rows + 1, pairs]
            row = ends.masked_fill(rows > row, -math.inf).argmax(dim=0)
        ctx.save_for_backward(cells, table, row, column)
        ctx.band = band
        return table[row + column + 2, row + 1, pairs] * -gamma

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        alignment = _expected_alignment(*ctx.saved_tensors, band=ctx.band)
        return alignment.mul_(grads[0]).permute(2, 0, 1), None, None, None, None, None


def soft_dtw(
    cost: Tensor,
    gamma: float = 1.0,
    *,
    lengths_x: Sequence[int] | None = None,
    lengths_y: Sequence[int] | None = None,
    open_end: bool = False,
    bandwidth: int | None = None,
) -> Tensor:
    """Soft-DTW of a batch: the soft minimum, over monotone paths, of the summed cost, ``[B]``.

    With ``softmin(a) = -gamma log sum exp(-a / gamma)``, ``R_00 = 0`` and infinity outside::

        R_ij = D_ij + softmin(R_{i-1,j-1}, R_{i-1,j}, R_{i,j-1}),   value = R_NM

    Computed in ``N + M - 1`` vector steps over batch and anti-diagonal, forward and backward; time and memory
    ``O(B N M)``; with a bandwidth ``w`` the steps take ``O(B (N + M) w)``. Half precision is computed in float32. The
    gradient is exact and cannot be differentiated again.

    Args:
        cost: ``[B, N, M]``; entries behind a pair's lengths do not count.
        gamma: smoothing, greater than 0; towards 0 the value becomes that of dynamic time warping.
        lengths_x: valid rows of each pair; default: all.
        lengths_y: valid columns of each pair; default: all.
        open_end: let ``x`` end anywhere: the smallest ``R_iM`` over the rows ``i``.
        bandwidth: paths may only visit cells with ``|i - j|`` of at most this (Sakoe and Chiba's band), at least 0;
            the others count as infinite and have gradient 0. Default: no band.

    Raises:
        ValueError: ``gamma`` or ``bandwidth`` out of range, or a pair whose end lies outside of the band.

    Papers: Cuturi and Blondel 2017 (arXiv 1703.01541); the band: Sakoe and Chiba 1978.
    """
    if not gamma > 0:
        raise ValueError(f"gamma must be greater than 0, found {gamma}")
    batch, rows, columns = cost.shape
    ends_x, ends_y = list(lengths_x or [rows] * batch), list(lengths_y or [columns] * batch)
    if bandwidth is not None:
        # an open end may lie on any earlier row
        beyond = [max(m - n, 0) if open_end else abs(m - n) for n, m in zip(ends_x, ends_y, strict=True)]
        least = max([0, *beyond])
        if not isinstance(bandwidth, int) or bandwidth < least:
            raise ValueError(
                f"bandwidth must be None or an integer at least {least}, so that the end of each pair can be reached "
                f"(lengths {ends_x} and {ends_y}), found {bandwidth!r}"
            )
    row, column = (torch.tensor(ends, device=cost.device) - 1 for ends in (ends_x, ends_y))
    fixed = (gamma, row, column, open_end, bandwidth)
    return torch.as_tensor(_SoftDTW.apply(upcast(cost), *fixed))  # type: ignore[no-untyped-call]  # untyped in torch
