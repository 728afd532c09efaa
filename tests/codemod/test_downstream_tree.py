"""A made-up repository of more than sixty files in the styles of the real ones, before and after: equal numbers."""

# ruff: noqa: E501  (lines of programs)

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.codemod.test_property import FORMS, LOSSES, ONLY_CLASSES, Loss
from training_losses.migration.codemod import cli

ROOT = Path(__file__).resolve().parents[2]
HEAD = "from harness import logits, record, t, target, v, weights\n"
HARNESS = """\
import torch

torch.manual_seed(0)
v, t = torch.randn(20, 6), torch.randn(20, 6)
logits, weights, target = torch.randn(20, 5), torch.rand(20), torch.arange(20) % 5
answers = []


def record(name, value):
    answers.append((str(name), torch.as_tensor(value).detach().double().flatten().tolist()))
"""
STYLES = {
    "src/__init__.py": "",
    "src/app/__init__.py": "from .losses import ContrastiveLoss, VICRegLoss\n__all__ = ['ContrastiveLoss', 'VICRegLoss']\n",
    "src/app/losses/__init__.py": (
        "from src.training.losses import (\n    ContrastiveLoss,\n    MemoryQueueContrastiveLoss,  # the queue\n)\n"
        "from src.training.loss.vicreg_loss import VICRegLoss\n"
        "__all__ = ['ContrastiveLoss', 'MemoryQueueContrastiveLoss']\n__all__ += ['VICRegLoss']\n"
    ),
    "src/app/trainers/__init__.py": "",
    "src/app/trainers/trainer.py": (
        "from src.training.losses import (\n    VICRegLoss,\n)\n"
        "from src.training.losses.vicreg_loss import (\n    VICRegLoss,  # again\n)\n"
        "from ..losses import ContrastiveLoss\n\n\n"
        "class Trainer:\n    def __init__(self, loss_fn=None):\n"
        "        self.loss_fn = loss_fn if loss_fn is not None else VICRegLoss(sim_coeff=5.0, epsilon=1e-3)\n\n"
        "    def inputs(self, v, t):\n        if isinstance(self.loss_fn, VICRegLoss):\n"
        "            return {'z_a': v, 'z_b': t}\n        return {'vision_features': v, 'text_features': t}\n\n"
        "    def step(self, v, t):\n        if hasattr(self.loss_fn, 'update_epoch'):\n"
        "            self.loss_fn.update_epoch(3)\n        result = self.loss_fn(**self.inputs(v, t))\n"
        "        loss = result['loss'] if isinstance(result, dict) else result\n        return loss\n"
    ),
    "src/app/strategy.py": (
        "from src.training.losses.contrastive_loss import ContrastiveLoss\nfrom src.app import VICRegLoss\n\n"
        "def build(config):\n    if config.get('loss_type', 'contrastive') == 'vicreg':\n"
        "        return VICRegLoss(\n            sim_coeff=config.get('sim_coefficient', 25.0),\n"
        "            var_coeff=config.get('var_coefficient', 25.0),\n            cov_coeff=config.get('cov_coefficient', 1.0),\n"
        "        )\n    return ContrastiveLoss(temperature=config.get('temperature', 0.07), add_projection=False)\n"
    ),
    "src/app/run.py": (
        HEAD + "from .strategy import build\nfrom .trainers.trainer import Trainer\n"
        "record('default', Trainer().step(v, t))\n"
        "record('vicreg', Trainer(build({'loss_type': 'vicreg'})).step(v, t))\n"
        "record('contrastive', Trainer(build({})).step(v, t))\n"
    ),
}
BYSTANDERS = {
    "broken.py": "def f(:\n",
    "latin.py": b"x = '\xe9'\n",
    "trainer.py.backup": "from .contrastive_learning import ContrastiveLoss\n",
    "lookalike.py": "from torch import nn\nnn.CrossEntropyLoss()\nclass SimpleContrastiveLoss(nn.Module): ...\n",
    "project.json": '{"losses": ["VICRegLoss"]}\n',
}


def units() -> list[tuple[Loss, str]]:
    return [
        (loss, form)
        for loss in LOSSES
        for form in sorted(FORMS)
        if not loss.function or form not in {*ONLY_CLASSES, "partial"}
    ]


def program(number: int, loss: Loss, form: str) -> str:
    chosen = {name: values[-1] for name, values in loss.arguments.items()}
    chosen.update(loss.always)
    arguments = ", ".join(f"{k}={v[1:] if isinstance(v, str) and v[0] == '@' else repr(v)}" for k, v in chosen.items())
    module = f"src.training.losses.{loss.module}"
    package, _, leaf = module.rpartition(".")
    text = HEAD + FORMS[form].format(m=module, k=package, leaf=leaf, n=loss.name, i=0, a=arguments)
    call = "" if loss.function else loss.calls[0]
    return f"{text}\nout = f0(){call}\nrecord('{loss.name} {form}', out{loss.reads[0]})\n"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("downstream")
    (top / ".git").mkdir()
    names = []
    files: dict[str, str | bytes] = {**STYLES, **BYSTANDERS, "harness.py": HARNESS}
    for number, (loss, form) in enumerate(units()):
        names.append(f"styles.m{number}")
        files[f"styles/m{number}.py"] = program(number, loss, form)
    names.append("src.app.run")
    imports = "".join(f"import {name}\n" for name in names)
    files["main.py"] = f"import json\n{imports}from harness import answers\nprint(json.dumps(answers))\n"
    for name, content in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return top


def run(tree: Path, *start: str) -> list[tuple[str, list[float]]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree), str(ROOT / "tools" / "checkout")])}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *start], cwd=tree, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [(name, values) for name, values in json.loads(done.stdout.splitlines()[-1])]


def test_the_tree_runs_before_and_after_with_equal_numbers(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sum(1 for _ in tree.rglob("*.py")) > 60
    before = run(tree, "-m", "training_losses", "run", "main.py")
    assert cli.main([str(tree), "--write"]) == 0, capsys.readouterr().out
    assert cli.main([str(tree), "--check"]) == 0
    for name, content in BYSTANDERS.items():
        assert (tree / name).read_bytes() == (content.encode() if isinstance(content, str) else content)
    without = (
        "import sys, runpy\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        gone = ('legacy', 'migration', 'training', 'training_losses.legacy', 'training_losses.migration')\n"
        "        if name in gone or name.startswith('src.training'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Gone())\n"
        "runpy.run_path('main.py', run_name='__main__')\n"
    )
    after = run(tree, "-c", without)
    assert [name for name, _ in before] == [name for name, _ in after]
    assert len(before) > 60
    for (name, old), (_, new) in zip(before, after, strict=True):
        assert new == pytest.approx(old, rel=2e-5, abs=1e-6), name
