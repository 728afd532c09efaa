"""The public names of ``training_losses`` for type checkers, from ``_public.py`` into its ``__init__.py``.

    python tools/public_names.py [--check]

Exit code 1: with ``--check``, if the file is stale.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "training" / "losses"
BLOCK = re.compile(r"(    # <public names>.*?\n).*?(    # </public names>\n)", re.DOTALL)


def public() -> dict[str, str]:
    """Name -> module below the package, read without importing anything."""
    tree = ast.parse((PACKAGE / "_public.py").read_text("utf-8"))
    (table,) = (n.value for n in tree.body if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == "PUBLIC")
    found: dict[str, str] = ast.literal_eval(table)  # type: ignore[arg-type]  # it has a value
    return found


def filled(text: str) -> str:
    """``text`` of the ``__init__.py`` with the block written anew, as ruff formats it."""
    modules = defaultdict(list)
    for name, module in public().items():
        modules[module].append(name)
    lines = []
    for module in sorted(modules):
        for name in sorted(modules[module]):
            lines.append(f"    from .{module} import {name} as {name}\n")
    return BLOCK.sub(lambda match: match[1] + "".join(lines) + match[2], text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is stale")
    arguments = parser.parse_args(argv)
    path = PACKAGE / "__init__.py"
    text = path.read_text("utf-8")
    current = filled(text)
    if current != text:
        print(f"{'stale' if arguments.check else 'filled'}: {path.name} of the package")
        if not arguments.check:
            path.write_text(current, "utf-8")
    return int(current != text and arguments.check)


if __name__ == "__main__":
    sys.exit(main())
