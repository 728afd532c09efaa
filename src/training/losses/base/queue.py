"""A first-in-first-out store of past embeddings."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .base_loss import require_numbers

NO_ID = -(2**63)
"""The id of an entry that was stored without one."""


class _Moment:
    """A point in the life of a queue: what was overwritten next, and the moment after that."""

    overwritten: tuple[Tensor, ...] = ()
    next: _Moment | None = None


class FeatureQueue(nn.Module):
    """Ring buffer of ``size`` rows with the id of each; pointer and fill level are buffers too.

    Rows are written in place and never copied, so a reader must not save them for a backward pass
    (``functional.bank_logsumexp`` does not). No host synchronisation.

    Buffers: ``features`` ``[size, dim]``; ``ids`` ``[size]``, ``NO_ID`` where none was given; ``ptr``, the next row to
    be written; ``filled``, the number of rows that hold something. All but the first are int64.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        require_numbers(1, integer=True, size=size, dim=dim)
        self.size, self.dim = size, dim
        self.features = nn.Buffer(torch.zeros(size, dim))
        self.ids = nn.Buffer(torch.full((size,), NO_ID, dtype=torch.int64))
        self.ptr = nn.Buffer(torch.zeros((), dtype=torch.int64))
        self.filled = nn.Buffer(torch.zeros((), dtype=torch.int64))

    _overwritten: list[tuple[Tensor, ...]] | None = None
    """Places and rows that were written over since ``begin``."""

    _moment: _Moment | None = None

    def moment(self) -> _Moment:
        """The present, for ``rewind``. From now on what is overwritten is kept, for as long as this is held."""
        self._moment = self._moment or _Moment()
        return self._moment

    @torch.no_grad()
    def rewind(self, moment: _Moment) -> Callable[[], None]:
        """Work on copies of the buffers as they were at ``moment``, until the function that is returned is called."""
        now, present = dict(self._buffers), self._moment
        then = {name: buffer.clone() for name, buffer in self.named_buffers(recurse=False)}
        steps = []
        while moment.next is not None:
            steps.append(moment.overwritten)
            moment = moment.next
        for where, *rows, ptr, filled in reversed(steps):
            for name, old in zip(("features", "ids"), rows, strict=True):
                then[name].index_copy_(0, where, old)
            then |= {"ptr": ptr.clone(), "filled": filled.clone()}
        self._buffers.update(then)
        self._moment = None

        def back() -> None:
            self._buffers.update(now)
            self._moment = present

        return back

    def begin(self) -> tuple[bool, int]:
        """Remember the rows that are overwritten from now on, so that ``settle`` can put them back."""
        outermost = self._overwritten is None
        self._overwritten = self._overwritten or []
        return outermost, len(self._overwritten)

    @torch.no_grad()
    def settle(self, place: tuple[bool, int], keep: Tensor | bool) -> None:
        """Put back what was overwritten since ``place``, unless ``keep``. No host synchronisation."""
        outermost, position = place
        kept = torch.as_tensor(keep, device=self.ptr.device)
        for where, features, ids, ptr, filled in reversed((self._overwritten or [])[position:]):
            for buffer, rows in ((self.features, features), (self.ids, ids)):
                buffer.index_copy_(0, where, torch.where(kept, buffer.index_select(0, where), rows))
            for buffer, value in ((self.ptr, ptr), (self.filled, filled)):
                buffer.copy_(torch.where(kept, buffer, value))
        if outermost:
            self._overwritten = None

    def require_width(self, features: Tensor) -> None:
        """Raise ``ValueError`` unless ``features`` are ``[B, dim]``."""
        if features.dim() != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must be [B, {self.dim}], found {list(features.shape)}; the width is fixed")

    @torch.no_grad()
    def enqueue(self, features: Tensor, ids: Tensor | None = None) -> None:
        """Store the rows of ``features`` ``[B, dim]`` (the last ``size`` of them), oldest entries first out."""
        self.require_width(features)
        rows = features.shape[0]
        if ids is None:
            ids = torch.full((rows,), NO_ID, dtype=torch.int64, device=features.device)
        elif ids.shape != (rows,):
            raise ValueError(f"ids must be [{rows}], found {list(ids.shape)}")
        kept = min(rows, self.size)
        where = (self.ptr + (rows - kept) + torch.arange(kept, device=self.ptr.device)) % self.size
        # compiled code keeps no moments
        moment = None if torch.compiler.is_compiling() else self._moment
        if self._overwritten is not None or moment is not None:
            rows_before = (self.features.index_select(0, where), self.ids.index_select(0, where))
            before = (where, *rows_before, self.ptr.clone(), self.filled.clone())
            if self._overwritten is not None:
                self._overwritten.append(before)
            if moment is not None:
                moment.overwritten, moment.next = before, _Moment()
                self._moment = moment.next
        self.features.index_copy_(0, where, features[rows - kept :].to(self.features.dtype))
        self.ids.index_copy_(0, where, ids[rows - kept :].to(torch.int64))
        self.ptr.copy_((self.ptr + rows) % self.size)
        self.filled.copy_((self.filled + rows).clamp(max=self.size))

    def keep_mask(self, ids: Tensor | None = None) -> Tensor:
        """Which entries are negatives of which query: ``[1, size]``, or ``[B, size]`` for query ids ``[B]``.

        Entries that are not filled are never kept, entries of the query's own id neither.
        """
        filled = (torch.arange(self.size, device=self.ptr.device) < self.filled)[None, :]
        return filled if ids is None else filled & (self.ids[None, :] != ids[:, None])

    @property
    def fill_ratio(self) -> Tensor:
        """Share of rows that hold something, 0-d."""
        return self.filled / self.size

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        # queues of old classes that counted no entries were full of random rows from the start
        if prefix + "features" in state_dict and prefix + "filled" not in state_dict:
            state_dict[prefix + "filled"] = torch.full_like(self.filled, self.size)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"size={self.size}, dim={self.dim}"
