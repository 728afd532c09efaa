"""Files larger than memory: tensors stay in their mapped files, and pages that were read are given back."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from torch import Tensor

CHUNK = 1 << 22
"""Bytes that are read, transposed or written at once."""


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors in dicts, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)


class Mapped:
    """Tensors whose bytes lie in files, of which this process need not keep a copy."""

    def __init__(self) -> None:
        self.ranges: dict[int, int] = {}
        self._files: list[str] = []

    def __enter__(self) -> Mapped:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self._files:
            with contextlib.suppress(OSError):
                os.unlink(name)

    def add(self, content: Any) -> None:
        """``content`` was mapped from a file, privately and unchanged, or shared."""
        for tensor in tensors_of(content):
            storage = tensor.untyped_storage()
            if storage.device.type == "cpu" and storage.nbytes() >= mmap.PAGESIZE:
                self.ranges[storage.data_ptr()] = storage.nbytes()

    def release(self) -> None:
        """Give pages back; the next access reads them again."""
        if sys.platform != "linux":
            return
        libc = ctypes.CDLL(None)
        for start, size in self.ranges.items():
            first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            length = (start + size) // mmap.PAGESIZE * mmap.PAGESIZE - first
            if length > 0:
                libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), ctypes.c_int(mmap.MADV_DONTNEED))

    def contiguous(self, tensor: Tensor, folder: Path) -> Tensor:
        """A contiguous copy of ``tensor`` in a temporary file, made in parts."""
        handle, name = tempfile.mkstemp(prefix=".training-losses-", suffix=f".{os.getpid()}.tmp", dir=folder)
        os.close(handle)
        self._files.append(name)
        made = torch.from_file(name, shared=True, size=tensor.numel(), dtype=tensor.dtype).view(tensor.shape)
        self.add(made)
        rows = max(1, CHUNK // max(1, tensor[0].numel() * tensor.element_size()))
        for start in range(0, len(tensor), rows):
            made[start : start + rows].copy_(tensor[start : start + rows])
            self.release()
        return made


class Stream:
    """A file for ``torch.save`` that takes large writes in parts and gives the pages behind them back."""

    def __init__(self, file: IO[bytes], mapped: Mapped) -> None:
        self.file, self.mapped, self.pending = file, mapped, 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        for start in range(0, len(view), CHUNK):
            part = view[start : start + CHUNK]
            self.file.write(part)
            self.pending += len(part)
            if self.pending >= CHUNK:
                self.mapped.release()
                self.pending = 0
        return len(view)

    def flush(self) -> None:
        self.file.flush()
