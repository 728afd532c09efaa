"""Share of duplicated lines, by jscpd 4 (30 tokens, 5 lines).

    python tools/duplication.py [--limit PERCENT]

Checks ``src`` and ``migration`` together and fails at ``--limit`` (1 %); prints the figure of ``legacy`` for
comparison. Needs Node.js; ``npx`` fetches jscpd on first use. Exit codes: 0 below the limit, 1 at or above it, 2 when
jscpd cannot run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class CannotRun(RuntimeError):
    """jscpd is not available."""


def report(*folders: str) -> dict[str, Any]:
    """The JSON report of jscpd on ``folders`` together."""
    npx = shutil.which("npx")
    if npx is None:
        raise CannotRun("npx was not found: install Node.js 18 or newer (https://nodejs.org) to check for duplication")
    with tempfile.TemporaryDirectory() as folder:
        command = [npx, "--yes", "jscpd@4", "--config", str(ROOT / ".jscpd.json"), "--output", folder, *folders]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        result = Path(folder) / "jscpd-report.json"
        if not result.exists():
            raise CannotRun(f"jscpd did not write a report (exit code {run.returncode}): {run.stderr.strip()[-2000:]}")
        data: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return data


def main() -> int:
    """Check and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--limit", type=float, default=1.0, help="percentage of duplicated lines that fails")
    limit = parser.parse_args().limit
    try:
        ours = report("src", "migration")
        legacy = report("legacy")
    except CannotRun as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for clone in ours["duplicates"]:
        first, second = clone["firstFile"], clone["secondFile"]
        print(f"{first['name']}:{first['start']}-{first['end']} = {second['name']}:{second['start']}-{second['end']}")
    share = float(ours["statistics"]["total"]["percentage"])
    lines = ours["statistics"]["total"]["lines"]
    print(f"src + migration: {share:.2f} % of {lines} lines duplicated (limit {limit:g} %)")
    old = legacy["statistics"]["total"]
    print(f"legacy, for comparison: {old['percentage']:.2f} % of {old['lines']} lines")
    if lines == 0:
        print("error: jscpd found no code", file=sys.stderr)
        return 2
    return 1 if share >= limit else 0


if __name__ == "__main__":
    sys.exit(main())
