"""Frozen twin of ``src.training.losses.feature_consistency_loss``: distance to the features of a frozen model.

Kept on purpose: the caller's models are frozen in place, ``train()`` wakes them up, and a call in which nothing can be
compared dies with ``AttributeError``.
Successor: ``training_losses.multimodal.feature_consistency.FeatureConsistencyLoss``.
"""

import logging

import torch
import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class FeatureConsistencyLoss(nn.Module):
    def __init__(
        self,
        reference_vision_model=None,
        reference_text_model=None,
        vision_weight=1.0,
        text_weight=1.0,
        distance_fn="cosine",
        normalize_features=True,
        detach_reference=True,
        reduction="mean",
    ):
        super().__init__()
        self.reference_vision_model = reference_vision_model
        self.reference_text_model = reference_text_model
        self.vision_weight = vision_weight
        self.text_weight = text_weight
        self.distance_fn = distance_fn
        self.normalize_features = normalize_features
        self.detach_reference = detach_reference
        self.reduction = reduction
        for model in (reference_vision_model, reference_text_model):
            if model is not None:
                model.eval()
                if detach_reference:
                    for parameter in model.parameters():
                        parameter.requires_grad = False

    def _compute_distance(self, current_features, reference_features):
        if self.normalize_features:
            current_features = F.normalize(current_features, p=2, dim=1)
            reference_features = F.normalize(reference_features, p=2, dim=1)
        if self.distance_fn == "cosine":
            distance = 1 - (current_features * reference_features).sum(dim=1)
        elif self.distance_fn in ("l2", "l1"):
            order = 2 if self.distance_fn == "l2" else 1
            distance = torch.norm(current_features - reference_features, p=order, dim=1)
        elif self.distance_fn == "smooth_l1":
            distance = F.smooth_l1_loss(current_features, reference_features, reduction="none").sum(dim=1)
        else:
            raise ValueError(f"unknown distance function {self.distance_fn!r}")
        if self.reduction == "mean":
            return distance.mean()
        return distance.sum() if self.reduction == "sum" else distance

    def _reference(self, model, inputs, device):
        model_device = next(model.parameters()).device
        if isinstance(inputs, dict) and model is self.reference_text_model:
            inputs = {k: v.to(model_device) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
        elif inputs.device != model_device:
            inputs = inputs.to(model_device)
        with torch.set_grad_enabled(not self.detach_reference):
            features = model(inputs)
        return features if model_device == device else features.to(device)

    def _consistency(self, name, model, features, inputs, device):
        """The distance of one modality, or None if it cannot be compared."""
        if model is None:
            return None
        reference = None if inputs is None else self._reference(model, inputs, device)
        if features is None or reference is None:
            if features is not None or reference is not None:
                logger.warning("%s: features and inputs are both needed", name)
            return None
        if features.shape != reference.shape:
            logger.warning("%s: shapes %s and %s differ", name, features.shape, reference.shape)
            return None
        return self._compute_distance(features, reference)

    def forward(self, vision_features=None, text_features=None, vision_inputs=None, text_inputs=None, **kwargs):
        given = [x for x in (vision_features, text_features, vision_inputs, text_inputs) if x is not None]
        if not given:
            return {"loss": torch.tensor(0.0)}
        device = given[0].device
        vision = self._consistency("vision", self.reference_vision_model, vision_features, vision_inputs, device)
        text = self._consistency("text", self.reference_text_model, text_features, text_inputs, device)
        total = 0.0
        if vision is not None:
            total = total + self.vision_weight * vision
        if text is not None:
            total = total + self.text_weight * text
        return {
            "loss": total,
            "feature_consistency_loss": total.item(),
            "vision_consistency_loss": 0.0 if vision is None else vision.item(),
            "text_consistency_loss": 0.0 if text is None else text.item(),
            "vision_weight": self.vision_weight,
            "text_weight": self.text_weight,
        }
