"""Frozen twin of ``src.training.losses.decoupled_contrastive_loss``: InfoNCE across and inside two modalities.

Not the "decoupled contrastive learning" of Yeh et al., and not the class of the same name in ``contrastive_learning``.
Kept on purpose: one cross-modal term per anchor is divided by the number of pairs, duplicates repel each other inside
a modality, python zeros come back where nothing could be summed.
Successor: ``training_losses.contrastive.decoupled_loss.IntraInterModalLoss``.
"""

import logging

import torch
import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class DecoupledContrastiveLoss(nn.Module):
    def __init__(
        self, temperature: float = 0.07, lambda_v: float = 0.5, lambda_t: float = 0.5, reduction: str = "mean"
    ):
        super().__init__()
        self.temperature = temperature
        self.lambda_v = lambda_v
        self.lambda_t = lambda_t
        self.reduction = reduction

    def forward(self, vision_features, text_features, match_ids):
        batch_size, device = vision_features.shape[0], vision_features.device
        if batch_size == 0:
            return {"loss": torch.tensor(0.0, device=device)}
        if text_features.shape[0] != batch_size:
            raise ValueError(f"batch sizes differ: {batch_size} images, {text_features.shape[0]} texts")
        vision, text = F.normalize(vision_features, dim=1), F.normalize(text_features, dim=1)
        matches = torch.zeros(batch_size, batch_size, dtype=torch.bool, device=device)
        for i in range(batch_size):
            for j in range(batch_size):
                matches[i, j] = match_ids[i] == match_ids[j]

        v2t_logits = vision @ text.T / self.temperature
        t2v_logits = text @ vision.T / self.temperature
        v2t_loss = self._pooled(v2t_logits, matches)
        t2v_loss = self._pooled(t2v_logits, matches.T)
        pairs = int(matches.sum())
        if pairs == 0:
            return {"loss": torch.tensor(0.0, device=device)}
        v2t_loss, t2v_loss = v2t_loss / pairs, t2v_loss / pairs
        cross_modal_loss = (v2t_loss + t2v_loss) / 2

        itself = torch.eye(batch_size, dtype=torch.bool, device=device)
        vision_inst_loss = self._pooled(vision @ vision.T / self.temperature, itself) / batch_size
        text_inst_loss = self._pooled(text @ text.T / self.temperature, itself) / batch_size
        loss = cross_modal_loss + self.lambda_v * vision_inst_loss + self.lambda_t * text_inst_loss
        v2t_accuracy = self._accuracy(v2t_logits, matches)
        t2v_accuracy = self._accuracy(t2v_logits, matches.T)
        return {
            "loss": loss,
            "cross_modal_loss": cross_modal_loss,
            "instance_loss": (vision_inst_loss + text_inst_loss) / 2,
            "v2t_loss": v2t_loss,
            "t2v_loss": t2v_loss,
            "vision_inst_loss": vision_inst_loss,
            "text_inst_loss": text_inst_loss,
            "v2t_accuracy": v2t_accuracy,
            "t2v_accuracy": t2v_accuracy,
            "accuracy": (v2t_accuracy + t2v_accuracy) / 2,
        }

    @staticmethod
    def _pooled(logits, matches):
        """One term per row that has positives and negatives; a python zero if there is no such row."""
        total = 0.0
        for row, positive in zip(logits, matches):
            if positive.any() and not positive.all():
                attraction, repulsion = torch.exp(row[positive]).sum(), torch.exp(row[~positive]).sum()
                total = total - torch.log(attraction / (attraction + repulsion))
        return total

    @staticmethod
    @torch.no_grad()
    def _accuracy(logits, matches):
        own = torch.arange(len(matches), device=matches.device)
        first = torch.where(matches.any(dim=1), matches.int().argmax(dim=1), own)
        return (logits.argmax(dim=1) == first).float().mean()

    def train(self, mode=True):
        self.training = mode
        return self

    def eval(self):
        return self.train(False)
