"""Frozen twin of the old ``sigreg`` module: sliced isotropic-Gaussian regularisation.

Embeddings are projected on random unit directions; every projection is standardised and compared with N(0, 1), either
by a kernel statistic against normal quantiles (``reference_points``, the default) or by a quadrature over the
characteristic function (``char_function``).

Kept as it was: standardising makes the statistic blind to location and scale; each view draws its own directions with
one ``torch.randn`` of the default dtype (so float64 input raises); a misspelt ``test_method`` means reference points;
the direction cache holds one size and is not saved; the hybrid's ``sigreg_weight`` enters squared.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from training_losses.migration.deprecation import deprecated_module

from .vicreg import VICRegLoss

deprecated_module(__name__)


class EppsPulleyTest(nn.Module):
    def __init__(
        self,
        num_points=17,
        eps=1e-6,
        test_method="reference_points",
        char_function_t_min=0.2,
        char_function_t_max=4.0,
        char_function_num_quadrature=32,
        char_function_lambda=1.0,
    ):
        super().__init__()
        self.num_points = num_points
        self.eps = eps
        self.test_method = test_method
        self.char_function_lambda = char_function_lambda
        quantiles = torch.linspace(0.01, 0.99, num_points)
        self.register_buffer("reference_points", torch.erfinv(2 * quantiles - 1) * (2**0.5))
        knots = torch.linspace(char_function_t_min, char_function_t_max, char_function_num_quadrature)
        self.register_buffer("quadrature_points", knots)

    def _char_function(self, y):
        t = self.quadrature_points
        phase = y.unsqueeze(-1) * t
        real, imaginary = torch.cos(phase), torch.sin(phase)
        # 1-D: [n, T]; 2-D: [b, n, T]. The average is over axis 1 even for more dimensions.
        axis = 0 if y.ndim == 1 else 1
        c, s = real.mean(dim=axis), imaginary.mean(dim=axis)
        gaussian = torch.exp(-0.5 * t**2)
        weight = torch.exp(-0.5 * t**2 / self.char_function_lambda**2)
        g = weight * ((c - gaussian) ** 2 + s**2)
        step = (t[-1] - t[0]).item() / (len(t) - 1) if len(t) > 1 else float("nan")
        return step * (g.sum(dim=-1) - 0.5 * (g[..., 0] + g[..., -1]))

    def _reference_points(self, y):
        single = y.ndim == 1
        if single:
            y = y.unsqueeze(0)
        _, n = y.shape
        g = self.reference_points
        k = self.num_points

        def kernel_sum(u, v):
            return torch.exp(-0.5 * (u.unsqueeze(-1) - v.unsqueeze(-2)) ** 2).sum(dim=(-2, -1))

        own = kernel_sum(y, y) / (n * n)
        cross = kernel_sum(y, g) * (2.0 / (n * k)) if k else y.sum(dim=-1) * float("nan")
        fixed = kernel_sum(g, g) / (k * k) if k else float("nan")
        result = own - cross + fixed
        return result.squeeze(0) if single else result

    def forward(self, x):
        mean = x.mean(dim=-1, keepdim=True)
        std = x.std(dim=-1, keepdim=True)
        y = (x - mean) / (std + self.eps)
        if self.test_method == "char_function":
            return self._char_function(y)
        return self._reference_points(y)


class SIGRegLoss(nn.Module):
    def __init__(
        self,
        num_slices=1024,
        num_test_points=17,
        invariance_weight=25.0,
        sigreg_weight=25.0,
        eps=1e-6,
        flatten_patches=True,
        fixed_slices=False,
        vectorized=True,
        test_method="reference_points",
        char_function_t_min=0.2,
        char_function_t_max=4.0,
        char_function_num_quadrature=32,
        char_function_lambda=1.0,
    ):
        super().__init__()
        self.num_slices = num_slices
        self.num_test_points = num_test_points
        self.invariance_weight = invariance_weight
        self.sigreg_weight = sigreg_weight
        self.eps = eps
        self.flatten_patches = flatten_patches
        self.fixed_slices = fixed_slices
        self.vectorized = vectorized
        if num_slices <= 0:
            raise ValueError(f"num_slices must be > 0, got {num_slices}")
        if num_test_points <= 0:
            raise ValueError(f"num_test_points must be > 0, got {num_test_points}")
        if invariance_weight < 0:
            raise ValueError(f"invariance_weight must be >= 0, got {invariance_weight}")
        if sigreg_weight < 0:
            raise ValueError(f"sigreg_weight must be >= 0, got {sigreg_weight}")
        self.univariate_test = EppsPulleyTest(
            num_test_points,
            eps,
            test_method,
            char_function_t_min,
            char_function_t_max,
            char_function_num_quadrature,
            char_function_lambda,
        )
        self._fixed_random_slices = None

    def _generate_random_slices(self, embedding_dim, device):
        cached = self._fixed_random_slices
        if self.fixed_slices and cached is not None and cached.shape == (self.num_slices, embedding_dim):
            return cached.to(device)
        slices = F.normalize(torch.randn(self.num_slices, embedding_dim, device=device), p=2, dim=1)
        if self.fixed_slices:
            self._fixed_random_slices = slices.detach().cpu()
        return slices

    def _invariance_loss(self, z_a, z_b):
        return F.mse_loss(z_a, z_b)

    def _sigreg_loss(self, z):
        projections = z @ self._generate_random_slices(z.shape[1], z.device).T
        if self.vectorized:
            return self.univariate_test(projections.T).mean()
        return torch.stack([self.univariate_test(projections[:, m]) for m in range(self.num_slices)]).mean()

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
        sigreg_a = self._sigreg_loss(z_a)
        sigreg_b = self._sigreg_loss(z_b)
        sigreg = (sigreg_a + sigreg_b) / 2
        return {
            "loss": self.invariance_weight * invariance + self.sigreg_weight * sigreg,
            "invariance_loss": invariance,
            "sigreg_loss": sigreg,
            "sigreg_loss_a": sigreg_a,
            "sigreg_loss_b": sigreg_b,
        }

    def extra_repr(self):
        return (
            f"num_slices={self.num_slices}, num_test_points={self.num_test_points}, "
            f"inv_weight={self.invariance_weight}, sigreg_weight={self.sigreg_weight}, "
            f"flatten_patches={self.flatten_patches}, fixed_slices={self.fixed_slices}"
        )


class HybridVICRegSIGRegLoss(nn.Module):
    def __init__(
        self,
        vicreg_weight=1.0,
        sigreg_weight=1.0,
        invariance_weight=25.0,
        variance_weight=25.0,
        covariance_weight=1.0,
        num_slices=1024,
        num_test_points=17,
        variance_threshold=1.0,
        eps=1e-6,
        flatten_patches=True,
    ):
        super().__init__()
        self.vicreg_weight = vicreg_weight
        self.sigreg_weight = sigreg_weight
        self.vicreg_loss = VICRegLoss(
            invariance_weight, variance_weight, covariance_weight, variance_threshold, eps, flatten_patches
        )
        self.sigreg_loss = SIGRegLoss(
            num_slices, num_test_points, invariance_weight, sigreg_weight, eps, flatten_patches
        )

    def forward(self, z_a, z_b=None):
        vicreg = self.vicreg_loss(z_a, z_b)
        sigreg = self.sigreg_loss(z_a, z_b)
        return {
            "loss": self.vicreg_weight * vicreg["loss"] + self.sigreg_weight * sigreg["loss"],
            "vicreg_loss": vicreg["loss"],
            "sigreg_loss": sigreg["loss"],
            "invariance_loss": vicreg["invariance_loss"],
            "variance_loss": vicreg["variance_loss"],
            "covariance_loss": vicreg["covariance_loss"],
            "sigreg_regularization": sigreg["sigreg_loss"],
        }

    def extra_repr(self):
        return f"vicreg_weight={self.vicreg_weight}, sigreg_weight={self.sigreg_weight}"
