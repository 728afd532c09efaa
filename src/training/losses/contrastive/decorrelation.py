"""Off-diagonal covariance as a penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import BaseLoss, LossOutput, NormalizationMixin, require_choice, require_features, require_numbers
from ..functional import covariance_energy, shown, standardize, upcast
from ..loss_registry import LossRegistry


@LossRegistry.register("decorrelation")
class DecorrelationLoss(BaseLoss, NormalizationMixin):
    """Keeps the dimensions of each feature set uncorrelated. An addition to another loss.

    Alone it rewards collapse: a constant batch costs nothing. Combine it with a term that keeps the variance (VICReg
    has both). For each set ``x`` ``[B, D]`` with unbiased covariance ``C``, and the mean over the ``S`` given sets::

        K(x) = 1/D sum_{k != l} C_kl^2
        loss = weight / S sum_x K(x)

    Args:
        weight: factor of the loss.
        covariance_norm: ``features`` (``1/D``, as in VICReg), ``pairs`` (``1/(D (D - 1))``) or ``sum`` (1).
        correlation: use correlations (columns of variance 1), which do not depend on the scale of the features.
        normalize: scale rows to unit length first. Covariances then are about ``1/D`` and the loss about ``1/D^2``.
        track_statistics: report the spread of the columns.
        low_variance_threshold, relative_threshold: variance (relative: share of the mean) below which a column is low.
        chunk_size: columns of the covariance that are formed at a time; default: all.

    Shapes: any of ``vision_features``, ``text_features``, ``features``: ``[B, D]``, ``B >= 2``, may differ in both.

    Returns:
        ``LossOutput``: ``loss``, and per set ``p`` that is given (``vision``, ``text``, ``features``) the unweighted
        ``decorrelation_loss_p``; with ``track_statistics`` also ``min_variance_p``, ``max_variance_p``,
        ``mean_variance_p``, ``low_variance_count_p``, ``low_variance_fraction_p``. All but ``loss`` are detached.

    Raises:
        ValueError: no set is given, one is no ``[B, D]`` batch of two rows or more, an argument is out of range.

    Paper: the covariance term of VICReg (Bardes et al. 2022, arXiv 2105.04906). The old class took ``normalize`` and
    ``pairs`` (NaN for one column), and sets of one row lowered the mean of the others.
    """

    shown = ("weight", "covariance_norm")

    def __init__(
        self,
        *,
        weight: float = 1.0,
        covariance_norm: str = "features",
        correlation: bool = False,
        normalize: bool = False,
        track_statistics: bool = False,
        low_variance_threshold: float = 1e-4,
        relative_threshold: bool = True,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        require_numbers(weight=weight)
        require_choice("covariance_norm", covariance_norm, ("features", "pairs", "sum"))
        require_numbers(0.0, low_variance_threshold=low_variance_threshold)
        require_numbers(1, integer=True, optional=True, chunk_size=chunk_size)
        self.weight, self.covariance_norm, self.correlation = weight, covariance_norm, correlation
        self.track_statistics, self.chunk_size = track_statistics, chunk_size
        self.low_variance_threshold, self.relative_threshold = low_variance_threshold, relative_threshold
        self.init_normalization(normalize=normalize)

    def forward(
        self, vision_features: Tensor | None = None, text_features: Tensor | None = None, features: Tensor | None = None
    ) -> LossOutput:
        """The mean penalty of the given sets."""
        named = {"vision": vision_features, "text": text_features, "features": features}
        given = {name: x for name, x in named.items() if x is not None}
        if not given:
            raise ValueError("at least one of vision_features, text_features and features is needed, found none")
        for name, x in given.items():
            require_features(2, **{name if name == "features" else f"{name}_features": x})
        sets = dict(zip(given, self.normalize(*map(upcast, given.values())), strict=True))
        entries = {f"decorrelation_loss_{name}": self._penalty(x) for name, x in sets.items()}
        loss = self.weight * torch.stack([*entries.values()]).mean()
        for name, x in sets.items() if self.track_statistics else ():
            entries |= {f"{key}_{name}": value for key, value in self._statistics(x.detach()).items()}
        return self.output(loss, **entries)

    def _penalty(self, x: Tensor) -> Tensor:
        norms = {"features": x.shape[1], "pairs": x.shape[1] * max(x.shape[1] - 1, 1), "sum": 1}
        x = standardize(x, eps=1e-5) if self.correlation else x
        return covariance_energy(x, chunk_size=self.chunk_size) / norms[self.covariance_norm]

    def _statistics(self, x: Tensor) -> dict[str, Tensor]:
        variance = x.var(dim=0)
        mean = variance.mean()
        low = variance < self.low_variance_threshold * (mean if self.relative_threshold else 1.0)
        statistics = {"min_variance": variance.amin(), "max_variance": variance.amax(), "mean_variance": mean}
        fraction = shown(low.to(x.dtype).mean(), variance)
        return statistics | {"low_variance_count": low.sum(), "low_variance_fraction": fraction}
