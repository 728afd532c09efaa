"""Hierarchical joint-embedding prediction: a weighted regression loss over levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import BaseLoss, LossOutput, kind_of, require_choice, require_floating, require_number
from ..base.schedules import Schedule, ScheduledModule
from ..functional import eps_for, not_finite, upcast
from ..loss_registry import LossRegistry

__all__ = ["HJEPALoss", "Levels", "Masks", "as_levels", "level_weights"]

Levels = Tensor | Sequence[Tensor]
Masks = Tensor | Sequence[Tensor | None] | None


def as_levels(name: str, levels: Levels) -> list[Tensor]:
    """A list of floating levels; one tensor is one level.

    Raises:
        ValueError: something else; the message calls it ``name``.
    """
    if isinstance(levels, Tensor):
        require_floating(**{name: levels})
        return [levels]
    if not isinstance(levels, Sequence):
        raise ValueError(f"{name} must be a tensor, or one for each level, found {kind_of(levels)}")
    require_floating(**{f"{name}[{place}]": level for place, level in enumerate(levels)})
    return list(levels)


def level_weights(name: str, weights: float | Sequence[float], num_levels: int | None) -> Tensor:
    """Weights as a buffer: ``[H]``, or 0-d for one number that holds for however many levels come.

    Raises:
        ValueError: not numbers, or not ``num_levels`` of them.
    """
    if isinstance(weights, (int, float)):
        require_number(name, weights)
        value = torch.tensor(float(weights))
        return value if num_levels is None else value.repeat(num_levels)
    values = [float(weight) for weight in weights]
    for value_ in values:
        require_number(name, value_)
    if not values or (num_levels is not None and len(values) != num_levels):
        wanted = "at least one entry" if num_levels is None else f"{num_levels} entries (num_hierarchies)"
        raise ValueError(f"{name} must have {wanted}, found {len(values)}: {values}")
    return torch.tensor(values)


def _unit_rows(x: Tensor, eps: float | None) -> Tensor:
    """Rows of length 1; rows shorter than ``eps`` become zero, without gradient (dividing by eps would blow it up)."""
    floor = eps_for(x.dtype) if eps is None else eps
    x = upcast(x)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    # one factor per row, so that the rows themselves are read and written once. NaN is not below the floor, and a
    # length that overflows is made one: dividing by it would give zeros
    scale = (length.clamp_min(floor) + not_finite(length)).reciprocal()
    return x * torch.where(length <= floor, 0.0, scale)


@LossRegistry.register("hjepa")
class HJEPALoss(BaseLoss, ScheduledModule):
    """Predicted embeddings should equal target embeddings, on every level of a hierarchy.

    Use it to train a predictor against the embeddings of a target encoder (I-JEPA and its hierarchical form). The loss
    alone does not keep the embeddings from collapsing: see ``HJEPACombinedLoss``.

    For levels ``i = 1..H`` with predictions ``p_i`` and targets ``t_i`` (rows of unit length if normalised, targets
    without gradient if detached)::

        L_i  = mean over the selected elements of l(p_i - t_i)
        loss = sum_i w_i L_i

    with ``l(x)`` equal to ``x^2`` (``mse``), ``x^2 / 2`` below 1 and ``|x| - 1/2`` above (``smooth_l1``), or
    ``x^2 / 2`` below ``d`` and ``d (|x| - d / 2)`` above (``huber``). Rows of unit length make ``mse`` equal to
    ``(2 - 2 cos) / D``, so the loss shrinks as the width ``D`` grows; ``smooth_l1`` is then half of it.

    Args:
        loss_type: ``smooth_l1``, ``mse`` or ``huber``.
        hierarchy_weights: ``w``, one number for all levels or one per level. They are a buffer and are saved.
        num_hierarchies: ``H``, if it should be checked; default: as many as there are weights or predictions.
        reduction: ``mean`` over selected elements, ``sum``, or ``none``: one value per sample, the sum over its
            elements.
        normalize_embeddings: compare directions only.
        huber_delta: ``d``, used by ``huber``.
        eps: length below which a row counts as zero; default: by dtype.
        mask_average: what a masked ``mean`` divides by: ``elements``, or ``positions``, which makes a masked level
            ``D`` times larger than an unmasked one.
        detach_targets: no gradient into the targets.
        schedules: ``{"hierarchy_weights": schedule}``, for instance a ``Curriculum``; moved by ``step_schedule(step)``.

    Shapes: ``predictions`` and ``targets`` one tensor ``[B, N, D]`` or a list of ``H`` of them, ``N`` and ``D`` free
    per level. ``masks``: one mask for all levels, or one (or ``None``) per level, or a stack ``[H, B, N]``; a mask is
    ``[B, N]``, ``[B, N, 1]`` or ``[B, N, D]``, boolean or non-negative weights; a level of which nothing is selected is
    zero. ``context_features`` is accepted and not used, so that a trainer can call every predictive loss alike.

    Returns:
        ``LossOutput``: ``loss``; per level ``loss_h0``, ``loss_h1``, ... without weights; ``loss_unweighted``, their
        mean. All but ``loss`` are detached. With ``reduction="none"`` they are ``[B]``.

    Raises:
        ValueError: an argument out of range, shapes that do not fit (the message has them), an empty batch.

    Paper: Assran et al., "Self-supervised learning from images with a joint-embedding predictive architecture", CVPR
    2023, arXiv 2301.08243; the sum over levels is this project's.

    Differs from the old class: a masked mean is a mean of elements, so that levels with and without a mask have one
    scale; ``none`` is per sample and works for levels of any shape; the number of levels is found; zero rows get no
    gradient (not one times 1e8); entries of the result are detached; arguments are checked where they are given.
    """

    hierarchy_weights: Tensor
    schedulable = ("hierarchy_weights",)

    def __init__(
        self,
        *,
        loss_type: str = "smooth_l1",
        hierarchy_weights: float | Sequence[float] = 1.0,
        num_hierarchies: int | None = None,
        reduction: str = "mean",
        normalize_embeddings: bool = True,
        huber_delta: float = 1.0,
        eps: float | None = None,
        mask_average: str = "elements",
        detach_targets: bool = True,
        schedules: Mapping[str, Schedule | Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(reduction=reduction)
        require_choice("loss_type", loss_type, ("smooth_l1", "mse", "huber"))
        require_choice("mask_average", mask_average, ("elements", "positions"))
        require_number("huber_delta", huber_delta, low=0.0, exclusive=True)
        if num_hierarchies is not None:
            require_number("num_hierarchies", num_hierarchies, low=1, integer=True)
        if eps is not None:
            require_number("eps", eps, low=0.0, exclusive=True)
        self.loss_type, self.huber_delta = loss_type, huber_delta
        self.num_hierarchies = num_hierarchies
        self.normalize_embeddings, self.eps = normalize_embeddings, eps
        self.mask_average, self.detach_targets = mask_average, detach_targets
        self.register_buffer(
            "hierarchy_weights", level_weights("hierarchy_weights", hierarchy_weights, num_hierarchies)
        )
        self.attach_schedules(schedules)

    def forward(
        self,
        predictions: Levels,
        targets: Levels,
        masks: Masks = None,
        context_features: Any = None,
    ) -> LossOutput:
        """The loss of one batch."""
        predicted, wanted = as_levels("predictions", predictions), as_levels("targets", targets)
        weights = self._check(predicted, wanted)
        given = self._masks(masks, len(predicted))
        levels = [
            self._level(i, p, t, mask) for i, (p, t, mask) in enumerate(zip(predicted, wanted, given, strict=True))
        ]
        loss = torch.stack([w * level for w, level in zip(weights.unbind(), levels, strict=True)]).sum(dim=0)
        entries = {f"loss_h{i}": level for i, level in enumerate(levels)}
        return self.output(loss, **entries, loss_unweighted=torch.stack(levels).mean(dim=0))

    def _check(self, predictions: list[Tensor], targets: list[Tensor]) -> Tensor:
        weights: Tensor = self.current("hierarchy_weights")
        count = len(predictions)
        if count != len(targets) or not count:
            raise ValueError(f"predictions and targets must have the same levels, found {count} and {len(targets)}")
        expected = weights.shape[0] if weights.dim() else self.num_hierarchies
        if expected is not None and count != expected:
            raise ValueError(f"predictions must have {expected} levels, found {count}")
        for i, (p, t) in enumerate(zip(predictions, targets, strict=True)):
            if p.shape != t.shape or p.dim() != 3 or not p.numel():
                raise ValueError(
                    f"level {i}: prediction and target must have one common shape [B, N, D] with at least one sample, "
                    f"found {list(p.shape)} and {list(t.shape)}"
                )
        return weights if weights.dim() else weights.repeat(count)

    @staticmethod
    def _masks(masks: Masks, count: int) -> list[Tensor | None]:
        if masks is None:
            return [None] * count
        given = [masks] * count if isinstance(masks, Tensor) and masks.dim() == 2 else list(masks)
        if len(given) != count:
            raise ValueError(f"masks must be one mask, or one per level ({count}), found {len(given)}")
        return given

    def _level(self, index: int, p: Tensor, t: Tensor, mask: Tensor | None) -> Tensor:
        if self.detach_targets:
            t = t.detach()
        if self.normalize_embeddings:
            p, t = _unit_rows(p, self.eps), _unit_rows(t, self.eps)
        p, t = upcast(p), upcast(t)
        if mask is None and self.reduction != "none":
            return self._compared(p, t, self.reduction)
        values = self._compared(p, t, "none")
        if mask is None:
            return values.sum(dim=(1, 2))
        if mask.dim() == 2:
            mask = mask.unsqueeze(-1)
        if mask.dim() != 3 or mask.shape[:2] != p.shape[:2] or mask.shape[2] not in (1, p.shape[2]):
            raise ValueError(
                f"level {index}: mask must be [B, N], [B, N, 1] or [B, N, D] for a prediction {list(p.shape)}, "
                f"found {list(mask.shape)}"
            )
        mask = mask.to(values.dtype)
        count = mask.sum()
        if self.mask_average == "elements":
            count = count * (p.shape[2] // mask.shape[2])
        return self._reduce(values * mask, torch.where(count > 0, count, 1.0))

    def _compared(self, p: Tensor, t: Tensor, reduction: str) -> Tensor:
        if self.loss_type == "mse":
            return F.mse_loss(p, t, reduction=reduction)
        if self.loss_type == "huber":
            return F.huber_loss(p, t, reduction=reduction, delta=self.huber_delta)
        return F.smooth_l1_loss(p, t, reduction=reduction)

    def _reduce(self, values: Tensor, count: Tensor) -> Tensor:
        if self.reduction == "none":
            return values.sum(dim=(1, 2))
        total = values.sum()
        return total / count if self.reduction == "mean" else total

    def extra_repr(self) -> str:
        """Configuration."""
        return (
            f"loss_type={self.loss_type!r}, hierarchy_weights={self.hierarchy_weights.tolist()}, "
            f"normalize_embeddings={self.normalize_embeddings}, {super().extra_repr()}"
        )
