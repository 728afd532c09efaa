"""Notebooks, Markdown, reStructuredText, stubs and shell scripts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.codemod.support import codes, demo_catalog
from training_losses.migration.codemod.jsontext import parse_json
from training_losses.migration.codemod.project import Outcome, rewrite_text
from training_losses.migration.codemod.rules import Rules


def rewritten(text: str, path: str, kind: str) -> tuple[str, Outcome]:
    new, outcome = rewrite_text(text, Rules(demo_catalog()), path, kind)
    again, second = rewrite_text(new, Rules(demo_catalog()), path, kind)
    assert again == new
    assert not second.changes
    return new, outcome


def cell(*lines: str, kind: str = "code") -> dict[str, Any]:
    made: dict[str, Any] = {"cell_type": kind, "metadata": {"tags": ["é"]}, "source": list(lines)}
    return made | ({"execution_count": 3, "outputs": [{"text": "CLIPStyleLoss"}]} if kind == "code" else {})


def book(*cells: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"cells": list(cells), "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


@pytest.mark.parametrize("layout", [{"indent": 1}, {"indent": 2, "ensure_ascii": False}, {}])
def test_notebook_cell_by_cell(layout: dict[str, Any]) -> None:
    before = book(
        cell("from src.training.losses.clip_style_loss import CLIPStyleLoss\n", "import os", kind="markdown"),
        cell(
            "%matplotlib inline\n",
            "!ls\n",
            "from src.training.losses import VICRegLoss, MemoryQueueContrastiveLoss  # é\n",
            "os?\n",
        ),
        cell("%%bash\n", "echo VICRegLoss $("),
        cell("%%time\n", "loss = VICRegLoss(1.0)\n", 'loss.update_epoch("日本")'),
    )
    text = json.dumps(before, **layout) + "\n"
    new, _ = rewritten(text, "a.ipynb", "notebook")
    after = json.loads(new)
    expected = json.loads(text)
    expected["cells"][1]["source"][2:3] = [
        "from training_losses.contrastive.vicreg import VICRegLoss\n",
        "from training_losses.contrastive.moco_loss import MemoryQueueLoss  # é\n",
    ]
    expected["cells"][3]["source"][1:] = [
        "loss = VICRegLoss(invariance_weight=1.0, center_invariance=True)\n",
        'loss.step_epoch("日本")',
    ]
    assert after == expected
    assert new == json.dumps(expected, **layout) + "\n"


def test_notebook_magics() -> None:
    lines = [
        "from src.training.losses import VICRegLoss, MemoryQueueContrastiveLoss\n",
        "if True:\n",
        "    !ls\n",
        "    %timeit -n 10 VICRegLoss(1.0)\n",
        "files = !ls *.py\n",
        "a.b = %env HOME\n",
        "%time loss = MemoryQueueContrastiveLoss(dim=3)\n",
        "%run -i script.py --loss=VICRegLoss\n",
        "VICRegLoss?\n",
        "text = ('%d'\n",
        "        % 3)\n",
        "?",
    ]
    new, outcome = rewritten(json.dumps(book(cell(*lines))), "a.ipynb", "notebook")
    assert not codes(outcome, "error")
    after = json.loads(new)["cells"][0]["source"]
    assert "    %timeit -n 10 VICRegLoss(invariance_weight=1.0, center_invariance=True)\n" in after
    assert "%time loss = MemoryQueueLoss(dim=3)\n" in after
    assert set(after) >= {*lines[1:3], *lines[4:6], *lines[7:]}
    long = "%timeit CLIPStyleLoss('" + 70 * "x" + "')"  # a magic is one line
    code = cell("from src.training.losses.clip_style_loss import CLIPStyleLoss\n", long)
    assert json.loads(rewritten(json.dumps(book(code)), "a.ipynb", "notebook")[0])["cells"][0]["source"][1:] == [
        "%timeit CLIPLoss(temperature='" + 70 * "x" + "', metrics=True)"
    ]
    timed = json.dumps(book(cell("%%timeit VICRegLoss(1.0)\n", "from src.training.losses import VICRegLoss")))
    assert "VICRegLoss(invariance_weight=1.0" in rewritten(timed, "a.ipynb", "notebook")[0]


def test_notebook_source_as_one_string() -> None:
    one = cell()
    one["source"] = "from src.training.losses import VICRegLoss\nx = 1"
    new, _ = rewritten(json.dumps(book(one)), "a.ipynb", "notebook")
    assert json.loads(new)["cells"][0]["source"] == "from training_losses.contrastive.vicreg import VICRegLoss\nx = 1"


def test_notebook_cell_that_does_not_parse_is_an_error_if_it_matters() -> None:
    good = cell("from src.training.losses import VICRegLoss")
    text = json.dumps(book(good, cell("x = = 1")))
    new, outcome = rewritten(text, "a.ipynb", "notebook")
    assert new != text
    assert not codes(outcome, "error")
    text = json.dumps(book(good, cell("VICRegLoss = = 1")))
    new, outcome = rewritten(text, "a.ipynb", "notebook")
    assert new == text
    assert codes(outcome, "error") == {"TL090"}


@pytest.mark.parametrize("text", ["{", '{"cells": 3, "x": "VICRegLoss"}', '{"a": "VICRegLoss"} x', "[" * 100000])
def test_broken_notebooks_are_reported(text: str) -> None:
    _, outcome = rewritten(text, "a.ipynb", "notebook")
    assert codes(outcome, "error") & {"TL090", "TL093"}


def test_notebook_of_another_language_is_left() -> None:
    text = json.dumps(book(cell("from src.training.losses import VICRegLoss"), kernelspec={"language": "R"}))
    assert rewritten(text, "a.ipynb", "notebook")[0] == text


MARKDOWN = """\
# CLIPStyleLoss

