"""Frozen twin of ``external_util.ot_pytorch``: the Sinkhorn plan of VAVA.

Use :func:`training_losses.alignment.sinkhorn_plan` in new code.

Kept as it was: the scaling vectors take the default dtype (float64 costs raise unless it is float64), the stopping rule
compares the mass of the whole plan with that of each column and so never fires for two columns or more, and the "cost"
is the constant ``1e6 / (n m)``. The flag ``cuda`` is accepted and ignored: the vectors live where the costs are.
"""

import torch

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

__all__ = ["dmat", "pairwise_distances", "sink", "sink_stabilized"]


def sink(M, reg, numItermax=1000, stopThr=1e-9, cuda=True):
    """``(cost, plan)`` of entropic transport between uniform masses; ``reg`` is the temperature."""
    nbb, n = M.shape
    a = torch.ones(nbb, device=M.device) / nbb
    b = torch.ones(n, device=M.device) / n
    u = torch.ones(nbb, device=M.device) / nbb
    v = torch.ones(n, device=M.device) / n
    K = torch.exp(-M / reg)
    Kp = (1 / a).view(-1, 1) * K
    err = 1
    k = 0
    while err > stopThr and k < numItermax:
        v = torch.div(b, K.t().matmul(u.view(-1, 1)).squeeze(1))
        u = 1.0 / Kp.matmul(v.view(-1, 1)).squeeze(1)
        if k % 10 == 0:
            plan = u.view(-1, 1) * (K * v.view(1, -1))
            err = (plan.sum() - b).abs().sum().pow(2).item()
        k += 1
    plan = u.view(-1, 1) * K * v.view(1, -1)
    return 1e6 * plan.sum() / (nbb * n), plan


def sink_stabilized(M, reg, numItermax=1000, tau=1e2, stopThr=1e-9, warmstart=None, print_period=20, cuda=True):
    """Never worked: its first iteration indexes a 0-d tensor."""
    raise IndexError("invalid index of a 0-dim tensor. Use `tensor.item()` to convert a 0-dim tensor to a number")


def pairwise_distances(x, y, method="l1"):
    """Sums of absolute (``"l1"``) or squared differences ``(n, m)``, in float32 whatever the input is."""
    difference = x.unsqueeze(1) - y.unsqueeze(0)
    if method == "l1":
        return difference.abs().sum(2).float()
    return difference.pow(2).sum(2).float()


def dmat(x, y):
    """Squared distances, transposed: entry ``[i, j]`` is that of ``y[i]`` and ``x[j]``; needs equal lengths."""
    if x.shape[0] != y.shape[0]:
        raise RuntimeError(f"dmat needs equally many rows, got {x.shape[0]} and {y.shape[0]}")
    return (x.unsqueeze(0) - y.unsqueeze(1)).pow(2).sum(2).squeeze()
