"""Files in a newer Python than the one that runs the codemod."""

from __future__ import annotations

import ast
import sys

import pytest

from tests.codemod.support import codes, demo_catalog, rewritten
from training_losses.migration.codemod import syntax
from training_losses.migration.codemod.errors import FileError
from training_losses.migration.codemod.project import rewrite_text
from training_losses.migration.codemod.rules import Rules
from training_losses.migration.codemod.syntax import parse, parses

IMPORT = "from src.training.losses.clip_style_loss import CLIPStyleLoss\n"
BEFORE = (
    IMPORT
    + '''
type Alias[T: CLIPStyleLoss = CLIPStyleLoss] = dict[str, CLIPStyleLoss | T]
if True: type Plain = CLIPStyleLoss


def f[T: (CLIPStyleLoss, int)](x: T, y: CLIPStyleLoss = CLIPStyleLoss()) -> "CLIPStyleLoss":
    print(f"{CLIPStyleLoss.__name__} {x["é"]!r:>{y}} {isinstance(y, CLIPStyleLoss)}" "é" f"{x}", CLIPStyleLoss(0.1))
    return f"""{
        CLIPStyleLoss(temperature=0.1)  # a comment
    } {x=} {"\\n".join("é")} {f"{CLIPStyleLoss}"}"""


class A[
    CLIPStyleLoss,  # the parameter, not the loss
    *Ts,
    **P,
](list[CLIPStyleLoss]):
    loss: CLIPStyleLoss

    async def g[T = CLIPStyleLoss](self, x: CLIPStyleLoss) -> T: ...


class B[T]:
    def __init__[S](self):
        self.loss = CLIPStyleLoss()

    def step(self, v: T):
        return self.loss(v, v, similarity_matrix=f"{v["x"]}")["v2t_loss"]
'''
)


def expected(text: str) -> str:
    head, parameter, rest = text.partition("class A[")
    inside, other, tail = rest.partition("class B[")
    head = head.replace("src.training.losses.clip_style_loss", "training_losses.contrastive.clip_loss")
    head = head.replace("CLIPStyleLoss()", "CLIPStyleLoss(metrics=True)")
    head = head.replace("CLIPStyleLoss(0.1)", "CLIPStyleLoss(temperature=0.1)")
    head = head.replace("temperature=0.1)", "temperature=0.1, metrics=True)")
    tail = tail.replace("CLIPStyleLoss()", "CLIPStyleLoss(metrics=True)")
    tail = tail.replace("similarity_matrix", "logits").replace("v2t_loss", "loss_v2t")
    head, tail = (part.replace("CLIPStyleLoss", "CLIPLoss") for part in (head, tail))
    return head + parameter + inside + other + tail


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_newer_syntax_is_rewritten(newline: str) -> None:
    new, outcome = rewritten(BEFORE.replace("\n", newline))
    assert new == expected(BEFORE).replace("\n", newline)
    assert not codes(outcome, "left", "error")


@pytest.mark.parametrize(
    "text",
    [
        "type X = CLIPStyleLoss\n",
        "def f[T](x): ...\n",
        "class A[T: CLIPStyleLoss]: ...\n",
        'x = f"{y["a"]} {CLIPStyleLoss}"\n',
        'x = f"""{\n    y  # a comment\n}"""\n',
        "@d\nasync def f[\n    T,\n](x: T): ...\n",
        "try:\n    type X = int\nfinally:\n    pass\n",
    ],
)
def test_the_tree_is_the_one_of_newer_python(text: str) -> None:
    """Names and their places are those that Python 3.12 finds (where it runs, by its own parser)."""
    masked = syntax._newer(text)
    if masked is None:
        assert sys.version_info >= (3, 12)
        return
    if sys.version_info >= (3, 12):
        assert _names(masked) == _names(ast.parse(text))
    lines = text.splitlines()
    for name, line, column, end in _names(masked):
        assert lines[line - 1].encode()[column:end].decode() == name


def _names(tree: ast.Module) -> list[tuple[str, int, int, int | None]]:
    return sorted(
        (node.id, node.lineno, node.col_offset, node.end_col_offset)
        for node in ast.walk(tree)
        if isinstance(node, ast.Name)
    )


def test_what_no_python_reads_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not parses("def f[T(x): ...\n")
    assert not parses("type = = 1\n")
    assert not parses("class A[\n\n\n]: ...\nx = (\n")
    with pytest.raises(FileError, match="line 1"):
        parse("x = (\n")
    monkeypatch.setitem(sys.modules, "libcst", None)
    assert syntax._newer("def f[T](x): ...\n") is None
    monkeypatch.setattr(syntax, "find_spec", lambda name: None)
    with pytest.raises(FileError, match="install libcst"):
        parse("x = (\n")


def test_notebooks_and_documents_in_newer_python() -> None:
    text = f"```python\n{IMPORT}\ndef f[T](x: CLIPStyleLoss): ...\n```\n"
    new, _ = rewrite_text(text, Rules(demo_catalog()), "a.md", "document")
    assert "import CLIPLoss\n\ndef f[T](x: CLIPLoss)" in new


@pytest.mark.parametrize(
    "bomb",
    [
        "(" * 5000,
        "-" * 5000 + "1",
        "not " * 5000 + "x",
        "x = " + "1 + " * 5000 + "1",
        "a" + ".b" * 5000,
        "if x: pass\n" + "elif y: pass\n" * 5000,
        "lambda: " * 5000 + "1",
        "f" + "()" * 5000,
    ],
    ids=["brackets", "minus", "not", "plus", "attributes", "elif", "lambda", "calls"],
)
def test_a_bomb_in_newer_python_ends_nothing(bomb: str) -> None:
    assert syntax._newer(f"def f[T](x): ...\n{bomb}\n") is None
