"""The generated parts of the documentation are current, and the check notices when they are not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from tests.support.tools import tool
from training_losses.loss_registry import LossRegistry

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return tool("docs_tables")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    return tmp_path / "docs"


def test_the_documentation_is_current(tables: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert tables.main(["--check"]) == 0, capsys.readouterr().out + "run: python tools/docs_tables.py"


def test_an_edited_region_is_stale_and_gets_filled(
    tables: ModuleType, docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = docs / "losses" / "vicreg.md"
    good = page.read_text("utf-8")
    page.write_text(good.replace("`sim_coeff=10.0`", "`sim_coeff=11.0`"), "utf-8")
    assert tables.main(["--check", "--docs", str(docs)]) == 1
    assert "stale: docs/losses/vicreg.md" in capsys.readouterr().out
    assert tables.main(["--docs", str(docs)]) == 0
    assert page.read_text("utf-8") == good


def test_text_outside_of_regions_is_kept(tables: ModuleType, docs: Path) -> None:
    page = docs / "losses" / "mse.md"
    page.write_text(page.read_text("utf-8") + "\nMy own words | with a pipe.\n", "utf-8")
    assert tables.main(["--check", "--docs", str(docs)]) == 0


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("<!-- catalog:vicreg_loss.VICReg -->\n<!-- /catalog -->", "names 0 symbols"),
        ("<!-- catalog:index nowhere -->\n<!-- /catalog -->", "no system 'nowhere'"),
        ("<!-- docstring:training_losses.supervised.mse.Nothing -->\n<!-- /docstring -->", "there is no"),
        ("<!-- catalog:losses.MeanSquaredError -->\n", "has no end"),
    ],
)
def test_broken_markers_are_errors(tables: ModuleType, docs: Path, marker: str, message: str) -> None:
    (docs / "broken.md").write_text(marker, "utf-8")
    with pytest.raises(SystemExit, match=message):
        tables.main(["--docs", str(docs)])


def test_every_old_class_has_an_example_that_works(tables: ModuleType) -> None:
    text = tables.render_examples(tables.builtin_catalog(), "multimodal_insight", "")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    classes = {
        s.name for s in tables.builtin_catalog().symbols if s.system == "multimodal_insight" and s.kind == "class"
    }
    assert {re.search(r"import (\w+)", block)[1] for block in blocks} == classes
    built = 0
    for block in blocks:
        compile(block, "example", "exec")
        after = block.partition("# after\n")[2]
        given = {"loss_functions": {"task": nn.MSELoss()}, "encoder": nn.Linear(2, 2)}
        scope: dict[str, object] = dict(given)
        if not after.startswith("#") and "encoder" not in after:
            exec(after, scope)
            assert isinstance(scope["loss"], nn.Module)
            built += 1
    assert built > len(classes) / 2


def test_the_code_of_the_guide_works() -> None:
    text = (ROOT / "docs" / "LOSS_MIGRATION_GUIDE.md").read_text("utf-8")
    written = text.partition("## Writing a new loss")[2]
    try:
        scope: dict[str, object] = {}
        for block in re.findall(r"```python\n(.*?)```", written, re.S):
            exec(block, scope)
        loss = LossRegistry.create("angular", margin=0.5)
        z = torch.eye(3)
        assert float(loss(z_a=z, z_b=z)) == 0.0
        assert float(loss(z_a=z, z_b=z.roll(1, 0))) == 0.5
    finally:
        LossRegistry._classes.pop("angular", None)


def test_links_lead_somewhere() -> None:
    local = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")
    for path in (ROOT / "docs").rglob("*.md"):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text("utf-8"), flags=re.DOTALL)
        for target in local.findall(text):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_docstrings_become_markdown(tables: ModuleType) -> None:
    text = "One ``x``.\n\nFormula::\n\n    a = b\n\nArgs:\n    name: what\n        goes on.\n    other: that.\n\n"
    text += "Returns:\n    A tensor."
    assert tables.to_markdown(text).splitlines() == [
        "One `x`.",
        "",
        "Formula:",
        "",
        "```text",
        "a = b",
        "```",
        "",
        "## Arguments",
        "",
        "* `name`: what",
        "  goes on.",
        "* `other`: that.",
        "",
        "## Returns",
        "",
        "A tensor.",
    ]
