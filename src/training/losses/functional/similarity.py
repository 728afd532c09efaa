"""Similarities between embeddings, and which pairs belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from .precision import autocast_off, not_finite, upcast


def l2_normalize(x: Tensor, *, dim: int = -1, eps: float = 1e-12) -> Tensor:
    """Rows of unit Euclidean length: ``x / max(|x|, eps)``; half precision is computed and returned in float32.

    Rows whose length overflows (entries above 1e19 in float32) become NaN, not 0.
    """
    x = upcast(x)
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True).clamp_min(eps)
    unit: Tensor = x / (length + not_finite(length))
    return unit


def dot_similarity(a: Tensor, b: Tensor) -> Tensor:
    """All inner products ``a b^T`` of rows, shape ``[A, B]``, in float32 or better also under autocast."""
    with autocast_off(a):
        return upcast(a) @ upcast(b).mT


def encode_ids(ids: Tensor | Sequence[int] | Sequence[str], *, device: torch.device | None = None) -> Tensor:
    """Ids as an int64 vector in which equal ids, and only these, have equal numbers.

    Integer and boolean tensors are used as they are, lists of integers likewise, strings through a 63-bit digest, so
    that ids of different batches can be compared. Pass a tensor where the caller is compiled. ``device`` is that of the
    result; default: that of ``ids``, or the CPU.

    Raises:
        ValueError: other element types, mixed types, or more than one dimension.
    """
    if isinstance(ids, Tensor):
        if ids.dim() != 1:
            raise ValueError(f"ids must have one dimension, found shape {list(ids.shape)}")
        if ids.is_floating_point() or ids.is_complex():
            raise ValueError(f"ids must be integers or strings, found a tensor of {ids.dtype}")
        return ids.to(device=device, dtype=torch.int64)
    values = list(ids)
    if all(isinstance(value, str) for value in values):
        digests = [hashlib.blake2b(str(value).encode(), digest_size=8).digest() for value in values]
        return torch.tensor([int.from_bytes(d, "big") >> 1 for d in digests], dtype=torch.int64, device=device)
    integers = [int(value) for value in values if isinstance(value, Integral)]
    if len(integers) == len(values):
        return torch.tensor(integers, dtype=torch.int64, device=device)
    kinds = ", ".join(sorted({type(value).__name__ for value in values}))
    raise ValueError(f"ids must be all integers or all strings, found {kinds}")


def fill_diagonal(matrix: Tensor, value: float) -> Tensor:
    """``matrix`` ``[R, C]`` with ``value`` on its diagonal, in place.

    ``Tensor.fill_diagonal_`` would tie a compiled graph to one size.
    """
    matrix.diagonal().fill_(value)
    return matrix


def view_matches(similarity: Tensor) -> Tensor:
    """Entries of the pairs ``(i, p(i))``, ``[2B]``, where ``p(i)`` is the other view of row ``i`` of ``[z_a; z_b]``."""
    batch = similarity.shape[0] // 2
    # not diagonal(batch): an offset would tie a compiled graph to one size
    return torch.cat([similarity[:batch, batch:].diagonal(), similarity[batch:, :batch].diagonal()])


def match_mask(row_ids: Tensor, column_ids: Tensor | None = None) -> Tensor:
    """Boolean ``[R, C]``: row id equals column id (the same ids on both sides by default)."""
    return row_ids[:, None] == (row_ids if column_ids is None else column_ids)[None, :]
