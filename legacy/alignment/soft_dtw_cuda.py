"""Frozen twin of ``external_util.soft_dtw_cuda``, which never contained CUDA code and was imported by nobody.

Use :class:`training_losses.alignment.SoftDTWLoss` in new code.

Kept as it was: everything of the twin ``softdtw`` (rounding to the default dtype, host tables), the open end without a
gradient, the wrong gradient of the table output, ``normalize=True`` and ``is_complete=False`` with ``withR=True`` that
can only raise, and the unknown distance that is noticed by the first call. The plotting helper is left out.
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


def _table(ctx, D, gamma):
    gamma = torch.tensor([gamma], dtype=torch.get_default_dtype()).item()
    R = torch.as_tensor(compute_softdtw(D.detach().cpu().numpy(), gamma)).to(torch.get_default_dtype())
    ctx.gamma = gamma
    ctx.save_for_backward(D, R)
    return R.to(device=D.device, dtype=D.dtype)


def _expected_alignment(ctx, like):
    D, R = ctx.saved_tensors
    E = compute_softdtw_backward(D.detach().cpu().numpy(), R.numpy().astype(np.float64), ctx.gamma)
    return torch.as_tensor(E).to(torch.get_default_dtype()).to(device=like.device, dtype=like.dtype)


class _SoftDTW(torch.autograd.Function):
    @staticmethod
    def forward(ctx, D, gamma):
        return _table(ctx, D, gamma)[:, -2, -2].clone()

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output.view(-1, 1, 1) * _expected_alignment(ctx, grad_output), None


class _SoftDTWTable(torch.autograd.Function):
    @staticmethod
    def forward(ctx, D, gamma):
        return _table(ctx, D, gamma)[:, 1:-1, 1:-1].clone()

    @staticmethod
    def backward(ctx, grad_output):
        # E is the derivative of the last cell only: wrong for every other cell of the table, and kept
        return grad_output * _expected_alignment(ctx, grad_output), None


class SoftDTW(nn.Module):
    """Soft-DTW with a choice of the cost (``"euclidean"`` means squared; ``"cosine_dis"``)."""

    def __init__(self, gamma=1.0, normalize=False, dtw_dist="euclidean"):
        super().__init__()
        self.normalize = normalize
        self.gamma = gamma
        self.func_dtw = _SoftDTW.apply
        self.func_dtw_r = _SoftDTWTable.apply
        self.dtw_dist = dtw_dist
        self.cossim = nn.CosineSimilarity(dim=-1, eps=1e-6)
        self.dist_funcs = {"euclidean": self.calc_distance_matrix, "cosine_dis": self._cosine_distance}

    def calc_distance_matrix(self, x, y):
        """Squared Euclidean costs ``(B, N, M)``."""
        return torch.pow(x.unsqueeze(2) - y.unsqueeze(1), 2).sum(3)

    def _cosine_distance(self, x, y):
        return 1 - self.cossim(x.unsqueeze(2), y.unsqueeze(1))

    def forward(self, x, y, is_complete=True, withR=False):
        """Value of soft-DTW; ``withR`` adds the table, ``is_complete=False`` leaves the end in ``x`` open."""
        assert len(x.shape) == len(y.shape)
        squeeze = False
        if len(x.shape) < 3:
            x = x.unsqueeze(0)
            y = y.unsqueeze(0)
            squeeze = True
        if self.normalize:
            assert is_complete
            raise UnboundLocalError("cannot access local variable 'D_xy' where it is not associated with a value")
        D = self.dist_funcs[self.dtw_dist](x, y)
        if is_complete:
            value = self.func_dtw(D, self.gamma)
            table = self.func_dtw_r(D, self.gamma)
        else:
            if withR:
                raise UnboundLocalError("cannot access local variable 'R' where it is not associated with a value")
            gamma = torch.tensor([self.gamma], dtype=torch.get_default_dtype()).item()
            full = torch.as_tensor(compute_softdtw(D.detach().cpu().numpy(), gamma)).to(torch.get_default_dtype())
            value = full[:, 1:-1, -2].min(dim=1).values.to(device=D.device, dtype=D.dtype)
        if squeeze:
            value = value.squeeze(0)
            if withR:
                table = table.squeeze(0)
        return (value, table) if withR else value
