"""The edits of Python on the tree of libcst: where they reach, what they refuse, and as commands of libcst.

What becomes of each form of code is in ``data``; here is what holds for all of them.
"""

from __future__ import annotations

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.codemod.support import CATALOG, codes, demo_catalog, rewritten
from training_losses.migration.codemod import cli
from training_losses.migration.codemod.config import style
from training_losses.migration.codemod.documents import Part, refined
from training_losses.migration.codemod.edits import base, kinds, tree
from training_losses.migration.codemod.edits import requests as asked
from training_losses.migration.codemod.edits.perform import perform
from training_losses.migration.codemod.errors import FileError
from training_losses.migration.codemod.project import rewrite_text
from training_losses.migration.codemod.rules import Rules
from training_losses.migration.codemod.text import Edit, Source, apply, split_lines, unparsed

CLIP = "from src.training.losses.clip_style_loss import CLIPStyleLoss\n"
NEW = "from training_losses.contrastive.clip_loss import CLIPLoss\n"
VICREG = "from src.training.losses import VICRegLoss\n"
OLD_PYTHON = (3, 10)

# -- where edits reach ----------------------------------------------------------------------------------------------

PLACES = (
    CLIP
    + '''\
@d(print(CLIPStyleLoss()))
async def f(a, /, b=CLIPStyleLoss(), *args: CLIPStyleLoss, c: "CLIPStyleLoss" = CLIPStyleLoss(), **k: CLIPStyleLoss):
    try:
        x = yield CLIPStyleLoss()
    except isinstance(CLIPStyleLoss, x) as e:
        with print(CLIPStyleLoss()) as b, (yield CLIPStyleLoss()) as c:
            pass
    else:
        while CLIPStyleLoss():
            del x[CLIPStyleLoss()]
        else: y = CLIPStyleLoss(); z = \\
            CLIPStyleLoss()
    finally:
        for i in isinstance(CLIPStyleLoss, x):
            # a comment
            z = lambda q=CLIPStyleLoss(), *, r=isinstance(x, CLIPStyleLoss): CLIPStyleLoss()
        else:
            raise CLIPStyleLoss() from isinstance(x, CLIPStyleLoss)
    match CLIPStyleLoss():
        case CLIPStyleLoss(a=1) if isinstance(x, CLIPStyleLoss): assert CLIPStyleLoss(), CLIPStyleLoss()
    match x:
        case {"a": CLIPStyleLoss(a=2)} | [CLIPStyleLoss(a=3), *_]:
            print(CLIPStyleLoss())
        case _:
            print(CLIPStyleLoss())
    if x: pass
    elif CLIPStyleLoss(): return isinstance(x, CLIPStyleLoss) if CLIPStyleLoss() else CLIPStyleLoss()
    elif x:
        async for i in CLIPStyleLoss(): await CLIPStyleLoss()
    else: a: CLIPStyleLoss = CLIPStyleLoss() if not isinstance(CLIPStyleLoss, x) else (CLIPStyleLoss())
    return {CLIPStyleLoss(): CLIPStyleLoss() for i in isinstance(CLIPStyleLoss, x) if CLIPStyleLoss()}


class A(x, metaclass=print(CLIPStyleLoss())):
    # of the class
    """Its text."""

    class B(print(CLIPStyleLoss())):
\t    @property
\t    def g(self) -> CLIPStyleLoss:
\t        if True:

\t            return [
        CLIPStyleLoss(), f"{CLIPStyleLoss()!r:>{print(CLIPStyleLoss())}}"]
'''
)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_place_is_reached(newline: str) -> None:
    """Statements and expressions of all types, and nothing else in the file changes."""
    new, outcome = rewritten(PLACES.replace("\n", newline), width=200)
    expected = NEW + PLACES.removeprefix(CLIP).replace("CLIPStyleLoss()", "CLIPLoss(metrics=True)")
    assert new == expected.replace("CLIPStyleLoss", "CLIPLoss").replace("\n", newline)
    assert not codes(outcome, "left", "error")


