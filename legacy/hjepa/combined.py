"""Frozen twin of the old ``combined`` module: prediction loss plus VICReg or SIGReg, and the configuration factory.

Kept as it was: VICReg sees the two halves of one batch as "views" (an odd last sample is dropped); with
``context_features`` only the first Python weight counts and both VICReg switches are ignored; the single-level mode
uses the last level and reports ``vicreg_loss`` unweighted; VICReg runs with this class's eps (1e-8) unless per-level
configs are given (1e-4); the per-level modes weigh with the float32 buffer, the others with the Python list; the
hierarchical class ignores both switches and takes no ``context_features``; the factory drops unknown keys silently.
"""

import warnings

import torch
import torch.nn as nn

from training_losses.migration.deprecation import deprecated_module

from .contrastive import ContrastiveJEPALoss
from .hjepa_loss import HJEPALoss
from .sigreg import SIGRegLoss
from .vicreg import VICRegLoss

deprecated_module(__name__)


def _halves(x):
    middle = x.shape[0] // 2
    return x[:middle], x[middle : 2 * middle]


class CombinedLoss(nn.Module):
    def __init__(
        self,
        jepa_loss_type="smoothl1",
        jepa_hierarchy_weights=1.0,
        num_hierarchies=3,
        normalize_embeddings=True,
        huber_delta=1.0,
        vicreg_weight=0.1,
        vicreg_invariance_weight=25.0,
        vicreg_variance_weight=25.0,
        vicreg_covariance_weight=1.0,
        vicreg_variance_threshold=1.0,
        apply_vicreg_per_level=True,
        vicreg_on_targets=False,
        reduction="mean",
        eps=1e-8,
    ):
        super().__init__()
        self.num_hierarchies = num_hierarchies
        self.apply_vicreg_per_level = apply_vicreg_per_level
        self.vicreg_on_targets = vicreg_on_targets
        self.eps = eps
        self.jepa_loss = HJEPALoss(
            loss_type=jepa_loss_type,
            hierarchy_weights=jepa_hierarchy_weights,
            num_hierarchies=num_hierarchies,
            reduction=reduction,
            normalize_embeddings=normalize_embeddings,
            huber_delta=huber_delta,
            eps=eps,
        )
        self.vicreg_loss = VICRegLoss(
            invariance_weight=vicreg_invariance_weight,
            variance_weight=vicreg_variance_weight,
            covariance_weight=vicreg_covariance_weight,
            variance_threshold=vicreg_variance_threshold,
            eps=eps,
            flatten_patches=True,
        )
        if isinstance(vicreg_weight, (int, float)):
            self.vicreg_weights = [float(vicreg_weight)] * num_hierarchies
        else:
            if len(vicreg_weight) != num_hierarchies:
                raise ValueError(
                    f"vicreg_weight has {len(vicreg_weight)} entries, num_hierarchies is {num_hierarchies}"
                )
            self.vicreg_weights = list(vicreg_weight)
        self.register_buffer("_vicreg_weights", torch.tensor(self.vicreg_weights, dtype=torch.float32))

    def _level_vicreg(self, prediction, target):
        if self.vicreg_on_targets:
            return self.vicreg_loss(target, prediction)
        if prediction.shape[0] >= 2:
            return self.vicreg_loss(*_halves(prediction))
        return self.vicreg_loss(prediction, target)

    def forward(self, predictions, targets, masks=None, context_features=None):
        if isinstance(predictions, torch.Tensor):
            predictions = [predictions]
        if isinstance(targets, torch.Tensor):
            targets = [targets]
        jepa = self.jepa_loss(predictions, targets, masks)
        result = {}
        if context_features is not None:
            pair = _halves(context_features) if context_features.shape[0] >= 2 else (context_features, context_features)
            vicreg = self.vicreg_loss(*pair)
            weighted = self.vicreg_weights[0] * vicreg["loss"]
            result["vicreg_loss"] = weighted
            result["vicreg_encoder"] = vicreg["loss"]
            for term in ("invariance", "variance", "covariance"):
                result[f"vicreg_{term}"] = vicreg[f"{term}_loss"]
        elif self.apply_vicreg_per_level:
            losses = []
            for i, (prediction, target) in enumerate(zip(predictions, targets)):
                vicreg = self._level_vicreg(prediction, target)
                losses.append(vicreg["loss"])
                result[f"vicreg_h{i}"] = vicreg["loss"]
                for term in ("invariance", "variance", "covariance"):
                    result[f"vicreg_{term}_h{i}"] = vicreg[f"{term}_loss"]
            weighted = (torch.stack(losses) * self._vicreg_weights).sum()
            result["vicreg_loss"] = weighted
        else:
            vicreg = self._level_vicreg(predictions[-1], targets[-1])
            weighted = self.vicreg_weights[-1] * vicreg["loss"]
            result["vicreg_loss"] = weighted
            # "loss" overwrites the weighted value with the unweighted one
            for key, value in vicreg.items():
                result[f"vicreg_{key}"] = value
        result["loss"] = jepa["loss"] + weighted
        result["jepa_loss"] = jepa["loss"]
        for key, value in jepa.items():
            if key not in result:
                result[key] = value
        return result

    def get_loss_summary(self, loss_dict):
        def value(key):
            return loss_dict[key].item() if key in loss_dict else 0.0

        lines = [
            "Loss Summary:",
            f"  Total Loss: {loss_dict['loss'].item():.6f}",
            f"  JEPA Loss:  {loss_dict['jepa_loss'].item():.6f}",
            f"  VICReg Loss: {loss_dict['vicreg_loss'].item():.6f}",
            "",
            "Per-Level Breakdown:",
        ]
        for i in range(self.num_hierarchies):
            lines.append(f"  Level {i}: JEPA={value(f'loss_h{i}'):.6f}, VICReg={value(f'vicreg_h{i}'):.6f}")
        return "\n".join(lines)

    def extra_repr(self):
        return (
            f"num_hierarchies={self.num_hierarchies}, vicreg_weights={self.vicreg_weights}, "
            f"apply_vicreg_per_level={self.apply_vicreg_per_level}"
        )


