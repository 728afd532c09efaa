"""What the command line prints: tables with colours on a terminal, plain text elsewhere, one line for wrong input."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest
import torch

from tests.support.twins import twin
from training_losses.migration.__main__ import main
from training_losses.migration.console import brief, say, show_table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def open_terminal(monkeypatch: pytest.MonkeyPatch, width: int = 150) -> Terminal:
    """In the test itself: pytest replaces the output between set-up and call."""
    made = Terminal()
    monkeypatch.setattr(sys, "stdout", made)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(width))
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return made


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    old = twin("memory_queue_contrastive_loss.MemoryQueueContrastiveLoss")(dim=5, queue_size=8)
    torch.save(old.state_dict(), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_colours_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    say("all good [really]", "green")
    show_table("found", ("key", "number"), [("a", "1")])
    assert "\x1b[32mall good [really]\x1b[0m" in terminal.getvalue()
    assert "\x1b[1mkey" in terminal.getvalue()


def test_plain_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    say("all good", "green")
    show_table("", ("key", "number"), [("long name", "1"), ("b", "22")])
    assert capsys.readouterr().out == "all good\nkey        number\n-----------------\nlong name  1\nb          22\n"


@pytest.mark.parametrize(
    "arguments", [["catalog", "show", "CLIPStyleLoss"], ["catalog", "show", "CombinedLoss"], ["checkpoint", "FILE"]]
)
def test_both_ways_say_the_same(
    arguments: list[str], checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(checkpoint) if word == "FILE" else word for word in arguments]
    code = main(arguments)
    plain = capsys.readouterr().out
    assert "\x1b" not in plain
    assert main([*arguments, "--json"]) == code
    json.loads(capsys.readouterr().out)
    terminal = open_terminal(monkeypatch, width=400)
    assert main(arguments) == code
    # rich breaks lines between words; a rule of dashes is no word
    words = {word for word in plain.split() if word.strip("-")}
    assert words - set(re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).split()) == set()


def test_help_has_colours_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    for arguments in ([], ["catalog"], ["compare"], ["checkpoint"], ["demo"], ["report"], ["run"], ["codemod"]):
        terminal.seek(0)
        terminal.truncate()
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--help"])
        assert stop.value.code == 0
        assert "\x1b[" in terminal.getvalue()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["catalog", "show", "NoSuchLoss"], "no row for 'NoSuchLoss'"),
        (["catalog", "check", "--catalog", "missing.toml"], "missing.toml: cannot read the catalog"),
        (["run", "missing.py"], "SCRIPT 'missing.py' does not exist"),
        (["demo", "--only", "nothing"], "--only 'nothing': no such script"),
        (["codemod", "missing"], "missing: no such file or directory"),
        (["checkpoint", "missing.pt"], "FILE 'missing.pt' does not exist"),
        (["checkpoint", "notes.txt"], "notes.txt: cannot be loaded"),
        (["checkpoint", "notes.txt", "--loss", "x"], "--loss 'x': expected PREFIX=OLD.NAME"),
        (["report", "--only", "nothing"], "--only nothing: no record"),
        (["report", "--only", "mask_non", "--output", "notes.txt/x"], "notes.txt"),
        (["compare", "CLIPStyleLoss", "--data", "missing.npz"], "missing.npz"),
        (["compare", "CLIPStyleLoss", "--entry", "broken_batches:batches"], "ZeroDivisionError: no batch today"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("notes.txt").write_text("no checkpoint\n")
    Path("broken_batches.py").write_text("def batches():\n    raise ZeroDivisionError('no batch today')\n    yield\n")
    assert main(arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert message in line
    assert len(line) < 400


@pytest.mark.parametrize(
    "arguments", [[], ["nonsense"], ["catalog"], ["catalog", "show"], ["compare", "X"], ["codemod", "--nonsense"]]
)
def test_wrong_use_is_usage_and_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_an_interrupted_command_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training_losses.migration.catalog.check.check_catalog", interrupted)
    assert main(["catalog", "check"]) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_the_codemod_takes_json_as_all_others_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.py").write_text("from src.training.losses.clip_style_loss import CLIPStyleLoss\n")
    assert main(["codemod", str(tmp_path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["matched"] == 1


def test_brief() -> None:
    assert brief(ValueError("Too long. And more.\nStill more")) == "Too long"
    assert brief(ValueError()) == "ValueError"
