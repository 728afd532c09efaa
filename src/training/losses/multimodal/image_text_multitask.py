"""Contrast, classification and matching of image-text pairs in one loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import (
    BaseContrastiveLoss,
    Ids,
    LossOutput,
    require_floating,
    require_numbers,
    require_one_dtype,
    require_tensors,
)
from ..functional import dot_similarity, info_nce, retrieval_metrics, shown, upcast
from ..loss_registry import LossRegistry


@LossRegistry.register("image_text_multitask")
class ImageTextMultiTaskLoss(BaseContrastiveLoss):
    """Pre-training with three heads: pairs find each other, samples have classes, pairs match or do not.

    For models with an image-text matching head and a classifier beside the two encoders (ALBEF, BLIP). With logits
    ``s = cos(v_i, t_j) / t`` and hard negatives ``vn``, ``tn``::

        c    = symmetric InfoNCE(s), uniform over all pairs of one id
        h    = the same with exp(cos(v_i, tn_j) / t) added to the denominators of the images,
               and exp(cos(t_i, vn_j) / t) to those of the texts
        loss = a ((1 - n) c + n h) + b CE(class_logits, class_labels) + m BCE(matching_logits, matching_labels)

    Args:
        contrastive_weight: ``a``.
        classification_weight: ``b``; then every call needs ``class_logits`` and ``class_labels``.
        matching_weight: ``m``; then every call needs ``matching_logits`` and ``matching_labels``.
        hard_negative_weight: ``n`` in [0, 1], used in calls that give ``hard_negatives``.
        temperature: ``t``.
        metrics: report accuracies and recalls as well.

    Shapes: features ``[B, D]``; ``class_logits`` ``[B, C]``, ``class_labels`` int64 ``[B]``; ``matching_logits`` and
    ``matching_labels`` of one shape; ``hard_negatives``: a mapping with ``vision`` and ``text`` ``[K, D]``.

    Returns:
        ``LossOutput``: ``loss`` (the weighted sum); unweighted ``contrastive_loss``, ``hard_contrastive_loss``,
        ``classification_loss``, ``matching_loss`` (0 where not used); with ``metrics`` also
        ``classification_accuracy``, ``matching_accuracy`` and those of ``CLIPLoss``. All but ``loss`` are detached.

    Raises:
        ValueError: arguments out of range, only zero weights, inputs that are missing or do not fit.

    The old class of ``contrastive_learning`` raised ``NameError`` when it was built; its ``loss`` would have been the
    contrastive term alone.
    """

    def __init__(
        self,
        *,
        contrastive_weight: float = 1.0,
        classification_weight: float = 0.0,
        matching_weight: float = 0.0,
        hard_negative_weight: float = 0.0,
        temperature: float = 0.07,
        metrics: bool = False,
    ) -> None:
        super().__init__(temperature=temperature)
        a, b, m = contrastive_weight, classification_weight, matching_weight
        require_numbers(0.0, contrastive_weight=a, classification_weight=b, matching_weight=m)
        require_numbers(0.0, 1.0, hard_negative_weight=hard_negative_weight)
        self.weights = {"contrastive": a, "classification": b, "matching": m}
        if not any(self.weights.values()):
            raise ValueError(f"weights must not all be 0, found {self.weights}")
        self.hard_negative_weight, self.metrics = hard_negative_weight, metrics

    def forward(
        self,
        vision_features: Tensor,
        text_features: Tensor,
        match_ids: Ids | None = None,
        class_logits: Tensor | None = None,
        class_labels: Tensor | None = None,
        matching_logits: Tensor | None = None,
        matching_labels: Tensor | None = None,
        hard_negatives: Mapping[str, Tensor] | None = None,
    ) -> LossOutput:
        """The loss of one batch of pairs."""
        v, t, ids = self.embed_pairs(vision_features, text_features, match_ids)
        positive = self.create_positive_mask(len(v), ids, device=v.device)
        logits = self.scale_by_temperature(dot_similarity(v, t))
        plain = hard = self._symmetric(logits, positive)
        if hard_negatives is not None and self.hard_negative_weight:
            hard = self._symmetric(logits, positive, *self._hard(v, t, hard_negatives))
        zero = torch.zeros_like(plain.detach())
        terms = {"contrastive": torch.lerp(plain, hard, self.hard_negative_weight)}
        terms["classification"] = terms["matching"] = zero
        entries: dict[str, Tensor] = {}
        if self.weights["classification"]:
            scores, labels = self._pair("class", class_logits, class_labels, 1)
            terms["classification"] = F.cross_entropy(scores, labels)
            hits = (scores.argmax(dim=1) == labels).to(scores.dtype).mean()
            entries["classification_accuracy"] = shown(hits, scores)
        if self.weights["matching"]:
            scores, labels = self._pair("matching", matching_logits, matching_labels, None)
            terms["matching"] = F.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype))
            hits = ((scores > 0) == (labels > 0.5)).to(scores.dtype).mean()
            entries["matching_accuracy"] = shown(hits, scores)
        entries = entries | retrieval_metrics(logits.detach(), positive) if self.metrics else {}
        loss = sum((self.weights[name] * term for name, term in terms.items()), start=zero)
        terms |= {"contrastive": plain, "hard_contrastive": hard}
        return self.output(loss, **entries, **{f"{name}_loss": term for name, term in terms.items()})

    def _symmetric(self, logits: Tensor, positive: Tensor, *extra: Tensor) -> Tensor:
        rows, columns = extra or (None, None)
        v2t = info_nce(logits, positive, negative_lse=rows).mean()
        return (v2t + info_nce(logits, positive, negative_lse=columns, dim=0).mean()) / 2

    def _hard(self, v: Tensor, t: Tensor, negatives: Mapping[str, Tensor]) -> list[Tensor]:
        named = {f"hard_negatives[{name!r}]": x for name, x in negatives.items()}
        require_floating(**named)
        require_one_dtype(vision_features=v, **named)
        width, shapes = v.shape[1], {name: list(x.shape) for name, x in negatives.items()}
        if any(len(shapes.get(name, ())) != 2 or shapes[name][1] != width for name in ("vision", "text")):
            raise ValueError(f"hard_negatives must hold vision and text [K, {width}], found {shapes}")
        vision, text = self.normalize(negatives["vision"], negatives["text"])
        return [self.scale_by_temperature(dot_similarity(*pair)).logsumexp(dim=1) for pair in ((v, text), (t, vision))]

    def _pair(self, name: str, logits: Tensor | None, labels: Tensor | None, dims: int | None) -> tuple[Tensor, Tensor]:
        if logits is not None and labels is not None:
            require_floating(**{f"{name}_logits": logits})
            require_tensors(**{f"{name}_labels": labels})
        if logits is None or labels is None or logits.shape[:dims] != labels.shape[:dims]:
            found = f"shapes {[None if x is None else list(x.shape) for x in (logits, labels)]}"
            what = "length" if dims else "shape"
            raise ValueError(f"{name}_logits and {name}_labels of one {what} are needed, found {found}")
        return upcast(logits), labels
