"""Barlow Twins: the cross-correlation of two views is pulled to the identity."""

from __future__ import annotations

from torch import Tensor

from ..base import BaseLoss, LossOutput, NormalizationMixin, ProjectionMixin
from ..base.base_loss import require_choice, require_features, require_numbers, require_one_dtype
from ..functional import autocast_off, center, off_diagonal_energy, standardize
from ..loss_registry import LossRegistry


@LossRegistry.register("barlow_twins")
class BarlowTwinsLoss(BaseLoss, ProjectionMixin, NormalizationMixin):
    """Redundancy reduction: matching dimensions agree over the batch, different ones are uncorrelated.

    Use it for two views or two modalities without negatives, with wide projections (2,048 and more) and moderate
    batches. Unlike VICReg it is blind to the scale of a dimension. With columns standardised over the batch::

        C    = v^T t / B                                            [D, D]
        loss = sum_i (C_ii - 1)^2 + w sum_{i != j} C_ij^2

    Args:
        off_diagonal_weight: ``w``.
        correlation: ``cross`` (as above), or ``within``: ``C = (v^T v + t^T t) / (2 B)``, which ignores the pairing.
        standardize, eps: divide centred columns by ``sqrt(variance + eps)``; without it ``C`` is a covariance.
        normalize: scale rows to unit length first. Not part of the method.
        matrix_reduction: ``sum`` (paper), or ``mean``: the diagonal term is divided by ``D``, the other by ``D^2``.
        input_dim, projection_dim, hidden_dim: widths of the features, behind and inside (default: ``input_dim``) two
            heads ``vision_head`` and ``text_head``. Default: no heads. Give their ``parameters()`` to the optimiser.
        final_batch_norm: end the heads with a batch norm without parameters.

    Shapes: ``vision_features``, ``text_features`` ``[B, D]`` with ``B >= 2``.

    Returns:
        ``LossOutput``: ``loss``, and detached ``diagonal_loss`` and ``off_diagonal_loss`` (unweighted).

    Raises:
        ValueError: an argument out of range, unequal shapes, fewer than two rows.

    Paper: Zbontar et al., ICML 2021 (arXiv 2103.03230). In the old class rows were normalised and columns were not, so
    that the diagonal could not reach 1, and both terms were means.
    """

    shown = ("off_diagonal_weight", "correlation")

    def __init__(
        self,
        *,
        off_diagonal_weight: float = 5e-3,
        correlation: str = "cross",
        standardize: bool = True,
        normalize: bool = False,
        matrix_reduction: str = "sum",
        input_dim: int | None = None,
        projection_dim: int | None = None,
        hidden_dim: int | None = None,
        final_batch_norm: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        require_numbers(0.0, off_diagonal_weight=off_diagonal_weight)
        require_choice("correlation", correlation, ("cross", "within"))
        require_choice("matrix_reduction", matrix_reduction, ("sum", "mean"))
        require_numbers(0.0, exclusive=True, eps=eps)
        self.off_diagonal_weight, self.correlation = off_diagonal_weight, correlation
        self.standardize, self.matrix_reduction, self.eps = standardize, matrix_reduction, eps
        self.init_normalization(normalize=normalize)
        widths = {"input_dim": input_dim, "projection_dim": projection_dim, "hidden_dim": hidden_dim}
        self.init_projection("vision", "text", **widths, layers=3, final_batch_norm=final_batch_norm)

    def forward(self, vision_features: Tensor, text_features: Tensor) -> LossOutput:
        """The loss of one batch of pairs."""
        require_features(2, vision_features=vision_features, text_features=text_features)
        require_one_dtype(vision_features=vision_features, text_features=text_features)
        projected = self.normalize(*self.project(vision=vision_features, text=text_features))
        v, t = (standardize(x, eps=self.eps, unbiased=False) if self.standardize else center(x) for x in projected)
        with autocast_off(v):
            matrix = (v.mT @ t if self.correlation == "cross" else (v.mT @ v + t.mT @ t) / 2) / v.shape[0]
        diagonal, off_diagonal = (matrix.diagonal() - 1).square().sum(), off_diagonal_energy(matrix)
        if self.matrix_reduction == "mean":
            diagonal, off_diagonal = diagonal / v.shape[1], off_diagonal / v.shape[1] ** 2
        loss = diagonal + self.off_diagonal_weight * off_diagonal
        return self.output(loss, diagonal_loss=diagonal, off_diagonal_loss=off_diagonal)