`CLIPStyleLoss` stays in prose, as does `from src.training.losses import VICRegLoss`.

```python
from src.training.losses.clip_style_loss import CLIPStyleLoss
```

Then, indented in a list:

1. build

   ```py
   loss = CLIPStyleLoss(
       temperature=0.1,
   )
   ```

> ~~~python
> from src.training.losses import VICRegLoss, MemoryQueueContrastiveLoss
> ~~~

```bash
python -c "from src.training.losses import VICRegLoss"
```

```pycon
>>> from src.training.losses import VICRegLoss as V, helper
>>> V(
...     1.0)
VICRegLoss()
```
"""


def test_markdown_code_blocks() -> None:
    new, outcome = rewritten(MARKDOWN, "a.md", "document")
    assert new == (
        MARKDOWN.replace(
            "```python\nfrom src.training.losses.clip_style_loss import CLIPStyleLoss",
            "```python\nfrom training_losses.contrastive.clip_loss import CLIPLoss",
        )
        .replace(
            "   loss = CLIPStyleLoss(\n       temperature=0.1,\n",
            "   loss = CLIPLoss(\n       temperature=0.1,\n       metrics=True,\n",
        )
        .replace(
            "> from src.training.losses import VICRegLoss, MemoryQueueContrastiveLoss\n",
            "> from training_losses.contrastive.vicreg import VICRegLoss\n"
            "> from training_losses.contrastive.moco_loss import MemoryQueueLoss\n",
        )
        .replace(
            ">>> from src.training.losses import VICRegLoss as V, helper\n>>> V(\n...     1.0)",
            ">>> from training_losses.contrastive.vicreg import VICRegLoss as V\n"
            ">>> from src.training.losses import helper\n>>> V(\n...     invariance_weight=1.0,\n"
            "...     center_invariance=True)",
        )
    )
    lines = [number for number, line in enumerate(MARKDOWN.splitlines(), 1) if "python -c" in line or "helper" in line]
    assert [(f.code, f.line) for f in outcome.findings if f.level in ("error", "left")] == [("TL045", n) for n in lines]


def test_markdown_before_and_after_blocks_do_not_disturb_each_other() -> None:
    text = (
        "```python\nfrom src.training.losses import VICRegLoss\n```\n"
        "```python\nfrom elsewhere import VICRegLoss\nVICRegLoss(1)\n```\n"
    )
    new, _ = rewritten(text, "a.md", "document")
    assert new == text.replace("src.training.losses", "training_losses.contrastive.vicreg", 1)


def test_markdown_block_that_does_not_parse_is_reported() -> None:
    text = "```python\nfrom src.training.losses import VICRegLoss\nx = = 1\n```\n"
    new, outcome = rewritten(text, "a.md", "document")
    assert new == text
    assert [(f.code, f.line) for f in outcome.findings] == [("TL045", 2)]


RST = """\
Title
=====

.. code-block:: python
   :linenos:

   from src.training.losses.clip_style_loss import CLIPStyleLoss

   loss = CLIPStyleLoss()

Prose with CLIPStyleLoss.

.. code:: console

   python CLIPStyleLoss

A session:

    >>> from src.training.losses import VICRegLoss
    >>> isinstance(1, VICRegLoss)
    False
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_restructuredtext_code_blocks(newline: str) -> None:
    new, _ = rewritten(RST.replace("\n", newline), "a.rst", "document")
    assert new == RST.replace(
        "from src.training.losses.clip_style_loss import CLIPStyleLoss\n\n   loss = CLIPStyleLoss()",
        "from training_losses.contrastive.clip_loss import CLIPLoss\n\n   loss = CLIPLoss(metrics=True)",
    ).replace("src.training.losses import VICReg", "training_losses.contrastive.vicreg import VICReg").replace(
        "\n", newline
    )


def test_documents_do_not_hold_the_code_back() -> None:
    text = "```python\nfrom src.training.losses import VICRegLoss\nVICRegLoss(std_coeff=1)\n```\n"
    new, outcome = rewritten(text, "a.md", "document")
    assert new == text
    assert codes(outcome, "left") == {"TL031"}


def test_stubs() -> None:
    text = (
        "from src.training.losses.clip_style_loss import CLIPStyleLoss\n\ndef f(x: CLIPStyleLoss = ...) -> None: ...\n"
    )
    new, _ = rewritten(text, "a.pyi", "python")
    assert "x: CLIPLoss = ..." in new


def test_shell_scripts_are_reported_only() -> None:
    text = 'python -c "from src.training.losses import VICRegLoss"\nls\necho src.training.losses # codemod: skip\n'
    new, outcome = rewritten(text, "a.sh", "shell")
    assert new == text
    assert [(f.code, f.line) for f in outcome.findings] == [("TL045", 1)]


@pytest.mark.parametrize("value", [{"a": [1, -2.5e3, True, None, 'x"\\ué'], "b": {}}, [], "", 0])
def test_json_tree_agrees_with_json(value: Any) -> None:
    def plain(node: Any) -> Any:
        if isinstance(node.value, dict):
            return {key: plain(child) for key, (_, child) in node.value.items()}
        return [plain(child) for child in node.value] if isinstance(node.value, list) else node.value

    for indent in (None, 2):
        assert plain(parse_json(json.dumps(value, indent=indent))) == value
