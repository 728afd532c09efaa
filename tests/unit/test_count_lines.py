"""tools/count_lines.py: the rule by which lines are counted."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = runpy.run_path(str(ROOT / "tools" / "count_lines.py"))


def test_lines_are_those_of_code_and_docstrings(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('"""Title.\n\nText.\n"""\n\n# a comment\nx = 1  # counts\n')
    assert TOOL["lines"](path) == 4


def test_imports_are_followed_through_packages() -> None:
    losses = TOOL["ROOT"]
    reached = {p.relative_to(losses).as_posix() for p in TOOL["reached"](losses / "contrastive" / "moco.py", set())}
    assert {"base/queue.py", "base/projection.py", "functional/streaming.py", "base/__init__.py"} <= reached
    assert not reached & {"base/warmup.py", "functional/moments.py", "contrastive/vicreg.py"}


def test_losses_without_an_old_class_in_the_19_files_do_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    path = TOOL["ROOT"] / "contrastive" / "vicreg.py"
    adaptive = TOOL["losses"](path)["training_losses.contrastive.vicreg.AdaptiveVICRegLoss"]
    TOOL["main"]()
    text = capsys.readouterr().out
    assert f"| `contrastive/vicreg.py` | {TOOL['lines'](path) - adaptive} |" in text
    assert "contrastive/dcl.py" not in text
    left_out = re.findall(r"(\w+) \(\d+\)", text[text.index("no successor") :])
    assert left_out == ["CrossModalVICRegLoss", "DecoupledContrastiveLoss", "AdaptiveVICRegLoss"]


def test_table_and_sums(capsys: pytest.CaptureFixture[str]) -> None:
    over = TOOL["main"]()
    text = capsys.readouterr().out
    rows = re.findall(r"^\| `(.+)` \| (\d+) \| (all|(\d+) of (\d+)) \| (\d+) \|$", text, re.M)
    known = {name: (int(count), int(counted)) for name, count, _, _, _, counted in rows}
    assert known["contrastive/clip_loss.py"][0] == known["contrastive/clip_loss.py"][1]
    assert "contrastive/cross_modal_vicreg.py" not in known
    for name, count, share, ours, everyone, counted in rows:
        if share != "all":
            assert 0 < int(ours) <= int(everyone), name
            assert int(counted) == -(-int(count) * int(ours) // int(everyone)), name
    strict, total = (sum(column) for column in zip(*known.values(), strict=True))
    assert f"{total} lines (to stay under {TOOL['LIMIT']}); {strict} with every shared module whole" in text
    assert over == (total >= TOOL["LIMIT"])
    assert total < 3000, "the successors of the 19 files have grown"
