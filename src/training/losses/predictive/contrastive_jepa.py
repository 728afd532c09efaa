"""A prediction loss with a contrastive one beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..base import BaseLoss, LossOutput, require_choice, require_floating, require_number
from ..base.schedules import Schedule, ScheduledModule
from ..contrastive.simclr_loss import SimCLRLoss
from ..loss_registry import LossRegistry
from .hjepa import HJEPALoss, Levels, Masks, as_levels

__all__ = ["ContrastiveJEPALoss"]


@LossRegistry.register("contrastive_jepa")
class ContrastiveJEPALoss(BaseLoss, ScheduledModule):
    """Prediction of embeddings, and contrast between images: embeddings are predictable and tell images apart.

    Use it where a prediction loss collapses or separates too little, and batches are large enough for negatives. With
    prediction loss ``J`` and the NT-Xent of SimCLR::

        loss = jepa_weight * J(predictions, targets) + contrastive_weight * NTXent(z_a, z_b)

    where ``z_a, z_b`` are pooled features of two views of each image, ``[B, D]``; all other images are negatives.

    Args:
        jepa_loss: module called as ``(predictions, targets, masks)``; default: ``HJEPALoss()``.
        jepa_weight: weight of ``J``; a buffer, like the next.
        contrastive_weight: weight of the contrast.
        temperature: of the contrast, greater than 0.
        normalize: contrast directions only.
        eps: smallest length that is divided by.
        contrast: what is contrasted: ``features``, the pair of target features, or that of context features where the
            former is missing; ``context``, the pair of context features; ``prediction``, the first level's predictions
            with their targets (no further inputs needed); ``auto``: ``features`` if a pair is given, else
            ``prediction``.
        pool: of features ``[B, N, D]``: ``first_token`` (a class token) or ``mean``. Levels are always averaged.
        metrics: report accuracy and similarities as well.
        reduction: ``mean`` or ``sum``, of the contrast.
        schedules: of ``jepa_weight`` and ``contrastive_weight``; moved by ``step_schedule(step)``.

    Shapes: as the prediction loss; features ``[B, D]`` or ``[B, N, D]``. ``context_features`` is accepted and not used,
    so that a trainer can call every predictive loss alike.

    Returns:
        ``LossOutput``: ``loss``; unweighted ``jepa_loss`` and ``contrastive_loss``; with ``metrics``
        ``contrastive_accuracy``, ``contrastive_pos_sim``, ``contrastive_neg_sim`` (mean similarities, not divided by
        the temperature); the prediction loss' entries (``jepa.<key>`` where a key is taken). All but ``loss`` are
        detached.

    Raises:
        ValueError: an argument out of range, missing or unfitting features.

    Paper: Mo, Tong, "Connecting joint-embedding predictive architecture with contrastive self-supervised learning",
    NeurIPS 2024, arXiv 2410.19560 (with VICReg there); Chen et al., SimCLR, arXiv 2002.05709.

    Differs from the old class: similarities are raw and finite; a collapsed batch has accuracy 0; printed and used
    weights are the same; keys of an inner combined loss are not shadowed; 2-D features and tuples of levels work.
    """

    jepa_weight: Tensor
    contrastive_weight: Tensor
    schedulable = ("jepa_weight", "contrastive_weight")

    def __init__(
        self,
        *,
        jepa_loss: nn.Module | None = None,
        jepa_weight: float = 1.0,
        contrastive_weight: float = 0.1,
        temperature: float = 0.1,
        normalize: bool = True,
        eps: float = 1e-12,
        contrast: str = "auto",
        pool: str = "first_token",
        metrics: bool = False,
        reduction: str = "mean",
        schedules: Mapping[str, Schedule | Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(reduction=reduction)
        require_choice("reduction", reduction, ("mean", "sum"))
        require_choice("contrast", contrast, ("auto", "features", "context", "prediction"))
        require_choice("pool", pool, ("first_token", "mean"))
        self.contrast, self.pool = contrast, pool
        for name, weight in (("jepa_weight", jepa_weight), ("contrastive_weight", contrastive_weight)):
            require_number(name, weight, low=0.0)
            self.register_buffer(name, torch.tensor(float(weight)))
        self.jepa_loss = HJEPALoss() if jepa_loss is None else jepa_loss
        self.contrastive = SimCLRLoss(
            temperature=temperature, normalize=normalize, eps=eps, metrics=metrics, reduction=reduction
        )
        self.attach_schedules(schedules)

    def forward(
        self,
        predictions: Levels,
        targets: Levels,
        masks: Masks = None,
        context_features: Any = None,
        *,
        context_features_a: Tensor | None = None,
        context_features_b: Tensor | None = None,
        target_features_a: Tensor | None = None,
        target_features_b: Tensor | None = None,
    ) -> LossOutput:
        """The loss of one batch."""
        predicted, wanted = as_levels("predictions", predictions), as_levels("targets", targets)
        jepa = self.jepa_loss(predicted, wanted, masks)
        jepa = jepa if isinstance(jepa, Mapping) else {"loss": jepa}
        pairs = {"target": (target_features_a, target_features_b), "context": (context_features_a, context_features_b)}
        contrast = self.contrastive(*self._pair(pairs, predicted, wanted))
        loss = self.current("jepa_weight") * jepa["loss"] + self.current("contrastive_weight") * contrast["loss"]
        entries = {"jepa_loss": jepa["loss"], "contrastive_loss": contrast["loss"]}
        for name, key in (
            ("accuracy", "accuracy"),
            ("pos_sim", "positive_similarity"),
            ("neg_sim", "negative_similarity"),
        ):
            if key in contrast:
                entries[f"contrastive_{name}"] = contrast[key]
        inner = {f"jepa.{key}" if key in entries else key: value for key, value in jepa.items() if key != "loss"}
        return self.output(loss, **entries, **inner)

    def _pair(
        self,
        pairs: Mapping[str, tuple[Tensor | None, Tensor | None]],
        predictions: list[Tensor],
        targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        sources = {"prediction": (), "context": ("context",)}.get(self.contrast, ("target", "context"))
        for source in sources:
            given = {f"{source}_features_{side}": x for side, x in zip("ab", pairs[source], strict=True)}
            if all(x is not None for x in given.values()):
                a, b = (self._pooled(name, x) for name, x in given.items() if x is not None)
                return a, b
        if self.contrast in ("features", "context"):
            wanted = " or ".join(f"{name}_features_a and {name}_features_b" for name in sources)
            raise ValueError(f"contrast={self.contrast!r} needs {wanted}")
        return predictions[0].mean(dim=1), targets[0].detach().mean(dim=1)

    def _pooled(self, name: str, features: Tensor) -> Tensor:
        require_floating(**{name: features})
        if features.dim() not in (2, 3):
            raise ValueError(f"{name}: features must be [B, D] or [B, N, D], found {list(features.shape)}")
        if features.dim() == 2:
            return features
        return features[:, 0] if self.pool == "first_token" else features.mean(dim=1)

    def extra_repr(self) -> str:
        """Configuration."""
        return f"contrast={self.contrast!r}, pool={self.pool!r}, {super().extra_repr()}"
