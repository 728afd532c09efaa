"""Where numbers are accumulated: half precision in, float32 inside."""

from __future__ import annotations

import torch
from torch import Tensor


def upcast(x: Tensor) -> Tensor:
    """``x`` in the dtype in which sums, exponentials and norms are taken: half precision becomes float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def eps_for(dtype: torch.dtype) -> float:
    """Smallest norm or variance that is divided by: 1e-12, or 1e-6 for half precision."""
    return 1e-6 if dtype in (torch.float16, torch.bfloat16) else 1e-12


def not_finite(x: Tensor) -> Tensor:
    """0 where ``x`` is finite, NaN elsewhere, without a graph.

    Added to a result, it shows what a comparison, a clamp or a ReLU hides, and what dividing by an overflown norm turns
    into a zero.
    """
    return 0 * x.detach()


def shown(result: Tensor, *inputs: Tensor) -> Tensor:
    """``result``, or NaN where one of ``inputs`` has a NaN: for metrics, which are made of comparisons."""
    for x in inputs:
        result = torch.where(x.isnan().any(), torch.nan, result)
    return result


def autocast_off(x: Tensor) -> torch.autocast:
    """A context in which matrix products keep the dtype of their operands on the device of ``x``."""
    return torch.autocast(device_type=x.device.type, enabled=False)


def most_precise(x: Tensor, *, copy: bool = False) -> Tensor:
    """``x`` in float64, or in float32 on devices without it: for sums of thousands of terms whose small differences
    count. ``copy``: a contiguous copy in any case.
    """
    dtype = torch.float32 if x.device.type == "mps" else torch.float64
    return x.to(dtype, copy=True, memory_format=torch.contiguous_format) if copy else x.to(dtype)
