"""Old paths that stay are reported in every kind of text; prose, messages, URLs and regular expressions are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.codemod.support import CATALOG, demo_catalog
from training_losses.migration.codemod import cli
from training_losses.migration.codemod.project import Outcome, Project
from training_losses.migration.codemod.rules import Rules

OLD = "src.training.losses"
PLAIN = "class PlainLoss:\n    def __init__(self, weight=1.0):\n        self.weight = weight\n"


def run(folder: Path, files: dict[str, str], **options: object) -> Outcome:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    project = Project(Rules(demo_catalog(), **options))  # type: ignore[arg-type]
    project.scan([folder])
    return project.finish(project.decide())


def said(outcome: Outcome, level: str = "left") -> list[tuple[str, int]]:
    return [(Path(f.path).name, f.line) for f in outcome.findings if f.level == level]


LEFT = {
    "unknown name of a module": ("a.py", f"from {OLD}.clip_style_loss import helper\n", 1),
    "unknown module": ("a.py", f"x = 1\nfrom {OLD} import my_loss\n", 2),
    "unknown module below": ("a.py", f"import {OLD}.mine.more as m\n", 1),
    "lazy": ("a.py", f"def f():\n    from {OLD}.mine import g\n    return g\n", 2),
    "f-string": ("a.py", f'import importlib\nimportlib.import_module(f"{OLD}.{{n}}")\n', 2),
    "sum": ("a.py", f'import importlib\nimportlib.import_module("{OLD}." + n)\n', 2),
    "percent": ("a.py", f'path = "{OLD}.%s" % n\n', 1),
    "percent by name": ("a.py", f'path = "{OLD}.%(n)s" % vars\n', 1),
    "format": ("a.py", f'path = "{OLD}.{{}}.{{}}".format(a, b)\n', 1),
    "module string": ("a.py", f'TABLE = {{"mine": "{OLD}.mine"}}\n', 1),
    "override": ("a.py", f'overrides = ["loss._target_={OLD}.mine.Loss"]\n', 1),
    "exec": ("a.py", f'exec("from {OLD} import mine; mine.f()")\n', 1),
    "code in a name": ("a.py", f'CODE = """\nfrom {OLD} import mine\nmine.f()\n"""\n', 1),
    "timeit": ("a.py", f'import timeit\ntimeit.timeit("f()", setup="from {OLD}.mine import f")\n', 2),
    "python -c": ("a.py", f'import os\nos.system("python -c \'import {OLD}.mine\'")\n', 2),
    "python -m": ("a.py", f'subprocess.run(["python", "-m", "{OLD}.mine"])\n', 1),
    "command line": ("a.py", f'run("python -m {OLD}.mine --epochs 3", shell=True)\n', 1),
    "entry point": ("setup.py", f'setup(entry_points={{"x": ["a = {OLD}.mine:Mine"]}})\n', 1),
    "doctest": ("a.py", f'def f():\n    """Sum.\n\n    >>> from {OLD} import mine\n    """\n', 4),
    "role": ("a.py", f'def f():\n    """Like :class:`~{OLD}.vicreg_loss.VICRegLoss`."""\n', 2),
    "own fallback": (
        "a.py",
        f"try:\n    from new import VICRegLoss\nexcept ImportError:\n    from {OLD} import VICRegLoss\n",
        4,
    ),
    "either or": ("a.py", f"if x:\n    from {OLD} import VICRegLoss\nelse:\n    from mine import VICRegLoss\n", 2),
    "Makefile": ("Makefile", f'run:\n\tpython -c "from {OLD} import VICRegLoss"\n', 2),
    "Dockerfile": ("Dockerfile", f'FROM x\nCMD ["python", "-m", "{OLD}.mine"]\n', 2),
    "workflow": (".github/workflows/ci.yml", f"jobs:\n  a:\n    steps:\n      - run: pytest --cov={OLD}\n", 4),
    "workflow block": ("ci.yaml", f'run: |\n  python -c "import {OLD}.mine"\n', 2),
    "setup.cfg": ("setup.cfg", f"[options.entry_points]\nx =\n    a = {OLD}.mine:Mine\n", 3),
    "pyproject": ("pyproject.toml", f'[project.scripts]\na = "{OLD}.mine:main"\n', 2),
    "gin import": ("a.gin", f"import {OLD}.vicreg_loss\nvicreg_loss.VICRegLoss.sim_coeff = 1.0\n", 1),
    "gin binding": ("a.gin", f"x.y = 1\n{OLD}.vicreg_loss.VICRegLoss.sim_coeff = 1.0\n", 2),
    "shell": ("a.sh", f"#!/bin/sh\nexec python -m {OLD}.mine\n", 2),
    "no suffix": ("train", f"#!/bin/sh\npython -m {OLD}.mine\n", 2),
    "template": ("a.yaml.j2", f"_target_: {OLD}.mine.Loss\n", 1),
    "batch file": ("a.bat", f"python -m {OLD}.mine\r\n", 1),
    "unknown path in YAML": ("a.yaml", f"loss:\n  _target_: {OLD}.mine.Loss\n", 2),
    "list in JSON": ("a.json", f'{{"modules": ["{OLD}"]}}\n', 1),
    "Markdown fence": ("a.md", f"Text\n\n```yaml\n_target_: {OLD}.mine.Loss\n```\n", 4),
    "Markdown shell": ("a.md", f"```console\n$ python -m {OLD}.mine\n```\n", 2),
    "rst role": ("a.rst", f"See :py:func:`{OLD}.mine.f`.\n", 1),
    "rst autodoc": ("a.rst", f"T\n=\n\n.. automodule:: {OLD}.vicreg_loss\n   :members:\n", 4),
    "rst literal": ("a.rst", f"So::\n\n    from {OLD} import mine\n\nEnd.\n", 3),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_what_breaks_without_the_old_package_is_left(name: str, tmp_path: Path) -> None:
    file, text, line = LEFT[name]
    outcome = run(tmp_path, {file: text})
    assert (Path(file).name, line) in said(outcome), outcome.findings
    assert len(said(outcome)) == 1
    assert not outcome.changes


NOTED = {
    "comment": ("a.py", f'x = "{OLD}.mine"  # codemod: skip\n# the same as {OLD}.mine\n# and {OLD}.yours\n', 2),
    "Makefile": ("Makefile", f"# {OLD}\nrun:\n\t@echo uses {OLD}.mine\n", 1),
    "YAML": ("a.yaml", f"a: 1  # was {OLD}.vicreg_loss\n# {OLD}\n", 1),
    "description": ("a.json", f'{{"description": "We took this from {OLD} in spring."}}\n', 1),
    "name of a step": ("ci.yml", f"steps:\n  - name: test the {OLD} package\n", 2),
    "label": ("Dockerfile", f'LABEL about="losses of {OLD}"\n', 1),
    "Markdown": ("a.md", f"# Losses\n\nThey are in `{OLD}`.\n\nAlso `{OLD}.mine`.\n", 3),
    "Markdown shown": ("a.md", f"```text\nModuleNotFoundError: No module named '{OLD}'\n```\n", 2),
    "rst": ("a.rst", f"Prose about {OLD}.mine.\n", 1),
    "changelog": ("CHANGELOG", f"1.0: new {OLD}.mine\n", 1),
    "patch": ("a.patch", f"+from {OLD} import mine\n", 1),
    "echo": ("a.sh", f'echo "{OLD} is old"\n', 1),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTED)
def test_what_is_only_mentioned_is_one_note(name: str, tmp_path: Path) -> None:
    file, text, line = NOTED[name]
    outcome = run(tmp_path, {file: text})
    assert not said(outcome), outcome.findings
    assert said(outcome, "note") == [(file, line)]


ALONE = {
    "message": ("a.py", f'raise ImportError("{OLD}.mine is gone")\n'),
    "exact message": ("a.py", f'raise ImportError("{OLD}.mine")\n'),
    "warning": ("a.py", f'import warnings\nwarnings.warn(f"{OLD}.{{name}} is deprecated")\n'),
    "code in a message": ("a.py", f'print("from {OLD} import mine")\n'),
    "log": ("a.py", f'log.info("%s is not {OLD}.mine", x)\n'),
    "assert": ("a.py", f'assert ok, "{OLD}.mine"\n'),
    "help": ("a.py", f'p.add_argument("--loss", help="as in {OLD}.mine")\n'),
    "sentence": ("a.py", f'TEXT = "use {OLD}.vicreg_loss for this"\n'),
    "docstring": ("a.py", f'def f():\n    """The same as {OLD}.mine, but faster."""\n'),
    "URL": ("a.py", f'DOCS = "https://example.org/api/#{OLD}.mine"\n'),
    "file": ("a.py", f'PAGE = "docs/{OLD}.html"\n'),
    "page": ("a.py", f'PAGE = "{OLD}.html"\n'),
    "pattern": ("a.py", f'import re\nre.compile(r"{OLD}")\n'),
    "escaped pattern": ("a.py", 'import re\nre.sub(r"src\\.training\\.losses", "x", y)\n'),
    "glob": ("a.py", f'PATTERN = "{OLD}.*"\n'),
    "longer name": ("a.py", f'import importlib\nimportlib.import_module("my{OLD}.mine")\n'),
    "longer last name": ("a.py", f"import {OLD}_extra\n"),
    "below another package": ("a.py", f"import vendored.{OLD}.mine\n"),
    "parent": ("a.py", "from src.training import trainer\nimport src.training.optim\n"),
    "skipped": ("a.py", f"from {OLD} import mine  # codemod: skip\n"),
    "skipped use": ("a.py", f"from {OLD} import mine\nmine.f()  # codemod: skip\n"),
    "skipped file": ("a.py", f"# codemod: skip-file\nfrom {OLD} import mine\n"),
    "skipped line of YAML": ("a.yaml", f"a: {OLD}.mine  # codemod: skip\n"),
    "URL in YAML": ("a.yaml", f"docs: https://example.org/{OLD}.mine\n"),
    "URL with a query": ("Makefile", f"get:\n\tcurl https://example.org/?q={OLD}.mine\n"),
    "pattern in settings": ("a.toml", f'[[o]]\nmodule = "{OLD}.*"\n'),
    "escaped in settings": ("a.cfg", "[a]\nb = ^src\\.training\\.losses\n"),
    "path of a file": ("Makefile", "run:\n\tpython src/training/losses/mine.py\n"),
    "lock file": ("poetry.lock", f'name = "{OLD}"\n'),
    "lock of npm": ("package-lock.json", f'{{"a": "{OLD}.mine"}}\n'),
    "log file": ("train.log", f"import {OLD}.mine\n"),
    "large text": ("a.txt", f"python -m {OLD}.mine\n" + "x" * 1_000_000),
    "large YAML": ("a.yaml", f"a: {OLD}.mine\n# " + "x" * 1_000_000),
    "binary": ("a.dat", f"\0{OLD}.mine\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
def test_what_names_no_path_stays_alone(name: str, tmp_path: Path) -> None:
    file, text = ALONE[name]
    outcome = run(tmp_path, {file: text})
    assert not outcome.findings
    assert not outcome.changes


def test_what_is_said_already_is_not_said_again(tmp_path: Path) -> None:
    outcome = run(tmp_path, {"a.py": f"from {OLD} import VICRegLoss\n\n\nclass Mine(VICRegLoss):\n    pass\n"})
    assert [f.code for f in outcome.findings if f.level == "left"] == ["TL035"]


def test_a_file_of_the_tree_below_an_old_package_is_no_old_one(tmp_path: Path) -> None:
    files = {
        "src/training/losses/__init__.py": "",
        "src/training/losses/mine.py": "def f(): pass\n",
        "src/training/losses/plain_loss.py": PLAIN,
        "a.py": f"from {OLD}.mine import f\nfrom {OLD} import mine\nimport {OLD}.mine\n",
        "Makefile": f"run:\n\tpython -m {OLD}.mine\n",
        "b.py": f"from {OLD} import other\n",
    }
    assert said(run(tmp_path, files)) == [("b.py", 1)]


def test_a_package_of_that_name_without_old_losses_is_no_old_one(tmp_path: Path) -> None:
    files = {
        "src/training/losses/__init__.py": "from .focal import FocalLoss\n",
        "src/training/losses/focal.py": "class FocalLoss: pass\n",
        "a.py": f"import {OLD}\nfrom {OLD} import FocalLoss, missing\n",
        "a.yaml": f"loss: {OLD}.FocalLoss\n",
    }
    assert not said(run(tmp_path, files))


def test_lines_are_those_of_the_file_before_the_change(tmp_path: Path) -> None:
    text = f"from {OLD} import VICRegLoss\n\nloss = VICRegLoss(1.0)\nother = __import__('{OLD}.mine')\n"
    outcome = run(tmp_path, {"a.py": text})
    assert len(outcome.changes) == 1
    assert outcome.changes[0].new_text.count("\n") >= text.count("\n")
    assert said(outcome) == [("a.py", 4)]


def test_cells(tmp_path: Path) -> None:
    def cell(kind: str, *lines: str) -> dict[str, object]:
        code = {"outputs": [], "execution_count": None} if kind == "code" else {}
        return {"cell_type": kind, "metadata": {}, "source": [f"{line}\n" for line in lines], **code}

    cells = [
        cell("code", "%%bash", f"python -m {OLD}.mine"),
        cell("code", f"!python -m {OLD}.mine", "x = 1"),
        cell("code", f"from {OLD} import mine"),
        cell("markdown", f"About {OLD}."),
        cell("code", f"print('{OLD}.mine is old')"),
    ]
    text = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1)
    outcome = run(tmp_path, {"a.ipynb": text})
    lines = text.splitlines()
    assert [lines[line - 1].strip().strip('",') for _, line in said(outcome)] == [
        f"python -m {OLD}.mine\\n",
        f"!python -m {OLD}.mine\\n",
        f"from {OLD} import mine\\n",
    ]
    assert len(said(outcome, "note")) == 1


def test_select_leaves_other_paths_alone(tmp_path: Path) -> None:
    files = {"a.py": f"from {OLD} import mine\nfrom {OLD}.vicreg_loss import VICRegLoss as V\nV(**k)\n"}
    assert not said(run(tmp_path, files, select=("CLIPStyleLoss",)))


def test_many_lines_of_one_file_are_cut(tmp_path: Path) -> None:
    outcome = run(tmp_path, {"run.cfg": f"a = {OLD}.mine\n" * 300})
    assert len(said(outcome)) == 20
    assert "280 more lines" in outcome.findings[-1].message


def test_the_exit_code_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Makefile").write_text(LEFT["Makefile"][1])
    monkeypatch.chdir(tmp_path)
    assert cli.main(["--check", "--catalog", str(CATALOG), "."]) == 1
    assert "Makefile:2:" in capsys.readouterr().out
    (tmp_path / "Makefile").write_text(NOTED["Makefile"][1])
    assert cli.main(["--check", "--catalog", str(CATALOG), "."]) == 0
    capsys.readouterr()
