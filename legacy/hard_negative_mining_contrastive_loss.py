"""Frozen twin of ``src.training.losses.hard_negative_mining_contrastive_loss``: InfoNCE with heavier hard negatives.

Kept on purpose: the batch size is the number of ids, an unknown strategy means no mining, no maximum is subtracted,
and a batch without negatives raises ``AttributeError``.
Successor: ``training_losses.contrastive.hard_negative_loss.HardNegativeLoss``.
"""

import logging

import torch
import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class HardNegativeMiningContrastiveLoss(nn.Module):
    def __init__(self, temperature=0.07, hard_negative_factor=2.0, mining_strategy="semi-hard", dim=768):
        super().__init__()
        self.temperature = temperature
        self.hard_negative_factor = hard_negative_factor
        self.mining_strategy = mining_strategy
        self.dim = dim

    def forward(self, vision_features, text_features, match_ids):
        device, n = vision_features.device, len(match_ids)
        similarity = F.normalize(vision_features, dim=1) @ F.normalize(text_features, dim=1).T
        matches = torch.zeros(n, n, dtype=torch.bool, device=device)
        for i in range(n):
            for j in range(n):
                matches[i, j] = match_ids[i] == match_ids[j]
        loss_v2t = self._direction(similarity, matches)
        loss_t2v = self._direction(similarity.T, matches.T)
        pairs = int(matches.sum())
        if pairs == 0:
            return {"loss": torch.tensor(0.0, device=device)}
        loss_v2t, loss_t2v = loss_v2t / pairs, loss_t2v / pairs
        return {
            "loss": (loss_v2t + loss_t2v) / 2,
            "v2t_loss": loss_v2t.item(),
            "t2v_loss": loss_t2v.item(),
            "hard_negative_factor": self.hard_negative_factor,
        }

    def _direction(self, similarity, matches):
        total = 0.0
        for i, row in enumerate(matches):
            positive_columns, negative_columns = row.nonzero().flatten(), (~row).nonzero().flatten()
            if len(positive_columns) == 0 or len(negative_columns) == 0:
                continue
            positives, negatives = similarity[i][positive_columns], similarity[i][negative_columns]
            weights = torch.ones_like(negatives)
            if self.mining_strategy == "hard":
                hardest = torch.topk(negatives, max(1, int(len(negatives) * 0.1))).indices
                weights[hardest] = self.hard_negative_factor
            elif self.mining_strategy == "semi-hard":
                level = positives.mean()
                weights[(negatives < level) & (negatives > level - 0.2)] = self.hard_negative_factor
            crowd = (weights * torch.exp(negatives / self.temperature)).sum()
            own = torch.exp(positives / self.temperature)
            total = total + (-torch.log(own / (own + crowd))).sum()
        return total
