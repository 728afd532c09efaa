"""Every new loss answers as its twin inside the domain that the catalog promises (``tests/support/parity.py``)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.parity import ParityRecord, Sample, all_records

RECORDS = all_records()


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
    assert len({r.id for r in RECORDS}) == len(RECORDS)
