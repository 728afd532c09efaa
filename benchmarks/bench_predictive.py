"""VICReg, SIGReg and hierarchical prediction against their twins: peak memory and time of forward and backward.

    python benchmarks/bench_predictive.py [--only TITLE] [--repeats 1]

Prints a Markdown table; how it measures stands in ``bench_contrastive.py``. Both sides compute the same numbers unless
the title says otherwise. Twins that would need more than ``LIMIT`` are not run: their memory is the size of the
smallest intermediate that they must hold, marked with ``>``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tools" / "checkout"), str(Path(__file__).parent)]

from bench_contrastive import Step, peak_bytes, seconds, step_of  # noqa: E402  run as a script

from training_losses.contrastive.vicreg import VICRegLoss  # noqa: E402
from training_losses.migration.parity import resolve  # noqa: E402
from training_losses.predictive import HJEPACombinedLoss, HJEPALoss, SIGRegLoss  # noqa: E402

LIMIT = 2**31
SHAPES = ((4096, 256), (256, 4096), (64, 196, 768))
OLD_VICREG = {"covariance_norm": "pairs", "view_reduction": "mean"}
OLD_STATISTIC = {"standardize": True, "scale_by_samples": False}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def with_gradient(x: Tensor) -> Tensor:
    """A leaf that already has a gradient, so that no run pays for allocating it."""
    x.requires_grad_().grad = torch.zeros_like(x)
    return x


def views(shape: tuple[int, ...]) -> dict[str, Tensor]:
    return {"z_a": with_gradient(randn(*shape)), "z_b": with_gradient(randn(*shape, seed=1))}


def name(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def vicreg(shape: tuple[int, ...], **kwargs: Any) -> tuple[Step, Step]:
    inputs = views(shape)
    return step_of(resolve("training_losses.legacy.hjepa.vicreg.VICRegLoss")(), inputs), step_of(
        VICRegLoss(**OLD_VICREG, **kwargs), inputs
    )


def sigreg(shape: tuple[int, ...], slices: int, old: str, **kwargs: Any) -> tuple[Step, Step]:
    inputs = views(shape)
    twin = resolve("training_losses.legacy.hjepa.sigreg.SIGRegLoss")(num_slices=slices, test_method=old)
    return step_of(twin, inputs), step_of(SIGRegLoss(num_slices=slices, invariance_weight=25.0, **kwargs), inputs)


def levels(shape: tuple[int, int, int]) -> dict[str, list[Tensor]]:
    batch, tokens, width = shape
    made = {}
    for seed, key in enumerate(("predictions", "targets")):
        given = [randn(batch, tokens // 2**i, width, seed=10 * seed + i) for i in range(3)]
        made[key] = [with_gradient(x) for x in given] if key == "predictions" else given
    return made


def prediction(shape: tuple[int, int, int]) -> tuple[Step, Step]:
    inputs = levels(shape)
    return step_of(resolve("training_losses.legacy.hjepa.hjepa_loss.HJEPALoss")(), inputs), step_of(HJEPALoss(), inputs)


def combined(shape: tuple[int, int, int]) -> tuple[Step, Step]:
    inputs = levels(shape)
    pins = {f"vicreg_{key}": value for key, value in OLD_VICREG.items()}
    new = HJEPACombinedLoss(views="halves", eps=1e-8, vicreg_eps=1e-8, **pins)
    return step_of(resolve("training_losses.legacy.hjepa.combined.CombinedLoss")(), inputs), step_of(new, inputs)


def rows(shape: tuple[int, ...]) -> int:
    return shape[0] * (shape[1] if len(shape) == 3 else 1)


CHARACTERISTIC = {"t_min": 0.2, "t_max": 4.0, "num_knots": 32}
Case = tuple[str, int, Callable[[], tuple[Step, Step]]]


def cases() -> list[Case]:
    """(title, bytes that the twin must hold at least, its steps)."""
    found: list[Case] = []
    for shape in SHAPES:
        n, d = rows(shape), shape[-1]
        found += [
            (f"VICReg {name(shape)}", 4 * d * d, lambda s=shape: vicreg(s)),
            (
                f"VICReg {name(shape)}, chunk_size 64, checkpoint",
                4 * d * d,
                lambda s=shape: vicreg(s, chunk_size=64, checkpoint=True),
            ),
        ]
        for slices in (64, 256, 1024):
            found += [
                (
                    f"SIGReg {name(shape)}, {slices} slices, reference points",
                    4 * slices * n * n,
                    lambda s=shape, m=slices: sigreg(
                        s, m, "reference_points", test_method="reference_points", **OLD_STATISTIC
                    ),
                ),
                (
                    f"SIGReg {name(shape)}, {slices} slices, characteristic function",
                    4 * slices * n * 32,
                    lambda s=shape, m=slices: sigreg(s, m, "char_function", **CHARACTERISTIC, **OLD_STATISTIC),
                ),
            ]
    found += [
        (
            "SIGReg 64 x 196 x 768, 256 slices, new defaults against old",
            4 * 256 * 12544**2,
            lambda: sigreg((64, 196, 768), 256, "reference_points"),
        ),
        ("HJEPALoss 64 x 196 x 768, 3 levels", 0, lambda: prediction((64, 196, 768))),
        ("HJEPACombinedLoss 64 x 196 x 768, 3 levels", 0, lambda: combined((64, 196, 768))),
    ]
    return found


def measure(title: str, least: int, steps: tuple[Step, Step], repeats: int) -> str:
    """One row: medians of alternating runs, in CPU seconds. The twin is not run where it is too large."""
    runs = steps[1:] if least > LIMIT else steps
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, times in zip(runs, taken, strict=True):
            times.append(seconds(run))
    memory = [f"{peak_bytes(run) / 2**20:,.1f}" for run in runs]
    times = [1e3 * statistics.median(each) for each in taken]
    if least > LIMIT:
        return f"| {title} | > {least / 2**20:,.0f} | {memory[0]} | - | {times[0]:,.0f} | - |"
    ratio = times[0] / times[1]
    return f"| {title} | {memory[0]} | {memory[1]} | {times[0]:,.0f} | {times[1]:,.0f} | {ratio:.2f} |"


def feasible(title: str) -> bool:
    """The kernel statistic costs slices x n^2: beyond 10^9 numbers it is no option on one thread, old or new."""
    return "reference points" not in title or "256 x 4096" in title


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a title")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, one thread, float32, forward + backward, peak memory beside the inputs\n")
    print("| loss | old MiB | new MiB | old ms | new ms | old / new |")
    print("|---|---:|---:|---:|---:|---:|")
    for title, least, steps in cases():
        if options.only in title and feasible(title):
            print(measure(title, least, steps(), options.repeats), flush=True)


if __name__ == "__main__":
    main()
