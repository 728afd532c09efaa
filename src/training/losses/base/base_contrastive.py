"""Base of all losses that compare embeddings with each other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..functional import dot_similarity, encode_ids, info_nce, match_mask, nt_xent
from .base_loss import BaseLoss, require_features
from .mixins import HardNegativeMiningMixin, NormalizationMixin, ProjectionMixin, TemperatureScalingMixin
from .output import LossOutput

__all__ = ["BaseContrastiveLoss", "Ids"]

Ids = Tensor | Sequence[int] | Sequence[str]


class BaseContrastiveLoss(
    BaseLoss, TemperatureScalingMixin, NormalizationMixin, ProjectionMixin, HardNegativeMiningMixin
):
    """Temperature, normalisation, projection heads and hard-negative weights, with InfoNCE and NT-Xent on top.

    Args:
        temperature: divides the similarities, greater than 0.
        learnable_temperature: learn ``logit_scale = log(1 / temperature)``.
        normalize: compare directions (cosines) and not inner products.
        eps: smallest length that is divided by.
        heads: names of the inputs that get a projection head, if ``projection_dim`` is given.
        input_dim: width of the features, needed with ``projection_dim``.
        projection_dim: width behind the heads; default: no heads.
        hidden_dim: width inside the heads; default: ``input_dim``.
        projection_layers: 2 or 3.
        hard_negative_percentile: negatives at or above it (per row) are hard; default: none are.
        hard_negative_weight: their weight.
        reduction: ``mean``, ``sum`` or ``none``.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        learnable_temperature: bool = False,
        normalize: bool = True,
        eps: float = 1e-12,
        heads: tuple[str, ...] = (),
        input_dim: int | None = None,
        projection_dim: int | None = None,
        hidden_dim: int | None = None,
        projection_layers: int = 2,
        hard_negative_percentile: float | None = None,
        hard_negative_weight: float = 1.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.init_temperature(temperature=temperature, learnable=learnable_temperature)
        self.init_normalization(normalize=normalize, eps=eps)
        self.init_projection(
            *heads, input_dim=input_dim, projection_dim=projection_dim, hidden_dim=hidden_dim, layers=projection_layers
        )
        self.init_mining(percentile=hard_negative_percentile, weight=hard_negative_weight)

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The loss of one batch."""

    def compute_similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Cosines (or inner products, without normalisation) of all rows, ``[A, B]``, not divided by temperature."""
        a, b = self.normalize(a, b)
        return dot_similarity(a, b)

    def create_positive_mask(self, batch_size: int, ids: Ids | None = None, *, device: torch.device) -> Tensor:
        """Boolean ``[B, B]``: the diagonal, or all pairs of equal ids.

        Raises:
            ValueError: the number of ids is not ``batch_size``, or they are neither integers nor strings.
        """
        if ids is None:
            return torch.eye(batch_size, dtype=torch.bool, device=device)
        codes = encode_ids(ids, device=device)
        if codes.shape[0] != batch_size:
            raise ValueError(f"match_ids must have one id per sample ({batch_size}), found {codes.shape[0]}")
        return match_mask(codes)

    def info_nce_loss(
        self,
        similarity: Tensor,
        positive: Tensor | None = None,
        *,
        label_smoothing: float = 0.0,
        negative_lse: Tensor | None = None,
    ) -> Tensor:
        """InfoNCE per row of ``similarity``, which is divided by the temperature here. See ``functional.info_nce``."""
        return info_nce(
            self.scale_by_temperature(similarity), positive, label_smoothing=label_smoothing, negative_lse=negative_lse
        )

    def nt_xent_loss(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """NT-Xent of two views, reduced. See ``functional.nt_xent``."""
        z_a, z_b = self.normalize(z_a, z_b)
        return nt_xent(z_a, z_b, self.temperature, reduction=self.reduction)

    def match_pairs(
        self, vision_features: Tensor, text_features: Tensor, match_ids: Ids | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosines ``[B, B]`` (rows: vision, columns: text) behind the heads, and which pairs belong together.

        Raises:
            ValueError: the features are no two ``[B, D]`` batches of one shape, or ``match_ids`` does not fit.
        """
        require_features(vision_features=vision_features, text_features=text_features)
        batch, device = vision_features.shape[0], vision_features.device
        positive = self.create_positive_mask(batch, match_ids, device=device)
        return self.compute_similarity(*self.project(vision=vision_features, text=text_features)), positive

    def two_way_output(
        self, rows: Tensor, columns: Tensor, num_valid: Tensor | int | None = None, **entries: Tensor
    ) -> LossOutput:
        """``loss`` = mean of both directions, ``loss_v2t`` (``rows``), ``loss_t2v`` (``columns``), further entries."""
        loss_v2t, loss_t2v = self.apply_reduction(rows, num_valid), self.apply_reduction(columns, num_valid)
        return self.output((loss_v2t + loss_t2v) / 2, loss_v2t=loss_v2t, loss_t2v=loss_t2v, **entries)

    def extra_repr(self) -> str:
        """Configuration."""
        temperature = "learnable" if self.learnable_temperature else f"{self._temperature:g}"
        return f"temperature={temperature}, {super().extra_repr()}"
