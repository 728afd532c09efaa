"""Schedules of a balancer's hyper-parameters, attached by name."""

from __future__ import annotations

from ..base.schedules import (
    CosineRamp,
    Curriculum,
    LinearRamp,
    PiecewiseConstant,
    PiecewiseLinear,
    Schedule,
    ScheduledModule,
    make_schedule,
)

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
