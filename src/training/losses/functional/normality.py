"""How far samples are from a standard normal distribution. Rows are samples: ``[M, n] -> [M]``."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["characteristic_distance", "gaussian_quadrature", "kernel_distance", "normal_quantiles"]


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
    """
    phase = y.unsqueeze(-1) * knots
    real = phase.cos().mean(dim=1) - torch.exp(-0.5 * knots.square())
    return (real.square() + phase.sin().mean(dim=1).square()) @ weights


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
