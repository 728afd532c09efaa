"""The configuration dictionaries of the old code bases, as configurations of the new losses with the old numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ._config_types import ConfigError, reject_unknown, require_no_numeric_text

__all__ = ["CRITERIA", "OLD_TYPES", "from_old_form"]

Section = Mapping[str, Any]
Names = Mapping[str, str]

_TYPES: Final = {"smoothl1": "smooth_l1", "smooth_l1": "smooth_l1", "mse": "mse", "huber": "huber"}
_LEVELS: Final = {
    "hierarchy_weights": "hierarchy_weights",
    "num_hierarchies": "num_hierarchies",
    "jepa_loss_type": "loss_type",
}
_NORMALIZED: Final = {**_LEVELS, "normalize_embeddings": "normalize_embeddings"}
_PREDICTION: Final = {**_NORMALIZED, "detach_targets": "detach_targets"}
_CONTRAST: Final = {
    "jepa_weight": "jepa_weight",
    "contrastive_weight": "contrastive_weight",
    "contrastive_temperature": "temperature",
    "use_cosine_similarity": "normalize",
    "contrastive_on_context": "contrast",
}
_VICREG: Final = {
    "vicreg_invariance_weight": "invariance_weight",
    "vicreg_variance_weight": "variance_weight",
    "vicreg_covariance_weight": "covariance_weight",
    "vicreg_variance_threshold": "variance_threshold",
}
_SIGREG: Final = {
    "sigreg_num_slices": "num_slices",
    "sigreg_num_test_points": "num_test_points",
    "eps": "eps",
    "flatten_patches": "tokens",
    "sigreg_fixed_slices": "fixed_slices",
    "sigreg_vectorized": "chunk_size",
    "sigreg_test_method": "test_method",
    "sigreg_char_function_t_min": "t_min",
    "sigreg_char_function_t_max": "t_max",
    "sigreg_char_function_num_quadrature": "num_knots",
    "sigreg_char_function_lambda": "window",
}
_IMAGES: Final = {
    "vgg_layers": "layers",
    "epsilon": "eps",
    "min_loss_value": "floor",
    "regularization_weight": "floor_weight",
}
_VALUES: Final[Mapping[str, Mapping[Any, Any]]] = {
    "jepa_loss_type": _TYPES,
    "flatten_patches": {True: "flatten", False: "concat"},
    "sigreg_vectorized": {True: None, False: 1},
    "sigreg_test_method": {"reference_points": "reference_points", "char_function": "characteristic_function"},
    "contrastive_on_context": {True: "context", False: "features"},
}
_OLD_LENGTH: Final = 1e-8
_IGNORED: Final = frozenset(
    [
        *(*_PREDICTION, *_VICREG, "vicreg_weight", "use_vicreg", "vicreg", "use_contrastive", "huber_delta"),
        *("reduction", "eps", "flatten_patches", "apply_vicreg_per_level", "vicreg_on_targets"),
    ]
)
"""Keys that mean something to a loss of this family, of which the old factory read only some for each type."""
_PREDICTION_PINS: Final = {"eps": _OLD_LENGTH, "mask_average": "positions"}
_PAIRS: Final = {"covariance_norm": "pairs", "view_reduction": "mean"}
_HALVES_PINS: Final = {
    **_PREDICTION_PINS,
    "vicreg_covariance_norm": "pairs",
    "vicreg_view_reduction": "mean",
    "views": "halves",
}
_SIGREG_PINS: Final = {
    "test_method": "reference_points",
    "t_min": 0.2,
    "t_max": 4.0,
    "num_knots": 32,
    "standardize": True,
    "scale_by_samples": False,
    "split_single_input": True,
}

_CRITERIA: Final[Mapping[str, tuple[str, Names, Section]]] = {
    "CrossEntropyLoss": ("temporal_cross_entropy", {"weight": "class_weights"}, {}),
    "EnergyLoss": ("energy", {"p": "order"}, {"select": ["Conv2d", "Linear", "ConvTranspose2d"]}),
    "ActivityLoss": ("energy", {"ord": "order"}, {"select": "marked", "idle_attribute": "_in_idle_period"}),
}
CRITERIA: Final[Mapping[str, tuple[str, Names, Section]]] = {
    **_CRITERIA,
    "cross_entropy_loss": _CRITERIA["CrossEntropyLoss"],
    "energy_loss": _CRITERIA["EnergyLoss"],
    "activity_loss": _CRITERIA["ActivityLoss"],
}
"""Old names of the criterion list -> (registry name, renamed arguments, values that the old classes had)."""


def _only(path: str, section: Section, known: Iterable[str]) -> None:
    """Refuse what the old factory did not read: to honour it now would change the numbers in silence."""
    known = tuple(known)
    for key in section:
        if key in _IGNORED and key not in known:
            raise ConfigError(
                f"{path}.{key}",
                f"type {section['type']} never read this key: remove it, or write the form name and kwargs, "
                "where it counts",
            )
    reject_unknown(path, section, known)


def _take(section: Section, names: Names, path: str) -> dict[str, Any]:
    """The entries of ``section`` that ``names`` lists, under their new names and with their new values."""
    taken = {}
    for old, new in names.items():
        if old not in section:
            continue
        value = section[old]
        if old in _VALUES:
            table = _VALUES[old]
            if not isinstance(value, (str, bool)) or value not in table:
                raise ConfigError(f"{path}.{old}", f"expected one of {', '.join(map(repr, table))}, found {value!r}")
            value = table[value]
        taken[new] = value
    return taken


def _hjepa(section: Section, path: str) -> dict[str, Any]:
    kind = section["type"].lower()
    made = {"loss_type": _TYPES.get(kind, "smooth_l1"), **_take(section, _PREDICTION, path), **_PREDICTION_PINS}
    loss = {"name": "hjepa", "kwargs": made}
    if not section.get("use_contrastive", False):
        _only(path, section, ("type", "use_contrastive", *_PREDICTION))
        return loss
    _only(path, section, ("type", "use_contrastive", *_PREDICTION, *_CONTRAST))
    return _around(loss, section, path)


def _around(loss: Section, section: Section, path: str) -> dict[str, Any]:
    made = {"contrast": "features", **_take(section, _CONTRAST, path), "eps": _OLD_LENGTH, "metrics": True}
    return {"name": "contrastive_jepa", "kwargs": {"jepa_loss": loss, **made}}


def _contrastive(section: Section, path: str) -> dict[str, Any]:
    _only(path, section, ("type", *_NORMALIZED, *_CONTRAST))
    made = {**_take(section, _NORMALIZED, path), **_PREDICTION_PINS}
    return _around({"name": "hjepa", "kwargs": made}, section, path)


def _vicreg(section: Section, path: str) -> dict[str, Any]:
    _only(path, section, ("type", "num_hierarchies", *_VICREG))
    return {"name": "vicreg", "kwargs": {**_take(section, _VICREG, path), **_PAIRS, "split_single_input": True}}


def _sigreg(section: Section, path: str) -> dict[str, Any]:
    weights = {"sigreg_invariance_weight": "invariance_weight", "sigreg_weight": "sigreg_weight"}
    _only(path, section, ("type", "num_hierarchies", *_SIGREG, *weights))
    made = {
        "invariance_weight": 25.0,
        "sigreg_weight": 25.0,
        **_SIGREG_PINS,
        **_take(section, {**_SIGREG, **weights}, path),
    }
    return {"name": "sigreg", "kwargs": made}


def _hjepa_sigreg(section: Section, path: str) -> dict[str, Any]:
    for key in ("sigreg_weight", "sigreg_invariance_weight"):
        if key in section:
            raise ConfigError(f"{path}.{key}", "never had an effect here: remove it, sigreg_loss_weight is the weight")
    # eps is that of SIGReg; lengths of embeddings have their own
    _only(path, section, ("type", "sigreg_loss_weight", *_PREDICTION, *_SIGREG))
    prediction = {**_take(section, _PREDICTION, path), **_PREDICTION_PINS}
    sigreg = {**_SIGREG_PINS, **_take(section, _SIGREG, path)}
    return {
        "name": "hjepa_combined",
        "kwargs": {
            "jepa_loss": {"name": "hjepa", "kwargs": prediction},
            "regularizer": {"name": "sigreg", "kwargs": sigreg},
            "regularizer_weight": section.get("sigreg_loss_weight", 1.0),
            "regularize": "context",
            "views": "halves",
            "tokens": "keep",
        },
    }


def _combined(section: Section, path: str) -> dict[str, Any]:
    own = {"vicreg_weight": "regularizer_weight", **{name: name for name in _VICREG if name.endswith("_weight")}}
    _only(path, section, ("type", *_NORMALIZED, *own))
    made = {**_HALVES_PINS, "vicreg_eps": _OLD_LENGTH, **_take(section, {**_NORMALIZED, **own}, path)}
    return {"name": "hjepa_combined", "kwargs": made}


def _hierarchical(section: Section, path: str) -> dict[str, Any]:
    own = {"vicreg_weight": "regularizer_weight"}
    _only(path, section, ("type", "vicreg_configs", *_LEVELS, *own))
    made = {**_HALVES_PINS, "regularize": "levels", **_take(section, {**_LEVELS, **own}, path)}
    configs = section.get("vicreg_configs")
    if configs is None:
        return {"name": "hjepa_combined", "kwargs": {**made, "vicreg_eps": _OLD_LENGTH}}
    if not isinstance(configs, (list, tuple)):
        raise ConfigError(f"{path}.vicreg_configs", f"expected one mapping per level, found {configs!r}")
    known = (*_VICREG.values(), "eps", "flatten_patches")
    per_level = []
    for i, config in enumerate(configs):
        where = f"{path}.vicreg_configs[{i}]"
        if not isinstance(config, Mapping):
            raise ConfigError(where, f"expected a mapping, found {config!r}")
        reject_unknown(where, config, known)
        names = {name: name for name in known} | {"flatten_patches": "tokens"}
        per_level.append(_take(config, names, where))
    kept = {"tokens": "keep"} if any("tokens" in config for config in per_level) else {}
    return {"name": "hjepa_combined", "kwargs": {**made, **kept, "vicreg_configs": per_level}}


def _images(section: Section, path: str) -> dict[str, Any]:
    # alpha, beta and gamma are the weights of the other type, which the old files hold beside these
    reject_unknown(path, section, ("type", "num_hierarchies", "alpha", "beta", "gamma", *_IMAGES))
    made = {"floor_weight": 0.01, "objective": "log_sum", "floor_mode": "value", "detach_target": False}
    return {"name": "image_geometric_mean", "kwargs": {**made, **_take(section, _IMAGES, path)}}


OLD_TYPES: Final[Mapping[str, Callable[[Section, str], dict[str, Any]]]] = {
    **dict.fromkeys(("hjepa", "jepa", "smoothl1", "mse"), _hjepa),
    "vicreg": _vicreg,
    "sigreg": _sigreg,
    **dict.fromkeys(("hjepa_sigreg", "sigreg_combined"), _hjepa_sigreg),
    "combined": _combined,
    "hierarchical_combined": _hierarchical,
    **dict.fromkeys(("cjepa", "contrastive_jepa"), _contrastive),
    "geometric_mean": _images,
}


def from_old_form(section: Section, path: str) -> dict[str, Any]:
    """A section with ``type`` as ``{name, kwargs}``, every value that keeps the old numbers written out.

    Raises:
        ConfigError: unknown type, key or value; keys that the old code ignored count as unknown.
    """
    kind = section["type"]
    if not isinstance(kind, str) or kind.lower() not in OLD_TYPES:
        raise ConfigError(f"{path}.type", f"expected one of {', '.join(sorted(OLD_TYPES))}, found {kind!r}")
    require_no_numeric_text(section, path)
    return OLD_TYPES[kind.lower()](section, path)
