"""Base of all losses that compare embeddings with each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypedDict

import torch
from torch import Tensor

from ..functional import dot_similarity, encode_ids, info_nce, match_mask, nt_xent
from .base_loss import BaseLoss, require_features, require_one_dtype
from .mixins import HardNegativeMiningMixin, NormalizationMixin, ProjectionMixin, TemperatureScalingMixin
from .output import LossOutput

Ids = Tensor | Sequence[int] | Sequence[str]


class ContrastiveOptions(TypedDict, total=False):
    """Keyword arguments of ``BaseContrastiveLoss``, which derived losses hand on: ``**options``."""

    temperature: float
    learnable_temperature: bool
    normalize: bool
    eps: float
    input_dim: int | None
    projection_dim: int | None
    hidden_dim: int | None
    projection_layers: int
    reduction: str


class BaseContrastiveLoss(
    BaseLoss, TemperatureScalingMixin, NormalizationMixin, ProjectionMixin, HardNegativeMiningMixin
):
    """Temperature, normalisation, projection heads and hard-negative weights, with InfoNCE and NT-Xent on top.

    ``heads`` names the inputs that get a projection head. Hard negatives: call ``init_mining`` in the constructor.

    Args:
        temperature: divides the similarities, greater than 0.
        learnable_temperature: learn ``logit_scale = log(1 / temperature)``, with a scale of at most 100, a bound that
            it can come back from.
        normalize: compare directions (cosines) and not inner products.
        eps: smallest length that is divided by.
        input_dim: width of the features, needed with ``projection_dim``.
        projection_dim: width behind the heads ``vision_head`` and ``text_head`` (Linear, ReLU, Linear); default: no
            heads. They have parameters: give ``loss.parameters()`` to the optimiser.
        hidden_dim: width inside the heads; default: ``input_dim``.
        projection_layers: 2, or 3 (with batch norm).
        reduction: ``mean``, ``sum`` or ``none``.
    """

    heads: ClassVar[tuple[str, ...]] = ("vision", "text")

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        learnable_temperature: bool = False,
        normalize: bool = True,
        eps: float = 1e-12,
        input_dim: int | None = None,
        projection_dim: int | None = None,
        hidden_dim: int | None = None,
        projection_layers: int = 2,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        self.init_temperature(temperature=temperature, learnable=learnable_temperature)
        self.init_normalization(normalize=normalize, eps=eps)
        self.init_projection(
            *self.heads,
            input_dim=input_dim,
            projection_dim=projection_dim,
            hidden_dim=hidden_dim,
            layers=projection_layers,
        )
        self.init_mining()

    def compute_similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Cosines (or inner products, without normalisation) of all rows, ``[A, B]``, not divided by temperature."""
        return dot_similarity(*self.normalize(a, b))

    def create_positive_mask(self, batch_size: int, ids: Ids | None = None, *, device: torch.device) -> Tensor:
        """Boolean ``[B, B]``: the diagonal, or all pairs of equal ids (``batch_size`` integers or strings)."""
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
        logits = self.scale_by_temperature(similarity)
        return info_nce(logits, positive, label_smoothing=label_smoothing, negative_lse=negative_lse)

    def nt_xent_loss(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """NT-Xent of two views, reduced. See ``functional.nt_xent``."""
        z_a, z_b = self.normalize(z_a, z_b)
        return nt_xent(z_a, z_b, self.temperature, reduction=self.reduction)

    def match_pairs(
        self, vision_features: Tensor, text_features: Tensor, match_ids: Ids | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cosines ``[B, B]`` (rows: vision, columns: text) behind the heads, and which pairs belong together.

        Row ``i`` of ``text_features`` ``[B, D]`` belongs to row ``i`` of ``vision_features``; ``match_ids`` has one id
        per pair, integers (tensor or list) or strings: equal ids are positives.

        Raises:
            ValueError: the features are no two ``[B, D]`` batches of one shape with ``B >= 1``, or the ids do not fit.
        """
        vision, text, ids = self.embed_pairs(vision_features, text_features, match_ids)
        positive = self.create_positive_mask(len(vision), ids, device=vision.device)
        return dot_similarity(vision, text), positive

    def embed_pairs(
        self, vision_features: Tensor, text_features: Tensor, match_ids: Ids | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Both inputs of ``match_pairs`` behind the heads and normalised, and the ids as numbers."""
        require_features(vision_features=vision_features, text_features=text_features)
        require_one_dtype(vision_features=vision_features, text_features=text_features)
        vision, text = self.normalize(*self.project(vision=vision_features, text=text_features))
        return vision, text, None if match_ids is None else encode_ids(match_ids, device=vision.device)

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
