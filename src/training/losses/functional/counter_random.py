"""Random numbers as a function of a counter: no generator, no state, the same on every device and rank."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["counter_normal"]

_LOW32 = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    """A bijective hash of 32-bit integers (multiply and shift-xor), held in int64."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _LOW32
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _LOW32
    return x ^ (x >> 16)


def counter_normal(rows: int, columns: int, *, seed: int, step: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard normal ``[rows, columns]``, determined by ``seed`` and ``step`` (a 0-d integer tensor).

    24 random bits per number through the inverse of the normal distribution function, so no entry exceeds 5.4. Good for
    directions and sketches, not for cryptography or for more than 2^32 numbers per step.
    """
    key = _mix((step.to(torch.int64) + _mix(torch.full_like(step, seed & _LOW32, dtype=torch.int64))) & _LOW32)
    index = torch.arange(rows * columns, device=step.device)
    bits = _mix(_mix(index ^ key) ^ (key >> 1)) >> 8
    uniform = (bits.to(torch.float32) + 0.5) / 2**24
    normal = torch.erfinv(2 * uniform - 1) * math.sqrt(2.0)
    return normal.to(dtype).view(rows, columns)
