"""The command line: modes, exit codes, formats, settings, undo."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.codemod.support import CATALOG
from training_losses.migration.codemod import cli
from training_losses.migration.codemod.codes import RULES

OLD = "from src.training.losses import VICRegLoss\nVICRegLoss(1.0)\n"
NEW = """\
from training_losses.contrastive.vicreg import VICRegLoss
VICRegLoss(invariance_weight=1.0, center_invariance=True)
"""
LEFT = "from src.training.losses import VICRegLoss\nVICRegLoss(**x)\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    (tmp_path / "a.py").write_text(OLD)
    (tmp_path / "b.py").write_text("x = 1\n")
    return tmp_path


def run(*arguments: Any) -> int:
    return cli.main([*map(str, arguments), "--catalog", str(CATALOG)])


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


def test_default_prints_a_diff_and_writes_nothing(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tree) == 1
    out = capsys.readouterr().out
    assert "-from src.training.losses import VICRegLoss" in out
    assert f"+{NEW.splitlines()[1]}" in out
    assert "2 files read, 1 mention old names, 1 would be rewritten." in out
    assert (tree / "a.py").read_text() == OLD


def test_write_check_and_undo(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tree, "--check") == 1
    assert "+from" not in capsys.readouterr().out
    assert run(tree, "--write") == 0
    assert (tree / "a.py").read_text() == NEW
    assert run(tree, "--check") == 0
    assert run(tree, "--undo") == 0
    assert (tree / "a.py").read_text() == OLD
    capsys.readouterr()
    assert run(tree, "--undo") == 2
    assert "no journal" in capsys.readouterr().err


def test_undo_leaves_what_was_changed_since(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "c.py").write_text(OLD)
    run(tree, "--write")
    (tree / "a.py").write_text(NEW + "# mine\n")
    assert run(tree, "--undo") == 2
    assert "changed since" in capsys.readouterr().err
    assert (tree / "a.py").read_text() == NEW + "# mine\n"
    assert (tree / "c.py").read_text() == OLD


def test_left_places_keep_the_exit_code_at_one(tree: Path) -> None:
    (tree / "a.py").write_text(LEFT)
    assert run(tree, "--write") == 1
    assert (tree / "a.py").read_text() == LEFT


def test_nothing_to_do(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "a.py").unlink()
    assert run(tree) == 0
    assert capsys.readouterr().out == "1 files read, 0 mention old names, 0 would be rewritten.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: no such file or directory"),
        ([".", "--select", "Nothing"], "'Nothing' is no system or symbol"),
        ([".", "--jobs", "0"], "must be positive"),
        (["--explain", "TL999"], "unknown rule 'TL999'"),
    ],
)
def test_wrong_use_is_one_clear_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not captured.out


def test_a_catalog_with_a_typo(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tree / "bad.toml"
    bad.write_text(CATALOG.read_text().replace("rename =", "rennme =", 1))
    assert cli.main([str(tree / "a.py"), "--catalog", str(bad)]) == 2
    err = capsys.readouterr().err
    assert "bad.toml:" in err
    assert "rennme" in err


def test_broken_files_count_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also when the names that other files export are looked for in a second pass."""
    (tmp_path / "a.py").write_text(OLD)
    (tmp_path / "b.py").write_text(OLD + "def (:\n")
    assert run(tmp_path) == 2
    assert "2 files read, 2 mention old names, 1 would be rewritten, 1 errors." in capsys.readouterr().out


def test_uncommitted_changes_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text(OLD)
    (tmp_path / "b.py").write_text(OLD)
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    (tmp_path / "other.py").write_text("unrelated = 1\n")
    (tmp_path / "a.py").write_text(OLD + "# edited\n")
    assert run(tmp_path, "--write") == 2
    assert "uncommitted changes in" in capsys.readouterr().err
    assert (tmp_path / "b.py").read_text() == OLD
    git(tmp_path, "commit", "-qam", "y")
    assert run(tmp_path, "--write") == 0
    assert run(tmp_path, "--undo") == 0
    (tmp_path / "new.py").write_text(OLD)
    assert run(tmp_path, "--write") == 2
    assert run(tmp_path, "--write", "--force") == 0
    assert (tmp_path / "a.py").read_text() == NEW + "# edited\n"
    status = subprocess.run(
        ["git", "-C", str(tmp_path), "status", "--short"], capture_output=True, text=True, check=True
    )
    assert ".training-losses-codemod" not in status.stdout


