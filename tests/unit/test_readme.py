"""What the README shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_the_codemod_makes_the_before_and_after(tmp_path: Path) -> None:
    (diff,) = blocks("diff")
    lines = diff.splitlines()
    before = [line[1:] for line in lines if not line.startswith("+")]
    after = [line[1:] for line in lines if not line.startswith("-")]
    script = tmp_path / "script.py"
    script.write_text("\n".join(before) + "\n")
    command = [sys.executable, "-m", "training_losses", "codemod", "--write", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert script.read_text().splitlines() == after, done.stdout + done.stderr


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {})
    assert "loss" in capsys.readouterr().out


def test_exactly_two_commands_set_everything_up() -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines() if "nox" in line]
    assert [command.rsplit("/", 1)[-1] for command in commands] == ["nox -s demo", "nox"]
    assert commands[1] in (ROOT / ".ci" / "run").read_text()


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
