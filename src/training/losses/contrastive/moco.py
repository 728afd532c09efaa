"""MoCo between two modalities: keys of momentum encoders, queues of past keys."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import BaseContrastiveLoss, Ids, LossOutput, require_features
from ..functional import bank_logsumexp_max, dot_similarity, encode_ids
from ..loss_registry import LossRegistry
from .moco_loss import QueueMixin

__all__ = ["MoCoLoss"]


@LossRegistry.register("moco")
class MoCoLoss(BaseContrastiveLoss, QueueMixin):
    """Momentum contrast: queries of the trained encoders against keys of their moving averages.

    For batches too small for CLIP. The keys come from a ``MomentumEncoder`` per modality, which changes slowly,
    so that the queue of past keys stays comparable. One training step::

        vision_keys_of.update(vision_encoder); text_keys_of.update(text_encoder)      # two MomentumEncoder
        out = loss(vision_encoder(x), text_encoder(y), vision_keys_of(x), text_keys_of(y))
        out.loss.backward(); optimizer.step()

    With cosines ``c`` over temperature ``t`` between query ``i`` of one modality and keys of the other::

        l_i = log( exp(c_ii / t) + sum_{q in Q_i} exp(c_iq / t) [+ sum_{j != i} exp(c_ij / t)] ) - c_ii / t

    where ``Q_i`` are the filled entries of the queue that have another id, and the bracket is there with
    ``in_batch_negatives``. ``loss`` is the mean over ``i``, and over both directions if ``symmetric``. Afterwards, in
    train mode only, the keys replace the oldest entries. While the queue is empty and without in-batch negatives the
    loss is a zero that keeps the graph.

    Paper: He et al. 2020 (arXiv 1911.05722).

    Args:
        embed_dim: width of queries and keys.
        queue_size: entries per queue.
        temperature: ``t``, greater than 0.
        learnable_temperature: learn ``logit_scale = log(1 / t)``, clamped to a scale of 100.
        symmetric: both directions; otherwise vision to text only, without a vision queue.
        in_batch_negatives: the other keys of the batch are negatives too.
        mask_same_id: keys of the query's own id (in the queue and in the batch) are no negatives.
        enqueue_before_logits: take up the keys of the batch before the loss and not after it. Every positive is then a
            negative as well; only there to compare with runs that did so.
        metrics: report accuracies as well.
        reduction: ``mean``, ``sum`` or ``none`` (``[B]``).

    Returns:
        ``LossOutput`` with ``loss``, ``loss_v2t``, ``loss_t2v`` (0 unless ``symmetric``) and ``queue_fill`` (share of
        the queue that was filled before this batch); with ``metrics`` also ``accuracy_v2t``, ``accuracy_t2v`` and
        ``accuracy``: share of queries whose key beats all negatives.

    Raises:
        ValueError: an argument out of range, or features that are no ``[B, embed_dim]`` batches of one shape.

    Differs from the old ``EMAMoCoLoss``, which owned the key encoders and could not run as constructed: keys are given,
    the moving average is a ``MomentumEncoder`` that is updated before the keys are made, the loss is formed before the
    keys are queued, only filled entries count, evaluation changes nothing, and several forwards may precede a backward.
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
        self.symmetric = symmetric
        self.in_batch_negatives = in_batch_negatives
        self.enqueue_before_logits = enqueue_before_logits
        self.metrics = metrics
        names = ("vision", "text") if symmetric else ("text",)
        self.init_queues(*names, size=queue_size, dim=embed_dim, mask_same_id=mask_same_id)

    def forward(
        self,
        vision_features: Tensor,
        text_features: Tensor,
        vision_keys: Tensor,
        text_keys: Tensor,
        match_ids: Ids | None = None,
    ) -> LossOutput:
        """The loss of one batch; in train mode the queues take up its keys.

        Args:
            vision_features: queries ``[B, D]``, with gradient.
            text_features: queries ``[B, D]``.
            vision_keys: ``[B, D]`` from the momentum encoder; they get no gradient.
            text_keys: ``[B, D]``.
            match_ids: one id per pair, integers (tensor or list) or strings; keys are stored under them.
        """
        require_features(
            vision_features=vision_features, text_features=text_features, vision_keys=vision_keys, text_keys=text_keys
        )
        if vision_features.shape[1] != self.text_queue.dim:
            raise ValueError(f"features must be [B, {self.text_queue.dim}], found {list(vision_features.shape)}")
        query_v, query_t, key_v, key_t = self.normalize(
            vision_features, text_features, vision_keys.detach(), text_keys.detach()
        )
        ids = None if match_ids is None else encode_ids(match_ids, device=query_v.device)
        others = self.create_positive_mask(query_v.shape[0], ids if self.mask_same_id else None, device=query_v.device)
        others.fill_diagonal_(False)
        fill = self.text_queue.fill_ratio
        if self.enqueue_before_logits:
            self._store(key_v, key_t, ids)
        loss_v2t, accuracy_v2t = self._direction(query_v, key_t, "text", ids, others)
        if self.symmetric:
            loss_t2v, accuracy_t2v = self._direction(query_t, key_v, "vision", ids, others)
            output = self.two_way_output(loss_v2t, loss_t2v, queue_fill=fill)
            accuracy = (accuracy_v2t + accuracy_t2v) / 2
        else:
            loss = self.apply_reduction(loss_v2t)
            output = self.output(loss, loss_v2t=loss, loss_t2v=torch.zeros_like(loss), queue_fill=fill)
            accuracy, accuracy_t2v = accuracy_v2t, torch.zeros_like(accuracy_v2t)
        if self.metrics:
            output.update(accuracy_v2t=accuracy_v2t, accuracy_t2v=accuracy_t2v, accuracy=accuracy)
        if not self.enqueue_before_logits:
            self._store(key_v, key_t, ids)
        return output

    def _direction(
        self, query: Tensor, key: Tensor, name: str, ids: Tensor | None, others: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss per query and accuracy; ``others``: pairs of the batch that are neither matched nor negatives."""
        queue = getattr(self, f"{name}_queue")
        if self.in_batch_negatives:
            logits = self.scale_by_temperature(dot_similarity(query, key)).masked_fill(others, float("-inf"))
            matched = logits.diagonal()
        else:
            matched = self.scale_by_temperature((query * key).sum(dim=1))
            logits = matched[:, None]
        negatives, best = bank_logsumexp_max(query, queue.features, self.scale, self.keep_mask(queue, ids))
        loss = torch.logaddexp(torch.logsumexp(logits, dim=1), negatives) - matched
        if not self.metrics:
            return loss, loss.new_zeros(())
        with torch.no_grad():
            if self.in_batch_negatives:
                best = best.maximum(logits.diagonal_scatter(torch.full_like(matched, float("-inf"))).amax(dim=1))
            return loss, (matched > best).float().mean()

    def _store(self, key_v: Tensor, key_t: Tensor, ids: Tensor | None) -> None:
        if self.training:
            self.text_queue.enqueue(key_t, ids)
            if self.symmetric:
                self.vision_queue.enqueue(key_v, ids)
