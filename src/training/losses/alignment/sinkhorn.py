"""Entropic transport plans by POT (Python Optimal Transport), with the gradient through the iterations."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import require_choice, require_number
from ..functional import autocast_off, first_derivative_only, upcast
from .sequences import cached, frame_mask

__all__ = ["METHODS", "require_pot", "sinkhorn_plan", "transport_cost"]

METHODS = ("auto", "kernel", "log")

LOG_DOMAIN_ABOVE = {torch.float32: 60.0, torch.float64: 600.0}
"""``max(cost) / epsilon`` from which ``exp(-cost / epsilon)`` comes near the smallest number of the dtype."""

Lengths = tuple[int, ...]


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


def _project(kernel: Tensor, rows: Tensor, columns: Tensor, iterations: int, tol: float, **log: Any) -> tuple[Any, int]:
    """POT's plans ``[B, N, M]`` of a batch, and how many iterations it made."""
    batch = require_pot().batch
    project = batch.bregman_log_projection_batch if log else batch.bregman_projection_batch
    # POT makes its first scalings where tensors are made by default
    on_host = kernel.device.type == "cpu"
    place: AbstractContextManager[Any] = nullcontext() if on_host else kernel.device
    with place:
        # POT scales rows first here, hence the transposition
        found = project(kernel.mT, a=columns, b=rows, max_iter=iterations, tol=tol, **({"grad": "detach"} | log))
    return found["T"].mT.to(kernel.dtype), found["n_iters"] + 1


class _KernelPlan(torch.autograd.Function):
    """POT's plans without a graph, and the exact gradient through the iterations.

    The iterations ``v = b / (K^T u)``, ``u = a / (K v)`` are run again in the backward pass (vectors only) until they
    stand still, then reversed; their contributions to the gradient of ``K`` are sums of outer products, which one
    matrix product adds up. What POT does to scalings that stand still is rounding.
    """

    @staticmethod
    def forward(
        ctx: Any,
        cost: Tensor,
        scale: Tensor,
        fixed: tuple[int, float],
        masses: tuple[Tensor, Tensor],
        cells: Tensor | None,
        blocks: Tensor | None,
    ) -> Tensor:
        kernel = (cost / scale).neg_() if cells is None else (cost / scale).mul_(cells).neg_()
        kernel.exp_()
        if blocks is not None:
            kernel.mul_(blocks)
        plan: Tensor
        plan, ctx.iterations = _project(kernel, *masses, *fixed)
        if cells is not None:
            plan = plan * cells
        ctx.save_for_backward(kernel, plan, scale, *masses)
        return plan

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        held = ctx.saved_tensors
        with torch.no_grad():
            found = _KernelPlan._gradient(ctx.iterations, grads[0], *held)
        # the plan carries the graph of the costs
        return first_derivative_only("the gradient of sinkhorn_plan", found, held[1], *grads), *[None] * 5

    @staticmethod
    def _gradient(
        iterations: int, grad: Tensor, kernel: Tensor, plan: Tensor, scale: Tensor, rows: Tensor, columns: Tensor
    ) -> Tensor:
        u, v = _scalings(kernel, rows, columns, iterations)
        flow = grad * plan
        at_u, at_v = flow.sum(dim=2) / u[-1], flow.sum(dim=1) / v[-1]
        left, right = [], []
        for step in reversed(range(len(v))):
            outer = at_u * -u[step + 1].square() / rows
            inner = (at_v + _down(kernel, outer)) * -v[step].square() / columns
            left += [outer, u[step]]
            right += [v[step], inner]
            at_u, at_v = _across(kernel, inner), torch.zeros_like(at_v)
        at_kernel = torch.stack(left, dim=2) @ torch.stack(right, dim=1)
        return at_kernel.mul_(kernel).add_(flow).div_(-scale)


def _down(kernel: Tensor, u: Tensor) -> Tensor:
    """``K^T u`` of every pair; a batch of products of a matrix and a vector is slower."""
    return (kernel * u[:, :, None]).sum(dim=1)


