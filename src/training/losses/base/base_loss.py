"""The root of the hierarchy: validation of common arguments, reduction, results, old state_dict keys."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from ..functional import reduce
from . import compat
from .keywords import explained, unexpected_keyword
from .output import LossOutput, OldResult
from .state import keeps_state

REDUCTIONS = ("mean", "sum", "none")


def is_number(value: Any, *, integer: bool = False) -> bool:
    """Whether ``value`` is a number of Python or a scalar of numpy, and no truth value."""
    if isinstance(value, int if integer else (int, float)):
        return not isinstance(value, bool)
    return hasattr(value, "dtype") and isinstance(value, Integral if integer else Real)


def require_numbers(
    low: float = -math.inf,
    high: float = math.inf,
    /,
    *,
    exclusive: bool = False,
    integer: bool = False,
    optional: bool = False,
    **values: Any,
) -> None:
    """Raise ``ValueError`` unless each of ``values`` (argument name -> value) is a number in ``[low, high]``.

    ``exclusive``: greater than ``low``. ``integer``: no floats. ``optional``: ``None`` is allowed, too.
    """
    bounds = [f"{'greater than' if exclusive else 'at least'} {low:g}"] if low > -math.inf else []
    bounds += [f"at most {high:g}"] if high < math.inf else []
    wanted = " ".join(["an integer" if integer else "a number", " and ".join(bounds)]).strip()
    for name, value in values.items():
        if value is None and optional:
            continue
        valid = is_number(value, integer=integer)
        if not valid or not math.isfinite(value) or value > high or (value <= low if exclusive else value < low):
            hint = "" if not isinstance(value, Tensor) else f": a tensor is not followed, give float({name})"
            raise ValueError(f"{name} must be {wanted}, found {value!r}{hint}")


def require_number(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    exclusive: bool = False,
    integer: bool = False,
) -> None:
    """``require_numbers`` for one value, whose name may be any text."""
    require_numbers(low, high, exclusive=exclusive, integer=integer, **{name: value})


def require_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, found {value!r}")


def kind_of(value: Any) -> str:
    """What was found in place of something else: dtype and shape of a tensor, the type of anything else."""
    if isinstance(value, Tensor):
        return f"{value.dtype} {list(value.shape)}"
    if isinstance(value, int | float):
        return f"the {type(value).__name__} {value!r}"
    module = type(value).__module__
    name = type(value).__qualname__
    return "None" if value is None else name if module == "builtins" else f"{module}.{name}"


def require_tensors(hint: str = "", /, **named: Any) -> None:
    """Raise ``ValueError`` unless all are tensors (no arrays, lists, results of a tuple); ``hint`` ends the message."""
    for name, x in named.items():
        if not isinstance(x, Tensor):
            raise ValueError(f"{name} must be a tensor, found {kind_of(x)}{hint}")


def require_floating(hint: str = "", /, **named: Any) -> None:
    """``require_tensors``, of a floating dtype."""
    require_tensors(hint, **named)
    for name, x in named.items():
        if not x.is_floating_point():
            raise ValueError(f"{name} must be floating point, found {kind_of(x)}")


def require_one_dtype(**named: Tensor) -> None:
    """Raise ``ValueError`` for float64 beside float32 (matrix products do not mix; half precision becomes float32)."""
    double = [x.dtype == torch.float64 for x in named.values()]
    if any(double) and not all(double):
        found = ", ".join(f"{name} {x.dtype}" for name, x in named.items())
        raise ValueError(f"{' and '.join(named)} must have one dtype, found {found}")


def require_features(rows: int = 1, /, **named: Tensor) -> None:
    """Raise ``ValueError`` unless all are floating ``[B, D]`` tensors of one shape, with ``rows`` (1 or 2) or more.

    Sizes may be symbols of a compiler: they are compared, and become text only where there is something to say.
    """
    require_floating(**named)
    first = next(iter(named.values()))
    if any(x.dim() != 2 or x.shape != first.shape for x in named.values()):
        raise ValueError(f"{' and '.join(named)} must have one common shape [B, D], found {_shapes(named)}")
    for name, x in named.items():
        if x.shape[0] == 0:
            raise ValueError(f"{name} is an empty batch, found shape {list(x.shape)}; at least one row is needed")
        if x.shape[0] < rows:
            raise ValueError(f"at least two rows are needed, found {_shapes(named)}")


def _shapes(named: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {list(x.shape)}" for name, x in named.items())


class BaseLoss(nn.Module, ABC):
    """A loss with a checked reduction.

    Subclasses have keyword-only constructors, register themselves with ``@LossRegistry.register(name)`` and implement
    ``forward``, which returns a tensor (one term) or ``self.output(loss=..., ...)`` (several terms, metrics). State
    saved by the old class loads: its keys are renamed, under any prefix, if the new ones are missing.

    Buffers that a call writes are named in ``changing``: a call whose loss is not finite leaves them as they were, so
    that a training loop may skip such a batch.

    Args:
        reduction: ``mean`` (over valid elements), ``sum`` or ``none``.
        results_like: ``"module.Name"`` of the old class whose kind of result ``output`` gives: its keys and their
            order, its floats, its graphs. Every loss takes it. For code that uses whole results of that class.
    """

    shown: ClassVar[tuple[str, ...]] = ("reduction",)
    """Attributes that ``repr`` shows."""

    changing: tuple[str, ...] = ()
    """Buffers that a call writes."""

    results_like: str | None = None

    def __init__(self, *, reduction: str = "mean", results_like: str | None = None) -> None:
        super().__init__()
        require_choice("reduction", reduction, REDUCTIONS)
        self.reduction = reduction
        if results_like is not None:
            compat.require_results(type(self), results_like)
            self.results_like = results_like

    _old_members: ClassVar[frozenset[str]] = frozenset()
    """Names of attributes that the old classes had: ``compat`` answers them."""

    _setattr_behind = nn.Module.__setattr__

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._old_members = compat.old_members(cls)
        behind = cls.__mro__[cls.__mro__.index(BaseLoss) + 1 :]
        # what super() finds, at a third of its cost
        cls._setattr_behind = next(vars(base)["__setattr__"] for base in behind if "__setattr__" in vars(base))
        if "__init__" in vars(cls):
            cls.__init__ = explained(cls.__init__)  # type: ignore[method-assign]
        if "forward" in vars(cls):
            cls.forward = keeps_state(cls.forward)  # type: ignore[method-assign]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """``forward`` with the hooks of ``nn.Module``; an unknown keyword is explained."""
        if torch.compiler.is_compiling():
            return super().__call__(*args, **kwargs)
        try:
            return super().__call__(*args, **kwargs)
        except TypeError as error:
            explanation = unexpected_keyword(error, type(self), "forward") if kwargs else None
            if explanation is None:
                raise
            raise explanation from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._old_members and compat.write_old_member(self, name, value):
            return
        try:
            self._setattr_behind(name, value)
        except (KeyError, TypeError):
            if not self._assigned(name, value):
                raise

    def _assigned(self, name: str, value: Any) -> bool:
        """Set what torch does not: a buffer from a number, a property from a parameter."""
        known, buffer = getattr(type(self), name, None), self._buffers.get(name)
        if isinstance(known, property) and known.fset is not None:
            known.fset(self, value)
        elif buffer is not None and not buffer.dim() and is_number(value):
            self._buffers[name] = torch.full_like(buffer, value)
        else:
            return False
        return True

    def __getattr__(self, name: str) -> Any:
        # what nn.Module does for a hit: a call of its method costs what is found again at every forward
        own = self.__dict__
        for kind in ("_parameters", "_buffers", "_modules"):
            if kind in own and name in own[kind]:
                return own[kind][name]
        if name in self._old_members:
            return compat.read_old_member(self, name)
        return super().__getattr__(name)

    @abstractmethod
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The loss of one batch."""

    def apply_reduction(self, loss: Tensor, num_valid: Tensor | int | None = None) -> Tensor:
        """Reduce an element-wise loss; ``mean`` divides by ``num_valid`` (at least 1) where it is given."""
        return reduce(loss, self.reduction, num_valid)

    def output(self, loss: Tensor, **entries: Tensor) -> LossOutput:
        """A result with ``loss`` carrying the graph and every other entry (``**{"recall@1": r}``) detached."""
        if self.results_like is not None:
            old = compat.old_result(self, self.results_like, {"loss": loss, **entries})
            # for code that was written for the old class and does not see the declared type
            return cast(LossOutput, old if isinstance(old, tuple) else OldResult(old, {"loss": loss, **entries}))
        detached = {key: value.detach() if value.requires_grad else value for key, value in entries.items()}
        return LossOutput({"loss": loss, **detached}, owner=compat.path_of(type(self)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        compat.upgrade_state(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def old_state(self, state_dict: Mapping[str, Any]) -> dict[str, Any]:
        """``state_dict`` of the old class with the keys of this one; unknown keys stay."""
        converted = dict(state_dict)
        compat.upgrade_state(self, converted, "")
        return converted

    def extra_repr(self) -> str:
        """Configuration that is not visible in the sub-modules."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self.shown)
