"""Who may import whom, and the house rules that a reader of the code relies on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOSSES = ROOT / "src" / "training" / "losses"
FAMILIES = ("contrastive", "multimodal", "supervised", "alignment", "predictive", "temporal", "perceptual", "balancing")
COMPOSING = ("multimodal", "predictive", "balancing")


def imports(path: Path, root: Path) -> Iterator[str]:
    """Absolute names of all modules that a file imports anywhere; under TYPE_CHECKING, too."""
    package = ["training_losses"] if root == LOSSES else ["training_losses", root.name]
    package += path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield ".".join([*base, *filter(None, [node.module])])


def files(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.py"))
    assert found, folder
    return found


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def ours(name: str) -> bool:
    return name.split(".")[0] in ("training_losses", "training", "legacy", "migration")


def allowed(name: str, *roots: str) -> bool:
    return not ours(name) or any(name == root or name.startswith(f"{root}.") for root in roots)


@pytest.mark.parametrize("path", files(LOSSES / "functional"), ids=lambda p: p.name)
def test_functional_imports_torch_only(path: Path) -> None:
    for name in imports(path, LOSSES):
        assert allowed(name, "training_losses.functional"), name
        top = name.split(".")[0]
        assert ours(name) or top in (
            "torch",
            "__future__",
            "collections",
            "functools",
            "hashlib",
            "math",
            "numbers",
            "typing",
        ), name


@pytest.mark.parametrize("path", files(LOSSES / "base"), ids=lambda p: p.name)
def test_base_imports_functional(path: Path) -> None:
    for name in imports(path, LOSSES):
        assert allowed(name, "training_losses.base", "training_losses.functional"), name


@pytest.mark.parametrize(
    "path", [p for f in FAMILIES for p in files(LOSSES / f)], ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_families_stand_on_base_and_functional(path: Path) -> None:
    family = path.relative_to(LOSSES).parts[0]
    below = ["base", "functional", "loss_registry", family, *(FAMILIES if family in COMPOSING else ())]
    for name in imports(path, LOSSES):
        assert allowed(name, *(f"training_losses.{part}" for part in below)), name


def test_the_registry_is_below_the_families() -> None:
    names = [name for name in imports(LOSSES / "loss_registry.py", LOSSES) if ours(name)]
    assert names == ["training_losses._public"]
    assert not [name for name in imports(LOSSES / "_public.py", LOSSES) if ours(name)]


@pytest.mark.parametrize("path", files(LOSSES), ids=lambda p: str(p.relative_to(LOSSES)))
def test_one_bridge_to_the_old_world(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name != "compat.py":
        assert not [
            name
            for name in imports(path, LOSSES)
            if name.startswith(("training_losses.migration", "training_losses.legacy"))
        ]
        assert 'import_module("training_losses.migration' not in text


@pytest.mark.parametrize("path", files(ROOT / "legacy"), ids=lambda p: str(p.relative_to(ROOT / "legacy")))
def test_twins_import_the_warning_helper_and_nothing_else_of_ours(path: Path) -> None:
    for name in imports(path, ROOT / "legacy"):
        assert allowed(name, "training_losses.legacy", "training_losses.migration.deprecation") or name.startswith(
            "src.training.loss"
        ), name


WITHOUT_TORCH = [
    "__init__",
    "bridge",
    "deprecation",
    "pytest_plugin",
    "shims",
    "translate",
    "demo",
    "__main__",
]


@pytest.mark.parametrize(
    "path",
    [ROOT / "migration" / f"{name}.py" for name in WITHOUT_TORCH]
    + [ROOT / "migration" / "catalog" / "model.py", ROOT / "migration" / "catalog" / "__init__.py"]
    + files(ROOT / "migration" / "codemod"),
    ids=lambda p: str(p.relative_to(ROOT / "migration")),
)
def test_catalog_shims_and_codemod_import_no_torch_and_no_losses(path: Path) -> None:
    for name in imports(path, ROOT / "migration"):
        assert name.split(".")[0] != "torch", name
        assert allowed(name, "training_losses.migration"), name


def called(node: ast.AST) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


@pytest.mark.parametrize("path", files(ROOT / "src"), ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_no_printing_no_synchronisation_no_global_random_state(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        call = called(node)
        where = f"{path.name}:{getattr(node, 'lineno', 0)}: {call}"
        assert call not in ("print", "torch.manual_seed", "np.random.seed", "random.seed"), where
        assert not call.endswith((".item", ".cuda", ".empty_cache")), where
        assert not isinstance(node, ast.Assert), where
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), where


def public_callables(tree: ast.Module, methods: bool) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if methods and isinstance(node, ast.ClassDef):
                yield from (
                    inner
                    for inner in node.body
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_")
                )


@pytest.mark.parametrize(
    "path", [*files(ROOT / "src"), *files(ROOT / "migration")], ids=lambda p: str(p.relative_to(ROOT))
)
def test_everything_public_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not tree.body or ast.get_docstring(tree), "module docstring"
    for node in public_callables(tree, methods=path.is_relative_to(ROOT / "src")):
        if any(ast.unparse(d).endswith(("overload", "setter")) for d in node.decorator_list):
            continue
        assert ast.get_docstring(node), f"{path.name}:{node.lineno}: {node.name}"


def test_no_machine_paths_or_names() -> None:
    """Tracked text names no absolute path of a machine."""
    import re
    import subprocess

    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail("git ls-files failed: the tests run in a clone")
    pattern = re.compile("/" + "(?:root|home|work|farm)/" + r"[a-z]")
    for name in filter(None, done.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in (".npz", ".png") or not path.is_file():
            continue
        found = pattern.search(path.read_text(encoding="utf-8", errors="ignore"))
        assert not found, f"{name}: {found.group(0) if found else ''}"
