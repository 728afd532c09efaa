"""Alignment losses against their frozen twins, and soft-DTW against ``pysdtw``; prints Markdown tables.

    python benchmarks/bench_alignment.py [--repeats 3] [--quick] [--threads 1] [--only NAME ...]

Time: median CPU time of forward and backward, old and new in turn in one process, float32; a twin that takes more than
a second is timed once. Memory: rise of the peak resident set over one step, in a child process. ``pysdtw`` (numba) is
optional; without it its table is left out: pip install pysdtw numba. Some five minutes on a quiet core.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import multiprocessing
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "checkout"))

import torch  # noqa: E402

from training_losses.alignment import (  # noqa: E402
    GTCCLoss,
    IntraContrastLoss,
    LAVLoss,
    SoftDTWLoss,
    TCCLoss,
    VAVALoss,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from training_losses.legacy.alignment import loss_functions as twins
    from training_losses.legacy.alignment import softdtw as twin_soft_dtw

WIDTH = 128
SLOW = 1.0
Sequences = list[torch.Tensor]
Run = Callable[[Sequences], torch.Tensor]

CONTRAST = IntraContrastLoss(window=15)
# one step of the mixture fit (eight by default), so that the twin's row by row fits end
FIT = {"n_components": 2, "delta": 0.5, "max_gmm_iters": 1}


def old_soft_dtw(given: Sequences) -> torch.Tensor:
    """The twin has no padding: pair by pair."""
    loss = twin_soft_dtw.SoftDTW(gamma=0.1)
    return torch.stack([loss(x, y) for x, y in zip(given[::2], given[1::2], strict=True)]).sum()


def new_soft_dtw(given: Sequences) -> torch.Tensor:
    """All pairs in one padded batch."""
    x, y = (torch.nn.utils.rnn.pad_sequence(half, batch_first=True) for half in (given[::2], given[1::2]))
    lengths = [[len(one) for one in half] for half in (given[::2], given[1::2])]
    return SoftDTWLoss(smoothing=0.1, reduction="sum")(x, y, *lengths)


LOSSES: dict[str, tuple[Run, Run]] = {
    "IntraContrast": (
        lambda s: torch.stack([twins.IntraContrast_loss(x, torch.arange(float(len(x))), 15) for x in s]).sum(),
        lambda s: torch.stack([CONTRAST(x) for x in s]).sum(),
    ),
    "TCC": (lambda s: twins.TCC_loss(s, softmax_temp=0.1), TCCLoss(temperature=0.1)),
    "LAV": (twins.LAV_loss, LAVLoss()),
    "VAVA": (lambda s: twins.VAVA_loss(s, 10), partial(VAVALoss(), step=10)),
    "SoftDTW": (old_soft_dtw, new_soft_dtw),
    "GTCC": (
        lambda s: twins.GTCC_loss(s, **FIT),
        GTCCLoss(num_components=2, window_fraction=0.5, fit_steps=1),
    ),
}
FULL_FIT = {"n_components": 5, "delta": 0.5}


def sequences(count: int, frames: int) -> list[torch.Tensor]:
    """Embeddings of unit length, as encoders give them; lengths differ a little."""
    generator = torch.Generator().manual_seed(count * frames)
    made = [torch.randn(frames - i, WIDTH, generator=generator) for i in range(count)]
    return [torch.nn.functional.normalize(x, dim=1).requires_grad_() for x in made]


def step(run: Callable[..., Any], inputs: Any) -> float:
    """Seconds of one forward and backward."""
    start = time.process_time()
    run(inputs).sum().backward()
    return time.process_time() - start


def _status(key: str) -> float:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return next(float(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith(key))


def _child(run: Callable[..., Any], inputs: Any, queue: Any) -> None:
    # buffers that libraries keep, and the gradients, are there before the measured step
    step(run, inputs)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _status("VmRSS")
    step(run, inputs)
    queue.put(_status("VmHWM") - before)


def memory(run: Callable[..., Any], inputs: Any) -> float:
    """MB by which the peak resident set rises over one step."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=_child, args=(run, inputs, queue))
    process.start()
    rise: float = queue.get()
    process.join()
    return rise


def compare(name: str, old: Run, new: Run, inputs: Sequences, repeats: int, what: str) -> None:
    """One row; every run is warmed up once, and a slow twin is its own warm-up."""
    # before autograd starts its threads, which do not survive a fork
    memories = [memory(run, inputs) for run in (old, new)]
    step(new, inputs)
    times = [(step(old, inputs), step(new, inputs))]
    if times[0][0] < SLOW:
        times = [(step(old, inputs), step(new, inputs)) for _ in range(repeats)]
    before, after = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"| {name} | {what} | {before * 1e3:.1f} | {after * 1e3:.1f} | {before / after:.1f} | "
        f"{memories[0]:.0f} | {memories[1]:.0f} |",
        flush=True,
    )


