"""Frozen twin of ``src.training.losses.dynamic_temperature_contrastive_loss``: InfoNCE with a temperature per batch.

Kept on purpose: paired items are left out of the positive mean, and the gradient also flows through the temperature.
Successor: ``training_losses.contrastive.dynamic_temperature_loss.DynamicTemperatureLoss``.
"""

import logging

import torch
import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class DynamicTemperatureContrastiveLoss(nn.Module):
    def __init__(self, base_temperature=0.07, min_temp=0.04, max_temp=0.2, dim=768):
        super().__init__()
        self.base_temperature = base_temperature
        self.min_temp = min_temp
        self.max_temp = max_temp
        self.dim = dim

    def forward(self, vision_features, text_features, match_ids):
        device, n = vision_features.device, len(match_ids)
        similarity = F.normalize(vision_features, dim=1) @ F.normalize(text_features, dim=1).T
        matches = torch.zeros(n, n, dtype=torch.bool, device=device)
        for i in range(n):
            for j in range(n):
                matches[i, j] = match_ids[i] == match_ids[j]

        positives = matches.float()
        negatives = 1 - positives
        positives.fill_diagonal_(0)
        pos_mean = (positives * similarity).sum() / max(1, positives.sum().item())
        neg_mean = (negatives * similarity).sum() / max(1, negatives.sum().item())
        separation = pos_mean - neg_mean
        temperature = self.base_temperature * (0.8 + 0.4 * torch.exp(-2 * separation))
        temperature = torch.clamp(temperature, min=self.min_temp, max=self.max_temp)

        logits = similarity / temperature
        rows, columns = matches.nonzero(as_tuple=True)
        if len(rows) == 0:
            return {"loss": torch.tensor(0.0, device=device)}
        loss_v2t = (logits.logsumexp(dim=1)[rows] - logits[rows, columns]).sum() / len(rows)
        loss_t2v = (logits.logsumexp(dim=0)[columns] - logits[rows, columns]).sum() / len(rows)
        return {
            "loss": (loss_v2t + loss_t2v) / 2,
            "temperature": temperature.item(),
            "pos_similarity": pos_mean.item(),
            "neg_similarity": neg_mean.item(),
            "v2t_loss": loss_v2t.item(),
            "t2v_loss": loss_t2v.item(),
        }
