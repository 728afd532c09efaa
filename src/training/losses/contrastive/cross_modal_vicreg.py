"""VICReg between two encoders."""

from __future__ import annotations

from torch import Tensor, nn

from ..base import BaseLoss, LossOutput, require_floating
from ..base.mixins import ProjectionMixin
from ..loss_registry import LossRegistry
from .vicreg import VICRegLoss


@LossRegistry.register("cross_modal_vicreg")
class CrossModalVICRegLoss(BaseLoss, ProjectionMixin):
    """VICReg of two modalities whose encoders differ in width: each goes through a head of its own.

    Use it to align two encoders without negatives, for instance images and texts, or a large and a small encoder. With
    heads ``h`` to a common width: ``loss = VICReg(h_v(vision), h_t(text))``. Every sample needs both modalities.

    Args:
        vision_dim: width of the vision features.
        text_dim: width of the text features.
        projection_dim: common width behind the heads; the paper's expanders are wider than the features.
        hidden_dim: width inside the heads; default: ``projection_dim``.
        projection_layers: 2, or 3 with batch norm.
        vicreg: the loss of the projections; default: ``VICRegLoss()``.

    Shapes: ``vision_features`` ``[B, vision_dim]``, ``text_features`` ``[B, text_dim]``.

    Returns:
        What ``vicreg`` returns (views ``_a``: vision, ``_b``: text). The heads are parameters: give them to the
        optimiser.

    Raises:
        ValueError: sizes below 1, features of other widths or batch sizes.

    Paper: Bardes, Ponce, LeCun, arXiv 2105.04906, section 6.3 (different architectures and modalities).

    There is no old class.
    """

    def __init__(
        self,
        *,
        vision_dim: int,
        text_dim: int,
        projection_dim: int,
        hidden_dim: int | None = None,
        projection_layers: int = 3,
        vicreg: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.widths = {"vision": vision_dim, "text": text_dim}
        hidden = projection_dim if hidden_dim is None else hidden_dim
        for name, width in self.widths.items():
            self.init_projection(
                name, input_dim=width, projection_dim=projection_dim, hidden_dim=hidden, layers=projection_layers
            )
        self.projection_names = tuple(self.widths)
        self.vicreg = VICRegLoss() if vicreg is None else vicreg

    def forward(self, vision_features: Tensor, text_features: Tensor) -> LossOutput:
        """The loss of one batch."""
        given = {"vision": vision_features, "text": text_features}
        for name, x in given.items():
            require_floating(**{f"{name}_features": x})
            if x.dim() != 2 or x.shape[1] != self.widths[name]:
                raise ValueError(f"{name}_features must be [B, {self.widths[name]}], found {list(x.shape)}")
        if vision_features.shape[0] != text_features.shape[0] or vision_features.shape[0] < 2:
            raise ValueError(
                "vision_features and text_features must have the same number of rows, at least 2, "
                f"found {vision_features.shape[0]} and {text_features.shape[0]}"
            )
        result: LossOutput = self.vicreg(*self.project(**given))
        return result
