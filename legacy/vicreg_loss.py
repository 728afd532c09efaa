"""Frozen twin of ``src.training.losses.vicreg_loss``: variance-invariance-covariance regularisation of two views.

Kept on purpose: the invariance term is taken on centred views, and the damping of the two regularisers applies twice
in epoch 0 and never ends above one half. Successor: ``training_losses.contrastive.vicreg.VICRegLoss``.
"""

import torch
import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)


class VICRegLoss(nn.Module):
    def __init__(
        self,
        sim_coeff=10.0,
        var_coeff=5.0,
        cov_coeff=1.0,
        epsilon=1e-3,
        warmup_epochs=5,
        curriculum=True,
        num_epochs=30,
    ):
        super().__init__()
        self.sim_coeff = sim_coeff
        self.var_coeff = var_coeff
        self.cov_coeff = cov_coeff
        self.epsilon = epsilon
        self.warmup_epochs = warmup_epochs
        self.curriculum = curriculum
        self.num_epochs = num_epochs
        self.current_epoch = 0
        self.current_step = 0
        self.total_steps = 0
        self.effective_var_coeff = 0.0
        self.effective_cov_coeff = 0.0
        self._print_counter = 0
        self._print_frequency = 200

    def update_epoch(self, epoch):
        self.current_epoch = epoch

    def update_step(self, step, total_steps):
        self.current_step = step
        self.total_steps = total_steps

    def get_warmup_factor(self):
        if self.current_epoch == 0:
            return 0.1
        if self.current_epoch == 1:
            return 0.3
        if self.total_steps > 0 and self.current_step > 0:
            steps_per_epoch = max(1, self.total_steps / max(self.num_epochs, 1))
            progress = self.current_step / max(1, self.warmup_epochs * steps_per_epoch)
        else:
            progress = self.current_epoch / max(1, self.warmup_epochs)
        return max(0.3, min(0.5, progress**0.33))

    def forward(self, z_a, z_b):
        self._print_counter += 1
        factor = 1.0
        if self.curriculum:
            factor = self.get_warmup_factor()
            self.effective_var_coeff = self.var_coeff * factor
            self.effective_cov_coeff = self.cov_coeff * factor
            if self.current_epoch == 0:
                self.effective_var_coeff *= 0.1
                self.effective_cov_coeff *= 0.1
        else:
            self.effective_var_coeff = self.var_coeff
            self.effective_cov_coeff = self.cov_coeff

        x = z_a - z_a.mean(dim=0, keepdim=True)
        y = z_b - z_b.mean(dim=0, keepdim=True)
        invariance = F.mse_loss(x, y)
        std_x = torch.sqrt(x.var(dim=0) + self.epsilon)
        std_y = torch.sqrt(y.var(dim=0) + self.epsilon)
        variance = F.relu(1 - std_x).mean() + F.relu(1 - std_y).mean()
        cov_x = x.T @ x / (z_a.shape[0] - 1)
        cov_y = y.T @ y / (z_a.shape[0] - 1)
        off_diagonal = ~torch.eye(cov_x.shape[0], dtype=torch.bool, device=cov_x.device)
        covariance = (
            cov_x[off_diagonal].pow(2).sum() / cov_x.shape[0] + cov_y[off_diagonal].pow(2).sum() / cov_y.shape[0]
        )
        loss = self.sim_coeff * invariance + self.effective_var_coeff * variance + self.effective_cov_coeff * covariance
        return {
            "loss": loss,
            "invariance_loss": invariance.item(),
            "variance_loss": variance.item(),
            "covariance_loss": covariance.item(),
            "sim_weight": self.sim_coeff,
            "var_weight": self.effective_var_coeff,
            "cov_weight": self.effective_cov_coeff,
            "warmup_factor": factor,
        }
