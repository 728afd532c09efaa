"""How much memory the results of tensor operations take at most, counted by their storages. Works on any device."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["PeakMemory"]


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types there
    """While open: ``peak`` is the largest sum of bytes of storages that were made inside and still lived.

    What an operation needs while it runs, and arguments made before, are not counted.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types there
        self.living = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation and count what it made."""
        # what was made before counts nothing, nor do views of it
        self._count((args, kwargs), made=False)
        result = func(*args, **(kwargs or {}))
        self._count(result, made=True)
        return result

    def _count(self, tree: Any, *, made: bool) -> None:
        for leaf in pytree.tree_leaves(tree):
            if not isinstance(leaf, Tensor) or leaf.untyped_storage()._cdata in self._known:
                continue
            storage = leaf.untyped_storage()
            size = storage.nbytes() if made else 0
            self._known.add(storage._cdata)
            self.living += size
            self.peak = max(self.peak, self.living)
            weakref.finalize(storage, self._release, storage._cdata, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.living -= size
