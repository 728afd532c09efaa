"""Frozen twin of the old ``vicreg`` module: variance-invariance-covariance regularisation of two views.

Kept as it was: the covariance term is the mean over the d(d-1) off-diagonal elements and the two views are averaged
(the paper sums both); one row gives NaN through the unbiased variance, one column gives NaN through the empty mean;
without a second view the two halves of the batch are paired although they are different samples. The adaptive class
turns its weights into parameters that nothing keeps positive, and ``update_weights`` favours the smallest term.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)


class VICRegLoss(nn.Module):
    def __init__(
        self,
        invariance_weight=25.0,
        variance_weight=25.0,
        covariance_weight=1.0,
        variance_threshold=1.0,
        eps=1e-4,
        flatten_patches=True,
    ):
        super().__init__()
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.variance_threshold = variance_threshold
        self.eps = eps
        self.flatten_patches = flatten_patches
        if invariance_weight < 0:
            raise ValueError(f"invariance_weight must be >= 0, got {invariance_weight}")
        if variance_weight < 0:
            raise ValueError(f"variance_weight must be >= 0, got {variance_weight}")
        if covariance_weight < 0:
            raise ValueError(f"covariance_weight must be >= 0, got {covariance_weight}")
        if variance_threshold <= 0:
            raise ValueError(f"variance_threshold must be > 0, got {variance_threshold}")

    def _invariance_loss(self, z_a, z_b):
        return F.mse_loss(z_a, z_b)

    def _variance_loss(self, z):
        std = torch.sqrt(z.var(dim=0) + self.eps)
        return F.relu(self.variance_threshold - std).mean()

    def _covariance_loss(self, z):
        rows, columns = z.shape
        centred = z - z.mean(dim=0)
        covariance = (centred.T @ centred) / max(1, rows - 1)
        off_diagonal = ~torch.eye(columns, dtype=torch.bool, device=z.device)
        return covariance[off_diagonal].pow(2).mean()

    def forward(self, z_a, z_b=None):
        if z_b is None:
            if z_a.shape[0] % 2 != 0:
                raise ValueError(f"without a second view the batch size must be even, got {z_a.shape[0]}")
            half = z_a.shape[0] // 2
            z_a, z_b = z_a[:half], z_a[half:]
        if z_a.shape != z_b.shape:
            raise ValueError(f"the views must have the same shape, got {tuple(z_a.shape)} and {tuple(z_b.shape)}")
        if z_a.ndim not in (2, 3):
            raise ValueError(f"expected 2 or 3 dimensions, got {z_a.ndim}")
        if z_a.ndim == 3 and self.flatten_patches:
            z_a, z_b = z_a.reshape(-1, z_a.shape[-1]), z_b.reshape(-1, z_b.shape[-1])
        else:
            z_a, z_b = z_a.reshape(z_a.shape[0], -1), z_b.reshape(z_b.shape[0], -1)

        invariance = self._invariance_loss(z_a, z_b)
        variance_a, variance_b = self._variance_loss(z_a), self._variance_loss(z_b)
        covariance_a, covariance_b = self._covariance_loss(z_a), self._covariance_loss(z_b)
        variance = (variance_a + variance_b) / 2
        covariance = (covariance_a + covariance_b) / 2
        total = (
            self.invariance_weight * invariance + self.variance_weight * variance + self.covariance_weight * covariance
        )
        return {
            "loss": total,
            "invariance_loss": invariance,
            "variance_loss": variance,
            "covariance_loss": covariance,
            "variance_loss_a": variance_a,
            "variance_loss_b": variance_b,
            "covariance_loss_a": covariance_a,
            "covariance_loss_b": covariance_b,
        }

    def extra_repr(self):
        return (
            f"inv_weight={self.invariance_weight}, var_weight={self.variance_weight}, "
            f"cov_weight={self.covariance_weight}, var_threshold={self.variance_threshold}, "
            f"flatten_patches={self.flatten_patches}"
        )


class AdaptiveVICRegLoss(VICRegLoss):
    def __init__(
        self,
        invariance_weight=25.0,
        variance_weight=25.0,
        covariance_weight=1.0,
        variance_threshold=1.0,
        eps=1e-4,
        flatten_patches=True,
        adaptive_weights=False,
        weight_momentum=0.99,
    ):
        super().__init__(
            invariance_weight, variance_weight, covariance_weight, variance_threshold, eps, flatten_patches
        )
        self.adaptive_weights = adaptive_weights
        self.weight_momentum = weight_momentum
        if adaptive_weights:
            for name in ("invariance_weight", "variance_weight", "covariance_weight"):
                value = getattr(self, name)
                delattr(self, name)
                setattr(self, name, nn.Parameter(torch.tensor(value, dtype=torch.float32)))

    @torch.no_grad()
    def update_weights(self, loss_dict):
        if not self.adaptive_weights:
            return
        invariance = loss_dict["invariance_loss"].item()
        variance = loss_dict["variance_loss"].item()
        covariance = loss_dict["covariance_loss"].item()
        total = invariance + variance + covariance + self.eps
        m = self.weight_momentum
        for weight, scale, term in (
            (self.invariance_weight, 30.0, invariance),
            (self.variance_weight, 30.0, variance),
            (self.covariance_weight, 2.0, covariance),
        ):
            weight.data = m * weight.data + (1 - m) * (scale * (1 - term / total))
