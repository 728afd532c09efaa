"""Decisions over several files: relative imports, re-exports, public names, all or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.codemod.support import codes, demo_catalog
from training_losses.migration.codemod.project import Outcome, Project
from training_losses.migration.codemod.rules import Rules


def run(root: Path, files: dict[str, str], **options: object) -> tuple[dict[str, str], Outcome]:
    """Rewrite a tree in place; a second run finds nothing to change."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (root / ".git").mkdir(exist_ok=True)
    outcome = _once(root, **options)
    for change in outcome.changes:
        Path(change.path).write_bytes(change.new)
    assert not _once(root, **options).changes
    return {name: (root / name).read_text(encoding="utf-8") for name in files}, outcome


def _once(root: Path, **options: object) -> Outcome:
    project = Project(Rules(demo_catalog(), **options))  # type: ignore[arg-type]  # options of Rules
    project.scan([root])
    return project.finish(project.decide())


def test_relative_imports_are_resolved_by_the_place_of_the_file(tmp_path: Path) -> None:
    after, _ = run(
        tmp_path,
        {
            "src/training/__init__.py": "from .losses import VICRegLoss\n",
            "src/training/trainers/deep/one.py": (
                "from ...losses.vicreg_loss import VICRegLoss as V\n"
                "from ... import losses\nfrom ...losses import clip_style_loss, other\n"
                "isinstance(x, losses.VICRegLoss)\nclip_style_loss.CLIPStyleLoss()\n"
            ),
            "src/other/losses/two.py": "from .losses import VICRegLoss\nfrom . import VICRegLoss as W\nVICRegLoss(1)\n",
        },
    )
    assert after["src/training/__init__.py"] == "from training_losses.contrastive.vicreg import VICRegLoss\n"
    assert after["src/training/trainers/deep/one.py"] == (
        "from training_losses.contrastive.vicreg import VICRegLoss as V\n"
        "from training_losses.contrastive import vicreg\n"
        "from training_losses.contrastive import clip_loss\nfrom ...losses import other\n"
        "isinstance(x, vicreg.VICRegLoss)\nclip_loss.CLIPLoss(metrics=True)\n"
    )
    assert "from .losses import VICRegLoss" in after["src/other/losses/two.py"]


def test_too_many_dots_are_left_alone(tmp_path: Path) -> None:
    text = "from ......losses import VICRegLoss\n"
    after, outcome = run(tmp_path, {"a.py": text})
    assert after["a.py"] == text
    assert not outcome.findings


def test_a_vendored_package_is_rewritten_consistently(tmp_path: Path) -> None:
    after, _ = run(
        tmp_path,
        {
            "src/__init__.py": "",
            "src/training/__init__.py": "",
            "src/training/losses/__init__.py": (
                "from .memory_queue_contrastive_loss import MemoryQueueContrastiveLoss\n"
                "from .clip_style_loss import CLIPStyleLoss\n"
                "__all__ = ['MemoryQueueContrastiveLoss', 'CLIPStyleLoss']\n"
            ),
            "src/training/losses/memory_queue_contrastive_loss.py": (
                "class MemoryQueueContrastiveLoss:\n"
                "    def __init__(self, dim=512, queue_size=8192, temperature=0.07): ...\n"
            ),
            "use.py": "from src.training.losses import MemoryQueueContrastiveLoss\n",
        },
    )
    assert after["src/training/losses/__init__.py"] == (
        "from training_losses.contrastive.moco_loss import MemoryQueueLoss as MemoryQueueContrastiveLoss\n"
        "from training_losses.contrastive.clip_loss import CLIPLoss as CLIPStyleLoss\n"
        "__all__ = ['MemoryQueueContrastiveLoss', 'CLIPStyleLoss']\n"
    )
    assert after["use.py"] == "from training_losses.contrastive.moco_loss import MemoryQueueLoss\n"


def test_reexports_are_followed_through_any_name(tmp_path: Path) -> None:
    after, _ = run(
        tmp_path,
        {
            "app/__init__.py": "",
            "app/compat.py": (
                "from src.training.losses.clip_style_loss import CLIPStyleLoss, CLIPStyleLoss as Criterion\n"
            ),
            "app/middle.py": "from .compat import Criterion as Loss\n",
            "app/train.py": (
                "from app.compat import CLIPStyleLoss\nfrom .middle import Loss\nimport app.compat as c\n"
                "CLIPStyleLoss(0.1)\nLoss(0.2)\nc.Criterion(0.3)\n"
            ),
        },
    )
    assert after["app/compat.py"] == (
        "from training_losses.contrastive.clip_loss import CLIPLoss as CLIPStyleLoss, CLIPLoss as Criterion\n"
    )
    assert after["app/middle.py"] == "from .compat import Criterion as Loss\n"
    assert after["app/train.py"] == (
        "from app.compat import CLIPStyleLoss\nfrom .middle import Loss\nimport app.compat as c\n"
        "CLIPStyleLoss(temperature=0.1, metrics=True)\nLoss(temperature=0.2, metrics=True)\n"
        "c.Criterion(temperature=0.3, metrics=True)\n"
    )


