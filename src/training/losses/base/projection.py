"""Projection heads."""

from __future__ import annotations

from torch import Tensor, nn

from ..functional import not_finite
from .base_loss import require_choice, require_numbers


class BatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation that gives NaN, not 0, where the variance of a batch overflows."""

    def forward(self, x: Tensor) -> Tensor:
        """``x`` ``[B, D]`` normalised over the batch."""
        normalized = super().forward(x)
        return normalized + not_finite(x.detach().square().sum()).to(normalized.dtype) if self.training else normalized


class ProjectionHead(nn.Module):
    """Multi-layer perceptron from encoder features to the space of the loss.

    ``layers=2``: Linear, ReLU, Linear (SimCLR, Chen et al. 2020). ``layers=3``: Linear, BatchNorm, ReLU, Linear,
    BatchNorm, ReLU, Linear (Barlow Twins, VICReg). Hidden layers have ``hidden_dim`` units (default: ``input_dim``);
    ``final_batch_norm`` ends with a BatchNorm without parameters.
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        *,
        hidden_dim: int | None = None,
        layers: int = 2,
        final_batch_norm: bool = False,
    ) -> None:
        super().__init__()
        hidden = input_dim if hidden_dim is None else hidden_dim
        require_numbers(1, integer=True, input_dim=input_dim, output_dim=output_dim, hidden_dim=hidden)
        require_choice("layers", layers, (2, 3))
        self.input_dim = input_dim
        parts: list[nn.Module] = [nn.Linear(input_dim, hidden), nn.ReLU()]
        if layers == 3:
            parts.insert(1, BatchNorm1d(hidden))
            parts += [nn.Linear(hidden, hidden), BatchNorm1d(hidden), nn.ReLU()]
        parts.append(nn.Linear(hidden, output_dim))
        if final_batch_norm:
            parts.append(BatchNorm1d(output_dim, affine=False))
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., input_dim]`` -> ``[..., output_dim]``."""
        if x.shape[-1] != self.input_dim:
            raise ValueError(f"the projection head takes features of width {self.input_dim}, found {list(x.shape)}")
        projected: Tensor = self.layers(x)
        # a ReLU hides -inf
        return projected + not_finite(x).sum(dim=-1, keepdim=True).to(projected.dtype)