@pytest.mark.parametrize("ends", ["\r\n \n", "\n \r", "\r \r\n \n", "\r\n \n \n"])
def test_mixed_line_ends_stay(ends: str) -> None:
    """Inside one statement, too; a new line has the end of the first line of the file."""
    kinds = itertools.cycle(ends.split(" "))
    before = f"{CLIP}x = (\n    1,\n    CLIPStyleLoss(\n        0.1\n    ), 2\n)\n\n"
    text = re.sub("\n", lambda _: next(kinds), before)
    new, _ = rewritten(text)
    old, found = (re.findall(r"\r\n|\r|\n", one) for one in (text, new))
    assert found == [*old[:5], old[0], *old[5:]]
    after = before.replace("CLIPStyleLoss(\n        0.1", "CLIPLoss(\n        temperature=0.1,\n        metrics=True")
    assert re.sub(r"\r\n|\r", "\n", new) == after.replace(CLIP, NEW)


def test_only_statements_with_edits_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = tree.edited

    def edited(text: str, *arguments: Any) -> str:
        seen.append(text)
        return real(text, *arguments)

    monkeypatch.setattr(tree, "edited", edited)
    body = "".join(f"    def m{n}(self):\n        return {n}\n" for n in range(50))
    rewritten(f"{CLIP}class A:\n{body}    def f(self):\n        x = 1\n        return CLIPStyleLoss()\n")
    assert max(map(len, seen)) < 100
    assert seen[1] == "if _:\n        return CLIPStyleLoss()\n"


def test_the_tree_of_libcst_makes_the_edits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "edited", lambda text, *arguments: text)
    assert rewrite_text(CLIP, Rules(demo_catalog()))[0] == CLIP


def test_an_edit_without_a_node_is_refused() -> None:
    text = "if x:\n    a = b\n"

    def run(*requests: asked.Request) -> str:
        return apply(text, perform(Source(text), ast.parse(text), requests, 88, OLD_PYTHON))

    assert run(asked.Name(10, 11, "c.d")) == "if x:\n    c.d = b\n"
    for request in (asked.Name(10, 12, "c"), asked.Key(10, 11, "c"), asked.Name(0, 2, "c"), asked.Name(99, 100, "c")):
        with pytest.raises(FileError, match=r"no (node|statement)"):
            run(request)


# -- layouts --------------------------------------------------------------------------------------------------------

NAMES = ["VICRegLoss", "helper", "MemoryQueueContrastiveLoss as M", "other as o"]
GAPS = ["", " ", "\n    ", "  # {}\n    ", "\n    # {}\n    ", "\n\n    "]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from(GAPS), min_size=10, max_size=10),
    st.booleans(),
    st.sampled_from(["", "if True:\n", "x = 1; "]),
    st.sampled_from(["", "  # noqa: F401", "  # end"]),
)  # fmt: skip
def test_imports_in_any_layout(names: list[str], gaps: list[str], comma: bool, before: str, behind: str) -> None:
    """Each name is bound as it should be, no comment is lost, and what was valid stays valid."""
    spaces = iter(gap.format(f"c{n}") for n, gap in enumerate(gaps))
    inner = ",".join(f"{next(spaces)}{name}{next(spaces)}" for name in names)
    inner += f",{next(spaces)}" if comma else ""
    indent = "    " if before.startswith("if") else ""
    text = f"{before}{indent}from src.training.losses import ({inner}){behind}\n"
    new, _ = rewritten(text)
    homes = {"VICRegLoss": "training_losses.contrastive.vicreg", "M": "training_losses.contrastive.moco_loss"}
    bound = {
        alias.asname or alias.name: node.module
        for node in ast.walk(ast.parse(new))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    locals_ = [name.rpartition(" ")[2] for name in names]
    moved = {"M": "MemoryQueueLoss"} if "MemoryQueueLoss" in bound else {}
    assert bound == {moved.get(n, n): homes.get(n, "src.training.losses") for n in locals_}
    assert set(re.findall(r"# c\d+|# end", text)) <= set(re.findall(r"# c\d+|# end", new))


def test_a_comment_stays_with_its_argument() -> None:
    before = "C(\n    temperature=0.1  # tau\n)\nC(0.1,  # tau\n  cache_labels=False)\n"
    new, _ = rewritten(CLIP.replace("CLIPStyleLoss\n", "CLIPStyleLoss as C\n") + before)
    assert new.partition("\n")[2] == (
        "C(\n    temperature=0.1,  # tau\n    metrics=True\n)\nC(temperature=0.1, metrics=True,  # tau\n  )\n"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("f(a, CLIPStyleLoss(temperature=0.1))", "f(a, CLIPLoss(\n    temperature=0.1,\n    metrics=True,\n))"),
        (
            "x = CLIPStyleLoss(), CLIPStyleLoss(1)",
            "x = CLIPLoss(\n    metrics=True,\n), CLIPLoss(temperature=1, metrics=True)",
        ),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa(CLIPStyleLoss(0.1))", None),
        ("y; x = f(a, CLIPStyleLoss(temperature=0.1), b)", None),
        ('f"{f(a, CLIPStyleLoss(temperature=0.1), bbbbbb)}"', None),
    ],
)
def test_long_lines(before: str, after: str | None) -> None:
    """Broken where that makes the line short enough; not behind a semicolon, nor in an f-string."""
    new, _ = rewritten(f"{CLIP}{before}\n", width=40)
    plain = re.sub(r"(?<=Loss)\((?:temperature=)?0\.1\)", "(temperature=0.1, metrics=True)", before)
    plain = plain.replace("CLIPStyleLoss", "CLIPLoss")
    assert new == f"{NEW}{after or plain}\n"


