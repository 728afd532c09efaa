"""The first look must never pass over a file that the second look would change."""

from __future__ import annotations

import pytest

from migration.catalog import builtin_catalog, builtin_paths
from migration.codemod.project import rewrite_text
from migration.codemod.rules import Rules
from migration.codemod.scout import of_catalog, read_texts, scout
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
        assert exact.words.search(word.encode())
        assert BUILTIN.words.search(word.encode())
    text = "from src.training.losses import VICRegLoss\n"
    assert rewrite_text(text, Rules(builtin_catalog()))[0] != text
