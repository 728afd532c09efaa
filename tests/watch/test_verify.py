"""``verify`` finds what a migration changes, where it begins, and what only follows from it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training_losses.migration.__main__ import main
from training_losses.migration.watch.tree import copy_tree
from training_losses.migration.watch.verify import Options, Session

pytestmark = pytest.mark.usefixtures("one_thread")

SCRIPT = """
import torch

from src.training.losses import VICRegLoss
from src.training.losses.clip_style_loss import CLIPStyleLoss

torch.manual_seed(0)
images, texts = torch.randn(24, 12), torch.randn(24, 12)
ids = torch.arange(24)
vision, text = torch.nn.Linear(12, 8), torch.nn.Linear(12, 8)
optimizer = torch.optim.SGD([*vision.parameters(), *text.parameters()], lr=0.05)
clip = CLIPStyleLoss(0.1)
vicreg = VICRegLoss(sim_coeff=5.0, warmup_epochs=3)
for epoch in range(3):
    vicreg.update_epoch(epoch)
    if epoch == 1:
        clip.temperature = 0.2
    for batch in torch.arange(24).split(12):
        a, b = vision(images[batch]), text(texts[batch])
        match = ids[batch]
        out = clip(a, b, match_ids=match)
        loss = out["loss"] + 0.1 * vicreg(a, b)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(epoch, f"{loss.item():.5f} {float(out['v2t_accuracy']):.3f}")
"""

DRIVER = """
import os, runpy, torch
for name in sorted(os.listdir(".")):
    if name.startswith("v"):
        pid = os.fork()
        if not pid:
            code = 1
            try:
                runpy.run_path(name + "/main.py", run_name="__main__")
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
"""

PLANTED: dict[str, Callable[[str], str]] = {
    "v0": lambda text: text,
    "v1_pin_removed": lambda text: text.replace("    variance_weight=5.0,\n", ""),
    "v2_weight_halved": lambda text: text.replace("+ 0.1 *", "+ 0.05 *"),
    "v3_ids_permuted": lambda text: text.replace("match = ids[batch]", "match = ids[batch].roll(int(epoch == 1))"),
    "v7_samples_permuted": lambda text: text.replace("text(texts[batch])", "text(texts[batch.roll(int(epoch == 1))])"),
    "v4_key_read_wrongly": lambda text: text.replace("'accuracy_v2t'", "'loss_v2t'"),
    "v5_schedule_late": lambda text: text.replace("update_epoch(epoch)", "update_epoch(max(epoch - 1, 0))"),
    "v6_write_lost": lambda text: text.replace("        clip.temperature = 0.2", "        pass"),
}


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run of all variants, each in a forked process of its own."""
    top = tmp_path_factory.mktemp("planted")
    tree = top / "tree"
    for name in PLANTED:
        (tree / name).mkdir(parents=True)
        (tree / name / "main.py").write_text(SCRIPT, encoding="utf-8")
    (tree / "all.py").write_text(DRIVER, encoding="utf-8")
    session = Session(Options(tree, [sys.executable, "all.py"], quiet=True), top)
    after = top / "after"
    copy_tree(tree, after)
    session.old(tree)
    session.migrate(after)
    for name, change in PLANTED.items():
        file = after / name / "main.py"
        before = file.read_text(encoding="utf-8")
        file.write_text(change(before), encoding="utf-8")
        assert (before != file.read_text(encoding="utf-8")) == (name != "v0"), f"{name} changes nothing"
    return session.new(after)


def places(data: dict[str, Any], variant: str) -> dict[str, dict[str, Any]]:
    """The places of one variant by the name of the old loss."""
    found = {p["old"].rpartition(".")[2]: p for p in data["places"] if p["file"].startswith(f"{variant}/")}
    assert set(found) == {"CLIPStyleLoss", "VICRegLoss"}
    return found


def test_the_faithful_migration_is_equal(planted: dict[str, Any]) -> None:
    for place in places(planted, "v0").values():
        assert place["verdict"] == "equal"
        assert place["calls"] == [6, 6]
        assert place["first"] is None
        assert 0 <= place["value"] < 2e-5


@pytest.mark.parametrize(
    ("variant", "guilty", "kind", "call", "said"),
    [
        ("v1_pin_removed", "VICRegLoss", "value", 1, "variance_weight is left out, the catalog pins 5.0"),
        ("v2_weight_halved", "VICRegLoss", "use", 1, "the gradient that arrives at the loss"),
        ("v3_ids_permuted", "CLIPStyleLoss", "input", 3, "argument 'match_ids'"),
        ("v7_samples_permuted", "CLIPStyleLoss", "input", 3, "argument 'text_features'"),
        ("v5_schedule_late", "VICRegLoss", "value", 3, "the loss differs"),
        ("v6_write_lost", "CLIPStyleLoss", "value", 3, "temperature was set to 0.2 before the migration only"),
    ],
)
def test_a_planted_change_is_found_at_its_place_and_call(
    planted: dict[str, Any], variant: str, guilty: str, kind: str, call: int, said: str
) -> None:
    found = places(planted, variant)
    innocent = next(name for name in found if name != guilty)
    first = found[guilty]["first"]
    assert found[guilty]["verdict"] == "deviates"
    assert (first["kind"], first["cause"]) == (kind, True)
    assert said in first["text"]
    assert first["call"] == call
    # what comes after it, at the other loss, is told apart
    if variant == "v3_ids_permuted":  # ids that are all different name the same pairs in any order
        assert found[innocent]["verdict"] == "equal"
        return
    assert found[innocent]["verdict"] == "follows"
    assert f"this follows from {guilty}" in found[innocent]["first"]["text"]
    assert found[innocent]["first"]["call"] >= call


