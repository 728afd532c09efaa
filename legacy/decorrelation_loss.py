"""Frozen twin of ``src.training.losses.decorrelation_loss``: off-diagonal covariance of up to three feature sets.

Kept on purpose: the normaliser D(D-1) on unit rows, a set that is too small still lowers the average, and the dead
``epsilon``. Successor: ``training_losses.contrastive.decorrelation.DecorrelationLoss``.
"""

import logging

import torch
import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class DecorrelationLoss(nn.Module):
    def __init__(
        self,
        coef=1.0,
        epsilon=1e-5,
        normalize_embeddings=True,
        track_feature_stats=True,
        reduction="mean",
    ):
        super().__init__()
        self.coef = coef
        self.epsilon = epsilon
        self.normalize_embeddings = normalize_embeddings
        self.track_feature_stats = track_feature_stats
        self.reduction = reduction
        self.min_variance_threshold = 1e-4

    def _compute_covariance(self, features):
        n, dim = features.shape
        if n <= 1:
            return torch.zeros(dim, dim, device=features.device)
        centered = features - features.mean(dim=0, keepdim=True)
        return centered.T @ centered / (n - 1)

    def _compute_off_diagonal_loss(self, covariance):
        dim = covariance.shape[0]
        energy = (covariance * (1 - torch.eye(dim, device=covariance.device))).pow(2)
        if self.reduction == "mean":
            return energy.sum() / (dim * (dim - 1))
        return energy.sum() if self.reduction == "sum" else energy

    def _statistics(self, features, prefix):
        variance = features.var(dim=0)
        low = int((variance < self.min_variance_threshold).sum())
        if low > 0.5 * variance.shape[0]:
            logger.warning("%s: %d of %d dimensions have collapsed", prefix, low, variance.shape[0])
        return {
            f"{prefix}_min_var": variance.min().item(),
            f"{prefix}_max_var": variance.max().item(),
            f"{prefix}_mean_var": variance.mean().item(),
            f"{prefix}_low_var_dims": low,
            f"{prefix}_low_var_pct": low / variance.shape[0],
        }

    def forward(self, vision_features=None, text_features=None, features=None, **kwargs):
        given = {
            key: (prefix, value)
            for key, prefix, value in (
                ("vision", "vision", vision_features),
                ("text", "text", text_features),
                ("generic", "feature", features),
            )
            if value is not None
        }
        if not given:
            return {"loss": torch.tensor(0.0)}
        terms, stats = {}, {}
        for key, (prefix, value) in given.items():
            n, _ = value.shape
            if n <= 1:
                logger.warning("%s: one sample has no covariance", key)
                terms[key] = torch.tensor(0.0, device=value.device)
                continue
            if self.normalize_embeddings:
                value = F.normalize(value, p=2, dim=1)
            terms[key] = self._compute_off_diagonal_loss(self._compute_covariance(value))
            if self.track_feature_stats:
                stats.update(self._statistics(value, prefix))
        total = 0.0
        for term in terms.values():
            total = total + term
        if len(terms) > 1:
            total = total / len(terms)
        total = self.coef * total
        result = {"loss": total, "decorrelation_loss": total.item()}
        for key, term in terms.items():
            result[f"{key}_decorrelation_loss"] = term.item()
        if self.track_feature_stats:
            result["feature_stats"] = stats
        return result
