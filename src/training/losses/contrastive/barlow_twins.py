"""Barlow Twins: the cross-correlation of two views is pulled to the identity."""

from __future__ import annotations

from torch import Tensor

from ..base import (
    BaseLoss,
    LossOutput,
    NormalizationMixin,
    ProjectionMixin,
    require_choice,
    require_features,
    require_number,
)
from ..functional import autocast_off, center, off_diagonal_energy, standardize
from ..loss_registry import LossRegistry

__all__ = ["BarlowTwinsLoss"]


@LossRegistry.register("barlow_twins")
class BarlowTwinsLoss(BaseLoss, ProjectionMixin, NormalizationMixin):
    """Redundancy reduction: matching dimensions agree over the batch, different ones are uncorrelated.

    Use it for two views or two modalities without negatives, with wide projections (2,048 and more) and moderate
    batches. Like VICReg it needs no large batch; unlike it, it is blind to the scale of a dimension.

    With both inputs standardised per column over the batch (mean 0, variance 1)::

        C    = v^T t / B                                            [D, D]
        loss = sum_i (C_ii - 1)^2 + w sum_{i != j} C_ij^2

    Args:
        off_diagonal_weight: ``w``.
        correlation: ``cross`` (as above), or ``within``: ``C = (v^T v + t^T t) / (2 B)``, which ignores the pairing and
            only decorrelates.
        standardize: divide each column by its standard deviation. Without it ``C`` is a covariance.
        normalize: scale rows to unit length first. Not part of the method.
        matrix_reduction: ``sum`` (paper), or ``mean``: the diagonal term is divided by ``D``, the other by ``D^2``.
        input_dim: width of the features, if they are to be projected.
        projection_dim: width behind the two heads ``vision_head`` and ``text_head``; default: no heads. The heads have
            parameters: give ``loss.parameters()`` to the optimiser.
        hidden_dim: width inside the heads; default: ``input_dim``.
        final_batch_norm: end the heads with a batch norm without parameters.
        eps: added to the variance of a column.

    Shapes: ``vision_features``, ``text_features`` ``[B, D]`` with ``B >= 2``.

    Returns:
        ``LossOutput``: ``loss``, and detached ``diagonal_loss`` and ``off_diagonal_loss`` (unweighted).

    Raises:
        ValueError: an argument out of range, unequal shapes, fewer than two rows.

    Paper: Zbontar et al., "Barlow Twins", ICML 2021, arXiv 2103.03230.

    Differs from the old class: columns are standardised, so that the diagonal can reach 1 (the old matrix of
    row-normalised features could not, and its loss hardly moved); terms are sums, so that ``w`` means what the paper
    says; an unknown ``correlation`` raises; the result is no tuple.
    """

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
        require_number("off_diagonal_weight", off_diagonal_weight, low=0.0)
        require_choice("correlation", correlation, ("cross", "within"))
        require_choice("matrix_reduction", matrix_reduction, ("sum", "mean"))
        require_number("eps", eps, low=0.0, exclusive=True)
        self.off_diagonal_weight, self.correlation = off_diagonal_weight, correlation
        self.standardize, self.matrix_reduction, self.eps = standardize, matrix_reduction, eps
        self.init_normalization(normalize=normalize)
        self.init_projection(
            "vision",
            "text",
            input_dim=input_dim,
            projection_dim=projection_dim,
            hidden_dim=hidden_dim,
            layers=3,
            final_batch_norm=final_batch_norm,
        )

    def forward(self, vision_features: Tensor, text_features: Tensor) -> LossOutput:
        """The loss of one batch of pairs."""
        require_features(vision_features=vision_features, text_features=text_features)
        batch = vision_features.shape[0]
        if batch < 2:
            raise ValueError(f"a correlation needs at least two rows, found {list(vision_features.shape)}")
        projected = self.normalize(*self.project(vision=vision_features, text=text_features))
        v, t = (standardize(x, eps=self.eps, unbiased=False) if self.standardize else center(x) for x in projected)
        with autocast_off(v):
            matrix = v.mT @ t if self.correlation == "cross" else (v.mT @ v + t.mT @ t) / 2
        matrix = matrix / batch
        diagonal = (matrix.diagonal() - 1).square().sum()
        off_diagonal = off_diagonal_energy(matrix)
        if self.matrix_reduction == "mean":
            diagonal, off_diagonal = diagonal / v.shape[1], off_diagonal / v.shape[1] ** 2
        loss = diagonal + self.off_diagonal_weight * off_diagonal
        return self.output(loss, diagonal_loss=diagonal, off_diagonal_loss=off_diagonal)

    def extra_repr(self) -> str:
        """Configuration."""
        return f"off_diagonal_weight={self.off_diagonal_weight}, correlation={self.correlation!r}"
