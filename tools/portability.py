"""Run the parity suite under other machine settings and print which checks flip.

Each setting runs in a process of its own: the code paths of MKL (``MKL_CBWR``) and of torch
(``ATEN_CPU_CAPABILITY``) and one or two threads. A hash of ``mm``, ``exp`` and ``sum`` on fixed input says whether a
setting changes anything on this machine: equal hashes are the same arithmetic. ``--markdown FILE`` writes the table.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = [
    ("avx512", "AVX512", 1),
    ("avx2", "AVX2", 1),
    ("avx2", "AVX2", 2),
    ("avx2", "COMPATIBLE", 1),
    ("default", "COMPATIBLE", 1),
]
HASHES = """
import hashlib, torch
g = torch.Generator().manual_seed(0)
x = (torch.randint(-9999, 9999, (67, 67), generator=g) / 4321)
for y in (x @ x, x.exp(), x.sum(dim=1)):
    print(hashlib.sha256(y.numpy().tobytes()).hexdigest()[:8])
"""


def run(capability: str, library: str, threads: int, tests: list[str]) -> list[str]:
    """One row: the setting, three hashes, how many checks passed, and those that failed."""
    env = {**os.environ, "ATEN_CPU_CAPABILITY": capability, "MKL_CBWR": library}
    env |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}

    def python(*arguments: str) -> str:
        done = subprocess.run([sys.executable, *arguments], env=env, cwd=ROOT, capture_output=True, text=True)
        return done.stdout

    hashes = python("-c", HASHES).split()
    report = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no", *tests)
    failed = re.findall(r"^(?:FAILED|ERROR) (?:\S*::)?(\S+)", report, flags=re.MULTILINE)
    passed = re.search(r"(\d+) passed", report)
    cells = [capability, library, str(threads), *hashes, passed[1] if passed else "none"]
    return [*cells, ", ".join(failed) or "-"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", default=["tests/parity"])
    parser.add_argument("--markdown", type=Path, help="where to write the table")
    options = parser.parse_args()
    head = ["ATEN_CPU_CAPABILITY", "MKL_CBWR", "threads", "mm", "exp", "sum", "passed", "failed"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    red = False
    for setting in SETTINGS:
        row = run(*setting, options.tests)
        red = red or row[-1] != "-" or row[-2] == "none"
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    if options.markdown:
        options.markdown.write_text("# Parity under other machine settings\n\n" + "\n".join(lines) + "\n")
    return int(red)


if __name__ == "__main__":
    sys.exit(main())
