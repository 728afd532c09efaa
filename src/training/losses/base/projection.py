"""Projection heads."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["ProjectionHead"]


class ProjectionHead(nn.Module):
    """Multi-layer perceptron from encoder features to the space of the loss.

    Two layers: Linear, ReLU, Linear (SimCLR, Chen et al. 2020). Three layers: Linear, BatchNorm, ReLU, Linear,
    BatchNorm, ReLU, Linear (Barlow Twins, VICReg), with hidden layers of ``hidden_dim``.

    Args:
        input_dim: width of the features.
        output_dim: width of the result.
        hidden_dim: width of the hidden layers; default: ``input_dim``.
        layers: 2 or 3.
        final_batch_norm: end with a BatchNorm that has no parameters.
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
        for name, size in (("input_dim", input_dim), ("output_dim", output_dim), ("hidden_dim", hidden)):
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"{name} must be an integer of at least 1, found {size!r}")
        if layers == 2:
            parts: list[nn.Module] = [nn.Linear(input_dim, hidden), nn.ReLU()]
        elif layers == 3:
            parts = []
            for width in (input_dim, hidden):
                parts += [nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
        else:
            raise ValueError(f"layers must be 2 or 3, found {layers!r}")
        self.input_dim = input_dim
        parts.append(nn.Linear(hidden, output_dim))
        if final_batch_norm:
            parts.append(nn.BatchNorm1d(output_dim, affine=False))
        self.layers = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., input_dim]`` -> ``[..., output_dim]``."""
        if x.shape[-1] != self.input_dim:
            raise ValueError(f"the projection head takes features of width {self.input_dim}, found {list(x.shape)}")
        projected: Tensor = self.layers(x)
        return projected
