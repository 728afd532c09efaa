"""Pure functions: small numbers worked out by hand, and plain loops beside the fast ones."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from training_losses.functional.cross_entropy import soft_cross_entropy
from training_losses.functional.moments import covariance, covariance_energy, moments, squared_difference
from training_losses.functional.normality import gaussian_quadrature
from training_losses.functional.soft_dtw import soft_dtw

F64 = torch.float64


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(want, dtype=torch.as_tensor(got).dtype))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_soft_cross_entropy_by_hand() -> None:
    """A class that is impossible and not asked for counts nothing."""
    logits = torch.tensor([[[0.0, math.log(3.0)], [-math.inf, 2.0]]], dtype=F64)
    targets = torch.tensor([[[0.5, 0.5], [0.0, 1.0]]], dtype=F64)
    close(soft_cross_entropy(logits, targets), torch.tensor([[-(math.log(0.25) + math.log(0.75)) / 2, 0.0]]))


def test_covariance_by_hand() -> None:
    x = torch.tensor([[0.0, 1.0], [2.0, 5.0], [4.0, 3.0]], dtype=F64)
    close(covariance(x), torch.tensor([[4.0, 2.0], [2.0, 4.0]]))
    close(covariance(x, x[:, :1] * 3), torch.tensor([[12.0], [6.0]]))
    close(covariance(x[:1]), torch.zeros(2, 2))
    close(covariance(x[:2]), torch.tensor([[2.0, 4.0], [4.0, 8.0]]))


@pytest.mark.parametrize("shape", [(6, 5), (5, 6), (5, 5), (7, 3)])
def test_moments_in_blocks_mapped_and_compiled(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of any size, tall and wide matrices, and the form that a compiler sees give the same."""
    x = random(*shape)
    matrix = covariance(x)
    want = (matrix.diagonal(), matrix.square().sum() - matrix.diagonal().square().sum())
    for size in (None, 1, 2, 4):
        for got, wanted in zip(moments(x, chunk_size=size), want, strict=True):
            close(got, wanted)
    stacked = torch.stack([x, 2 * x])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="There is a performance drop")
        close(torch.vmap(covariance_energy)(stacked), torch.stack([want[1], 16 * want[1]]))
        close(torch.vmap(squared_difference)(stacked, torch.zeros_like(stacked))[0], x.square().mean())
    plain = squared_difference(x, 2 * x[[*range(1, shape[0]), 0]])
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    close(squared_difference(x, 2 * x[[*range(1, shape[0]), 0]]), plain)
    for recompute in (False, True):
        for got, wanted in zip(moments(x, chunk_size=2, recompute=recompute), want, strict=True):
            close(got, wanted)


def test_quadrature_by_hand() -> None:
    """Steps of 1, halved at the ends, under exp(-t^2 / 8)."""
    close(
        gaussian_quadrature(torch.tensor([0.0, 1.0, 2.0], dtype=F64), 2.0),
        torch.tensor([0.5, math.exp(-1 / 8), 0.5 * math.exp(-1 / 2)]),
    )


def by_cells(cost: Tensor, gamma: float, band: int | None) -> list[list[float]]:
    """Soft-DTW to each cell, cell by cell."""
    rows, columns = cost.shape
    table = [[math.inf] * (columns + 1) for _ in range(rows + 1)]
    table[0][0] = 0.0
    for i in range(rows):
        for j in range(columns):
            before = [table[i][j], table[i][j + 1], table[i + 1][j]]
            if min(before) < math.inf and (band is None or abs(i - j) <= band):
                least = min(before)
                total = sum(math.exp((least - value) / gamma) for value in before if value < math.inf)
                table[i + 1][j + 1] = float(cost[i, j]) + least - gamma * math.log(total)
    return table


@pytest.mark.parametrize("band", [None, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_soft_dtw_cell_by_cell(seed: int, band: int | None) -> None:
    """Pairs of several lengths in one batch, with a fixed or an open end of the rows."""
    cost = random(4, 5, 4, seed=seed).square()
    rows, columns = [5, 4, 3, 4], [4, 4, 3, 3]
    for open_end in (False, True):
        got = soft_dtw(cost, 0.3, lengths_x=rows, lengths_y=columns, open_end=open_end, bandwidth=band)
        for value, each, n, m in zip(got, cost, rows, columns, strict=True):
            table = by_cells(each[:n, :m], 0.3, band)
            want = min(row[m] for row in table[1:]) if open_end else table[n][m]
            assert float(value) == pytest.approx(want, rel=1e-9)
