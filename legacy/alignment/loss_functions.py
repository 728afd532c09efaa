"""Frozen twin of ``utils.loss_functions``: TCC, GTCC, LAV, VAVA and the intra-sequence contrast, as restored.

Use the classes of :mod:`training_losses.alignment` in new code; their defaults give the same numbers.

Kept as it was (see the migration guide for the meaning): pairs are visited one by one in both orders; index vectors
are ``torch.float``, so that TCC, GTCC and VAVA raise ``RuntimeError`` for float64 input; TCC's variance takes the mean
of the column; the contrast has no distance in its near part; VAVA's transport cost is a constant; GTCC draws from the
global generators of torch and numpy, fits one row at a time, needs 20 frames and ends the process with code 1 on a
failed fit or a value that is not finite; fewer than two sequences give ``None`` (LAV: ``AttributeError``). Constants
follow the device of the sequences; prints and cache releases of the old module are left out.
"""

import math
import sys

import numpy as np
import torch

from training_losses.migration.deprecation import deprecated_module

from .ot_pytorch import sink
from .softdtw import SoftDTW
from .tensorops import contains_non_float_values, get_gmm_lfbgf

deprecated_module(__name__)

__all__ = [
    "GTCC_loss",
    "IntraContrast_loss",
    "LAV_loss",
    "TCC_loss",
    "VAVA_loss",
    "create_margin_identity_matrix",
    "create_stochastic_margin_identity_matrix",
    "get_A",
    "get_Abar",
    "get_consistency_matrix",
    "get_denom_diag_opt_matrix",
    "get_diag_consistency_matrix",
    "get_diag_optimality_matrix",
]


def _add(total, term):
    return term if total is None else total + term


def _expected(beta, values):
    """Rows of ``beta`` times ``values``; as a matrix-vector product it refuses mixed dtypes."""
    if beta.dtype != values.dtype:
        raise RuntimeError(f"expected both tensors to have the same dtype, got {beta.dtype} and {values.dtype}")
    return (beta * values).sum(dim=1)


def _softmax(logits):
    """Row softmax; rows of fewer than 16 entries are added from left to right on every machine.

    So did ``torch.softmax`` where the answers were recorded (registers of 16 floats); registers of 8 add in another
    order. TCC's float32 value shows it at low temperatures: frames of hardly any variance divide by rounding noise.
    """
    if logits.shape[1] >= 16:
        return torch.softmax(logits, dim=1)
    e = torch.exp(logits - logits.detach().max(dim=1, keepdim=True).values)
    total = e.sum(dim=1, keepdim=True)
    in_order = sum(e.detach().split(1, dim=1))
    return e / (total + (in_order - total.detach()))


def TCC_loss(sequences, alignment_variance=0.1, softmax_temp=1):
    """Temporal cycle-consistency over all ordered pairs, a sequence with itself included."""
    loss = None
    pairs = 0
    for X in sequences:
        for Y in sequences:
            N = X.shape[0]
            index = torch.arange(N, dtype=torch.float, device=X.device)
            alpha = _softmax(-torch.cdist(X, Y, p=2) / softmax_temp)
            Z = torch.mm(alpha, Y)
            beta = _softmax(-torch.cdist(Z, X, p=2) / softmax_temp)
            mu = _expected(beta, index)
            # column k takes the mean of frame k, not of the row's frame
            var = _expected(beta, torch.pow(index - mu, 2))
            error = torch.pow(index - mu, 2) / var + alignment_variance * torch.log(torch.sqrt(var) + 1e-20)
            loss = _add(loss, error.sum())
            pairs += 1
    return loss / pairs


def create_margin_identity_matrix(size, margin):
    """Mask of the cells within ``margin`` of the diagonal; margin 0 gives minus the identity."""
    ones = torch.ones(size, size, dtype=torch.float)
    upper = torch.triu(ones) - torch.triu(ones, diagonal=margin)
    lower = torch.tril(ones) - torch.tril(ones, diagonal=-margin)
    return upper + lower - torch.eye(size, dtype=torch.float)


def IntraContrast_loss(sequence, idx_range, window=7, margin=2):
    """Push frames farther apart than ``window`` to a distance of ``margin``; the near part is a constant."""
    distance = torch.cdist(sequence, sequence, p=2)
    with torch.no_grad():
        weight = torch.pow(idx_range.unsqueeze(1) - idx_range.unsqueeze(0), 2) + 1
    near = create_margin_identity_matrix(sequence.shape[0], window).to(sequence.device)
    far_part = (1 - near) * weight * torch.clamp(margin - distance, min=0)
    return (far_part + near * weight * margin).sum()


