"""Errors of float32 gradients of every loss at three sizes and three scales; prints a Markdown table.

    python benchmarks/bench_float32.py [--only NAME ...] [--check]

Each cell is ``error / bound`` (see ``tests/support/float32.py``): the relative error of the gradient against the same
loss in float64, and twice the better of the plain formula under autograd and the old twin (where those are lost, more
than 10 % off, and for losses that are plain formulas themselves: a multiple of what rounding the inputs changes), at
least 32 roundings. ``--check`` fails where an error is above its bound. A few minutes on one core.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools" / "checkout")]

import torch  # noqa: E402

from tests.support.float32 import CASES, Errors, RealCase, measure  # noqa: E402


def shown(error: float | None) -> str:
    """Two digits."""
    return "" if error is None else f"{error:.1e}"


def rows(case: RealCase) -> list[tuple[str, Errors]]:
    """All sizes and scales of a loss."""
    made = []
    for size in case.sizes:
        for scale in case.scales:
            made.append((f"{size[0]} x {size[1]} | {scale:g}", measure(case, size, scale)))
    return made


def main() -> None:
    """Print the table; the number of errors above their bound is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}\n")
    print(
        "| loss | size | scale | new | plain | twin | inputs rounded | bound |\n|---|---|---:|---:|---:|---:|---:|---:|"
    )
    above = 0
    for case in sorted(CASES, key=lambda case: case.name):
        if args.only and case.name not in args.only:
            continue
        for where, found in rows(case):
            numbers = (found.new, found.plain, found.twin, found.rounding, found.bound())
            mark = "" if found.new <= found.bound() else " **above**"
            above += bool(mark)
            print(f"| {case.name} | {where} | {' | '.join(map(shown, numbers))}{mark} |", flush=True)
    if args.check and above:
        sys.exit(f"{above} errors are above their bound")


if __name__ == "__main__":
    main()
