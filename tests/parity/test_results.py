"""``results_like``: a new loss answers with the keys, the order, the kinds and the graphs of the old result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.parity.records_triangulate import ImageRecord, networks, seeded_features
from tests.support.parity import ParityRecord, Sample, all_records
from training_losses.base import BaseLoss
from training_losses.migration.parity import Pair, build_pair
from training_losses.migration.translate import translate, translate_forward

SEEDS = (0, 1, 2, 3, 5)


def sample_of(record: ParityRecord, seed: int) -> Sample:
    rows = max(record.batch[0], min(6, record.batch[1]))
    ids, train = record.ids[seed % len(record.ids)], record.train[seed % len(record.train)]
    return Sample(rows, 8, ids, torch.float64, train, seed)


def built_with(record: ParityRecord) -> Iterator[dict[str, Any]]:
    return (record.kwargs(sample_of(record, seed)) for seed in SEEDS)


RECORDS = [
    r
    for r in all_records()
    if r.row.kind == "class"
    and type(r) in (ParityRecord, ImageRecord)
    and r.by_hand is None
    and not r.reason
    and any(translate(r.row, (), kwargs)[0].keeps_results for kwargs in built_with(r))
]


@pytest.fixture(autouse=True)
def _networks() -> Iterator[None]:
    """Nobody downloads a network."""
    with networks(seeded_features(5)):
        yield


def pairs(record: ParityRecord) -> Iterator[tuple[Pair, Sample]]:
    for seed in SEEDS:
        sample = sample_of(record, seed)
        prepare = record.prepare
        made = None if prepare is None else lambda twin, given=sample: prepare(twin, given)  # noqa: B023
        pair = build_pair(record.row, seed=seed, train=sample.train, prepare=made, **record.kwargs(sample))
        if pair.case.keeps_results:
            yield pair, sample


def leaves(inputs: dict[str, Any]) -> dict[str, Any]:
    def leaf(value: Any) -> Any:
        if isinstance(value, list):
            return list(map(leaf, value))
        floating = isinstance(value, Tensor) and value.is_floating_point()
        return value.clone().requires_grad_() if floating else value

    return {name: leaf(value) for name, value in inputs.items()}


def assert_same(new: Any, old: Any, at: str, rounded: float) -> None:
    assert type(new) is type(old) or (isinstance(old, dict) and isinstance(new, dict)), at
    if isinstance(old, dict):
        assert list(new) == list(old), at
    if isinstance(old, dict | tuple):
        assert len(new) == len(old)
        for key, value in old.items() if isinstance(old, dict) else enumerate(old):
            assert_same(new[key], value, f"{at}.{key}", rounded)
        return
    if isinstance(old, Tensor):
        # a zero without a graph may have one: its gradient is zero
        assert new.requires_grad == old.requires_grad or not (old.requires_grad or old.any()), at
        assert new.shape == old.shape, at
    assert torch.allclose(torch.as_tensor(new).double(), torch.as_tensor(old).double(), rtol=rounded, atol=rounded), at


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.id)
def test_the_whole_result(record: ParityRecord) -> None:
    compared = 0
    for pair, sample in pairs(record):
        assert isinstance(pair.new, BaseLoss)
        pair.new.results_like = record.symbol
        given = leaves(record.inputs(sample, 0))
        torch.manual_seed(sample.seed)
        old = pair.old(**given)
        torch.manual_seed(sample.seed)
        new = pair.new(**translate_forward(pair.case, (), given))
        assert_same(new, old, "result", 1e-5)
        compared += 1
    assert compared
