"""First and second moments of embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .precision import autocast_off, not_finite, upcast


def center(x: Tensor) -> Tensor:
    """``x`` minus its mean over the rows, in float32 or better."""
    x = upcast(x)
    return x - x.mean(dim=0, keepdim=True)


def standardize(x: Tensor, *, eps: float, unbiased: bool = True) -> Tensor:
    """Columns of mean 0 and variance 1: ``(x - mean) / sqrt(var + eps)``; NaN where the variance overflows."""
    x = center(x)
    variance = x.square().sum(dim=0) / max(x.shape[0] - unbiased, 1)
    return x / (variance + eps + not_finite(variance)).sqrt()


def covariance(x: Tensor, y: Tensor | None = None) -> Tensor:
    """``x^T y / (B - 1)`` of centred rows, shape ``[D, D']``; ``y`` defaults to ``x``. Inputs are centred here."""
    x = center(x)
    y = x if y is None else center(y)
    with autocast_off(x):
        return x.mT @ y / max(x.shape[0] - 1, 1)


def off_diagonal_energy(matrix: Tensor) -> Tensor:
    """Sum of the squared off-diagonal entries of a square matrix."""
    return matrix.square().sum() - matrix.diagonal().square().sum()


def covariance_energy(x: Tensor, *, chunk_size: int | None = None, recompute: bool = False) -> Tensor:
    """Sum of the squared off-diagonal entries of the covariance of ``[B, D]`` rows: the second of ``moments``."""
    return moments(x, chunk_size=chunk_size, recompute=recompute)[1]


def moments(x: Tensor, *, chunk_size: int | None = None, recompute: bool = False) -> tuple[Tensor, Tensor]:
    """Variances of the columns of ``[B, D]`` rows, and the sum of the squared off-diagonal entries of their covariance.

    With centred rows, ``C = x^T x / (B - 1)`` is ``[D, D]`` and the Gram matrix ``G = x x^T / (B - 1)`` is ``[B, B]``.
    Both have the same sum of squares, so for ``B < D`` the energy is ``|G|^2 - sum_k C_kk^2`` (exact, also its
    gradient; where one column outweighs all others by far the difference loses digits). Between forward and backward
    only ``x`` (float32 or better, ``B >= 2``) and the smaller matrix are held: the centred rows are formed again.

    ``chunk_size``: columns of the matrix that are formed at a time, in the backward pass again; default: all.
    ``recompute``: form the matrix again in the backward pass instead of holding it.
    """
    if not torch.compiler.is_compiling():
        found = _Moments.apply(x, chunk_size, recompute)  # type: ignore[no-untyped-call]  # torch has no hint
    elif recompute:
        found = checkpoint(_moments, x, chunk_size, use_reentrant=False, preserve_rng_state=False)
    else:  # a compiler decides itself what it holds
        found = _moments(x, chunk_size)
    return found[0], found[1]


class _Moments(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, chunk_size: int | None, recompute: bool) -> tuple[Tensor, Tensor, Tensor]:
        variance, energy, block = _moments(x, chunk_size)
        return variance, energy, x.new_empty(0) if recompute or chunk_size is not None else block

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, ctx.chunk_size, _ = inputs
        ctx.save_for_backward(x, output[2])
        ctx.mark_non_differentiable(output[2])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor, None, None]:
        x, held = ctx.saved_tensors
        x = _center_exactly(x)
        slope, pull = (x.new_zeros(()) if grad is None else grad for grad in grads[:2])
        rows, wide = x.shape[0] - 1, _is_wide(x)
        # d variance / dx = 2 x / (B - 1), d energy / dx = 4 x C / (B - 1) without the diagonal of C
        if wide:
            slope = slope - 2 * pull * torch.linalg.vector_norm(x, dim=0).square() / rows
        grad = x * (2 / rows * slope)
        factor, into = (x.mT, grad.mT) if wide else (x, grad)
        # the matrix that was held is a constant: a gradient of the gradient needs it as a function of x
        held = None if torch.is_grad_enabled() or not held.numel() else held
        with autocast_off(x):
            for start, stop in _blocks(x, ctx.chunk_size):
                block = _block(x, start, stop) if held is None else held
                into.addmm_(factor[:, start:stop], block.mT * (4 / rows * pull))
        return grad, None, None


def _moments(x: Tensor, chunk_size: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Variances, energy, and the last columns of the smaller matrix."""
    x = _center_exactly(x)
    # a norm makes no copy of its argument, a square does
    variance = torch.linalg.vector_norm(x, dim=0).square() / (x.shape[0] - 1)
    energy, block = x.new_zeros(()), x.new_empty(0)
    for start, stop in _blocks(x, chunk_size):
        block = _block(x, start, stop)
        energy = energy + torch.linalg.vector_norm(block).square()
    if _is_wide(x):
        energy = energy - variance.square().sum()
    return variance, energy, block


def _center_exactly(x: Tensor) -> Tensor:
    """``center`` twice: far from the origin the mean is rounded, which would stay in the gradient as an offset."""
    x = center(x)
    return x.sub_(x.mean(dim=0, keepdim=True))


def _is_wide(x: Tensor) -> bool:
    return x.shape[0] < x.shape[1]


def _blocks(x: Tensor, chunk_size: int | None) -> list[tuple[int, int]]:
    size = min(x.shape)
    step = chunk_size or size
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def _block(x: Tensor, start: int, stop: int) -> Tensor:
    """Columns of the Gram matrix of centred rows, or of their covariance without its diagonal."""
    factor = x.mT if _is_wide(x) else x
    with autocast_off(x):
        product = (factor.mT @ factor[:, start:stop]).div_(x.shape[0] - 1)
    if not _is_wide(x):
        product.diagonal(-start).zero_()
    return product


def squared_difference(a: Tensor, b: Tensor, *, centered: bool = False) -> Tensor:
    """``mean (a_ik - b_ik)^2`` of two matrices; ``centered`` subtracts the column means of the difference before.

    Between forward and backward only ``a`` and ``b`` are held.
    """
    if torch.compiler.is_compiling():  # a compiler decides itself what it holds
        return _difference(a, b, centered).square().mean()
    result: Tensor = _SquaredDifference.apply(a, b, centered)  # type: ignore[no-untyped-call]  # torch has no hint
    return result


class _SquaredDifference(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a: Tensor, b: Tensor, centered: bool) -> Tensor:
        return _difference(a, b, centered).square_().mean()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, b, ctx.centered = inputs
        ctx.save_for_backward(a, b)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        a, b = ctx.saved_tensors
        grad = _difference(a, b, ctx.centered) * (2 / a.numel() * grads[0])
        return grad, -grad, None


def _difference(a: Tensor, b: Tensor, centered: bool) -> Tensor:
    return _center_exactly(a - b) if centered else a - b
