"""First and second moments of embeddings."""

from __future__ import annotations

from torch import Tensor

from .precision import autocast_off, upcast

__all__ = ["center", "covariance", "off_diagonal_energy", "standardize"]


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
