"""Frozen twin of ``external_util.softdtw``: soft dynamic time warping on the host.

Use :class:`training_losses.alignment.SoftDTWLoss` in new code.

Kept as it was: the table lives on the CPU in float64, is rounded to the default dtype before it is stored, and
``gamma`` is rounded with it; a float64 input therefore gives a float64 number of float32 precision. The cost is squared
Euclidean and broadcast to ``(batch, N, M, d)``. Second derivatives treat the first ones as constants. The compiled
loops of the old module are vector steps over anti-diagonals here, so that numba is not needed.
"""

import numpy as np
import torch
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

__all__ = ["SoftDTW", "compute_softdtw", "compute_softdtw_backward"]


def _diagonal(k, n, m):
    """Rows and columns (1-based) of the cells with ``row + column == k``."""
    rows = np.arange(max(1, k - m), min(n, k - 1) + 1)
    return rows, k - rows


def compute_softdtw(D, gamma):
    """Table ``R`` of soft-DTW, float64 ``(batch, N + 2, M + 2)``, of the costs ``D (batch, N, M)``."""
    if D.dtype not in (np.float32, np.float64):
        raise TypeError(f"soft-DTW needs float32 or float64 costs, got {D.dtype}")
    batch, n, m = D.shape
    R = np.full((batch, n + 2, m + 2), np.inf)
    R[:, 0, 0] = 0
    with np.errstate(all="ignore"):
        for k in range(2, n + m + 1):
            i, j = _diagonal(k, n, m)
            r0 = -R[:, i - 1, j - 1] / gamma
            r1 = -R[:, i - 1, j] / gamma
            r2 = -R[:, i, j - 1] / gamma
            rmax = np.maximum(np.maximum(r0, r1), r2)
            rsum = np.exp(r0 - rmax) + np.exp(r1 - rmax) + np.exp(r2 - rmax)
            R[:, i, j] = D[:, i - 1, j - 1] - gamma * (np.log(rsum) + rmax)
    return R


def compute_softdtw_backward(D_, R, gamma):
    """Gradient of the last cell with respect to ``D_``; overwrites the last row and column of ``R``."""
    batch, n, m = D_.shape
    D = np.zeros((batch, n + 2, m + 2))
    E = np.zeros((batch, n + 2, m + 2))
    D[:, 1 : n + 1, 1 : m + 1] = D_
    E[:, -1, -1] = 1
    R[:, :, -1] = -np.inf
    R[:, -1, :] = -np.inf
    R[:, -1, -1] = R[:, -2, -2]
    with np.errstate(all="ignore"):
        for k in range(n + m, 1, -1):
            i, j = _diagonal(k, n, m)
            a = np.exp((R[:, i + 1, j] - R[:, i, j] - D[:, i + 1, j]) / gamma)
            b = np.exp((R[:, i, j + 1] - R[:, i, j] - D[:, i, j + 1]) / gamma)
            c = np.exp((R[:, i + 1, j + 1] - R[:, i, j] - D[:, i + 1, j + 1]) / gamma)
            E[:, i, j] = E[:, i + 1, j] * a + E[:, i, j + 1] * b + E[:, i + 1, j + 1] * c
    return E[:, 1 : n + 1, 1 : m + 1]


def _round(array, like):
    """The old detour through the default tensor type: round, then take the dtype and device of ``like``."""
    return torch.as_tensor(array).to(torch.get_default_dtype()).to(device=like.device, dtype=like.dtype)


class _SoftDTW(torch.autograd.Function):
    @staticmethod
    def forward(ctx, D, gamma):
        gamma = torch.tensor([gamma], dtype=torch.get_default_dtype()).item()
        R = torch.as_tensor(compute_softdtw(D.detach().cpu().numpy(), gamma)).to(torch.get_default_dtype())
        ctx.gamma = gamma
        ctx.save_for_backward(D, R)
        return R[:, -2, -2].to(device=D.device, dtype=D.dtype)

    @staticmethod
    def backward(ctx, grad_output):
        D, R = ctx.saved_tensors
        table = R.numpy().astype(np.float64)
        E = _round(compute_softdtw_backward(D.detach().cpu().numpy(), table, ctx.gamma), grad_output)
        return grad_output.view(-1, 1, 1) * E, None


class SoftDTW(nn.Module):
    """Soft-DTW of ``(N, d), (M, d)`` (0-d result) or of batches ``(B, N, d), (B, M, d)`` (result ``(B,)``)."""

    def __init__(self, gamma=1.0, normalize=False):
        super().__init__()
        self.normalize = normalize
        self.gamma = gamma
        self.func_dtw = _SoftDTW.apply

    def calc_distance_matrix(self, x, y):
        """Squared Euclidean costs ``(B, N, M)``."""
        return torch.pow(x.unsqueeze(2) - y.unsqueeze(1), 2).sum(3)

    def forward(self, x, y):
        """Value of soft-DTW; with ``normalize`` minus half of both self terms."""
        assert len(x.shape) == len(y.shape)
        squeeze = False
        if len(x.shape) < 3:
            x = x.unsqueeze(0)
            y = y.unsqueeze(0)
            squeeze = True
        value = self.func_dtw(self.calc_distance_matrix(x, y), self.gamma)
        if self.normalize:
            self_x = self.func_dtw(self.calc_distance_matrix(x, x), self.gamma)
            self_y = self.func_dtw(self.calc_distance_matrix(y, y), self.gamma)
            value = value - 0.5 * (self_x + self_y)
        return value.squeeze(0) if squeeze else value
