"""Random numbers as a function of a counter: no generator, no state, the same on every device and rank."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["counter_normal"]

_LOW32 = 0xFFFFFFFF


def _signed(x: int) -> int:
    """The 32-bit integer with the bits of ``x``."""
    return ((x & _LOW32) ^ 0x80000000) - 0x80000000


def _shifted(x: Tensor, bits: int) -> Tensor:
    """A logical shift to the right: that of signed integers repeats the sign."""
    return (x >> bits).bitwise_and_(_LOW32 >> bits)


def _mix(x: Tensor) -> Tensor:
    """A bijective hash of 32-bit integers (multiply and shift-xor) in place; products wrap around."""
    x.bitwise_xor_(_shifted(x, 16)).mul_(_signed(0x7FEB352D))
    x.bitwise_xor_(_shifted(x, 15)).mul_(_signed(0x846CA68B))
    return x.bitwise_xor_(_shifted(x, 16))


def counter_normal(rows: int, columns: int, *, seed: int, step: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard normal ``[rows, columns]``, determined by ``seed`` and ``step`` (a 0-d integer tensor).

    24 random bits per number through the inverse of the normal distribution function, so no entry exceeds 5.4. Good for
    directions and sketches, not for cryptography or for more than 2^32 numbers per step.
    """
    key = _mix(_mix(torch.full_like(step, _signed(seed), dtype=torch.int32)).add_(step.to(torch.int32)))
    bits = torch.arange(rows * columns, device=step.device).to(torch.int32).bitwise_xor_(key)
    bits = _shifted(_mix(_mix(bits).bitwise_xor_(_shifted(key, 1))), 8)
    uniform = bits.to(torch.float32).add_(0.5).mul_(2.0**-23).sub_(1.0)  # in (-1, 1)
    return uniform.erfinv_().mul_(math.sqrt(2.0)).to(dtype).view(rows, columns)
