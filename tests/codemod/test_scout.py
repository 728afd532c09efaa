"""The first look must never pass over a file that the second look would change."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration.catalog import builtin_catalog, builtin_paths
from migration.codemod import scout as scouting
from migration.codemod.decide import Analysis
from migration.codemod.places import module_names, package_names
from migration.codemod.project import rewrite_text
from migration.codemod.rules import Rules
from migration.codemod.scout import imported, look, of_catalog, read_texts, scout, search
from migration.codemod.text import Source
from migration.codemod.walk import walk
from tests.codemod.support import CATALOG, HERE, Example, demo_catalog, examples

CASES = [case for path in sorted((HERE / "data").glob("*.txt")) for case in examples(path) if case.before != case.after]
DEMO = scout(read_texts([CATALOG]))
BUILTIN = scout(read_texts(builtin_paths()))


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
    exact = of_catalog(builtin_catalog())
    for word in sorted({*Rules(builtin_catalog()).leaves(), *(m for m in builtin_catalog().modules if "." in m)}):
        assert exact.old.words.search(word.encode())
        assert BUILTIN.old.words.search(word.encode())
    text = "from src.training.losses import VICRegLoss\n"
    assert rewrite_text(text, Rules(builtin_catalog()))[0] != text


RULES = Rules(builtin_catalog())
PATHS = sorted(RULES.by_path)
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
    "__import__(\n  '{m}')",
    "x = {{'{m}.{n}': 1}}",
    "x = '{m}'",
    "x = '{m}:{n}'",
    'mock.patch("{m}.{n}.forward")',
]
ENDS = ["\n", "\r\n", "\r", ""]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.sampled_from(PATHS), st.sampled_from(SHAPES), st.sampled_from(ENDS), st.sampled_from(["", "\ufeff", "# é\n"]),
    st.integers(0, 4), st.booleans(),
)  # fmt: skip
def test_what_the_second_look_sees_passes_the_first(
    path: str, shape: str, end: str, lead: str, hidden: int, vary: bool
) -> None:
    module, _, name = path.rpartition(".")
    package, _, leaf = module.rpartition(".")
    file = "/repo/app/one.py"
    if hidden and shape.startswith("from {") and hidden < module.count(".") + 1:
        # the same import in relative form, from a file in the package that is hidden
        above = module.split(".")[:hidden]
        file = f"/repo/{'/'.join(above)}/sub/one.py"
        module = ".." + ".".join(module.split(".")[hidden:])
        package = module.rpartition(".")[0] or "."
        package = package + "." if package.strip(".") == "" and len(package) < 2 else package
    if "{k}" in shape and not package:
        return
    text = shape.format(m=module, n=name, k=package, leaf=leaf, r=path.partition(".")[0])
    text = lead + "import torch\n" * vary + text + "\n" * bool(end)
    text = text.replace("\n", end) if end else text
    if not _second_look(text.removeprefix("\ufeff"), file):
        return
    assert BUILTIN.python(file, text.encode()), (file, text)


def _second_look(text: str, file: str) -> bool:
    source = Source(text, file)
    packages, modules = package_names(Path(file)), module_names(Path(file))
    analysis = Analysis(source, ast.parse(text), RULES, packages, modules)
    quoted = any(RULES.deep(f"{node.value}.x".replace(":", ".")) for node in analysis.scopes.strings)
    return analysis.relevant or quoted


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
    ],
)
def test_imports_by_their_words(text: str, expected: list[tuple[int, str]]) -> None:
    tokens = text.encode().replace(b".", b" . ").replace(b";", b" ; ").replace(b",", b" ").split()
    found = imported(tokens, False)
    assert set(expected) <= set(found)


def test_large_trees_are_searched_for_quoted_paths_of_packages_that_they_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scouting, "SMALL", 10)
    quoted = tmp_path / "a.py"
    quoted.write_text("mock.patch('dynvision.base.LightningBase')\n# a comment\n")
    files = walk(tmp_path, lambda path, error: pytest.fail(path), gitignore=False)
    assert search(scout(read_texts(builtin_paths())), files).found == []
    (tmp_path / "b.py").write_text("def f():\n    from dynvision.other import x\n")
    files = walk(tmp_path, lambda path, error: pytest.fail(path), gitignore=False)
    assert search(scout(read_texts(builtin_paths())), files).found == [str(quoted)]
    (tmp_path / "b.py").unlink()
    (tmp_path / "dynvision").mkdir()
    (tmp_path / "dynvision" / "c.py").write_text("x = 1\n")
    files = walk(tmp_path, lambda path, error: pytest.fail(path), gitignore=False)
    assert search(scout(read_texts(builtin_paths())), files).found == [str(quoted)]
    assert search(scout(read_texts(builtin_paths())), files, jobs=2).found == [str(quoted)]
    assert look(scout(read_texts(builtin_paths())), files).size > 10
