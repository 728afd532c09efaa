"""Checkpoint files whose losses have old keys -> the keys of the new losses.

A file is understood as a tree of dicts and lists. Every dict in it that holds tensors is a state_dict, in which the
keys of a loss stand below a prefix. Which old class stands there is said by the user (``PREFIX=OLD.NAME``), or
recognised: the rules of one class, and no other with another outcome, know every key below the prefix, and the prefix
is empty or reads like a loss. Losses inside a loss are converted after it. Optimizers follow their parameters, by name
or by number. What is not understood is refused; nothing is written then.
"""

from __future__ import annotations

from .files import convert_file, default_output
from .model import CheckpointError, KeyChange, Plan
from .modules import migrate_module
from .names import parse_assignments, plan
from .optimizer import ORDERS

__all__ = [
    "ORDERS",
    "CheckpointError",
    "KeyChange",
    "Plan",
    "convert_file",
    "default_output",
    "migrate_module",
    "parse_assignments",
    "plan",
]
