"""First and second moments of embeddings."""

from __future__ import annotations

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .precision import autocast_off, upcast

__all__ = ["center", "covariance", "covariance_energy", "off_diagonal_energy", "standardize"]


def center(x: Tensor) -> Tensor:
    """``x`` minus its mean over the rows, in float32 or better."""
    x = upcast(x)
    return x - x.mean(dim=0, keepdim=True)


def standardize(x: Tensor, *, eps: float, unbiased: bool = True) -> Tensor:
    """Columns of mean 0 and variance 1: ``(x - mean) / sqrt(var + eps)``."""
    x = center(x)
    return x / (x.square().sum(dim=0) / max(x.shape[0] - unbiased, 1) + eps).sqrt()


def covariance(x: Tensor, y: Tensor | None = None) -> Tensor:
    """``x^T y / (B - 1)`` of centred rows, shape ``[D, D']``; ``y`` defaults to ``x``. Inputs are centred here."""
    x = center(x)
    y = x if y is None else center(y)
    with autocast_off(x):
        return x.mT @ y / max(x.shape[0] - 1, 1)


def off_diagonal_energy(matrix: Tensor) -> Tensor:
    """Sum of the squared off-diagonal entries of a square matrix."""
    return matrix.square().sum() - matrix.diagonal().square().sum()


def covariance_energy(
    x: Tensor, *, chunk_size: int | None = None, recompute: bool = False, centered: bool = False
) -> Tensor:
    """Sum of the squared off-diagonal entries of the covariance of ``[B, D]`` rows, without building more than needed.

    With centred rows, ``C = x^T x / (B - 1)`` is ``[D, D]`` and the Gram matrix ``G = x x^T / (B - 1)`` is ``[B, B]``.
    Both have the same sum of squares, so for ``B < D`` the energy is ``|G|^2 - sum_k C_kk^2`` (exact, also its
    gradient; where one column outweighs all others by far the difference loses digits).

    Args:
        x: ``[B, D]`` with ``B >= 2``.
        chunk_size: columns of the matrix that are formed at a time; default: all.
        recompute: form the matrix again in the backward pass instead of keeping it.
        centered: the columns have mean 0 already.
    """
    x = x if centered else center(x)
    rows, columns = x.shape
    gram = rows < columns
    factor = x.mT if gram else x

    def block(factor: Tensor, start: int, stop: int) -> Tensor:
        with autocast_off(factor):
            # a slice of everything would cost a copy in the backward pass
            part = factor if stop - start == factor.shape[1] else factor[:, start:stop]
            product = (factor.mT @ part).div_(rows - 1)
        if not gram:
            product.diagonal(-start).zero_()
        return product.square().sum()

    size = min(rows, columns)
    step = size if chunk_size is None else chunk_size
    energy = x.new_zeros(())
    for start in range(0, size, step):
        bounds = (start, min(start + step, size))
        if recompute:
            energy = energy + checkpoint(block, factor, *bounds, use_reentrant=False, preserve_rng_state=False)
        else:
            energy = energy + block(factor, *bounds)
    return energy - (x.square().sum(dim=0) / (rows - 1)).square().sum() if gram else energy
