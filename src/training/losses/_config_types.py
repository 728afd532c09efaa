"""Configuration values against constructor annotations: check, build what is nested, write back, JSON schema."""

from __future__ import annotations

import difflib
import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeGuard, Union, get_args, get_origin, get_type_hints

from torch import Tensor, nn

from .base.schedules import Schedule, make_schedule
from .loss_registry import LossRegistry

__all__ = [
    "ConfigError",
    "Parameter",
    "convert",
    "loss_class",
    "numbers_read",
    "parameters",
    "plain",
    "reject_unknown",
    "require_no_numeric_text",
    "schema_of",
]

TORCH_PREFIX: Final = "torch.nn."


class ConfigError(ValueError):
    """A configuration is wrong. The message starts with the path of the entry, ``loss.terms[1].kwargs.eps``."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)


class Parameter:
    """A parameter of a loss' constructor: annotation, and whether it must be given."""

    def __init__(self, hint: Any, default: Any) -> None:
        self.hint, self.default = hint, default
        self.required = default is inspect.Parameter.empty


def reject_unknown(path: str, given: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Raise for the first key of ``given`` that is not among ``allowed``, with the closest that is."""
    for key in given:
        if key not in allowed:
            close = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(sorted(allowed))}"
            raise ConfigError(f"{path}.{key}" if path else str(key), f"unknown key; {hint}")


def _is_class(hint: Any, base: type) -> TypeGuard[type]:
    """Whether ``hint`` is ``base`` or a class below it (Python 3.10 takes ``list[int]`` for a class)."""
    return inspect.isclass(hint) and get_origin(hint) is None and issubclass(hint, base)


def loss_class(name: Any, path: str) -> type[nn.Module]:
    """The class of a registry name, or of ``torch.nn.<Name>Loss``."""
    if not isinstance(name, str):
        raise ConfigError(path, f"expected the name of a loss, found {name!r}")
    if name.startswith(TORCH_PREFIX):
        found = getattr(nn, name.removeprefix(TORCH_PREFIX), None)
        if _is_class(found, nn.modules.loss._Loss):
            return found
        raise ConfigError(path, f"{name!r} is no loss of torch.nn")
    try:
        return LossRegistry.get(name)
    except ValueError as error:
        raise ConfigError(path, str(error)) from None


def parameters(loss: type[nn.Module]) -> dict[str, Parameter]:
    """The keyword parameters of a constructor; ``**kwargs`` go on to the next constructor among its bases."""
    found: dict[str, Parameter] = {}
    for base in loss.__mro__:
        if "__init__" not in vars(base):
            continue
        init = vars(base)["__init__"]
        hints = get_type_hints(init)
        own = [p for name, p in inspect.signature(init).parameters.items() if name != "self"]
        named = {p.name: Parameter(hints.get(p.name, Any), p.default) for p in own if p.kind is not p.VAR_KEYWORD}
        found = {**named, **found}
        if len(named) == len(own):
            break
    return found


def _as_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_EXPONENT: Final = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+|[-+]?\.[0-9]+[eE][-+]?[0-9]+")
"""Numbers with an exponent, by YAML 1.2. Of these PyYAML takes those with a point and a signed exponent alone."""
_OLD_BOOLEANS: Final = ("yes", "no", "on", "off")


def numbers_read(config: Any) -> Any:
    """``config`` with numbers in place of the texts that PyYAML makes of ``1e-8`` and the like."""
    if isinstance(config, str):
        return float(config) if _EXPONENT.fullmatch(config) else config
    if isinstance(config, Mapping):
        return {key: numbers_read(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [numbers_read(value) for value in config]
    return config


def _wrong(path: str, expected: str, value: Any) -> ConfigError:
    hint = ""
    if isinstance(value, str) and expected in ("a number", "an integer") and _as_number(value):
        return ConfigError(path, f"expected {expected}, found the text {value!r}: remove quotes if there are any")
    if isinstance(value, str) and expected == _SCALARS[bool][0] and value.lower() in _OLD_BOOLEANS:
        hint = ": YAML 1.2 reads it as a text, write true or false"
    return ConfigError(path, f"expected {expected}, found {value!r}{hint}")


_SCALARS: Final[dict[Any, tuple[str, Callable[[Any], bool], dict[str, Any]]]] = {
    float: ("a number", lambda v: isinstance(v, (int, float)) and not isinstance(v, bool), {"type": "number"}),
    int: ("an integer", lambda v: isinstance(v, int) and not isinstance(v, bool), {"type": "integer"}),
    bool: ("true or false", lambda v: isinstance(v, bool), {"type": "boolean"}),
    str: ("a text", lambda v: isinstance(v, str), {"type": "string"}),
    type(None): ("null", lambda v: v is None, {"type": "null"}),
}

Build = Callable[[Any, str], nn.Module]


def convert(hint: Any, value: Any, path: str, build: Build) -> Any:
    """``value`` as a parameter annotated ``hint`` takes it; nested losses are built by ``build``.

    Raises:
        ConfigError: it does not fit.
    """
    if hint in _SCALARS:
        expected, fits, _ = _SCALARS[hint]
        if not fits(value):
            raise _wrong(path, expected, value)
        return value
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(hint), value, path, build)
    if origin is Literal:
        if value not in get_args(hint):
            raise _wrong(path, f"one of {', '.join(map(repr, get_args(hint)))}", value)
        return value
    if _is_class(origin, Mapping):
        item = get_args(hint)[1]
        if not isinstance(value, Mapping):
            raise _wrong(path, "a mapping", value)
        return {key: convert(item, entry, f"{path}.{key}", build) for key, entry in value.items()}
    if _is_class(origin, Sequence):
        items = get_args(hint)
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise _wrong(path, "a list", value)
        fixed = origin is tuple and Ellipsis not in items
        if fixed and len(value) != len(items):
            raise _wrong(path, f"a list of {len(items)}", value)
        made = [convert(items[i] if fixed else items[0], v, f"{path}[{i}]", build) for i, v in enumerate(value)]
        return tuple(made) if origin is tuple else made
    if _is_class(hint, nn.Module):
        return value if isinstance(value, nn.Module) else build(value, path)
    if _is_class(hint, Schedule):
        return _schedule(value, path)
    if hint is Tensor and not isinstance(value, Tensor):
        raise _wrong(path, "a tensor", value)
    return value


def _schedule(value: Any, path: str) -> Schedule:
    if not isinstance(value, (Schedule, Mapping)):
        raise _wrong(path, "a schedule such as {type: linear_ramp, start: 0.0, end: 1.0, length: 100}", value)
    try:
        return make_schedule(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(path, str(error)) from None


def require_no_numeric_text(value: Any, path: str) -> None:
    """Raise for a text that reads as a number, also inside lists and mappings."""
    if isinstance(value, str) and _as_number(value):
        raise _wrong(path, "a number", value)
    if isinstance(value, Mapping):
        for key, item in value.items():
            require_no_numeric_text(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            require_no_numeric_text(item, f"{path}[{i}]")


def _convert_union(options: Sequence[Any], value: Any, path: str, build: Build) -> Any:
    if float in options or int in options:
        require_no_numeric_text(value, path)
    if Schedule in options and value is not None:
        return _schedule(value, path)
    errors = []
    for option in sorted(options, key=lambda o: o in _SCALARS, reverse=True):
        try:
            return convert(option, value, path, build)
        except ConfigError as error:
            errors.append((option, error))
    # the complaint that is most to the point: deepest in the file, then that of the option of the value's own kind
    deepest = max((error for _, error in errors), key=lambda error: len(str(error).partition(": ")[0]))
    if not str(deepest).startswith(f"{path}: "):
        raise deepest
    kinds = [_name(option) for option in options]
    if isinstance(value, Mapping) and nn.Module in options:
        raise next(error for option, error in errors if option is nn.Module)
    raise _wrong(path, " or ".join(kinds), value)


def _name(hint: Any) -> str:
    if hint in _SCALARS:
        return _SCALARS[hint][0]
    origin = get_origin(hint) or hint
    if _is_class(origin, nn.Module):
        return "a loss such as {name: vicreg}"
    if _is_class(origin, Mapping):
        return "a mapping"
    return "a list" if _is_class(origin, Sequence) else str(getattr(hint, "__name__", hint))


def plain(value: Any, path: str, describe: Callable[[nn.Module, str], dict[str, Any]]) -> Any:
    """``value`` as YAML, JSON and TOML can hold it; losses by ``describe``.

    Raises:
        ConfigError: it cannot be written, for instance a network.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, nn.Module):
        return describe(value, path)
    if isinstance(value, Schedule):
        return plain(value.config(), path, describe)
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{path}.{key}", describe) for key, item in value.items()}
    if isinstance(value, (Sequence, set, frozenset)):
        return [plain(item, f"{path}[{i}]", describe) for i, item in enumerate(value)]
    raise ConfigError(path, f"a {type(value).__name__} cannot be written to a configuration")


def schema_of(hint: Any) -> dict[str, Any]:
    """The JSON schema of values that ``convert`` accepts for ``hint``."""
    if hint in _SCALARS:
        return dict(_SCALARS[hint][2])
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(option) for option in arguments if option is not Tensor]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if _is_class(origin, Mapping):
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if _is_class(origin, Sequence):
        if origin is tuple and Ellipsis not in arguments:
            items = [schema_of(item) for item in arguments]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        return {"type": "array", "items": schema_of(arguments[0])}
    if _is_class(hint, nn.Module):
        return {"$ref": "#/$defs/loss"}
    if _is_class(hint, Schedule):
        return {"type": "object", "required": ["type"]}
    return {}
