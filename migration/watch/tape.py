"""The file of one process. Nothing here needs torch."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["BYTES", "Tape", "open_tape", "unseen"]

BYTES = 64 << 20


class Tape:
    """The file of one process."""

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        name = f"{header['start']:020d}-{header['pid']}.jsonl"
        self.path = folder / name
        self.size = 0
        self.full = False
        self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.write(json.dumps({"k": "p", **header}))

    def write(self, line: str) -> None:
        """Append a line, unless the file is full."""
        if self.full:
            return
        data = f"{line}\n".encode()
        self.size += len(data)
        if self.size > BYTES:
            self.full = True
            data = json.dumps({"k": "x", "what": f"the file is full at {BYTES} bytes"}).encode() + b"\n"
        os.write(self._handle, data)

    def close(self) -> None:
        """Release the file."""
        os.close(self._handle)


def open_tape(folder: Path, forked_from: str = "") -> Tape:
    """The file of this process, with a first line that says which one it is."""
    return Tape(
        folder,
        {
            "pid": os.getpid(),
            "ppid": os.getppid(),
            "start": time.time_ns(),
            "rank": os.environ.get("RANK", ""),
            "argv": [argument[:200] for argument in getattr(sys, "orig_argv", sys.argv)[:8]],
            "forked": forked_from,
        },
    )


def unseen(tape: Tape, error: Exception) -> None:
    """Say in the log what could not be seen; nothing of it may reach the program."""
    with contextlib.suppress(Exception):
        tape.write(json.dumps({"k": "x", "what": f"not seen: {type(error).__name__}: {error}"[:300]}))