def tcc_floor(repeats: int) -> None:
    """What TCC cannot do without: seven and a half matrix products for every ordered pair.

    Distances there, soft neighbours and distances back, and two more for the gradient of each; those of the distances
    there (one forward, two backward) are the same numbers for both orders of a pair, so that half of them would do.
    """
    count, frames, products_a_pair = 8, 200, 7.5
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, frames, WIDTH, generator=generator)
    y, table = x.flip(0).contiguous(), torch.empty(count, frames, frames)

    def products(_: Sequences) -> torch.Tensor:
        for _ in range(int(products_a_pair * count)):
            torch.bmm(x, y.mT, out=table)
        return torch.zeros((), requires_grad=True)

    times = [
        (step(LOSSES["TCC"][0], given), step(LOSSES["TCC"][1], given), step(products, given))
        for given in [sequences(count, frames)]
        for _ in range(3 * repeats + 1)
    ][1:]
    old, new, floor = (statistics.median(column) for column in zip(*times, strict=True))
    work = products_a_pair * count**2 * 2 * frames**2 * WIDTH
    print(
        f"\nTCC, {count} x {frames}: its matrix products alone ({work / 1e9:.1f} GFLOP) take {floor * 1e3:.0f} ms here "
        f"({work / floor / 1e9:.0f} GFLOP/s), the twin {old * 1e3:.0f} ms, the new loss {new * 1e3:.0f} ms: a factor "
        f"of {old / new:.1f}, and no implementation could have more than {old / floor:.1f}.",
        flush=True,
    )


def soft_dtw(repeats: int) -> None:
    """Against numba, at the size that the library promises something for."""
    try:
        pysdtw = importlib.import_module("pysdtw")
    except ImportError:
        print("\npysdtw is not installed: its comparison is left out")
        return
    generator = torch.Generator().manual_seed(0)
    pair = [torch.randn(16, 256, 32, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]
    reference = pysdtw.SoftDTW(gamma=0.1, use_cuda=False)
    new = SoftDTWLoss(smoothing=0.1)
    # before numba starts its threads, which do not survive a fork
    rise = memory(lambda p: new(*p), pair)
    print("\n| soft-DTW | size | pysdtw ms | new ms | new / pysdtw | new MB |\n|---|---|---|---|---|---|")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step(lambda p: reference(*p), pair)
        step(lambda p: new(*p), pair)
        runs = (lambda p: reference(*p), lambda p: new(*p))
        times = [tuple(step(run, pair) for run in runs) for _ in range(5 * repeats)]
    before, after = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(new_time / old_time for old_time, new_time in times)
    print(
        f"| forward + backward | 16 x 256 x 256, D 32, float64 | {before * 1e3:.1f} | {after * 1e3:.1f} | {ratio:.2f} "
        f"| {rise:.1f} |"
    )


def main() -> None:
    """Run all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="only the largest size")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=[*LOSSES, "floor", "pysdtw"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # before numba is imported: its idle workers would wait actively, at the cost of whoever is measured next
    os.environ["NUMBA_NUM_THREADS"] = str(args.threads)
    wanted = set(args.only or [*LOSSES, "floor", "pysdtw"])
    print(f"torch {torch.__version__}, {args.threads} thread(s), float32, D {WIDTH}\n")
    print(
        "| loss | sequences x frames | twin ms | new ms | twin / new | twin MB | new MB |\n"
        "|---|---|---|---|---|---|---|"
    )
    sizes = [(8, 200)] if args.quick else [(s, n) for s in (2, 4, 8) for n in (30, 100, 200)]
    for name in [name for name in LOSSES if name in wanted]:
        # what a library loads at its first call
        step(LOSSES[name][0], sequences(2, 30))
        for count, frames in sizes:
            compare(name, *LOSSES[name], sequences(count, frames), args.repeats, f"{count} x {frames}")
    if "GTCC" in wanted:
        loss = GTCCLoss(num_components=5, window_fraction=0.5)
        compare(
            "GTCC, 5 components, full fit", partial(twins.GTCC_loss, **FULL_FIT), loss, sequences(2, 60), 1, "2 x 60"
        )
    if "floor" in wanted:
        tcc_floor(args.repeats)
    if "pysdtw" in wanted:
        soft_dtw(args.repeats)


if __name__ == "__main__":
    main()
