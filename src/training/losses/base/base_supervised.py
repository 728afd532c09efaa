"""Base of all losses that compare predictions with targets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ..functional import class_cross_entropy, smooth_targets
from .base_loss import BaseLoss, require_numbers


def checked_class_weights(class_weights: Tensor | Sequence[float] | None) -> Tensor | None:
    """A floating copy; of numbers on the CPU, whatever the default device is.

    Raises:
        ValueError: not one non-negative number per class.
    """
    if class_weights is None:
        return None
    given = isinstance(class_weights, Tensor)
    weights = torch.as_tensor(class_weights, device=None if given else "cpu").detach().clone()
    if not weights.is_floating_point():
        weights = weights.to(torch.get_default_dtype())
    if weights.dim() != 1 or (not weights.is_meta and bool((weights < 0).any())):
        raise ValueError(f"class_weights must be one non-negative number per class, found {class_weights}")
    return weights


class BaseSupervisedLoss(BaseLoss):
    """Label smoothing, class weights and per-sample weights.

    Args:
        label_smoothing: share ``s`` in [0, 1) of the target that is spread over all classes.
        class_weights: one non-negative weight per class (a buffer), or ``None``.
        ignore_index: target value of rows that count nothing.
        reduction: ``mean``, ``sum`` or ``none``.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        label_smoothing: float = 0.0,
        class_weights: Tensor | Sequence[float] | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        require_numbers(0.0, 1.0, label_smoothing=label_smoothing)
        if label_smoothing == 1.0:
            raise ValueError("label_smoothing must be less than 1, found 1.0")
        require_numbers(integer=True, ignore_index=ignore_index)
        weights = checked_class_weights(class_weights)
        self.label_smoothing, self.ignore_index = label_smoothing, ignore_index
        if weights is not None and not isinstance(class_weights, Tensor):
            weights = weights.to(torch.empty(0).device)
        self.register_buffer("class_weights", weights)

    def apply_label_smoothing(self, targets: Tensor, num_classes: int) -> Tensor:
        """Target distributions ``[..., C]`` of class indices ``[...]``: ``(1 - s) onehot + s / C``."""
        return smooth_targets(F.one_hot(targets, num_classes).to(torch.get_default_dtype()), self.label_smoothing)

    def weighted_cross_entropy(self, logits: Tensor, targets: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Reduced :meth:`cross_entropy_rows`; ``mean`` divides by the sum of ``w_i a_{t_i}`` over rows that count."""
        loss = self.cross_entropy_rows(logits, targets, sample_weight)
        if self.reduction != "mean":
            return self.apply_reduction(loss)
        valid = targets != self.ignore_index
        norm = valid.to(loss.dtype)
        if self.class_weights is not None:
            norm = norm * self.class_weights.to(loss.dtype)[targets.masked_fill(~valid, 0)]
        total = (norm if sample_weight is None else norm * sample_weight).sum()
        return loss.sum() / torch.where(total > 0, total, torch.ones_like(total))

    def cross_entropy_rows(self, logits: Tensor, targets: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """``w_i sum_c q_ic a_c (-log softmax(logits_i)_c)``, ``[N]``: smoothed targets ``q``, class weights ``a``.

        Args:
            logits: ``[N, C]``.
            targets: class indices ``[N]``; rows of ``ignore_index`` count nothing, also if their logits are not finite.
            sample_weight: ``w``, ``[N]``; default: 1.

        Raises:
            ValueError: the shapes do not fit together.
        """
        weights, classes = self.class_weights, logits.shape[1:]
        if logits.dim() != 2 or targets.shape != logits.shape[:1]:
            raise ValueError(
                f"logits must be [N, C] and targets [N], found {list(logits.shape)}, {list(targets.shape)}"
            )
        if sample_weight is not None and sample_weight.shape != targets.shape:
            raise ValueError(f"sample_weight must be {list(targets.shape)}, found {list(sample_weight.shape)}")
        if weights is not None and weights.shape != classes:
            raise ValueError(f"class_weights has {len(weights)} entries for logits of {classes[0]} classes")
        costs = class_cross_entropy(
            logits, targets, weights, ignore_index=self.ignore_index, smoothing=self.label_smoothing
        )
        return costs if sample_weight is None else costs * sample_weight
