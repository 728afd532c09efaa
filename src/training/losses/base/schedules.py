"""Values that change over training time: pure functions of the position, and the module that follows them.

A schedule has no state. :class:`ScheduledModule` keeps the position in a buffer, so that it is saved.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

__all__ = [
    "CosineRamp",
    "Curriculum",
    "LinearRamp",
    "PiecewiseConstant",
    "PiecewiseLinear",
    "Schedule",
    "ScheduledModule",
    "make_schedule",
]


class Schedule(ABC):
    """A number (or one per level) as a function of the position in training (steps or epochs, fractions allowed)."""

    kind: ClassVar[str]

    @abstractmethod
    def __call__(self, position: float) -> float | tuple[float, ...]:
        """The value at ``position``."""

    def config(self) -> dict[str, Any]:
        """The mapping from which ``make_schedule`` builds it again."""
        return {"type": self.kind, **vars(self)}

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), tuple(vars(self).items())))

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({arguments})"


def _require_increasing(name: str, positions: Sequence[float]) -> None:
    if any(b <= a for a, b in pairwise(positions)):
        raise ValueError(f"{name} must increase strictly, got {tuple(positions)}")


class PiecewiseConstant(Schedule):
    r"""Steps: ``values[k]`` from ``boundaries[k - 1]`` (included) up to ``boundaries[k]`` (excluded).

    Args:
        boundaries: strictly increasing positions at which the value changes.
        values: one more value than there are boundaries.

    Raises:
        ValueError: the boundaries do not increase, or the lengths do not fit.
    """

    kind = "piecewise_constant"

    def __init__(self, *, boundaries: Sequence[float], values: Sequence[float]) -> None:
        self.boundaries, self.values = tuple(boundaries), tuple(values)
        _require_increasing("boundaries", self.boundaries)
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError(
                f"values must have one entry more than boundaries, got {len(self.values)} for {len(self.boundaries)}"
            )

    def __call__(self, position: float) -> float:
        return self.values[sum(position >= boundary for boundary in self.boundaries)]


class PiecewiseLinear(Schedule):
    """Straight lines through the points ``(positions[k], values[k])``, constant before the first and after the last.

    Raises:
        ValueError: no points, positions that do not increase, or unequal lengths.
    """

    kind = "piecewise_linear"

    def __init__(self, *, positions: Sequence[float], values: Sequence[float]) -> None:
        self.positions, self.values = tuple(positions), tuple(values)
        _require_increasing("positions", self.positions)
        if not self.positions or len(self.values) != len(self.positions):
            raise ValueError(
                f"positions and values must have the same length of at least 1, got {len(self.positions)} and "
                f"{len(self.values)}"
            )

    def __call__(self, position: float) -> float:
        after = sum(position >= p for p in self.positions)
        if after in (0, len(self.positions)):
            return self.values[min(after, len(self.positions) - 1)]
        (p0, p1), (v0, v1) = self.positions[after - 1 : after + 1], self.values[after - 1 : after + 1]
        return v0 + (v1 - v0) * (position - p0) / (p1 - p0)


class _Ramp(Schedule):
    """From ``start`` to ``end`` over ``length`` positions, constant before and after."""

    def __init__(self, *, start: float, end: float, length: float, begin: float = 0.0) -> None:
        if length < 0:
            raise ValueError(f"length must be at least 0, got {length}")
        self.start, self.end, self.length, self.begin = start, end, length, begin

    @staticmethod
    @abstractmethod
    def _shape(progress: float) -> float:
        """The share of the way gone at ``progress`` in [0, 1]."""

    def __call__(self, position: float) -> float:
        passed = position - self.begin
        if passed >= self.length:
            return self.end
        return self.start + (self.end - self.start) * self._shape(passed / self.length if passed > 0 else 0.0)


class LinearRamp(_Ramp):
    r"""A straight line: ``start + (end - start) * clamp((t - begin) / length, 0, 1)``.

    Args:
        start: value before and at ``begin``.
        end: value from ``begin + length`` on.
        length: duration; 0 gives ``end`` at once.
        begin: position at which the ramp starts.

    Raises:
        ValueError: ``length`` is negative.
    """

    kind = "linear_ramp"

    @staticmethod
    def _shape(progress: float) -> float:
        return progress


class CosineRamp(_Ramp):
    r"""Half a cosine wave: ``start + (end - start) * (1 - cos(pi * p)) / 2``, ``p`` and arguments as in LinearRamp."""

    kind = "cosine_ramp"

    @staticmethod
    def _shape(progress: float) -> float:
        return (1.0 - math.cos(math.pi * progress)) / 2.0


class Curriculum(Schedule):
    """One weight per level, switched on one after the other: ``w_i clamp((t - s_i) / length, 0, 1)``.

    A level counts from its start on (``length`` 0: at once). Levels that are learned first get the smallest start.

    Args:
        weights: ``w``, the final weights.
        starts: ``s``, the position at which each level begins to count.
        length: duration of each level's ramp.

    Raises:
        ValueError: unequal lengths, no level, or a negative duration.
    """

    kind = "curriculum"

    def __init__(self, *, weights: Sequence[float], starts: Sequence[float], length: float = 0.0) -> None:
        self.weights, self.starts, self.length = tuple(weights), tuple(starts), length
        if not self.weights or len(self.weights) != len(self.starts):
            raise ValueError(
                f"weights and starts must have the same length of at least 1, got {len(self.weights)} and "
                f"{len(self.starts)}"
            )
        if length < 0:
            raise ValueError(f"length must be at least 0, got {length}")

    def __call__(self, position: float) -> tuple[float, ...]:
        def share(passed: float) -> float:
            if self.length == 0:
                return float(passed >= 0)
            return min(max(passed / self.length, 0.0), 1.0)

        return tuple(w * share(position - s) for w, s in zip(self.weights, self.starts, strict=True))


_KINDS: dict[str, type[Schedule]] = {
    schedule.kind: schedule for schedule in (PiecewiseConstant, PiecewiseLinear, LinearRamp, CosineRamp, Curriculum)
}


def make_schedule(spec: Schedule | Mapping[str, Any]) -> Schedule:
    """A schedule as it is, or built from ``{"type": "linear_ramp", "start": ..., ...}`` (for configuration files).

    Raises:
        ValueError: unknown ``type``, or arguments that it does not take.
    """
    if isinstance(spec, Schedule):
        return spec
    arguments = dict(spec)
    kind = arguments.pop("type", None)
    if kind not in _KINDS:
        raise ValueError(f"schedule type must be one of {sorted(_KINDS)}, got {kind!r}")
    try:
        return _KINDS[kind](**arguments)
    except TypeError as error:
        raise ValueError(f"schedule {kind!r}: {error}") from error


class ScheduledModule(nn.Module):
    """A module of which some hyper-parameters may follow a schedule.

    ``schedulable`` names them. A scheduled hyper-parameter becomes a buffer of that name, so that a compiled loss sees
    its changes; only the position is part of the state_dict (``schedule_position``), the values follow from it.
    """

    schedulable: ClassVar[tuple[str, ...]] = ()

    def attach_schedules(self, schedules: Mapping[str, Schedule | Mapping[str, Any]] | None) -> None:
        """Let hyper-parameters follow ``schedules`` (name -> schedule, or its configuration), from position 0.

        Raises:
            ValueError: a name that is not schedulable, or a broken configuration.
        """
        for name in schedules or ():
            if name not in self.schedulable:
                raise ValueError(f"schedules: {name!r} cannot be scheduled (possible: {list(self.schedulable)})")
        self.schedules: dict[str, Schedule] = {name: make_schedule(spec) for name, spec in (schedules or {}).items()}
        if not self.schedules:
            return
        self.register_buffer("schedule_position", torch.zeros(()))
        for name, schedule in self.schedules.items():
            delattr(self, name)
            self.register_buffer(name, torch.tensor(schedule(0.0)), persistent=False)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self.schedules:
            self._follow_schedules()

    def step_schedule(self, step: float | None = None) -> None:
        """Move to ``step`` (or epoch: the unit of the schedules); without it, to the next integer position.

        Drives the schedules of this module and of everything in it.

        Raises:
            ValueError: there is none.
        """
        driven = [m for m in self.modules() if isinstance(m, ScheduledModule) and m.schedules]
        if not driven:
            raise ValueError("step_schedule: no schedule is attached")
        for module in driven:
            with torch.no_grad():
                here: Tensor = module.get_buffer("schedule_position")
                here.add_(1) if step is None else here.fill_(step)
            module._follow_schedules(step)

    def _follow_schedules(self, position: float | None = None) -> None:
        at = float(self.get_buffer("schedule_position")) if position is None else position
        for name, schedule in self.schedules.items():
            buffer = self.get_buffer(name)
            buffer.copy_(torch.as_tensor(schedule(at), dtype=buffer.dtype))

    def current(self, name: str) -> Any:
        """The hyper-parameter ``name`` as it is now: of a tensor a copy, since it may move before the backward pass."""
        value = getattr(self, name)
        return value.clone() if isinstance(value, Tensor) else value

    def scheduled_or_positive(self, name: str) -> bool:
        """Whether a term weighted by hyper-parameter ``name`` has to be computed (no look at tensor values)."""
        return name in self.schedules or getattr(self, name) > 0
