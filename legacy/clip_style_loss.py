"""Frozen twin of ``src.training.losses.clip_style_loss``: symmetric InfoNCE over image-text pairs (CLIP).

One positive is drawn at random per row and per column when ``match_ids`` are given, and smoothed labels are cached by
batch size alone; both are kept. Successor: ``training_losses.contrastive.clip_loss.CLIPLoss``.
"""

import logging

import torch
import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class CLIPStyleLoss(nn.Module):
    def __init__(
        self,
        temperature=0.07,
        use_hard_negatives=False,
        hard_negative_weight=0.5,
        reduction="mean",
        label_smoothing=0.0,
        cache_labels=True,
    ):
        super().__init__()
        self.temperature = temperature
        self.use_hard_negatives = use_hard_negatives
        self.hard_negative_weight = hard_negative_weight
        self.reduction = reduction
        self.label_smoothing = label_smoothing
        self.cache_labels = cache_labels
        self._labels_cache = {}

    def forward(self, vision_features, text_features, match_ids=None, similarity_matrix=None, **kwargs):
        batch_size, device = vision_features.shape[0], vision_features.device
        if batch_size == 0:
            return {"loss": torch.tensor(0.0, device=device)}
        if text_features.shape[0] != batch_size:
            raise ValueError(f"batch sizes differ: {batch_size} images, {text_features.shape[0]} texts")
        vision_features = F.normalize(vision_features, p=2, dim=1)
        text_features = F.normalize(text_features, p=2, dim=1)
        if similarity_matrix is None:
            similarity = vision_features @ text_features.T / self.temperature
        else:
            similarity = similarity_matrix
        if match_ids is None:
            logger.warning("no match_ids: image i is paired with text i")
            v2t_targets = t2v_targets = torch.arange(batch_size, device=device)
        else:
            v2t_targets, t2v_targets = self._draw_targets(match_ids, batch_size, device)

        loss_v2t = self._direction(similarity, v2t_targets)
        loss_t2v = self._direction(similarity.T, t2v_targets)
        loss = (loss_v2t + loss_t2v) / 2
        with torch.no_grad():
            v2t_accuracy = (similarity.argmax(dim=1) == v2t_targets).float().mean()
            t2v_accuracy = (similarity.argmax(dim=0) == t2v_targets).float().mean()
            mean = similarity.mean().item()
            matched = similarity[torch.arange(batch_size, device=device), v2t_targets].mean().item()
            recalls = self._compute_recall_at_k(similarity, [1, 5, 10], v2t_targets, t2v_targets)
        return {
            "loss": loss,
            "v2t_loss": loss_v2t.item(),
            "t2v_loss": loss_t2v.item(),
            "v2t_accuracy": v2t_accuracy.item(),
            "t2v_accuracy": t2v_accuracy.item(),
            "accuracy": ((v2t_accuracy + t2v_accuracy) / 2).item(),
            "mean_similarity": mean,
            "matched_similarity": matched,
            "similarity_gap": matched - mean,
            "recalls": recalls,
        }

    def _draw_targets(self, match_ids, batch_size, device):
        ids = match_ids if isinstance(match_ids[0], str) else [str(item) for item in match_ids]
        matches = [[ids[i] == ids[j] for j in range(batch_size)] for i in range(batch_size)]

        def draw(row):
            positives = [j for j, match in enumerate(row) if match]
            return positives[torch.randint(0, len(positives), (1,), device=device)[0]]

        v2t = [draw(row) for row in matches]
        t2v = [draw(column) for column in zip(*matches)]
        return torch.tensor(v2t, device=device), torch.tensor(t2v, device=device)

    def _direction(self, similarity, targets):
        if self.label_smoothing <= 0:
            return F.cross_entropy(similarity, targets, reduction=self.reduction)
        labels = self._create_smooth_labels(similarity.shape[0], targets, self.label_smoothing)
        losses = -(labels * F.log_softmax(similarity, dim=1)).sum(dim=1)
        return losses.mean() if self.reduction == "mean" else losses.sum() if self.reduction == "sum" else losses

    def _create_smooth_labels(self, batch_size, targets, label_smoothing):
        if self.cache_labels and batch_size in self._labels_cache:
            return self._labels_cache[batch_size].to(targets.device)
        labels = torch.zeros(batch_size, batch_size, device=targets.device)
        labels.scatter_(1, targets.unsqueeze(1), 1.0)
        labels = labels * (1 - label_smoothing) + label_smoothing / batch_size
        if self.cache_labels:
            self._labels_cache[batch_size] = labels.detach().cpu()
        return labels

    def _compute_recall_at_k(self, similarity, K=[1, 5, 10], v2t_targets=None, t2v_targets=None):
        n = similarity.shape[0]
        v2t_targets = range(n) if v2t_targets is None else v2t_targets
        t2v_targets = range(n) if t2v_targets is None else t2v_targets

        def recall(matrix, targets, k):
            top = torch.topk(matrix, min(k, n), dim=1).indices
            return torch.tensor([bool((top[i] == targets[i]).any()) for i in range(n)]).float().mean().item()

        recalls = {}
        for k in K:
            v2t, t2v = recall(similarity, v2t_targets, k), recall(similarity.T, t2v_targets, k)
            recalls[f"v2t_recall@{k}"] = v2t
            recalls[f"t2v_recall@{k}"] = t2v
            recalls[f"avg_recall@{k}"] = (v2t + t2v) / 2
        return recalls
