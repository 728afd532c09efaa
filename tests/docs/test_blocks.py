"""Every code block of the README and the documentation runs, or is parsed by what it is written for.

Python runs; blocks of one page follow each other in one scope, but the generated ``# before`` and ``# after`` examples
stand alone. Names that a reader brings along (a network, batches) are in ``given()``. Commands go through the command
line's own parser; those of the seven situations in the guide run. A block behind
``<!-- not run: reason -->`` is left out.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from tests.support.harness_triangulate import replaced_networks
from tests.support.twins import twin
from training_losses._public import REGISTRY
from training_losses.balancing import GeometricMeanLoss
from training_losses.config import create_loss_from_config
from training_losses.contrastive import CLIPLoss, VICRegLoss
from training_losses.functional import reduce
from training_losses.migration import shims
from training_losses.migration.__main__ import main, parse
from training_losses.migration.codemod.config import load as load_settings
from training_losses.predictive import HJEPALoss, SIGRegLoss

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "LOSS_MIGRATION_GUIDE.md"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if not path.name.startswith("TL")),
]
BLOCK = re.compile(r"(?:<!-- not run: (?P<reason>.+?) -->\n+)?^```(?P<language>\w*)\n(?P<code>.*?)^```", re.M | re.S)
COMMANDS = ("bash", "sh", "console")
NEVER_BUILT = [("contrastive_learning", "MultiModalMixedContrastiveLoss")]
"""Old classes whose constructor raised NameError."""
SITUATIONS = (
    "My training run must not change",
    "I have checkpoints",
    "I have configs",
    "I import from five places",
    "I want the fixes, too",
    "How do I roll back",
    "When are the old names removed",
)


@dataclass(frozen=True)
class Block:
    page: Path
    number: int
    language: str
    code: str
    reason: str

    @property
    def id(self) -> str:
        return f"{self.page.relative_to(ROOT)}-{self.number}"


def blocks_of(page: Path) -> list[Block]:
    found = enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")))
    return [Block(page, n, m["language"], m["code"], m["reason"] or "") for n, m in found]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


class Network(nn.Module):
    """Images ``[B, 3, 8, 8]``, or sequences of them, to logits ``[B, 4]`` (``[B, T, 4]``)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 2, 3), nn.Linear(2, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.convolution(images.flatten(0, -4)).amax(dim=(-2, -1))).unflatten(0, images.shape[:-3])


class Logger:
    def log(self, metrics: dict[str, float]) -> None:
        assert all(isinstance(value, float) for value in metrics.values())


def given() -> dict[str, Any]:
    """What the reader of a page has."""
    images, labels = torch.rand(2, 3, 8, 8), torch.tensor([0, 3])
    return {
        "torch": torch,
        "network": Network(),
        "loader": [(images, labels)],
        "cross_entropy": lambda x, y: nn.functional.cross_entropy(x.mean(1), y),
        "vision_encoder": nn.Linear(5, 768),
        "text_encoder": nn.Linear(3, 768),
        "primary_loss": nn.MSELoss(),
        "loss_functions": {"task": nn.MSELoss()},
        "jepa_loss": HJEPALoss(),
        "sigreg_loss": SIGRegLoss(),
        "loss": GeometricMeanLoss(terms={"l1": nn.L1Loss(), "squared": nn.MSELoss()}),
        "steps": 2,
        "rendered": torch.rand(1, 3, 16, 16),
        "target": torch.rand(1, 3, 16, 16),
        "logger": Logger(),
        "CLIPLoss": CLIPLoss,
        "VICRegLoss": VICRegLoss,
        "v": torch.randn(4, 6),
        "t": torch.randn(4, 6),
        "reduce": reduce,
    }


@contextlib.contextmanager
def old_names() -> Iterator[None]:
    """The examples of old code use old names, which warn, and pretrained networks, which stand-ins replace."""
    shims.install()
    with warnings.catch_warnings(), replaced_networks():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def run_before_and_after(block: Block) -> None:
    before, _, after = block.code.partition("# after\n")
    broken = any(f"{module} import {name}\n" in before for module, name in NEVER_BUILT)
    try:
        with pytest.raises(NameError) if broken else contextlib.nullcontext():
            exec(compile(before, block.id, "exec"), given())
    except (AssertionError, RuntimeError) as error:
        # some old classes want a GPU by default; what torch says without one depends on its build
        if torch.cuda.is_available() or not re.search("CUDA|NVIDIA", str(error)):
            raise
    exec(compile(after, block.id, "exec"), given())


def run_python(page: Path) -> int:
    """Run the Python blocks of a page; how many."""
    scope, count = given(), 0
    for block in blocks_of(page):
        if block.language == "python" and not block.reason:
            with contextlib.redirect_stdout(io.StringIO()):
                if block.code.startswith("# before"):
                    run_before_and_after(block)
                else:
                    exec(compile(block.code, block.id, "exec"), scope)
            count += 1
    return count


@pytest.fixture
def clean_registry() -> Iterator[None]:
    from training_losses.loss_registry import LossRegistry

    yield
    for name in set(LossRegistry._classes) - set(REGISTRY):  # the guide registers one of its own
        del LossRegistry._classes[name]


PYTHON_PAGES = [page for page in PAGES if any(b.language == "python" for b in blocks_of(page))]


@pytest.mark.usefixtures("clean_registry")
@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]), old_names():
        assert run_python(page)


def commands_of(block: Block) -> list[list[str]]:
    """The words of each command; output of a session (``$ command``, then lines) is left out."""
    lines = [line for line in block.code.splitlines() if line.strip()]
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    return [words for line in lines for part in line.split("&&") if (words := shlex.split(part, comments=True))]