def test_a_loss_in_a_loss_is_broken_from_outside() -> None:
    text = "from src.training.losses import VICRegLoss as V\n"
    text += "def f():\n    x = V(1.0, epsilon=V(2.0, cov_coeff=V(3.0)))\n"
    new, _ = rewritten(text, width=70)
    assert (
        new.partition("\n")[2]
        == (
            "def f():\n    x = V(\n        invariance_weight=1.0,\n        eps=V(\n            invariance_weight=2.0,\n"
            "            covariance_weight=V(\n                invariance_weight=3.0,\n"
            "                center_invariance=True,\n            ),\n            center_invariance=True,\n        ),\n"
            "        center_invariance=True,\n    )\n"
        )
        or max(map(len, new.splitlines())) <= 70
    )


# -- f-strings ------------------------------------------------------------------------------------------------------

FIELDS = [
    ('f"{VICRegLoss(curriculum=True)}"', "'linear'"),
    ("f'{VICRegLoss(curriculum=True)}'", '"linear"'),
    ('f"""{VICRegLoss(curriculum=True)}"""', "'linear'"),
    ("f'''\n{VICRegLoss(curriculum=True)}'''", '"linear"'),
    ('rf"\\d{VICRegLoss(curriculum=True)}"', "'linear'"),
    ('f"{x:>{VICRegLoss(curriculum=True)}}"', "'linear'"),
    ("f'{f(VICRegLoss(curriculum=True))}' \"a\"", '"linear"'),
    ("f\"a\" f'{VICRegLoss(curriculum=True)}'", '"linear"'),
    ('f"{x}", VICRegLoss(curriculum=True)', '"linear"'),
    ('f"{x}".join(VICRegLoss(curriculum=True))', '"linear"'),
]


@pytest.mark.parametrize(("text", "value"), FIELDS)
def test_quotes_inside_f_strings(text: str, value: str) -> None:
    new, outcome = rewritten(f"{VICREG}x = {text}\n", python=OLD_PYTHON)
    assert value in new
    assert not codes(outcome, "error")
    assert not _inner_quotes(new)
    ast.parse(new)


def _inner_quotes(text: str) -> list[str]:
    """What a tokeniser before 3.12 would see behind the first string of a line: it ends at its quote."""
    found = []
    for quote, field in re.findall(r"""[rR]?f("{3}|'{3}|"|')(.*?)\1""", text, re.S):
        if field.count("{") != field.count("}"):
            found.append(quote + field)
    return found


