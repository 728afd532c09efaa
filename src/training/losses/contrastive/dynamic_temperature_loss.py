"""InfoNCE whose temperature follows how well the batch is separated."""

from __future__ import annotations

from torch import Tensor

from ..base import BaseContrastiveLoss, Ids, LossOutput, require_numbers
from ..functional import fill_diagonal, pair_info_nce
from ..loss_registry import LossRegistry


@LossRegistry.register("dynamic_temperature")
class DynamicTemperatureLoss(BaseContrastiveLoss):
    """Symmetric InfoNCE over pairs with a temperature made from each batch.

    For runs in which one temperature is too sharp at first. No paper; prefer ``CLIPLoss(learnable_temperature=True)``.

    With cosines ``c_ij`` of image ``i`` and text ``j`` and positives ``P_i`` (equal ids)::

        gap  = mean cosine of positive pairs - mean cosine of negative pairs     (a mean of nothing is 0)
        t    = clamp(base_temperature (offset + amplitude exp(-sharpness gap)), min_temperature, max_temperature)
        l_ip = log sum_j exp(c_ij / t) - c_ip / t
        loss = mean of l_ip over all pairs i, p in P_i; then the mean of both directions

    Args:
        base_temperature: greater than 0.
        min_temperature, max_temperature: bounds; the lower one acts only above ``offset base_temperature``.
        offset, amplitude, sharpness: fixed part, part that depends on the batch, its fall with the gap; at least 0.
        include_paired: the pairs ``(i, i)`` count in the gap; without them and with unique ids only negatives do.
        detach_temperature: no gradient through the temperature, so that the model cannot lower the loss by moving it.
        reduction: ``mean`` (over the positive pairs), ``sum`` or ``none`` (``[B]``, summed over the positives).

    Returns:
        ``LossOutput`` with ``loss``, ``loss_v2t``, ``loss_t2v``, ``temperature``, ``positive_similarity`` and
        ``negative_similarity`` (the two means).

    Raises:
        ValueError: an argument out of range, or inputs that ``match_pairs`` rejects.

    The old ``DynamicTemperatureContrastiveLoss`` is ``include_paired=False`` and ``detach_temperature=False``.
    """

    def __init__(
        self,
        *,
        base_temperature: float = 0.07,
        min_temperature: float = 0.04,
        max_temperature: float = 0.2,
        offset: float = 0.8,
        amplitude: float = 0.4,
        sharpness: float = 2.0,
        include_paired: bool = True,
        detach_temperature: bool = True,
        reduction: str = "mean",
    ) -> None:
        require_numbers(0.0, exclusive=True, base_temperature=base_temperature, min_temperature=min_temperature)
        require_numbers(min_temperature, max_temperature=max_temperature)
        require_numbers(0.0, offset=offset, amplitude=amplitude, sharpness=sharpness)
        super().__init__(temperature=base_temperature, reduction=reduction)
        self.min_temperature, self.max_temperature = min_temperature, max_temperature
        self.offset, self.amplitude, self.sharpness = offset, amplitude, sharpness
        self.include_paired, self.detach_temperature = include_paired, detach_temperature

    def forward(self, vision_features: Tensor, text_features: Tensor, match_ids: Ids | None = None) -> LossOutput:
        """The loss of one batch; inputs as in ``match_pairs``."""
        similarity, positive = self.match_pairs(vision_features, text_features, match_ids)
        near = _masked_mean(similarity, positive if self.include_paired else fill_diagonal(positive.clone(), False))
        far = _masked_mean(similarity, ~positive)
        factor = self.offset + self.amplitude * (self.sharpness * (far - near)).exp()
        temperature = (self.temperature * factor).clamp(self.min_temperature, self.max_temperature)
        logits = similarity / (temperature.detach() if self.detach_temperature else temperature)
        rows, columns = pair_info_nce(logits, positive), pair_info_nce(logits.mT, positive.mT)
        entries = {"temperature": temperature, "positive_similarity": near, "negative_similarity": far}
        return self.two_way_output(rows, columns, positive.sum(), **entries)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)
