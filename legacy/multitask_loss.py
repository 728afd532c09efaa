"""Frozen twin of ``src.training.losses.multitask_loss``: weighted sum of named task losses.

Kept on purpose: weights are normalised to sum one, dynamic weights replace them by inverse running losses (validation
batches included, nothing saved), and the sum is accumulated in place.
Successor: ``training_losses.balancing.multitask.MultiTaskLoss``.
"""

import logging

import torch
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class MultitaskLoss(nn.Module):
    def __init__(self, loss_functions, loss_weights=None, dynamic_weighting=False, reduction="mean"):
        super().__init__()
        self.loss_functions = nn.ModuleDict(loss_functions)
        self.task_names = list(loss_functions.keys())
        if loss_weights is None:
            share = 1.0 / len(self.task_names)
            self.loss_weights = {task: share for task in self.task_names}
        else:
            total = sum(loss_weights.values())
            self.loss_weights = {task: weight / total for task, weight in loss_weights.items()}
        self.dynamic_weighting = dynamic_weighting
        self.reduction = reduction
        if dynamic_weighting:
            self.running_losses = {task: 1.0 for task in self.task_names}
            self.momentum = 0.9

    def _update_dynamic_weights(self, individual_losses):
        for task in self.task_names:
            if f"{task}_loss" in individual_losses:
                value = individual_losses[f"{task}_loss"].detach().item()
                running = self.running_losses[task]
                self.running_losses[task] = self.momentum * running + (1 - self.momentum) * value
        inverse = {task: 1.0 / max(value, 1e-8) for task, value in self.running_losses.items()}
        total = sum(inverse.values())
        self.loss_weights = {task: value / total for task, value in inverse.items()}

    def forward(self, inputs, targets):
        losses = {}
        for task in self.task_names:
            if task in inputs and task in targets:
                losses[f"{task}_loss"] = self.loss_functions[task](inputs[task], targets[task])
            else:
                logger.warning("task %r lacks inputs or targets", task)
        if self.dynamic_weighting and losses:
            self._update_dynamic_weights(losses)
        total = 0.0
        for task in self.task_names:
            if f"{task}_loss" in losses:
                total += self.loss_weights[task] * losses[f"{task}_loss"]
        weights = {f"{task}_weight": torch.tensor(self.loss_weights[task]) for task in self.task_names}
        return {"loss": total, **losses, **weights}
