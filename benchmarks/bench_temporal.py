"""Losses over time: what they cost beside the network that they watch. Prints Markdown.

    python benchmarks/bench_temporal.py

Memory is the largest amount that torch has allocated at once during 20 steps forward and the backward pass (the
profiler's running total), parameters and inputs not counted. Times are medians of ratios within one process.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "checkout"))

from training_losses.temporal import EnergyLoss, PresentationSchedule, TemporalCrossEntropyLoss  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from training_losses.legacy.dynvision import CrossEntropyLoss as OldCrossEntropyLoss
    from training_losses.legacy.dynvision import EnergyLoss as OldEnergyLoss
    from training_losses.legacy.dynvision.temporal_masking import TemporalBase

STEPS, BATCH, SIZE = 20, 16, 32


class Net(nn.Module):
    """A small convolutional network, called once per time step."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8 * SIZE * SIZE // 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head(F.avg_pool2d(x, 2).flatten(1))


def train_step(net: Net, frames: list[Tensor], energy: Callable[[], Tensor] | None) -> None:
    loss = torch.stack([net(x) for x in frames]).square().mean()
    if energy is not None:
        loss = loss + 0.05 * energy()
    loss.backward()
    net.zero_grad()


def peak_bytes(run: Callable[[], Any]) -> int:
    """Largest running total of torch's CPU allocations while ``run()`` is at work, above the start."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    total = peak = 0
    for _, change in changes:
        total += change
        peak = max(peak, total)
    return peak


def seconds(runs: dict[str, Callable[[], Any]], repeats: int = 15) -> dict[str, list[float]]:
    """Times of all candidates, in turns, so that the machine's load hits all alike."""
    for run in runs.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - start)
    return found


def ratio(times: dict[str, list[float]], name: str, base: str) -> float:
    return statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))


def watched(make: Callable[[], Any] | None) -> Callable[[], None]:
    """One training step of a fresh network, watched by the loss that ``make`` builds."""
    torch.manual_seed(0)
    net = Net()
    frames = [torch.randn(BATCH, 3, SIZE, SIZE) for _ in range(STEPS)]
    loss = None if make is None else make()
    if isinstance(loss, EnergyLoss):
        loss.attach(net)
    elif loss is not None:
        loss.register_hooks(net)
    return lambda: train_step(net, frames, loss)


def energy_table() -> None:
    makers: dict[str, Callable[[], Any] | None] = {
        "plain network": None,
        "EnergyLoss()": EnergyLoss,
        "EnergyLoss(order=2)": lambda: EnergyLoss(order=2),
        "EnergyLoss(mode='signed')": lambda: EnergyLoss(mode="signed"),
        "old EnergyLoss(p=1)": OldEnergyLoss,
    }
    runs = {name: watched(make) for name, make in makers.items()}
    times = seconds(runs)
    peaks = {name: peak_bytes(run) for name, run in runs.items()}
    base = "plain network"
    print(f"Activity of a small convolutional network, {STEPS} steps of {BATCH} images {SIZE} x {SIZE}:\n")
    print("| loss | peak memory, MiB | against plain | time of a training step against plain |")
    print("|---|---|---|---|")
    for name in runs:
        share = peaks[name] / peaks[base] - 1
        print(f"| {name} | {peaks[name] / 2**20:.2f} | {share:+.1%} | {ratio(times, name, base):.2f} |")


def cross_entropy_table() -> None:
    torch.manual_seed(0)
    logits = torch.randn(256, STEPS, 10)
    targets = torch.randint(-1, 10, (256, STEPS))
    old, new = OldCrossEntropyLoss(), TemporalCrossEntropyLoss()

    def run(loss: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def step() -> None:
            leaf = logits.clone().requires_grad_()
            loss(leaf).backward()

        return step

    runs = {
        "torch cross_entropy": run(lambda z: F.cross_entropy(z.flatten(0, 1), targets.flatten(), ignore_index=-1)),
        "TemporalCrossEntropyLoss": run(lambda z: new(z, targets)),
        "old CrossEntropyLoss": run(lambda z: old(z.flatten(0, 1), targets.flatten())),
    }
    times = seconds(runs, 30)
    print(f"\nMasked cross entropy, logits {list(logits.shape)}, forward and backward:\n")
    print("| loss | microseconds | against torch |")
    print("|---|---|---|")
    for name in runs:
        print(
            f"| {name} | {1e6 * statistics.median(times[name]):.0f} | {ratio(times, name, 'torch cross_entropy'):.2f} |"
        )


def schedule_table() -> None:
    images, labels = torch.randn(64, 3, SIZE, SIZE), torch.zeros(64, dtype=torch.long)
    old = TemporalBase(n_timesteps=STEPS, data_presentation_pattern="1011", loss_reaction_time=4.0)
    new = PresentationSchedule(pattern="1011", n_steps=STEPS, reaction_time=4.0)
    runs = {
        "PresentationSchedule": lambda: new(images, labels),
        "old _process_batch": lambda: old._process_batch((images, labels)),
    }
    times = seconds(runs)
    print(f"\nPresentation of 64 images over {STEPS} steps:\n")
    print("| | milliseconds | against old |")
    print("|---|---|---|")
    for name in runs:
        print(
            f"| {name} | {1e3 * statistics.median(times[name]):.2f} | {ratio(times, name, 'old _process_batch'):.2f} |"
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    energy_table()
    cross_entropy_table()
    schedule_table()
