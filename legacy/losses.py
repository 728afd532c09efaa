"""Frozen twin of ``src.training.losses.losses``: cross entropy with label smoothing, weighted squared error.

Kept on purpose: class weights are ignored while smoothing, soft targets are float32, means are not normalised by the
weights, and ``clip_grad`` clips the loss. Successors: ``training_losses.supervised.cross_entropy`` and ``.mse``.
"""

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)


def _reduced(loss, reduction):
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


class CrossEntropyLoss(nn.Module):
    def __init__(self, smoothing: float = 0.1, reduction: str = "mean", weight: Optional[Tensor] = None):
        super().__init__()
        self.smoothing = smoothing
        self.reduction = reduction
        self.weight = weight

    def forward(self, input, target, sample_weight=None):
        if self.smoothing > 0:
            soft = F.one_hot(target, input.size(-1)).float() * (1 - self.smoothing) + self.smoothing / input.size(-1)
            loss = -(soft * F.log_softmax(input, dim=-1)).sum(dim=-1)
        else:
            loss = F.cross_entropy(input, target, weight=self.weight, reduction="none")
        if sample_weight is not None:
            loss = loss * sample_weight
        return _reduced(loss, self.reduction)


class MeanSquaredError(nn.Module):
    def __init__(self, reduction: str = "mean", clip_grad: Optional[float] = None):
        super().__init__()
        self.reduction = reduction
        self.clip_grad = clip_grad

    def forward(self, input, target, sample_weight=None):
        loss = (input - target) ** 2
        if sample_weight is not None:
            loss = loss * sample_weight.unsqueeze(-1)
        loss = _reduced(loss, self.reduction)
        return loss if self.clip_grad is None else torch.clamp(loss, max=self.clip_grad)
