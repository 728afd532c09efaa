"""What a recorded answer owes to the machine that it was recorded on, and how far that can go.

Sums in another order, other vector widths and other libraries for ``exp`` change a result by its rounding. Most answers
move by as much. Three kinds move farther, and are compared as follows.

* **Ranks.** An accuracy counts rows whose largest entry is the right one. Where two entries are equal up to rounding,
  the machine decides; :class:`Ties` counts these rows, and the accuracy may differ by their share, and no more.
* **Draws.** Uniform and normal numbers in float32 come from a formula that some machines contract and others do not.
* **Everything that amplifies rounding** (an optimiser of 32 steps in float32, distances of a point to itself by a
  matrix product). Rounding acts as a change of the input in its last places (backward stability), so the
  implementation's own answers for inputs moved by one ulp show how far it can go.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

EPS32 = torch.finfo(torch.float32).eps

DRAWN = 8 * EPS32
"""How far a float32 draw may be from that of another machine, relative to 1 + |x|.

A uniform number is scaled by one multiply-add: contracted or not, one rounding. A normal one is ``r cos t`` with
``r = sqrt(-2 log u)``: three functions and two products of one ulp each, at most 5 roundings; a row of a queue is then
divided by its norm, whose relative error is that of its entries and two roundings more. 8 in all.
"""

MOVES = 8
"""Replays with inputs moved at random by one ulp."""

SAFETY = 8.0
"""How many times their largest move the answer may be away from the record.

Two runs differ, the recorded and this one: 2. Either has the rounding of all its operations, not of its inputs alone;
each of the four stages that the recorded functions have (distances, exponentials, normalisation, sum) adds one ulp: 4.
"""


def nudged(x: torch.Tensor, seed: int) -> torch.Tensor:
    """``x`` with every entry moved by one ulp, up or down at random; zero and what is not finite stay."""
    generator = torch.Generator().manual_seed(seed)
    up = torch.rand(x.shape, generator=generator) < 0.5
    limit = torch.full_like(x, torch.inf)
    moved = torch.where(up, torch.nextafter(x, limit), torch.nextafter(x, -limit))
    return torch.where(torch.isfinite(x) & (x != 0), moved, x).detach()


class Ties(TorchFunctionMode):
    """Counts the rows given to ``argmax`` whose two largest entries are equal up to rounding.

    Entries are sums of products, of relative error ``sqrt(n) eps`` at least and ``n eps`` at most; ``n`` is at most 64
    in the recorded cases, and two entries differ: ``2 * 16 eps`` of the largest magnitude.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tied, self.rows, self.largest = 0, 0, 1

    @property
    def share(self) -> float:
        """Ties in proportion to the rows of one direction."""
        # functions that go row by row do so for two directions
        return self.tied / max(self.largest, self.rows / 2)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.argmax, torch.Tensor.argmax):
            x = args[0].detach()
            dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
            x = x.reshape(1, -1) if dim is None else x.movedim(dim, -1).reshape(-1, x.shape[dim])
            if x.is_floating_point() and x.shape[1] > 1:
                first, second = x.topk(2, dim=1).values.unbind(1)
                bound = 32 * torch.finfo(x.dtype).eps * x.abs().amax(dim=1)
                self.tied += int((first - second <= bound).sum())
            self.rows += len(x)
            self.largest = max(self.largest, len(x))
        return func(*args, **kwargs)