class HierarchicalCombinedLoss(CombinedLoss):
    def __init__(
        self,
        jepa_loss_type="smoothl1",
        jepa_hierarchy_weights=1.0,
        num_hierarchies=3,
        normalize_embeddings=True,
        vicreg_weight=0.1,
        vicreg_configs=None,
        **kwargs,
    ):
        super().__init__(
            jepa_loss_type=jepa_loss_type,
            jepa_hierarchy_weights=jepa_hierarchy_weights,
            num_hierarchies=num_hierarchies,
            normalize_embeddings=normalize_embeddings,
            vicreg_weight=vicreg_weight,
            **kwargs,
        )
        if vicreg_configs is None:
            self.vicreg_losses = nn.ModuleList([self.vicreg_loss] * num_hierarchies)
        else:
            if len(vicreg_configs) != num_hierarchies:
                raise ValueError(
                    f"vicreg_configs has {len(vicreg_configs)} entries, num_hierarchies is {num_hierarchies}"
                )
            self.vicreg_losses = nn.ModuleList([VICRegLoss(**config) for config in vicreg_configs])

    def forward(self, predictions, targets, masks=None):
        if isinstance(predictions, torch.Tensor):
            predictions = [predictions]
        if isinstance(targets, torch.Tensor):
            targets = [targets]
        jepa = self.jepa_loss(predictions, targets, masks)
        result = {}
        losses = []
        for i, (prediction, target, vicreg_loss) in enumerate(zip(predictions, targets, self.vicreg_losses)):
            pair = _halves(prediction) if prediction.shape[0] >= 2 else (prediction, target)
            vicreg = vicreg_loss(*pair)
            losses.append(vicreg["loss"])
            result[f"vicreg_h{i}"] = vicreg["loss"]
            for key, value in vicreg.items():
                if key != "loss":
                    result[f"vicreg_{key}_h{i}"] = value
        weighted = (torch.stack(losses) * self._vicreg_weights).sum()
        result["loss"] = jepa["loss"] + weighted
        result["jepa_loss"] = jepa["loss"]
        result["vicreg_loss"] = weighted
        for key, value in jepa.items():
            if key not in result:
                result[key] = value
        return result


class HJEPASIGRegLoss(nn.Module):
    def __init__(self, jepa_loss, sigreg_loss, sigreg_weight=1.0):
        super().__init__()
        self.jepa_loss = jepa_loss
        self.sigreg_loss = sigreg_loss
        self.sigreg_weight = sigreg_weight

    def forward(self, predictions, targets, masks=None, context_features=None):
        jepa = self.jepa_loss(predictions, targets, masks)
        result = {}
        if context_features is not None:
            pair = _halves(context_features) if context_features.shape[0] >= 2 else (context_features, context_features)
            sigreg = self.sigreg_loss(*pair)
            statistic = sigreg["sigreg_loss"]
            result["sigreg_loss"] = statistic
            zero = torch.zeros((), dtype=torch.float32, device=statistic.device)
            result["sigreg_invariance"] = sigreg.get("invariance_loss", zero)
        else:
            statistic = torch.zeros((), dtype=torch.float32, device=jepa["loss"].device)
            result["sigreg_loss"] = statistic
        result["loss"] = jepa["loss"] + self.sigreg_weight * statistic
        result["jepa_loss"] = jepa["loss"]
        for key, value in jepa.items():
            if key not in result:
                result[key] = value
        return result


_LOSS_REGISTRY = {}


def _register_loss(*names):
    def decorate(builder):
        for name in names:
            _LOSS_REGISTRY[name] = builder
        return builder

    return decorate


def _contrastive_around(jepa_loss, section):
    return ContrastiveJEPALoss(
        jepa_loss,
        jepa_weight=section.get("jepa_weight", 1.0),
        contrastive_weight=section.get("contrastive_weight", 0.1),
        contrastive_temperature=section.get("contrastive_temperature", 0.1),
        use_cosine_similarity=section.get("use_cosine_similarity", True),
        contrastive_on_context=section.get("contrastive_on_context", False),
    )