def _across(kernel: Tensor, v: Tensor) -> Tensor:
    """``K v``."""
    return (kernel * v[:, None, :]).sum(dim=2)


def _scalings(kernel: Tensor, rows: Tensor, columns: Tensor, iterations: int) -> tuple[list[Tensor], list[Tensor]]:
    """``u_0, u_1, ...`` and ``v_1, ...``, up to the first ones that stand still (asked on the CPU only: it waits)."""
    still = 4 * torch.finfo(kernel.dtype).eps if kernel.device.type == "cpu" else -1.0
    u, v = [torch.ones_like(rows)], []
    for _ in range(iterations):
        v.append(columns / _down(kernel, u[-1]))
        u.append(rows / _across(kernel, v[-1]))
        if still > 0 and bool(((u[-1] - u[-2]).abs() <= still * u[-1]).all()):
            break
    return u, v


def _padded(row_lengths: Lengths, column_lengths: Lengths, rows: int, columns: int) -> Tensor:
    """``[2, B, rows, columns]``: 1 for the cells of the costs, and 1 for those of the costs and of the padding.

    Padding that exchanges nothing with the costs, but has a mass of its own, leaves them alone.
    """
    r, c = frame_mask(row_lengths, rows)[:, :, None], frame_mask(column_lengths, columns)[:, None, :]
    return torch.stack([r & c, r == c])


def _uniform(lengths: Lengths, size: int) -> Tensor:
    """``[B, size]``: a mass of 1 on the frames, and of 1 on the padding."""
    real = frame_mask(lengths, size).double()
    length = real.sum(dim=1, keepdim=True)
    return real / length + (1 - real) / (size - length).clamp_min(1)


