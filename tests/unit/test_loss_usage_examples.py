"""The examples of usage run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location(
    "loss_usage_examples", Path(__file__).parents[2] / "examples" / "loss_usage_examples.py"
)
assert SPEC is not None
assert SPEC.loader is not None
MODULE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MODULE)


@pytest.mark.parametrize("example", MODULE.EXAMPLES, ids=lambda e: e.__name__)
def test_runs(example, capsys: pytest.CaptureFixture[str]) -> None:
    example()
    shown = capsys.readouterr().out
    assert "loss" in shown
    assert "nan" not in shown