def check_command(words: list[str]) -> None:
    """Parse a command by what it calls."""
    program, *rest = words
    program = program.rpartition("/")[2]
    if program.startswith("python") and "-m" in rest:
        program, *rest = rest[rest.index("-m") + 1 :]
    elif program == "python":
        assert (ROOT / rest[0]).is_file(), words
        return
    if program in ("training_losses", "training-losses"):
        parse(rest)
    elif program == "libcst.tool":
        module, _, name = rest[rest.index("-x") + 1].rpartition(".")
        assert hasattr(importlib.import_module(module), name), words
    elif program == "nox":
        sessions = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.M)
        for name in rest[1:] if rest[:1] == ["-s"] else rest:
            assert name in sessions, words
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        for extra in re.findall(r"training-losses\[(\w+)\]", " ".join(rest)):
            assert extra in extras, words
    else:
        assert program in ("venv", "pytest"), f"nobody checks {words}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in COMMANDS and not b.reason], ids=lambda b: b.id)
def test_commands_parse(block: Block) -> None:
    assert commands_of(block)
    for words in commands_of(block):
        check_command(words)


@pytest.mark.parametrize(
    "words",
    [["rm", "-rf", "."], ["python", "-m", "training_losses", "catalogue"], ["training-losses", "codemod", "--nope"]],
)
def test_a_wrong_command_is_noticed(words: list[str]) -> None:
    with pytest.raises((AssertionError, SystemExit)):
        check_command(words)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in ("yaml", "toml", "json")], ids=lambda b: b.id)
def test_configurations(block: Block, tmp_path: Path) -> None:
    data = tomllib.loads(block.code) if block.language == "toml" else yaml.safe_load(block.code)
    if "loss" in data or "criterion" in data:
        with old_names():
            assert isinstance(create_loss_from_config(data), nn.Module)
    elif "tool" in data:
        (tmp_path / "pyproject.toml").write_text(block.code, encoding="utf-8")
        (settings,) = data["tool"]["training-losses"].values()
        assert set(load_settings(str(tmp_path))) == {name.replace("-", "_") for name in settings}
    else:
        hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
        asked = {hook["id"] for repository in data["repos"] for hook in repository["hooks"]}
        assert asked
        assert asked <= {hook["id"] for hook in hooks}


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    known = {*COMMANDS, "python", "yaml", "toml", "json", "text", "diff"}
    assert [block.id for block in BLOCKS if block.language not in known] == []
    left_out = [block for block in BLOCKS if block.reason]
    assert len(left_out) <= 3
    assert all(len(block.reason) > 10 for block in left_out)
    # the only one, and tests/unit/test_readme.py lets the codemod make it
    assert [block.page.name for block in BLOCKS if block.language == "diff"] == ["README.md"]


# --- the seven situations of the guide --------------------------------------------------------------------------------


def situation(title: str) -> str:
    text = GUIDE.read_text(encoding="utf-8")
    heading = f'### "{title}"\n'
    assert text.count(heading) == 1, title
    return re.split(r"^##", text.partition(heading)[2], maxsplit=1, flags=re.M)[0]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Somebody's code, checkpoints and data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(
        "from src.training.losses.clip_style_loss import CLIPStyleLoss\n\nloss = CLIPStyleLoss()\n"
    )
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "run.yaml").write_text("loss:\n  type: combined\n  vicreg_weight: 0.25\n")
    drawn = np.random.default_rng(0).normal(size=(2, 6, 5)).astype("float32")
    np.savez(tmp_path / "batch.npz", vision_features=drawn[0], text_features=drawn[1])
    old = twin("memory_queue_contrastive_loss.MemoryQueueContrastiveLoss")(dim=5, queue_size=8)
    torch.save({"state_dict": {f"criterion.{key}": value for key, value in old.state_dict().items()}}, "model.pt")
    return tmp_path


ELSEWHERE = ("run", "report", "demo", "verify")
"""Commands that take a process of their own, or minutes; they are parsed only. ``tests/shims``,
``tests/watch`` and others run them."""


@pytest.mark.parametrize("title", SITUATIONS)
def test_situation(title: str, repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = [m["code"] for m in BLOCK.finditer(situation(title)) if m["language"] == "sh"]
    assert len(blocks) == 1
    torch_file = repository / "model.migrated.pt"
    if "--write" not in blocks[0] or title == "How do I roll back":
        assert main(["checkpoint", "model.pt", "--write"]) == 0
        assert torch_file.exists()
        assert main(["codemod", "train.py", "--write"]) == 0
    ran = 0
    for words in commands_of(Block(GUIDE, 0, "sh", blocks[0], "")):
        check_command(words)
        rest = words[words.index("training_losses") + 1 :] if "training_losses" in words else []
        if rest and rest[0] not in ELSEWHERE and "--verify" not in rest:
            assert main(rest) in (0, 1), (words, capsys.readouterr().err)
            ran += 1
    assert ran
    if title == "How do I roll back":
        assert "CLIPStyleLoss" in (repository / "train.py").read_text()
        back, before = (
            torch.load(repository / name, weights_only=True) for name in ("model.migrated.old.pt", "model.pt")
        )
        assert list(back["state_dict"]) == list(before["state_dict"])


def test_old_names_become_errors_as_the_guide_says(repository: Path) -> None:
    command = [sys.executable, "-W", "error::DeprecationWarning", "-m", "training_losses", "run", "train.py"]
    environment = {"PYTHONPATH": str(ROOT / "tools" / "checkout"), "PATH": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "removed in 2.0.0" in done.stderr
