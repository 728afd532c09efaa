"""What the balancers share: named scalar terms, given in a mapping or computed by losses that the balancer owns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..base import BaseLoss, LossOutput, kind_of
from ..base.schedules import ScheduledModule
from ..functional import upcast
from .terms import TermsLoss

__all__ = ["Arguments", "NamedScalars", "Names", "TermBalancer", "Terms", "per_name", "stack_values", "tagged"]

Terms: TypeAlias = Mapping[str, nn.Module] | None
"""Owned losses by name."""

Arguments: TypeAlias = Mapping[str, Mapping[str, str]] | None
"""Per owned term, its parameter -> keyword of the call."""

Names: TypeAlias = Sequence[str] | None
"""Names of given values."""

_RESERVED = frozenset(dir(nn.Module()))


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of terms: distinct, not empty, usable as part of a state_dict key.

    Raises:
        ValueError: otherwise.
    """
    checked = tuple(names)
    if not checked or len(set(checked)) < len(checked):
        raise ValueError(f"names must be one or more distinct names, found {list(checked)}")
    for name in checked:
        if not isinstance(name, str) or not name or "." in name or name in _RESERVED:
            raise ValueError(f"names: {name!r} cannot name a term (no dots, no attribute of nn.Module)")
    return checked


def per_name(argument: str, value: Any, names: Sequence[str], default: Any) -> tuple[Any, ...]:
    """``value`` for every name: one for all, or a mapping whose missing names get ``default``.

    Raises:
        ValueError: the mapping has a name that is no term.
    """
    if not isinstance(value, Mapping):
        return tuple(value for _ in names)
    unknown = sorted(set(value) - set(names))
    if unknown:
        raise ValueError(f"{argument}: {unknown} are no terms (terms: {list(names)})")
    return tuple(value.get(name, default) for name in names)


def stack_values(values: Mapping[str, Tensor]) -> Tensor:
    """The values as one vector ``[T]`` of their common dtype; half precision becomes float32."""
    dtype = reduce(torch.promote_types, (value.dtype for value in values.values()))
    return upcast(torch.stack([value.to(dtype) for value in values.values()]))


def tagged(tag: str, names: Iterable[str], values: Tensor) -> dict[str, Tensor]:
    """Entries ``TAG.NAME`` of a result."""
    return {f"{tag}.{name}": value for name, value in zip(names, values.unbind(), strict=True)}


class NamedScalars(nn.Module):
    """One 0-d tensor per term, under its name in the state_dict; trainable or not."""

    def __init__(self, values: Mapping[str, float], *, trainable: bool = False) -> None:
        super().__init__()
        self.changing = () if trainable else tuple(values)
        for name, value in values.items():
            scalar = torch.tensor(float(value))
            if trainable:
                self.register_parameter(name, nn.Parameter(scalar))
            else:
                self.register_buffer(name, scalar)

    def stack(self) -> Tensor:
        """All values as a vector, with a graph where they are trained."""
        return torch.stack([*self.parameters(), *self.buffers()])

    def write(self, values: Tensor) -> None:
        """Replace all values."""
        with torch.no_grad():
            for scalar, value in zip([*self.parameters(), *self.buffers()], values.unbind(), strict=True):
                scalar.copy_(value)


class TermBalancer(TermsLoss, ScheduledModule):
    """Several named scalar losses become one.

    A balancer either *is given* values, ``balancer({"l1": ..., "lpips": ...})``, or *owns* the losses that compute
    them: with ``terms={"l1": nn.L1Loss(), ...}`` it is called with their arguments, which it hands on as
    ``WeightedSumLoss`` does. It builds no network. Sub-classes implement ``combine``.

    Args:
        terms: name -> loss; each returns a 0-d tensor, or a dict whose ``"loss"`` is one.
        arguments: per owned term, its parameter -> keyword of the call, where the two differ.
        names: names of the values, when there are no ``terms``; needed by balancers that keep a state per term.

    Raises:
        ValueError: both ``terms`` and ``names``; a name with a dot or taken by ``nn.Module``; in ``forward`` missing
            or unknown names, or a value that is not 0-d.
        TypeError: a keyword that no owned term takes.
    """

    needs_names = False

    def __init__(
        self,
        *,
        terms: Terms = None,
        arguments: Arguments = None,
        names: Names = None,
    ) -> None:
        if terms is not None and names is not None:
            raise ValueError("give either terms or names, found both")
        given = names if terms is None else terms
        if self.needs_names and given is None:
            raise ValueError(f"{type(self).__name__} keeps a state per term: give terms or names")
        checked = None if given is None else check_names(given)
        if terms is not None:
            super().__init__(terms=terms, arguments=arguments)
        else:
            BaseLoss.__init__(self)
            if arguments:
                raise ValueError("arguments belong to terms; without terms the values are given")
            self.terms = nn.ModuleDict()
        self.names: tuple[str, ...] | None = checked

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """The names, of a balancer that needs them."""
        return self.names or ()

    def compute(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """The values of the owned terms for these arguments, with their graphs.

        Raises:
            ValueError: the balancer owns none.
        """
        if not self.terms:
            raise ValueError(f"{type(self).__name__} owns no terms: call it with a mapping of values")
        return self.call_terms(self.terms, args, kwargs)[0]

    def forward(self, *args: Any, **kwargs: Any) -> LossOutput:
        """``combine`` of the given ``values``, or of those that the owned terms compute from the arguments."""
        return self.combine(self.compute(*args, **kwargs)) if self.terms else self.combine(*args, **kwargs)

    @abstractmethod
    def combine(self, values: Mapping[str, Tensor]) -> LossOutput:
        """The balanced loss of the values."""

    def checked(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The values in the order of the names.

        Raises:
            ValueError: missing or unknown names, or values that are not 0-d floating tensors.
        """
        if not isinstance(values, Mapping) or not values:
            raise ValueError(f"values must be a mapping of names to 0-d tensors, found {type(values).__name__}")
        names = tuple(values) if self.names is None else self.names
        if set(names) != set(values):
            raise ValueError(f"values must be {list(names)}, found {list(values)}")
        for name in names:
            value = values[name]
            if not isinstance(value, Tensor) or value.dim() or not value.is_floating_point():
                raise ValueError(f"values[{name!r}] must be a 0-d floating tensor, found {kind_of(value)}")
        return {name: values[name] for name in names}

    def extra_repr(self) -> str:
        """Names."""
        return f"names={list(self.names)}" if self.names else ""
