"""Ready-made combinations of VGG, L1 and LPIPS for image reconstruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from ..base import LossOutput
from ..base.schedules import LinearRamp
from ..loss_registry import LossRegistry
from ..perceptual import image_reconstruction_losses
from .geometric_mean import GeometricMeanLoss
from .product import ProductLoss
from .weighted_sum import WeightedSumLoss

__all__ = ["ImageGeometricMeanLoss", "ImageProductLoss", "ImageWeightedSumLoss"]


def _trio(
    networks: Mapping[str, nn.Module] | None, layers: Sequence[str] | None, detach_target: bool, safe_norm: bool | None
) -> dict[str, nn.Module]:
    terms = networks
    if terms is None:
        terms = image_reconstruction_losses(layers=layers, detach_target=detach_target, safe_norm=safe_norm)
    if set(terms) != {"perceptual", "l1", "lpips"}:
        raise ValueError(f"networks must name perceptual, l1 and lpips, found {sorted(terms)}")
    return {name: terms[name] for name in ("perceptual", "l1", "lpips")}


class _OnImages(nn.Module):
    """Gives the combinations a ``forward`` with named arguments."""

    def forward(self, rendered: Tensor, target: Tensor) -> LossOutput:
        """The combined loss of two batches of images ``[B, 3, H, W]`` in [0, 1]."""
        result: LossOutput = super().forward(rendered, target)
        return result


@LossRegistry.register("image_weighted_sum")
class ImageWeightedSumLoss(_OnImages, WeightedSumLoss):
    """``w_p VGG + w_1 L1 + w_l LPIPS``: the weighted sum of the image trio, called with ``rendered`` and ``target``.

    A shorthand for ``WeightedSumLoss`` over
    ``image_reconstruction_losses``; formula, results and errors are its.

    Args:
        perceptual_weight, l1_weight, lpips_weight: at least 0, not all 0. A term of weight 0 is not computed, and its
            network is never loaded.
        layers: of the VGG distance; ``None``: its default.
        detach_target: no gradient for the target in the two networks.
        safe_norm: of the LPIPS distance, see ``LPIPSLoss``.
        networks: other losses under the names ``perceptual``, ``l1``, ``lpips``; ``layers``, ``detach_target`` and
            ``safe_norm`` then have no effect.

    Inputs: ``rendered`` and ``target``, ``[B, 3, H, W]`` in [0, 1].

    Returns:
        ``LossOutput``: ``loss``, ``terms.<name>``, ``weighted.<name>``, ``weights.<name>`` for the three names.

    Raises:
        ValueError: a negative weight, only zeros, networks under other names.

    Differs from the old ``CombinedLoss`` of triangulate: no ``device`` (use ``to``); a negative weight is an error and
    does not switch a term off; the networks are loaded when first used and are not in the state.
    """

    def __init__(
        self,
        *,
        perceptual_weight: float = 1.0,
        l1_weight: float = 0.1,
        lpips_weight: float = 0.05,
        layers: Sequence[str] | None = None,
        detach_target: bool = True,
        safe_norm: bool | None = None,
        networks: Mapping[str, nn.Module] | None = None,
    ) -> None:
        weights = {"perceptual": perceptual_weight, "l1": l1_weight, "lpips": lpips_weight}
        super().__init__(terms=_trio(networks, layers, detach_target, safe_norm), weights=weights)


@LossRegistry.register("image_geometric_mean")
class ImageGeometricMeanLoss(_OnImages, GeometricMeanLoss):
    """The geometric mean of VGG, L1 and LPIPS, called with ``rendered`` and ``target``.

    A shorthand for ``GeometricMeanLoss`` over
    ``image_reconstruction_losses``; formula, results and errors are its.

    Args:
        layers: of the VGG distance; ``None``: its default.
        objective, eps, floor, floor_weight, floor_mode: as there.
        final_floor_weight, ramp_length: with both, ``floor_weight`` goes to the final value in a straight line over so
            many positions of ``step_schedule``.
        detach_target: no gradient for the target in the two networks.
        safe_norm: of the LPIPS distance, see ``LPIPSLoss``.
        networks: other losses under the names ``perceptual``, ``l1``, ``lpips``; ``layers``, ``detach_target`` and
            ``safe_norm`` then have no effect.

    Inputs: ``rendered`` and ``target``, ``[B, 3, H, W]`` in [0, 1].

    Returns:
        ``LossOutput``: ``loss``, ``terms.<name>``, ``log.<name>``, ``geometric_mean``, ``floor_penalty``, ``eps``.

    Raises:
        ValueError: only one of ``final_floor_weight`` and ``ramp_length``, numbers out of range, networks under other
            names.

    Differs from the old ``GeometricMeanLoss`` and ``AdaptiveGeometricMeanLoss`` of triangulate as its base does; the
    position of the ramp is saved, and positions before 0 count as 0 (the old ramp extrapolated).
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        objective: str = "geometric_mean",
        eps: float | str = 1e-8,
        floor: float = 1e-4,
        floor_weight: float = 0.0,
        floor_mode: str = "log",
        final_floor_weight: float | None = None,
        ramp_length: float | None = None,
        detach_target: bool = True,
        safe_norm: bool | None = None,
        networks: Mapping[str, nn.Module] | None = None,
    ) -> None:
        schedules = None
        if final_floor_weight is not None and ramp_length is not None:
            schedules = {"floor_weight": LinearRamp(start=floor_weight, end=final_floor_weight, length=ramp_length)}
        elif final_floor_weight is not None or ramp_length is not None:
            raise ValueError(
                f"final_floor_weight and ramp_length belong together, found {final_floor_weight} and {ramp_length}"
            )
        super().__init__(
            terms=_trio(networks, layers, detach_target, safe_norm),
            objective=objective,
            eps=eps,
            floor=floor,
            floor_weight=floor_weight,
            floor_mode=floor_mode,
            schedules=schedules,
        )


