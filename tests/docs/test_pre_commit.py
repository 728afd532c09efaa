"""The hooks: this repository's own on a clean clone, and those that downstream repositories use."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
CODEMOD = ("deprecation", "libcst", "pathspec", "rich", "ruamel.yaml", "tomli", "typing_extensions")
"""What the codemod uses; torch and numpy are not among it."""

ONLY = """
import importlib.machinery, sys
import {modules}  # what the hook installs may import what it likes

class Only:
    @staticmethod
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        if top in {allowed} or top in sys.stdlib_module_names or top in sys.modules:
            return None
        raise ModuleNotFoundError("not installed by the hook: " + name)

sys.meta_path.insert(0, Only)
sys.path.insert(0, {root!r})
from training_losses.migration.__main__ import main
code = main(["codemod", *sys.argv[1:]])
assert not {{"torch", "numpy"}} & set(sys.modules)
sys.exit(code)
"""


def git(folder: Path, *arguments: str) -> str:
    given = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(folder), *arguments]
    return subprocess.run(given, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_the_hooks_pass_on_a_clean_clone_and_change_nothing(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(ROOT), str(clone))
    for name in (".pre-commit-config.yaml", "pyproject.toml"):
        (clone / name).write_bytes((ROOT / name).read_bytes())
    git(clone, "commit", "-q", "--allow-empty", "--no-verify", "-am", "configuration of the working tree")
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "PRE_COMMIT_HOME": str(tmp_path / "store"),
        "PYTHONPATH": str(clone / "tools" / "checkout"),  # the clone, not what is installed
        # types and duplication are sessions of nox, and the second needs Node.js
        "SKIP": "mypy,duplication",
    }
    run = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
    done = subprocess.run(run, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Passed") == 3
    assert git(clone, "status", "--porcelain") == ""


def closure(names: tuple[str, ...]) -> set[str]:
    """``names`` and what they depend on in this interpreter, as far as it is installed."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        try:
            requires = [Requirement(text) for text in distribution(name).requires or []]
        except PackageNotFoundError:
            continue
        if name.lower().replace("_", "-") in found:
            continue
        found.add(name.lower().replace("_", "-"))
        todo += [r.name for r in requires if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.mark.parametrize("hook", HOOKS, ids=[hook["id"] for hook in HOOKS])
def test_downstream_hooks_name_all_that_the_codemod_needs_and_no_torch(hook: dict[str, list[str]]) -> None:
    first, *listed = hook["additional_dependencies"]
    assert first == "--no-deps", "or pip installs torch"
    requirements = [Requirement(text) for text in listed]
    names = {r.name.lower().replace("_", "-") for r in requirements if r.marker is None or r.marker.evaluate()}
    assert closure(CODEMOD) <= names
    assert not names & {"torch", "numpy", "scipy"}


@pytest.mark.slow
def test_the_codemod_runs_with_what_the_hooks_install(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "from src.training.losses.clip_style_loss import CLIPStyleLoss\nx = CLIPStyleLoss()\n"
    )
    (tmp_path / "loss.yaml").write_text("loss:\n  type: combined\n  vicreg_weight: 1e-1\n")
    modules = "libcst, libcst.matchers, libcst.metadata, pathspec, rich.console, ruamel.yaml, yaml"
    allowed = {"migration", "deprecation", "packaging", "libcst", "pathspec", "rich", "ruamel", "yaml", "tomli"}
    allowed |= {"markdown_it", "mdurl", "pygments", "typing_extensions", "training_losses"}
    script = ONLY.format(modules=modules, allowed=sorted(allowed), root=str(ROOT / "tools" / "checkout"))
    run = [sys.executable, "-c", script, str(tmp_path), "--write", "--force"]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CLIPLoss(" in (tmp_path / "train.py").read_text()