def test_json(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tree, "--format", "json") == 1
    data = json.loads(capsys.readouterr().out)
    assert data["files"][0]["path"] == str(tree / "a.py")
    assert data["files"][0]["diff"].startswith("--- ")
    assert data["counts"] == {"TL001": 1, "TL006": 1, "TL008": 1}
    assert {"path", "line", "column", "code", "level", "message", "symbol"} == set(data["findings"][0])


def test_sarif(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "c.py").write_text(LEFT)
    run(tree, "--format", "sarif")
    data = json.loads(capsys.readouterr().out)
    (one,) = data["runs"]
    assert data["version"] == "2.1.0"
    rules = [rule["id"] for rule in one["tool"]["driver"]["rules"]]
    for result in one["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["locations"][0]["physicalLocation"]["region"]["startLine"] >= 1
    assert {"TL030", "TL043"} <= set(rules)


def test_github(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "a,b.py").write_text(LEFT)
    run(tree, "--format", "github")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("::warning file=") and "a%2Cb.py,line=2,col=1,title=TL030::" in line for line in lines)


def test_interactive(tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "b.py").write_text(OLD)
    (tree / "c.py").write_text("from src.training.losses import CrossEntropyLoss\n")
    answers = iter(["y", "n", "y"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    assert run(tree, "--interactive") == 1
    # a loss is moved everywhere or nowhere: b.py was declined, so a.py stays too
    assert (tree / "a.py").read_text() == OLD
    assert (tree / "b.py").read_text() == OLD
    assert "LabelSmoothing" in (tree / "c.py").read_text()
    monkeypatch.setattr("builtins.input", lambda prompt: "a")
    assert run(tree, "--interactive") == 0
    assert (tree / "a.py").read_text() == (tree / "b.py").read_text() == NEW
    assert "rewrite" not in capsys.readouterr().err


def test_interactive_without_input_declines(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    assert run(tree, "--interactive") == 1
    assert (tree / "a.py").read_text() == OLD


def test_stdin(tree: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    for name, text, new, code in (
        ("a.py", OLD, NEW, 0),
        ("pkg/training/losses/x.py", "from . import y\n", "from . import y\n", 0),
        ("a.py", LEFT, LEFT, 1),
        ("a.py", "from src.training.losses import (", "from src.training.losses import (", 2),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert run("-", "--stdin-filename", tree / name) == code
        assert capfdbinary.readouterr().out.decode() == new


def test_settings_of_pyproject(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tree / "pyproject.toml"
    head = "[tool.training-losses.codemod]\n"
    settings.write_text(head + f'catalog = ["{CATALOG}"]\nexclude = ["a.py"]\n')
    assert cli.main([str(tree)]) == 0
    settings.write_text(head + f'catalog = ["{CATALOG}"]\nignore = ["VICRegLoss"]\n')
    assert cli.main([str(tree)]) == 0
    settings.write_text(head + f'catalog = ["{CATALOG}"]\nselect = ["demo"]\njobs = 2\n')
    assert cli.main([str(tree), "--check"]) == 1
    capsys.readouterr()
    for wrong in ("colour = 1\n", 'jobs = "2"\n', 'numbers = "loose"\n', "jobs = \n"):
        settings.write_text(head + wrong)
        assert cli.main([str(tree)]) == 2
        assert "pyproject.toml" in capsys.readouterr().err


def test_jobs_find_the_same(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tree, "--format", "json")
    one = capsys.readouterr().out
    run(tree, "--format", "json", "--jobs", "2")
    assert capsys.readouterr().out == one


def test_explain_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--explain", "tl030"]) == 0
    assert RULES["TL030"].text in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert stopped.value.code == 0
    assert "Exit code" in capsys.readouterr().out


def test_progress_is_shown_on_a_terminal_only(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tree)
    assert not capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run(tree)
    assert "files" in capsys.readouterr().err


def test_the_thin_script(tree: Path) -> None:
    script = Path(__file__).resolve().parents[2] / "tools" / "codemod.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tree), "--catalog", str(CATALOG)], capture_output=True, text=True, cwd=tree
    )
    assert done.returncode == 1
    assert "would be rewritten" in done.stdout
