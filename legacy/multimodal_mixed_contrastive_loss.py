"""Frozen twin of ``src.training.losses.multimodal_mixed_contrastive_loss``: InfoNCE + NT-Xent + supervised terms.

Not the class of the same name in ``contrastive_learning``. Kept on purpose: noise on the logits of small training
batches, one random positive per row and column, no maximum in the log-sum-exp, diagnostics that carry the graph.
Successor: ``training_losses.multimodal.mixed_loss.MixedContrastiveLoss``.
"""

import logging

import torch
import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class MultiModalMixedContrastiveLoss(nn.Module):
    def __init__(
        self,
        temperature=0.07,
        loss_weights=None,
        reduction="mean",
        add_projection=False,
        projection_dim=256,
        input_dim=None,
    ):
        super().__init__()
        self.temperature = temperature
        self.reduction = reduction
        if loss_weights is None:
            loss_weights = {"infonce": 0.4, "nt_xent": 0.3, "supervised": 0.3}
        self.loss_weights = loss_weights
        self.add_projection = add_projection
        if add_projection:
            assert input_dim is not None, "input_dim is needed with add_projection"
            for name in ("vision_projection", "text_projection"):
                head = nn.Sequential(nn.Linear(input_dim, input_dim), nn.ReLU(), nn.Linear(input_dim, projection_dim))
                setattr(self, name, head)

    def project(self, vision_features, text_features):
        if self.add_projection:
            device = vision_features.device
            if next(self.vision_projection.parameters()).device != device:
                self.vision_projection = self.vision_projection.to(device)
                self.text_projection = self.text_projection.to(device)
            vision_features = self.vision_projection(vision_features)
            text_features = self.text_projection(text_features)
        return F.normalize(vision_features, p=2, dim=1), F.normalize(text_features, p=2, dim=1)

    def forward(self, vision_features, text_features, match_ids=None, labels=None):
        batch_size, device = vision_features.shape[0], vision_features.device
        if batch_size == 0:
            return {"loss": torch.tensor(0.0, device=device)}
        if text_features.shape[0] != batch_size:
            raise ValueError(f"batch sizes differ: {batch_size} images, {text_features.shape[0]} texts")
        vision, text = self.project(vision_features, text_features)
        if match_ids is None:
            v2t_targets = t2v_targets = torch.arange(batch_size, device=device)
        else:
            v2t_targets, t2v_targets = self._draw_targets(match_ids, batch_size, device)

        similarity = vision @ text.T / self.temperature
        if batch_size < 16 and self.training:
            scale = max(0.005, 0.02 * (16 - batch_size) / 16)
            similarity = similarity + torch.randn_like(similarity) * scale
        infonce = (
            F.cross_entropy(similarity, v2t_targets, reduction=self.reduction)
            + F.cross_entropy(similarity.T, t2v_targets, reduction=self.reduction)
        ) / 2
        nt_xent = self._nt_xent_loss(vision, text)
        if labels is None:
            supervised = torch.tensor(0.0, device=device)
        else:
            supervised = self._supervised_contrastive_loss(vision, text, labels)
        weights = self.loss_weights
        loss = weights["infonce"] * infonce + weights["nt_xent"] * nt_xent + weights["supervised"] * supervised
        with torch.no_grad():
            v2t_accuracy = (similarity.argmax(dim=1) == v2t_targets).float().mean()
            t2v_accuracy = (similarity.argmax(dim=0) == t2v_targets).float().mean()
            recalls = self._compute_recall_at_k(similarity, [1, 5, 10], v2t_targets, t2v_targets)
        return {
            "loss": loss,
            "loss_infonce": infonce,
            "loss_nt_xent": nt_xent,
            "loss_supervised": supervised,
            "v2t_accuracy": v2t_accuracy,
            "t2v_accuracy": t2v_accuracy,
            "accuracy": (v2t_accuracy + t2v_accuracy) / 2,
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

    def _nt_xent_loss(self, vision_features, text_features):
        n, device = vision_features.shape[0], vision_features.device
        features = torch.cat([vision_features, text_features], dim=0)
        mask = 1 - torch.eye(2 * n, device=device)
        similarity = features @ features.T / self.temperature * mask - 1e9 * (1 - mask)
        return F.cross_entropy(similarity, torch.arange(2 * n, device=device).roll(n), reduction=self.reduction)

    def _supervised_contrastive_loss(self, vision_features, text_features, labels):
        features = torch.cat([vision_features, text_features], dim=0)
        labels = torch.cat([labels, labels], dim=0).reshape(-1, 1)
        others = 1 - torch.eye(features.shape[0], device=features.device)
        positives = (labels == labels.T).float() * others
        similarity = features @ features.T / self.temperature
        attraction = (positives * similarity).sum(dim=1) / positives.sum(dim=1).clamp(min=1)
        losses = -attraction + torch.log((torch.exp(similarity) * others).sum(dim=1))
        return losses.mean() if self.reduction == "mean" else losses.sum() if self.reduction == "sum" else losses

    def _compute_recall_at_k(self, similarity, K=[1, 5, 10], v2t_targets=None, t2i_targets=None):
        n = similarity.shape[0]
        v2t_targets = range(n) if v2t_targets is None else v2t_targets
        t2i_targets = range(n) if t2i_targets is None else t2i_targets

        def recall(matrix, targets, k):
            top = torch.topk(matrix, min(k, n), dim=1).indices
            return torch.tensor([bool((top[i] == targets[i]).any()) for i in range(n)]).float().mean().item()

        recalls = {}
        for k in K:
            v2t, t2i = recall(similarity, v2t_targets, k), recall(similarity.T, t2i_targets, k)
            recalls[f"v2t_recall@{k}"] = v2t
            recalls[f"t2i_recall@{k}"] = t2i
            recalls[f"avg_recall@{k}"] = (v2t + t2i) / 2
        return recalls

    def train(self, mode=True):
        self.training = mode
        if self.add_projection:
            self.vision_projection.train(mode)
            self.text_projection.train(mode)
        return self

    def eval(self):
        return self.train(False)