@pytest.mark.parametrize(
    ("two", "three"),
    [
        ("from one import *\n", "from two import *\n"),
        ("from one import *\n", "from two import CLIPStyleLoss\n"),
        ("from .one import *\n", "def f():\n    pass\nfrom .two import (\n    CLIPStyleLoss,\n)\n"),
        ("from one import CLIPStyleLoss\n", "from two import *\n"),
    ],
)
def test_stars_are_followed_through_three_files(tmp_path: Path, two: str, three: str) -> None:
    old = "from src.training.losses.clip_style_loss import CLIPStyleLoss\n"
    use = "loss = CLIPStyleLoss(0.1)\n"
    files = {"app/one.py": old, "app/two.py": two, "app/three.py": three + use}
    after, _ = run(tmp_path, files)
    assert after["app/one.py"] == "from training_losses.contrastive.clip_loss import CLIPLoss as CLIPStyleLoss\n"
    assert after["app/two.py"] == two
    assert after["app/three.py"] == three + "loss = CLIPStyleLoss(temperature=0.1, metrics=True)\n"


def test_a_star_of_an_old_module_that_others_import_is_left(tmp_path: Path) -> None:
    files = {
        "one.py": "from src.training.losses.clip_style_loss import *\nCLIPStyleLoss()\n",
        "two.py": "from one import *\n",
        "three.py": "from two import *\nCLIPStyleLoss(0.1)\n",
    }
    after, outcome = run(tmp_path, files)
    assert after == files
    assert codes(outcome, "left") == {"TL038"}


@pytest.mark.parametrize(
    "other",
    [
        "from app.one import CLIPStyleLoss\n",
        "import app.one\nx = app.one.CLIPStyleLoss\n",
        'mock.patch("app.one.CLIPStyleLoss")\n',
        "from app.one import *\nCLIPStyleLoss\n",
    ],
)
def test_names_that_other_files_use_are_kept(tmp_path: Path, other: str) -> None:
    text = "from src.training.losses.clip_style_loss import CLIPStyleLoss\nCLIPStyleLoss()\n"
    after, _ = run(tmp_path, {"app/__init__.py": "", "app/one.py": text, "app/two.py": other})
    assert "import CLIPLoss as CLIPStyleLoss\nCLIPStyleLoss(metrics=True)" in after["app/one.py"]
    alone, _ = run(tmp_path / "alone", {"app/one.py": text})
    assert "import CLIPLoss\nCLIPLoss(metrics=True)" in alone["app/one.py"]


def test_modules_of_one_name_in_two_directories(tmp_path: Path) -> None:
    old = "from src.training.losses.clip_style_loss import CLIPStyleLoss\n"
    use = "from helpers import CLIPStyleLoss\nCLIPStyleLoss(0.1)\n"
    files = {f"{folder}/{name}": text for folder in "ab" for name, text in (("helpers.py", old), ("train.py", use))}
    after, _ = run(tmp_path, files)
    for folder in "ab":
        assert "import CLIPLoss as CLIPStyleLoss" in after[f"{folder}/helpers.py"]
        assert "CLIPStyleLoss(temperature=0.1, metrics=True)" in after[f"{folder}/train.py"]


@pytest.mark.parametrize(
    "form", ["from helpers import Loss", "from helpers import *", "from helpers import Loss as Loss"]
)
def test_of_modules_with_one_name_the_one_beside_the_file_counts(tmp_path: Path, form: str) -> None:
    use = f"{form}\nx = Loss(1.0)\n"
    files = {
        "a/helpers.py": "from src.training.losses.clip_style_loss import CLIPStyleLoss as Loss\n",
        "b/helpers.py": "from src.training.losses.vicreg_loss import VICRegLoss as Loss\n",
        "c/helpers.py": "class Loss:\n    def __init__(self, temperature): ...\n",
        **{f"{folder}/train.py": use for folder in "abc"},
    }
    after, _ = run(tmp_path, files)
    assert "Loss(temperature=1.0, metrics=True)" in after["a/train.py"]
    assert "Loss(invariance_weight=1.0, center_invariance=True)" in after["b/train.py"]
    assert after["c/train.py"] == use


def test_all_or_nothing(tmp_path: Path) -> None:
    use = "from src.training.losses import VICRegLoss, MemoryQueueContrastiveLoss\nisinstance(x, VICRegLoss)\n"
    after, outcome = run(
        tmp_path,
        {"a.py": use, "b.py": "from src.training.losses import VICRegLoss\nVICRegLoss(**options)\n"},
    )
    assert after["a.py"] == (
        "from src.training.losses import VICRegLoss\n"
        "from training_losses.contrastive.moco_loss import MemoryQueueLoss\nisinstance(x, VICRegLoss)\n"
    )
    assert codes(outcome, "left") == {"TL030", "TL043"}
    (reason,) = [f for f in outcome.findings if f.code == "TL043"]
    assert "b.py:2" in reason.message