def test_an_f_string_without_free_quotes_is_refused() -> None:
    text = f"{VICREG}x = f\"{{f'{{VICRegLoss(curriculum=True)}}'}}\"\n"
    new, outcome = rewritten(text, python=OLD_PYTHON)
    assert new == text
    assert [(f.code, f.message[:9]) for f in outcome.findings] == [("TL095", "no quotes")]
    new, outcome = rewritten(text, python=(3, 12))
    assert codes(outcome, "error") == (set() if sys.version_info >= (3, 12) else {"TL095"})
    already = f'{VICREG}x = f"{{y["a"]}} {{f\'{{VICRegLoss(curriculum=True)}}\'}}"\n'
    assert rewritten(already, python=OLD_PYTHON)[0] != already


def test_the_oldest_python_of_a_project(tmp_path: Path) -> None:
    assert style(str(tmp_path)) == (88, sys.version_info[:2])
    for wanted, found in [(">=3.10", (3, 10)), (">= 3.12, <4", (3, 12)), ("~=3.11.2", (3, 11)), ("<4", None)]:
        (tmp_path / "pyproject.toml").write_text(
            f'[project]\nrequires-python = "{wanted}"\n[tool.black]\nline-length = 99'
        )
        assert style(str(tmp_path)) == (99, found or sys.version_info[:2])


def test_literals_in_quotes() -> None:
    for value in ("a", 'a"', "a'", "a\n", "\\", ("a",), ["a", {"b": ("c", 1)}]):
        for quote in "'\"":
            assert ast.literal_eval(unparsed(value, quote)) == value
    assert unparsed(("a", ["b"]), "'") == "('a', ['b'])"


# -- what cannot be edited ------------------------------------------------------------------------------------------


def test_what_one_file_cannot_take_stays_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text(f"{VICREG}{CLIP}x = VICRegLoss(1.0)\n", encoding="utf-8")
    bad.write_text(f"{VICREG}x = f\"{{f'{{VICRegLoss(curriculum=True)}}'}}\"\n", encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.10"\n', encoding="utf-8")
    before = bad.read_text(encoding="utf-8")
    assert cli.main([str(tmp_path), "--write", "--catalog", str(CATALOG)]) == 2
    assert bad.read_text(encoding="utf-8") == before
    assert good.read_text(encoding="utf-8") == f"{VICREG}{NEW}x = VICRegLoss(1.0)\n"
    assert f"VICRegLoss stays, because of {bad}, which cannot be changed" in capsys.readouterr().out


def test_what_libcst_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str) -> None:
        raise tree.cst.ParserSyntaxError("a message", lines=[text], raw_line=1, raw_column=0)

    monkeypatch.setattr(tree.cst, "parse_module", fail)
    new, outcome = rewrite_text(CLIP, Rules(demo_catalog()))
    assert new == CLIP
    assert [(f.code, f.message) for f in outcome.findings] == [("TL090", "libcst does not read it: a message")]


@pytest.mark.parametrize("depth", [90, 150])
def test_deep_code_is_edited(depth: int) -> None:
    text = CLIP + "x = " + "[" * depth + "CLIPStyleLoss()" + "]" * depth + "\n"
    assert "CLIPLoss(metrics=True)" in rewritten(text, width=500)[0]
    chain = CLIP + "if x: pass\n" + "elif x: pass\n" * depth + "else: CLIPStyleLoss()\n"
    assert "CLIPLoss(metrics=True)" in rewritten(chain)[0]


def test_a_bomb_is_refused() -> None:
    text = CLIP + "x = CLIPStyleLoss()" + " + 1" * 700 + "\n"
    new, outcome = rewritten(text)
    assert new == text
    assert codes(outcome, "error") == {"TL093"}


WITHOUT = """
import sys
sys.modules["libcst"] = None
from training_losses.migration.codemod.cli import main
sys.exit(main(sys.argv[1:]))
"""