def test_a_key_read_wrongly_is_seen_in_what_is_printed(planted: dict[str, Any]) -> None:
    for place in places(planted, "v4_key_read_wrongly").values():
        assert place["verdict"] == "equal"
    assert planted["exit_code"] == 1


def _tree(tmp_path: Path, script: str) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "main.py").write_text(script, encoding="utf-8")
    return tree


def _verify(tree: Path, *words: str, command: list[str] | None = None) -> int:
    return main(["verify", "--json", *words, str(tree), "--", *(command or [sys.executable, "main.py"])])


SMALL = """
import os, sys, torch
from src.training.losses.clip_style_loss import CLIPStyleLoss
torch.manual_seed(0)
loss = CLIPStyleLoss(0.1)
x, y = torch.randn(6, 4), torch.randn(6, 4)
"""


def test_page_formats_and_what_lies_around(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = _tree(tmp_path, SMALL + "print(loss(x, y)['loss'].item(), open('../data.txt').read())\nopen('made', 'w')\n")
    (tmp_path / "data.txt").write_text("beside", encoding="utf-8")
    page = tmp_path / "page.html"
    assert _verify(tree, "--html", str(page)) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["verdict"] == "equal"
    assert [p["code"] for p in data["places"]] == ["loss = CLIPStyleLoss(0.1)"]
    text = page.read_text(encoding="utf-8")
    assert "main.py:5" in text
    assert not re.search(r"(?:src|href)\s*=\s*['\"]?https?:", text)
    # neither the tree nor its neighbours keep anything of it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.txt", "page.html", "tree"]
    assert sorted(path.name for path in tree.iterdir()) == ["main.py"]
    assert "src.training" in (tree / "main.py").read_text(encoding="utf-8")


@pytest.mark.slow
def test_in_place_the_tree_is_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = _tree(tmp_path, SMALL + "print(__file__, loss(x, y)['loss'].item())\n")
    before = (tree / "main.py").read_bytes()
    assert _verify(tree, "--in-place", "--format", "github") == 0
    assert "::notice title=verify: equal" in capsys.readouterr().out
    assert (tree / "main.py").read_bytes() == before


NOT_TWICE = SMALL.replace("torch.manual_seed(0)", "torch.seed()") + "print(loss(x, y)['loss'].item())\n"


@pytest.mark.slow
def test_a_program_that_is_not_the_same_twice_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _verify(_tree(tmp_path, NOT_TWICE), "--repeat", "2") == 2
    data = json.loads(capsys.readouterr().out)
    assert data["verdict"] == "not deterministic"
    assert "not the same twice by itself" in data["message"]
    assert data["repeat"]["deterministic"] is False


NAN = SMALL + "x[0] = float('nan')\nloss(x, y)\n"
FEWER = SMALL + "import training_losses\nfor _ in range(3 if 'training_losses.contrastive.clip_loss' in sys.modules else 5):\n    loss(x, y)\n"  # fmt: skip  # noqa: E501


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "code", "verdict", "said"),
    [
        (SMALL + "raise SystemExit(3)\n", 2, "could not run", "ended with exit code 3 before anything was migrated"),
        ("print('no loss at all')\n", 2, "could not run", "called no loss that the catalogs name"),
        (SMALL + "os.kill(os.getpid(), 9)\n", 2, "could not run", "was killed by SIGKILL before"),
        (SMALL + "loss(x, y)\nfor _ in range(200): print('x' * 50000)\n", 0, "equal", "all 1 calls agree"),
        (FEWER, 1, "deviates", "5 calls before, 3 after"),
        (NAN, 0, "equal", "numbers are not finite on both sides"),
    ],
    ids=["fails", "no loss", "killed", "prints much", "fewer calls", "nan"],
)
def test_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], script: str, code: int, verdict: str, said: str
) -> None:
    assert _verify(_tree(tmp_path, script)) == code
    text = capsys.readouterr().out
    assert "NaN" not in text
    data = json.loads(text)
    assert data["verdict"] == verdict
    assert said in data["message"]


def test_no_such_command_and_no_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = _tree(tmp_path, SMALL)
    assert _verify(tree, command=[str(tmp_path / "no such program")]) == 2
    assert main(["verify", str(tree), "--"]) == 2
    assert main(["verify", str(tree / "nowhere"), "--", "true"]) == 2
    assert "cannot be run" in capsys.readouterr().out


@pytest.mark.slow
def test_the_codemod_takes_a_write_back_that_changes_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = SMALL + "ids = torch.arange(6) // 2\nprint(loss(x, y, match_ids=ids)['loss'].item())\n"
    tree = _tree(tmp_path, told)
    run = f"{sys.executable} main.py"
    assert main(["codemod", "--write", str(tree), "--verify", run]) == 1
    assert "this loss is the cause" in capsys.readouterr().err
    assert (tree / "main.py").read_text(encoding="utf-8") == told
    assert main(["codemod", "--write", str(tree), "--verify", "false"]) == 2
    assert (tree / "main.py").read_text(encoding="utf-8") == told
    (tree / "main.py").write_text(told.replace(", match_ids=ids", ""), encoding="utf-8")
    assert main(["codemod", "--write", str(tree), "--verify", run]) == 0
    assert "training_losses" in (tree / "main.py").read_text(encoding="utf-8")


def test_verify_of_the_codemod_wants_a_folder_and_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = _tree(tmp_path, SMALL)
    assert main(["codemod", "--verify", "true", str(tree)]) == 2
    assert main(["codemod", "--write", "--verify", "true", str(tree / "main.py")]) == 2
    assert "--verify goes with --write and one directory" in capsys.readouterr().err
