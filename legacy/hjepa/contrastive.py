"""Frozen twin of the old ``contrastive`` module: NT-Xent, and a prediction loss with NT-Xent beside it.

Kept as it was: ``mask`` is ignored; logits and similarities are reported after division by the temperature;
``negative_similarity`` averages masked entries and is always -inf; ties count as correct, so a collapsed batch has
accuracy 1. ``ContrastiveJEPALoss`` computes with its buffers, prints its attributes, cannot take predictions as a
tuple and lets the outer ``jepa_loss`` shadow an inner key of that name.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)


class NTXentLoss(nn.Module):
    def __init__(self, temperature=0.1, use_cosine_similarity=True, reduction="mean", eps=1e-8):
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"Temperature must be positive, got {temperature}")
        self.temperature = temperature
        self.use_cosine_similarity = use_cosine_similarity
        self.reduction = reduction
        self.eps = eps

    def _compute_similarity(self, z_i, z_j):
        if self.use_cosine_similarity:
            z_i = F.normalize(z_i, p=2, dim=-1, eps=self.eps)
            z_j = F.normalize(z_j, p=2, dim=-1, eps=self.eps)
        return torch.matmul(z_i, z_j.T)

    def forward(self, z_i, z_j, mask=None):
        if z_i.ndim == 3:
            b, n, d = z_i.shape
            z_i = z_i.reshape(b * n, d)
            z_j = z_j.reshape(b * n, d)
        if z_i.shape != z_j.shape:
            raise ValueError(f"z_i and z_j must have the same shape, got {tuple(z_i.shape)} and {tuple(z_j.shape)}")
        n = z_i.shape[0]
        z = torch.cat([z_i, z_j], dim=0)
        if self.use_cosine_similarity:
            z = F.normalize(z, p=2, dim=-1, eps=self.eps)
        similarity = torch.mm(z, z.t()) / self.temperature

        itself = torch.eye(n, dtype=torch.bool, device=z.device)
        within_i = similarity[:n, :n].masked_fill(itself, float("-inf"))
        within_j = similarity[n:, n:].masked_fill(itself, float("-inf"))
        i_to_j = similarity[:n, n:]
        j_to_i = similarity[n:, :n]
        positive_i, positive_j = i_to_j.diagonal(), j_to_i.diagonal()
        logits_i = torch.cat([positive_i.unsqueeze(1), within_i, i_to_j.masked_fill(itself, float("-inf"))], dim=1)
        logits_j = torch.cat([positive_j.unsqueeze(1), within_j, j_to_i.masked_fill(itself, float("-inf"))], dim=1)
        logits = torch.cat([logits_i, logits_j], dim=0)
        labels = torch.zeros(2 * n, dtype=torch.long, device=z.device)
        loss = F.cross_entropy(logits, labels, reduction=self.reduction)
        with torch.no_grad():
            accuracy = (logits.argmax(dim=1) == labels).float().mean()
            positive_similarity = positive_i.mean()
            negative_similarity = logits_i[:, 1:].mean()
        return {
            "loss": loss,
            "logits": logits.detach(),
            "accuracy": accuracy,
            "positive_similarity": positive_similarity.detach(),
            "negative_similarity": negative_similarity.detach(),
        }

    def extra_repr(self):
        return (
            f"temperature={self.temperature}, use_cosine_similarity={self.use_cosine_similarity}, "
            f"reduction={self.reduction}"
        )


class ContrastiveJEPALoss(nn.Module):
    def __init__(
        self,
        jepa_loss,
        jepa_weight=1.0,
        contrastive_weight=0.1,
        contrastive_temperature=0.1,
        use_cosine_similarity=True,
        contrastive_on_context=False,
        reduction="mean",
        eps=1e-8,
    ):
        super().__init__()
        self.jepa_loss = jepa_loss
        self.jepa_weight = jepa_weight
        self.contrastive_weight = contrastive_weight
        self.contrastive_on_context = contrastive_on_context
        self.eps = eps
        self.contrastive = NTXentLoss(contrastive_temperature, use_cosine_similarity, reduction, eps)
        self.register_buffer("_jepa_weight", torch.tensor(jepa_weight))
        self.register_buffer("_contrastive_weight", torch.tensor(contrastive_weight))

    def forward(
        self,
        predictions,
        targets,
        context_features_i=None,
        context_features_j=None,
        target_features_i=None,
        target_features_j=None,
        masks=None,
    ):
        jepa = self.jepa_loss(predictions, targets, masks)
        # looked up and never used; a tuple of predictions fails here
        _ = predictions[0].device if isinstance(predictions, list) else predictions.device
        has_context = context_features_i is not None and context_features_j is not None
        has_targets = target_features_i is not None and target_features_j is not None
        if self.contrastive_on_context:
            if not has_context:
                raise ValueError("contrastive_on_context is set but context_features not provided")
            features_i, features_j = context_features_i, context_features_j
        elif has_targets:
            features_i, features_j = target_features_i, target_features_j
        elif has_context:
            features_i, features_j = context_features_i, context_features_j
        else:
            raise ValueError("target or context features must be provided for contrastive learning")
        contrastive = self.contrastive(features_i[:, 0, :], features_j[:, 0, :])
        result = {
            "loss": self._jepa_weight * jepa["loss"] + self._contrastive_weight * contrastive["loss"],
            "jepa_loss": jepa["loss"],
            "contrastive_loss": contrastive["loss"],
            "contrastive_accuracy": contrastive["accuracy"],
            "contrastive_pos_sim": contrastive["positive_similarity"],
            "contrastive_neg_sim": contrastive["negative_similarity"],
        }
        for key, value in jepa.items():
            if key not in result:
                result[key] = value
        return result

    def get_loss_summary(self, loss_dict):
        lines = [
            "C-JEPA Loss Summary:",
            f"  Total Loss: {loss_dict['loss'].item():.6f}",
            f"  JEPA Loss (weight={self.jepa_weight:.3f}): {loss_dict['jepa_loss'].item():.6f}",
            f"  Contrastive Loss (weight={self.contrastive_weight:.3f}): {loss_dict['contrastive_loss'].item():.6f}",
            f"  Contrastive Accuracy: {loss_dict['contrastive_accuracy'].item():.4f}",
            f"  Positive Similarity: {loss_dict['contrastive_pos_sim'].item():.4f}",
            f"  Negative Similarity: {loss_dict['contrastive_neg_sim'].item():.4f}",
        ]
        if "loss_h0" in loss_dict:
            lines += ["", "JEPA Hierarchical Breakdown:"]
            level = 0
            while f"loss_h{level}" in loss_dict:
                lines.append(f"  Level {level}: {loss_dict[f'loss_h{level}'].item():.6f}")
                level += 1
        return "\n".join(lines)

    def extra_repr(self):
        return (
            f"jepa_weight={self.jepa_weight}, contrastive_weight={self.contrastive_weight}, "
            f"temperature={self.contrastive.temperature}, contrastive_on_context={self.contrastive_on_context}"
        )


def create_cjepa_loss_from_config(config, jepa_loss):
    section = config.get("loss", {})
    return ContrastiveJEPALoss(
        jepa_loss,
        jepa_weight=section.get("jepa_weight", 1.0),
        contrastive_weight=section.get("contrastive_weight", 0.1),
        contrastive_temperature=section.get("contrastive_temperature", 0.1),
        use_cosine_similarity=section.get("use_cosine_similarity", True),
        contrastive_on_context=section.get("contrastive_on_context", False),
    )
