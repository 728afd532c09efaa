"""Base of all losses that compare predictions with targets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..functional import smooth_targets
from ..functional.cross_entropy import class_cross_entropy
from .base_loss import BaseLoss, require_number

__all__ = ["BaseSupervisedLoss"]


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
        require_number("label_smoothing", label_smoothing, low=0.0, high=1.0)
        if label_smoothing == 1.0:
            raise ValueError("label_smoothing must be less than 1, found 1.0")
        require_number("ignore_index", ignore_index, integer=True)
        if class_weights is not None:
            class_weights = torch.as_tensor(class_weights).detach().clone()
            if not class_weights.is_floating_point():
                class_weights = class_weights.to(torch.get_default_dtype())
            if class_weights.dim() != 1 or bool((class_weights < 0).any()):
                raise ValueError(f"class_weights must be one non-negative number per class, found {class_weights}")
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index
        self.register_buffer("class_weights", class_weights)

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The loss of one batch."""

    def apply_label_smoothing(self, targets: Tensor, num_classes: int) -> Tensor:
        """Target distributions ``[..., C]`` of class indices ``[...]``: ``(1 - s) onehot + s / C``."""
        return smooth_targets(F.one_hot(targets, num_classes).to(torch.get_default_dtype()), self.label_smoothing)

    def weighted_cross_entropy(self, logits: Tensor, targets: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Reduced cross entropy with label smoothing, class weights, ignored targets and per-sample weights.

        Per row: ``w_i sum_c q_ic a_c (-log softmax(logits_i)_c)`` with target distribution ``q``, class weights ``a``
        and sample weight ``w``. ``mean`` divides by the sum of ``w_i a_{t_i}`` over the rows that count (by their
        number without weights).

        Arguments and errors are those of :meth:`cross_entropy_rows`.
        """
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
        """The unreduced ``[N]`` costs of :meth:`weighted_cross_entropy`.

        Args:
            logits: ``[N, C]``.
            targets: class indices ``[N]``; rows of ``ignore_index`` count nothing, also if their logits are not finite.
            sample_weight: ``[N]``.

        Raises:
            ValueError: the shapes do not fit together.
        """
        if logits.dim() != 2 or targets.shape != logits.shape[:1]:
            raise ValueError(
                f"logits must be [N, C] and targets [N], found {list(logits.shape)}, {list(targets.shape)}"
            )
        if sample_weight is not None and sample_weight.shape != targets.shape:
            raise ValueError(f"sample_weight must be {list(targets.shape)}, found {list(sample_weight.shape)}")
        if self.class_weights is not None and self.class_weights.shape != logits.shape[1:]:
            raise ValueError(
                f"class_weights has {self.class_weights.shape[0]} entries for logits of {logits.shape[1]} classes"
            )
        costs = class_cross_entropy(
            logits,
            targets,
            targets == self.ignore_index,
            smoothing=self.label_smoothing,
            class_weights=self.class_weights,
        )
        return costs if sample_weight is None else costs * sample_weight
