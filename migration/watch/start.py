"""What an interpreter does at its start if the environment asks for it."""

from __future__ import annotations

import os

__all__ = ["start"]


def start() -> None:
    """Serve old paths, record, or both."""
    if os.environ.get("TRAINING_LOSSES_SHIMS") == "1":
        from ..shims import install

        install()
    if os.environ.get("TRAINING_LOSSES_WATCH"):
        from .process import install as record

        record()
