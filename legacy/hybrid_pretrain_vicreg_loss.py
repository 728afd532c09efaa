"""Frozen twin of ``src.training.losses.hybrid_pretrain_vicreg_loss``: InfoNCE first, VICReg afterwards.

Kept on purpose: with ``adaptive_transition`` the number of steps is no deadline, one mini-batch decides the switch, the
result's keys change from phase to phase, and its ``temperature`` always reads 0.07.
Successor: ``training_losses.contrastive.hybrid_pretrain_vicreg.HybridPretrainVICRegLoss``.
"""

import logging

import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

from .contrastive_loss import ContrastiveLoss
from .vicreg_loss import VICRegLoss

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class HybridPretrainVICRegLoss(nn.Module):
    def __init__(
        self,
        sim_coeff=5.0,
        var_coeff=5.0,
        cov_coeff=1.0,
        epsilon=1e-4,
        warmup_epochs=5,
        curriculum=True,
        num_epochs=30,
        contrastive_pretrain_steps=300,
        temperature=0.07,
        adaptive_transition=True,
        min_alignment_threshold=0.3,
        gradual_transition_steps=100,
        fusion_dim=512,
        vision_dim=768,
        text_dim=768,
    ):
        super().__init__()
        self.vicreg_loss = VICRegLoss(
            sim_coeff=sim_coeff,
            var_coeff=var_coeff,
            cov_coeff=cov_coeff,
            epsilon=epsilon,
            warmup_epochs=warmup_epochs,
            curriculum=curriculum,
            num_epochs=num_epochs,
        )
        self.contrastive_loss = ContrastiveLoss(
            temperature=temperature, add_projection=True, projection_dim=fusion_dim, input_dim=vision_dim
        )
        if text_dim != vision_dim:
            self.contrastive_loss.text_projection = nn.Sequential(
                nn.Linear(text_dim, text_dim), nn.ReLU(), nn.Linear(text_dim, fusion_dim)
            )
        self.contrastive_pretrain_steps = contrastive_pretrain_steps
        self.adaptive_transition = adaptive_transition
        self.min_alignment_threshold = min_alignment_threshold
        self.gradual_transition_steps = gradual_transition_steps
        self.current_step = 0
        self.total_steps = 0
        self.in_pretrain_phase = True
        self.transition_progress = 0.0
        self.max_diag_similarity = 0.0
        self.min_diag_similarity = 0.0
        self.mean_similarity = 0.0
        self.alignment_gap = 0.0
        self.alignment_snr = 0.0
        self.transition_complete = False
        self.early_transition = False
        self.early_transition_step = 0
        self.current_phase = "contrastive_pretrain"
        self._print_counter = 0
        self._print_frequency = 200
        self.alignment_history = {
            "step": [],
            "diag_mean": [],
            "sim_mean": [],
            "alignment_gap": [],
            "alignment_snr": [],
            "vicreg_weight": [],
            "contrastive_weight": [],
        }

    def update_epoch(self, epoch):
        self.vicreg_loss.update_epoch(epoch)

    def update_step(self, step, total_steps):
        self.current_step = step
        self.total_steps = total_steps
        self.vicreg_loss.update_step(step, total_steps)
        if self.adaptive_transition:
            aligned = self.alignment_gap > self.min_alignment_threshold
            if aligned and self.in_pretrain_phase and not self.early_transition:
                self.early_transition = True
                self.early_transition_step = step
                logger.info("step %s: the transition to VICReg begins", step)
        elif self.in_pretrain_phase and step >= self.contrastive_pretrain_steps:
            self._complete(step)
        if self.early_transition:
            done = (step - self.early_transition_step) / self.gradual_transition_steps
            self.transition_progress = min(1.0, done)
            if self.transition_progress >= 1.0 and not self.transition_complete:
                self._complete(step)
        elif not self.in_pretrain_phase:
            self.transition_progress = 1.0

    def _complete(self, step):
        self.in_pretrain_phase = False
        self.transition_complete = True
        self.current_phase = "vicreg"
        logger.info("step %s: VICReg takes over", step)

    def forward(self, z_a, z_b, **kwargs):
        self._print_counter += 1
        a, b = F.normalize(z_a, p=2, dim=1), F.normalize(z_b, p=2, dim=1)
        alignment = self._track_alignment(a @ b.T)
        if self.in_pretrain_phase and not self.early_transition:
            contrastive = self.contrastive_loss(a, b, match_ids=kwargs.get("match_ids"))
            return {
                "loss": contrastive["loss"],
                "current_phase": "contrastive_pretrain",
                "pretrain_progress": min(1.0, self.current_step / max(1, self.contrastive_pretrain_steps)),
                "contrastive_loss": contrastive["loss"].item(),
                "accuracy": contrastive.get("accuracy", 0.0),
                **alignment,
                "temperature": 0.07,
                "transition_progress": 0.0,
                "invariance_loss": 0.0,
                "variance_loss": 0.0,
                "covariance_loss": 0.0,
                "sim_weight": self.vicreg_loss.sim_coeff,
                "var_weight": 0.0,
                "cov_weight": 0.0,
            }
        if self.early_transition and not self.transition_complete:
            contrastive = self.contrastive_loss(a, b, match_ids=kwargs.get("match_ids"))
            vicreg = self.vicreg_loss(z_a, z_b)
            contrastive_weight = max(0.0, 1.0 - self.transition_progress)
            vicreg_weight = min(1.0, self.transition_progress)
            terms = ("invariance_loss", "variance_loss", "covariance_loss", "sim_weight", "var_weight", "cov_weight")
            return {
                "loss": contrastive_weight * contrastive["loss"] + vicreg_weight * vicreg["loss"],
                "current_phase": "transition",
                "transition_progress": self.transition_progress,
                "contrastive_weight": contrastive_weight,
                "vicreg_weight": vicreg_weight,
                "contrastive_loss": contrastive["loss"].item(),
                "vicreg_loss": vicreg["loss"].item(),
                "accuracy": contrastive.get("accuracy", 0.0),
                **alignment,
                **{name: vicreg[name] for name in terms},
            }
        vicreg = self.vicreg_loss(z_a, z_b)
        self.transition_complete = True
        return {**vicreg, "current_phase": "vicreg", "transition_progress": 1.0, **alignment}

    def _track_alignment(self, similarity):
        diagonal, mean = similarity.diag().mean().item(), similarity.mean().item()
        gap = diagonal - mean
        snr = abs(gap) / (similarity.std().item() + 1e-6)
        entry = {
            "step": self.current_step,
            "diag_mean": diagonal,
            "sim_mean": mean,
            "alignment_gap": gap,
            "alignment_snr": snr,
            "vicreg_weight": self.transition_progress,
            "contrastive_weight": 1.0 - self.transition_progress,
        }
        for name, value in entry.items():
            self.alignment_history[name].append(value)
        self.mean_similarity = mean
        self.alignment_gap = gap
        self.alignment_snr = snr
        self.max_diag_similarity = max(self.max_diag_similarity, diagonal)
        return {
            "diagonal_similarity": diagonal,
            "mean_similarity": mean,
            "alignment_gap": gap,
            "alignment_snr": snr,
        }
