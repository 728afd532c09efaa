"""Entropic transport plans by POT (Python Optimal Transport), with the gradient through the iterations."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..base import require_choice, require_number
from ..functional import autocast_off, upcast

__all__ = ["require_pot", "sinkhorn_plan", "transport_cost"]

METHODS = ("auto", "kernel", "log")

LOG_DOMAIN_ABOVE = {torch.float32: 60.0, torch.float64: 600.0}
"""``max(cost) / epsilon`` from which ``exp(-cost / epsilon)`` comes near the smallest number of the dtype."""


def require_pot() -> ModuleType:
    """The package ``ot``.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module("ot")
    except ImportError as error:
        raise ImportError(
            "the Sinkhorn plan needs POT, which is not installed: pip install 'training-losses[alignment]'"
        ) from error


class _KernelPlan(torch.autograd.Function):
    """``ot.sinkhorn`` without a graph, and the exact gradient through its iterations.

    The iterations ``v = b / (K^T u)``, ``u = a / (K v)`` are run again in the backward pass (vectors only), then
    reversed; their contributions to the gradient of ``K`` are sums of outer products, which one matrix product adds up.
    """

    @staticmethod
    def forward(
        ctx: Any, cost: Tensor, epsilon: float, iterations: int, tol: float, rows: Tensor, columns: Tensor
    ) -> Tensor:
        plan, log = require_pot().sinkhorn(
            rows, columns, cost, epsilon, method="sinkhorn", numItermax=iterations, stopThr=tol, warn=False, log=True
        )
        ctx.epsilon, ctx.iterations = epsilon, log["niter"] + 1
        ctx.save_for_backward(cost, plan, rows, columns)
        return torch.as_tensor(plan)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        cost, plan, rows, columns = ctx.saved_tensors
        kernel = torch.exp(cost / -ctx.epsilon)
        u = [torch.full_like(rows, 1.0 / len(rows))]
        v: list[Tensor] = []
        for _ in range(ctx.iterations):
            v.append(columns / (u[-1] @ kernel))
            u.append(rows / (kernel @ v[-1]))
        flow = grads[0] * plan
        at_u, at_v = flow.sum(dim=1) / u[-1], flow.sum(dim=0) / v[-1]
        left, right = [], []
        for step in reversed(range(ctx.iterations)):
            outer = at_u * -u[step + 1].square() / rows
            at_v = at_v + outer @ kernel
            inner = at_v * -v[step].square() / columns
            left += [outer, u[step]]
            right += [v[step], inner]
            at_u, at_v = kernel @ inner, torch.zeros_like(at_v)
        at_kernel = torch.stack(left, dim=1) @ torch.stack(right)
        return (flow + at_kernel * kernel) / -ctx.epsilon, None, None, None, None, None


def sinkhorn_plan(
    cost: Tensor,
    epsilon: float,
    *,
    num_iters: int = 20,
    tol: float = 0.0,
    row_mass: Tensor | None = None,
    column_mass: Tensor | None = None,
    method: str = "auto",
) -> Tensor:
    """The transport plan after ``num_iters`` Sinkhorn iterations: ``T = diag(u) exp(-cost / epsilon) diag(v)``.

    Columns are scaled first, rows last, so that row sums are exact and column sums as good as the iterations got. The
    plan is that of ``ot.sinkhorn(row_mass, column_mass, cost, epsilon, numItermax=num_iters, stopThr=tol)``; the
    gradient goes through all iterations. POT looks at its scalings on the host.

    Args:
        cost: ``[N, M]``, or ``[B, N, M]`` for one POT call in the log domain (it keeps the graph of every iteration).
        epsilon: entropic temperature, greater than 0; the larger, the more uniform the plan.
        num_iters: at least 1.
        tol: stop when the column sums are off by less; POT looks at every tenth iteration. 0: never.
        row_mass: ``[N]``; default: uniform. No gradient.
        column_mass: ``[M]``.
        method: ``kernel``, ``log`` (finite where ``exp(-cost / epsilon)`` underflows, slower), or ``auto``: by the
            range of the costs.

    Paper: Cuturi 2013 (arXiv 1306.0895).

    Raises:
        ValueError: an argument out of range or of another shape.
        ImportError: POT is not installed.
    """
    pot = require_pot()
    require_number("epsilon", epsilon, low=0.0, exclusive=True)
    require_number("num_iters", num_iters, low=1, integer=True)
    require_number("tol", tol, low=0.0)
    require_choice("method", method, METHODS)
    if cost.dim() not in (2, 3) or not cost.numel() or not cost.is_floating_point():
        raise ValueError(f"cost must be a floating [N, M] or [B, N, M], found {cost.dtype} {list(cost.shape)}")
    cost = upcast(cost)
    masses = []
    for name, mass, size in (("row_mass", row_mass, cost.shape[-2]), ("column_mass", column_mass, cost.shape[-1])):
        if mass is not None and mass.shape != (size,):
            raise ValueError(f"{name} must be [{size}], found {list(mass.shape)}")
        masses.append(cost.new_full((size,), 1.0 / size) if mass is None else mass.detach().to(cost))
    rows, columns = masses
    with autocast_off(cost):
        if cost.dim() == 3:
            # POT scales rows first here, hence the transposition
            rows, columns = (mass.expand(len(cost), -1) for mass in masses)
            found = pot.batch.bregman_log_projection_batch(
                cost.mT / -epsilon, a=columns, b=rows, max_iter=num_iters, tol=tol, grad="autodiff"
            )
            return torch.as_tensor(found["T"].mT)
        if method == "auto":
            span = (cost.detach().amax() - cost.detach().amin().clamp_max(0)) / epsilon
            method = "log" if bool(span > LOG_DOMAIN_ABOVE[cost.dtype]) else "kernel"
        if method == "kernel":
            fixed = (epsilon, num_iters, tol, rows, columns)
            return torch.as_tensor(_KernelPlan.apply(cost, *fixed))  # type: ignore[no-untyped-call]  # untyped in torch
        plan = pot.sinkhorn(
            rows, columns, cost, epsilon, method="sinkhorn_log", numItermax=num_iters, stopThr=tol, warn=False
        )
        return torch.as_tensor(plan)


def transport_cost(plan: Tensor, cost: Tensor) -> Tensor:
    """``<T, cost>``, ``[...]``, with the envelope gradient: ``T``, the derivative of the entropic optimum."""
    return (plan.detach() * cost).sum(dim=(-2, -1))