def test_a_successor_that_another_file_chooses(tmp_path: Path) -> None:
    after, _ = run(
        tmp_path,
        {
            "a.py": "from src.training.losses import ContrastiveLoss\nContrastiveLoss(loss_type='nt_xent')\n",
            "b.py": "from src.training.losses import ContrastiveLoss\nisinstance(x, ContrastiveLoss)\n",
        },
    )
    assert after["b.py"] == (
        "from training_losses.contrastive.simclr_loss import SimCLRLoss\nisinstance(x, SimCLRLoss)\n"
    )


def test_two_classes_of_one_name(tmp_path: Path) -> None:
    after, _ = run(
        tmp_path,
        {
            "losses.py": "class VICRegLoss:\n    def __init__(self, own): ...\n",
            "a.py": (
                "from losses import VICRegLoss as Own\nfrom src.training.losses import VICRegLoss\n"
                "Own(1), isinstance(x, VICRegLoss)\n"
            ),
        },
    )
    assert after["a.py"].startswith("from losses import VICRegLoss as Own\nfrom training_losses.contrastive.vicreg")


def test_a_foreign_module_under_an_old_path_is_left(tmp_path: Path) -> None:
    files = {
        "training/losses/vicreg_loss.py": "class VICRegLoss:\n    def __init__(self, mine): ...\n",
        "a.py": "from training.losses.vicreg_loss import VICRegLoss\nVICRegLoss(mine=1)\n",
        "b.py": "from src.training.losses import VICRegLoss\nisinstance(x, VICRegLoss)\n",
    }
    after, outcome = run(tmp_path, files)
    assert after["a.py"] == files["a.py"]
    assert after["b.py"] != files["b.py"]
    assert codes(outcome) == {"TL044"}


def test_lazy_getattr_tables_reexport(tmp_path: Path) -> None:
    after, _ = run(
        tmp_path,
        {
            "app/__init__.py": (
                "import importlib\n"
                '_T = {"VICRegLoss": "src.training.losses.vicreg_loss"}\n'
                "def __getattr__(name):\n    return getattr(importlib.import_module(_T[name]), name)\n"
            ),
            "use.py": "from app import VICRegLoss\nVICRegLoss(2.0)\n",
        },
    )
    assert '"training_losses.contrastive.vicreg"' in after["app/__init__.py"]
    assert after["use.py"] == "from app import VICRegLoss\nVICRegLoss(invariance_weight=2.0, center_invariance=True)\n"


def test_numbers_modes(tmp_path: Path) -> None:
    text = (
        "from src.training.losses.clip_style_loss import CLIPStyleLoss as A\n"
        "from src.training.losses.vicreg_loss import VICRegLoss as B\n"
        "from src.training.losses.fixed_loss import FixedLoss as C\n"
        "A(), B(), C()\n"
    )
    made = {}
    for mode in ("exact", "documented", "new"):
        after, outcome = run(tmp_path / mode, {"a.py": text}, numbers=mode)
        made[mode] = after["a.py"].splitlines()
        assert ("TL020" in codes(outcome)) == (mode != "exact")
    assert made["exact"][0] == "from training_losses.legacy.clip_style_loss import CLIPStyleLoss as A"
    assert made["documented"][0] == "from training_losses.contrastive.clip_loss import CLIPLoss as A"
    assert made["documented"][2] == "from training_losses.legacy.fixed_loss import FixedLoss as C"
    assert made["new"][2] == "from training_losses.contrastive.fixed import FixedLoss as C"
    assert made["exact"][3] == "A(), B(invariance_weight=10.0, center_invariance=True), C()"
    assert made["documented"][3] == "A(metrics=True), B(invariance_weight=10.0, center_invariance=True), C()"
    assert made["new"][3] == "A(), B(), C()"


@pytest.mark.parametrize(("options", "changed"), [({"select": ("VICRegLoss",)}, 1), ({"ignore": ("demo",)}, 0)])
def test_select_and_ignore(tmp_path: Path, options: dict[str, tuple[str, ...]], changed: int) -> None:
    text = "from src.training.losses import VICRegLoss, CrossEntropyLoss\n"
    after, outcome = run(tmp_path, {"a.py": text}, **options)
    assert len(outcome.changes) == changed
    assert "CrossEntropyLoss" in after["a.py"]
    assert "Label" not in after["a.py"]


def test_what_concerns_all_losses_of_a_module_is_said_once(tmp_path: Path) -> None:
    text = "import src.training.losses as old\nregister(old)\n"
    _, outcome = run(tmp_path, {"a.py": text})
    (finding,) = [f for f in outcome.findings if f.code == "TL039"]
    assert len(finding.symbol.split(", ")) > 1
