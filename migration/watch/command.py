"""Runs the user's command, keeps the beginning of what it prints, and counts the rest."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

__all__ = ["KEPT", "Ran", "run_command"]

KEPT = 4 << 20
"""Bytes of each stream that are kept from the beginning, and as many as ``TAIL`` from the end."""
TAIL = 1 << 16


@dataclass
class _Stream:
    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    size: int = 0

    def take(self, pipe: IO[bytes]) -> None:
        while True:
            data = os.read(pipe.fileno(), 1 << 16)
            if not data:
                return
            self.size += len(data)
            room = KEPT - len(self.head)
            self.head += data[:room]
            self.tail = (self.tail + data)[-TAIL:]


@dataclass
class Ran:
    """How a command ended."""

    code: int
    seconds: float
    output: str
    errors: str
    size: int = 0
    """Bytes that were printed."""

    @property
    def complete(self) -> bool:
        """Whether all that was printed has been kept."""
        return self.size <= KEPT

    def ending(self) -> str:
        """In words, how it ended badly."""
        if self.code < 0:
            with contextlib.suppress(ValueError):
                return f"was killed by {signal.Signals(-self.code).name}"
            return f"was killed by signal {-self.code}"
        return f"ended with exit code {self.code}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it has started."""
    for number in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, number)
            else:
                process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
        return


def run_command(
    words: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    tick: Callable[[float], None] | None = None,
    timeout: float | None = None,
) -> Ran:
    """Run a command without a terminal. ``tick`` hears the seconds so far, about twice a second.

    Raises:
        OSError: it cannot be started.
        TimeoutError: it was ended after ``timeout`` seconds.
    """
    begun = time.monotonic()
    process = subprocess.Popen(
        list(words), cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=hasattr(os, "setsid"),
    )  # fmt: skip
    streams = _Stream(), _Stream()
    assert process.stdout is not None
    assert process.stderr is not None
    readers = [
        threading.Thread(target=stream.take, args=(pipe,), daemon=True)
        for stream, pipe in zip(streams, (process.stdout, process.stderr), strict=True)
    ]
    try:
        for reader in readers:
            reader.start()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
                break
            spent = time.monotonic() - begun
            if tick is not None:
                tick(spent)
            if timeout is not None and spent > timeout:
                raise TimeoutError(f"it was ended after {timeout:g} seconds")
    except BaseException:
        _stop(process)
        raise
    finally:
        for reader in readers:
            reader.join(2)
        if not any(reader.is_alive() for reader in readers):
            process.stdout.close()
            process.stderr.close()
    texts = [bytes(stream.head).decode(errors="replace") for stream in streams]
    if streams[1].size > KEPT:
        texts[1] = bytes(streams[1].tail).decode(errors="replace")
    return Ran(process.returncode, time.monotonic() - begun, texts[0], texts[1], streams[0].size)
