"""The import finder: every form of import, in every place where it has to work.

Each script runs in a fresh interpreter and prints its deprecation warnings as JSON, one line each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from training_losses.migration import shims
from training_losses.migration.catalog import builtin_catalog

ROOT = Path(__file__).resolve().parents[2]
HEADER = """\
import json, sys, warnings
def show(message, category, filename, lineno, file=None, line=None):
    print(json.dumps([category.__name__, filename, lineno, str(message)]))
warnings.showwarning = show
warnings.simplefilter("always", DeprecationWarning)
"""


def run(code: str, folder: Path, *, path: list[Path], environment: dict[str, str] | None = None) -> list[Any]:
    """Run ``code`` (its first line is line 6 of the script); the JSON lines that it prints."""
    script = folder / "script.py"
    script.write_text(HEADER + textwrap.dedent(code), encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", shims.ENVIRONMENT, "PYTHONWARNINGS")}
    env |= {"PYTHONPATH": os.pathsep.join(map(str, path)), **(environment or {})}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


INSTALLED = [ROOT / "src", ROOT]
"""What an installed wheel looks like: ``training``, ``legacy`` and ``migration`` can be imported."""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with its own ``src`` package, which still has a ``training`` part, but no losses."""
    (tmp_path / "src" / "training").mkdir(parents=True)
    for folder in ("src", "src/training"):
        (tmp_path / folder / "__init__.py").write_text("OWN = True\n")
    (tmp_path / "src" / "training" / "trainer.py").write_text(
        "from src.training.losses.vicreg_loss import VICRegLoss\nfrom .losses import ContrastiveLoss\n"
    )
    return tmp_path


def installed_wheel(project: Path) -> list[Path]:
    """The root of this repository is not on the path."""
    return [project, ROOT / "tools" / "checkout"]


FORMS = """\
from src.training.losses.clip_style_loss import CLIPStyleLoss
from training.losses.clip_style_loss import CLIPStyleLoss as B
from src.training.loss.clip_style_loss import CLIPStyleLoss as C
from src.training.losses import ContrastiveLoss, VICRegLoss
import src.training.loss.vicreg_loss
from src.training.losses import vicreg_loss
from training.losses import ContrastiveLoss as D
import importlib; m = importlib.import_module("src.training.losses.vicreg_loss")
import training.losses as package; package.VICRegLoss
from src.training import ContrastiveLoss as E
from src.training.losses import *
import legacy.vicreg_loss
def lazy():
    from training.losses.vicreg_loss import VICRegLoss
lazy(); lazy()
assert CLIPStyleLoss is B is C
assert ContrastiveLoss is D is E
warnings.simplefilter("ignore")
assert vicreg_loss is m is src.training.loss.vicreg_loss is legacy.vicreg_loss is sys.modules["legacy.vicreg_loss"]
assert VICRegLoss is m.VICRegLoss
"""


def check_forms(lines: list[Any], script: Path) -> None:
    """One warning per importing statement, at its line, with old path, new path, version and command."""
    assert [(kind, file) for kind, file, *_ in lines] == [("DeprecatedWarning", str(script))] * len(lines)
    assert [line - 5 for _, _, line, _ in lines] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 14]
    texts = [text for *_, text in lines]
    assert texts[0].startswith(
        "src.training.losses.clip_style_loss.CLIPStyleLoss is deprecated as of 1.0.0 and will be"
    )
    assert "removed in 2.0.0" in texts[0]
    assert "training_losses.contrastive.clip_loss.CLIPLoss" in texts[0]
    assert "`python -m training_losses codemod --write PATH`" in texts[0]
    assert texts[1].startswith("training.losses.clip_style_loss.CLIPStyleLoss ")
    assert texts[2].startswith("src.training.loss.clip_style_loss.CLIPStyleLoss ")
    assert texts[3].startswith("src.training.losses.ContrastiveLoss, src.training.losses.VICRegLoss ")
    assert texts[4].startswith("src.training.loss.vicreg_loss ")
    assert texts[9].startswith(("src.training.ContrastiveLoss ", "src.training.losses.ContrastiveLoss "))


def test_inside_this_repository_with_only_its_root_on_the_path(tmp_path: Path) -> None:
    check_forms(run(FORMS, tmp_path, path=[ROOT]), tmp_path / "script.py")


