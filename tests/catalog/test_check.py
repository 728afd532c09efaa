"""The built-in catalog agrees with the code, and the check notices when it does not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from training_losses.migration.__main__ import main
from training_losses.migration.catalog import Argument, Case, Catalog, Pin, builtin_catalog
from training_losses.migration.catalog.check import check_catalog


def clip(**changes: Any) -> Catalog:
    """A catalog of the CLIP row alone, changed."""
    (symbol,) = builtin_catalog().find("clip_style_loss.CLIPStyleLoss")
    (case,) = symbol.cases
    symbol_changes = {key: changes.pop(key) for key in ("twin",) if key in changes}
    return Catalog(
        (dataclasses.replace(symbol, cases=(dataclasses.replace(case, **changes),), **symbol_changes),), {}, {}
    )


def arguments(**changes: Argument) -> dict[str, Argument]:
    return {**clip().symbols[0].cases[0].arguments, **changes}


def test_the_builtin_catalog_is_clean() -> None:
    assert check_catalog(builtin_catalog()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"twin": "training_losses.legacy.clip_style_loss.Nope"},
            "the twin training_losses.legacy.clip_style_loss.Nope cannot be imported",
        ),
        ({"new": "training_losses.contrastive.clip_loss.Nope"}, "cannot be imported"),
        ({"registry": "simclr"}, "the registry has SimCLRLoss under 'simclr'"),
        ({"registry": "clipp"}, "Unknown loss 'clipp'"),
        ({"pins": {"metrik": Pin("metrik", True, "")}}, "the new signature has no argument 'metrik' to pin"),
        (
            {"arguments": arguments(temperature=Argument("temperature", default=0.1))},
            "default 0.1, the old signature has 0.07",
        ),
        ({"arguments": arguments(temperature=Argument("temperature"))}, "differ on whether there is a default"),
        ({"arguments": arguments(temperature=Argument("temperature", 0.07, rename="tau"))}, "has no argument 'tau'"),
        ({"arguments": arguments(temperature=Argument("temperature", 0.07, scale=2.0))}, "a pin is missing"),
        ({"arguments": {"temperature": Argument("temperature", 0.07)}}, "the old signature is (temperature, use_hard"),
        ({"forward": {"vision_features": Argument("vision_features")}}, "forward: the old signature is"),
    ],
)
def test_disagreements_are_found(changes: dict[str, Any], message: str) -> None:
    problems = check_catalog(clip(**changes))
    assert any(message in problem for problem in problems), problems


def test_unchanged_copy_is_clean() -> None:
    assert check_catalog(clip()) == []


class TestCommand:
    def test_check(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["catalog", "check"]) == 0
        assert capsys.readouterr().out.rstrip().endswith("0 problems")

    def test_check_finds_problems_in_a_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "mine.toml"
        file.write_text(
            'schema = 1\nsystem = "m"\ndeprecated_in = "1"\nremoved_in = "2"\nroots = ["old"]\n[[module]]\n'
            'old = "vicreg_loss"\n[[symbol]]\nold = "vicreg_loss.VICRegLoss"\nkind = "class"\n'
            'new = "training_losses.Nope"\n'
        )
        assert main(["catalog", "check", "--catalog", str(file), "--json"]) == 1
        assert json.loads(capsys.readouterr().out)["symbols"] == 1

    def test_a_broken_file_is_one_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "mine.toml").write_text("schema = 3\n")
        assert main(["catalog", "check", "--catalog", str(tmp_path / "mine.toml")]) == 2
        assert capsys.readouterr().err.count("\n") == 1

    def test_show(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["catalog", "show", "src.training.losses.clip_style_loss.CLIPStyleLoss"]) == 0
        text = capsys.readouterr().out
        assert "-> training_losses.contrastive.clip_loss.CLIPLoss" in text
        assert ["result", "v2t_loss", "loss_v2t"] in [line.split() for line in text.splitlines()]
        assert main(["catalog", "show", "CLIPStyleLoss", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)[0]["rows"][0]["registry"] == "clip"

    def test_show_unknown_suggests(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["catalog", "show", "CLIPStyleLos"]) == 2
        assert "did you mean" in capsys.readouterr().err


def test_every_row_states_what_a_reader_needs() -> None:
    for symbol in builtin_catalog().symbols:
        for case in symbol.cases:
            assert isinstance(case, Case)
            if case.new is None:
                assert case.reason, symbol.old
            if case.parity != "exact" and case.new is not None:
                assert case.deviations, symbol.old
