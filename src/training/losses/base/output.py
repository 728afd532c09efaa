"""What a loss of several terms returns."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from . import compat


class LossOutput(dict[str, Tensor]):
    """A dict of named terms. ``"loss"`` (also ``.loss``) carries the graph, every other entry is detached.

    Keys of the old class's result answer as well, with a deprecation warning that names the new key; inside a compiled
    graph they raise ``KeyError``, because the catalog cannot be read there: the rows of ``owner``, the dotted path of
    the loss class. Pickles and deep copies hold values: ``loss`` is a leaf there, its graph stays behind.
    """

    def __init__(self, entries: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] = (), owner: str = "") -> None:
        super().__init__(entries)
        self.owner = owner

    @property
    def loss(self) -> Tensor:
        """The value to call ``backward`` on."""
        return self["loss"]

    def __missing__(self, key: str) -> Tensor:
        new = compat.new_result_key(self.owner, key, self)
        if new is None:
            raise KeyError(key)
        return self[new]

    def get(self, key: str, default: Any = None) -> Any:
        """The entry, also by an old key; ``default`` if there is none."""
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        known = super().__contains__(key)
        return known or (isinstance(key, str) and compat.new_result_key(self.owner, key, self) is not None)

    def __reduce__(self) -> tuple[Any, ...]:
        return LossOutput, (dict(self), self.owner)

    def __copy__(self) -> LossOutput:
        return LossOutput(self, self.owner)

    copy = __copy__

    def __deepcopy__(self, memo: dict[int, Any]) -> LossOutput:
        # torch copies no tensor inside a graph; like a pickle, the copy starts a graph of its own
        values = {key: value.detach().requires_grad_() if value.grad_fn else value for key, value in self.items()}
        return LossOutput(copy.deepcopy(values, memo), self.owner)

    def __repr__(self) -> str:
        return f"LossOutput({super().__repr__()})"


class OldResult(dict[str, Any]):
    """What the old class returned: its keys in its order, its kinds of values. The keys of the new one answer, too."""

    def __init__(self, entries: Any = (), new: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(entries)
        self._new = dict(new or {})

    @property
    def loss(self) -> Tensor:
        """The value to call ``backward`` on."""
        found: Tensor = self["loss"]
        return found

    def __missing__(self, key: str) -> Any:
        return self._new[key]

    def get(self, key: str, default: Any = None) -> Any:
        """The entry, also by a new key; ``default`` if there is none."""
        try:
            return self[key]
        except KeyError:
            return default

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key in self._new


def _flatten(output: LossOutput) -> tuple[list[Any], tuple[tuple[str, ...], str]]:
    return list(output.values()), (tuple(output), output.owner)


def _unflatten(values: Iterable[Any], context: tuple[tuple[str, ...], str]) -> LossOutput:
    keys, owner = context
    return LossOutput(zip(keys, values, strict=True), owner)


# the name is part of programs that torch.export has saved, since 1.0
pytree.register_pytree_node(LossOutput, _flatten, _unflatten, serialized_type_name="training.losses.LossOutput")
