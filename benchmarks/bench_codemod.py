"""Speed and memory of the codemod: ``python benchmarks/bench_codemod.py [TREE]``.

Two made-up trees: 270 files and 4 MB of which 16 use old losses, and 2,800 files and 50 MB without a use, which talk of
losses and import modules with names like ``utils`` and ``losses``. Each figure is of whole processes, start-up included
and byte code cached, as it is for installed packages, in alternation with the process it is compared to: ``python -c``
that walks and reads the same files, and ``libcst.parse_module`` on the matching files. Times are the median of the
repeats: by the clock, and of the processor (user and system, which a busy machine changes least). With TREE, that tree
is measured in place of the large one. Needs a system with ``os.wait4``.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
READ = """
import os, sys
total = 0
for directory, folders, names in os.walk(sys.argv[1]):
    for name in names:
        if name.endswith(".py"):
            with open(os.path.join(directory, name), "rb") as handle:
                total += len(handle.read())
"""
PARSE = """
import sys, libcst
for path in sys.argv[1:]:
    with open(path, "rb") as handle:
        libcst.parse_module(handle.read())
"""
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
USES = """
from src.training.losses import VICRegLoss, MemoryQueueContrastiveLoss
from src.training.losses.clip_style_loss import CLIPStyleLoss


def losses(dim, config):
    vicreg = VICRegLoss(sim_coeff=10.0, var_coeff=5.0, cov_coeff=1.0)
    clip = CLIPStyleLoss(temperature=config.get("temperature", 0.07), cache_labels=False)
    return vicreg, clip, MemoryQueueContrastiveLoss(dim=dim, queue_size=8192)
"""


def filler(generator: random.Random, size: int) -> str:
    """Code of about ``size`` bytes that talks of losses, as training code does, but uses none of the old ones."""
    own = generator.choice(["from .base import Trainer", "from ..utils import seed", "from .losses import total"])
    parts = [f"import torch\nfrom torch import nn\nfrom torch.nn import CrossEntropyLoss\n{own}\n"]
    length = len(parts[0])
    number = 0
    while length < size:
        number += 1
        speaks = "loss" if generator.random() < 0.06 else "score"
        part = (
            f"\n\ndef step_{number}(model, batch, scale={generator.random():.4f}):\n"
            f'    """One step on the batch number {number}, with the features of both views."""\n'
            f"    features = model.encode(batch['inputs'], normalize={generator.random() < 0.5})\n"
            f"    {speaks} = nn.functional.mse_loss(features, batch['target']) * scale\n"
            f"    history = [float(value) for value in batch.get('history', ()) if value is not None]\n"
            f"    return {{'value': {speaks}, 'history': history, 'index': {number}}}\n"
        )
        parts.append(part)
        length += len(part)
    return "".join(parts)


def make_tree(top: Path, files: int, size: int, matching: int) -> list[Path]:
    """Write the tree; returns the files that use old losses."""
    generator = random.Random(0)
    matched = []
    every = files // matching if matching else 0
    for number in range(files):
        path = top / f"package_{number // 30}" / f"module_{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = filler(generator, size // files)
        if every and number % every == 0 and len(matched) < matching:
            text = USES + text
            matched.append(path)
        path.write_text(text, encoding="utf-8")
    return matched


def run(command: list[str]) -> tuple[float, float, float]:
    """Seconds by the clock and of the processor, and peak memory (MB), of a process and its children."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit


Figures = dict[str, tuple[float, float, float]]


def compare(commands: dict[str, list[str]], repeats: int = 9) -> Figures:
    """Median times and largest memory of each command, run in alternation after one that does not count."""
    for command in commands.values():
        run(command)
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            runs[name].append(run(command))
    return {
        name: (statistics.median(r[0] for r in rows), statistics.median(r[1] for r in rows), max(r[2] for r in rows))
        for name, rows in runs.items()
    }


def report(title: str, size: float, figures: Figures, base: str) -> None:
    print(f"\n{title}, {size:.1f} MB\n\n| process | seconds | ratio | processor s | ratio | peak MB |")
    print("|---|---|---|---|---|---|")
    for name, (seconds, processor, peak) in figures.items():
        ratio, other = seconds / figures[base][0], processor / figures[base][1]
        print(f"| {name} | {seconds:.3f} | {ratio:.2f} | {processor:.3f} | {other:.2f} | {peak:.0f} |")


def weight(top: Path) -> float:
    return sum(path.stat().st_size for path in top.rglob("*.py")) / 1e6


def main() -> None:
    codemod = [sys.executable, str(ROOT / "tools" / "codemod.py")]
    with tempfile.TemporaryDirectory() as folder:
        ENVIRONMENT["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "bytecode")
        small = Path(folder) / "small"
        matched = make_tree(small, 270, 4_000_000, 16)
        figures = compare(
            {
                "read every byte": [sys.executable, "-c", READ, str(small)],
                "codemod, whole catalog, one process": [*codemod, str(small)],
                "libcst.parse_module of the 16 files": [sys.executable, "-c", PARSE, *map(str, matched)],
            }
        )
        report("270 files, 16 with old losses", weight(small), figures, "read every byte")
        if len(sys.argv) > 1:
            large = Path(sys.argv[1])
        else:
            large = Path(folder) / "large"
            make_tree(large, 2_800, 50_000_000, 0)
        figures = compare(
            {
                "read every byte": [sys.executable, "-c", READ, str(large)],
                "codemod, one process": [*codemod, str(large)],
                "codemod --jobs 2": [*codemod, str(large), "--jobs", "2"],
            }
        )
        report(f"{sum(1 for _ in large.rglob('*.py'))} files", weight(large), figures, "read every byte")


if __name__ == "__main__":
    main()
