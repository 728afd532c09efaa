"""Frozen twin of ``src.training.losses.combined_loss``: one loss plus up to two weighted others.

Kept on purpose: every term gets the same arguments, a weight of zero still evaluates, and colliding keys overwrite
each other. Successor: ``training_losses.balancing.weighted_sum.WeightedSumLoss``.
"""

import torch
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)


class CombinedLoss(nn.Module):
    def __init__(
        self,
        primary_loss,
        secondary_loss=None,
        secondary_loss_weight=0.5,
        tertiary_loss=None,
        tertiary_loss_weight=0.3,
    ):
        super().__init__()
        self.primary_loss = primary_loss
        self.secondary_loss = secondary_loss
        self.secondary_loss_weight = secondary_loss_weight
        self.tertiary_loss = tertiary_loss
        self.tertiary_loss_weight = tertiary_loss_weight

    def forward(self, *args, **kwargs):
        def evaluate(loss):
            answer = loss(*args, **kwargs)
            metrics = answer if isinstance(answer, dict) else {"loss": answer}
            return metrics["loss"], metrics

        def number(value):
            return value.item() if isinstance(value, torch.Tensor) else value

        total, metrics = evaluate(self.primary_loss)
        result = dict(metrics)
        result["primary_loss"] = number(total)
        for name in ("secondary", "tertiary"):
            loss = getattr(self, f"{name}_loss")
            if loss is None:
                continue
            value, metrics = evaluate(loss)
            weight = getattr(self, f"{name}_loss_weight")
            total = total + weight * value
            result[f"{name}_loss"] = number(value)
            result[f"{name}_weight"] = weight
            result.update((f"{name}_{key}", item) for key, item in metrics.items() if key != "loss")
        result["loss"] = total
        return result

    def train(self, mode=True):
        super().train(mode)
        for loss in (self.primary_loss, self.secondary_loss, self.tertiary_loss):
            if hasattr(loss, "train"):
                loss.train(mode)
        return self

    def eval(self):
        return self.train(False)
