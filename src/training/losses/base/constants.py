"""Buffers that follow from the configuration: not in the state, and right again after every load."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class ConstantsMixin(nn.Module):
    """A module with constants that move with it.

    A module that was built on the meta device has no values after ``to_empty``, and a buffer outside of the state gets
    none from ``load_state_dict``: constants are written again there.
    """

    def register_constant(self, name: str, build: Callable[[], Tensor]) -> None:
        """A buffer of the value of ``build``, which is called once, on the CPU."""
        with torch.device("cpu"):
            value = build()
        self.__dict__.setdefault("_constants", {})[name] = value
        # a copy on the device of the moment, which may be the meta device
        self.register_buffer(name, torch.empty_like(value, device=torch.empty(0).device).copy_(value), persistent=False)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        for name, value in self.__dict__.get("_constants", {}).items():
            if not value.is_meta:
                self.get_buffer(name).copy_(value)
