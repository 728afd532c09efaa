"""MoCo between two modalities: keys of momentum encoders, queues of past keys."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import BaseContrastiveLoss, FeatureQueue, Ids, LossOutput, require_features, require_one_dtype
from ..functional import bank_logsumexp_max, dot_similarity, encode_ids, fill_diagonal, shown
from ..loss_registry import LossRegistry


@LossRegistry.register("moco")
class MoCoLoss(BaseContrastiveLoss):
    """Momentum contrast: queries of the trained encoders against keys of their moving averages.

    For batches too small for CLIP. The keys come from a ``MomentumEncoder`` per modality, which changes slowly,
    so that the queue of past keys stays comparable. One training step::

        vision_keys_of.update(vision_encoder); text_keys_of.update(text_encoder)      # two MomentumEncoder
        out = loss(vision_encoder(x), text_encoder(y), vision_keys_of(x), text_keys_of(y))
        out.loss.backward(); optimizer.step()

    With cosines ``c`` over temperature ``t`` between query ``i`` of one modality and keys of the other::

        l_i = log( exp(c_ii / t) + sum_{q in Q_i} exp(c_iq / t) [+ sum_{j != i} exp(c_ij / t)] ) - c_ii / t

    where ``Q_i`` are the filled entries of the queue that have another id, and the bracket is for
    ``in_batch_negatives``; then means over ``i`` and, if ``symmetric``, both directions. A zero without negatives.
    A call that ``torch.utils.checkpoint`` repeats takes up nothing, and sees the queue that it saw at first.

    Args:
        embed_dim, queue_size: width of queries and keys, and entries per queue.
        temperature, learnable_temperature: ``t``, greater than 0; learn ``log(1 / t)``, clamped to a scale of 100.
        symmetric: both directions; otherwise vision to text only, without a vision queue.
        in_batch_negatives: the other keys of the batch are negatives too.
        mask_same_id: keys of the query's own id (in the queue and in the batch) are no negatives.
        enqueue_before_logits: take up the keys before the loss, as old runs did: every positive is a negative as well.
        metrics: report accuracies as well.
        reduction: ``mean``, ``sum`` or ``none`` (``[B]``).

    Returns:
        ``LossOutput`` with ``loss``, ``loss_v2t``, ``loss_t2v`` (0 unless ``symmetric``) and ``queue_fill`` (share of
        the queue that was filled before this batch); with ``metrics`` also ``accuracy_v2t``, ``accuracy_t2v`` and
        ``accuracy``: share of queries whose key beats all negatives.

    Raises:
        ValueError: an argument out of range, or features that are no ``[B, embed_dim]`` batches of one shape.

    Paper: He et al. 2020 (arXiv 1911.05722). The old ``EMAMoCoLoss`` owned the key encoders, could not run as
    constructed, queued keys before their own loss, counted random entries, and changed its state in evaluation.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        queue_size: int = 65536,
        temperature: float = 0.07,
        learnable_temperature: bool = False,
        symmetric: bool = True,
        in_batch_negatives: bool = False,
        mask_same_id: bool = True,
        enqueue_before_logits: bool = False,
        metrics: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, learnable_temperature=learnable_temperature, reduction=reduction)
        self.symmetric, self.in_batch_negatives, self.mask_same_id = symmetric, in_batch_negatives, mask_same_id
        self.enqueue_before_logits, self.metrics = enqueue_before_logits, metrics
        self.text_queue = FeatureQueue(queue_size, embed_dim)
        self.vision_queue = FeatureQueue(queue_size, embed_dim) if symmetric else None

    def forward(
        self,
        vision_features: Tensor,
        text_features: Tensor,
        vision_keys: Tensor,
        text_keys: Tensor,
        match_ids: Ids | None = None,
    ) -> LossOutput:
        """The loss of queries and keys ``[B, D]``; in train mode keys are stored under ids as in ``match_pairs``."""
        features = {"vision_features": vision_features, "text_features": text_features}
        require_features(**features, vision_keys=vision_keys, text_keys=text_keys)
        if self.in_batch_negatives:
            require_one_dtype(**features, vision_keys=vision_keys, text_keys=text_keys)
        self.text_queue.require_width(vision_features)
        query_v, query_t = self.normalize(vision_features, text_features)
        key_v, key_t = self.normalize(vision_keys.detach(), text_keys.detach())
        ids = None if match_ids is None else encode_ids(match_ids, device=query_v.device)
        masked = ids if self.mask_same_id else None
        same = self.create_positive_mask(query_v.shape[0], masked, device=query_v.device)
        others = fill_diagonal(same, False)
        entries = {"queue_fill": self.text_queue.fill_ratio}
        if self.enqueue_before_logits:
            self._store(key_v, key_t, ids)
        v2t = self._direction(query_v, key_t, self.text_queue, masked, others)
        t2v = {name: torch.zeros_like(x) for name, x in v2t.items()}
        if self.vision_queue is not None:
            t2v = self._direction(query_t, key_v, self.vision_queue, masked, others)
        for name, x in v2t.items():
            entries |= {name: (x + t2v[name]) / (1 + self.symmetric), f"{name}_v2t": x, f"{name}_t2v": t2v[name]}
        if not self.enqueue_before_logits:
            self._store(key_v, key_t, ids)
        return self.output(entries.pop("loss"), **entries)

    def _direction(
        self, query: Tensor, key: Tensor, queue: FeatureQueue, ids: Tensor | None, others: Tensor
    ) -> dict[str, Tensor]:
        """Loss and accuracy; ``others``: pairs of the batch that are neither matched nor negatives."""
        if self.in_batch_negatives:
            logits = self.scale_by_temperature(dot_similarity(query, key)).masked_fill(others, float("-inf"))
            matched = logits.diagonal()
        else:
            matched = self.scale_by_temperature((query * key).sum(dim=1))
            logits = matched[:, None]
        negatives, best = bank_logsumexp_max(query, queue.features, self.scale, queue.keep_mask(ids))
        loss = torch.logaddexp(torch.logsumexp(logits, dim=1), negatives) - matched
        if self.metrics and self.in_batch_negatives:
            rivals = logits.detach().diagonal_scatter(torch.full_like(matched, float("-inf")))
            best = best.maximum(rivals.amax(dim=1))
        accuracy = {"accuracy": shown((matched > best).float().mean(), matched)} if self.metrics else {}
        return {"loss": self.apply_reduction(loss)} | accuracy

    def _store(self, key_v: Tensor, key_t: Tensor, ids: Tensor | None) -> None:
        if self.training:
            self.text_queue.enqueue(key_t, ids)
            if self.vision_queue is not None:
                self.vision_queue.enqueue(key_v, ids)
