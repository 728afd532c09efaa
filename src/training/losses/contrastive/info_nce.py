"""InfoNCE between two modalities with an optional pull between matched pairs."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from ..base import BaseContrastiveLoss, ContrastiveOptions, Ids, LossOutput, require_choice, require_numbers
from ..functional import dot_similarity, pair_info_nce, retrieval_metrics, uniform_targets
from ..loss_registry import LossRegistry


@LossRegistry.register("info_nce")
class InfoNCELoss(BaseContrastiveLoss):
    """Symmetric InfoNCE plus a weighted distance of matched pairs.

    For small models and debugging: the alignment term gives a gradient before the contrast does. Default: ``CLIPLoss``.

    With cosines ``c_ij`` of image ``i`` and text ``j``, temperature ``t``, positives ``P_i`` (equal ids), rows ``v_i``,
    ``t_p`` of unit length and width ``D`` (the squared error is ``2 / D`` of the cosine distance)::

        l_i  = mean_{p in P_i} ( log D_ip - c_ip / t ),   D_ip = sum_j exp(c_ij / t)        for denominator="all"
                                                 D_ip = exp(c_ip / t) + sum_{n not in P_i} exp(c_in / t)  "own_positive"
        d_i  = mean_{p in P_i} (1 - c_ip)          cosine;  mean_{p in P_i} |v_i - t_p|^2 / D  for alignment="mse"
        loss = (mean_i l_i + the same over the columns) / 2 + alignment_weight mean_i d_i

    Args:
        positives: ``all``, or ``random``: one positive per row, column and distance, drawn anew in each call.
        denominator: ``all``, or ``own_positive``: other positives of the row are no negatives either.
        alignment, alignment_weight: ``cosine`` or ``mse``; at least 0.
        metrics: report accuracy and similarities as well.
        options: ``temperature`` (``t``), heads, normalisation and ``reduction`` of ``BaseContrastiveLoss``.

    Returns:
        ``LossOutput`` with ``loss``, ``infonce``, ``alignment`` (not weighted), ``loss_v2t``, ``loss_t2v``,
        ``temperature``; with ``metrics`` also ``accuracy`` (mean of both directions, a hit on any positive counts) and
        the mean cosines ``similarity_positive``, ``similarity_negative`` (0 without negatives), ``similarity_gap``.

    Raises:
        ValueError: an argument out of range, or inputs that ``match_pairs`` rejects.

    Paper: van den Oord et al. 2018 (arXiv 1807.03748). The old ``SimpleContrastiveLoss`` is ``alignment="mse",
    alignment_weight=0.5`` with positives drawn globally; ``WeightedSumLoss`` adds a term like its ``decor_loss``.
    """

    def __init__(
        self,
        *,
        positives: Literal["all", "random"] = "all",
        denominator: Literal["all", "own_positive"] = "all",
        alignment: Literal["cosine", "mse"] = "cosine",
        alignment_weight: float = 0.0,
        metrics: bool = False,
        **options: Unpack[ContrastiveOptions],
    ) -> None:
        super().__init__(**options)
        require_choice("positives", positives, ("all", "random"))
        require_choice("denominator", denominator, ("all", "own_positive"))
        require_choice("alignment", alignment, ("cosine", "mse"))
        require_numbers(0.0, alignment_weight=alignment_weight)
        self.positives, self.denominator, self.metrics = positives, denominator, metrics
        self.alignment, self.alignment_weight = alignment, alignment_weight

    def forward(
        self,
        vision_features: Tensor,
        text_features: Tensor,
        match_ids: Ids | None = None,
        generator: torch.Generator | None = None,
        extra_loss: Tensor | None = None,
    ) -> LossOutput:
        """The loss of one batch; inputs as in ``match_pairs``, on their device a generator for random positives.

        ``extra_loss``, a term of the caller (0-d), is added to ``loss`` as it is.
        """
        vision, text, ids = self.embed_pairs(vision_features, text_features, match_ids)
        positive = self.create_positive_mask(len(vision), ids, device=vision.device)
        similarity = dot_similarity(vision, text)
        logits = self.scale_by_temperature(similarity)
        rows, columns = self._direction(logits, positive, generator), self._direction(logits.mT, positive.mT, generator)
        distance = 1 - similarity
        if self.alignment == "mse":
            # the length of a zero vector is 0 after normalisation, so the squares are not always 1
            squares = [x.square().sum(dim=1) for x in (vision, text)]
            distance = (squares[0][:, None] + squares[1] - 2 * similarity) / vision.shape[1]
        chosen = uniform_targets(self._choose(positive, generator), distance.dtype)
        alignment = self.apply_reduction((distance * chosen).sum(dim=1))
        entries = self.two_way_output(rows, columns, temperature=logits.new_ones(()) * self.temperature)
        contrast = entries.pop("loss")
        entries |= self.measure(similarity, positive) if self.metrics else {}
        total = contrast + self.alignment_weight * alignment
        return self.output(
            total if extra_loss is None else total + extra_loss, infonce=contrast, alignment=alignment, **entries
        )

    def _choose(self, positive: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.positives == "all":
            return positive
        draws = torch.rand(positive.shape, generator=generator, device=positive.device).masked_fill(~positive, -1.0)
        return torch.zeros_like(positive).scatter(1, draws.argmax(dim=1, keepdim=True), True)

    def _direction(self, logits: Tensor, positive: Tensor, generator: torch.Generator | None) -> Tensor:
        chosen = self._choose(positive, generator)
        return pair_info_nce(logits, chosen, denominator=self.denominator) / chosen.sum(dim=1)

    @torch.no_grad()
    def measure(self, similarity: Tensor, positive: Tensor) -> dict[str, Tensor]:
        """Accuracy and mean cosines."""
        own = (similarity * positive).sum() / positive.sum()
        other = (similarity * ~positive).sum() / (~positive).sum().clamp(min=1)
        similarities = {"similarity_positive": own, "similarity_negative": other, "similarity_gap": own - other}
        return {"accuracy": retrieval_metrics(similarity, positive, ks=())["accuracy"]} | similarities
