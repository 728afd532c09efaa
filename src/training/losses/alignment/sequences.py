"""What the alignment losses share: checked sequences, padding, distances, cached constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ..base import kind_of
from ..functional import autocast_off, first_derivative_only, upcast

__all__ = [
    "DISTANCES",
    "Sequences",
    "SequencesLike",
    "cached",
    "checked",
    "differentiated",
    "distances",
    "frame_mask",
    "listed",
    "ordered_pairs",
    "squared_costs",
    "squared_distances",
    "sum_of_parts",
    "tables_at_once",
]

SequencesLike = Sequence[Tensor] | tuple[Tensor, Sequence[int] | Tensor]
"""What the losses take: ``[N_i, D]`` sequences, or ``([S, L, D], lengths)``, a padded batch."""

DISTANCES = ("euclidean", "squared_euclidean")

DIRECT_LIMIT = 25
"""Up to this many frames distances are summed directly, above by a matrix product (as ``torch.cdist`` does)."""

TABLE_CELLS = {"cpu": 2**19}
"""Cells of the tables that are worked on at once: few on the CPU, where they should stay in its cache."""

_CACHE: dict[tuple[Any, ...], Tensor] = {}
_CACHE_CELLS = 2**24


def cached(build: Callable[..., Tensor], *sizes: Any, like: Tensor) -> Tensor:
    """``build(*sizes)`` as a constant in the dtype and on the device of ``like``, kept for the next call.

    Index weights and band masks depend on lengths only; they carry no graph.
    """
    if torch.compiler.is_compiling():
        return build(*sizes).to(like)
    key = (build.__qualname__, sizes, like.dtype, like.device)
    if key not in _CACHE:
        # in this order: leaving inference mode switches gradients on
        with torch.inference_mode(False), torch.no_grad():
            made = build(*sizes).to(like)
        if sum(each.numel() for each in _CACHE.values()) + made.numel() > _CACHE_CELLS:
            _CACHE.clear()
        _CACHE[key] = made
    return _CACHE[key]


def tables_at_once(cells: int, device: torch.device) -> int:
    """How many tables of so many cells to work on at once."""
    return max(1, TABLE_CELLS.get(device.type, 2**24) // cells)


Part = Callable[[Tensor, Tensor | None], Tensor]
"""The value of a part of a loss at ``x``; its gradient is added to the second argument, if there is one."""


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, parts: Sequence[Part]) -> Tensor:
        gradient = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        with autocast_off(x):
            total = torch.stack([part(x.detach(), gradient) for part in parts]).sum()
        ctx.save_for_backward(x, gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, gradient = ctx.saved_tensors
        found = grads[0].detach() * gradient
        return first_derivative_only("the gradient of this alignment loss", found, x, *grads), None


def sum_of_parts(x: Tensor, parts: Sequence[Part]) -> Tensor:
    """The sum of the parts at ``x``, the gradient of each taken together with its value.

    The tables of one part fit into the cache, and none of them is kept for the backward pass. To differentiate the
    result twice raises ``RuntimeError``.
    """
    return torch.as_tensor(_Sum.apply(x, parts))  # type: ignore[no-untyped-call]  # untyped in torch


def differentiated(part: Callable[[Tensor], Tensor]) -> Part:
    """A part whose gradient autograd takes."""

    def both(x: Tensor, gradient: Tensor | None) -> Tensor:
        with torch.set_grad_enabled(gradient is not None):
            leaf = x.requires_grad_(gradient is not None)
            value = part(leaf)
        if gradient is not None:
            gradient += torch.autograd.grad(value, leaf)[0]
        return value.detach()

    return both


def listed(sequences: Any) -> Any:
    """The sequences of a padded batch ``([S, L, D], lengths)``; anything else as it is.

    Raises:
        ValueError: lengths that are not ``S`` integers from 0 to ``L``.
    """
    if not isinstance(sequences, tuple) or len(sequences) != 2:
        return sequences
    batch, lengths = sequences
    if not isinstance(batch, Tensor) or batch.dim() != 3:
        return sequences
    numbers = lengths.tolist() if isinstance(lengths, Tensor) else lengths
    valid = isinstance(numbers, Sequence) and len(numbers) == len(batch)
    if not valid or any(not isinstance(n, Integral) or not 0 <= int(n) <= batch.shape[1] for n in numbers):
        wanted = f"{len(batch)} integers from 0 to {batch.shape[1]}"
        raise ValueError(f"lengths must be {wanted} for a batch {list(batch.shape)}, found {repr(lengths)[:60]}")
    return [x[:n] for x, n in zip(batch, numbers, strict=True)]


def checked(sequences: Any, minimum_frames: int, name: str = "sequences") -> list[Tensor]:
    """The sequences, half precision as float32; a padded batch as a list. Errors call them ``name``.

    Raises:
        ValueError: no list or padded batch, other shapes than ``[N_i, D]``, too few frames, mixed dtypes or devices.
    """
    sequences = listed(sequences)
    if isinstance(sequences, Tensor) or not isinstance(sequences, Sequence) or not len(sequences):
        found = f"shape {list(sequences.shape)}" if isinstance(sequences, Tensor) else repr(sequences)[:60]
        raise ValueError(f"{name} must be a non-empty list of [N_i, D] tensors, or ([S, L, D], lengths), found {found}")
    shapes = [list(x.shape) if isinstance(x, Tensor) else kind_of(x) for x in sequences]
    if any(not isinstance(x, Tensor) or x.dim() != 2 for x in sequences) or len({x.shape[1] for x in sequences}) > 1:
        raise ValueError(f"{name} must be [N_i, D] tensors with one common D, found {shapes}")
    if any(len(x) < minimum_frames or not x.shape[1] for x in sequences):
        raise ValueError(f"{name} must have at least {minimum_frames} frame(s) and one feature, found {shapes}")
    kinds = {(x.dtype, x.device) for x in sequences}
    if len(kinds) > 1 or not sequences[0].is_floating_point():
        raise ValueError(
            f"{name} must share one floating dtype and one device, found "
            + ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        )
    return [upcast(x) for x in sequences]


@dataclass(frozen=True)
class Sequences:
    """Checked sequences (half precision as float32) and their padded form."""

    items: list[Tensor]
    lengths: tuple[int, ...]
    padded: Tensor
    """``[S, L, D]``, zeros behind the lengths."""

    @classmethod
    def of(cls, sequences: SequencesLike, *, minimum_frames: int = 1, name: str = "sequences") -> Sequences:
        """Check and pad.

        Raises:
            ValueError: see :func:`checked`.
        """
        items = checked(sequences, minimum_frames, name)
        padded = torch.nn.utils.rnn.pad_sequence(items, batch_first=True)
        return cls(items, tuple(len(x) for x in items), padded)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def longest(self) -> int:
        """Frames of the longest sequence."""
        return max(self.lengths)

    @property
    def mask(self) -> Tensor:
        """``[S, L]``: whether a frame is real."""
        return cached(frame_mask, self.lengths, self.longest, like=self.padded) > 0

    @property
    def index(self) -> Tensor:
        """``0 .. L - 1``."""
        return cached(torch.arange, self.longest, like=self.padded)

    @property
    def zero(self) -> Tensor:
        """A zero that keeps the graph of every sequence."""
        return self.padded.sum() * 0.0


def frame_mask(lengths: tuple[int, ...], size: int) -> Tensor:
    """``[S, size]``: whether a frame is real."""
    return torch.arange(size) < torch.tensor(lengths)[:, None]


def ordered_pairs(count: int) -> list[tuple[int, int]]:
    """``(i, j)`` with ``i != j``, row by row."""
    return [(i, j) for i in range(count) for j in range(count) if i != j]


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """``|a_n - b_m|^2``, ``[..., N, M]``, from inner products: no ``N x M x D`` tensor."""
    with autocast_off(a):
        norms = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :]
        # in place: one table, and the sign of the result is all that the backward pass needs
        return norms.baddbmm_(a, b.mT, alpha=-2.0).relu_()


class _SquaredCosts(torch.autograd.Function):
    """Keeps the vectors only. A few pairs at a time, so that one table is all that takes room."""

    @staticmethod
    def forward(a: Tensor, b: Tensor) -> Tensor:
        costs = a.new_empty((a.shape[1], b.shape[1], len(a)))
        for x, y, place in zip(a.chunk(4), b.chunk(4), costs.chunk(4, dim=2), strict=True):
            place.copy_(squared_distances(x, y).permute(1, 2, 0))
        return costs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        at_a, at_b = [], []
        with autocast_off(a):
            for x, y, pull in zip(a.chunk(4), b.chunk(4), grads[0].chunk(4, dim=2), strict=True):
                pull = 2 * pull.permute(2, 0, 1).contiguous()
                at_a.append(x * pull.sum(dim=2)[..., None] - pull @ y)
                at_b.append(y * pull.sum(dim=1)[..., None] - pull.mT @ x)
        return torch.cat(at_a), torch.cat(at_b)


def squared_costs(a: Tensor, b: Tensor) -> Tensor:
    """``|a_n - b_m|^2`` of batches, with the batch last: ``[N, M, B]``, as :func:`soft_dtw` likes it best."""
    return torch.as_tensor(_SquaredCosts.apply(a, b))  # type: ignore[no-untyped-call]  # untyped in torch


def distances(a: Tensor, b: Tensor, *, direct: bool | None = None) -> Tensor:
    """``|a_n - b_m|``; gradient 0 where a distance is 0. ``direct`` chooses how; default: by ``DIRECT_LIMIT``."""
    if direct is None:
        direct = max(a.shape[-2], b.shape[-2]) <= DIRECT_LIMIT
    mode = "donot_use_mm_for_euclid_dist" if direct else "use_mm_for_euclid_dist"
    with autocast_off(a):
        return torch.cdist(a, b, p=2.0, compute_mode=mode)
