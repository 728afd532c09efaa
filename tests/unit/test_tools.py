"""The project's own checks fail when they should."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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
