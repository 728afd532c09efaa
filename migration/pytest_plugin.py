"""Pytest plugin that serves old import paths: ``pytest -p training_losses.migration.pytest_plugin``."""

from __future__ import annotations

from .shims import install_for_children

install_for_children()
