"""Every new loss answers as its twin inside the domain that the catalog promises (``tests/support/parity.py``)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.parity import ParityRecord, Sample, all_records
from training_losses.migration.catalog import builtin_catalog
from training_losses.migration.parity import resolve

EVERY = all_records()
RECORDS = [r for r in EVERY if not r.reason]


@pytest.mark.parametrize("record", RECORDS, ids=[r.id for r in RECORDS])
def test_random_inputs(record: ParityRecord) -> None:
    @settings(
        max_examples=record.examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(record.strategy)
    def check(sample: Sample) -> None:
        for step, comparison in enumerate(record.run(sample)):
            assert comparison.values, "nothing was compared"
            assert comparison.failures(sample.dtype, factor=record.factor) == [], f"step {step}"

    check()


GOLDEN = [r for r in RECORDS if r.golden is not None]


@pytest.mark.parametrize("record", GOLDEN, ids=[r.id for r in GOLDEN])
def test_recorded_inputs(record: ParityRecord) -> None:
    seen = 0
    for where, dtype, comparison in record.run_golden():
        assert comparison.values, where
        assert comparison.failures(dtype, factor=record.factor) == [], where
        seen += 1
    assert seen, "no recorded call lies inside the domain"


def test_records_are_unique() -> None:
    assert len({r.id for r in EVERY}) == len(EVERY)


def test_every_symbol_with_a_successor_has_a_record() -> None:
    known = {(r.system, r.symbol) for r in EVERY}
    wanted = {(s.system, s.old) for s in builtin_catalog().symbols if any(case.new for case in s.cases)}
    assert wanted - known == set()
    assert known - wanted == set(), "records of symbols without a successor"


def test_reasons_are_for_what_cannot_be_compared() -> None:
    for record in EVERY:
        if record.reason:
            assert len(record.reason) > 20, record.id
            with pytest.raises(NameError):
                resolve(record.row.twin)()
        assert bool(record.note) == (record.by_hand is not None), record.id
