"""Frozen twin of ``src.training.losses.contrastive_learning``: three functions and two classes with used-up names.

``DecoupledContrastiveLoss`` and ``MultiModalMixedContrastiveLoss`` here differ from the classes of the same names that
the package exports; the second cannot be constructed. Kept on purpose: without two samples of one id the decoupled
loss is a constant zero. Successors: ``training_losses.functional`` (``nt_xent``, ``supervised_contrastive``,
``retrieval_recall``), ``contrastive.decoupled_loss.IntraInterModalLoss``,
``multimodal.image_text_multitask.ImageTextMultiTaskLoss``.
"""

import logging
from typing import Dict, List

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


def nt_xent_loss(vision_features, text_features, temperature: float = 0.07, reduction: str = "mean") -> Tensor:
    n, device = vision_features.shape[0], vision_features.device
    features = torch.cat([vision_features, text_features], dim=0)
    identity = torch.eye(2 * n, device=device)
    similarity = features @ features.T / temperature
    similarity = similarity * (1 - identity) - 1e9 * identity
    partners = torch.cat([torch.arange(n, 2 * n, device=device), torch.arange(n, device=device)])
    return F.cross_entropy(similarity, partners, reduction=reduction)


def supervised_contrastive_loss(
    vision_features, text_features, labels, temperature: float = 0.07, reduction: str = "mean"
) -> Tensor:
    features = torch.cat([vision_features, text_features], dim=0)
    labels = torch.cat([labels, labels], dim=0).reshape(-1, 1)
    others = 1 - torch.eye(features.shape[0], device=features.device)
    positives = (labels == labels.T).float() * others
    similarity = features @ features.T / temperature
    mean_positive = (similarity * positives).sum(dim=1) / positives.sum(dim=1).clamp(min=1)
    losses = -mean_positive + torch.log((torch.exp(similarity) * others).sum(dim=1))
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses


def compute_recall_at_k(similarity, K: List[int] = [1, 5, 10], v2t_targets=None, t2i_targets=None) -> Dict[str, float]:
    n = similarity.shape[0]
    recalls = {}
    for k in K:
        found = []
        for matrix, targets in ((similarity, v2t_targets), (similarity.T, t2i_targets)):
            targets = range(n) if targets is None else targets
            top = torch.topk(matrix, min(k, n), dim=1).indices
            hits = [bool((top[i] == targets[i]).any()) for i in range(n)]
            found.append(torch.tensor(hits).float().mean().item())
        recalls[f"v2t_recall@{k}"], recalls[f"t2i_recall@{k}"] = found
        recalls[f"avg_recall@{k}"] = sum(found) / 2
    return recalls


class MultiModalMixedContrastiveLoss(nn.Module):
    """The module never had the name ``ContrastiveLoss`` that this constructor asks for."""

    def __init__(
        self,
        contrastive_weight: float = 1.0,
        classification_weight: float = 0.0,
        multimodal_matching_weight: float = 0.0,
        temperature: float = 0.07,
        use_hard_negatives: bool = False,
        hard_negative_weight: float = 0.5,
        dim: int = 768,
    ):
        super().__init__()
        raise NameError("name 'ContrastiveLoss' is not defined")


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
        vision, text = F.normalize(vision_features, dim=1), F.normalize(text_features, dim=1)
        matches = torch.zeros(batch_size, batch_size, dtype=torch.bool, device=device)
        for i in range(batch_size):
            for j in range(batch_size):
                matches[i, j] = match_ids[i] == match_ids[j]
        itself = torch.eye(batch_size, dtype=torch.bool, device=device)
        others = matches & ~itself

        logits = vision @ text.T / self.temperature
        v2t_loss, v2t_hits = self._pairs(logits, matches)
        t2v_loss, t2v_hits = self._pairs(logits.T, matches.T)
        vision_logits = (vision @ vision.T / self.temperature).masked_fill(itself, -torch.inf)
        text_logits = (text @ text.T / self.temperature).masked_fill(itself, -torch.inf)
        vision_inst_loss, _ = self._pairs(vision_logits, others)
        text_inst_loss, _ = self._pairs(text_logits, others)
        terms = [v2t_loss, t2v_loss, vision_inst_loss, text_inst_loss]
        pairs = int(others.sum())
        # the diagonal pairs were summed, too, but do not count
        terms = [term / pairs if pairs > 0 else torch.tensor(0.0, device=device) for term in terms]
        v2t_loss, t2v_loss, vision_inst_loss, text_inst_loss = terms

        cross_modal_loss = (v2t_loss + t2v_loss) / 2
        instance_loss = self.lambda_v * vision_inst_loss + self.lambda_t * text_inst_loss
        v2t_accuracy = v2t_hits / batch_size if batch_size else 0.0
        t2v_accuracy = t2v_hits / batch_size if batch_size else 0.0
        return {
            "loss": cross_modal_loss + instance_loss,
            "cross_modal_loss": cross_modal_loss.item(),
            "instance_loss": instance_loss.item(),
            "v2t_loss": v2t_loss.item(),
            "t2v_loss": t2v_loss.item(),
            "vision_inst_loss": vision_inst_loss.item(),
            "text_inst_loss": text_inst_loss.item(),
            "v2t_accuracy": v2t_accuracy,
            "t2v_accuracy": t2v_accuracy,
            "accuracy": (v2t_accuracy + t2v_accuracy) / 2,
        }

    @staticmethod
    def _pairs(logits, matches):
        """Sum over the positive pairs, and the number of rows whose largest entry is a positive."""
        total, hits = 0.0, 0
        for i, row_matches in enumerate(matches):
            positives = row_matches.nonzero().flatten()
            if len(positives):
                total = total + (logits[i].logsumexp(dim=0) - logits[i][positives]).sum()
                hits += bool(row_matches[logits[i].argmax()])
        return total, hits
