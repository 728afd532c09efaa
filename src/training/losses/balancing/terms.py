"""What all losses over named terms share: names, weights, calling the terms, reading their results."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from ..base import BaseLoss, require_number


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
    if isinstance(result, Tensor):
        return result, {}
    entries = dict(result) if isinstance(result, Mapping) else {}
    tensors = {key: entry for key, entry in entries.items() if isinstance(entry, Tensor)}
    if "loss" not in tensors:
        found = f"a dict with keys {list(entries)}" if isinstance(result, Mapping) else type(result).__name__
        raise ValueError(f"term {name!r} must return a tensor, or a dict with a tensor 'loss'; found {found}")
    return tensors.pop("loss"), tensors


class TermsLoss(BaseLoss):
    """Base of losses that combine named terms, each of which is called with the arguments it takes.

    Positional arguments go to every term. A keyword goes to the terms whose ``forward`` has a parameter of that name.

    Args:
        terms: name -> loss, which returns a tensor, or a dict with ``loss``.
        arguments: per term, its parameter -> keyword of this call, where the two differ:
            ``{"vicreg": {"z_a": "vision_features", "z_b": "text_features"}}``.
    """

    shown: ClassVar[tuple[str, ...]] = ()  # the terms are sub-modules
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
        self._sources: dict[str, list[tuple[str, str]]] = {}
        self._takes_all: set[str] = set()
        for name, term in self.terms.items():
            parameters = inspect.signature(term.forward).parameters.values()
            self._sources[name] = [*((p.name, p.name) for p in parameters), *self.arguments[name].items()]
            if any(p.kind is p.VAR_KEYWORD for p in parameters):
                self._takes_all.add(name)
        self._keywords = {source for pairs in self._sources.values() for _, source in pairs}

    def call_terms(
        self, names: Iterable[str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Values of the terms ``names``, and the metrics of all under ``metrics.<term>.<key>``.

        Raises:
            TypeError: a keyword that no term takes.
            ValueError: the values do not have one shape.
        """
        for key in kwargs:
            if key not in self._keywords and not self._takes_all:
                raise TypeError(f"no term takes the argument {key!r} (terms: {list(self.terms)})")
        values: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for name in names:
            given = dict(kwargs) if name in self._takes_all else {}
            for parameter, source in self._sources[name] if kwargs else ():
                if source in kwargs:
                    given[parameter] = kwargs[source]
            values[name], found = term_value(name, self.terms[name](*args, **given))
            if found:
                metrics |= {f"metrics.{name}.{key}": entry for key, entry in found.items()}
        if len({value.shape for value in values.values()}) > 1:
            shapes = {name: list(value.shape) for name, value in values.items()}
            raise ValueError(f"the terms must return values of one shape, found {shapes}")
        return values, metrics
