"""Frozen `triangulate_ai.loss.multiplicative`: the product of VGG, L1 and LPIPS, and its mixture with the weighted sum.

Kept as it was, among other things: normalisation by running means sets in with the eleventh training call; the means
are updated with the current batch before they are used, with a float32 averaging factor for the first hundred calls;
ratios are clamped at 10 and the product at 100, where the gradient vanishes; the `_std` buffers are never used; the
hybrid owns every network twice.
"""

import torch
import torch.nn as nn

from training_losses.migration.deprecation import deprecated_module

from .perceptual import CombinedLoss, VGGPerceptualLoss

deprecated_module(__name__)


class MultiplicativeLoss(nn.Module):
    """(VGG + eps) * (L1 + eps) * (LPIPS + eps), each divided by its running mean after a start-up phase."""

    def __init__(self, vgg_layers=None, device="cuda", epsilon=1e-4, normalize=True, use_log_space=False):
        super().__init__()
        import lpips

        self.epsilon = epsilon
        self.normalize = normalize
        self.use_log_space = use_log_space
        self.device = device
        self.perceptual_loss = VGGPerceptualLoss(vgg_layers, device)
        self.l1_loss = nn.L1Loss()
        self.lpips_loss = lpips.LPIPS(net="vgg", spatial=False).to(device)
        for parameter in self.lpips_loss.parameters():
            parameter.requires_grad = False

        self.register_buffer("perceptual_mean", torch.tensor(1.0))
        self.register_buffer("perceptual_std", torch.tensor(1.0))
        self.register_buffer("l1_mean", torch.tensor(1.0))
        self.register_buffer("l1_std", torch.tensor(1.0))
        self.register_buffer("lpips_mean", torch.tensor(1.0))
        self.register_buffer("lpips_std", torch.tensor(1.0))
        self.register_buffer("update_count", torch.tensor(0))

    def update_stats(self, perceptual, l1, lpips_val):
        with torch.no_grad():
            if self.update_count < 100:
                # a float32 tensor: the quotient of a Python float and an int64 tensor
                weight = 1.0 / (self.update_count + 1)
                self.perceptual_mean = weight * perceptual + (1 - weight) * self.perceptual_mean
                self.l1_mean = weight * l1 + (1 - weight) * self.l1_mean
                self.lpips_mean = weight * lpips_val + (1 - weight) * self.lpips_mean
            else:
                momentum = 0.99
                self.perceptual_mean = momentum * self.perceptual_mean + (1 - momentum) * perceptual
                self.l1_mean = momentum * self.l1_mean + (1 - momentum) * l1
                self.lpips_mean = momentum * self.lpips_mean + (1 - momentum) * lpips_val
            self.update_count += 1

    def forward(self, rendered, target):
        perceptual = self.perceptual_loss(rendered, target)
        l1 = self.l1_loss(rendered, target)
        lpips_val = self.lpips_loss(2 * rendered - 1, 2 * target - 1).mean()

        if self.training:
            self.update_stats(perceptual.item(), l1.item(), lpips_val.item())

        if self.normalize and self.update_count > 10:
            perceptual_norm = torch.clamp(perceptual / (self.perceptual_mean + 1e-8), 0, 10)
            l1_norm = torch.clamp(l1 / (self.l1_mean + 1e-8), 0, 10)
            lpips_norm = torch.clamp(lpips_val / (self.lpips_mean + 1e-8), 0, 10)
        else:
            perceptual_norm, l1_norm, lpips_norm = perceptual, l1, lpips_val

        safe_perceptual = perceptual_norm + self.epsilon
        safe_l1 = l1_norm + self.epsilon
        safe_lpips = lpips_norm + self.epsilon
        if self.use_log_space:
            product = torch.exp(torch.log(safe_perceptual) + torch.log(safe_l1) + torch.log(safe_lpips))
        else:
            product = safe_perceptual * safe_l1 * safe_lpips
        return {
            "perceptual": perceptual,
            "l1": l1,
            "lpips": lpips_val,
            "total": torch.clamp(product, max=100.0),
            "perceptual_norm": perceptual_norm,
            "l1_norm": l1_norm,
            "lpips_norm": lpips_norm,
        }


class HybridLoss(CombinedLoss):
    """(1 - w) * weighted sum + w * product."""

    def __init__(self, alpha=1.0, beta=0.1, gamma=0.05, multiplicative_weight=0.1, vgg_layers=None, device="cuda"):
        super().__init__(alpha, beta, gamma, vgg_layers, device)
        self.multiplicative_weight = multiplicative_weight
        self.multiplicative_loss = MultiplicativeLoss(vgg_layers, device, normalize=True)

    def forward(self, rendered, target):
        additive = super().forward(rendered, target)
        product = self.multiplicative_loss(rendered, target)
        weight = self.multiplicative_weight
        total = (1 - weight) * additive["total"] + weight * product["total"]
        return {
            "total": total,
            "additive_total": additive["total"],
            "multiplicative_total": product["total"],
            "perceptual": additive["perceptual"],
            "l1": additive["l1"],
            "lpips": additive["lpips"],
        }
