"""Frozen twin of ``src.training.losses.supervised_contrastive_loss``: SupCon inside and across two modalities.

Kept on purpose: an image and its own caption are no positive pair across the modalities, distinct labels give a zero
without graph, multi-hot labels raise, and 1e-8 inside the logarithm saturates it.
Successor: ``training_losses.supervised.supervised_contrastive_loss.SupervisedContrastiveLoss``.
"""

import logging

import torch
import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class SupervisedContrastiveLoss(nn.Module):
    def __init__(
        self,
        temperature: float = 0.07,
        contrast_mode: str = "all",
        base_temperature: float = 0.07,
        similarity_threshold: float = 0.5,
        use_class_weights: bool = False,
        reduction: str = "mean",
    ):
        super().__init__()
        self.temperature = temperature
        self.contrast_mode = contrast_mode
        self.base_temperature = base_temperature
        self.similarity_threshold = similarity_threshold
        self.use_class_weights = use_class_weights
        self.reduction = reduction

    def forward(
        self, vision_features, text_features, labels=None, similarity_scores=None, class_weights=None, **kwargs
    ):
        batch_size, device = vision_features.shape[0], vision_features.device
        vision, text = F.normalize(vision_features, p=2, dim=1), F.normalize(text_features, p=2, dim=1)
        if labels is not None:
            if len(labels.shape) > 1 and labels.shape[1] > 1:
                raise UnboundLocalError("multi-hot labels never had a mask")
            positives = (labels.reshape(-1, 1) == labels.reshape(1, -1)).float()
        elif similarity_scores is not None:
            positives = (similarity_scores >= self.similarity_threshold).float()
        else:
            logger.warning("neither labels nor similarity scores: there are no positives")
            positives = torch.eye(batch_size, device=device)
        others = 1 - torch.eye(batch_size, device=device)
        positives = positives * others
        counts = positives.sum(dim=1)
        valid = counts > 0
        if not valid.any():
            logger.warning("no sample has a positive")
            names = "loss", "intra_vision_loss", "intra_text_loss", "cross_modal_loss"
            return {name: torch.tensor(0.0, device=device) for name in names}

        def component(logits, denominator, targets):
            logits = logits - logits.max(dim=1, keepdim=True).values.detach()
            log_prob = logits - torch.log((torch.exp(logits) * denominator).sum(dim=1, keepdim=True) + 1e-8)
            mean = (targets * log_prob).sum(dim=1) / (counts + 1e-8)
            if self.use_class_weights and class_weights is not None:
                mean = mean * class_weights[labels.reshape(-1)]
            losses = -(self.temperature / self.base_temperature) * mean
            if self.reduction == "mean":
                return losses[valid].mean()
            return losses[valid].sum() if self.reduction == "sum" else losses

        intra_vision = intra_text = cross_modal = torch.tensor(0.0, device=device)
        loss, components = 0.0, 0
        if self.contrast_mode in ("all", "intra"):
            intra_vision = component(vision @ vision.T / self.temperature, others, positives)
            intra_text = component(text @ text.T / self.temperature, others, positives)
            loss, components = loss + intra_vision + intra_text, components + 2
        if self.contrast_mode in ("all", "cross"):
            logits = vision @ text.T / self.temperature
            everything = torch.ones_like(logits)
            v2t = component(logits, everything, positives)
            t2v = component(logits.T, everything, positives.T)
            cross_modal = (v2t + t2v) / 2
            loss, components = loss + cross_modal, components + 1
        return {
            "loss": loss / max(1, components),
            "intra_vision_loss": intra_vision.item(),
            "intra_text_loss": intra_text.item(),
            "cross_modal_loss": cross_modal.item(),
            "contrastive_accuracy": self._accuracy(vision, text, labels, positives),
        }

    @staticmethod
    @torch.no_grad()
    def _accuracy(vision, text, labels, positives):
        similarity = vision @ text.T
        if labels is not None:
            positive = labels.reshape(-1, 1) == labels.reshape(1, -1)
            negative = ~positive
        else:
            positive = positives > 0
            negative = ~positive & ~torch.eye(len(positive), dtype=torch.bool, device=positive.device)
        correct = total = 0
        for i, row in enumerate(similarity):
            wins = row[positive[i]].unsqueeze(1) > row[negative[i]].unsqueeze(0)
            correct += int(wins.sum())
            total += wins.numel()
        return correct / total if total else 0.0
