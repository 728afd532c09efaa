"""What importing costs, in fresh interpreters, against ``import torch``.

    python benchmarks/bench_imports.py [--repeats 7]

The rows are measured in turns, so that noise hits all of them alike; medians, and ratios to the first row.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROWS = {
    "import torch": "import torch",
    "import training_losses": "import training_losses",
    "import training_losses, as in 1.0": "import training_losses",
    "from training_losses.contrastive import CLIPLoss": "from training_losses.contrastive import CLIPLoss",
    "all registered losses": "from training_losses import LossRegistry; LossRegistry.available()",
    "an old path (reads the catalog, warns)": "from training.losses.clip_style_loss import CLIPStyleLoss",
    "import training_losses.migration.shims (no torch)": "import training_losses.migration.shims",
    "the whole catalog (no torch)": "from training_losses.migration.catalog import builtin_catalog; builtin_catalog()",
}
CLOCK = "import time; _s = time.perf_counter(); {}; print(time.perf_counter() - _s)"


def seconds(code: str, environment: dict[str, str]) -> float:
    """Seconds that ``code`` takes inside a fresh interpreter."""
    command = [sys.executable, "-W", "ignore", "-c", CLOCK.format(code)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tools" / "checkout"), "OMP_NUM_THREADS": "1"}
    taken: dict[str, list[float]] = {name: [] for name in ROWS}
    for _ in range(repeats + 1):
        for name, code in ROWS.items():
            taken[name].append(seconds(code, environment))
    median = {name: statistics.median(values[1:]) for name, values in taken.items()}  # the first round warms caches
    base = median["import torch"]
    print("| import | ms | ratio to import torch |\n|---|---|---|")
    for name, value in median.items():
        print(f"| {name} | {1000 * value:.0f} | {value / base:.2f} |")


if __name__ == "__main__":
    main()
