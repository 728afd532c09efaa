"""Losses of networks that run over time, and what they are shown."""

from __future__ import annotations

from ..functional.activity import mean_activity
from .cross_entropy import TemporalCrossEntropyLoss
from .energy import Attachment, EnergyLoss, Finding, ModuleActivity
from .presentation import (
    PresentationSchedule,
    Rows,
    Sequences,
    onset_mask,
    parse_pattern,
    reaction_mask,
    reaction_steps,
    select_valid,
    select_void,
    stretch_pattern,
    void_mask,
)

__all__ = [
    "Attachment",
    "EnergyLoss",
    "Finding",
    "ModuleActivity",
    "PresentationSchedule",
    "Rows",
    "Sequences",
    "TemporalCrossEntropyLoss",
    "mean_activity",
    "onset_mask",
    "parse_pattern",
    "reaction_mask",
    "reaction_steps",
    "select_valid",
    "select_void",
    "stretch_pattern",
    "void_mask",
]
