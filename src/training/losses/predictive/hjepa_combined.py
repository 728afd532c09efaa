"""A prediction loss with a regulariser that keeps the embeddings from collapsing."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..base import BaseLoss, LossOutput, require_choice
from ..base.schedules import Schedule, ScheduledModule
from ..contrastive.vicreg import VICRegLoss
from ..loss_registry import LossRegistry
from .hjepa import HJEPALoss, Levels, Masks, as_levels, level_weights

__all__ = ["HJEPACombinedLoss"]

PLACES = ("auto", "context", "levels")


def _require_defaults(owner: type[nn.Module], given: Mapping[str, Any], argument: str, prefix: str = "") -> None:
    """Options of a built-in part may not be given beside the part itself."""
    parameters = inspect.signature(owner).parameters
    changed = [prefix + name for name, value in given.items() if value != parameters[name].default]
    if changed:
        raise ValueError(f"{', '.join(changed)} belong to the built-in {argument}; set them on the given one")


@LossRegistry.register("hjepa_combined")
class HJEPACombinedLoss(BaseLoss, ScheduledModule):
    """Hierarchical prediction plus a regulariser: embeddings are predictable and do not collapse.

    Use it to train a joint-embedding predictor. With prediction loss ``J`` and regulariser ``R`` (VICReg by default)::

        loss = J(predictions, targets) + sum_k v_k R(x_k)

    over the places ``k`` that ``regularize`` names: the context encoder's features, every level's predictions, or one
    level. By default ``R`` sees all of ``x`` as one set (variance and covariance: there is nothing to be invariant to).

    Note the scales: with rows of unit length ``J`` is of the order ``1 / D``, while ``R`` sees the raw embeddings.

    Args:
        loss_type: these nine are the options of the built-in ``HJEPALoss``, see there.
        hierarchy_weights: see ``HJEPALoss``.
        num_hierarchies: see ``HJEPALoss``.
        normalize_embeddings: see ``HJEPALoss``.
        huber_delta: see ``HJEPALoss``.
        reduction: ``mean`` or ``sum``, of the prediction loss.
        eps: see ``HJEPALoss``.
        mask_average: see ``HJEPALoss``.
        detach_targets: no gradient into the targets, neither from ``J`` nor from ``R``.
        jepa_loss: a module called as ``(predictions, targets, masks)`` in place of the built-in one.
        regularizer: in place of the built-in VICReg a module (``SIGRegLoss``, ``BarlowTwinsLoss``, ``SimCLRLoss``,
            ...), or one per level. It is called with two views, or its ``regularize`` with one set.
        regularizer_weight: ``v``, one number or one per level; the features of ``context`` take the first. A buffer.
        regularize: ``context``: the given ``context_features``; ``levels``: the predictions of every level; an integer:
            those of that level (-1: the last); ``auto``: the context features if given, else every level.
        views: what ``R`` gets of ``x``: ``whole``, one set; ``halves`` of the batch as if they were two views (of
            different samples: their invariance pulls towards collapse; an odd last sample is left out);
            ``target_prediction``, the target and the prediction of a level, which are views of the same thing.
        tokens: ``flatten`` makes every token of ``[B, N, D]`` a row, ``mean`` averages the tokens, ``keep`` leaves it
            to the regulariser.
        vicreg_invariance_weight: this and the following ones are options of the built-in ``VICRegLoss``, see there.
        vicreg_variance_weight: see ``VICRegLoss``.
        vicreg_covariance_weight: see ``VICRegLoss``.
        vicreg_variance_threshold: see ``VICRegLoss``.
        vicreg_eps: see ``VICRegLoss``.
        vicreg_covariance_norm: see ``VICRegLoss``.
        vicreg_view_reduction: see ``VICRegLoss``.
        vicreg_configs: per level, arguments of its own ``VICRegLoss`` where they differ from the ones above.
        schedules: of ``regularizer_weight``; moved by ``step_schedule(step)``, which also moves the parts.

    Shapes: as ``HJEPALoss``; ``context_features`` ``[B, D]`` or ``[B, N, D]``, or a pair of them: two real views, which
    are then used whatever ``views`` says.

    Returns:
        ``LossOutput``: ``loss``; ``jepa_loss``; ``vicreg_loss``, the weighted sum of ``R``, so that
        ``loss = jepa_loss + vicreg_loss``, and ``vicreg_loss_unweighted``; unweighted per level ``vicreg_h0``, ... with
        their terms ``vicreg_invariance_h0``, ``vicreg_variance_h0``, ``vicreg_covariance_h0``,
        ``vicreg_variance_a_h0``, ... (without ``_h`` and number for a single place); ``loss_h0``, ...,
        ``loss_unweighted`` of the prediction loss. ``vicreg`` is the registry name of the regulariser. All but
        ``loss`` are detached.

    Raises:
        ValueError: an argument out of range, options of a part beside a given part, missing ``context_features``, a
            batch that cannot be halved, a regulariser that needs two views and gets one set.

    Paper: I-JEPA (arXiv 2301.08243) with VICReg (2105.04906) or SIGReg (2511.08544); the combination is this project's.

    Differs from the old classes: the whole batch is regularised, without invariance between different samples; one
    class and one scheme of keys; the regulariser is reported weighted and raw everywhere; its eps is its own; targets
    are detached for it, too; the level is named; the weights are one buffer; every trainer can call it.
    """

    regularizer_weight: Tensor
    schedulable = ("regularizer_weight",)

    def __init__(
        self,
        *,
        loss_type: str = "smooth_l1",
        hierarchy_weights: float | Sequence[float] = 1.0,
        num_hierarchies: int | None = None,
        normalize_embeddings: bool = True,
        huber_delta: float = 1.0,
        reduction: str = "mean",
        eps: float | None = None,
        mask_average: str = "elements",
        detach_targets: bool = True,
        jepa_loss: nn.Module | None = None,
        regularizer: nn.Module | Sequence[nn.Module] | None = None,
        regularizer_weight: float | Sequence[float] = 0.1,
        regularize: str | int = "auto",
        views: str = "whole",
        tokens: str = "flatten",
        vicreg_invariance_weight: float = 25.0,
        vicreg_variance_weight: float = 25.0,
        vicreg_covariance_weight: float = 1.0,
        vicreg_variance_threshold: float = 1.0,
        vicreg_eps: float = 1e-4,
        vicreg_covariance_norm: str = "features",
        vicreg_view_reduction: str = "sum",
        vicreg_configs: Sequence[Mapping[str, Any]] | None = None,
        schedules: Mapping[str, Schedule | Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(reduction=reduction)
        require_choice("reduction", reduction, ("mean", "sum"))
        require_choice("views", views, ("whole", "halves", "target_prediction"))
        require_choice("tokens", tokens, ("flatten", "mean", "keep"))
        if not isinstance(regularize, int) or isinstance(regularize, bool):
            require_choice("regularize", regularize, (*PLACES, "a level number"))
        prediction: dict[str, Any] = {
            "loss_type": loss_type,
            "hierarchy_weights": hierarchy_weights,
            "normalize_embeddings": normalize_embeddings,
            "huber_delta": huber_delta,
            "eps": eps,
            "mask_average": mask_average,
        }
        vicreg: dict[str, Any] = {
            "invariance_weight": vicreg_invariance_weight,
            "variance_weight": vicreg_variance_weight,
            "covariance_weight": vicreg_covariance_weight,
            "variance_threshold": vicreg_variance_threshold,
            "eps": vicreg_eps,
            "covariance_norm": vicreg_covariance_norm,
            "view_reduction": vicreg_view_reduction,
        }
        if jepa_loss is None:
            jepa_loss = HJEPALoss(
                **prediction, num_hierarchies=num_hierarchies, reduction=reduction, detach_targets=detach_targets
            )
        else:
            _require_defaults(HJEPALoss, prediction, "jepa_loss")
        if regularizer is not None:
            _require_defaults(VICRegLoss, vicreg, "regularizer", "vicreg_")
            if vicreg_configs is not None:
                raise ValueError("vicreg_configs belongs to the built-in regularizer; give one regularizer per level")
        elif vicreg_configs is not None:
            regularizer = [VICRegLoss(**{**vicreg, **config}) for config in vicreg_configs]
        else:
            regularizer = VICRegLoss(**vicreg)
        parts = [regularizer] if isinstance(regularizer, nn.Module) else list(regularizer)
        self.shared = isinstance(regularizer, nn.Module)
        count = num_hierarchies if self.shared else len(parts)
        if (num_hierarchies is not None and count != num_hierarchies) or not parts:
            name = "regularizer" if vicreg_configs is None else "vicreg_configs"
            raise ValueError(f"{name} must have {num_hierarchies or 'one or more'} entries, found {len(parts)}")
        self.jepa_loss = jepa_loss
        self.regularizers = nn.ModuleList(parts)
        self.names = tuple(LossRegistry.name_of(type(part)) or "regularizer" for part in parts)
        self.regularize, self.views, self.tokens = regularize, views, tokens
        self.detach_targets = detach_targets
        weights = level_weights("regularizer_weight", regularizer_weight, count)
        self.register_buffer("regularizer_weight", weights)
        self.attach_schedules(schedules)

    def forward(
        self,
        predictions: Levels,
        targets: Levels,
        masks: Masks = None,
        context_features: Tensor | Sequence[Tensor] | None = None,
    ) -> LossOutput:
        """The loss of one batch."""
        predicted, wanted = as_levels("predictions", predictions), as_levels("targets", targets)
        jepa = self.jepa_loss(predicted, wanted, masks)
        jepa_loss = jepa["loss"] if isinstance(jepa, Mapping) else jepa
        entries: dict[str, Tensor] = {}
        values = []
        for level, views in self._places(predicted, wanted, context_features):
            index = 0 if level is None else level
            own = 0 if self.shared else index
            name = self.names[own]
            result = self._regularized(self.regularizers[own], views)
            values.append((self._weight(index, len(predicted)), result["loss"]))
            suffix = "" if level is None or isinstance(self.regularize, int) else f"_h{level}"
            if suffix:
                entries[f"{name}{suffix}"] = result["loss"]
            for key, value in result.items():
                term = key.replace("_loss", "")
                if term != key:
                    # the statistic of "sigreg" is called after it
                    term = term.replace(name, "statistic")
                    entries[f"{name}_{term}{suffix}"] = value
        total = torch.stack([weight * value for weight, value in values]).sum()
        label = self.names[0] if len(set(self.names)) == 1 else "regularizer"
        heads = {
            "jepa_loss": jepa_loss,
            f"{label}_loss": total,
            f"{label}_loss_unweighted": torch.stack([value for _, value in values]).sum(),
        }
        rest = {k: v for k, v in jepa.items() if k not in heads and k != "loss"} if isinstance(jepa, Mapping) else {}
        return self.output(jepa_loss + total, **heads, **entries, **rest)

    def _places(
        self, predictions: list[Tensor], targets: list[Tensor], context: Tensor | Sequence[Tensor] | None
    ) -> list[tuple[int | None, tuple[Tensor, ...]]]:
        """(level, or ``None`` for the context features; one set or two views)."""
        where = self.regularize
        if where == "auto":
            where = "levels" if context is None or self.views == "target_prediction" else "context"
        if where == "context":
            if context is None:
                raise ValueError("regularize='context' needs context_features, found None")
            given = as_levels("context_features", context)
            views = self._split(context) if isinstance(context, Tensor) else tuple(given)
            return [(None, views)]
        chosen = list(range(len(predictions))) if where == "levels" else [int(where)]
        if not -len(predictions) <= chosen[0] < len(predictions):
            raise ValueError(f"regularize={where!r} names a level that is not there, found {len(predictions)} levels")
        return [(level % len(predictions), self._split(predictions[level], targets[level])) for level in chosen]

    def _split(self, x: Tensor, target: Tensor | None = None) -> tuple[Tensor, ...]:
        if self.views == "halves":
            half = x.shape[0] // 2
            if not half:
                raise ValueError(f"views='halves' needs at least two samples, found {list(x.shape)}")
            return x[:half], x[half : 2 * half]
        if self.views == "target_prediction":
            if target is None:
                raise ValueError("views='target_prediction' needs a level, found regularize='context'")
            return (target.detach() if self.detach_targets else target), x
        return (x,)

    def _regularized(self, part: nn.Module, views: tuple[Tensor, ...]) -> Mapping[str, Tensor]:
        rows = [self._rows(view) for view in views]
        if len(rows) == 1:
            call = getattr(part, "regularize", None)
            if call is None:
                raise ValueError(
                    f"{type(part).__name__} compares two views: choose views='target_prediction' or 'halves', or pass "
                    "a pair of context_features"
                )
            result = call(*rows)
        else:
            result = part(*rows)
        return result if isinstance(result, Mapping) else {"loss": result}

    def _rows(self, x: Tensor) -> Tensor:
        if x.dim() != 3 or self.tokens == "keep":
            return x
        return x.flatten(0, 1) if self.tokens == "flatten" else x.mean(dim=1)

    def _weight(self, index: int, count: int) -> Tensor:
        weights: Tensor = self.current("regularizer_weight")
        if weights.dim() and weights.shape[0] != count:
            raise ValueError(f"regularizer_weight has {weights.shape[0]} entries, found {count} levels")
        return weights[index] if weights.dim() else weights

    def extra_repr(self) -> str:
        """Configuration."""
        return (
            f"regularizer_weight={self.regularizer_weight.tolist()}, regularize={self.regularize!r}, "
            f"views={self.views!r}, tokens={self.tokens!r}"
        )
