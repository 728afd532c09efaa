"""All sources of random numbers that a loss can draw from: kept, set, put back."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from typing import Any

import torch

__all__ = ["Generators"]


class Generators:
    """The states at one moment: torch on all devices, ``random``, numpy, and generator objects within reach."""

    def __init__(self, objects: Iterable[Any] = ()) -> None:
        self.torch = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda._initialized else None
        self.python = random.getstate()
        numpy = sys.modules.get("numpy")
        self.numpy = numpy.random.get_state() if numpy is not None else None
        self.own = [(g, g.get_state()) for g in _generators(objects)]

    def put(self) -> None:
        """Set everything to that moment."""
        torch.set_rng_state(self.torch)
        if self.cuda is not None:
            torch.cuda.set_rng_state_all(self.cuda)
        random.setstate(self.python)
        if self.numpy is not None:
            sys.modules["numpy"].random.set_state(self.numpy)
        for generator, state in self.own:
            generator.set_state(state)


def _generators(values: Iterable[Any], depth: int = 0) -> Iterable[torch.Generator]:
    for value in values:
        if isinstance(value, torch.Generator):
            yield value
        elif isinstance(value, dict) and depth < 2:
            yield from _generators(value.values(), depth + 1)
        elif isinstance(value, (list, tuple)) and depth < 2:
            yield from _generators(value, depth + 1)
        elif isinstance(value, torch.nn.Module) and depth < 2:
            yield from _generators(vars(value).values(), depth + 1)
            yield from _generators(list(value.children()), depth + 1)
