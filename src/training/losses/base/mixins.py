"""What contrastive losses share. Each mixin has one job, declared inputs and keyword parameters.

They are initialised explicitly (``self.init_temperature(...)``) by the class that mixes them in, after
``nn.Module.__init__``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..functional import l2_normalize
from .base_loss import require_number
from .projection import ProjectionHead

__all__ = ["HardNegativeMiningMixin", "NormalizationMixin", "ProjectionMixin", "TemperatureScalingMixin"]


class TemperatureScalingMixin:
    """Divides similarities by a temperature, fixed or learnable.

    Learnable, the parameter is ``logit_scale = log(1 / temperature)`` (as in CLIP, Radford et al. 2021), and the scale
    ``exp(logit_scale)`` is clamped to ``max_scale``.
    """

    logit_scale: nn.Parameter
    max_scale: float

    def init_temperature(self, *, temperature: float, learnable: bool = False, max_scale: float = 100.0) -> None:
        """Set the temperature (greater than 0) and whether it is learned."""
        require_number("temperature", temperature, low=0.0, exclusive=True)
        require_number("max_scale", max_scale, low=0.0, exclusive=True)
        self._temperature = float(temperature)
        self.learnable_temperature = learnable
        self.max_scale = max_scale
        if learnable:
            require_number("1 / temperature", 1.0 / temperature, high=max_scale)
            self.logit_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    @property
    def scale(self) -> float | Tensor:
        """``1 / temperature``, with its graph when learnable."""
        if self.learnable_temperature:
            return self.logit_scale.exp().clamp(max=self.max_scale)
        return 1.0 / self._temperature

    @property
    def temperature(self) -> float | Tensor:
        """The temperature: a float, or a 0-d tensor with graph when learnable. Assigning a float changes it."""
        if self.learnable_temperature:
            return 1.0 / self.logit_scale.exp().clamp(max=self.max_scale)
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        require_number("temperature", value, low=0.0, exclusive=True)
        self._temperature = float(value)
        if self.learnable_temperature:
            with torch.no_grad():
                self.logit_scale.fill_(-math.log(value))

    def scale_by_temperature(self, similarity: Tensor) -> Tensor:
        """``similarity / temperature``."""
        if self.learnable_temperature:
            return similarity * self.scale
        return similarity / self._temperature


class NormalizationMixin:
    """Scales embeddings to unit length, or leaves them as they are."""

    def init_normalization(self, *, normalize: bool = True, dim: int = -1, eps: float = 1e-12) -> None:
        """Switch, dimension, and the smallest length that is divided by."""
        require_number("eps", eps, low=0.0, exclusive=True)
        self.normalize_embeddings = normalize
        self.normalize_dim = dim
        self.normalize_eps = eps

    def normalize(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Each of ``features`` with unit length along the configured dimension (float32 for half precision)."""
        if not self.normalize_embeddings:
            return features
        return tuple(l2_normalize(x, dim=self.normalize_dim, eps=self.normalize_eps) for x in features)


class ProjectionMixin:
    """Owns one projection head per named input."""

    def init_projection(
        self,
        *names: str,
        input_dim: int | None = None,
        projection_dim: int | None = None,
        hidden_dim: int | None = None,
        layers: int = 2,
        final_batch_norm: bool = False,
    ) -> None:
        """Create a head ``<name>_head`` per name if ``projection_dim`` is given; then ``input_dim`` is needed.

        Raises:
            ValueError: only one of ``input_dim`` and ``projection_dim`` is given, or a size is out of range.
        """
        if (input_dim is None) != (projection_dim is None):
            raise ValueError(
                "input_dim and projection_dim belong together, "
                f"found input_dim={input_dim!r}, projection_dim={projection_dim!r}"
            )
        self.projection_names: tuple[str, ...] = names if projection_dim is not None else ()
        if input_dim is None or projection_dim is None:
            return
        for name in names:
            head = ProjectionHead(
                input_dim, projection_dim, hidden_dim=hidden_dim, layers=layers, final_batch_norm=final_batch_norm
            )
            setattr(self, f"{name}_head", head)

    def project(self, **features: Tensor) -> tuple[Tensor, ...]:
        """Each of ``features`` through the head of its name (unchanged where there is none), in the given order."""
        return tuple(
            getattr(self, f"{name}_head")(x) if name in self.projection_names else x for name, x in features.items()
        )


class HardNegativeMiningMixin:
    """Weights negatives by how similar they are to the anchor."""

    def init_mining(self, *, percentile: float | None = None, weight: float = 1.0) -> None:
        """Negatives at or above the ``percentile`` (0 to 100) of their row are hard and get ``weight``."""
        if percentile is not None:
            require_number("percentile", percentile, low=0.0, high=100.0)
        require_number("weight", weight, low=0.0)
        self.hard_percentile = percentile
        self.hard_weight = weight

    def mine_hard_negatives(self, similarity: Tensor, positive: Tensor) -> Tensor:
        """Weight of every pair as a negative: 0 for positives, ``weight`` for hard negatives, 1 for the others.

        Args:
            similarity: ``[R, C]``.
            positive: boolean ``[R, C]``.
        """
        negative = ~positive
        weights = negative.to(similarity.dtype)
        if self.hard_percentile is None:
            return weights
        values = similarity.detach().masked_fill(positive, float("nan"))
        threshold = torch.nanquantile(values, self.hard_percentile / 100.0, dim=1, keepdim=True)
        # a row without negatives has a NaN threshold, which no comparison meets
        return torch.where(negative & (values >= threshold), weights * self.hard_weight, weights)
