"""``verify`` on the scripts of the demonstration: every place listed, nothing that the catalog does not state."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from training_losses.migration.__main__ import main
from training_losses.migration.demo import example_folder, load_manifest

SCRIPTS = load_manifest(example_folder())
QUICK = ("hjepa-prediction-only",)
PLACES = {"captions": 3, "temporal": 2, "triangles": 1, "hjepa": 1, "alignment": 1}
"""Places of construction at least, by the beginning of the script's name."""


@pytest.mark.parametrize(
    "script",
    [pytest.param(s, id=s["name"], marks=() if s["name"] in QUICK else pytest.mark.slow) for s in SCRIPTS],
)
def test_an_example_keeps_its_numbers(
    script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = [word.replace("{log}", str(tmp_path / "log.jsonl")) for word in script["command"]]
    code = main(["verify", "--json", str(example_folder()), "--", sys.executable, *words])
    data = json.loads(capsys.readouterr().out)
    assert code == 0, data["message"]
    assert data["verdict"] in ("equal", "drift", "as stated")
    places = data["places"]
    assert len(places) >= PLACES[script["name"].partition("-")[0]]
    assert {place["verdict"] for place in places} <= {"equal", "drift", "as stated"}
    assert all(place["calls"][0] == place["calls"][1] == place["compared"] > 0 for place in places)
    assert all(place["code"] for place in places)
