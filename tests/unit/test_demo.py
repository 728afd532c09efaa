"""The demonstration: what it accepts, what it compares, when it fails. The full run is ``nox -s demo``."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from training_losses.migration import demo
from training_losses.migration.__main__ import main

SCRIPT = """\
import argparse, json, warnings
from src.training.losses.vicreg_loss import VICRegLoss
import torch
parser = argparse.ArgumentParser()
parser.add_argument("--log")
args = parser.parse_args()
torch.manual_seed(0)
loss_fn = VICRegLoss(sim_coeff=25.0, curriculum=False)
out = loss_fn(torch.randn(8, 4), torch.randn(8, 4))
with open(args.log, "w") as log:
    for step in range(3):
        log.write(json.dumps({"step": step, "loss": float(out["loss"]) EXTRA}) + "\\n")
"""


def run(losses: list[float], warnings: int = 0) -> demo.Run:
    return demo.Run(losses, warnings, 1.0, 100.0)


@pytest.mark.parametrize(
    ("old", "new", "difference", "good"),
    [
        (run([1.0, 2.0], 3), run([1.0, 2.0]), 0.0, True),
        (run([1.0, 2.0], 3), run([1.0, 2.1]), 0.05, False),
        (run([1.0, 2.0], 3), run([1.0]), math.inf, False),
        (run([], 3), run([]), math.inf, False),
        (run([1.0, 2.0], 3), run([1.0, math.nan]), math.inf, False),
        (run([1.0], 3), run([1.0], 1), 0.0, False),
    ],
)
def test_outcomes(old: demo.Run, new: demo.Run, difference: float, good: bool) -> None:
    outcome = demo.Outcome("x", old, new)
    assert outcome.difference == pytest.approx(difference)
    assert outcome.good is good
    ((name, steps, *_),) = demo._rows([outcome])
    assert (name, steps) == ("x", str(len(old.losses)))


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "example"
    folder.mkdir()
    (folder / "demo.toml").write_text('[[script]]\nname = "small"\ncommand = ["train.py", "--log", "{log}"]\n')
    (folder / "train.py").write_text(SCRIPT.replace("EXTRA", ""))
    monkeypatch.setattr(demo, "example_folder", lambda: folder)
    return folder


def test_migrates_a_small_repository(example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert main(["demo", "--output", str(output), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["difference"] <= demo.LIMIT
    assert (result["old"]["warnings"], result["new"]["warnings"]) == (1, 0)
    assert (output / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert "training_losses.contrastive.vicreg" in (output / "codemod.diff").read_text()
    assert "src.training" in (example / "train.py").read_text(), "the original is not touched"


def test_numbers_that_change_fail(example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = SCRIPT.replace("EXTRA", "+ ('.legacy.' not in VICRegLoss.__module__)")
    (example / "train.py").write_text(changed)
    assert main(["demo", "--output", str(tmp_path / "out")]) == 1
    assert "NOT the same: small" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "message"),
    [("raise SystemExit(3)", "ended with exit code 3"), ("print('no log')", "wrote no losses")],
)
def test_scripts_that_fail(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], script: str, message: str
) -> None:
    (example / "train.py").write_text(script + "\n")
    assert main(["demo", "--output", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_script(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--only", "nope"]) == 2
    assert "--only 'nope': no such script (there are small)" in capsys.readouterr().err


def test_the_manifest_of_the_example_repository_names_existing_scripts() -> None:
    folder = demo.example_folder()
    scripts = demo.load_manifest(folder)
    assert len({script["name"] for script in scripts}) == len(scripts) >= 4
    for script in scripts:
        assert (folder / script.get("folder", ".") / script["command"][0]).is_file()
        assert "{log}" in script["command"]
