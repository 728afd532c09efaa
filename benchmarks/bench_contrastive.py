"""Contrastive losses against their twins: time and peak memory of forward and backward, in one process.

    python benchmarks/bench_contrastive.py [--batch 256 1024] [--repeats 5] [--only PART]

Prints a Markdown table. Times are medians of alternating runs, in CPU time of the process (other work on the machine
does not count), at least ``--repeats`` of them and as many as fit into a second; the ratio is old / new. Memory is the
largest sum of live CPU allocations of torch during one forward and backward, without the inputs. One thread.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "checkout"))

from training_losses.migration.catalog import builtin_catalog
from training_losses.migration.parity import build_pair, resolve
from training_losses.migration.translate import translate_forward

Step = Callable[[], None]
SLOW = 3.0
"""Seconds of one run beyond which it is not repeated."""

Inputs = dict[str, Any]


def pairs(batch: int, dim: int, *, per_id: int = 4) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    made: Inputs = {n: torch.randn(batch, dim, generator=generator) for n in ("vision_features", "text_features")}
    return made | {"match_ids": [f"id-{i // per_id}" for i in range(batch)]}


def unlabelled(batch: int, dim: int) -> Inputs:
    return {k: v for k, v in pairs(batch, dim).items() if k != "match_ids"}


def labelled(batch: int, dim: int) -> Inputs:
    return unlabelled(batch, dim) | {"labels": torch.arange(batch) // 4}


def fill(twin: Any) -> None:
    torch.manual_seed(0)
    twin.initialize_queue(torch.randn(8192, 256), torch.randn(8192, 256))


# title, old symbol, old constructor arguments, inputs, preparation of the twin
CASES: list[tuple[str, str, Inputs, Callable[[int, int], Inputs], Callable[[Any], None] | None]] = [
    ("CLIP, no ids", "clip_style_loss.CLIPStyleLoss", {}, unlabelled, None),
    ("CLIP, ids", "clip_style_loss.CLIPStyleLoss", {}, pairs, None),
    (
        "SimCLR (NT-Xent)",
        "contrastive_loss.ContrastiveLoss",
        {"loss_type": "nt_xent", "add_projection": False},
        unlabelled,
        None,
    ),
    (
        "memory queue, 8192 full",
        "memory_queue_contrastive_loss.MemoryQueueContrastiveLoss",
        {"dim": 256, "queue_size": 8192},
        pairs,
        fill,
    ),
    ("hard negatives", "hard_negative_mining_contrastive_loss.HardNegativeMiningContrastiveLoss", {}, pairs, None),
    ("dynamic temperature", "dynamic_temperature_contrastive_loss.DynamicTemperatureContrastiveLoss", {}, pairs, None),
    ("intra/inter, pooled", "decoupled_contrastive_loss.DecoupledContrastiveLoss", {}, pairs, None),
    ("intra/inter, per pair", "contrastive_learning.DecoupledContrastiveLoss", {}, pairs, None),
    ("InfoNCE", "loss_factory.SimpleContrastiveLoss", {}, pairs, None),
    ("SupCon", "supervised_contrastive_loss.SupervisedContrastiveLoss", {}, labelled, None),
]


def leaves(inputs: Inputs) -> Inputs:
    return {
        k: v.clone().requires_grad_() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in inputs.items()
    }


def step_of(loss: Callable[..., Any], inputs: Inputs) -> Step:
    def run() -> None:
        result = loss(**inputs)
        loss_value = result["loss"] if isinstance(result, dict) else result[0] if isinstance(result, tuple) else result
        loss_value.sum().backward()

    return run


def moco_steps(batch: int) -> tuple[Step, Step]:
    """The old loss owns the encoders, so both sides are timed with two linear encoders and their averages."""
    from training_losses.base import MomentumEncoder
    from training_losses.contrastive import MoCoLoss

    vision, text = nn.Linear(256, 256), nn.Linear(256, 256)
    old = resolve("training_losses.legacy.ema_moco_loss.EMAMoCoLoss")(vision, text, dim=256, K=8192)
    old.vision_encoder, old.text_encoder = vision, text
    new = MoCoLoss(embed_dim=256, queue_size=8192, in_batch_negatives=True, enqueue_before_logits=True, metrics=True)
    new.load_state_dict({k: v for k, v in old.state_dict().items() if "encoder" not in k})
    averages = MomentumEncoder(vision), MomentumEncoder(text)
    x, y = torch.randn(2, batch, 256, generator=torch.Generator().manual_seed(0))

    def run() -> None:
        averages[0].update(vision)
        averages[1].update(text)
        new(vision(x), text(y), averages[0](x), averages[1](y)).loss.backward()

    return step_of(old, {"vision_queries": x, "text_queries": y}), run


def peak_bytes(run: Step) -> int:
    """Largest sum of live allocations over one run."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    live = best = 0
    for event in sorted(recorded.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            best = max(best, live)
    return best


def seconds(run: Step) -> float:
    """CPU time of one run."""
    start = time.process_time()
    run()
    return time.process_time() - start


def steps(symbol: str, kwargs: Inputs, inputs: Inputs, prepare: Callable[[Any], None] | None) -> tuple[Step, Step]:
    (row,) = (s for s in builtin_catalog().symbols if s.system == "multimodal_insight" and s.old == symbol)
    pair = build_pair(row, dtype=torch.float32, prepare=prepare, **kwargs)
    return step_of(pair.old, leaves(inputs)), step_of(pair.new, leaves(translate_forward(pair.case, (), inputs)))


def measure(title: str, batch: int, runs: tuple[Step, Step], repeats: int) -> str:
    times: list[list[float]] = [[], []]
    memory = ["-", "-"]
    longest = 0.0
    for index, run in enumerate(runs):
        first = seconds(run)  # warm-up; a run of millions of small kernels is measured once and not recorded
        longest = max(longest, first)
        if first > SLOW:
            times[index] = [first]
        else:
            memory[index] = f"{peak_bytes(run) / 2**20:.1f}"
    for turn in range(max(repeats, min(300, int(0.5 / longest)))):
        for index in (0, 1) if turn % 2 else (1, 0):
            if memory[index] != "-":
                times[index].append(seconds(runs[index]))
    old, new = (statistics.median(taken) for taken in times)
    return f"| {title} | {batch} | {1e3 * old:.2f} | {1e3 * new:.2f} | {old / new:.2f} | {memory[0]} | {memory[1]} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="part of a title")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, one thread, float32, width 256, forward + backward\n")
    print("| loss | batch | old ms | new ms | old / new | old MiB | new MiB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for title, symbol, kwargs, make, prepare in CASES:
        for batch in options.batch:
            if options.only in title:
                print(
                    measure(title, batch, steps(symbol, kwargs, make(batch, 256), prepare), options.repeats), flush=True
                )
    for batch in options.batch:
        if options.only in "MoCo":
            print(measure("MoCo, queue 8192", batch, moco_steps(batch), options.repeats), flush=True)


if __name__ == "__main__":
    main()
