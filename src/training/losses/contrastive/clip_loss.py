"""CLIP: images and captions find each other in the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import BaseContrastiveLoss, Ids, LossOutput, require_features
from ..base.base_loss import require_number
from ..functional import info_nce, retrieval_metrics, uniform_targets
from ..loss_registry import LossRegistry

__all__ = ["CLIPLoss"]


@LossRegistry.register("clip")
class CLIPLoss(BaseContrastiveLoss):
    """Symmetric InfoNCE between two modalities.

    The default for paired vision and text features with at least some hundred pairs per batch. Samples that share an id
    are all positives of each other, so that duplicates in a batch do no harm.

    With cosines ``c_ij`` of image ``i`` and text ``j``, temperature ``t``, ``s = c / t``, positives
    ``P_i = {j : id_j = id_i}`` (just ``i`` without ids) and label smoothing ``e``::

        l_i  = log sum_j exp(s_ij) - (1 - e) mean_{p in P_i} s_ip - e mean_j s_ij
        loss = (mean_i l_i + the same over the columns) / 2

    Papers: Radford et al. 2021 (arXiv 2103.00020); InfoNCE, van den Oord et al. 2018 (arXiv 1807.03748).

    Args:
        temperature: ``t``, greater than 0.
        learnable_temperature: learn ``logit_scale = log(1 / t)``, clamped to a scale of 100, as in the paper.
        label_smoothing: ``e`` in [0, 1).
        input_dim: width of the features, if they are to be projected.
        projection_dim: width behind the two heads ``vision_head`` and ``text_head`` (Linear, ReLU, Linear); default: no
            heads. The heads have parameters: give ``loss.parameters()`` to the optimiser.
        metrics: report accuracies, recalls and similarities as well.
        reduction: ``mean`` or ``sum`` over the ``B`` pairs, or ``none`` (``[B]``).

    Returns:
        ``LossOutput`` with ``loss``, ``loss_v2t``, ``loss_t2v``; with ``metrics`` also ``accuracy_v2t``,
        ``accuracy_t2v``, ``accuracy``, ``recall_v2t@k``, ``recall_t2v@k``, ``recall@k`` for k = 1, 5, 10 (a hit on any
        positive counts), and cosines: ``similarity_mean`` (all pairs), ``similarity_positive`` (mean over the images of
        the mean over their positives), ``similarity_gap`` (their difference).

    Raises:
        ValueError: an argument out of range, features that are no two ``[B, D]`` batches of one shape with ``B >= 1``,
            ids that do not fit, or logits that are not ``[B, B]``.

    Differs from the old ``CLIPStyleLoss`` and from the InfoNCE of the old ``ContrastiveLoss``: all positives count (the
    old ones drew one of them at random; this is the expectation), smoothed labels are made for each call (they were
    cached by batch size), no noise is added to small batches, and metrics are cosines, tensors and optional.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        learnable_temperature: bool = False,
        label_smoothing: float = 0.0,
        input_dim: int | None = None,
        projection_dim: int | None = None,
        metrics: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(
            temperature=temperature,
            learnable_temperature=learnable_temperature,
            heads=("vision", "text"),
            input_dim=input_dim,
            projection_dim=projection_dim,
            reduction=reduction,
        )
        require_number("label_smoothing", label_smoothing, low=0.0)
        if label_smoothing >= 1.0:
            raise ValueError(f"label_smoothing must be less than 1, found {label_smoothing!r}")
        self.label_smoothing = label_smoothing
        self.metrics = metrics

    def forward(
        self,
        vision_features: Tensor,
        text_features: Tensor,
        match_ids: Ids | None = None,
        logits: Tensor | None = None,
    ) -> LossOutput:
        """The loss of one batch.

        Args:
            vision_features: ``[B, D]``.
            text_features: ``[B, D]``; row ``i`` belongs to image ``i``.
            match_ids: one id per pair, integers (tensor or list) or strings; equal ids are positives.
            logits: ``[B, B]`` similarities made elsewhere, already divided by the temperature. They are used as they
                are, and the features count for their number only.
        """
        require_features(vision_features=vision_features, text_features=text_features)
        batch, device = vision_features.shape[0], vision_features.device
        positive = None if match_ids is None else self.create_positive_mask(batch, match_ids, device=device)
        if logits is None:
            projected = self.project(vision=vision_features, text=text_features)
            logits = self.scale_by_temperature(self.compute_similarity(*projected))
        elif logits.shape != (batch, batch):
            raise ValueError(f"logits must be [{batch}, {batch}], found {list(logits.shape)}")
        output = self.contrast(logits, positive)
        if self.metrics:
            output.update(self.measure(logits, positive))
        return output

    def contrast(self, logits: Tensor, positive: Tensor | None) -> LossOutput:
        """Both directions of ``logits``; ``positive`` is ``None`` for the diagonal."""
        other = None if positive is None else positive.mT
        return self.two_way_output(
            info_nce(logits, positive, label_smoothing=self.label_smoothing),
            info_nce(logits.mT, other, label_smoothing=self.label_smoothing),
        )

    @torch.no_grad()
    def measure(self, logits: Tensor, positive: Tensor | None) -> dict[str, Tensor]:
        """Retrieval metrics and cosines."""
        cosines = logits * self.temperature
        matched = (
            cosines.diagonal() if positive is None else (cosines * uniform_targets(positive, cosines.dtype)).sum(1)
        )
        mean, own = cosines.mean(), matched.mean()
        similarities = {"similarity_mean": mean, "similarity_positive": own, "similarity_gap": own - mean}
        return retrieval_metrics(logits, positive) | similarities
