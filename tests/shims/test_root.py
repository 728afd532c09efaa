"""The import root, from an installed wheel and from the checkout, beside a repository that owns the names of 1.0."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAYS = ("wheel", "checkout")
SITE = {"wheel": "", "checkout": str(ROOT / "tools" / "checkout")}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of an environment that has the wheel, and the dependencies of this one."""
    build = pytest.importorskip("hatchling.build")
    folder = tmp_path_factory.mktemp("wheel")
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        name = build.build_wheel(str(folder))
    finally:
        os.chdir(before)
    made = folder / "environment"
    venv.EnvBuilder(symlinks=os.name != "nt").create(made)
    bases = {name: str(made) for name in ("base", "platbase", "installed_base", "installed_platbase")}
    scheme = "venv" if "venv" in sysconfig.get_scheme_names() else sysconfig.get_default_scheme()
    places = sysconfig.get_paths(scheme, vars=bases)
    site = Path(places["purelib"])
    with zipfile.ZipFile(folder / name) as archive:
        archive.extractall(site)
        tops = {entry.partition("/")[0] for entry in archive.namelist()}
    assert {top for top in tops if "dist-info" not in top} == {"training_losses", "training_losses_shims.pth"}
    # named in a .pth file, other site-packages are on the path, and the .pth files in them do not count
    others = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "others.pth").write_text("\n".join(others))
    return Path(places["scripts"]) / ("python.exe" if os.name == "nt" else "python")


class Python:
    """Runs scripts with the package, one way or the other."""

    def __init__(self, way: str, executable: Path, folder: Path) -> None:
        self.way, self.executable, self.folder = way, executable, folder

    def __call__(self, *arguments: str, code: int = 0) -> str:
        env = {
            k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONWARNINGS", "TRAINING_LOSSES_SHIMS")
        }
        env |= {"PYTHONPATH": SITE[self.way], "OMP_NUM_THREADS": "1"}
        command = [str(self.executable), "-W", "ignore", *arguments]
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout

    def code(self, text: str) -> str:
        return self("-c", textwrap.dedent(text)).strip()


@pytest.fixture(params=WAYS)
def python(request: pytest.FixtureRequest, tmp_path: Path) -> Python:
    executable = request.getfixturevalue("wheel") if request.param == "wheel" else Path(sys.executable)
    return Python(request.param, executable, tmp_path)


OWN = {
    "training/__init__.py": "OWN = True\n",
    "training/losses.py": "def own(): return 'mine'\n",
    "legacy/__init__.py": "",
    "legacy/losses.py": "OWN = True\n",
    "legacy/clip_style_loss.py": "class CLIPStyleLoss: own = True\n",
    "migration/__init__.py": "",
    "migration/state.py": "OWN = True\n",
    "src/__init__.py": "OWN = True\n",
    "losses/__init__.py": "OWN = True\n",
    "utils/__init__.py": "OWN = True\n",
    "tests_of_it.py": """\
def test_old():
    from src.training.losses.clip_style_loss import CLIPStyleLoss
    import migration.state

    assert migration.state.OWN
    assert CLIPStyleLoss.__module__ == 'training_losses.legacy.clip_style_loss'
""",
    "train.py": """\
import json, multiprocessing, pickle
import torch
import legacy.clip_style_loss, legacy.losses, losses, migration.state, src, utils
from training.losses import own
from src.training.losses.clip_style_loss import CLIPStyleLoss
from src.training.losses.memory_queue_contrastive_loss import MemoryQueueContrastiveLoss

assert own() == "mine" and legacy.clip_style_loss.CLIPStyleLoss.own
assert legacy.losses.OWN and losses.OWN and migration.state.OWN and src.OWN and utils.OWN


def of_a_child(loss):
    torch.manual_seed(0)
    a, b = torch.randn(2, 6, 4)
    return float(loss(a, b)["loss"])


if __name__ == "__main__":
    loss = CLIPStyleLoss(temperature=0.1)
    torch.manual_seed(0)
    a, b = torch.randn(2, 6, 4)
    result = loss(a, b)
    queue = MemoryQueueContrastiveLoss(dim=4, queue_size=8)
    queue(a, b, list("abcdef"))
    torch.save(queue.state_dict(), "state.pt")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        child = pool.apply(of_a_child, (pickle.loads(pickle.dumps(loss)),))
    print(json.dumps([float(result["loss"]), float(result["v2t_loss"]), child, sorted(queue.state_dict())]))
""",
}


def own_names(folder: Path) -> None:
    for name, text in OWN.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def test_a_repository_with_the_same_names(python: Python) -> None:
    """It runs through the shims, is migrated, runs with the same numbers; old keys and states are answered."""
    own_names(python.folder)
    old = json.loads(python("-m", "training_losses", "run", "train.py"))
    (python.folder / "state.pt").rename(python.folder / "old.pt")
    python(
        "-m",
        "pytest",
        "-q",
        "-p",
        "training_losses.migration.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "tests_of_it.py",
    )
    python("-m", "training_losses", "codemod", "--force", "--write", ".")
    text = (python.folder / "train.py").read_text()
    assert "from training_losses.contrastive.clip_loss import CLIPLoss" in text
    assert "from training.losses import own" in text
    new = json.loads(python("train.py"))
    assert new[:3] == pytest.approx(old[:3], rel=1e-6)
    assert (old[3], new[3]) != (new[3], old[3]), "the states have other keys"
    served = python.code("""
        import sys, torch
        from training_losses.contrastive.moco_loss import MemoryQueueLoss
        old = torch.load("old.pt", weights_only=True)
        loss = MemoryQueueLoss(embed_dim=4, queue_size=8)
        assert not set(old) <= set(loss.state_dict())
        loss.load_state_dict(old)
        print("migration" in sys.modules)
    """)
    assert served == "False", "the repository has a package of that name"