def _hjepa_from(section, num_hierarchies, loss_type="smoothl1", **more):
    return HJEPALoss(
        loss_type=section.get("jepa_loss_type", loss_type),
        hierarchy_weights=section.get("hierarchy_weights", 1.0),
        num_hierarchies=num_hierarchies,
        normalize_embeddings=section.get("normalize_embeddings", True),
        **more,
    )


def _sigreg_from(section):
    return SIGRegLoss(
        num_slices=section.get("sigreg_num_slices", 1024),
        num_test_points=section.get("sigreg_num_test_points", 17),
        invariance_weight=section.get("sigreg_invariance_weight", 25.0),
        sigreg_weight=section.get("sigreg_weight", 25.0),
        eps=section.get("eps", 1e-6),
        flatten_patches=section.get("flatten_patches", True),
        fixed_slices=section.get("sigreg_fixed_slices", False),
        vectorized=section.get("sigreg_vectorized", True),
        test_method=section.get("sigreg_test_method", "reference_points"),
        char_function_t_min=section.get("sigreg_char_function_t_min", 0.2),
        char_function_t_max=section.get("sigreg_char_function_t_max", 4.0),
        char_function_num_quadrature=section.get("sigreg_char_function_num_quadrature", 32),
        char_function_lambda=section.get("sigreg_char_function_lambda", 1.0),
    )


@_register_loss("hjepa", "jepa", "smoothl1", "mse")
def _build_hjepa(section, num_hierarchies):
    kind = section["type"].lower()
    unused = [key for key in ("vicreg_weight", "use_vicreg", "vicreg") if key in section]
    if unused:
        warnings.warn(f"VICReg settings {unused} are not used by loss type '{kind}'", UserWarning, stacklevel=3)
    loss = _hjepa_from(
        section,
        num_hierarchies,
        kind if kind in ("smoothl1", "mse") else "smoothl1",
        detach_targets=section.get("detach_targets", True),
    )
    return _contrastive_around(loss, section) if section.get("use_contrastive", False) else loss


@_register_loss("vicreg")
def _build_vicreg(section, num_hierarchies):
    return VICRegLoss(
        invariance_weight=section.get("vicreg_invariance_weight", 25.0),
        variance_weight=section.get("vicreg_variance_weight", 25.0),
        covariance_weight=section.get("vicreg_covariance_weight", 1.0),
        variance_threshold=section.get("vicreg_variance_threshold", 1.0),
    )


@_register_loss("sigreg")
def _build_sigreg(section, num_hierarchies):
    return _sigreg_from(section)


@_register_loss("hjepa_sigreg", "sigreg_combined")
def _build_hjepa_sigreg(section, num_hierarchies):
    return HJEPASIGRegLoss(
        _hjepa_from(section, num_hierarchies, detach_targets=section.get("detach_targets", True)),
        _sigreg_from(section),
        sigreg_weight=section.get("sigreg_loss_weight", 1.0),
    )


@_register_loss("combined")
def _build_combined(section, num_hierarchies):
    return CombinedLoss(
        jepa_loss_type=section.get("jepa_loss_type", "smoothl1"),
        jepa_hierarchy_weights=section.get("hierarchy_weights", 1.0),
        num_hierarchies=num_hierarchies,
        normalize_embeddings=section.get("normalize_embeddings", True),
        vicreg_weight=section.get("vicreg_weight", 0.1),
        vicreg_invariance_weight=section.get("vicreg_invariance_weight", 25.0),
        vicreg_variance_weight=section.get("vicreg_variance_weight", 25.0),
        vicreg_covariance_weight=section.get("vicreg_covariance_weight", 1.0),
    )


@_register_loss("hierarchical_combined")
def _build_hierarchical(section, num_hierarchies):
    return HierarchicalCombinedLoss(
        jepa_loss_type=section.get("jepa_loss_type", "smoothl1"),
        jepa_hierarchy_weights=section.get("hierarchy_weights", 1.0),
        num_hierarchies=num_hierarchies,
        vicreg_weight=section.get("vicreg_weight", 0.1),
        vicreg_configs=section.get("vicreg_configs"),
    )


@_register_loss("cjepa", "contrastive_jepa")
def _build_cjepa(section, num_hierarchies):
    return _contrastive_around(_hjepa_from(section, num_hierarchies), section)


def create_loss_from_config(config):
    section = config.get("loss", config)
    model = config.get("model", {})
    kind = section.get("type", "combined").lower()
    num_hierarchies = model.get("num_hierarchies", section.get("num_hierarchies", 3))
    if kind not in _LOSS_REGISTRY:
        raise ValueError(f"Unknown loss type: {kind}. Known types: {sorted(_LOSS_REGISTRY)}")
    return _LOSS_REGISTRY[kind](section, num_hierarchies)
