"""Places in the user's own files, from frames."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType

__all__ = ["Places"]

_OWN = ("training_losses", "training_losses.legacy", "training_losses.migration")
"""Packages of this project: a frame in one of them is no place of the user's."""
_TOP = str(Path(__file__).resolve().parents[2]) + os.sep
"""Where they lie; old files of the same names in the user's tree are the user's."""


class Places:
    """Finds the user's line behind a call, in the tree ``root`` if there is one."""

    def __init__(self, root: Path) -> None:
        self.root = f"{root.resolve()}{os.sep}"
        self.files: dict[str, str | None] = {}

    def _file(self, name: str) -> str | None:
        """The file of a frame, relative to the tree if it lies there; ``None`` inside this project or the standard
        library's ways to call."""
        known = self.files.get(name, "")
        if known != "":
            return known
        path = os.path.realpath(name) if not name.startswith("<") else name
        found: str | None = path
        if any(path.startswith(folder) for folder in self._own()):
            found = None
        elif path.startswith(self.root):
            found = path[len(self.root) :]
        self.files[name] = found
        return found

    @staticmethod
    def _own() -> list[str]:
        paths = [p for m in _OWN if m in sys.modules for p in getattr(sys.modules[m], "__path__", ())]
        real = [os.path.realpath(p) + os.sep for p in paths]
        return [p for p in real if p.startswith(_TOP)]

    def ours(self, frame: FrameType) -> bool:
        """Whether a frame is this project's own."""
        return self._file(frame.f_code.co_filename) is None

    def of(self, frame: FrameType | None) -> tuple[str, int]:
        """The first frame in the user's tree, else the first that is neither ours nor a package's."""
        second: tuple[str, int] | None = None
        third: tuple[str, int] | None = None
        while frame is not None:
            file = self._file(frame.f_code.co_filename)
            if file is not None:
                here = (file, frame.f_lineno)
                if not os.path.isabs(file) and not file.startswith("<"):
                    return here
                third = third or here
                if second is None and "site-packages" not in file and f"{os.sep}lib{os.sep}python" not in file:
                    second = here
            frame = frame.f_back
        return second or third or ("<unknown>", 0)
