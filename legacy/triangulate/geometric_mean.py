"""Frozen `triangulate_ai.loss.geometric_mean`: the sum of the logarithms of VGG, L1 and LPIPS.

Kept as it was, among other things: the total is the sum, not the mean, of the logs; the penalty on losses below the
threshold is a squared hinge on the raw values and practically without effect; its branches look at tensor values;
nothing that is returned is detached; the ramp of the adaptive class is not in the state_dict.

`lpips.LPIPS` is looked up at construction, as `torchvision.models.vgg19` is in `perceptual`.
"""

import torch
import torch.nn as nn

from training_losses.migration.deprecation import deprecated_module

from .perceptual import VGGPerceptualLoss

deprecated_module(__name__)


class GeometricMeanLoss(nn.Module):
    """log(VGG + eps) + log(L1 + eps) + log(LPIPS + eps) + penalty."""

    def __init__(self, vgg_layers=None, device="cuda", epsilon=1e-8, min_loss_value=1e-4, regularization_weight=0.01):
        super().__init__()
        import lpips

        self.epsilon = epsilon
        self.min_loss_value = min_loss_value
        self.regularization_weight = regularization_weight
        self.device = device
        self.perceptual_loss = VGGPerceptualLoss(vgg_layers, device)
        self.l1_loss = nn.L1Loss()
        self.lpips_loss = lpips.LPIPS(net="vgg", spatial=False).to(device)
        for parameter in self.lpips_loss.parameters():
            parameter.requires_grad = False

    def compute_regularization(self, perceptual, l1, lpips_val):
        penalty = torch.tensor(0.0, device=self.device, dtype=perceptual.dtype)
        for value in (l1, perceptual, lpips_val):
            if value < self.min_loss_value:
                penalty = penalty + (self.min_loss_value - value) ** 2
        return penalty * self.regularization_weight

    def forward(self, rendered, target):
        perceptual = self.perceptual_loss(rendered, target)
        l1 = self.l1_loss(rendered, target)
        lpips_val = self.lpips_loss(2 * rendered - 1, 2 * target - 1).mean()

        log_perceptual = torch.log(perceptual + self.epsilon)
        log_l1 = torch.log(l1 + self.epsilon)
        log_lpips = torch.log(lpips_val + self.epsilon)
        log_sum = log_perceptual + log_l1 + log_lpips
        regularization = self.compute_regularization(perceptual, l1, lpips_val)
        return {
            "perceptual": perceptual,
            "l1": l1,
            "lpips": lpips_val,
            "total": log_sum + regularization,
            "log_perceptual": log_perceptual,
            "log_l1": log_l1,
            "log_lpips": log_lpips,
            "regularization": regularization,
            "geometric_mean": torch.exp(log_sum / 3),
        }


class AdaptiveGeometricMeanLoss(GeometricMeanLoss):
    """GeometricMeanLoss whose penalty weight is ramped linearly by ``update_epoch``."""

    def __init__(
        self,
        vgg_layers=None,
        device="cuda",
        epsilon=1e-8,
        min_loss_value=1e-4,
        initial_regularization=0.001,
        final_regularization=0.1,
        warmup_epochs=50,
    ):
        super().__init__(vgg_layers, device, epsilon, min_loss_value, initial_regularization)
        self.initial_regularization = initial_regularization
        self.final_regularization = final_regularization
        self.warmup_epochs = warmup_epochs
        self.current_epoch = 0

    def update_epoch(self, epoch):
        self.current_epoch = epoch
        if epoch < self.warmup_epochs:
            progress = epoch / self.warmup_epochs
            span = self.final_regularization - self.initial_regularization
            self.regularization_weight = self.initial_regularization + span * progress
        else:
            self.regularization_weight = self.final_regularization
