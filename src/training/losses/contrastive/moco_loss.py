"""InfoNCE with queues of past features as further negatives."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from ..base import BaseContrastiveLoss, ContrastiveOptions, FeatureQueue, Ids, LossOutput, require_choice
from ..functional import bank_logsumexp, dot_similarity, pair_info_nce
from ..loss_registry import LossRegistry


@LossRegistry.register("memory_queue")
class MemoryQueueLoss(BaseContrastiveLoss):
    """Symmetric InfoNCE whose negatives are the batch and a queue of past features of the other modality.

    For small batches: thousands of negatives for ``queue_size x embed_dim`` numbers per modality. Entries are up to
    ``queue_size / B`` steps old, which hurts while encoders change quickly; with momentum encoders use ``MoCoLoss``.
    A call that ``torch.utils.checkpoint`` repeats takes up nothing, and sees the queue that it saw at first.

    With cosines ``c_ij`` of image ``i`` and text ``j``, ``s = c / t``, queue similarities ``a_iq``, positives
    ``P_i = {j : id_j = id_i}`` (just ``i`` without ids), ``Q_i`` the filled entries that have another id::

        l_i  = mean_{p in P_i} ( log D_ip - s_ip )
        D_ip = sum_j exp(s_ij) + sum_{q in Q_i} exp(a_iq)          for denominator="all"
        D_ip = exp(s_ip) + sum_{n not in P_i} exp(s_in) + sum_{q in Q_i} exp(a_iq)      for "own_positive"
        loss = (mean_i l_i + the same from text to vision) / 2

    Args:
        embed_dim, queue_size: width behind the heads (default: ``projection_dim``), and entries per modality.
        denominator: ``all``, or ``own_positive``: other positives of the row are no negatives either.
        average: ``anchors`` (as above), or ``pairs``: sums over positives; ``mean`` is that of all positive pairs.
        mask_same_id: entries of the query's own id are no negatives.
        options: ``temperature`` (``t``), heads, normalisation and ``reduction`` of ``BaseContrastiveLoss``.

    Returns:
        ``LossOutput`` with ``loss``, ``loss_v2t``, ``loss_t2v``, ``temperature`` and ``queue_fill`` (share of the queue
        that was filled before this batch).

    Raises:
        ValueError: an argument out of range, inputs that ``match_pairs`` rejects, or of another width than the queue.

    Paper: the queue of He et al. 2020 (arXiv 1911.05722). The old ``MemoryQueueContrastiveLoss`` began with random
    entries, scaled their logits, and took up evaluation batches; the bank of the old ``ContrastiveLoss`` stayed empty.
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
            found = f"embed_dim={embed_dim!r}, projection_dim={projection_dim!r}"
            raise ValueError(f"embed_dim is the width of the features behind the heads, found {found}")
        self.denominator, self.average, self.mask_same_id = denominator, average, mask_same_id
        self.vision_queue, self.text_queue = FeatureQueue(queue_size, width), FeatureQueue(queue_size, width)

    def forward(self, vision_features: Tensor, text_features: Tensor, match_ids: Ids | None = None) -> LossOutput:
        """The loss of one batch (inputs as in ``match_pairs``), which the queues take up afterwards in train mode."""
        v, t, ids = self.embed_pairs(vision_features, text_features, match_ids)
        self.text_queue.require_width(v)
        positive = self.create_positive_mask(v.shape[0], ids, device=v.device)
        logits = self.scale_by_temperature(dot_similarity(v, t))
        rows = self._direction(logits, positive, v, self.text_queue, ids)
        columns = self._direction(logits.mT, positive.mT, t, self.vision_queue, ids)
        entries = {"temperature": logits.new_ones(()) * self.temperature, "queue_fill": self.text_queue.fill_ratio}
        if self.training:
            self.vision_queue.enqueue(v, ids)
            self.text_queue.enqueue(t, ids)
        return self.two_way_output(rows, columns, positive.sum() if self.average == "pairs" else None, **entries)

    def _direction(
        self, logits: Tensor, positive: Tensor, query: Tensor, queue: FeatureQueue, ids: Tensor | None
    ) -> Tensor:
        keep = queue.keep_mask(ids if self.mask_same_id else None)
        stored = bank_logsumexp(query, queue.features, self.scale, keep)
        terms = pair_info_nce(logits, positive, denominator=self.denominator, negative_lse=stored)
        return terms / positive.sum(dim=1) if self.average == "anchors" else terms

    @torch.no_grad()
    def enqueue(self, vision_features: Tensor, text_features: Tensor, match_ids: Ids | None = None) -> None:
        """Store a batch without a loss, for instance to fill the queues before training."""
        v, t, ids = self.embed_pairs(vision_features, text_features, match_ids)
        self.vision_queue.enqueue(v, ids)
        self.text_queue.enqueue(t, ids)
