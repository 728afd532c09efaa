"""Soft dynamic time warping of a batch of cost matrices, by anti-diagonals."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from .derivatives import first_derivative_only
from .precision import most_precise

__all__ = ["soft_dtw"]

Rows = Tensor
"""One anti-diagonal: ``[rows on it, batch]``."""

Pair = tuple[Tensor, Tensor]
"""Something for the predecessor above, ``[N, M, B]``, and for the one on the left, packed."""

SECOND = "the second derivative of soft_dtw"


class _Wavefront:
    """Anti-diagonals of ``[N, M, B]``: the cells with ``i + j = k``, which do not depend on each other.

    Of a band, those with ``|i - j| <= band``. Within one, what a buffer holds from an earlier diagonal has to be
    cleared just outside of the new one; without one (not ``narrow``) nobody has written there.
    """

    def __init__(self, shape: Sequence[int], band: int | None) -> None:
        self.rows, self.columns, self.batch = shape
        self.count = self.rows + self.columns - 1
        self.band = self.count if band is None else band
        self.narrow = self.band < self.count
        self.spans = [self._span(k) for k in range(self.count)]

    def _span(self, k: int) -> tuple[int, int]:
        """First row, and one past the last row, on diagonal ``k``."""
        stop = min(self.rows, k + 1, (k + self.band) // 2 + 1)
        # a diagonal that misses the band has none
        return min(stop, max(0, k - self.columns + 1, (k - self.band + 1) // 2)), stop

    def cells(self, matrix: Tensor) -> list[Rows]:
        """The diagonals of a contiguous matrix, as views."""
        start, batch = matrix.storage_offset(), self.batch
        # a matrix of one column has one cell a diagonal, whose stride does not matter
        strides = max(self.columns - 1, 1) * batch, 1
        return [
            matrix.as_strided((last - first, batch), strides, start + (first * self.columns + k - first) * batch)
            for k, (first, last) in enumerate(self.spans)
        ]

    def packed(self, like: Tensor) -> Tensor:
        """Room for one number a cell, without the cells outside of the band."""
        return like.new_empty(self.batch * sum(last - first for first, last in self.spans))

    def unpacked(self, packed: Tensor) -> list[Rows]:
        """The diagonals of what ``packed`` makes room for, one after the other, as views."""
        sizes = [last - first for first, last in self.spans]
        parts = torch.split_with_sizes(packed, [n * self.batch for n in sizes])
        return [part.view(n, self.batch) for part, n in zip(parts, sizes, strict=True)]

    def edge(self, like: Tensor, fill: float = 0.0) -> Rows:
        """A diagonal by row, with a row more for what lies outside."""
        return like.new_full((self.rows + 1, self.batch), fill)


def _accumulate(
    cost: Tensor, gamma: float, front: _Wavefront, column: Tensor, ends: Collection[int]
) -> tuple[Tensor, Tensor]:
    """``log sum`` over the paths to the cells of the end columns, ``[ends, B]``, and the shares of predecessors.

    The share of a predecessor is its part of that sum: that of the cell above takes the place of the cost, that of
    the cell on the left is returned (packed), and the rest is that of the one between. Three diagonals are held. What
    cannot be reached is near the smallest number, and not minus infinity, whose difference with itself is no number.
    """
    lowest = torch.finfo(cost.dtype).min / 4
    older, last_one, current = (front.edge(cost, lowest) for _ in range(3))
    older[0] = 0.0
    packed = front.packed(cost)
    scratch = cost.new_empty(3, front.rows, front.batch)
    rooms = [(part, part[:2], *part.unbind(0)) for part in (scratch[:, :n] for n in range(front.rows + 1))]
    pairs = torch.arange(front.batch, device=cost.device)
    found = []
    for k, (cells, share) in enumerate(zip(front.cells(cost), front.unpacked(packed), strict=True)):
        first, last = front.spans[k]
        # the rows above are those beside, one further
        near = last_one.as_strided((2, last - first, front.batch), (front.batch, front.batch, 1), first * front.batch)
        between = older[first:last]
        best = torch.maximum(torch.maximum(*near.unbind(0)), between)
        terms, of_near, of_above, of_beside, of_between = rooms[last - first]
        torch.sub(near, best, out=of_near)
        torch.sub(between, best, out=of_between)
        terms.exp_()
        total = of_between.add_(of_above).add_(of_beside)
        now = current[first + 1 : last + 1]
        # clamped for infinite costs
        torch.sub(best.add_(total.log()), cells, alpha=1 / gamma, out=now).clamp_min_(lowest)
        torch.div(of_above, total, out=cells)
        torch.div(of_beside, total, out=share)
        if k == 0:
            older[0] = lowest
        if front.narrow:
            current[first] = lowest
        if k in ends:
            found.append(current[(k - column).clamp(-1, front.rows - 1) + 1, pairs])
        older, last_one, current = last_one, current, older
    values = torch.stack(found)
    return values.masked_fill(values <= lowest / 2, -math.inf), packed


def _distribute(seeds: Tensor, shares: Pair, pulls: Pair | None, front: _Wavefront, ends: Collection[int]) -> Tensor:
    """What each cell gets of ``seeds`` (``[N, M, B]``, on the end diagonals), handed from cell to predecessors.

    Multiplications and additions of shares that sum to 1: nothing grows, whatever the size of the costs. ``pulls``,
    the derivative by the shares, are added to what a share is multiplied with. ``seeds`` is used up.
    """
    older, last_one, above, beside = (front.edge(seeds) for _ in range(4))
    cells, of_above, of_beside = front.cells(seeds), front.cells(shares[0]), front.unpacked(shares[1])
    pull = None if pulls is None else (front.cells(pulls[0]), front.unpacked(pulls[1]))
    for k in reversed(range(front.count)):
        first, last = front.spans[k]
        to_above, to_beside = above[first:last], beside[first:last]
        got = torch.add(above[first + 1 : last + 1], to_beside).add_(older[first + 1 : last + 1])
        if k in ends:
            got.add_(cells[k])
        cells[k].copy_(got)
        if pull is None:
            torch.mul(of_above[k], got, out=to_above)
            torch.mul(of_beside[k], got, out=to_beside)
        else:
            mean = pull[0][k] * of_above[k] + pull[1][k] * of_beside[k]
            torch.mul(of_above[k], got + pull[0][k] - mean, out=to_above)
            torch.mul(of_beside[k], got + pull[1][k] - mean, out=to_beside)
        torch.sub(got, to_above, out=older[first:last]).sub_(to_beside)
        if front.narrow:
            above[last] = beside[last] = older[last] = 0.0
        older, last_one = last_one, older
    return seeds


def _follow(slope: Tensor, alignment: Tensor, shares: Pair, front: _Wavefront) -> tuple[Tensor, Pair]:
    """The transpose of ``_distribute``: sums along the paths to each cell, and the slopes of the shares."""
    older, last_one, current = (front.edge(slope) for _ in range(3))
    result, slopes = slope.clone(), (torch.zeros_like(slope), front.packed(slope))
    views = (front.cells(m) for m in (result, alignment, shares[0], slopes[0]))
    packed = (front.unpacked(m) for m in (shares[1], slopes[1]))
    for k, rows in enumerate(zip(*views, *packed, strict=True)):
        sums, weight, of_above, at_above, of_beside, at_beside = rows
        first, last = front.spans[k]
        between = older[first:last]
        above, beside = last_one[first:last] - between, last_one[first + 1 : last + 1] - between
        torch.mul(above, weight, out=at_above)
        torch.mul(beside, weight, out=at_beside)
        sums.add_(between).add_(of_above * above).add_(of_beside * beside)
        current[first + 1 : last + 1] = sums
        if front.narrow:
            current[first] = 0.0
        older, last_one, current = last_one, current, older
    return result, slopes


class _SoftDTW(torch.autograd.Function):
    """Values at the end of each pair, the shares of predecessors (the first in place of the costs), and the end rows.

    The shares are all that the backward pass needs; they are outputs, so that it can be differentiated again.
    """

    @staticmethod
    def forward(
        cost: Tensor, gamma: float, row: Tensor, column: Tensor, ends: list[int], open_end: bool, front: _Wavefront
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values, beside = _accumulate(cost, gamma, front, column, ends)
        rows = torch.tensor(ends, device=cost.device)[:, None] - column
        if open_end:
            outside = (rows < 0) | (rows > row) | ((rows - column).abs() > front.band)
            place = values.masked_fill(outside, -math.inf).argmax(dim=0)
        else:
            place = (rows == row).to(torch.uint8).argmax(dim=0)
        place = place[None]
        # a row before the first is chosen if all ends are infinite
        value, row = values.gather(0, place)[0] * -gamma, rows.gather(0, place)[0].clamp_min(0)
        return value, cost, beside, row

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        cost, ctx.gamma, _, column, ctx.ends, _, ctx.front = inputs
        ctx.mark_dirty(cost)
        ctx.save_for_backward(*output[1:], column)
        ctx.mark_non_differentiable(output[3])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        above, beside, row, column = ctx.saved_tensors
        at_value, at_above, at_beside, _ = grads
        scale = beside.new_zeros(len(row)) if at_value is None else at_value
        if at_above is None or at_beside is None:
            fixed = (row, column, ctx.ends, ctx.front)
            alignment = _Alignment.apply(scale, above, beside, *fixed)  # type: ignore[no-untyped-call]  # torch
        else:
            seeds = _seeds(scale.detach(), row, column, ctx.front)
            pulls = at_above.detach().contiguous() / -ctx.gamma, at_beside.detach() / -ctx.gamma
            alignment = _distribute(seeds, (above.detach(), beside.detach()), pulls, ctx.front, ctx.ends)
            alignment = first_derivative_only(SECOND, alignment, above, beside, at_value, at_above, at_beside)
        return alignment, None, None, None, None, None, None


class _Alignment(torch.autograd.Function):
    """How much of the soft minimum goes through each cell, times a number for each pair: ``[N, M, B]``."""

    @staticmethod
    def forward(
        scale: Tensor, above: Tensor, beside: Tensor, row: Tensor, column: Tensor, ends: list[int], front: _Wavefront
    ) -> Tensor:
        return _distribute(_seeds(scale, row, column, front), (above, beside), None, front, ends)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.front = inputs[-1]
        ctx.save_for_backward(*inputs[:5], output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scale, above, beside, row, column, alignment = ctx.saved_tensors
        slope, *shares = (t.detach().contiguous() for t in (grads[0], above, beside))
        sums, slopes = _follow(slope, alignment.detach(), (shares[0], shares[1]), ctx.front)
        at_scale = sums[row, column, torch.arange(len(row), device=row.device)]
        sources = grads[0], scale, above, beside
        found = (first_derivative_only(SECOND, t, *sources) for t in (at_scale, *slopes))
        return *found, None, None, None, None


def _seeds(scale: Tensor, row: Tensor, column: Tensor, front: _Wavefront) -> Tensor:
    """Zeros ``[N, M, B]`` with ``scale`` at the end of each pair."""
    seeds = scale.new_zeros((front.rows, front.columns, front.batch))
    seeds[row, column, torch.arange(front.batch, device=row.device)] = scale
    return seeds


def soft_dtw(
    cost: Tensor,
    gamma: float = 1.0,
    *,
    lengths_x: Sequence[int] | None = None,
    lengths_y: Sequence[int] | None = None,
    open_end: bool = False,
    bandwidth: int | None = None,
    batch_last: bool = False,
) -> Tensor:
    """Soft-DTW of a batch: the soft minimum, over monotone paths, of the summed cost, ``[B]``.

    With ``softmin(a) = -gamma log sum exp(-a / gamma)``, ``R_00 = 0`` and infinity outside::

        R_ij = D_ij + softmin(R_{i-1,j-1}, R_{i-1,j}, R_{i,j-1}),   value = R_NM

    Computed in ``N + M - 1`` vector steps over batch and anti-diagonal, forward and backward; time and memory
    ``O(B N M)``; with a bandwidth ``w`` the steps take ``O(B (N + M) w)``, and so do the weights that are kept.

    Sums along paths are taken in float64, where the device has it, and returned in the dtype of ``cost`` (half
    precision: float32). The weights of each softmin are kept for the backward pass, which multiplies and adds them:
    the gradient is exact for the costs that are given, however large they are. It can be differentiated once more.

    Args:
        cost: ``[B, N, M]``; entries behind a pair's lengths do not count.
        gamma: smoothing, greater than 0; towards 0 the value becomes that of dynamic time warping.
        lengths_x: valid rows of each pair; default: all.
        lengths_y: valid columns of each pair; default: all.
        open_end: let ``x`` end anywhere: the smallest ``R_iM`` over the rows ``i``.
        bandwidth: paths may only visit cells with ``|i - j|`` of at most this (Sakoe and Chiba's band), at least 0;
            the others count as infinite and have gradient 0. Default: no band.
        batch_last: ``cost`` is ``[N, M, B]``, contiguous, no leaf and no view, and is not needed any more: spares a
            copy if it is float64.

    Raises:
        ValueError: ``gamma`` or ``bandwidth`` out of range, or a pair whose end lies outside of the band.
        RuntimeError: in the backward pass, when its second derivative is differentiated.

    Papers: Cuturi and Blondel 2017 (arXiv 1703.01541); the second derivative: Mensch and Blondel 2018 (arXiv
    1802.03676); the band: Sakoe and Chiba 1978.
    """
    if not gamma > 0:
        raise ValueError(f"gamma must be greater than 0, found {gamma}")
    rows, columns, batch = cost.shape if batch_last else (*cost.shape[1:], len(cost))
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
    front = _Wavefront((rows, columns, batch), bandwidth)
    ends = sorted({n + m - 2 for n, m in zip(ends_x, ends_y, strict=True)})
    fixed = (gamma, row, column, list(range(front.count)) if open_end else ends, open_end, front)
    table = most_precise(cost) if batch_last else most_precise(cost.permute(1, 2, 0), copy=True)
    value: Tensor = _SoftDTW.apply(table, *fixed)[0]  # type: ignore[no-untyped-call]  # untyped in torch
    return value.to(torch.promote_types(cost.dtype, torch.float32))
