"""How many lines the successors of the 19 multimodal loss files take, with their share of what all losses share.

    python tools/count_lines.py

Lines are those of code and docstrings: neither blank nor only a comment. Every module of the families counts whole. A
module that other losses use as well (``base``, ``functional``, ``balancing/terms.py``) counts by its share, rounded up:
the registered losses of the families that reach it through imports, divided by all registered losses that reach it.

Prints a table, and the sum with every shared module that the families reach counted whole. Exit 1 above the limit.
"""

from __future__ import annotations

import ast
import math
import sys
from pathlib import Path

LIMIT = 2500
ROOT = Path(__file__).resolve().parents[1] / "src" / "training" / "losses"
FAMILIES = (
    *("contrastive/", "multimodal/", "supervised/", "balancing/multitask.py", "balancing/weighted_sum.py"),
    "base/momentum.py",  # the momentum encoder of MoCo
)
NEW = ("contrastive/cross_modal_vicreg.py", "contrastive/dcl.py")  # have no old class
SHARED = ("base/", "functional/", "balancing/terms.py")


def lines(path: Path) -> int:
    """Lines of code and docstrings."""
    stripped = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return sum(bool(line) and not line.startswith("#") for line in stripped)


def imports(path: Path) -> list[tuple[Path, str]]:
    """Module and name of each relative import, also of those inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            for alias in node.names:
                found.append((base / alias.name if (base / f"{alias.name}.py").exists() else base, alias.name))
    return found


def definition(target: Path, name: str) -> Path:
    """The file that defines ``name``, looked up through the re-exports of packages."""
    if not target.is_dir():
        return target.with_suffix(".py")
    inner = {n: t for t, n in imports(target / "__init__.py")}
    return definition(inner[name], name) if name in inner else target / "__init__.py"


def reached(path: Path, seen: set[Path]) -> set[Path]:
    """``path`` and every module that it imports, directly or not."""
    if path not in seen:
        seen.add(path)
        for target, name in imports(path):
            reached(definition(target, name), seen)
    return seen


def registered(path: Path) -> int:
    """Number of losses that a module registers."""
    classes = (node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ClassDef))
    return sum("LossRegistry.register" in ast.unparse(d) for node in classes for d in node.decorator_list)


def main() -> int:
    """Print the table; 1 above the limit."""
    modules = sorted(ROOT.rglob("*.py"))
    local = {path: path.relative_to(ROOT).as_posix() for path in modules}
    own = [path for path in modules if local[path].startswith(FAMILIES) and local[path] not in NEW]
    reach = {path: reached(path, set()) for path in modules if registered(path)}
    total = strict = 0
    print("| module | lines | share | counted |\n|---|---:|---:|---:|")
    for path in [*own, *(p for p in modules if local[p].startswith(SHARED) and p not in own)]:
        count = counted = lines(path)
        share = "all"
        if path not in own:
            users = [user for user in reach if path in reach[user]]
            everyone, ours = sum(map(registered, users)), sum(registered(user) for user in users if user in own)
            if not ours:
                continue
            counted, share = math.ceil(count * ours / everyone), f"{ours} of {everyone}"
        strict += count
        total += counted
        print(f"| `{local[path]}` | {count} | {share} | {counted} |")
    print(f"| sum | {strict} | | {total} |\n")
    print(f"{total} lines (limit {LIMIT}); {strict} with every shared module whole")
    return int(total > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
