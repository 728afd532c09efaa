"""Fingerprints of tensors: a norm and 16 fixed projections, in a few microseconds.

Projection ``k`` of the values ``x``, laid out in rows of 128, is ``sum_ij w_i s_jk x_ij`` with fixed weights of the
rows (around 1 in size, all different, so that an exchange of rows is seen) and fixed signs. The mean square of the 16
projections of a difference estimates its squared length. No global generator is touched. Above ``SAMPLE`` elements
every n-th is taken.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["COUNT", "SAMPLE", "SIZE", "norm", "on_device", "print_tensor", "values_of"]

COUNT = 16
SIZE = COUNT + 1
SAMPLE = 1 << 16
_WIDTH = 128
_MIX = np.uint64(0x9E3779B97F4A7C15)
_DIRECT = (torch.float32, torch.float64, torch.int64)
Array = np.ndarray[Any, Any]


def _bits(count: int, salt: int) -> Array:
    """Numbers by the splitmix64 generator: the same everywhere, for ever."""
    with np.errstate(over="ignore"):
        state = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(salt << 32)) * _MIX
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: Array = state ^ (state >> np.uint64(31))
    return mixed


def _signs(bits: Array) -> Array:
    signs: Array = 1.0 - 2.0 * (bits >> np.uint64(63)).astype(np.float64)
    return signs


@cache
def _tables(code: str) -> tuple[Array, Array]:
    """Weights of the rows (one more for what is left over) and signs of the columns, for a type code of numpy."""
    bits = _bits(SAMPLE // _WIDTH + 2, 1)
    sizes = 0.6 + 0.8 * (bits & np.uint64((1 << 52) - 1)).astype(np.float64) / (1 << 52)
    rows = _signs(bits) * sizes / np.sqrt(np.mean(sizes**2))
    columns = _signs(_bits(_WIDTH * COUNT, 2)).reshape(_WIDTH, COUNT)
    return rows.astype(code), columns.astype(code)


@cache
def _device_tables(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    rows, columns = (torch.from_numpy(table) for table in _tables("d"))
    return rows.to(device=device, dtype=dtype), columns.to(device=device, dtype=dtype)


def _stride(count: int) -> int:
    return 1 if count <= SAMPLE else math.ceil(count / SAMPLE) | 1  # odd: every column of a matrix is met


def values_of(tensor: Tensor) -> Array:
    """The elements of a tensor on the CPU as a flat array of float32 or float64, the sample of large ones."""
    flat = tensor.detach()
    if flat.dtype not in _DIRECT:
        if flat.is_complex():
            flat = torch.view_as_real(flat.resolve_conj())
        elif flat.dtype in (torch.bfloat16, torch.float16) or flat.element_size() == 1:
            flat = flat.float()
    values: Array = (flat if not flat.is_neg() else flat.resolve_neg()).numpy().reshape(-1)
    if values.size > SAMPLE:
        values = values[:: _stride(values.size)]
    return values if values.dtype.char in "fd" else values.astype(np.float64)


def norm(values: Array) -> float:
    """The Euclidean norm."""
    return math.sqrt(values.dot(values))


def print_tensor(tensor: Tensor) -> Array:
    """Norm and projections of a tensor on the CPU, in float64. Runs outside torch: no mode or autocast reaches it.

    The caller silences numpy's warnings about values that are not finite.
    """
    values = values_of(tensor)
    rows, columns = _tables(values.dtype.char)
    result = np.empty(SIZE)
    result[0] = norm(values)
    size = values.size
    whole = size // _WIDTH
    rest = size - whole * _WIDTH
    if whole:
        result[1:] = rows[:whole].dot(values[: size - rest].reshape(whole, _WIDTH)).dot(columns)
        if rest:
            result[1:] += rows[whole] * values[size - rest :].dot(columns[:rest])
    else:
        result[1:] = rows[0] * values.dot(columns[:rest])
    return result


def on_device(tensor: Tensor, *, brief: bool = False) -> Tensor:
    """The same (``brief``: the norm alone) with operations of torch, so that an accelerator need not be waited for."""
    with torch.no_grad(), torch.autocast(tensor.device.type, enabled=False):
        flat = tensor.detach()
        if flat.is_complex():
            flat = torch.view_as_real(flat.resolve_conj())
        flat = flat.reshape(-1)[:: _stride(flat.numel())]
        flat = flat.to(torch.float64 if flat.dtype == torch.float64 else torch.float32)
        length = flat.square().sum().sqrt().reshape(1)
        if brief:
            return length
        rows, columns = _device_tables(flat.dtype, flat.device)
        whole = flat.numel() // _WIDTH
        made = rows[:whole] @ flat[: whole * _WIDTH].view(whole, _WIDTH) @ columns
        rest = flat[whole * _WIDTH :]
        made = made + rows[whole] * (rest @ columns[: rest.numel()])
        return torch.cat([length, made])