@LossRegistry.register("image_product")
class ImageProductLoss(_OnImages, ProductLoss):
    """The product of VGG, L1 and LPIPS, alone or beside their weighted sum, called with ``rendered`` and ``target``.

    A shorthand for ``ProductLoss`` over
    ``image_reconstruction_losses``; formula, results and errors are its.

    Args:
        layers: of the VGG distance; ``None``: its default.
        eps, normalize, warmup, include_current, max_ratio, max_total, product_weight: as there.
        perceptual_weight, l1_weight, lpips_weight: of the weighted sum, used where ``product_weight < 1``.
        detach_target: no gradient for the target in the two networks.
        safe_norm: of the LPIPS distance, see ``LPIPSLoss``.
        networks: other losses under the names ``perceptual``, ``l1``, ``lpips``; ``layers``, ``detach_target`` and
            ``safe_norm`` then have no effect.

    Inputs: ``rendered`` and ``target``, ``[B, 3, H, W]`` in [0, 1].

    Returns:
        ``LossOutput``: ``loss``, ``terms.<name>``, ``normalized.<name>``, ``product``, ``additive``.

    Raises:
        ValueError: numbers out of range, networks under other names.

    Differs from the old ``MultiplicativeLoss`` and ``HybridLoss`` of triangulate as its base does.
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] | None = None,
        eps: float = 1e-4,
        normalize: bool = True,
        warmup: int = 0,
        include_current: bool = False,
        max_ratio: float | None = None,
        max_total: float | None = None,
        product_weight: float = 1.0,
        perceptual_weight: float = 1.0,
        l1_weight: float = 1.0,
        lpips_weight: float = 1.0,
        detach_target: bool = True,
        safe_norm: bool | None = None,
        networks: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__(
            terms=_trio(networks, layers, detach_target, safe_norm),
            eps=eps,
            normalize=normalize,
            warmup=warmup,
            include_current=include_current,
            max_ratio=max_ratio,
            max_total=max_total,
            product_weight=product_weight,
            additive_weights={"perceptual": perceptual_weight, "l1": l1_weight, "lpips": lpips_weight},
        )