def without_libcst(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, str(folder), "--catalog", str(CATALOG), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_libcst_one_sentence_names_the_extra(tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(CLIP, encoding="utf-8")
    done = without_libcst(tmp_path, "--write")
    sentence = "codemod: rewriting Python code needs libcst: pip install 'training-losses[codemod]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)
    assert (tmp_path / "a.py").read_text(encoding="utf-8") == CLIP


def test_what_is_left_is_reported_without_libcst(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(f"{CLIP}CLIPStyleLoss(*x)\n", encoding="utf-8")
    done = without_libcst(tmp_path)
    assert done.returncode == 1
    assert "TL030" in done.stdout


# -- documents ------------------------------------------------------------------------------------------------------

CODE = (
    "from src.training.losses import (\n    VICRegLoss,\n    helper,\n)\n\n"
    "if x:\n    # why\n    loss = VICRegLoss(1.0)\n"
)
MOVED = (
    "from training_losses.contrastive.vicreg import VICRegLoss\nfrom src.training.losses import helper\n\n"
    "if x:\n    # why\n    loss = VICRegLoss(\n        invariance_weight=1.0,\n        center_invariance=True,\n    )\n"
)


def _session(code: str) -> str:
    """The code with prompts."""
    lines = []
    firsts = {node.lineno for node in ast.parse(code).body}
    for number, line in enumerate(code.splitlines(), 1):
        lines.append(f"{'>>>' if number in firsts or not line else '...'} {line}".rstrip())
    return "\n".join(lines) + "\n"


def _indented(text: str, mark: str) -> str:
    return "".join(f"{mark}{line}" if line.strip() else f"{mark.rstrip()}{line}" for line in text.splitlines(True))


WRAPPERS: dict[str, tuple[str, Callable[[str], str]]] = {
    "fence": ("a.md", lambda code: f"Text.\n\n```python\n{code}```\n\nText.\n"),
    "no newline at the end": ("a.md", lambda code: f"```python\n{code}".rstrip("\n") + "\n```"),
    "in a list": ("a.md", lambda code: "1. one\n\n" + _indented(f"```python\n{code}```\n", "   ") + "\n2. two\n"),
    "behind a bullet": ("a.md", lambda code: "- ```python\n" + _indented(f"{code}```\n", "  ") + "- two\n"),
    "tabs": ("a.md", lambda code: "- one\n\n" + _indented(f"```python\n{code}```\n", "\t")),
    "quotation": ("a.md", lambda code: _indented(f"```python\n{code}```\n", "> ")),
    "quotation in a list": ("a.md", lambda code: "- a\n" + _indented(f"~~~py\n{code}~~~\n", "  > > ") + "\nb\n"),
    "session": ("a.md", lambda code: f"```pycon\n{_session(code)}```\n"),
    "session with output": ("a.md", lambda code: f"```python\n{_session(code)}VICRegLoss()\n>>> x\n1\n```\n"),
    "session in a list": ("a.md", lambda code: "1. a\n\n" + _indented(f"```python\n{_session(code)}```\n", "   ")),
    "session in a quotation": ("a.md", lambda code: _indented(f"```pycon\n{_session(code)}```\n", "> ")),
    "block": (
        "a.rst",
        lambda code: f"A\n=\n\n.. code-block:: python\n   :linenos:\n\n{_indented(code, '   ')}\nText.\n",
    ),
    "block in a list": ("a.rst", lambda code: f"* a\n\n  .. code:: python\n\n{_indented(code, '      ')}\n* b\n"),
    "block at the end": ("a.rst", lambda code: f".. code-block:: python\n\n{_indented(code, '    ')}".rstrip()),
    "session of rst": ("a.rst", lambda code: f"Text:\n\n{_indented(_session(code), '    ')}    1\n\nText.\n"),
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_the_block_around_the_code_stays(name: str, newline: str) -> None:
    path, wrap = WRAPPERS[name]
    text = wrap(CODE).replace("\n", newline)
    rules = Rules(demo_catalog(), width=60)
    new, outcome = rewrite_text(text, rules, path, "document")
    assert new == wrap(MOVED).replace("\n", newline)
    messages = {f.message for f in outcome.findings if f.level in ("error", "left")}
    assert messages == {"imports src.training.losses"}  # `helper`, which the old package never exported
    assert rewrite_text(new, Rules(demo_catalog(), width=60), path, "document")[0] == new


def test_a_document_that_would_break_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Part, "_lines", lambda self, edit, text: Edit(edit.start + 10, edit.end + 10, f" {edit.new}"))
    text = f"```python\n{CLIP}```\n"
    new, outcome = rewrite_text(text, Rules(demo_catalog()), "a.md", "document")
    assert new == text
    assert codes(outcome, "error") == {"TL095"}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text("ab =\n", max_size=30), st.text("ab =\n", max_size=30))
def test_an_edit_by_words_is_the_same_edit(old: str, new: str) -> None:
    assert apply(f"--{old}--", refined(old, Edit(2, 2 + len(old), new))) == f"--{new}--"
    assert "".join(split_lines(old)) == old


# -- commands of libcst ---------------------------------------------------------------------------------------------

FILE = """\
# -*- coding: latin-1 -*-
from src.training.losses.clip_style_loss import CLIPStyleLoss
loss = CLIPStyleLoss(0.1)  # \xe9
x = loss(v, t)["v2t_loss"]
p = patch("src.training.losses.clip_style_loss.CLIPStyleLoss")
"""
PARTS = {
    "Imports": [("src.training.losses.clip_style_loss import CLIPStyleLoss", NEW[5:-1])],
    "Names": [("= CLIPStyleLoss(", "= CLIPLoss(")],
    "Calls": [("(0.1)", "(temperature=0.1, metrics=True)")],
    "Keys": [('"v2t_loss"', '"loss_v2t"')],
    "Strings": [
        ('"src.training.losses.clip_style_loss.CLIPStyleLoss"', '"training_losses.contrastive.clip_loss.CLIPLoss"')
    ],
}


def libcst_tool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "libcst.tool", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_each_kind_is_a_file_and_registers_itself() -> None:
    files = {path.stem for path in Path(kinds.__path__[0]).glob("*.py")} - {"__init__"}
    assert {kind.__module__.rpartition(".")[2] for kind in base.editors()} == files
    assert {kind.__name__ for kind in base.editors()} == set(PARTS)
    served = [request for kind in base.editors() for request in kind.serves]
    assert sorted(r.__name__ for r in served) == sorted(r.__name__ for r in asked.Request.__subclasses__())


@pytest.mark.parametrize("name", [*PARTS, "Move"])
def test_commands_of_libcst(name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_bytes(FILE.encode("latin-1"))
    command = f"training_losses.migration.codemod.edits.commands.{name}"
    done = libcst_tool(tmp_path, "codemod", "--no-format", "-x", command, "a.py", "--catalog", str(CATALOG))
    assert done.returncode == 0, done.stderr
    expected = FILE
    for old, new in PARTS[name] if name in PARTS else [pair for pairs in PARTS.values() for pair in pairs]:
        expected = expected.replace(old, new)
    assert file.read_bytes().decode("latin-1") == expected


def test_a_command_warns_of_what_is_left(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(f"{CLIP}CLIPStyleLoss(*x)\n", encoding="utf-8")
    command = "training_losses.migration.codemod.edits.commands.Move"
    done = libcst_tool(tmp_path, "codemod", "--no-format", "-x", command, "a.py", "--catalog", str(CATALOG))
    assert "TL030" in done.stderr
    assert (tmp_path / "a.py").read_text(encoding="utf-8") == f"{CLIP}CLIPStyleLoss(*x)\n"


def test_libcst_lists_the_commands(tmp_path: Path) -> None:
    (tmp_path / ".libcst.codemod.yaml").write_text(
        "modules: [training_losses.migration.codemod.edits]\n", encoding="utf-8"
    )
    listed = libcst_tool(tmp_path, "list").stdout
    assert all(f"commands.{name} - " in listed for name in [*PARTS, "Move"])