def test_from_a_wheel_in_a_project_with_its_own_src(project: Path) -> None:
    path = installed_wheel(project)
    # src.training is the project's own here, so the old re-export one level up is its own affair
    forms = FORMS.replace("from src.training import", "from src.training.losses import")
    lines = run("import migration.shims; migration.shims.install()\n" + forms, project, path=path)
    check_forms([[kind, file, line - 1, text] for kind, file, line, text in lines], project / "script.py")
    code = """\
    import migration.shims; migration.shims.install()
    import src.training.trainer
    trainer = src.training.trainer
    assert src.OWN and src.training.OWN
    print(json.dumps([trainer.VICRegLoss.__module__, trainer.ContrastiveLoss.__module__]))
    """
    lines = run(code, project, path=path)
    own = str(project / "src" / "training" / "trainer.py")
    assert [line[1:3] for line in lines[:-1]] == [[own, 1], [own, 2]]
    assert lines[-1] == ["training_losses.legacy.vicreg_loss", "training_losses.legacy.contrastive_loss"]


def test_the_environment_variable_reaches_subprocesses(project: Path) -> None:
    # the .pth file of the wheel does at start-up what this line does
    (project / "sitecustomize.py").write_text((ROOT / "migration" / "training_losses_shims.pth").read_text())
    code = "from src.training.losses.clip_style_loss import CLIPStyleLoss\n"
    on = run(code, project, path=installed_wheel(project), environment={shims.ENVIRONMENT: "1"})
    assert len(on) == 1
    with pytest.raises(AssertionError, match="ModuleNotFoundError"):
        run(code, project, path=installed_wheel(project))


def test_a_project_that_still_has_the_old_files_keeps_them(project: Path) -> None:
    (project / "src" / "training" / "losses").mkdir()
    (project / "src" / "training" / "losses" / "__init__.py").write_text("")
    (project / "src" / "training" / "losses" / "clip_style_loss.py").write_text("class CLIPStyleLoss: mine = True\n")
    code = """\
    import migration.shims; migration.shims.install()
    from src.training.losses.clip_style_loss import CLIPStyleLoss
    print(json.dumps(CLIPStyleLoss.mine))
    """
    assert run(code, project, path=installed_wheel(project)) == [True]


def test_new_names_are_one_object_under_both_spellings(tmp_path: Path) -> None:
    code = """\
    from src.training.losses.base import LossOutput as A
    from src.training.losses.base.output import LossOutput as B
    from src.training.losses.contrastive.clip_loss import CLIPLoss as C
    from src.training.losses import LossRegistry as D, CLIPLoss as E
    from training.losses.base import LossOutput
    from training.losses.contrastive.clip_loss import CLIPLoss
    from training.losses import LossRegistry
    assert A is B is LossOutput and C is E is CLIPLoss and D is LossRegistry
    import src.training.losses.contrastive as package
    package.marker = 1
    import training.losses.contrastive
    assert training.losses.contrastive.marker == 1 and "marker" in dir(package)
    """
    assert run(code, tmp_path, path=[ROOT]) == []


def test_names_that_never_were_are_import_errors(tmp_path: Path) -> None:
    code = """\
    for statement in ("import utils", "import src.training.losses.nope", "from src.training.losses import Nope",
                      "from training.losses import Nope", "import src.nope", "import external_util"):
        try:
            exec(statement)
        except ImportError:
            continue
        raise SystemExit(statement)
    """
    assert run(code, tmp_path, path=[ROOT, ROOT / "src"]) == []


def test_only_old_spellings_of_missing_parents_are_made_up(tmp_path: Path) -> None:
    code = """\
    import migration.shims; migration.shims.install()
    from utils import loss_functions
    import external_util.softdtw
    import dynvision.losses, triangulate_ai.loss, losses.vicreg
    """
    lines = run(code, tmp_path, path=INSTALLED)
    assert {line for _, _, line, _ in lines} >= {7, 8}


def test_sub_modules_warn_at_every_import_and_not_where_they_are_used(tmp_path: Path) -> None:
    code = """\
    import src.training.losses.vicreg_loss
    from src.training.losses import vicreg_loss
    from training.losses import vicreg_loss as b
    import training.losses.vicreg_loss as c
    from training.losses import vicreg_loss as d, clip_style_loss as e
    src.training.losses.vicreg_loss.VICRegLoss
    training = __import__("sys").modules["training"]
    training.losses.vicreg_loss.VICRegLoss
    assert vicreg_loss is b is c is d is src.training.losses.vicreg_loss
    """
    lines = run(code, tmp_path, path=[ROOT])
    assert [line - 5 for _, _, line, _ in lines] == [1, 2, 3, 4, 5], lines


def test_pickles_and_checkpoints_saved_under_the_old_path(tmp_path: Path) -> None:
    code = """\
    import io, pickle, torch
    from legacy.vicreg_loss import VICRegLoss
    warnings.simplefilter("ignore")
    loss = VICRegLoss(sim_coeff=3.0)
    data = pickle.dumps(loss).replace(b"training_losses.legacy.vicreg_loss", b"src.training.losses.vicreg_loss")
    length = data.index(b"src.training.losses.vicreg_loss") - 1
    data = data[:length] + bytes([len(b"src.training.losses.vicreg_loss")]) + data[length + 1:]
    data = data[:3] + (len(data) - 11).to_bytes(8, "little") + data[11:]
    assert b"legacy" not in data
    warnings.simplefilter("always")
    again = pickle.loads(data)
    assert type(again) is VICRegLoss and again.sim_coeff == 3.0
    """
    lines = run(code, tmp_path, path=[ROOT])
    assert lines[-1][2] == 16, lines
    assert "src.training.losses.vicreg_loss" in lines[-1][3]


