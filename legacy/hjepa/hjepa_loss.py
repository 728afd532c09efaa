"""Frozen twin of the old ``hjepa_loss`` module: weighted regression between predicted and target embeddings.

For every level i the rows of prediction and target are (optionally) normalised, the target is (optionally) detached
and an elementwise mse / smooth-l1 / huber value is reduced. ``loss`` is the sum of the levels weighted by the float32
buffer ``_hierarchy_weights``, ``loss_unweighted`` the plain mean, ``loss_h{i}`` the level itself.

Kept as it was: a masked "mean" divides by the number of selected positions (not elements); ``reduction="none"`` with
several levels broadcasts the weights against the last axis; ``context_features`` is accepted and ignored; editing the
attribute ``hierarchy_weights`` changes nothing, the buffer counts; an unknown reduction is noticed by torch only.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)


class HJEPALoss(nn.Module):
    def __init__(
        self,
        loss_type="smoothl1",
        hierarchy_weights=1.0,
        num_hierarchies=3,
        reduction="mean",
        normalize_embeddings=True,
        huber_delta=1.0,
        eps=1e-8,
        detach_targets=True,
    ):
        super().__init__()
        self.loss_type = loss_type
        self.num_hierarchies = num_hierarchies
        self.reduction = reduction
        self.normalize_embeddings = normalize_embeddings
        self.huber_delta = huber_delta
        self.eps = eps
        self.detach_targets = detach_targets
        if isinstance(hierarchy_weights, (int, float)):
            self.hierarchy_weights = [float(hierarchy_weights)] * num_hierarchies
        else:
            if len(hierarchy_weights) != num_hierarchies:
                raise ValueError(
                    f"hierarchy_weights has {len(hierarchy_weights)} entries, num_hierarchies is {num_hierarchies}"
                )
            self.hierarchy_weights = list(hierarchy_weights)
        self.register_buffer("_hierarchy_weights", torch.tensor(self.hierarchy_weights, dtype=torch.float32))
        if loss_type not in ("mse", "smoothl1", "huber"):
            raise ValueError(f"unknown loss_type: {loss_type}")

    def _normalize(self, x):
        return F.normalize(x, p=2, dim=-1, eps=self.eps)

    def _compute_base_loss(self, predictions, targets, reduction=None):
        how = self.reduction if reduction is None else reduction
        if self.loss_type == "mse":
            return F.mse_loss(predictions, targets, reduction=how)
        if self.loss_type == "smoothl1":
            return F.smooth_l1_loss(predictions, targets, reduction=how)
        return F.huber_loss(predictions, targets, reduction=how, delta=self.huber_delta)

    def _check(self, predictions, targets, masks):
        if len(predictions) != len(targets):
            raise ValueError(f"{len(predictions)} predictions but {len(targets)} targets")
        if len(predictions) != self.num_hierarchies:
            raise ValueError(f"{len(predictions)} levels given, {self.num_hierarchies} expected")
        for i, (p, t) in enumerate(zip(predictions, targets)):
            if p.shape != t.shape:
                raise ValueError(f"level {i}: prediction {tuple(p.shape)} and target {tuple(t.shape)} differ in shape")
            if p.ndim != 3:
                raise ValueError(f"level {i}: expected [B, N, D], got {p.ndim} dimensions")
        if masks is not None and len(masks) != self.num_hierarchies:
            raise ValueError(f"{len(masks)} masks given, {self.num_hierarchies} expected")

    def _level_loss(self, i, p, t, mask):
        if self.normalize_embeddings:
            p, t = self._normalize(p), self._normalize(t)
        if self.detach_targets:
            t = t.detach()
        if mask is None:
            return self._compute_base_loss(p, t)
        if mask.shape[:2] != p.shape[:2]:
            raise ValueError(f"level {i}: mask {tuple(mask.shape)} does not fit prediction {tuple(p.shape)}")
        if mask.ndim == 2:
            mask = mask.unsqueeze(-1)
        values = self._compute_base_loss(p, t, reduction="none") * mask.float()
        if self.reduction == "mean":
            # positions, counted in the mask's own dtype before it is broadcast over the features
            return values.sum() / (mask.sum() + self.eps)
        if self.reduction == "sum":
            return values.sum()
        return values

    def forward(self, predictions, targets, masks=None, context_features=None):
        if isinstance(predictions, torch.Tensor):
            predictions = [predictions]
        if isinstance(targets, torch.Tensor):
            targets = [targets]
        self._check(predictions, targets, masks)
        result = {}
        for i, (p, t) in enumerate(zip(predictions, targets)):
            result[f"loss_h{i}"] = self._level_loss(i, p, t, None if masks is None else masks[i])
        levels = torch.stack(list(result.values()))
        result["loss"] = (levels * self._hierarchy_weights).sum()
        result["loss_unweighted"] = levels.mean()
        return result

    def extra_repr(self):
        return (
            f"loss_type={self.loss_type}, num_hierarchies={self.num_hierarchies}, "
            f"hierarchy_weights={self.hierarchy_weights}, normalize={self.normalize_embeddings}, "
            f"reduction={self.reduction}"
        )