def LAV_loss(sequences, min_temp=0.1, cr_coefficient=0.01):
    """Soft-DTW plus the intra-sequence contrast of both sequences, over ordered pairs."""
    loss = None
    for i, X in enumerate(sequences):
        for j, Y in enumerate(sequences):
            if i == j:
                continue
            alignment = SoftDTW(gamma=min_temp, normalize=False)(X, Y)
            times_x = torch.arange(X.shape[0], dtype=torch.float, device=X.device)
            times_y = torch.arange(Y.shape[0], dtype=torch.float, device=Y.device)
            contrast = IntraContrast_loss(X, times_x, window=15, margin=2) + IntraContrast_loss(
                Y, times_y, window=15, margin=2
            )
            loss = _add(loss, alignment + cr_coefficient * contrast)
    if loss is None:
        # the old function printed its value here
        raise AttributeError("'NoneType' object has no attribute 'item'")
    return loss


def get_diag_consistency_matrix(N, M, idx_range_row, idx_range_col):
    """Distance of each cell from the diagonal."""
    r, c = idx_range_row.unsqueeze(1), idx_range_col.unsqueeze(0)
    return torch.abs(c / M - r / N) / math.sqrt(1 / N**2 + 1 / M**2)


def get_consistency_matrix(N, M, idx_range_row, idx_range_col):
    """Weight of each cell by its distance from the diagonal."""
    r, c = idx_range_row.unsqueeze(1), idx_range_col.unsqueeze(0)
    return 1 / (torch.pow(c / M - r / N, 2) + 1)


def _best_matches(T, idx_range_row, idx_range_col):
    """Offsets of the cells from the largest entry of their column and of their row."""
    r, c = idx_range_row.unsqueeze(1), idx_range_col.unsqueeze(0)
    return c - torch.argmax(T, dim=0).unsqueeze(0), r - torch.argmax(T, dim=1).unsqueeze(1)


def get_diag_optimality_matrix(T, N, M, idx_range_row, idx_range_col):
    """Distance of each cell from the best matches; a row index is compared with a column index."""
    column, row = _best_matches(T, idx_range_row, idx_range_col)
    return (torch.abs(column) / N + torch.abs(row) / N) / (2 * math.sqrt(1 / N**2 + 1 / M**2))


def get_denom_diag_opt_matrix(T, N, M, idx_range_row, idx_range_col):
    """Weight of each cell by its distance from the best matches."""
    column, row = _best_matches(T, idx_range_row, idx_range_col)
    return 1 / (0.5 * (torch.pow(column / N, 2) + torch.pow(row / N, 2)) + 1)


def get_A(T, N, M):
    """Mask of the cells that are the largest of their row and of their column."""
    rows = T == T.max(dim=1, keepdim=True).values
    columns = T == T.max(dim=0, keepdim=True).values
    return (rows & columns).int()


def get_Abar(T, N, M):
    """Mask of the cells that are the smallest of their row and of their column."""
    rows = T == T.min(dim=1, keepdim=True).values
    columns = T == T.min(dim=0, keepdim=True).values
    return (rows & columns).int()


def _gaussian(distance, delta):
    return torch.exp(-torch.pow(distance, 2) / (2 * delta**2)) / (delta * math.sqrt(2 * math.pi))


