"""CLIP: images and captions find each other in the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import Unpack

from ..base import (
    BaseContrastiveLoss,
    ContrastiveOptions,
    Ids,
    LossOutput,
    require_features,
    require_floating,
    require_numbers,
    require_one_dtype,
)
from ..functional import info_nce, retrieval_metrics
from ..loss_registry import LossRegistry


@LossRegistry.register("clip")
class CLIPLoss(BaseContrastiveLoss):
    """Symmetric InfoNCE between two modalities.

    The default for paired vision and text features with at least some hundred pairs per batch. Samples that share an id
    are all positives of each other, so that duplicates in a batch do no harm.

    With cosines ``c_ij`` of image ``i`` and text ``j``, temperature ``t``, ``s = c / t``, positives
    ``P_i = {j : id_j = id_i}`` (just ``i`` without ids) and label smoothing ``e``::

        l_i  = log sum_j exp(s_ij) - (1 - e) mean_{p in P_i} s_ip - e mean_j s_ij
        loss = (mean_i l_i + the same over the columns) / 2

    Args:
        label_smoothing: ``e`` in [0, 1).
        metrics: report accuracies, recalls and similarities as well.
        options: ``temperature`` (``t``), heads, normalisation, ``reduction`` (over pairs) of ``BaseContrastiveLoss``.

    Returns:
        ``LossOutput`` with ``loss``, ``loss_v2t``, ``loss_t2v``; with ``metrics`` also ``accuracy_v2t``,
        ``accuracy_t2v``, ``accuracy``, ``recall_v2t@k``, ``recall_t2v@k``, ``recall@k`` for k = 1, 5, 10 (a hit on any
        positive counts), and cosines: ``similarity_mean`` (all pairs), ``similarity_positive`` (mean over the images of
        the mean over their positives), ``similarity_gap`` (their difference).

    Raises:
        ValueError: an argument out of range, inputs that ``match_pairs`` rejects, or logits that are not ``[B, B]``.

    Papers: Radford et al. 2021 (arXiv 2103.00020); InfoNCE, van den Oord et al. 2018 (arXiv 1807.03748). The old
    ``CLIPStyleLoss`` and ``ContrastiveLoss`` drew one positive of each sample at random; this is the expectation.
    """

    def __init__(
        self, *, label_smoothing: float = 0.0, metrics: bool = False, **options: Unpack[ContrastiveOptions]
    ) -> None:
        super().__init__(**options)
        require_numbers(0.0, label_smoothing=label_smoothing)
        if label_smoothing >= 1.0:
            raise ValueError(f"label_smoothing must be less than 1, found {label_smoothing!r}")
        self.label_smoothing, self.metrics = label_smoothing, metrics

    def forward(
        self, vision_features: Tensor, text_features: Tensor, match_ids: Ids | None = None, logits: Tensor | None = None
    ) -> LossOutput:
        """The loss of one batch; inputs as in ``match_pairs``; ``logits``: cosines over temperature, made elsewhere."""
        require_features(vision_features=vision_features, text_features=text_features)
        require_one_dtype(vision_features=vision_features, text_features=text_features)
        batch, device = vision_features.shape[0], vision_features.device
        positive = None if match_ids is None else self.create_positive_mask(batch, match_ids, device=device)
        if logits is None:
            projected = self.project(vision=vision_features, text=text_features)
            logits = self.scale_by_temperature(self.compute_similarity(*projected))
        else:
            require_floating(logits=logits)
        if logits.shape != (batch, batch):
            raise ValueError(f"logits must be [{batch}, {batch}], found {list(logits.shape)}")
        # before there is a graph of the loss, which takes memory
        metrics = self.measure(logits, positive) if self.metrics else {}
        rows, columns = (info_nce(logits, positive, label_smoothing=self.label_smoothing, dim=d) for d in (1, 0))
        return self.two_way_output(rows, columns, **metrics)

    @torch.no_grad()
    def measure(self, logits: Tensor, positive: Tensor | None) -> dict[str, Tensor]:
        """Retrieval metrics and cosines; ``positive`` is ``None`` for the diagonal."""
        matched = logits.diagonal()
        if positive is not None:
            matched = torch.where(positive, logits, 0.0).sum(dim=1) / positive.sum(dim=1, dtype=torch.int32)
        mean, own = logits.mean() * self.temperature, matched.mean() * self.temperature
        similarities = {"similarity_mean": mean, "similarity_positive": own, "similarity_gap": own - mean}
        return retrieval_metrics(logits, positive) | similarities
