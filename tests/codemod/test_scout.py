"""The first look must never pass over a file that the second look would change."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.codemod.support import CATALOG, HERE, Example, demo_catalog, examples
from training_losses.migration.catalog import builtin_catalog
from training_losses.migration.codemod import cli
from training_losses.migration.codemod import scout as scouting
from training_losses.migration.codemod.decide import Analysis
from training_losses.migration.codemod.places import module_names, package_names
from training_losses.migration.codemod.project import Project, rewrite_text
from training_losses.migration.codemod.rules import Rules
from training_losses.migration.codemod.scout import builtin_texts, imported, look, of_catalog, scout, search, words
from training_losses.migration.codemod.text import Source
from training_losses.migration.codemod.walk import walk

CASES = [case for path in sorted((HERE / "data").glob("*.txt")) for case in examples(path) if case.before != case.after]
DEMO = scout([CATALOG.read_text(encoding="utf-8")])
BUILTIN = scout(builtin_texts())
EXACT = of_catalog(builtin_catalog())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_form_passes_the_first_look(case: Example) -> None:
    assert DEMO.python("deep/down/example.py", case.before.encode())
    assert of_catalog(demo_catalog()).python("deep/down/example.py", case.before.encode())


@pytest.mark.parametrize("form", ["from {m} import {n}\n", "import {m} as x; x.{n}\n", "mock.patch('{m}.{n}')\n"])
def test_every_old_path_of_the_catalog_passes(form: str) -> None:
    for path in Rules(builtin_catalog()).by_path:
        module, _, name = path.rpartition(".")
        assert BUILTIN.python("app/a.py", form.format(m=module, n=name).encode()), path


def test_relative_imports_inside_an_old_package_pass() -> None:
    assert BUILTIN.python("src/losses/__init__.py", b"from .sigreg import EppsPulleyTest\n")
    assert BUILTIN.python("dynvision/base/sub/x.py", b"from ..lightning import LightningBase\n")


@pytest.mark.parametrize(
    "text",
    [
        b"import torch\nloss = torch.nn.CrossEntropyLoss()\n",
        b"from torch.nn import CrossEntropyLoss\n",
        b"# the VICRegLoss of the old losses\n",
        b"x = 1\n",
    ],
)
def test_most_files_end_here(text: bytes) -> None:
    assert not BUILTIN.python("app/a.py", text)


def test_other_kinds() -> None:
    assert BUILTIN.interesting("a.md", "document", b"from src.training.losses import VICRegLoss")
    assert BUILTIN.interesting("a.yaml", "config", b"name: clip_style_loss")
    assert not BUILTIN.interesting("a.yaml", "config", b"name: my_clip_style_losses")


def test_reading_the_catalog_as_text_misses_nothing() -> None:
    for word in sorted({*Rules(builtin_catalog()).leaves(), *(m for m in builtin_catalog().modules if "." in m)}):
        assert EXACT.old.words.search(word.encode())
        assert BUILTIN.old.words.search(word.encode())
    text = "from src.training.losses import VICRegLoss\n"
    assert rewrite_text(text, Rules(builtin_catalog()))[0] != text


RULES = Rules(builtin_catalog())
PATHS = sorted({path.rpartition(".")[0]: path for path in sorted(RULES.by_path)}.values())
"""One old path of each old module."""
SHAPES = [
    "from {m} import {n}",
    "from {m} import ({n})",
    "from {m} import (  # a comment (with brackets)\n    other,\n    {n} as N,\n)",
    "from {m} import other as o, {n}",
    "from {m} import(\n{n}\n)",
    "from {m} \\\n    import {n}",
    "from {m} import \\\n    {n}",
    "from  {m}  import  {n}",
    "from {m}\timport {n}",
    "from {k} import {leaf}",
    "from {k} import (os,\n{leaf} as m)",
    "from {k} import (  # same as\n{leaf})",
    "import {m}",
    "import os, {m} as m",
    "import os; import {m}",
    "import {r}\n{m}.{n}()",
    "x = 1; from {m} import *",
    "if x: import {m}",
    "if x: from {m} import {n}",
    "def f():\n\tfrom {m} import {n}",
    "try:\n    from {m} import {n}\nexcept ImportError: from {m} import *",
    "import importlib\nimportlib.import_module('{m}')",
    "m = pytest.importorskip('{m}')",
    "__import__(\n  '{m}')",
    "x = {{'{m}.{n}': 1}}",
    "x = '{m}'",
    "x = '{m}:{n}'",
    'mock.patch("{m}.{n}.forward")',
]
SPELLINGS = [("\n", ""), ("\r\n", "\ufeff"), ("\r", "# é\n"), ("", "import torch\n")]


@pytest.mark.parametrize("shape", SHAPES)
def test_what_the_second_look_sees_passes_the_first(shape: str) -> None:
    seen = 0
    for number, path in enumerate(PATHS):
        spellings = [SPELLINGS[number % len(SPELLINGS)], ("", "")]
        for (file, text), (end, lead) in ((written, s) for written in _written(path, shape) for s in spellings):
            whole = lead + (f"{text}\n".replace("\n", end) if end else text)
            if _second_look(whole.removeprefix("\ufeff"), file):
                seen += 1
                assert BUILTIN.python(file, whole.encode()), (file, whole)
                assert EXACT.python(file, whole.encode()), (file, whole)
    assert seen


def _written(path: str, shape: str) -> Iterator[tuple[str, str]]:
    """File and text of ``shape`` for ``path``; imports also in relative form, from a file in the package."""
    module, _, name = path.rpartition(".")
    package, _, leaf = module.rpartition(".")
    if package or "{k}" not in shape:
        filled = shape.format(m=module, n=name, k=package, leaf=leaf, r=path.partition(".")[0])
        yield "/repo/app/one.py", filled
    for hidden in range(1, module.count(".") + 1 if shape.startswith("from {") else 1):
        above, below = module.split(".")[:hidden], module.split(".")[hidden:]
        relative = {"m": ".." + ".".join(below), "k": ".." + ".".join(below[:-1]), "leaf": leaf, "n": name}
        yield f"/repo/{'/'.join(above)}/sub/one.py", shape.format(**relative)


@pytest.mark.parametrize("kind", ["document", "notebook"])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_the_second_look_finds_in_texts_passes_the_first(shape: str, kind: str) -> None:
    for path in {path.partition(".")[0]: path for path in PATHS}.values():
        for _, code in _written(path, shape):
            text = f"Text.\n\n```python\n{code}\n```\n"
            if kind == "notebook":
                lines = f"# losses\n{code}".splitlines(keepends=True)
                cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": lines}
                text = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
            _, outcome = rewrite_text(text, RULES, {"document": "a.md", "notebook": "a.ipynb"}[kind], kind)
            if outcome.findings or outcome.changes:
                assert BUILTIN.first("a", kind, text.encode()), text
                assert EXACT.first("a", kind, text.encode()), text


def _configurations() -> Iterator[str]:
    for rule in builtin_catalog().configs:
        yield from (f"{name}: 1\n" for name in rule.names)
    for factory in builtin_catalog().factories:
        for form in factory.forms:
            yield from (f"loss:\n  {factory.type}: {kind.upper()}\n" for kind in form.types)
        yield from (f"{factory.type}: other\n{mark}: 1\n" for mark in factory.marks)


def test_every_configuration_that_an_old_factory_read_passes() -> None:
    found = list(_configurations())
    assert len(found) > 40
    for text in found:
        assert BUILTIN.interesting("a.yaml", "config", text.encode()), text
        assert EXACT.interesting("a.yaml", "config", text.encode()), text


def _second_look(text: str, file: str) -> bool:
    source = Source(text, file)
    packages, modules = package_names(Path(file)), module_names(Path(file))
    analysis = Analysis(source, ast.parse(text), RULES, packages, modules)
    return analysis.relevant or any(RULES.deep(f"{n.value}.x".replace(":", ".")) for n in analysis.scopes.strings)


def test_the_second_look_sees_the_shapes() -> None:
    seen = [shape for shape in SHAPES if _second_look(_filled(shape), "/repo/app/one.py")]
    assert seen == SHAPES


def _filled(shape: str) -> str:
    package = "src.training.losses"
    return shape.format(m=f"{package}.vicreg_loss", n="VICRegLoss", k=package, leaf="vicreg_loss", r="src")


def test_every_file_of_the_downstream_tree_that_is_rewritten_passes() -> None:
    top = HERE.parents[1] / "examples" / "downstream"
    looked = 0
    for path, kind in walk(top, lambda path, error: pytest.fail(path), gitignore=False):
        data = Path(path).read_bytes()
        if kind == "python" and _second_look(data.decode(), path):
            looked += 1
            assert BUILTIN.python(path, data), path
    assert looked > 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from a.b import c, d as e", [(0, "a.b"), (0, "a.b.c"), (0, "a.b.d")]),
        ("import a . b as c, d", [(0, "a.b"), (0, "d")]),
        ("from ... import x; import y", [(3, ""), (3, "x"), (0, "y")]),
        ("from .a import *", [(1, "a")]),
        ("from a import (\n    b,\n    c as d,\n)\ne", [(0, "a.b"), (0, "a.c")]),
        ("import a as b, c.d\re = f", [(0, "a"), (0, "c.d")]),
    ],
)
def test_imports_by_their_words(text: str, expected: list[tuple[int, str]]) -> None:
    found = imported(words(text.encode()), False)
    assert set(expected) <= set(found)


def _files(top: Path) -> list[tuple[str, str]]:
    return walk(top, lambda path, error: pytest.fail(path), gitignore=False)


FACTORY = "model:\n  width: 8\nloss:\n  type: HJEPA\n  hierarchy_weights: [1.0, 0.5]\n"


@pytest.mark.parametrize("small", [scouting.SMALL, 10])
def test_a_factory_section_is_found_in_trees_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(scouting, "SMALL", small)
    for name, text in {
        "train.py": "from src.losses import create_loss_from_config\nloss = create_loss_from_config(config)\n",
        "strings.py": "mock.patch('dynvision.base.LightningBase')\n",
        "conf/a.yaml": FACTORY,
        "conf/b.json": '{"loss": {"type": "vicreg"}}',
        "conf/c.toml": "type = 'any'\nvicreg_weight = 1.0\n",
        "other.py": "x = 1\n",
        "other.yaml": "type: any\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {Path(path).name for path in search(BUILTIN, _files(tmp_path)).found}
    assert found == {"train.py", "strings.py", "a.yaml", "b.json", "c.toml"}
    project = Project(RULES)
    project.scan([tmp_path])
    changed = {Path(change.path).name for change in project.finish(project.decide()).changes}
    assert {"train.py", "a.yaml"} <= changed


def test_quoted_paths_in_large_trees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scouting, "SMALL", 10)
    quoted = tmp_path / "a.py"
    quoted.write_text("mock.patch('dynvision.base.LightningBase')\n# a comment\n")
    seen = search(scout(builtin_texts()), _files(tmp_path))
    assert not seen.found
    assert {"dynvision", "utils"} <= set(seen.unsought)
    assert search(scout(builtin_texts()), _files(tmp_path), thorough=True).found == [str(quoted)]
    cli.main([str(tmp_path)])
    assert "Nothing here is called dynvision," in capsys.readouterr().out
    cli.main([str(tmp_path), "--format", "json"])
    assert json.loads(capsys.readouterr().out)["unsought"] == seen.unsought
    cli.main([str(tmp_path), "--thorough"])
    assert "Nothing here" not in capsys.readouterr().out
    for name, text in {
        "b.py": "def f():\n    from dynvision.other import x\n",
        "dynvision/c.py": "x = 1\n",
        "dynvision.py": "x = 1\n",
    }.items():
        other = tmp_path / name
        other.parent.mkdir(exist_ok=True)
        other.write_text(text)
        seen = search(scout(builtin_texts()), _files(tmp_path))
        assert seen.found == [str(quoted)]
        assert "dynvision" not in seen.unsought
        assert search(scout(builtin_texts()), _files(tmp_path), jobs=2).found == [str(quoted)]
        other.unlink()
        if other.parent != tmp_path:
            other.parent.rmdir()
    (tmp_path / "b.yaml").write_text("name: clip_style_loss\n")  # one find, and all is searched
    seen = search(scout(builtin_texts()), _files(tmp_path))
    assert seen.found == [str(quoted), str(tmp_path / "b.yaml")]
    assert not seen.unsought
    assert look(scout(builtin_texts()), _files(tmp_path)).size > 10


def test_a_statement_that_its_file_cuts_off_decides_nothing_for_others(tmp_path: Path) -> None:
    (tmp_path / "losses").mkdir()
    (tmp_path / "losses" / "a.py").write_text("from . import (")
    whole = tmp_path / "losses" / "b.py"
    whole.write_text("from . import (\n    vicreg,\n)\n")
    assert str(whole) in search(scout(builtin_texts()), _files(tmp_path)).found