def test_plain_tools_do_not_warn(tmp_path: Path) -> None:
    code = """\
    from src.training.losses.vicreg_loss import VICRegLoss
    import inspect, importlib.util
    inspect.getmodule(VICRegLoss); inspect.getsource(VICRegLoss)
    importlib.util.find_spec("legacy.vicreg_loss")
    vars(sys.modules["training_losses.legacy.vicreg_loss"])
    """
    assert len(run(code, tmp_path, path=[ROOT])) == 1


def test_no_notebook_cell_gets_the_address_of_the_one_before(tmp_path: Path) -> None:
    """Statements are told apart by the addresses of their code, and a cell is freed after it ran."""
    code = """\
    import weakref
    cell = compile("from src.training.losses import VICRegLoss", "cell", "exec")
    alive = weakref.ref(cell)
    exec(cell, {})
    del cell
    assert alive() is not None
    """
    assert len(run(code, tmp_path, path=[ROOT])) == 1


def test_imports_and_patches_on_behalf_of_the_user(tmp_path: Path) -> None:
    code = """\
    import src.training.losses, importlib
    from unittest import mock
    importlib.import_module(".vicreg_loss", "src.training.losses")
    importlib.import_module(".vicreg_loss", "src.training.losses")
    mock.patch("src.training.losses.ContrastiveLoss").start()
    from src.training.losses import ContrastiveLoss
    assert isinstance(ContrastiveLoss, mock.MagicMock)
    """
    lines = run(code, tmp_path, path=[ROOT])
    # before 3.11, import_module does not look at a module that is loaded
    expected = [3, 4, 5] if sys.version_info >= (3, 11) else [3, 5]
    assert [line - 5 for _, _, line, _ in lines] == expected
    assert {file for _, file, *_ in lines} == {str(tmp_path / "script.py")}
    assert [text.partition(" is ")[0] for *_, text in lines] == [
        *["src.training.losses.vicreg_loss"] * (len(expected) - 1),
        "src.training.losses.ContrastiveLoss",
    ]


def test_importing_the_losses_reads_no_catalog(tmp_path: Path) -> None:
    code = """\
    import training.losses, training_losses
    print(json.dumps(sorted(m for m in sys.modules if m.startswith(("legacy", "training_losses.")))))
    from migration.catalog import builtin_catalog
    assert builtin_catalog.cache_info().currsize == 0
    """
    (modules,) = run(code, tmp_path, path=INSTALLED)
    assert not [m for m in modules if m.startswith(("legacy", "training_losses.legacy", "training_losses.contrastive"))]


def test_install_is_explicit_and_idempotent() -> None:
    before = list(sys.meta_path)
    shims.install()
    shims.install()
    assert sys.meta_path.count(shims.ShimFinder) == 1
    assert shims.installed()
    shims.uninstall()
    assert not shims.installed()
    shims.uninstall()
    sys.meta_path[:] = before


def test_every_old_root_passes_the_first_gate() -> None:
    catalog = builtin_catalog()
    roots = {path.partition(".")[0] for path in (*catalog.modules, *catalog.packages)}
    assert roots <= set(shims._FIRST)


def test_run_command(project: Path) -> None:
    (project / "train.py").write_text(
        "import sys\nfrom src.training.losses.clip_style_loss import CLIPStyleLoss\n"
        "print(sys.argv, CLIPStyleLoss.__name__)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, installed_wheel(project)))}
    env.pop("PYTHONWARNINGS", None)
    command = [sys.executable, "-m", "migration", "run", "train.py", "--epochs", "2"]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "['train.py', '--epochs', '2'] CLIPStyleLoss", done.stderr
    assert "train.py:2: DeprecatedWarning" in done.stderr
    command[4] = "nope.py"
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: SCRIPT 'nope.py' does not exist or is no file\n"


def test_pytest_plugin(project: Path) -> None:
    (project / "test_old.py").write_text(
        "import pytest\n"
        "def test_old():\n"
        "    with pytest.warns(DeprecationWarning) as caught:\n"
        "        from src.training.losses import ContrastiveLoss\n"
        "    assert (caught[0].filename, caught[0].lineno) == (__file__, 4)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, installed_wheel(project)))}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "migration.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "test_old.py",
    ]
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
