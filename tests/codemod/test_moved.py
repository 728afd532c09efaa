"""Names of version 1.0 lead to themselves under the new root: the catalog of moved names, and what the codemod does."""

from __future__ import annotations

from pathlib import Path

import pytest

from training_losses.migration.catalog import builtin_paths, load_catalog, moved_paths
from training_losses.migration.codemod.cli import main
from training_losses.migration.resolve import resolve

MOVED = load_catalog(moved_paths())

OLD = """\
import training.losses.contrastive.moco_loss
import migration.shims
from training.losses import CLIPLoss, VICRegLoss as Old, create_loss
from training.losses.base import LossOutput
from training.losses.contrastive import MoCoLoss as M, VICRegLoss
from legacy.clip_style_loss import CLIPStyleLoss

migration.shims.install()
x = training.losses.contrastive.moco_loss.MemoryQueueLoss(dim=3)
y = [CLIPLoss(temperature=0.1), create_loss("clip"), M(**options), VICRegLoss(1), CLIPStyleLoss(temperature=3)]
isinstance(x, (Old, LossOutput))
"""
NEW = """\
import training_losses.contrastive.moco_loss
import training_losses.migration.shims
from training_losses.contrastive.clip_loss import CLIPLoss
from training_losses.contrastive.vicreg import VICRegLoss as Old
from training_losses import create_loss
from training_losses.base.output import LossOutput
from training_losses.contrastive.moco import MoCoLoss as M
from training_losses.contrastive.vicreg import VICRegLoss
from training_losses.legacy.clip_style_loss import CLIPStyleLoss

training_losses.migration.shims.install()
x = training_losses.contrastive.moco_loss.MemoryQueueLoss(dim=3)
y = [CLIPLoss(temperature=0.1), create_loss("clip"), M(**options), VICRegLoss(1), CLIPStyleLoss(temperature=3)]
isinstance(x, (Old, LossOutput))
"""


def test_every_row_leads_to_the_object_that_the_old_path_gives() -> None:
    for symbol in MOVED.symbols:
        assert symbol.twin.startswith("training_losses."), symbol.old
        for path in symbol.all_paths:
            assert resolve(path) is resolve(symbol.twin), path


def test_no_old_loss_is_among_them() -> None:
    assert not set(MOVED.by_path) & set(load_catalog(builtin_paths()).by_path)


def test_imports_move(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.py").write_text(OLD)
    assert main([str(tmp_path), "--write", "--force"]) == 0
    assert (tmp_path / "a.py").read_text() == NEW
    assert "TL021" not in capsys.readouterr().out
    assert main([str(tmp_path), "--check", "--force"]) == 0


def test_own_packages_of_these_names_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {
        "legacy/clip_style_loss.py": "class CLIPStyleLoss: ...\n",
        "migration/shims.py": "def install(): ...\n",
        "training/losses.py": "class CLIPLoss: ...\n",
        "use.py": "import migration.shims\nfrom legacy.clip_style_loss import CLIPStyleLoss\n"
        "from training.losses import CLIPLoss\n\nmigration.shims.install()\nCLIPStyleLoss()\nCLIPLoss()\n",
    }
    for name, text in own.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert main([str(tmp_path), "--write", "--force"]) == 0, capsys.readouterr().out
    assert {name: (tmp_path / name).read_text() for name in own} == own
