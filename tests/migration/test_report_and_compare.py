"""``report`` and ``compare``: what they measure, write, print and refuse."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from training_losses.migration.__main__ import main
from training_losses.migration.catalog import builtin_catalog
from training_losses.migration.memory import PeakMemory
from training_losses.migration.parity import TOLERANCE, Comparison
from training_losses.migration.report.collect import ReportError, find_checkout
from training_losses.migration.report.page import as_html
from training_losses.migration.report.tally import Entry, Tally, decade

CLIP = "clip_style_loss.CLIPStyleLoss"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("report")
    assert main(["report", "--only", "mask_non_labels", "--only", CLIP, "--output", str(output)]) == 0
    return output


def test_report_has_what_was_compared(report: Path) -> None:
    data = json.loads((report / "report.json").read_text())
    entry = next(e for e in data["symbols"] if e["old"] == CLIP)
    assert entry["parity"] == "documented"
    assert entry["numbers"] > 100
    assert entry["recorded_calls"] > 0
    assert 0 < entry["largest_deviation"]["float32"]["gradient"] < 1e-4
    assert entry["largest_deviation"]["float64"]["value"] < 1e-10
    assert sum(entry["histogram"]) == entry["numbers"]
    assert entry["memory_ratio"] > 0
    assert entry["rows"][0]["deviations"]


def test_report_is_one_page_and_a_table(report: Path) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?://|src=|@import|<script", page)
    assert CLIP in page
    assert page.count("<svg") >= 5
    assert "width=device-width" in page
    assert f"| {CLIP} | CLIPLoss | documented | float64 |" in (report / "report.md").read_text(encoding="utf-8")


def test_a_symbol_that_cannot_be_compared_says_why(tmp_path: Path) -> None:
    words = ["contrastive_learning.MultiModalMixed", "combined_loss.CombinedLoss"]
    only = [word for name in words for word in ("--only", name)]
    assert main(["report", *only, "--output", str(tmp_path)]) == 0
    entries = {e["old"]: e for e in json.loads((tmp_path / "report.json").read_text())["symbols"]}
    mixed = entries["contrastive_learning.MultiModalMixedContrastiveLoss"]
    assert (mixed["calls"], mixed["failures"]) == (0, [])
    assert "NameError" in mixed["not_compared"]
    assert entries["combined_loss.CombinedLoss"]["notes"] == ["its positions as names of terms"]
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert mixed["not_compared"] in text
        assert "its positions as names of terms" in text


def test_report_needs_a_checkout_and_a_known_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["report", "--only", "no such record", "--output", str(tmp_path)]) == 2
    assert "no record of" in capsys.readouterr().err
    monkeypatch.setattr(sys.modules[find_checkout.__module__], "__file__", str(tmp_path / "a" / "b" / "collect.py"))
    with pytest.raises(ReportError, match="run the report in a checkout"):
        find_checkout(tmp_path)


def test_deviations_become_failures_and_stay_on_the_page() -> None:
    entry = Entry(builtin_catalog().find(CLIP)[0])
    entry.tally.add(Comparison(values={"loss": 1e-3}, gradients={"x": math.inf}), torch.float64, "here <b>")
    assert entry.tally.failures == ["here <b>: value loss: 0.001", "here <b>: gradient x: inf"]
    data = entry.as_data()
    assert data["largest_deviation"]["float64"] == {"value": 1e-3, "gradient": None, "state": 0.0}
    summary = {"float64": None, "float32": 0.0}
    page = as_html({
        "made": "", "torch": "", "python": "", "machine": "", "numbers": 2, "largest_deviation": summary,
        "symbols": [data],
    })  # fmt: skip
    assert "here &lt;b&gt;: value loss: 0.001" in page


def test_decades_and_ratios() -> None:
    assert [decade(v) for v in (0.0, 1e-30, 2e-18, 2e-17, 1.0, math.inf)] == [0, 1, 1, 2, 16, 16]
    tally = Tally()
    assert math.isnan(tally.time_ratio)
    for old, new in ((1.0, 2.0), (1.0, 4.0), (0.0, 1.0)):
        tally.cost(Comparison(old_seconds=old, new_seconds=new, old_bytes=4.0, new_bytes=2.0))
    assert (tally.time_ratio, tally.memory_ratio) == (3.0, 0.5)


def test_peak_memory_counts_living_results() -> None:
    x = torch.zeros(1000)
    with PeakMemory() as memory:
        x.view(10, 100).add_(1)
        assert memory.peak == 0
        y = x + 1
        z = y * 2
        del y
        z = z + 1
    assert (memory.peak, memory.living) == (8000, 4000)


# --- compare ---------------------------------------------------------------------------------------------------------


def pair(**more: Any) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    return {n: torch.randn(6, 5, generator=g) for n in ("vision_features", "text_features")} | more


def test_compare_on_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "batch.npz"
    np.savez(path, **{name: value.numpy() for name, value in pair().items()})
    arguments = ["compare", CLIP, "--data", str(path), "--args", '{"temperature": 0.2}']
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "CLIPLoss" in out
    assert "gradient vision_features" in out
    row = next(line for line in out.splitlines() if line.startswith(CLIP) and "documented" in line)
    assert all(float(ratio) > 0 for ratio in row.split()[-2:])
    assert "no deviation beyond the tolerance" in out
    assert main([*arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["exit_code"] == 0
    assert data["batches"][0]["old_loss"] == pytest.approx(data["batches"][0]["new_loss"], rel=1e-5)


def test_compare_says_what_is_not_finite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.randn(6, 4)
    x[0] = math.nan
    torch.save({"vision_features": x, "text_features": torch.randn(6, 4)}, tmp_path / "nan.pt")
    assert main(["compare", CLIP, "--data", str(tmp_path / "nan.pt"), "--json"]) == 1
    text = capsys.readouterr().out
    assert "NaN or infinite on both sides" in json.loads(text)["verdict"]
    assert not re.search(r":\s*NaN", text)
    assert json.loads(text)["batches"][0]["old_loss"] is None
    assert json.loads(text)["not_finite"]["loss"] == [0]
    assert main(["compare", CLIP, "--data", str(tmp_path / "nan.pt")]) == 1
    assert "no deviation" not in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_compare_knows_the_tolerance_of_half_precision(
    dtype: torch.dtype, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = torch.Generator().manual_seed(0)
    batch = {key: torch.randn(6, 4, generator=generator).to(dtype) for key in ("vision_features", "text_features")}
    torch.save(batch, tmp_path / "half.pt")
    assert main(["compare", CLIP, "--data", str(tmp_path / "half.pt")]) == 0
    assert f"(tolerance {TOLERANCE[dtype]:g} for {dtype})" in capsys.readouterr().out


def test_compare_outside_the_domain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "batches.pt"
    torch.save([pair(match_ids=[1, 1, 2, 2, 3, 3])], path)
    assert main(["compare", CLIP, "--data", str(path)]) == 1
    out = capsys.readouterr().out
    assert "old and new agree within the domain" in out
    assert "repeated ids" in out
    assert main(["compare", CLIP, "--data", str(path), "--outside-domain"]) == 0


def test_compare_an_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_batches.py").write_text(
        "import torch\n\ndef batches():\n    while True:\n"
        "        yield {'z_a': torch.randn(4, 3).double(), 'z_b': torch.randn(4, 3).double()}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = "training_losses.legacy.barlow_twins_loss.BarlowTwinsLoss"
    (tmp_path / "my_pairs.py").write_text(
        "import torch\n\ndef pairs():\n    for _ in range(2):\n        yield torch.randn(4, 3), torch.randn(4, 3)\n"
    )
    assert main(["compare", name, "--entry", "my_pairs:pairs"]) == 0
    assert "batch 1" in capsys.readouterr().out
    assert (
        main(
            [
                "compare",
                "training_losses.legacy.vicreg_loss.VICRegLoss",
                "--entry",
                "my_batches:batches",
                "--batches",
                "3",
            ]
        )
        == 0
    )
    assert "batch 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NoSuchLoss", "--data", "x.npz"], "no row for 'NoSuchLoss'"),
        (["CombinedLoss", "--data", "x.npz"], "could be"),
        ([CLIP, "--data", "missing.npz"], "cannot be read"),
        ([CLIP, "--data", "batch.pt", "--args", "{"], "no JSON"),
        ([CLIP, "--data", "batch.pt", "--args", "[1]"], "expected an object"),
        ([CLIP, "--data", "batch.pt", "--args", '{"nope": 1}'], "nope"),
        ([CLIP, "--entry", "nowhere"], "expected MODULE:FUNCTION"),
        ([CLIP, "--entry", "no_such_module:f"], "no_such_module"),
        ([CLIP, "--data", "number.pt"], "a batch is a dict"),
        ([CLIP, "--data", "uneven.pt"], "the old loss refuses these data"),
    ],
)
def test_compare_refuses_bad_input(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    torch.save(pair(), "batch.pt")
    torch.save(3, "number.pt")
    torch.save(pair(text_features=torch.zeros(6, 4)), "uneven.pt")
    assert main(["compare", *arguments]) == 2
    assert message in capsys.readouterr().err
