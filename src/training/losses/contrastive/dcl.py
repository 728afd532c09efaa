"""Decoupled contrastive learning (DCL): NT-Xent without the positive in the denominator."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import BaseContrastiveLoss, require_features, require_numbers
from ..functional import dot_similarity, masked_logsumexp, view_matches
from ..loss_registry import LossRegistry


@LossRegistry.register("dcl")
class DecoupledContrastiveLoss(BaseContrastiveLoss):
    """Decoupled contrastive learning: NT-Xent without the positive in the denominator.

    For self-supervised training on two views with small batches: removing the positive from the denominator removes the
    factor by which NT-Xent's gradient shrinks once a pair is easy.

    Over the ``2B`` rows of ``[z_a; z_b]`` with cosines ``c``, temperature ``t`` and ``p(i)`` the other view of ``i``::

        l_i  = -w_i c_{i,p(i)} / t + log sum_{k not in {i, p(i)}} exp(c_ik / t)
        w_i  = 1, or with sigma (DCLW): 2 - exp(c_{i,p(i)} / sigma) / mean_k exp(c_{k,p(k)} / sigma)
        loss = mean_i l_i

    Paper: Yeh et al. 2022 (arXiv 2110.06848). Unlike NT-Xent the loss can be negative.

    Args:
        temperature: ``t``, greater than 0 (the paper: 0.1).
        learnable_temperature: learn ``logit_scale = log(1 / t)``, clamped to a scale of 100.
        sigma: width of the von Mises-Fisher weights of DCLW (the paper: 0.5), without gradient; default: no weights.
        reduction: ``mean`` or ``sum`` over the ``2B`` rows, or ``none`` (``[2B]``, the rows of ``z_a`` first).

    Returns:
        A tensor: 0-d, or ``[2B]`` for ``none``. One sample has no negatives: a zero that keeps the graph.

    Raises:
        ValueError: an argument out of range, or ``z_a`` and ``z_b`` that are no ``[B, D]`` batches of one shape with
            ``B >= 1``.

    New: neither of the two old classes of this name is DCL; their successor is ``IntraInterModalLoss``.
    """

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        learnable_temperature: bool = False,
        sigma: float | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(temperature=temperature, learnable_temperature=learnable_temperature, reduction=reduction)
        require_numbers(0.0, exclusive=True, optional=True, sigma=sigma)
        self.sigma = sigma

    def forward(self, z_a: Tensor, z_b: Tensor) -> Tensor:
        """The loss of one batch.

        Args:
            z_a: first view ``[B, D]``.
            z_b: second view ``[B, D]``.
        """
        require_features(z_a=z_a, z_b=z_b)
        z = torch.cat(self.normalize(z_a, z_b))
        batch = z_a.shape[0]
        if batch == 1:
            return self.apply_reduction(z.sum(dim=1) * 0)
        similarity = dot_similarity(z, z)
        matched = view_matches(similarity)
        negative = ~torch.eye(batch, dtype=torch.bool, device=z.device).repeat(2, 2)
        attraction = self.scale_by_temperature(matched)
        if self.sigma is not None:
            attraction = attraction * (2 - torch.softmax(matched.detach() / self.sigma, dim=0) * 2 * batch)
        return self.apply_reduction(masked_logsumexp(self.scale_by_temperature(similarity), negative) - attraction)
