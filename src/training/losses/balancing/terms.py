"""What all losses over named terms share: names, weights, calling the terms, reading their results."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from ..base import BaseLoss, require_number

__all__ = ["TermsLoss", "check_weights", "named_modules", "term_value"]


def named_modules(argument: str, modules: Mapping[str, nn.Module]) -> nn.ModuleDict:
    """``modules`` as a ``ModuleDict``.

    Raises:
        ValueError: nothing given, a name that cannot be part of a state_dict key, or a value that is no module.
    """
    if not modules:
        raise ValueError(f"{argument} must hold at least one loss, found none")
    for name, module in modules.items():
        if not isinstance(name, str) or not name or "." in name or hasattr(nn.ModuleDict, name):
            raise ValueError(f"{argument}: a name must be a non-empty string without dots, other than {name!r}")
        if not isinstance(module, nn.Module):
            raise ValueError(f"{argument}[{name!r}] must be a torch.nn.Module, found {type(module).__name__}")
    return nn.ModuleDict(dict(modules))


def check_weights(weights: Mapping[str, float] | None, names: Iterable[str]) -> dict[str, float]:
    """One weight per name, 1 where none is given.

    Raises:
        ValueError: a negative weight, an unknown name, or nothing but zeros.
    """
    known = list(names)
    unknown = sorted(set(weights or {}) - set(known))
    if unknown:
        raise ValueError(f"weights: unknown names {unknown} (known: {known})")
    complete = {name: (weights or {}).get(name, 1.0) for name in known}
    for name, weight in complete.items():
        require_number(f"weights[{name!r}]", weight, low=0.0)
    if not any(complete.values()):
        raise ValueError(f"weights must not all be 0, found {complete}")
    return complete


def term_value(name: str, result: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Value and metrics of what a term returned: a tensor, or a mapping with a tensor ``loss``.

    Raises:
        ValueError: anything else.
    """
    value = result.get("loss") if isinstance(result, Mapping) else result
    if not isinstance(value, Tensor):
        found = f"a dict with keys {list(result)}" if isinstance(result, Mapping) else type(result).__name__
        raise ValueError(f"term {name!r} must return a tensor, or a dict with a tensor 'loss'; found {found}")
    if not isinstance(result, Mapping):
        return value, {}
    return value, {key: entry for key, entry in result.items() if key != "loss" and isinstance(entry, Tensor)}


class TermsLoss(BaseLoss):
    """Base of losses that combine named terms, each of which is called with the arguments it takes.

    Positional arguments go to every term. A keyword goes to the terms whose ``forward`` has a parameter of that name.

    Args:
        terms: name -> loss, which returns a tensor, or a dict with ``loss``.
        arguments: per term, its parameter -> keyword of this call, where the two differ:
            ``{"vicreg": {"z_a": "vision_features", "z_b": "text_features"}}``.
    """

    terms: nn.ModuleDict

    def __init__(
        self, *, terms: Mapping[str, nn.Module], arguments: Mapping[str, Mapping[str, str]] | None = None
    ) -> None:
        super().__init__()
        self.terms = named_modules("terms", terms)
        unknown = sorted(set(arguments or {}) - set(self.terms))
        if unknown:
            raise ValueError(f"arguments: unknown terms {unknown} (known: {list(self.terms)})")
        self.arguments = {name: dict((arguments or {}).get(name, {})) for name in self.terms}
        self._accepted: dict[str, frozenset[str] | None] = {}
        for name, term in self.terms.items():
            parameters = inspect.signature(term.forward).parameters.values()
            takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
            self._accepted[name] = None if takes_all else frozenset(p.name for p in parameters)

    def call_terms(
        self, names: Iterable[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Values of the terms ``names``, and the metrics of all under ``metrics.<term>.<key>``.

        Raises:
            TypeError: a keyword that no term takes.
            ValueError: the values do not have one shape.
        """
        self._check_keywords(kwargs)
        values: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for name in names:
            renamed, accepted = self.arguments[name], self._accepted[name]
            given = {k: v for k, v in kwargs.items() if accepted is None or k in accepted}
            given |= {own: kwargs[source] for own, source in renamed.items() if source in kwargs}
            values[name], found = term_value(name, self.terms[name](*args, **given))
            metrics |= {f"metrics.{name}.{key}": entry for key, entry in found.items()}
        if len({value.shape for value in values.values()}) > 1:
            shapes = {name: list(value.shape) for name, value in values.items()}
            raise ValueError(f"the terms must return values of one shape, found {shapes}")
        return values, metrics

    def _check_keywords(self, kwargs: Mapping[str, Any]) -> None:
        for key in kwargs:
            renamed = any(key in renames.values() for renames in self.arguments.values())
            if not renamed and not any(taken is None or key in taken for taken in self._accepted.values()):
                raise TypeError(f"no term takes the argument {key!r} (terms: {list(self.terms)})")

    def extra_repr(self) -> str:
        """Nothing: the terms are sub-modules."""
        return ""
