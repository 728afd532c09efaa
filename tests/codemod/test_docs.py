"""The pages of the rules: one each, with the text of `--explain`, and examples that are true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

from tests.codemod.console import answer, sessions
from tests.codemod.support import CATALOG, HERE, examples, rewritten
from training_losses.migration.catalog import builtin_catalog
from training_losses.migration.codemod import cli
from training_losses.migration.codemod.codes import RULES

DOCS = Path(__file__).resolve().parents[2] / "docs" / "codemod"
EXAMPLE = re.compile(r"Before:\n\n```python\n(.*?)```\n\nAfter(?:: unchanged\.|:\n\n```python\n(.*?)```)", re.S)


def test_each_rule_has_a_page_and_each_page_a_rule() -> None:
    assert {path.stem for path in DOCS.glob("TL*.md")} == set(RULES)
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for code, rule in RULES.items():
        assert f"| [{code}]({code}.md) | {rule.level} | {rule.title} |" in index


@pytest.mark.parametrize("code", RULES)
def test_page(code: str) -> None:
    text = (DOCS / f"{code}.md").read_text(encoding="utf-8")
    rule = RULES[code]
    assert text.startswith(f"# {code}: {rule.title}\n\nLevel: {rule.level}\n\n{rule.text}\n")
    found = EXAMPLE.findall(text)
    assert len(found) == text.count("Before:")
    for before, after in found:
        new, outcome = rewritten(before)
        assert new == (after or before)
        assert code in {finding.code for finding in outcome.findings}


def test_each_page_has_an_example() -> None:
    for code in RULES:
        text = (DOCS / f"{code}.md").read_text(encoding="utf-8")
        assert "Before:" in text or "File:" in text or any(sessions(text)), code


WITH_CONSOLE = [code for code in RULES if any(sessions((DOCS / f"{code}.md").read_text(encoding="utf-8")))]


@pytest.mark.parametrize("code", WITH_CONSOLE)
def test_console(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(arguments: list[str]) -> str:
        cli.main([*arguments, "--catalog", str(CATALOG)])
        captured = capsys.readouterr()
        return captured.out + captured.err

    for number, commands in enumerate(sessions((DOCS / f"{code}.md").read_text(encoding="utf-8"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        for command, shown in commands:
            assert answer(command, shown, folder, run) == shown, command
        assert any(code in shown for _, shown in commands)


def test_the_page_on_results_tells_what_the_catalog_tells() -> None:
    (row,) = builtin_catalog().find("barlow_twins_loss.BarlowTwinsLoss")
    page = (DOCS / "TL041.md").read_text(encoding="utf-8")
    assert [key.new for key in row.cases[0].results.values()] == re.findall(r"`out\[\"(\w+)\"\]`", page)


def test_the_tests_of_the_list_of_forms_exist() -> None:
    text = (DOCS / "forms.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    named = {test for row in rows if row[0] != "| what" for test in re.findall(r"`([^`]+)`", row[-1])}
    cases = {case.name for path in (HERE / "data").glob("*.txt") for case in examples(path)}
    functions = {
        f"{path.name}::{node.name}"
        for path in HERE.glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    assert cases <= named <= cases | functions
    assert len(rows) > 80
    assert all("`" in row[-1] for row in rows if row[0] != "| what")


def test_the_hooks_are_for_the_whole_repository() -> None:
    hooks = yaml.safe_load((DOCS.parents[1] / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert [hook["id"] for hook in hooks] == ["migrate-losses", "migrate-losses-check"]
    assert all(hook["pass_filenames"] is False and hook["entry"] == "training-losses codemod" for hook in hooks)
