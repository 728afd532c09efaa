"""Inter-modal plus intra-modal contrast."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import Unpack

from ..base import BaseContrastiveLoss, ContrastiveOptions, Ids, LossOutput, require_choice, require_numbers
from ..functional import dot_similarity, masked_logsumexp, pair_info_nce, retrieval_metrics
from ..loss_registry import LossRegistry


@LossRegistry.register("intra_inter_modal")
class IntraInterModalLoss(BaseContrastiveLoss):
    """InfoNCE across two modalities plus one contrastive term inside each of them.

    For paired features whose modalities would otherwise collapse inside while they align across. It is not DCL.

    With cosines ``c`` over temperature ``t``, positives ``P_i`` (equal ids) and negatives ``N_i`` of anchor ``i``, and
    ``g`` the same inside one modality, without the sample itself::

        pooled    l_i = -log( sum_{P_i} exp(c_ip / t) / sum_j exp(c_ij / t) )             one term per anchor
        per_pair  l_i = sum_{P_i} -log( exp(c_ip / t) / sum_j exp(c_ij / t) )             one term per pair
        self      m_i = log( 1 + sum_{k in N_i} exp((g_ik - g_ii) / t) )                  pushes samples apart
        same_id   m_i = sum_{p in P_i, p != i} -log( exp(g_ip / t) / sum_{k != i} exp(g_ik / t) )
        inter = mean of l over its terms (pooled: over anchors with negatives), mean of both directions
        loss  = inter + vision_weight * mean of m (vision) + text_weight * mean of m (text)

    Args:
        vision_weight, text_weight: weights of the terms inside the modalities, at least 0.
        positives, intra_positives: formula of ``l``, and of ``m``.
        exclude_same_id: with ``self``, samples of the same id are no negatives.
        average: what the mean of ``l`` divides by: ``terms`` that were summed, or positive ``pairs``.
        metrics: report accuracies as well (a hit on any positive counts).
        options: of ``BaseContrastiveLoss``; ``none`` gives ``[B]``: ``l_i`` of both directions / 2 + weighted ``m_i``.

    Returns:
        ``LossOutput`` with ``loss``, ``inter_modal_loss``, ``intra_modal_loss`` (weighted sum), ``loss_v2t``,
        ``loss_t2v``, ``intra_vision_loss``, ``intra_text_loss`` (not weighted), ``accuracy_v2t``, ``accuracy_t2v``,
        ``accuracy`` (with ``metrics``).

    Raises:
        ValueError: an argument out of range, or inputs that ``match_pairs`` rejects.

    Two old classes were named ``DecoupledContrastiveLoss``: one is ``average="pairs", exclude_same_id=False``, one
    ``positives="per_pair", intra_positives="same_id"`` divided by a wrong number, and always zero for unique ids.
    """

    def __init__(
        self,
        *,
        vision_weight: float = 0.5,
        text_weight: float = 0.5,
        positives: Literal["pooled", "per_pair"] = "pooled",
        intra_positives: Literal["self", "same_id"] = "self",
        exclude_same_id: bool = True,
        average: Literal["terms", "pairs"] = "terms",
        metrics: bool = False,
        **options: Unpack[ContrastiveOptions],
    ) -> None:
        super().__init__(**options)
        require_numbers(0.0, vision_weight=vision_weight, text_weight=text_weight)
        require_choice("positives", positives, ("pooled", "per_pair"))
        require_choice("intra_positives", intra_positives, ("self", "same_id"))
        require_choice("average", average, ("terms", "pairs"))
        self.vision_weight, self.text_weight, self.average = vision_weight, text_weight, average
        self.positives, self.intra_positives, self.exclude_same_id = positives, intra_positives, exclude_same_id
        self.metrics = metrics

    def forward(self, vision_features: Tensor, text_features: Tensor, match_ids: Ids | None = None) -> LossOutput:
        """The loss of one batch; inputs as in ``match_pairs``."""
        vision, text, ids = self.embed_pairs(vision_features, text_features, match_ids)
        positive = self.create_positive_mask(len(vision), ids, device=vision.device)
        similarity = dot_similarity(vision, text)
        logits = self.scale_by_temperature(similarity)
        rows = pair_info_nce(logits, positive, positives=self.positives)
        columns = pair_info_nce(logits.mT, positive.mT, positives=self.positives)
        terms = positive if self.positives == "per_pair" or self.average == "pairs" else ~positive.all(dim=1)
        own_v, own_t = (self._intra(x, positive) for x in (vision, text))
        entries = self.two_way_output(rows, columns, terms.sum(), intra_vision_loss=own_v, intra_text_loss=own_t)
        inter, intra = entries.pop("loss"), self.vision_weight * own_v + self.text_weight * own_t
        metrics = retrieval_metrics(similarity, positive, ks=()) if self.metrics else {}
        return self.output(inter + intra, inter_modal_loss=inter, intra_modal_loss=intra, **entries, **metrics)

    def _intra(self, features: Tensor, same_id: Tensor) -> Tensor:
        """The term inside one modality, reduced."""
        logits = self.scale_by_temperature(dot_similarity(features, features))
        own = torch.eye(logits.shape[0], dtype=torch.bool, device=logits.device)
        if self.intra_positives == "self":
            others = masked_logsumexp(logits, ~(same_id if self.exclude_same_id else own))
            return self.apply_reduction(-F.logsigmoid(logits.diagonal() - others))
        positive, others = same_id & ~own, masked_logsumexp(logits, ~own)
        return self.apply_reduction(((others[:, None] - logits) * positive).sum(dim=1), positive.sum())
