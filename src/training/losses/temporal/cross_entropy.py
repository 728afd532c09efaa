"""Cross entropy over (sample, time step) pairs, void steps left out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..base import BaseSupervisedLoss, kind_of, require_choice, require_floating, require_number, require_tensors
from ..base.base_supervised import checked_class_weights
from ..base.constants import ConstantsMixin
from ..loss_registry import LossRegistry

__all__ = ["TemporalCrossEntropyLoss"]


@LossRegistry.register("temporal_cross_entropy")
class TemporalCrossEntropyLoss(BaseSupervisedLoss, ConstantsMixin):
    """Classification at every time step that has a label.

    For networks that answer at each step of a sequence while only some steps are meant: null inputs, the reaction time
    after an onset and padding carry the void label ``ignore_index`` (``PresentationSchedule`` writes it) and count
    neither in the sum nor in the mean.

    With logits ``z_n`` and label ``y_n`` of a pair ``n`` of sample and step, ``C`` classes of weights ``a`` (1 without
    them) and label smoothing ``s``::

        e_n  = sum_c q_nc a_c (logsumexp_k z_nk - z_nc)      q_n = (1 - s) onehot(y_n) + s / C
        e_n  = 0                                             where y_n is void
        loss = sum_n e_n / V                                 reduction "mean"

    ``V`` is the number of labels that are not void (``weight_normalization="count"``), or the sum of ``a_{y_n}`` over
    them (``"weights"``, torch's own weighted mean).

    Args:
        ignore_index: the void label.
        class_weights: one non-negative number per class; a buffer that is not in the ``state_dict``.
        weight_normalization: ``count`` or ``weights``, see above; the same without class weights.
        label_smoothing: ``s`` in [0, 1).
        class_dim: dimension of the classes in the logits, -1 (``[B, T, C]``) or 1 (``[B, C, T]``).
        reduction: ``mean``, ``sum`` or ``none``.

    Shapes: logits ``[B, T, C]`` with integer targets ``[B, T]``, or flattened ``[N, C]`` with ``[N]``; any number of
    leading dimensions.

    Returns:
        Tensor: 0-d, or of the shape of the targets for ``none``; float32 for half precision logits. If every label
            is void it is a zero that keeps the graph. Logits of void steps may be NaN or infinite: they reach neither
            the value nor the gradient.

    Raises:
        ValueError: shapes that do not fit, targets that are no integers, and (on the CPU, where looking costs nothing)
            labels outside ``[0, C)`` other than ``ignore_index``.

    Paper: none; cross entropy as in any textbook, label smoothing after Szegedy et al., "Rethinking the Inception
    architecture", CVPR 2016.

    Differs from ``dynvision.losses.CrossEntropyLoss``: all labels void keeps the graph in every mode, void rows are
    masked before the softmax, class weights are a buffer, ``(outputs, responses)`` tuples are not taken apart,
    ``num_valid_timesteps`` is ``normalizer``, and ``class_dim=1`` gives its layout. With several processes each
    normalises by its own count; for the mean over all of them give the global count divided by the number of processes
    as ``normalizer``.
    """

    def __init__(
        self,
        *,
        ignore_index: int = -1,
        class_weights: Tensor | Sequence[float] | None = None,
        weight_normalization: str = "count",
        label_smoothing: float = 0.0,
        class_dim: int = -1,
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            ignore_index=ignore_index,
            class_weights=class_weights,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )
        # configuration, not state: a checkpoint of the old loss, which had none, stays loadable
        weights = checked_class_weights(class_weights)
        if weights is not None:
            del self.class_weights
            self.register_constant("class_weights", weights.clone)
        require_choice("weight_normalization", weight_normalization, ("count", "weights"))
        require_choice("class_dim", class_dim, (-1, 1))
        self.weight_normalization = weight_normalization
        self.class_dim = class_dim

    def forward(self, logits: Tensor, targets: Tensor, *, normalizer: int | Tensor | None = None) -> Tensor:
        """The loss of one batch; ``normalizer`` replaces the count that ``mean`` divides by."""
        require_floating("; of a model's (outputs, responses) give the outputs", logits=logits)
        require_tensors(targets=targets)
        if logits.dim() < 2:
            raise ValueError(f"logits must be floating [B, T, C] or [N, C], found {kind_of(logits)}")
        if targets.is_floating_point() or targets.is_complex():
            raise ValueError(f"targets must be integer class indices, found {targets.dtype}")
        if normalizer is not None and not isinstance(normalizer, Tensor):
            require_number("normalizer", normalizer, low=1, integer=True)
        logits = logits.movedim(self.class_dim, -1)
        if targets.shape != logits.shape[:-1]:
            raise ValueError(
                f"targets must be {list(logits.shape[:-1])} for logits with {logits.shape[-1]} classes in dimension "
                f"{self.class_dim}, found {list(targets.shape)}"
            )
        rows = targets.reshape(-1).to(logits.device)
        valid = rows != self.ignore_index
        self._check_range(rows, valid, logits.shape[-1])
        logits = logits.reshape(-1, logits.shape[-1])
        if self.reduction == "mean" and normalizer is None and self.weight_normalization == "weights":
            return self.weighted_cross_entropy(logits, rows)
        loss = self.cross_entropy_rows(logits, rows)
        if self.reduction == "none":
            return loss.view(targets.shape)
        return self.apply_reduction(loss, valid.sum() if normalizer is None else normalizer)

    def _check_range(self, rows: Tensor, valid: Tensor, num_classes: int) -> None:
        """Name a wrong label where that needs no host synchronisation; elsewhere the device complains."""
        if rows.device.type != "cpu" or torch.compiler.is_compiling() or not rows.numel():
            return
        low, high = (int(bound) for bound in rows.masked_fill(~valid, 0).aminmax())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"targets must lie in [0, {num_classes}) or be ignore_index={self.ignore_index}, "
                f"found {low if low < 0 else high}"
            )

    def extra_repr(self) -> str:
        """Configuration."""
        return f"{super().extra_repr()}, ignore_index={self.ignore_index}, label_smoothing={self.label_smoothing}"