def test_names_of_version_1(python: Python) -> None:
    """The same objects; the package training.losses is its own; what nobody asked for is not served."""
    found = python.code("""
        import sys
        def missing(name):
            try:
                __import__(name)
            except ImportError:
                return True
        assert missing("losses") and missing("utils") and missing("training") and missing("training.trainer")
        import training_losses
        assert "torch" not in sys.modules and "training_losses._public" not in sys.modules
        assert missing("losses") and missing("src") and missing("utils.loss_functions") and missing("training")
        import training.losses, training.losses.contrastive.clip_loss as by_old_name
        assert missing("losses") and missing("src.training.losses") and missing("training.losses.nothing")
        import training_losses.contrastive.clip_loss as by_new_name
        assert by_old_name is by_new_name and by_new_name.__spec__.name == by_new_name.__name__
        assert training.losses.CLIPLoss is training_losses.CLIPLoss is by_new_name.CLIPLoss
        assert training.losses.VICRegLoss.__module__ == "training_losses.legacy.vicreg_loss"
        assert training_losses.VICRegLoss.__module__ == "training_losses.contrastive.vicreg"
        assert "VICRegLoss" not in training.losses.__all__ and "VICRegLoss" in training_losses.__all__
        import migration.codemod.rules, legacy.vicreg_loss, training_losses.legacy.vicreg_loss
        assert migration.codemod.rules is sys.modules["training_losses.migration.codemod.rules"]
        assert migration is training_losses.migration and legacy is training_losses.legacy
        assert legacy.vicreg_loss is training_losses.legacy.vicreg_loss
        from training.losses.clip_style_loss import CLIPStyleLoss
        assert CLIPStyleLoss.__module__ == "training_losses.legacy.clip_style_loss"
        copies = {}
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and ("training_losses" in module.__name__ or name.partition(".")[0] in ("training", "legacy")):
                copies.setdefault(file, set()).add(id(module))
        assert all(len(ids) == 1 for ids in copies.values()), copies
        print("fine")
    """)
    assert found == "fine"


PICKLES = b"".join(
    f"c{module}\n{name}\n0".encode()
    for module, name in (
        ("training.losses.contrastive.clip_loss", "CLIPLoss"),
        ("training.losses.base.output", "LossOutput"),
        ("legacy.vicreg_loss", "VICRegLoss"),
        ("migration.catalog.model", "Catalog"),
    )
)


def test_pickles_and_commands_of_version_1(python: Python) -> None:
    (python.folder / "old.pkl").write_bytes(PICKLES + b"ctraining.losses.contrastive.clip_loss\nCLIPLoss\n.")
    script = "import pickle; print(pickle.load(open('old.pkl', 'rb')).__module__)"
    assert python("-c", script).strip() == "training_losses.contrastive.clip_loss"
    if python.way == "wheel":  # a checkout that is not installed has no .pth file that runs at the start
        assert "0 problems" in python("-m", "migration", "catalog", "check")
    assert "0 problems" in python("-m", "training_losses", "catalog", "check")


def test_a_made_up_parent_gives_way(python: Python) -> None:
    """A package that appears on the path later is found, with its __init__ and its modules."""
    for folder, module in (("lib/utils", "helpers"), ("lib/src/training", "trainer"), ("lib/training", "own")):
        (python.folder / folder).mkdir(parents=True)
        (python.folder / folder / "__init__.py").write_text("TOP = __name__\n")
        (python.folder / folder / f"{module}.py").write_text("X = __name__\n")
    found = python.code("""
        import sys
        import training.losses
        from training_losses.migration import shims
        shims.install()
        from utils.loss_functions import GTCC_loss
        from src.training.losses import VICRegLoss
        try:
            from utils import TOP
        except ImportError:
            sys.path.insert(0, "lib")
        from utils.helpers import X
        from src.training.trainer import X as Y
        from training.own import X as Z
        from utils import TOP
        from training import TOP as OTHER
        from src.training.losses import ContrastiveLoss
        print(X, Y, Z, TOP, OTHER, ContrastiveLoss.__module__)
    """)
    assert (
        found
        == "utils.helpers src.training.trainer training.own utils training training_losses.legacy.contrastive_loss"
    )


USER = """\
from training_losses import CLIPLoss, LossRegistry, VICRegLoss, create_loss
from training_losses.migration.shims import install

loss: CLIPLoss = CLIPLoss(temperature=0.1)
names: list[str] = LossRegistry.available()
vicreg: VICRegLoss = VICRegLoss()
create_loss("clip").train()
install()
"""
WRONG = "from training_losses import CLIPLoss, NoSuchLoss\n\nnumber: int = CLIPLoss(temperature=0.1)\n"


@pytest.mark.slow
def test_types_of_the_wheel(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(wheel), "user.py", "wrong.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert 'has no attribute "NoSuchLoss"' in done.stdout
    assert "Incompatible types in assignment" in done.stdout
    assert "Found 2 errors in 1 file (checked 2 source files)" in done.stdout
    for checker in ("pyright", "basedpyright"):
        if subprocess.run([sys.executable, "-c", f"import {checker}"], capture_output=True, check=False).returncode:
            continue
        command = [sys.executable, "-m", checker, "--level", "error", "--pythonpath", str(wheel)]
        assert subprocess.run([*command, "user.py"], cwd=tmp_path, capture_output=True, check=False).returncode == 0
        assert subprocess.run([*command, "wrong.py"], cwd=tmp_path, capture_output=True, check=False).returncode == 1


def test_pickles_hold_the_root() -> None:
    from training_losses import CLIPLoss

    assert b"training_losses.contrastive.clip_loss" in pickle.dumps(CLIPLoss())
