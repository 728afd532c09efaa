"""Supervised contrastive learning inside and across two modalities."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from ..base import (
    BaseContrastiveLoss,
    ContrastiveOptions,
    Ids,
    LossOutput,
    require_choice,
    require_numbers,
    require_tensors,
)
from ..functional import (
    dot_similarity,
    encode_ids,
    fill_diagonal,
    info_nce,
    match_mask,
    supervised_contrastive,
    uniform_targets,
)
from ..loss_registry import LossRegistry


@LossRegistry.register("supcon")
class SupervisedContrastiveLoss(BaseContrastiveLoss):
    """SupCon: samples of one class attract each other, all others repel.

    For paired features with class labels (single or multi-label), or with given similarity scores. With cosines over
    temperature ``s`` and positives ``P_i`` (same label, a shared class, or a score of at least the threshold), each
    part is the mean over its anchors with positives of ::

        l_i = log sum_{k in A_i} exp(s_ik) - mean_{p in P_i} s_ip        ( = L_out of the paper)

    * ``intra``: inside vision and inside text; ``A_i`` is everything but the sample itself, which is no positive.
    * ``cross``: mean of vision to text and text to vision; ``A_i`` is the whole other modality, partners are positives.
    * ``all``: the mean of the three.
    * ``joint``: one part over the ``2B`` rows of both modalities together.

    Paper: Khosla et al. 2020 (arXiv 2004.11362).

    Args:
        contrast_mode: ``all``, ``cross``, ``intra`` or ``joint``.
        base_temperature: scale the loss by ``temperature / base_temperature``, as the reference code of the paper does.
        similarity_threshold: scores from here on are positives.
        include_paired: the partner ``(i, i)`` is a positive of the cross part. Without it, partners repel each other.
        log_epsilon: added inside the logarithm, relative to the most similar entry of the row (the sample itself in the
            intra parts); flattens the loss at low temperatures.
        metrics: report the ranking accuracy as well.
        options: ``temperature``, heads, normalisation and ``reduction`` of ``BaseContrastiveLoss``; each part is
            reduced over its anchors with positives, ``none`` gives ``[B]`` (``[2B]`` for ``joint``).

    Returns:
        ``LossOutput`` with ``loss``, and unless ``joint`` with ``intra_vision_loss``, ``intra_text_loss`` and
        ``cross_modal_loss`` (0 where the mode leaves them out); with ``metrics`` also ``ranking_accuracy``: share of
        (positive, negative) pairs of texts that each image ranks in this order (partners are positives). Parts without
        positives are zeros that keep the graph.

    Raises:
        ValueError: an argument out of range; features, labels, scores or weights that do not fit; class weights
            without labels.

    Differs from the old class of this name: partners attract, no epsilon in the logarithm, multi-label targets and
    ``reduction="none"`` work, asymmetric scores count their columns in the second direction, no labels mean CLIP's
    pairing. ``joint`` is the old function ``supervised_contrastive_loss``, without overflow.
    """

    def __init__(
        self,
        *,
        contrast_mode: Literal["all", "cross", "intra", "joint"] = "all",
        base_temperature: float | None = None,
        similarity_threshold: float = 0.5,
        include_paired: bool = True,
        log_epsilon: float = 0.0,
        metrics: bool = False,
        **options: Unpack[ContrastiveOptions],
    ) -> None:
        super().__init__(**options)
        require_choice("contrast_mode", contrast_mode, ("all", "cross", "intra", "joint"))
        require_numbers(similarity_threshold=similarity_threshold)
        require_numbers(0.0, log_epsilon=log_epsilon)
        require_numbers(0.0, exclusive=True, optional=True, base_temperature=base_temperature)
        self.contrast_mode, self.similarity_threshold, self.metrics = contrast_mode, similarity_threshold, metrics
        self.base_temperature, self.include_paired, self.log_epsilon = base_temperature, include_paired, log_epsilon

    def forward(
        self,
        vision_features: Tensor,
        text_features: Tensor,
        labels: Ids | None = None,
        similarity_scores: Tensor | None = None,
        class_weights: Tensor | None = None,
    ) -> LossOutput:
        """The loss of one batch; features as in ``match_pairs``.

        Args:
            labels: ``[B]`` or ``[B, 1]`` labels, or ``[B, C]`` with a 1 for every class of the sample. They win over
                scores; without both, every sample is a class of its own.
            similarity_scores: ``[B, B]``, rows: vision, columns: text.
            class_weights: ``[C]`` weights of the anchors by their label (the mean over their classes), not normalised.
        """
        vision, text, _ = self.embed_pairs(vision_features, text_features)
        batch = len(vision)
        if labels is not None:
            labels = labels if isinstance(labels, Tensor) else encode_ids(labels, device=vision.device)
            if labels.shape[:1] != (batch,) or labels.dim() > 2:
                raise ValueError(f"labels must be [{batch}] or [{batch}, C], found {list(labels.shape)}")
            labels = labels.flatten() if labels.numel() == batch else labels
        own = torch.eye(batch, dtype=torch.bool, device=vision.device)
        positive = self._positives(labels, similarity_scores, own)
        weights = self._weights(labels, class_weights, vision)
        paired = positive | own
        metrics = {}
        if self.metrics:  # before there is a graph: sorting takes more memory than the loss
            metrics["ranking_accuracy"] = self.ranking_accuracy(dot_similarity(vision.detach(), text.detach()), paired)
        if self.contrast_mode == "joint":
            if labels is None or labels.dim() != 1:
                raise ValueError("contrast_mode 'joint' needs labels of shape [B]")
            joint = torch.cat([vision, text]), torch.cat([labels, labels])
            rows = supervised_contrastive(*joint, self.temperature, reduction="none") * weights.repeat(2)
            return self.output(self.apply_reduction(rows), **metrics)
        zero = self.apply_reduction(vision.sum(dim=1) * 0)
        parts = dict.fromkeys(("intra_vision", "intra_text", "cross_modal"), zero)
        others = fill_diagonal(positive, False)
        if self.contrast_mode != "cross":
            for name, x in (("vision", vision), ("text", text)):
                logits = self.scale_by_temperature(dot_similarity(x, x))
                parts[f"intra_{name}"] = self._part(logits, others, weights, without_self=True)
        if self.contrast_mode != "intra":
            matched = paired if self.include_paired else others
            logits = self.scale_by_temperature(dot_similarity(vision, text))
            both = self._part(logits, matched, weights) + self._part(logits.mT, matched.mT, weights)
            parts["cross_modal"] = both / 2
        total = torch.stack(list(parts.values())).sum(dim=0) / {"all": 3, "intra": 2, "cross": 1}[self.contrast_mode]
        return self.output(total, **{f"{name}_loss": part for name, part in parts.items()}, **metrics)

    def _part(self, logits: Tensor, positive: Tensor, weights: Tensor, *, without_self: bool = False) -> Tensor:
        extra = logits.detach().amax(dim=1) + math.log(self.log_epsilon) if self.log_epsilon else None
        if without_self:
            fill_diagonal(logits, torch.finfo(logits.dtype).min)
        terms = info_nce(logits, positive, negative_lse=extra) * weights
        return self.apply_reduction(terms, positive.any(dim=1).sum())

    def _positives(self, labels: Tensor | None, scores: Tensor | None, own: Tensor) -> Tensor:
        if labels is not None:
            return match_mask(labels) if labels.dim() == 1 else (labels.float() @ labels.float().mT) > 0
        if scores is not None and scores.shape != own.shape:
            raise ValueError(f"similarity_scores must be {list(own.shape)}, found {list(scores.shape)}")
        return own.clone() if scores is None else scores >= self.similarity_threshold

    def _weights(self, labels: Tensor | None, class_weights: Tensor | None, like: Tensor) -> Tensor:
        """Factor of every anchor, ``[B]``: its class weight and the scaling by ``base_temperature``."""
        scale = 1.0 if self.base_temperature is None else self.temperature / self.base_temperature
        factor = torch.ones_like(like[:, 0]) * scale
        if class_weights is None:
            return factor
        if labels is None:
            raise ValueError("class_weights needs labels")
        require_tensors(class_weights=class_weights)
        if labels.dim() == 1:
            return factor * class_weights.to(like.dtype)[labels]
        membership = uniform_targets(labels > 0, like.dtype)
        if class_weights.shape != membership.shape[1:]:
            raise ValueError(f"class_weights must be [{membership.shape[1]}], found {list(class_weights.shape)}")
        return factor * (membership @ class_weights.to(like.dtype))

    @staticmethod
    @torch.no_grad()
    def ranking_accuracy(similarity: Tensor, positive: Tensor) -> Tensor:
        """Share of (positive, negative) pairs in a row in which the positive is strictly more similar; 0 for none."""
        ordered, order = similarity.sort(dim=1)
        positive = positive.gather(1, order)
        below = (~positive).cumsum(dim=1, dtype=torch.int32)
        # equal entries are not beaten: what counts is the number of negatives where the run of equals begins
        goes_on = torch.nn.functional.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
        beaten = (below - (~positive).int()).masked_fill(goes_on, 0).cummax(dim=1).values
        pairs = (positive.sum(dim=1) * below[:, -1]).sum()
        return (beaten * positive).sum() / pairs.clamp(min=1)
