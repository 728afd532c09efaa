"""Write the names by which the new losses know that an old attribute is asked for, or check that they are current.

    python tools/old_members.py            write src/training/losses/base/old_members.py from the catalog
    python tools/old_members.py --check    write nothing; exit 1 if the file is stale

The new losses ask the catalog nothing until one of these names is used, and none of them is defined by a class on the
way (``base/compat.py``): a name that the successor has itself, also with another meaning, is not missing.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "checkout"))

from training_losses.migration.catalog import Catalog, builtin_catalog  # noqa: E402 (path above)

FILE = ROOT / "src" / "training" / "losses" / "base" / "old_members.py"
HEAD = '''"""Names of attributes that only the old classes had, by successor. From ``tools/old_members.py``."""

from __future__ import annotations

from typing import Final

_NAMES: Final = {
'''
TAIL = """}

OLD_MEMBERS: Final = {path: frozenset(names.split()) for path, names in _NAMES.items()}
"""


def old_members(catalog: Catalog) -> dict[str, list[str]]:
    """Dotted path of a successor -> the old names that have another place, or none. A base class has no instances."""
    names: dict[str, set[str]] = {}
    for symbol, case in catalog.successors():
        if symbol.kind != "class" or case.new is None or ".base." in case.new:
            continue
        for name, new in case.members.items():
            place = new if isinstance(new, str) else new.get("at", "")
            if name != place.partition(".")[0] and not name.startswith("_"):
                names.setdefault(case.new, set()).add(name)
    return {path: sorted(names[path]) for path in sorted(names)}


def text() -> str:
    """The file."""
    rows = []
    for path, found in old_members(builtin_catalog()).items():
        row = textwrap.fill(" ".join(found), 110, initial_indent=" " * 8, subsequent_indent=" " * 8)
        rows.append(f'    "{path}": """\n{row}\n    """,\n')
    return HEAD + "".join(rows) + TAIL


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        if FILE.read_text(encoding="utf-8") == text():
            return 0
        print(f"{FILE.relative_to(ROOT)} is stale: python tools/old_members.py")
        return 1
    FILE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