def VAVA_loss(sequences, global_step, maxIter=20, zeta=0.5, delta=0.6, gamma=0.5):
    """Optimal transport with temporal priors and contrast, over ordered pairs; ``None`` for fewer than two."""
    power = int(np.sqrt(np.float64(global_step + 1.0))) if global_step >= -1 else int(np.float64("nan"))
    phi = max(min(0.999**power, 0.999), 0.001)
    loss = None
    for i, X in enumerate(sequences):
        for j, Y in enumerate(sequences):
            if i == j:
                continue
            n, m = X.shape[0], Y.shape[0]
            N, M = n + 1, m + 1
            l1 = n + m
            l2 = 0.1 * (n * m) / 4.0
            column = torch.full((n, 1), zeta, dtype=torch.get_default_dtype(), device=X.device)
            row = torch.full((1, M), zeta, dtype=torch.get_default_dtype(), device=X.device)
            D = torch.cat([row, torch.cat([column, torch.cdist(X, Y, p=2)], dim=1)], dim=0)
            cost, T = sink(D, reg=n, numItermax=maxIter, cuda=True)

            r = torch.arange(N, dtype=torch.float, device=X.device)
            c = torch.arange(M, dtype=torch.float, device=X.device)
            lc = get_diag_consistency_matrix(N, M, r, c)
            lo = get_diag_optimality_matrix(T, N, M, r, c)
            P = phi * _gaussian(lc, delta) + (1 - phi) * _gaussian(lo, delta)
            structure = phi * (T * get_consistency_matrix(N, M, r, c)).sum()
            structure = structure + (1 - phi) * (T * get_denom_diag_opt_matrix(T, N, M, r, c)).sum()
            divergence = (T * torch.log((T + 1e-8) / (P + 1e-8))).sum()
            core = cost - l1 * structure + l2 * divergence

            C_X = IntraContrast_loss(X, torch.arange(n, dtype=torch.float, device=X.device), window=15, margin=2)
            C_Y = IntraContrast_loss(Y, torch.arange(m, dtype=torch.float, device=X.device), window=15, margin=2)
            C_XY = (get_A(T, N, M) * D - get_Abar(T, N, M) * D).sum()
            loss = _add(loss, core + gamma * (C_X + C_Y + C_XY))
    return loss


def create_stochastic_margin_identity_matrix(size, width):
    """One-sided window on a side drawn from numpy's global generator, with full corner blocks."""
    side = np.random.choice([0, 1])
    index = torch.arange(size)
    offset = index.unsqueeze(0) - index.unsqueeze(1)
    band = (offset >= 0) & (offset < width) if side == 0 else (offset >= -width) & (offset < 0)
    window = band.to(torch.float)
    window[:width, :width] = 1
    # width 0 takes the whole matrix, as the old empty slice did
    window[-width:, -width:] = 1
    return window


def _finite_or_exit(*tensors):
    if any(contains_non_float_values(tensor) for tensor in tensors):
        sys.exit(1)


def GTCC_loss(
    sequences,
    n_components=1,
    gamma=1,
    delta=1,
    dropouts=None,
    softmax_temp=1,
    alignment_variance=0,
    max_gmm_iters=8,
    epoch=0,
):
    """Generalised temporal cycle-consistency on 20 random frames per sequence; ``None`` for fewer than two."""
    assert 0.05 <= delta <= 1
    samples = 20
    loss = None
    for i, X in enumerate(sequences):
        N = X.shape[0]
        index = torch.arange(N, dtype=torch.float, device=X.device)
        frames = torch.sort(torch.randperm(N)[:samples]).values
        window = create_stochastic_margin_identity_matrix(N, round(N * delta))[frames].to(X.device)
        for j, Y in enumerate(sequences):
            if i == j:
                continue
            M = Y.shape[0]
            if gamma < 1:
                logits = torch.mv(X, dropouts[j][:-1]) + dropouts[j][-1]
                logits = (logits - logits.mean()) / logits.std()
                floor = gamma ** (epoch + 1)
                keep = (floor + (1 - floor) * torch.sigmoid(logits))[frames]

            alpha = torch.exp(-torch.cdist(X, Y, p=2) / softmax_temp)
            alpha = (alpha / alpha.sum(dim=1, keepdim=True))[frames]
            components = torch.zeros(samples, n_components, M, device=X.device)
            weights = torch.zeros(samples, n_components, device=X.device)
            for a in range(samples):
                bells, psi, _ = get_gmm_lfbgf(alpha[a], n_components, max_iters=max_gmm_iters)
                components[a] = bells.detach()
                weights[a] = psi.detach()

            for a in range(samples):
                Z = torch.mm(components[a], Y)
                beta = window[a] * torch.exp(-torch.cdist(Z, X, p=2) / softmax_temp)
                beta = beta / (beta.sum(dim=1, keepdim=True) + 1e-6)
                mu = _expected(beta, index)
                var = (beta * torch.pow(index.unsqueeze(0) - mu.unsqueeze(1), 2)).sum(dim=1)
                error = torch.pow(frames[a] - mu, 2)
                if alignment_variance > 0:
                    error = error + alignment_variance * torch.log(torch.sqrt(var) + 1e-20)
                total = (weights[a] * error).sum()
                _finite_or_exit(error, 1 / total)
                term = keep[a] * total + (1 - keep[a]) / total if gamma < 1 else total
                loss = _add(loss, term)
    if loss is not None and n_components == 1 and not alignment_variance > 0:
        loss = loss.reshape(1)
    return loss
