"""InfoNCE with queues of past features as further negatives."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from ..base import BaseContrastiveLoss, ContrastiveOptions, FeatureQueue, Ids, LossOutput, require_choice
from ..functional import bank_logsumexp, dot_similarity, pair_info_nce
from ..loss_registry import LossRegistry

__all__ = ["MemoryQueueLoss", "QueueMixin"]


class QueueMixin:
    """Owns one queue per modality, named ``vision_queue`` and ``text_queue``."""

    vision_queue: FeatureQueue
    text_queue: FeatureQueue
    mask_same_id: bool

    def init_queues(self, *names: str, size: int, dim: int, mask_same_id: bool) -> None:
        """Create ``<name>_queue`` per name."""
        self.mask_same_id = mask_same_id
        for name in names:
            setattr(self, f"{name}_queue", FeatureQueue(size, dim))

    def keep_mask(self, queue: FeatureQueue, ids: Tensor | None) -> Tensor:
        """Entries of ``queue`` that are negatives of queries with these ids, ``[1, K]`` or ``[B, K]``."""
        return queue.keep_mask(ids if self.mask_same_id else None)


@LossRegistry.register("memory_queue")
class MemoryQueueLoss(BaseContrastiveLoss, QueueMixin):
    """Symmetric InfoNCE whose negatives are the batch and a queue of past features of the other modality.

    For small batches: the queue gives thousands of negatives at the price of ``queue_size x embed_dim`` numbers per
    modality. The entries are up to ``queue_size / B`` steps old, which hurts while the encoder changes quickly; with
    keys of a momentum encoder use ``MoCoLoss``.

    With cosines ``c_ij`` of image ``i`` and text ``j``, ``s = c / t``, queue similarities ``a_iq``, positives
    ``P_i = {j : id_j = id_i}`` (just ``i`` without ids), ``Q_i`` the filled entries that have another id::

        l_i  = mean_{p in P_i} ( log D_ip - s_ip )
        D_ip = sum_j exp(s_ij) + sum_{q in Q_i} exp(a_iq)          for denominator="all"
        D_ip = exp(s_ip) + sum_{n not in P_i} exp(s_in) + sum_{q in Q_i} exp(a_iq)      for "own_positive"
        loss = (mean_i l_i + the same from text to vision) / 2

    After the loss, in train mode only, the features of the batch replace the oldest entries.

    Paper: the queue is that of MoCo, He et al. 2020 (arXiv 1911.05722), without its momentum encoder.

    Args:
        embed_dim: width of the features (behind the heads); default: ``projection_dim``.
        queue_size: entries per modality.
        denominator: ``all``, or ``own_positive``: other positives of the row are no negatives either.
        average: ``anchors`` (as above), or ``pairs``: ``sum`` over the positives instead of their mean, and the mean
            divides by the number of positive pairs, so that a sample with many positives weighs more.
        mask_same_id: entries of the query's own id are no negatives.
        options: ``temperature`` (``t``), heads, normalisation and ``reduction`` of ``BaseContrastiveLoss``.

    Returns:
        ``LossOutput`` with ``loss``, ``loss_v2t``, ``loss_t2v``, ``temperature`` and ``queue_fill`` (share of the queue
        that was filled before this batch).

    Raises:
        ValueError: an argument out of range, inputs that ``match_pairs`` rejects, or of another width than the queue.

    Differs from the old ``MemoryQueueContrastiveLoss``: only filled entries count and at full weight (the old one began
    with random ones, scaled their logits and raised the temperature while they were replaced), ids are stored,
    evaluation leaves the queue alone, the state loads into a new object, any floating dtype works, no random numbers.
    From the bank of the old ``ContrastiveLoss``: it fills by itself, and the backward pass works.
    """

    def __init__(
        self,
        *,
        embed_dim: int | None = None,
        queue_size: int = 8192,
        denominator: Literal["all", "own_positive"] = "all",
        average: Literal["anchors", "pairs"] = "anchors",
        mask_same_id: bool = True,
        **options: Unpack[ContrastiveOptions],
    ) -> None:
        super().__init__(**options)
        require_choice("denominator", denominator, ("all", "own_positive"))
        require_choice("average", average, ("anchors", "pairs"))
        projection_dim = options.get("projection_dim")
        width = projection_dim if embed_dim is None else embed_dim
        if width is None or (projection_dim is not None and width != projection_dim):
            raise ValueError(
                "embed_dim is the width of the compared features: give it, or projection_dim, or both alike; "
                f"found embed_dim={embed_dim!r}, projection_dim={projection_dim!r}"
            )
        self.denominator: Literal["all", "own_positive"] = denominator
        self.average = average
        self.init_queues("vision", "text", size=queue_size, dim=width, mask_same_id=mask_same_id)

    def forward(self, vision_features: Tensor, text_features: Tensor, match_ids: Ids | None = None) -> LossOutput:
        """The loss of one batch (inputs as in ``match_pairs``), which the queues take up afterwards in train mode."""
        v, t, ids = self._embed(vision_features, text_features, match_ids)
        positive = self.create_positive_mask(v.shape[0], ids, device=v.device)
        logits = self.scale_by_temperature(dot_similarity(v, t))
        loss_v2t = self._direction(logits, positive, v, self.text_queue, ids)
        loss_t2v = self._direction(logits.mT, positive.mT, t, self.vision_queue, ids)
        fill = self.text_queue.fill_ratio
        if self.training:
            self._store(v, t, ids)
        return self.two_way_output(
            loss_v2t,
            loss_t2v,
            positive.sum() if self.average == "pairs" else None,
            temperature=torch.as_tensor(self.temperature, dtype=v.dtype, device=v.device),
            queue_fill=fill,
        )

    def _direction(
        self, logits: Tensor, positive: Tensor, query: Tensor, queue: FeatureQueue, ids: Tensor | None
    ) -> Tensor:
        stored = bank_logsumexp(query, queue.features, self.scale, self.keep_mask(queue, ids))
        terms = pair_info_nce(logits, positive, denominator=self.denominator, negative_lse=stored)
        return terms / positive.sum(dim=1) if self.average == "anchors" else terms

    @torch.no_grad()
    def enqueue(self, vision_features: Tensor, text_features: Tensor, match_ids: Ids | None = None) -> None:
        """Store a batch without a loss, for instance to fill the queues before training."""
        self._store(*self._embed(vision_features, text_features, match_ids))

    def _embed(
        self, vision_features: Tensor, text_features: Tensor, match_ids: Ids | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        embedded = self.embed_pairs(vision_features, text_features, match_ids)
        if embedded[0].shape[1] != self.text_queue.dim:
            found = embedded[0].shape[1]
            raise ValueError(f"features must have the width of the queue, {self.text_queue.dim}, found {found}")
        return embedded

    def _store(self, v: Tensor, t: Tensor, ids: Tensor | None) -> None:
        self.vision_queue.enqueue(v.detach(), ids)
        self.text_queue.enqueue(t.detach(), ids)