def sinkhorn_plan(
    cost: Tensor,
    epsilon: float | Tensor,
    *,
    num_iters: int = 20,
    tol: float = 0.0,
    row_mass: Tensor | None = None,
    column_mass: Tensor | None = None,
    row_lengths: Sequence[int] | None = None,
    column_lengths: Sequence[int] | None = None,
    method: str = "auto",
) -> Tensor:
    """The entropic transport plan ``T = diag(u) exp(-cost / epsilon) diag(v)`` after ``num_iters`` Sinkhorn scalings.

    Columns are scaled first, rows last, so that row sums are exact and column sums as good as the iterations got. The
    plan is that of ``ot.sinkhorn(row_mass, column_mass, cost, epsilon, numItermax=num_iters, stopThr=tol)``; POT's
    batched projections find it, for all pairs at once. The gradient goes through all iterations.

    Args:
        cost: ``[N, M]``, or ``[B, N, M]`` for a batch.
        epsilon: entropic temperature, greater than 0; the larger, the more uniform the plan. A number, or ``[B]``
            (whose range is not looked at).
        num_iters: at least 1.
        tol: stop when the column sums of every pair are off by less (Euclidean norm); POT looks at the first
            iteration and at each tenth from there. 0: never.
        row_mass: ``[N]``, of every pair; default: uniform. No gradient.
        column_mass: ``[M]``.
        row_lengths: valid rows of each pair in a padded batch, with uniform masses; the plan is 0 elsewhere. Costs
            elsewhere must be finite.
        column_lengths: valid columns; both or none.
        method: ``kernel``; ``log`` (finite where ``exp(-cost / epsilon)`` underflows, several times slower, and keeps
            the graph of every iteration); or ``auto``: by the range of the costs.

    Host and device: ``auto`` reads the range of the costs on the host, and POT reads the column sums each time it
    looks (twice in 20 iterations). On accelerators each of them waits for the device; ``kernel`` and ``log`` avoid the
    first.

    Paper: Cuturi 2013 (arXiv 1306.0895).

    Raises:
        ValueError: an argument out of range or of another shape.
        ImportError: POT is not installed.
    """
    require_number("num_iters", num_iters, low=1, integer=True)
    require_number("tol", tol, low=0.0)
    require_choice("method", method, METHODS)
    if cost.dim() not in (2, 3) or not cost.numel() or not cost.is_floating_point():
        raise ValueError(f"cost must be a floating [N, M] or [B, N, M], found {cost.dtype} {list(cost.shape)}")
    batch = upcast(cost[None] if cost.dim() == 2 else cost)
    count, *sizes = batch.shape
    if isinstance(epsilon, Tensor):
        if epsilon.shape != (count,):
            raise ValueError(f"epsilon must be a number or [{count}], found {list(epsilon.shape)}")
        scale = epsilon.detach().to(batch)[:, None, None]
    else:
        require_number("epsilon", epsilon, low=0.0, exclusive=True)
        scale = batch.new_full((1, 1, 1), epsilon)
    cells = blocks = None
    masses = []
    if row_lengths is not None and column_lengths is not None:
        lengths = _lengths("row_lengths", row_lengths, count, sizes[0])
        across = _lengths("column_lengths", column_lengths, count, sizes[1])
        if row_mass is not None or column_mass is not None:
            raise ValueError("row_mass and column_mass must be None with row_lengths, found a mass")
        if min(lengths) < sizes[0] or min(across) < sizes[1]:
            # every pair needs padding in both directions
            more = int(max(lengths) == sizes[0] or max(across) == sizes[1])
            batch = F.pad(batch, (0, more, 0, more))
            cells, blocks = cached(_padded, lengths, across, *batch.shape[1:], like=batch)
        for each, size in zip((lengths, across), batch.shape[1:], strict=True):
            masses.append(cached(_uniform, each, size, like=batch))
    elif row_lengths is not None or column_lengths is not None:
        raise ValueError("row_lengths and column_lengths must both be given, found one")
    else:
        for name, mass, size in zip(("row_mass", "column_mass"), (row_mass, column_mass), sizes, strict=True):
            if mass is not None and mass.shape != (size,):
                raise ValueError(f"{name} must be [{size}], found {list(mass.shape)}")
            mass = batch.new_full((size,), 1.0 / size) if mass is None else mass.detach().to(batch)
            masses.append(mass.expand(count, -1))
    of_rows, of_columns = masses
    with autocast_off(batch):
        if method == "auto":
            costs = batch.detach() if cells is None else batch.detach() * cells
            low, high = costs.amin(dim=(1, 2)).clamp_max(0), costs.amax(dim=(1, 2)).clamp_min(0)
            span = (high - low) / scale[:, 0, 0]
            method = "log" if bool((span > LOG_DOMAIN_ABOVE[batch.dtype]).any()) else "kernel"
        if method == "kernel":
            fixed = (scale, (num_iters, tol), (of_rows, of_columns), cells, blocks)
            plan = torch.as_tensor(_KernelPlan.apply(batch, *fixed))  # type: ignore[no-untyped-call]  # untyped in torch
        else:
            logits = batch / -scale if cells is None else (batch * cells / -scale).masked_fill(blocks == 0, -torch.inf)
            plan, _ = _project(logits, of_rows, of_columns, num_iters, tol, grad="autodiff")
            plan = plan if cells is None else plan * cells
    plan = plan[:, : sizes[0], : sizes[1]]
    return plan[0] if cost.dim() == 2 else plan


def _lengths(name: str, lengths: Sequence[int], count: int, size: int) -> Lengths:
    found = tuple(int(n) for n in lengths)
    if len(found) != count or any(not 1 <= n <= size for n in found):
        raise ValueError(f"{name} must hold {count} numbers from 1 to {size}, found {list(found)}")
    return found


def transport_cost(plan: Tensor, cost: Tensor) -> Tensor:
    """``<T, cost>``, ``[...]``, with the envelope gradient: ``T``, the derivative of the entropic optimum."""
    return (plan.detach() * cost).sum(dim=(-2, -1))
