"""The generated pages of the site; building all of it is the session ``docs``."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.tools import tool
from training_losses import LossRegistry

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    return tool("docs_site")


def test_the_gallery_has_everything_of_every_loss(site: ModuleType) -> None:
    entries = re.split(r"^### ", site.gallery(), flags=re.MULTILINE)[1:]
    found = {}
    for entry in entries:
        name = re.search(r"^\* Registry name: `(\w+)`", entry, re.MULTILINE)
        assert name is not None
        found[name[1]] = entry
        for part in (r"```text\n.+", r"^\* Cost: \S+", r"^\* Paper: \S+", r"^\* Old names: \S+"):
            assert re.search(part, entry, re.MULTILINE), (name[1], part)
    assert set(found) == set(LossRegistry.available())
    assert "CLIPStyleLoss" in found["clip"]


def test_pages_and_systems(site: ModuleType) -> None:
    shown = str(site.navigation(ROOT / "docs", []))
    titles = ("Start here", "Migration guide", "Gallery", "By system", "Codemod", "Benchmarks", "Parity report", "API")
    for title in (*titles, *site.SYSTEMS.values()):
        assert repr(title) in shown, title
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in shown, f"{page} is on no menu"


def test_the_report_of_the_last_run(site: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "REPORT", tmp_path / "run")
    site.report_page(tmp_path)
    assert "no run" in (tmp_path / "report.md").read_text()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.html").write_text("<p>plots</p>")
    (tmp_path / "run" / "report.md").write_text("# Parity\n\n| old | new |\n")
    site.report_page(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "(parity.html)" in text
    assert "| old | new |" in text
    assert text.count("# Parity") == 1
    assert (tmp_path / "parity.html").read_text() == "<p>plots</p>"
