"""What contrastive losses share: mixins of one job each, which a class initialises after ``nn.Module.__init__``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ..functional import bounded_exp, l2_normalize
from .base_loss import require_number, require_numbers
from .projection import ProjectionHead


class TemperatureScalingMixin:
    """Divides similarities by a temperature, fixed or learnable.

    Learnable, the parameter is ``logit_scale = log(1 / temperature)`` (as in CLIP, Radford et al. 2021), and the scale
    ``exp(logit_scale)`` is bounded by ``max_scale``, which it reaches exactly. At the bound and above, the gradient
    passes where descent leads back inside, and is 0 where it leads further out.
    """

    _scale_of_call: Tensor | None = None
    _temperature: float | Tensor | None
    _parameters: dict[str, nn.Parameter | None]

    def begin(self) -> bool:
        """From here to ``settle`` all uses of a learned scale share one node: its bound sees their whole gradient."""
        outermost = self.learnable_temperature and self._scale_of_call is None
        if outermost:
            self._scale_of_call = bounded_exp(self.logit_scale, self.max_scale)
        return outermost

    def settle(self, outermost: bool, keep: Any) -> None:
        """The call is over."""
        self._scale_of_call = None if outermost else self._scale_of_call

    def init_temperature(self, *, temperature: float, learnable: bool = False, max_scale: float = 100.0) -> None:
        """Set the temperature (greater than 0) and whether it is learned."""
        require_numbers(0.0, exclusive=True, max_scale=max_scale)
        self.learnable_temperature, self.max_scale, self._temperature = False, max_scale, 1.0
        if learnable:
            require_numbers(0.0, exclusive=True, temperature=temperature)
            require_number("1 / temperature", 1.0 / temperature, high=max_scale)
            self.logit_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.temperature = temperature
        self.learnable_temperature = learnable

    @property
    def _fixed_temperature(self) -> float | Tensor:
        return cast(Tensor, self._parameters["temperature"]) if self._temperature is None else self._temperature

    @property
    def scale(self) -> float | Tensor:
        """``1 / temperature``, with its graph when learnable."""
        if not self.learnable_temperature:
            return 1 / self._fixed_temperature
        return bounded_exp(self.logit_scale, self.max_scale) if self._scale_of_call is None else self._scale_of_call

    @property
    def temperature(self) -> float | Tensor:
        """The temperature: what was set, or a 0-d tensor with graph when learnable.

        Assigning a number changes it. Where it is not learned, a 0-d tensor is taken with its graph (its value is not
        looked at), and a parameter becomes one of this module.
        """
        return 1.0 / self.scale if self.learnable_temperature else self._fixed_temperature

    @temperature.setter
    def temperature(self, value: float | Tensor) -> None:
        if isinstance(value, Tensor) and not self.learnable_temperature:
            if value.dim() or not value.is_floating_point():
                raise ValueError(
                    f"temperature must be a number or a 0-d tensor, found {value.dtype} {list(value.shape)}"
                )
            self._parameters.pop("temperature", None)
            self._temperature = None if isinstance(value, nn.Parameter) else value
            if isinstance(value, nn.Parameter):
                self._parameters["temperature"] = value
            return
        require_numbers(0.0, exclusive=True, temperature=value)
        if self.learnable_temperature:
            require_number("1 / temperature", 1.0 / value, high=self.max_scale)
            with torch.no_grad():
                self.logit_scale.fill_(-math.log(value))
        self._parameters.pop("temperature", None)
        self._temperature = float(value)

    def scale_by_temperature(self, similarity: Tensor) -> Tensor:
        """``similarity / temperature``."""
        return similarity * self.scale if self.learnable_temperature else similarity / self._fixed_temperature


class NormalizationMixin:
    """Scales embeddings to unit length, or leaves them as they are."""

    def init_normalization(self, *, normalize: bool = True, dim: int = -1, eps: float = 1e-12) -> None:
        """Switch, dimension, and the smallest length that is divided by."""
        require_numbers(0.0, exclusive=True, eps=eps)
        self.normalize_embeddings, self.normalize_dim, self.normalize_eps = normalize, dim, eps

    def normalize(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Each of ``features`` with unit length along the configured dimension (float32 for half precision)."""
        if not self.normalize_embeddings:
            return features
        return tuple(l2_normalize(x, dim=self.normalize_dim, eps=self.normalize_eps) for x in features)


class ProjectionMixin:
    """Owns one projection head per named input."""

    head_inputs: ClassVar[Mapping[str, str]] = {"vision": "vision_features", "text": "text_features"}
    """The argument of the loss that each head takes, for messages."""

    def init_projection(
        self,
        *names: str,
        input_dim: int | None = None,
        projection_dim: int | None = None,
        hidden_dim: int | None = None,
        layers: int = 2,
        final_batch_norm: bool = False,
    ) -> None:
        """A ``ProjectionHead`` called ``<name>_head`` per name, if ``input_dim`` and ``projection_dim`` are given.

        Raises:
            ValueError: only one of the two is given, or a size is out of range.
        """
        if (input_dim is None) != (projection_dim is None):
            found = f"input_dim={input_dim!r}, projection_dim={projection_dim!r}"
            raise ValueError(f"input_dim and projection_dim belong together, found {found}")
        self.projection_names: tuple[str, ...] = ()
        if input_dim is not None and projection_dim is not None:
            self.projection_names = names
            for name in names:
                head = ProjectionHead(
                    input_dim, projection_dim, hidden_dim=hidden_dim, layers=layers, final_batch_norm=final_batch_norm
                )
                setattr(self, f"{name}_head", head)

    def project(self, **features: Tensor) -> tuple[Tensor, ...]:
        """Each of ``features`` through the head of its name (unchanged where there is none), in the given order."""
        heads = self.projection_names
        for name in heads:
            weight = getattr(self, f"{name}_head").layers[0].weight
            x = features.get(name)
            if x is None or x.dtype == weight.dtype or torch.is_autocast_enabled(x.device.type):
                continue
            argument = self.head_inputs.get(name, name)
            raise ValueError(
                f"{argument} must be {weight.dtype} as {name}_head is, found {x.dtype}: convert one of them, or call "
                "the loss under torch.autocast"
            )
        return tuple(getattr(self, f"{name}_head")(x) if name in heads else x for name, x in features.items())


class HardNegativeMiningMixin:
    """Weights negatives by how similar they are to the anchor."""

    def init_mining(self, *, percentile: float | None = None, weight: float = 1.0) -> None:
        """Negatives at or above the ``percentile`` (0 to 100) of their row are hard and get ``weight``."""
        require_numbers(0.0, 100.0, optional=True, percentile=percentile)
        require_numbers(0.0, weight=weight)
        self.hard_percentile, self.hard_weight = percentile, weight

    def mine_hard_negatives(self, similarity: Tensor, positive: Tensor) -> Tensor:
        """Weight of every pair as a negative: 0 for positives, ``weight`` for hard negatives, 1 for the others.

        ``similarity`` and the boolean ``positive`` are ``[R, C]``.
        """
        weights = (~positive).to(similarity.dtype)
        if self.hard_percentile is None:
            return weights
        values = similarity.detach().masked_fill(positive, float("nan"))
        threshold = torch.nanquantile(values, self.hard_percentile / 100.0, dim=1, keepdim=True)
        # no comparison meets NaN: neither that of a positive, nor the threshold of a row without negatives
        return torch.where(values >= threshold, weights * self.hard_weight, weights)
