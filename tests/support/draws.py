"""Exact expectations of losses that draw from ``torch.randint``: every draw is enumerated."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch


def all_draws(call: Callable[[], Any]) -> list[Any]:
    """The answers of ``call`` for every combination of its ``torch.randint(0, n, (1,))`` draws, equally likely.

    A first run finds the upper bounds ``n``; they must not depend on the draws.
    """
    bounds: list[int] = []

    def record(low: int, high: int, size: tuple[int, ...], **_: Any) -> torch.Tensor:
        assert (low, tuple(size)) == (0, (1,))
        bounds.append(high)
        return torch.zeros(1, dtype=torch.long)

    with mock.patch("torch.randint", record):
        call()
    answers = []
    for combination in itertools.product(*map(range, bounds)):
        values = iter(combination)
        with mock.patch("torch.randint", lambda *_, values=values, **__: torch.tensor([next(values)])):
            answers.append(call())
    return answers
