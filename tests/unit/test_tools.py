"""The project's own checks fail when they should."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tests.support.tools import tool
from training_losses.functional import precision

ROOT = Path(__file__).resolve().parents[2]


def statistics(percentage: float, lines: int = 100) -> dict[str, Any]:
    clone = {"firstFile": {"name": "a", "start": 1, "end": 5}, "secondFile": {"name": "b", "start": 2, "end": 6}}
    return {"duplicates": [clone], "statistics": {"total": {"percentage": percentage, "lines": lines}}}


@pytest.mark.parametrize(("share", "lines", "code"), [(0.99, 100, 0), (1.0, 100, 1), (0.0, 0, 2)])
def test_duplication_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], share: float, lines: int, code: int
) -> None:
    module = tool("duplication")
    monkeypatch.setattr(sys, "argv", ["duplication.py"])
    monkeypatch.setattr(module, "report", lambda *folders: statistics(share, lines))
    assert module.main() == code
    assert "a:1-5 = b:2-6" in capsys.readouterr().out


def test_duplication_without_node(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    module = tool("duplication")
    monkeypatch.setattr(sys, "argv", ["duplication.py"])
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    assert module.main() == 2
    assert "install Node.js" in capsys.readouterr().err


def test_coverage_limits_need_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tool("coverage_limits")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    assert module.main() == 2
    assert "run the sessions tests and parity first" in capsys.readouterr().err


def test_coverage_limits_fail_below(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = tool("coverage_limits")
    (tmp_path / "src").mkdir()
    (tmp_path / "migration").mkdir()
    (tmp_path / "migration" / "x.py").write_text("a = 1\nb = 2\n")
    (tmp_path / ".nox").mkdir()
    (tmp_path / ".nox" / ".coverage.tests").write_bytes(b"")

    class Fake:
        missing: list[int] = []

        def __init__(self, **_: Any) -> None: ...

        def combine(self, *_: Any, **__: Any) -> None: ...

        def analysis2(self, _: str) -> tuple[str, list[int], list[int], list[int], str]:
            return "", [1, 2], [], self.missing, ""

    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module.coverage, "Coverage", Fake)
    assert module.main() == 0
    Fake.missing = [2]
    assert module.main() == 1
    assert "FAIL" in capsys.readouterr().out


# --- mutants ----------------------------------------------------------------------------------------------------------

SMALL = """
LIMIT = 2.0


class Loss:
    def forward(self, x, *, eps: float = 1e-3) -> int:
        \"\"\"Not 1 + 1.\"\"\"
        if x < LIMIT:
            raise ValueError(f"{x + 1} is too small")
        return -x.mean(dim=1) * sum(zip(x, x, strict=True)) + eps

    def plot(self) -> int:
        return 3
"""


@pytest.fixture
def mutation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return tool("mutation")


def test_mutants_of_a_file(mutation: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mutation, "SOURCE", tmp_path)
    (tmp_path / "small.py").write_text(SMALL)
    found = mutation.mutants(tmp_path / "small.py")
    assert {(m.before.strip(), m.after.strip()) for m in found} == {
        ("2.0", "3.0"),
        ("1e-3", "0.0015"),
        ("<", "<="),
        ("-", ""),
        ("mean", "sum"),
        ("1", "2"),
        ("*", "/"),
        ("+", "-"),
    }
    (compared,) = (m for m in found if m.before.strip() == "<")
    assert "if x <= LIMIT:" in compared.apply(SMALL)
    assert (compared.inside, compared.first, compared.last, compared.scope) == ("Loss.forward", 8, 8, (6, 10))
    (default,) = (m for m in found if m.before == "1e-3")
    assert (default.first, default.last) == default.scope
    (constant,) = (m for m in found if m.before == "2.0")
    assert constant.scope == (1, len(SMALL.splitlines()))
    # keys hold as long as the function does, wherever it moves
    (tmp_path / "small.py").write_text("# a comment\n" + SMALL)
    assert [m.key for m in mutation.mutants(tmp_path / "small.py")][1:] == [m.key for m in found][1:]


def test_a_mutant_gets_into_the_loaded_code(mutation: ModuleType) -> None:
    path = mutation.SOURCE / "functional" / "precision.py"
    text = path.read_text(encoding="utf-8")
    (mutant,) = (m for m in mutation.mutants(path) if m.before == "1e-6")
    code = precision.eps_for.__code__
    try:
        assert mutation.graft(mutant, text) == 1
        assert precision.eps_for(torch.float16) == pytest.approx(1.5e-6)
    finally:
        precision.eps_for.__code__ = code
    assert precision.eps_for(torch.float16) == 1e-6


def test_the_table_of_mutants(mutation: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = tool("mutants")
    path = tmp_path / "a.py"
    mutants = [
        SimpleNamespace(path=path, module="a.py", line=1, column=4, before="1", after="2"),
        SimpleNamespace(path=path, module="a.py", line=2, column=4, before=" + ", after=" - "),
        SimpleNamespace(path=path, module="a.py", line=2, column=8, before="3", after="4"),
    ]
    results = [{"status": s, "tests": 5} for s in ("killed", "survived", "survived")]
    monkeypatch.setattr(module, "EQUIVALENT", tmp_path / "equivalent.toml")
    (tmp_path / "equivalent.toml").write_text(
        '[[equivalent]]\nwhy = "the same"\nmutants = ["a.py | y = x + 3 | 3 -> 4"]\n'
    )
    text, share = module.summary(list(zip(mutants, results, strict=True)), {path: "x = 1\ny = x + 3\n"}, {"a.py": 9})
    assert "| a.py | 9 | 3 | 1 | 1 | 1 | 50.0 % |" in text
    assert "* `a.py:2:4` `+ -> -` in `y = x + 3`: 5 tests passed" in text
    assert "`3 -> 4` in `y = x + 3`: the same" in text
    assert share == 50.0
