"""Features of a fine-tuned model stay close to those of a frozen reference."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..base import BaseLoss, LossOutput, NormalizationMixin, require_choice, require_features, require_numbers
from ..functional import l2_normalize, upcast
from ..loss_registry import LossRegistry


def _drop_reference(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}reference_")]:
        del state[key]


@LossRegistry.register("feature_consistency")
class FeatureConsistencyLoss(BaseLoss, NormalizationMixin):
    """Feature distillation against forgetting: ``loss = sum_m w_m mean_i d(f_mi, r_mi)`` over vision and text.

    For fine-tuning, with the model before it as reference: a model, or its features (computed once, cached). Distances
    of rows ``f``, ``r``: ``cosine`` ``1 - cos(f, r)``; ``neg_dot`` ``1 - f . r``; ``l2`` and ``l1`` norms of ``f - r``;
    ``smooth_l1``, the sum over the columns of ``e^2 / 2`` for ``|e| < 1`` and ``|e| - 1/2`` beyond. All but the cosine
    grow with the width of the features.

    Args:
        reference_vision_model, reference_text_model: modules that map inputs to features.
        vision_weight, text_weight: ``w_m``.
        distance: see above.
        normalize: scale both sides to unit length first (``cosine`` always does).
        freeze_reference: no gradients in the reference, which stays in eval mode whatever ``train`` says.
        copy_reference: own a copy of the reference, so that the caller's module is left alone.
        save_reference: keep the reference in the state_dict.
        unpack_inputs: pass mappings to the reference as keyword arguments (as tokenizers expect), not as one argument.
        reduction: ``mean``, ``sum`` or ``none`` over the rows.

    Shapes: features ``[B, D]``; each need inputs for their reference model, or ``reference_*_features`` of one shape.

    Returns:
        ``LossOutput``: ``loss``, and detached, unweighted ``vision_consistency_loss`` and ``text_consistency_loss`` (0
        for a modality that is not given).

    Raises:
        ValueError: nothing to compare, features without a reference or a reference without features, unequal shapes.

    Differs from the old class: what cannot be compared raises; the reference stays in eval mode, is a copy, and is not
    saved by default; reference features can be passed in.
    """

    def __init__(
        self,
        *,
        reference_vision_model: nn.Module | None = None,
        reference_text_model: nn.Module | None = None,
        vision_weight: float = 1.0,
        text_weight: float = 1.0,
        distance: str = "cosine",
        normalize: bool = True,
        freeze_reference: bool = True,
        copy_reference: bool = True,
        save_reference: bool = False,
        unpack_inputs: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        require_choice("distance", distance, ("cosine", "neg_dot", "l2", "l1", "smooth_l1"))
        require_numbers(vision_weight=vision_weight, text_weight=text_weight)
        self.vision_weight, self.text_weight, self.distance = vision_weight, text_weight, distance
        self.freeze_reference, self.save_reference, self.unpack_inputs = freeze_reference, save_reference, unpack_inputs
        self.init_normalization(normalize=normalize)
        for name, model in (("vision", reference_vision_model), ("text", reference_text_model)):
            model = copy.deepcopy(model) if copy_reference else model
            if model is not None and freeze_reference:
                model.requires_grad_(False).eval()
            setattr(self, f"reference_{name}_model", model)
        if not save_reference:
            untyped: Any = self
            untyped._register_state_dict_hook(_drop_reference)

    def train(self, mode: bool = True) -> FeatureConsistencyLoss:
        """Switch the mode of the loss; a frozen reference stays in eval mode."""
        super().train(mode)
        if self.freeze_reference:
            for model in self.children():
                model.eval()
        return self

    def forward(
        self,
        vision_features: Tensor | None = None,
        text_features: Tensor | None = None,
        vision_inputs: Tensor | Mapping[str, Any] | None = None,
        text_inputs: Tensor | Mapping[str, Any] | None = None,
        reference_vision_features: Tensor | None = None,
        reference_text_features: Tensor | None = None,
    ) -> LossOutput:
        """The weighted distances of the modalities that are given."""
        distances: dict[str, Tensor] = {}
        for name, features, inputs, known in (
            ("vision", vision_features, vision_inputs, reference_vision_features),
            ("text", text_features, text_inputs, reference_text_features),
        ):
            reference = self._reference(name, inputs) if known is None else known
            if features is None and inputs is None and reference is None:
                continue
            if features is None or reference is None:
                raise ValueError(
                    f"{name}_features need reference_{name}_features, or {name}_inputs and a reference_{name}_model; "
                    f"both are needed, found no {'features' if features is None else 'reference'}"
                )
            require_features(**{f"{name}_features": features, f"reference_{name}_features": reference})
            distances[name] = self.apply_reduction(self._distance(features, reference))
        if not distances:
            raise ValueError("vision_features or text_features with their reference are needed, found none")
        weights = {"vision": self.vision_weight, "text": self.text_weight}
        zero = torch.zeros_like(next(iter(distances.values())).detach())
        loss = sum((weights[name] * value for name, value in distances.items()), start=zero)
        return self.output(loss, **{f"{name}_consistency_loss": distances.get(name, zero) for name in weights})

    def _reference(self, name: str, inputs: Any) -> Tensor | None:
        model = getattr(self, f"reference_{name}_model")
        if model is None or inputs is None:
            return None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_reference):
            unpack = self.unpack_inputs and isinstance(inputs, Mapping)
            features: Tensor = model(**inputs) if unpack else model(inputs)
        return features

    def _distance(self, features: Tensor, reference: Tensor) -> Tensor:
        f, r = upcast(features), upcast(reference)
        if self.normalize_embeddings or self.distance == "cosine":
            f, r = l2_normalize(f), l2_normalize(r)
        if self.distance in ("cosine", "neg_dot"):
            return 1 - (f * r).sum(dim=1)
        if self.distance == "smooth_l1":
            return nn.functional.smooth_l1_loss(f, r, reduction="none").sum(dim=1)
        norm: Tensor = torch.linalg.vector_norm(f - r, ord=2 if self.distance == "l2" else 1, dim=1)
        return norm

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if not self.save_reference:
            for key, value in {**dict(self.named_parameters()), **dict(self.named_buffers())}.items():
                state_dict.setdefault(prefix + key, value)
