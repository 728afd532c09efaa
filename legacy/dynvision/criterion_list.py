"""Frozen twin of the criterion list of ``dynvision.base``: losses built by name, weighted, summed and logged.

``TemporalBase._init_loss`` builds ``self.criterion`` from ``criterion_params``, pairs (class name, settings) whose
settings hold ``weight`` beside the constructor arguments; ``LightningBase.compute_loss`` weights, logs and sums.

Replaced by ``training_losses.balancing.WeightedSumLoss``. Kept as it was, among other things: the default list is
shared by all models and changed by each; ``weight`` is popped from the caller's settings and ``ignore_index`` written
into them; the total has the default dtype whatever the outputs have; two criteria of one class share a log key;
exceptions while hooks are registered are swallowed. The spelling of the requirement document (lower case with
underscores) finds modules instead of classes and ends in a TypeError.
"""

import logging
from typing import Any, List, Mapping, Optional, Tuple

import torch
import torch.nn as nn

from training_losses.migration.deprecation import deprecated_module

from .temporal_masking import TemporalBase

deprecated_module(__name__)

__all__ = ["LightningBase", "TemporalBase"]

logger = logging.getLogger(__name__)


class LightningBase(nn.Module):
    """Weights, logs and sums the criteria; see the module."""

    def __init__(
        self,
        criterion_params: Optional[List[Tuple[str, dict]]] = [("CrossEntropyLoss", {"weight": 1.0})],
        energy_loss_weight: Optional[float] = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.criterion_params = criterion_params
        self.update_criterion_params("EnergyLoss", {"weight": energy_loss_weight})

    def update_criterion_params(self, criterion_name: str, config: Optional[Mapping[str, Any]] = None) -> None:
        if config is None:
            return
        if getattr(self, "criterion_params", None) is None:
            self.criterion_params = []
        given = {key: value for key, value in config.items() if value is not None}
        found = False
        for i, (name, settings) in enumerate(self.criterion_params):
            if name.lower() == criterion_name.lower():
                self.criterion_params[i] = (name, {**settings, **given})
                found = True
        if not found and given:
            self.criterion_params.append((criterion_name, dict(config)))

    def compute_loss(self, outputs: torch.Tensor, label_index: torch.Tensor) -> torch.Tensor:
        batch_size, n_classes = outputs.size(0), outputs.size(-1)
        outputs = outputs.view(-1, n_classes)
        label_index = label_index.flatten()
        if not ((label_index >= 0) & (label_index < n_classes)).any():
            logger.warning("no label lies in [0, %d)", n_classes)
        losses = torch.zeros(len(self.criterion), device=outputs.device)
        for i, entry in enumerate(self.criterion):
            criterion, weight = entry if isinstance(entry, tuple) else (entry, 1)
            loss = weight * criterion(outputs, label_index)
            losses[i] = loss
            self.log_dict(
                {f"loss/{type(criterion).__name__}": loss}, batch_size=batch_size, sync_dist=True, rank_zero_only=True
            )
        total = losses.sum()
        if torch.isnan(total):
            logger.warning("the loss is not a number")
        return total
