"""Squared error with a weight per sample."""

from __future__ import annotations

from torch import Tensor

from ..base import BaseLoss, require_floating, require_numbers, require_tensors
from ..functional import not_finite, upcast
from ..loss_registry import LossRegistry


@LossRegistry.register("mse")
class WeightedMSELoss(BaseLoss):
    """Regression with squared errors ``e = w_i (prediction - target)^2``.

    ``mean`` divides by the number of elements, not by the sum of the weights. Gradients reach both sides.

    Args:
        max_value: upper bound of the result (of each element for ``none``). Above it the gradient is exactly 0, so the
            batch is left out; to bound gradients, clip gradients. Inputs that are not finite give NaN all the same.
        reduction: ``mean``, ``sum`` or ``none``.

    Shapes: ``prediction`` and ``target`` of one shape ``[N, ...]``; ``sample_weight`` ``[N]``.

    Returns:
        A tensor. An empty batch gives a zero that keeps the graph.

    Raises:
        ValueError: unequal shapes, weights that are not ``[N]``, an argument out of range.

    Differs from the old ``MeanSquaredError``: the bound has a name that says what it does (``clip_grad`` before),
    shapes must be equal, and a weight belongs to a sample whatever the number of dimensions.
    """

    def __init__(self, *, max_value: float | None = None, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        require_numbers(optional=True, max_value=max_value)
        self.max_value = max_value

    def forward(self, prediction: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The loss of one batch."""
        require_floating(prediction=prediction)
        require_tensors(target=target)
        if prediction.shape != target.shape:
            found = f"{list(prediction.shape)} and {list(target.shape)}"
            raise ValueError(f"prediction and target must have one shape, found {found}")
        gap = upcast(prediction) - upcast(target)
        error = gap.square()
        if sample_weight is not None:
            require_tensors(sample_weight=sample_weight)
            if sample_weight.shape != prediction.shape[:1]:
                raise ValueError(
                    f"sample_weight must be {list(prediction.shape[:1])}, found {list(sample_weight.shape)}"
                )
            error, gap = (x * sample_weight.view(-1, *[1] * (error.dim() - 1)) for x in (error, gap))
        loss = self.apply_reduction(error)
        if self.max_value is None:
            return loss
        # the bound holds for what is large, not for what is infinite
        return loss.clamp(max=self.max_value) + self.apply_reduction(not_finite(gap))
