"""Training scripts that use attributes of old losses print after the move what they printed before, or are held back.

``data/old_members.txt`` holds them; each runs on the twins, is moved with the catalog, and runs again. A number that
changes has a finding of level ``left``, or the script stops with an error that says what to do.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training_losses.migration.codemod.cli import main as codemod

TEXT = (Path(__file__).parent / "data" / "old_members.txt").read_text(encoding="utf-8")
HEAD = """\
import torch
import torch.nn as nn
torch.manual_seed(0)
v, t = torch.randn(8, 16), torch.randn(8, 16)
"""
SCRIPTS = {
    name: HEAD + body for name, _, body in (b.partition("\n") for b in re.split(r"^##### ", TEXT, flags=re.M)[1:])
}
RUN = """\
import contextlib, io, json, runpy, sys, warnings
warnings.simplefilter("ignore")
from training_losses.migration import shims
shims.install()
printed = {}
for path in sys.argv[1:]:
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_path(path)
    except Exception as error:
        out.write(f"{type(error).__name__}: {error}")
    printed[path.rpartition("/")[2][:-3]] = out.getvalue()
print(json.dumps(printed))
"""


def run(folder: Path) -> dict[str, str]:
    paths = [str(path) for path in sorted(folder.glob("*.py"))]
    done = subprocess.run([sys.executable, "-c", RUN, *paths], capture_output=True, text=True, check=True, cwd=folder)
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def split(text: str) -> tuple[list[float], str]:
    """Its numbers, and the rest."""
    number = r"-?\d+\.\d+(?:e-?\d+)?"
    return [float(x) for x in re.findall(number, text)], re.sub(number, "#", text)


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Per script: what it printed before and after, the findings, whether it was moved at all."""
    folder = tmp_path_factory.mktemp("scripts")
    for name, text in SCRIPTS.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    before, findings = run(folder), {}
    for name in SCRIPTS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            codemod([str(folder / f"{name}.py"), "--write", "--force", "--format", "json"])
        findings[name] = json.loads(out.getvalue())["findings"]
    after = run(folder)
    changed = {name: (folder / f"{name}.py").read_text(encoding="utf-8") != text for name, text in SCRIPTS.items()}
    return {name: (before[name], after[name], findings[name], changed[name]) for name in SCRIPTS}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_same_numbers_or_a_word(name: str, moved: dict[str, Any]) -> None:
    before, after, findings, _ = moved[name]
    assert "Error" not in before
    if any(finding["level"] == "left" for finding in findings) or "AttributeError: 'MemoryQueueLoss'" in after:
        return
    (old, old_text), (new, new_text) = split(before), split(after)
    assert new_text == old_text
    assert new == pytest.approx(old, rel=1e-4, abs=1e-4)


def test_most_are_moved(moved: dict[str, Any]) -> None:
    assert sum(changed for *_, changed in moved.values()) >= 0.75 * len(SCRIPTS)
