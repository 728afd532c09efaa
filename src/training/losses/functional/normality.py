"""How far samples are from a standard normal distribution. Rows are samples: ``[M, n] -> [M]``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["characteristic_distance", "gaussian_quadrature", "kernel_distance", "normal_quantiles"]

_TILE = 2**18
"""Cosines that are formed at a time."""


def gaussian_quadrature(knots: Tensor, window: float) -> Tensor:
    """Weights of ``integral g(t) exp(-t^2 / (2 window^2)) dt`` by the trapezoid rule over evenly spaced ``knots``."""
    step = (knots[-1] - knots[0]) / (knots.shape[0] - 1)
    inner = torch.ones_like(knots)
    inner[0], inner[-1] = 0.5, 0.5
    return step * inner * torch.exp(-0.5 * (knots / window).square())


def normal_quantiles(count: int) -> Tensor:
    """Quantiles of N(0, 1) at ``count`` levels between 0.01 and 0.99, evenly spaced."""
    return torch.erfinv(2 * torch.linspace(0.01, 0.99, count) - 1) * math.sqrt(2.0)


def characteristic_distance(y: Tensor, knots: Tensor, weights: Tensor) -> Tensor:
    """``sum_k q_k |phi(t_k) - exp(-t_k^2 / 2)|^2`` with the empirical characteristic function ``phi`` of each row.

    With the weights of ``gaussian_quadrature`` this is the statistic of Epps and Pulley (1983), divided by ``n``.
    Between forward and backward ``y`` and one more number for each of its entries are held.
    """
    if torch.compiler.is_compiling():  # a compiler decides itself what it holds
        real, imaginary, _, _ = _characteristic(y, knots)
        return (real.square() + imaginary.square()) @ weights
    sloped = torch.is_grad_enabled() and y.requires_grad
    found = _CharacteristicDistance.apply(y, knots, weights, sloped)  # type: ignore[no-untyped-call]
    distance: Tensor = found[0]
    return distance


def _characteristic(y: Tensor, knots: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Real and imaginary part of ``phi(t_k) - exp(-t_k^2 / 2)``, and the cosines and sines that they are means of."""
    phase = y.unsqueeze(-1) * knots
    cos, sin = phase.cos(), phase.sin()
    return cos.mean(dim=1) - torch.exp(-0.5 * knots.square()), sin.mean(dim=1), cos, sin


def _slope(parts: tuple[Tensor, Tensor, Tensor, Tensor], knots: Tensor, weights: Tensor) -> Tensor:
    """The derivative of the distance by ``y``: ``2/n sum_k q_k t_k (imaginary_k cos t_k y - real_k sin t_k y)``."""
    real, imaginary, cos, sin = parts
    turn = weights * knots * (2.0 / cos.shape[1])
    return (cos @ (imaginary * turn).unsqueeze(-1) - sin @ (real * turn).unsqueeze(-1)).squeeze(-1)


class _CharacteristicDistance(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, knots: Tensor, weights: Tensor, sloped: bool) -> tuple[Tensor, Tensor]:
        # cosines and sines serve the slope at once, a few rows at a time, so that they stay in the cache
        step = max(_TILE // max(y.shape[1] * knots.shape[0], 1), 1)
        distances, slopes = [], []
        for rows in torch.split(y, step):
            parts = _characteristic(rows, knots)
            distances.append((parts[0].square() + parts[1].square()) @ weights)
            if sloped:
                slopes.append(_slope(parts, knots, weights))
        return torch.cat(distances), torch.cat(slopes) if sloped else y.new_empty(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        y, knots, weights, _ = inputs
        ctx.save_for_backward(y, knots, weights, output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        y, knots, weights, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of the gradient needs the slope as a function of y
            slope = _slope(_characteristic(y, knots), knots, weights)
        return slope * grads[0].unsqueeze(-1), None, None, None


def _kernel_sum(u: Tensor, v: Tensor) -> Tensor:
    return torch.exp(-0.5 * (u.unsqueeze(-1) - v.unsqueeze(-2)).square()).sum(dim=(-2, -1))


def kernel_distance(y: Tensor, points: Tensor, *, rows: int | None = None) -> Tensor:
    """Squared maximum mean discrepancy (biased, kernel ``exp(-(u - v)^2 / 2)``) between each row and ``points``.

    Args:
        y: ``[M, n]``.
        points: ``[K]``.
        rows: values of ``y`` that are compared with all others at a time; fewer than ``n`` bounds the memory to
            ``[M, rows, n]``, and the kernel is formed again in the backward pass.
    """
    n, k = y.shape[1], points.shape[0]
    if rows is None or rows >= n:
        own = _kernel_sum(y, y)
    else:
        own = y.new_zeros(y.shape[0])
        for part in torch.split(y, rows, dim=1):
            own = own + checkpoint(_kernel_sum, part, y, use_reentrant=False, preserve_rng_state=False)
    cross, fixed = _kernel_sum(y, points), _kernel_sum(points, points)
    return own / (n * n) - cross * (2.0 / (n * k)) + fixed / (k * k)
