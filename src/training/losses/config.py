"""Losses from dictionaries, YAML and TOML files, and back."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from torch import nn

from ._config_old import CRITERIA, OLD_TYPES, from_old_form
from ._config_types import (
    TORCH_PREFIX,
    ConfigError,
    convert,
    loss_class,
    numbers_read,
    parameters,
    plain,
    reject_unknown,
    schema_of,
)
from .base import BaseLoss
from .loss_registry import LossRegistry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["PRESETS", "ConfigError", "config_schema", "create_loss_from_config", "dump_config", "expand_config"]

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "small_scale": {
        "name": "hjepa_combined",
        "kwargs": {
            "loss_type": "smooth_l1",
            "hierarchy_weights": [1.0, 0.5, 0.25],
            "regularizer_weight": 0.05,
            "vicreg_invariance_weight": 10.0,
            "vicreg_variance_weight": 10.0,
            "vicreg_covariance_weight": 0.5,
        },
    },
    "imagenet_scale": {
        "name": "hjepa_combined",
        "kwargs": {
            "loss_type": "smooth_l1",
            "hierarchy_weights": [1.0, 0.5, 0.25],
            "regularizer_weight": 0.1,
            "vicreg_invariance_weight": 25.0,
            "vicreg_variance_weight": 25.0,
            "vicreg_covariance_weight": 1.0,
        },
    },
    "fine_tuning": {
        "name": "hjepa",
        "kwargs": {"loss_type": "mse", "hierarchy_weights": [1.0, 0.3, 0.1], "normalize_embeddings": True},
    },
}
"""Starting points: the recommendations of the old hierarchical prediction code for small data, for ImageNet, and for
fine-tuning, where the representation does not collapse any more and the prediction stands alone."""

_FORMS: Final = "name and kwargs, terms, preset, or type"


def create_loss_from_config(config: Mapping[str, Any] | Sequence[Any] | str | PathLike[str]) -> nn.Module:
    """Build a loss from a configuration.

    A whole training configuration may be given: its section ``loss`` is used (and ``model.num_hierarchies``). Forms:

    * ``{"name": "clip", "kwargs": {"temperature": 0.1}}``: a registry name (or ``torch.nn.L1Loss`` and the like) and
      the arguments of the class. Where an argument is a loss, the same form nests.
    * ``{"terms": [{"name": "clip", "weight": 1.0, "kwargs": {}, "label": "clip"}, ...]}``, or the list alone (also
      under ``criterion``): a ``WeightedSumLoss``. ``label`` is the term's key, by default its name (``clip_2`` for a
      second one). ``kwargs`` beside ``terms`` are further arguments of the sum.
    * ``{"preset": "small_scale", "kwargs": {...}}``: one of ``PRESETS``, with changes.
    * ``{"type": "combined", "hierarchy_weights": [...], ...}``: the old dictionaries. They keep the old numbers:
      ``expand_config`` shows the options by which they do.

    Args:
        config: a mapping or list, or the path of a ``.yaml``, ``.yml``, ``.toml`` or ``.json`` file. YAML is read by
            version 1.2, where ``1e-8`` is a number and ``yes`` a text. PyYAML reads the first as a text; such texts in
            a mapping count as the numbers that they are.

    Raises:
        ConfigError: a ``ValueError`` whose message has the path of the entry inside the file: unknown keys (with the
            closest known one), texts where numbers are due, values out of range, files that do not parse.
        OSError: the file cannot be read.
    """
    if isinstance(config, (str, PathLike)):
        config = _read(Path(fspath(config)))
    section, path, hierarchies = _section(config)
    return _build(_normalize(section, path, hierarchies), path)


def expand_config(config: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    """``config`` in the form ``{"name", "kwargs"}``: presets and old dictionaries with their options written out."""
    section, path, hierarchies = _section(config)
    return _normalize(section, path, hierarchies)


def dump_config(loss: nn.Module) -> dict[str, Any]:
    """The configuration ``{"name", "kwargs"}`` from which ``create_loss_from_config`` builds ``loss`` again.

    The arguments are those of the constructor call; later changes of attributes and weights are state, not
    configuration.

    Raises:
        ConfigError: ``loss`` is not registered, or an argument cannot be written (a network); the message says which.
    """
    return _describe(loss, "loss")


def _read(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix in (".yaml", ".yml", ".json"):  # YAML contains JSON
            return YAML(typ="safe", pure=True).load(text)
        if path.suffix == ".toml":
            return tomllib.loads(text)
    except (YAMLError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(str(path), f"does not parse: {error}") from error
    raise ConfigError(str(path), f"expected .yaml, .yml, .toml or .json, found {path.suffix!r}")


def _section(config: Any) -> tuple[Any, str, Any]:
    """The section of the loss, its path, and ``model.num_hierarchies``."""
    config = numbers_read(config)
    if not isinstance(config, Mapping):
        return config, "loss", None
    model = config.get("model")
    hierarchies = model.get("num_hierarchies") if isinstance(model, Mapping) else None
    if "loss" in config:
        return config["loss"], "loss", hierarchies
    if "criterion" in config:
        return config["criterion"], "criterion", None
    return {key: value for key, value in config.items() if key != "model"}, "loss", hierarchies


def _normalize(section: Any, path: str, hierarchies: Any = None) -> dict[str, Any]:
    if isinstance(section, Sequence) and not isinstance(section, str):
        section, inner = {"terms": section}, path
    else:
        inner = f"{path}.terms"
    if not isinstance(section, Mapping):
        raise ConfigError(path, f"expected a mapping with {_FORMS}, found {section!r}")
    if "terms" in section:
        reject_unknown(path, section, ("terms", "kwargs"))
        return _sum(section["terms"], inner, section.get("kwargs", {}), f"{path}.kwargs")
    if "preset" in section:
        reject_unknown(path, section, ("preset", "kwargs"))
        name = section["preset"]
        if name not in PRESETS:
            raise ConfigError(f"{path}.preset", f"expected one of {', '.join(PRESETS)}, found {name!r}")
        preset = PRESETS[name]
        changes = _mapping(section.get("kwargs", {}), f"{path}.kwargs")
        return {"name": preset["name"], "kwargs": {**preset["kwargs"], **changes}}
    if "type" in section:
        given = {} if hierarchies is None else {"num_hierarchies": hierarchies}
        return from_old_form({**section, **given}, path)
    if "name" not in section:
        known = ("name", "kwargs", "terms", "preset", "type")
        reject_unknown(path, section, known)
        raise ConfigError(path, f"expected {_FORMS}, found {sorted(map(str, section))}")
    reject_unknown(path, section, ("name", "kwargs"))
    return {"name": section["name"], "kwargs": dict(_mapping(section.get("kwargs", {}), f"{path}.kwargs"))}


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(path, f"expected a mapping, found {value!r}")
    return value


def _sum(terms: Any, path: str, kwargs: Any, kwargs_path: str) -> dict[str, Any]:
    if not isinstance(terms, Sequence) or isinstance(terms, str) or not terms:
        raise ConfigError(path, f"expected a list of terms, found {terms!r}")
    losses: dict[str, Any] = {}
    weights: dict[str, Any] = {}
    for i, term in enumerate(terms):
        where = f"{path}[{i}]"
        reject_unknown(where, _mapping(term, where), ("name", "weight", "kwargs", "label"))
        if "name" not in term:
            raise ConfigError(where, "the key 'name' is missing")
        label = str(term.get("label", term["name"])).replace(".", "_")
        if label in losses and "label" in term:
            raise ConfigError(where, f"a second term is called {label!r}: give each a label")
        if label in losses:
            label = next(f"{label}_{n}" for n in range(2, len(terms) + 2) if f"{label}_{n}" not in losses)
        given = dict(_mapping(term.get("kwargs", {}), f"{where}.kwargs"))
        losses[label] = {"name": term["name"], "kwargs": given, "path": where}
        if term["name"] in CRITERIA:
            name, renames, values = CRITERIA[term["name"]]
            renamed = {renames.get(key, key): value for key, value in given.items()}
            losses[label].update(name=name, kwargs={**values, **renamed})
        weights[label] = convert(float, term.get("weight", 1.0), f"{where}.weight", _build)
    return {"name": "weighted_sum", "kwargs": {"terms": losses, "weights": weights, **_mapping(kwargs, kwargs_path)}}


def _build(config: Any, path: str) -> nn.Module:
    if not isinstance(config, Mapping):
        raise ConfigError(path, f"expected a loss such as {{name: vicreg}}, found {config!r}")
    # terms of a sum know where they stand in the file
    path = str(config.get("path", path))
    config = _normalize({key: value for key, value in config.items() if key != "path"}, path)
    loss = loss_class(config["name"], f"{path}.name")
    known = parameters(loss)
    if "results_like" in config["kwargs"] and issubclass(loss, BaseLoss):
        known = {**parameters(BaseLoss), **known}
    reject_unknown(f"{path}.kwargs", config["kwargs"], tuple(known))
    missing = [name for name, parameter in known.items() if parameter.required and name not in config["kwargs"]]
    if missing:
        raise ConfigError(f"{path}.kwargs", f"{config['name']} needs {', '.join(map(repr, missing))}")
    kwargs = {
        name: convert(known[name].hint, value, f"{path}.kwargs.{name}", _build)
        for name, value in config["kwargs"].items()
    }
    try:
        return loss(**kwargs)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(path, f"{config['name']}: {error}") from error


def _describe(loss: nn.Module, path: str) -> dict[str, Any]:
    name = LossRegistry.name_of(type(loss))
    if (
        name is None
        and isinstance(loss, nn.modules.loss._Loss)
        and getattr(nn, type(loss).__name__, None) is type(loss)
    ):
        known = parameters(type(loss))
        held = {key: getattr(loss, key) for key in known if hasattr(loss, key)}
        changed = {key: value for key, value in held.items() if value != known[key].default}
        return {"name": f"{TORCH_PREFIX}{type(loss).__name__}", "kwargs": plain(changed, f"{path}.kwargs", _describe)}
    if name is None:
        raise ConfigError(path, f"{type(loss).__name__} is no registered loss and cannot be written")
    given: Mapping[str, Any] = getattr(loss, "constructor_arguments", {})
    return {"name": name, "kwargs": plain(given, f"{path}.kwargs", _describe)}


def config_schema() -> dict[str, Any]:
    """A JSON schema (draft 2020-12) of configuration files, generated from the registry, for editors and CI."""
    losses: dict[str, Any] = {}
    for name in LossRegistry.available():
        known = parameters(LossRegistry.get(name))
        required = [key for key, parameter in known.items() if parameter.required]
        kwargs: dict[str, Any] = {
            "type": "object",
            "properties": {key: schema_of(parameter.hint) for key, parameter in known.items()},
            "additionalProperties": False,
        }
        losses[f"loss_{name}"] = {
            "type": "object",
            "properties": {
                "name": {"const": name},
                "kwargs": {**kwargs, **({"required": required} if required else {})},
            },
            "required": ["name", *(["kwargs"] if required else [])],
            "additionalProperties": False,
        }
    torch_loss = {"pattern": r"^torch\.nn\.[A-Za-z0-9]+$", "type": "string"}
    term = {
        "type": "object",
        "properties": {
            "name": {"enum": [*LossRegistry.available(), *CRITERIA]},
            "weight": {"type": "number"},
            "kwargs": {"type": "object"},
            "label": {"type": "string"},
        },
        "required": ["name"],
        "additionalProperties": False,
    }
    terms = {"type": "array", "items": {"anyOf": [term, _closed({"name": torch_loss}, "weight", "kwargs", "label")]}}
    forms = {
        "preset": _closed({"preset": {"enum": list(PRESETS)}}, "kwargs"),
        "terms": _closed({"terms": terms}, "kwargs"),
        "old": {"type": "object", "properties": {"type": {"enum": sorted(OLD_TYPES)}}, "required": ["type"]},
        "torch": _closed({"name": torch_loss}, "kwargs"),
    }
    references = [{"$ref": f"#/$defs/{name}"} for name in (*losses, *forms)]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of a loss",
        "$defs": {**losses, **forms, "loss": {"anyOf": references}},
        "anyOf": [
            {"$ref": "#/$defs/loss"},
            terms,
            {
                "type": "object",
                "properties": {"loss": {"anyOf": [{"$ref": "#/$defs/loss"}, terms]}},
                "required": ["loss"],
            },
            {"type": "object", "properties": {"criterion": terms}, "required": ["criterion"]},
        ],
    }


def _closed(required: Mapping[str, Any], *optional: str) -> dict[str, Any]:
    """An object with exactly these keys."""
    kinds = {"kwargs": {"type": "object"}, "weight": {"type": "number"}, "label": {"type": "string"}}
    return {
        "type": "object",
        "properties": {**required, **{key: kinds[key] for key in optional}},
        "required": list(required),
        "additionalProperties": False,
    }
