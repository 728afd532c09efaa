"""The name of ``training_losses.migration.checkpoint`` in 1.0."""

from __future__ import annotations

from .checkpoint import *  # noqa: F403  # the same names, for code written against 1.0
