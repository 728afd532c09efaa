"""Cross entropy with label smoothing, class weights and sample weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..base import BaseSupervisedLoss, require_choice, require_floating, require_tensors
from ..loss_registry import LossRegistry


@LossRegistry.register("cross_entropy")
class LabelSmoothingCrossEntropyLoss(BaseSupervisedLoss):
    """Classification with softened targets, like ``torch.nn.CrossEntropyLoss`` with a weight per sample on top.

    With ``C`` classes, smoothing ``s``, class weights ``a``, sample weights ``w`` and target class ``t_i``::

        q_ic = (1 - s) [c = t_i] + s / C
        l_i  = -w_i sum_c q_ic a_c log softmax(logits_i)_c
        loss = sum_i l_i / sum_i w_i a_{t_i}          (reduction="mean", mean_over="weights")

    Args:
        label_smoothing: ``s`` in [0, 1).
        class_weights: ``a``, one non-negative number per class; a buffer.
        ignore_index: target of elements that count nothing.
        mean_over: what ``mean`` divides by: ``weights`` (as torch), or ``elements``, all targets, also ignored ones.
        reduction: ``mean``, ``sum`` or ``none`` (the shape of ``target``).

    Shapes: ``logits`` ``[N, C]`` or ``[N, C, d1, ...]``; ``target`` int64 ``[N]`` or ``[N, d1, ...]``;
    ``sample_weight`` ``[N]`` or the shape of ``target``.

    Returns:
        A tensor. All targets ignored, or an empty batch, give a zero that keeps the graph.

    Raises:
        ValueError: shapes that do not fit, an argument out of range.

    Paper: label smoothing, Szegedy et al. 2016, arXiv 1512.00567. Differs from the old ``CrossEntropyLoss``: class
    weights count also with smoothing; the mean is weighted as in torch; the class axis is always axis 1; ignored
    elements neither crash nor dilute.
    """

    def __init__(
        self,
        *,
        label_smoothing: float = 0.1,
        class_weights: Tensor | Sequence[float] | None = None,
        ignore_index: int = -100,
        mean_over: str = "weights",
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            reduction=reduction, ignore_index=ignore_index, class_weights=class_weights, label_smoothing=label_smoothing
        )
        require_choice("mean_over", mean_over, ("weights", "elements"))
        self.mean_over = mean_over

    def forward(self, logits: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The loss of one batch."""
        require_floating(logits=logits)
        require_tensors(target=target)
        shape = target.shape
        if logits.dim() < 2 or shape != logits.shape[:1] + logits.shape[2:]:
            found = f"{list(logits.shape)} and {list(shape)}"
            raise ValueError(f"logits must be [N, C, ...] and target [N, ...] without the class axis, found {found}")
        if sample_weight is not None:
            require_tensors(sample_weight=sample_weight)
            if sample_weight.shape not in (shape, shape[:1]):
                found = f"{list(sample_weight.shape)}"
                raise ValueError(f"sample_weight must be {list(shape)} or {list(shape[:1])}, found {found}")
            ones = (1,) * (target.dim() - sample_weight.dim())
            sample_weight = sample_weight.view(sample_weight.shape + ones).expand(shape).flatten()
        if target.dim() > 1:
            logits, target = logits.movedim(1, -1).flatten(0, -2), target.flatten()
        if self.mean_over == "weights" and self.reduction == "mean":
            return self.weighted_cross_entropy(logits, target, sample_weight)
        loss = self.apply_reduction(self.cross_entropy_rows(logits, target, sample_weight))
        return loss.view(shape) if self.reduction == "none" else loss
