"""Coverage per part of the code against its limit; reads the data that the nox sessions tests and parity left.

Exit codes: 0 all parts reach their limit, 1 one does not, 2 there is no data.
"""

from __future__ import annotations

import sys
from pathlib import Path

import coverage

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {
    "src/training/losses/base": 90.0,
    "src/training/losses/functional": 90.0,
    "src/training/losses/loss_registry.py": 90.0,
    "migration": 90.0,
    "src": 80.0,
}
"""Part -> percentage of lines. A file counts for the first part that holds it."""

ELSEWHERE = {
    "migration/pytest_plugin.py",
    "migration/watch/_hook/sitecustomize.py",
    "migration/watch/recorder.py",
    "migration/watch/start.py",
    "migration/watch/watcher.py",
}
"""Tests run these in child processes alone, which are not measured."""


def main() -> int:
    """Combine, count, print."""
    data = sorted((ROOT / ".nox").glob(".coverage.*"))
    if not data:
        print("error: no coverage data; run the sessions tests and parity first", file=sys.stderr)
        return 2
    measured = coverage.Coverage(data_file=str(ROOT / ".nox" / "combined"), config_file=str(ROOT / "pyproject.toml"))
    measured.combine([str(path) for path in data], keep=True)
    counts = {part: [0, 0] for part in LIMITS}
    worst: list[tuple[float, str]] = []
    for part in ("src", "migration"):
        for path in sorted((ROOT / part).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name in ELSEWHERE:
                continue
            _, statements, _, missing, _ = measured.analysis2(str(path))
            owner = next(p for p in LIMITS if name == p or name.startswith(f"{p}/"))
            counts[owner][0] += len(statements)
            counts[owner][1] += len(statements) - len(missing)
            if statements:
                worst.append((100 * (1 - len(missing) / len(statements)), name))
    failed = False
    for part, (total, hit) in counts.items():
        share = 100 * hit / total if total else 100.0
        failed |= share < LIMITS[part]
        mark = "FAIL" if share < LIMITS[part] else "ok"
        print(f"{part:40} {share:6.1f} %  of {total:5} statements, limit {LIMITS[part]:g} %  {mark}")
    for share, name in sorted(worst)[:12]:
        print(f"  {share:5.1f} %  {name}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
