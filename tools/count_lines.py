"""How many lines the successors of the 19 multimodal loss files take, with their share of what all losses share.

    python tools/count_lines.py

Lines are those of code and docstrings: neither blank nor only a comment. Every module of the families counts whole,
without the losses that the catalog names as the successor of nothing in the 19 files (their lines are listed below the
table). A module that other losses use as well (``base``, ``functional``, ``balancing/terms.py``) counts by its share,
rounded up: the registered successors that reach it through imports, divided by all registered losses that reach it.
What a tool writes from the catalog (``base/old_members.py``) is data and does not count.

Prints a table, and the sum with every shared module that the families reach counted whole. Exit 1 at the limit.
"""

from __future__ import annotations

import ast
import math
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "tools" / "checkout"))

from training_losses.migration.catalog import builtin_catalog  # noqa: E402 (path above)

LIMIT = 3000
ROOT = REPOSITORY / "src" / "training" / "losses"
FAMILIES = (
    *("contrastive/", "multimodal/", "supervised/", "balancing/multitask.py", "balancing/weighted_sum.py"),
    "base/momentum.py",  # the momentum encoder of MoCo
)
WRITTEN = ("base/old_members.py",)
SHARED = ("base/", "functional/", "balancing/terms.py")


def counts(line: str) -> bool:
    """Whether a line is one of code or docstring."""
    return bool(line.strip()) and not line.strip().startswith("#")


def lines(path: Path) -> int:
    """Lines of code and docstrings."""
    return sum(map(counts, path.read_text(encoding="utf-8").splitlines()))


def successors() -> set[str]:
    """Dotted names of everything that replaces something in the 19 files."""
    symbols = (symbol for symbol in builtin_catalog().symbols if symbol.system == "multimodal_insight")
    return {case.new for symbol in symbols for case in symbol.cases if case.new is not None}


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
    """``path``, every module that it imports, directly or not, and the packages that these names come through."""
    if path not in seen:
        seen.add(path)
        for target, name in imports(path):
            if target.is_dir():
                seen.add(target / "__init__.py")
            reached(definition(target, name), seen)
    return seen


def losses(path: Path) -> dict[str, int]:
    """Dotted name of each loss that a module registers -> its lines."""
    text = path.read_text(encoding="utf-8").splitlines()
    module = ".".join(("training_losses", *path.relative_to(ROOT).with_suffix("").parts))
    found = {}
    for node in ast.parse("\n".join(text)).body:
        if isinstance(node, ast.ClassDef) and any("LossRegistry" in ast.unparse(d) for d in node.decorator_list):
            first = min(decorator.lineno for decorator in node.decorator_list)
            found[f"{module}.{node.name}"] = sum(map(counts, text[first - 1 : node.end_lineno]))
    return found


def main() -> int:
    """Print the table; 1 unless the sum is under the limit."""
    modules = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).as_posix() not in WRITTEN)
    local = {path: path.relative_to(ROOT).as_posix() for path in modules}
    wanted = successors()
    holds = {path: losses(path) for path in modules}
    ours = {path: [name for name in found if name in wanted] for path, found in holds.items()}
    family = [path for path in modules if local[path].startswith(FAMILIES)]
    other = {name: count for path in family for name, count in holds[path].items() if name not in wanted}
    own = [path for path in family if ours[path] or not holds[path]]
    reach = {path: reached(path, set()) for path in modules if holds[path]}
    total = strict = 0
    print("| module | lines | share | counted |\n|---|---:|---:|---:|")
    for path in [*own, *(p for p in modules if local[p].startswith(SHARED) and p not in own)]:
        count = counted = lines(path) - sum(other.get(name, 0) for name in holds[path])
        share = "all"
        if path not in own:
            users = [user for user in reach if path in reach[user]]
            everyone, mine = (sum(len(names[user]) for user in users) for names in (holds, ours))
            if not mine:
                continue
            counted, share = math.ceil(count * mine / everyone), f"{mine} of {everyone}"
        strict += count
        total += counted
        print(f"| `{local[path]}` | {count} | {share} | {counted} |")
    print(f"| sum | {strict} | | {total} |\n")
    print(
        "no successor of the 19 files: " + ", ".join(f"{n.rpartition('.')[2]} ({c})" for n, c in other.items()) + "\n"
    )
    print(f"{total} lines (to stay under {LIMIT}); {strict} with every shared module whole")
    return int(total >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
