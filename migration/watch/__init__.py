"""Old and new losses watched in the user's own run: a recorder, and what is built on it."""

from __future__ import annotations

from typing import Any

__all__ = ["Shadow", "shadow"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import beside

        return getattr(beside, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
