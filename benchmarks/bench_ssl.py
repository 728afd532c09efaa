"""Self-supervised, multimodal, supervised and combining losses against their twins: time and peak memory, one process.

    python benchmarks/bench_ssl.py [--batch 256 1024] [--repeats 7] [--only TITLE]

Prints a Markdown table; how it measures stands in ``bench_contrastive.py``. The old arguments are translated through
the catalog, so both sides compute the same numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "checkout"))
sys.path.insert(0, str(Path(__file__).parent))

from bench_contrastive import Inputs, Step, labelled, leaves, measure, pairs, step_of, steps, unlabelled

from training_losses.migration.parity import resolve


def views(batch: int, dim: int) -> Inputs:
    made = unlabelled(batch, dim)
    return {"z_a": made["vision_features"], "z_b": made["text_features"]}


def with_inputs(batch: int, dim: int) -> Inputs:
    made = unlabelled(batch, dim)
    return made | {"vision_inputs": made["vision_features"][:, :64], "text_inputs": made["text_features"][:, :64]}


def classes(batch: int, dim: int) -> Inputs:
    return {"input": unlabelled(batch, dim)["vision_features"], "target": torch.arange(batch) % dim}


def targets(batch: int, dim: int) -> Inputs:
    made = unlabelled(batch, dim)
    return {"input": made["vision_features"], "target": made["text_features"]}


def task_batches(batch: int, dim: int) -> Inputs:
    made = targets(batch, dim)
    return {side + "s": {"a": made[side], "b": made[side]} for side in ("input", "target")}


def no_curriculum() -> Inputs:
    return {"curriculum": False}


def two_tasks() -> Inputs:
    return {"loss_functions": {"a": nn.MSELoss(), "b": nn.L1Loss()}}


# title, old symbol, old constructor arguments, inputs of (batch, width)
CASES: list[tuple[str, str, Callable[[], Inputs], Callable[[int, int], Inputs]]] = [
    ("VICReg", "vicreg_loss.VICRegLoss", no_curriculum, views),
    ("VICReg, warm-up", "vicreg_loss.VICRegLoss", dict, views),
    ("Barlow Twins", "barlow_twins_loss.BarlowTwinsLoss", dict, unlabelled),
    (
        "Barlow Twins, heads",
        "barlow_twins_loss.BarlowTwinsLoss",
        lambda: {"add_projection": True, "input_dim": 256, "projection_dim": 512},
        unlabelled,
    ),
    ("decorrelation", "decorrelation_loss.DecorrelationLoss", dict, unlabelled),
    (
        "contrastive, then VICReg",
        "hybrid_pretrain_vicreg_loss.HybridPretrainVICRegLoss",
        lambda: {"vision_dim": 256, "text_dim": 256},
        views,
    ),
    ("mixed contrastive", "multimodal_mixed_contrastive_loss.MultiModalMixedContrastiveLoss", dict, labelled),
    ("mixed contrastive, ids", "multimodal_mixed_contrastive_loss.MultiModalMixedContrastiveLoss", dict, pairs),
    (
        "feature consistency",
        "feature_consistency_loss.FeatureConsistencyLoss",
        lambda: {f"reference_{name}_model": nn.Linear(64, 256) for name in ("vision", "text")},
        with_inputs,
    ),
    ("cross entropy", "losses.CrossEntropyLoss", dict, classes),
    ("squared error", "losses.MeanSquaredError", dict, targets),
    (
        "tasks",
        "multitask_loss.MultitaskLoss",
        lambda: {"loss_functions": {"a": nn.MSELoss(), "b": nn.L1Loss()}},
        task_batches,
    ),
    (
        "tasks, adaptive",
        "multitask_loss.MultitaskLoss",
        lambda: {"loss_functions": {"a": nn.MSELoss(), "b": nn.L1Loss()}, "dynamic_weighting": True},
        task_batches,
    ),
]


def nested_leaves(inputs: Inputs) -> Inputs:
    return {k: leaves(v) if isinstance(v, dict) else v for k, v in leaves(inputs).items()}


def sums(batch: int) -> tuple[Step, Step]:
    from training_losses.balancing import WeightedSumLoss

    old = resolve("training_losses.legacy.combined_loss.CombinedLoss")(
        nn.MSELoss(), nn.L1Loss(), 0.5, nn.SmoothL1Loss(), 0.3
    )
    terms = {"primary": nn.MSELoss(), "secondary": nn.L1Loss(), "tertiary": nn.SmoothL1Loss()}
    new = WeightedSumLoss(terms=terms, weights={"secondary": 0.5, "tertiary": 0.3})
    return step_of(old, leaves(targets(batch, 256))), step_of(new, leaves(targets(batch, 256)))


def cases(batch: int) -> list[tuple[str, Callable[[], tuple[Step, Step]]]]:
    made: list[tuple[str, Callable[[], tuple[Step, Step]]]] = []
    for title, symbol, kwargs, inputs in CASES:

        def build(symbol: str = symbol, kwargs: Any = kwargs, inputs: Any = inputs) -> tuple[Step, Step]:
            return steps(symbol, kwargs(), nested_leaves(inputs(batch, 256)), None)

        made.append((title, build))
    return [*made, ("weighted sum", lambda: sums(batch))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", default="", help="part of a title")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, one thread, float32, width 256, forward + backward\n")
    print("| loss | batch | old ms | new ms | old / new | old MiB | new MiB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for batch in options.batch:
        for title, build in cases(batch):
            if options.only in title:
                with contextlib.redirect_stdout(io.StringIO()):
                    line = measure(title, batch, build(), options.repeats)
                print(line, flush=True)


if __name__ == "__main__":
    main()
