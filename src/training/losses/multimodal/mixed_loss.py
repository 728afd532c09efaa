"""Three contrastive terms over image-text pairs in one loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from typing_extensions import Unpack

from ..base import BaseContrastiveLoss, ContrastiveOptions, Ids, LossOutput, require_choice, require_number
from ..functional import dot_similarity, info_nce, nt_xent, retrieval_metrics, supervised_contrastive
from ..loss_registry import LossRegistry


@LossRegistry.register("mixed_contrastive")
class MixedContrastiveLoss(BaseContrastiveLoss):
    """Weighted sum of InfoNCE between the modalities, NT-Xent over all rows, and supervised contrast by class.

    For pairs with class labels, where both shall shape the space; ``clip`` needs pairs only. With unit rows ``v_i``,
    ``t_i`` (behind the heads, if any) and temperature ``t``::

        loss = a InfoNCE(v, t) + b NTXent([v; t]) + c SupCon([v; t], labels)

    InfoNCE is the mean of both directions, uniform over all samples that share an id; NT-Xent contrasts each of the
    ``2B`` rows with all others, again with all rows of its id as positives; SupCon (``L_out``) does so with the labels.

    Args:
        weights: ``a``, ``b``, ``c`` under the names ``infonce`` (0.4), ``nt_xent`` (0.3) and ``supervised`` (0.3). The
            last term is 0 in calls without ``labels``.
        metrics: report accuracies and recalls as well.
        options: ``temperature`` (``t``), heads, normalisation and ``reduction`` of ``BaseContrastiveLoss``; the last
            is ``mean`` or ``sum``, over the ``B`` rows of InfoNCE and the ``2B`` rows of the other terms.

    Shapes: features ``[B, D]``; ``match_ids``: one id per pair; ``labels`` int64 ``[B]`` or ``[B, 1]``.

    Returns:
        ``LossOutput``: ``loss``, ``loss_infonce``, ``loss_nt_xent``, ``loss_supervised`` (unweighted), with ``metrics``
        those of ``CLIPLoss``. All but ``loss`` are detached.

    Raises:
        ValueError: an argument out of range, an unknown weight, shapes, ids or labels that do not fit.

    Papers: van den Oord et al. 2018, Chen et al. 2020 (arXiv 2002.05709), Khosla et al. 2020 (arXiv 2004.11362).

    Differs from the old class: all positives count, in NT-Xent too (one was drawn, and pairs of one id were pushed
    apart); no noise on the logits of small batches; no overflow at low temperatures.
    """

    def __init__(
        self,
        *,
        weights: Mapping[str, float] | None = None,
        metrics: bool = False,
        **options: Unpack[ContrastiveOptions],
    ) -> None:
        super().__init__(**options)
        require_choice("reduction", self.reduction, ("mean", "sum"))
        self.weights = {"infonce": 0.4, "nt_xent": 0.3, "supervised": 0.3} | dict(weights or {})
        for name, weight in self.weights.items():
            require_choice("a name in weights", name, ("infonce", "nt_xent", "supervised"))
            require_number(f"weights[{name!r}]", weight)
        self.metrics = metrics

    def forward(
        self, vision_features: Tensor, text_features: Tensor, match_ids: Ids | None = None, labels: Tensor | None = None
    ) -> LossOutput:
        """The loss of one batch of pairs."""
        v, t, ids = self.embed_pairs(vision_features, text_features, match_ids)
        batch = len(v)
        positive = None if ids is None else self.create_positive_mask(batch, ids, device=v.device)
        logits = self.scale_by_temperature(dot_similarity(v, t))
        rows, columns = info_nce(logits, positive), info_nce(logits, positive, dim=0)
        infonce = (self.apply_reduction(rows) + self.apply_reduction(columns)) / 2
        terms = {"infonce": infonce, "nt_xent": self._joint(v, t, ids), "supervised": infonce.new_zeros(())}
        if labels is not None:
            if labels.numel() != batch:
                raise ValueError(f"labels must be one per pair ({batch}), found {list(labels.shape)}")
            terms["supervised"] = self._joint(v, t, labels.flatten())
        loss = sum((self.weights[name] * term for name, term in terms.items()), start=infonce.new_zeros(()))
        metrics = retrieval_metrics(logits.detach(), positive) if self.metrics else {}
        return self.output(loss, **{f"loss_{name}": term for name, term in terms.items()}, **metrics)

    def _joint(self, v: Tensor, t: Tensor, ids: Tensor | None) -> Tensor:
        if ids is None:
            return nt_xent(v, t, self.temperature, reduction=self.reduction)
        both = torch.cat([v, t]), torch.cat([ids, ids])
        return supervised_contrastive(*both, self.temperature, reduction=self.reduction)
