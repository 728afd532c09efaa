"""InfoNCE that weighs negatives which are hard to tell from the positives."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from ..base import BaseContrastiveLoss, ContrastiveOptions, Ids, LossOutput, require_choice, require_numbers
from ..functional import pair_info_nce
from ..loss_registry import LossRegistry


@LossRegistry.register("hard_negative")
class HardNegativeLoss(BaseContrastiveLoss):
    """Symmetric InfoNCE over pairs with weighted hard negatives.

    For fine-tuning, when most negatives of a batch have become easy. All negatives stay in: this is a re-weighting, and
    a weight ``w`` acts like a shift of the logit by ``log w``.

    With cosines ``c_ij`` of image ``i`` and text ``j``, temperature ``t``, positives ``P_i`` (equal ids), negatives
    ``N_i`` (all others) and weights ``w_in`` (``hard_negative_weight`` for hard ones, else 1; without gradient)::

        l_ip = log(1 + sum_{n in N_i} w_in exp((c_in - c_ip) / t))
        loss = mean of l_ip over all pairs i, p in P_i; then the mean of both directions

    Args:
        hard_negative_weight: ``w``, greater than 0; below 1 it plays hard negatives down.
        mining: which are hard. ``semi_hard``: less similar than the mean positive of the anchor, by less than
            ``semi_hard_margin``; ``hard``: the ``hard_fraction`` most similar of the anchor (rounded down, at least
            one); ``percentile``: at or above the ``hard_negative_percentile`` of the anchor's negatives; ``none``.
        semi_hard_margin, hard_fraction, hard_negative_percentile: in cosine; in (0, 1]; 0 to 100.
        options: of ``BaseContrastiveLoss``; ``mean`` omits anchors without negatives, ``none`` sums over positives.

    Returns:
        ``LossOutput`` with ``loss``, ``loss_v2t``, ``loss_t2v``.

    Raises:
        ValueError: an argument out of range, or inputs that ``match_pairs`` rejects.

    Papers: semi-hard negatives, Schroff et al. 2015 (arXiv 1503.03832); other weights, Robinson et al. 2021 (arXiv
    2010.04592). The old class raised without negatives (here a zero that keeps the graph), and could overflow.
    """

    def __init__(
        self,
        *,
        hard_negative_weight: float = 2.0,
        mining: Literal["semi_hard", "hard", "percentile", "none"] = "semi_hard",
        semi_hard_margin: float = 0.2,
        hard_fraction: float = 0.1,
        hard_negative_percentile: float = 90.0,
        **options: Unpack[ContrastiveOptions],
    ) -> None:
        super().__init__(**options)
        require_choice("mining", mining, ("semi_hard", "hard", "percentile", "none"))
        require_numbers(0.0, exclusive=True, hard_negative_weight=hard_negative_weight)
        require_numbers(0.0, semi_hard_margin=semi_hard_margin)
        require_numbers(0.0, 1.0, exclusive=True, hard_fraction=hard_fraction)
        self.init_mining(percentile=hard_negative_percentile, weight=hard_negative_weight)
        self.mining, self.semi_hard_margin, self.hard_fraction = mining, semi_hard_margin, hard_fraction

    def forward(self, vision_features: Tensor, text_features: Tensor, match_ids: Ids | None = None) -> LossOutput:
        """The loss of one batch; inputs as in ``match_pairs``."""
        similarity, positive = self.match_pairs(vision_features, text_features, match_ids)
        # an anchor without negatives has terms of exactly zero
        counted = (positive & ~positive.all(dim=1, keepdim=True)).sum()
        rows, columns = self._direction(similarity, positive), self._direction(similarity.mT, positive.mT)
        return self.two_way_output(rows, columns, counted)

    def _direction(self, similarity: Tensor, positive: Tensor) -> Tensor:
        logits, log_weights = self.scale_by_temperature(similarity), self.log_weights(similarity.detach(), positive)
        return pair_info_nce(logits, positive, denominator="own_positive", log_weights=log_weights)

    def log_weights(self, similarity: Tensor, positive: Tensor) -> Tensor:
        """Logarithm of the weight of each pair as a negative, ``[B, B]``; entries of positives mean nothing."""
        if self.mining == "percentile":
            return self.mine_hard_negatives(similarity, positive).clamp(min=torch.finfo(similarity.dtype).tiny).log()
        if self.mining == "none":
            return torch.zeros_like(similarity)
        if self.mining == "semi_hard":
            anchor = (similarity * positive).sum(dim=1, keepdim=True) / positive.sum(dim=1, keepdim=True)
            hard = (similarity < anchor) & (similarity > anchor - self.semi_hard_margin)
        else:
            wanted = ((~positive).sum(dim=1, keepdim=True) * self.hard_fraction).floor().clamp(min=1)
            order = similarity.masked_fill(positive, float("-inf")).argsort(dim=1, descending=True)
            ranks = torch.arange(similarity.shape[1], device=similarity.device).expand_as(order)
            hard = torch.zeros_like(positive).scatter(1, order, ranks < wanted)
        return hard.to(similarity.dtype) * math.log(self.hard_weight)
