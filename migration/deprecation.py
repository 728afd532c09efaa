"""The one helper that legacy twins import."""

from __future__ import annotations


def deprecated_module(name: str) -> None:
    """Make the module ``name`` warn at every statement that imports it."""
