"""SimCLR: two views of a sample find each other among all views of the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from typing_extensions import Unpack

from ..base import BaseContrastiveLoss, ContrastiveOptions, LossOutput, require_features, require_floating
from ..functional import dot_similarity, shown, view_matches
from ..loss_registry import LossRegistry


@LossRegistry.register("simclr")
class SimCLRLoss(BaseContrastiveLoss):
    """NT-Xent, the normalised and temperature-scaled cross entropy of SimCLR.

    For self-supervised training on two augmented views; profits from large batches. In contrast to CLIP, the other
    samples of the *own* view are negatives too. Over the ``2B`` rows of ``[z_a; z_b]`` with cosines ``c_ij`` (inner
    products without ``normalize``), temperature ``t`` and ``p(i)`` the other view of row ``i``::

        l_i  = -c_{i,p(i)} / t + log sum_{k != i} exp(c_ik / t);   loss = mean_i l_i

    Args:
        metrics: report accuracy and similarities as well.
        options: of ``BaseContrastiveLoss``; ``none`` gives ``[2B]``, the rows of ``z_a`` first. ``vision_head`` is for
            ``z_a``, ``text_head`` for ``z_b``; for two views of one modality use one head in the model instead.

    Returns:
        ``LossOutput`` with ``loss`` (for one sample a zero that keeps the graph); with ``metrics`` also ``accuracy``
        (share of rows whose partner is strictly more similar than every other row, so that a collapsed batch scores 0),
        ``positive_similarity`` and ``negative_similarity`` (means of ``c``, 0 where there is no negative).

    Raises:
        ValueError: an argument out of range, or inputs of different shapes, empty, or with fewer than two dimensions.

    Paper: Chen et al. 2020 (arXiv 2002.05709; there ``t = 0.5`` for small models, 0.1 for large ones). The old
    ``ContrastiveLoss(loss_type="nt_xent")`` reported metrics of an InfoNCE, ``NTXentLoss`` infinite or scaled ones.
    """

    head_inputs = {"vision": "z_a", "text": "z_b"}

    def __init__(self, *, metrics: bool = False, **options: Unpack[ContrastiveOptions]) -> None:
        super().__init__(**options)
        self.metrics = metrics

    def forward(self, z_a: Tensor, z_b: Tensor) -> LossOutput:
        """The loss of two views ``[B, D]``; of ``[B, N, D]`` (or more) every position is a sample of its own."""
        require_floating(z_a=z_a, z_b=z_b)
        if z_a.shape == z_b.shape and z_a.dim() > 2:
            z_a, z_b = z_a.flatten(0, -2), z_b.flatten(0, -2)
        require_features(z_a=z_a, z_b=z_b)
        z_a, z_b = self.project(vision=z_a, text=z_b)
        metrics = self.measure(*self.normalize(z_a, z_b)) if self.metrics else {}
        return self.output(self.nt_xent_loss(z_a, z_b), **metrics)

    @torch.no_grad()
    def measure(self, z_a: Tensor, z_b: Tensor) -> dict[str, Tensor]:
        """Accuracy and mean similarities."""
        z, batch = torch.cat([z_a, z_b]), z_a.shape[0]
        similarity = dot_similarity(z, z)
        matched = view_matches(similarity)
        others = ~torch.eye(batch, dtype=torch.bool, device=z.device).repeat(2, 2)
        rivals = similarity.masked_fill(~others, float("-inf"))
        accuracy = shown((matched > rivals.amax(dim=1)).float().mean(), matched)
        negative = (similarity * others).sum() / others.sum().clamp(min=1)
        return {"accuracy": accuracy, "positive_similarity": matched.mean(), "negative_similarity": negative}
