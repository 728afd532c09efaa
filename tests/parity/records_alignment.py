"""Alignment losses in float32, and in float64 where the old code took it; float64 throughout: ``test_alignment.py``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

from tests.support.parity import GoldenCall, ParityRecord, Sample
from tests.support.twins import twin_module

SYSTEM = "alignment"
NO_IDS = ("none",)
WIDTH = 6


def sequences(sample: Sample, *, shortest: int = 2) -> list[torch.Tensor]:
    """Two to four sequences of different lengths, the longest of them around 30 frames."""
    count = 2 + sample.seed % 3
    lengths = [shortest + (sample.batch * (i + 1) + sample.seed // 3) % 29 for i in range(count)]
    return [sample.randn(n, WIDTH, salt=i) for i, n in enumerate(lengths)]


def tcc(sample: Sample, step: int) -> dict[str, Any]:
    # a soft way back: sharp ones divide by the rounding error of float32
    return {"sequences": sequences(sample), "softmax_temp": 2 + sample.seed % 2, "alignment_variance": 0.05}


def contrast(sample: Sample, step: int) -> dict[str, Any]:
    (x, *_) = sequences(sample)
    times = torch.arange(len(x), dtype=sample.dtype) * (1 + sample.seed % 2)
    return {"sequence": x, "idx_range": times, "window": 1 + sample.seed % 9, "margin": 1.5}


def lav(sample: Sample, step: int) -> dict[str, Any]:
    return {"sequences": sequences(sample, shortest=1), "min_temp": (0.1, 1.0)[sample.seed % 2]}


@contextlib.contextmanager
def exact_constant() -> Iterator[None]:
    """The old transport value without its gradient, which is rounding.

    The value is ``1e6 / (N M)`` times the mass of the plan. The last scaling of the rows makes that mass 1 whatever the
    costs are, so the gradient is zero; in float32 the old code gets ``1e6 / (N M)`` times the rounding of the
    mass, as large as the gradient of everything else together where sequences are short. The new loss has the constant.
    """
    module = twin_module("alignment.loss_functions")
    sink = module.sink

    def detached(*args: Any, **kwargs: Any) -> Any:
        cost, plan = sink(*args, **kwargs)
        return cost.detach(), plan

    with mock.patch.object(module, "sink", detached):
        yield


def ranks_are_clear(given: list[torch.Tensor], iterations: int) -> bool:
    """Whether rounding cannot change which entry of a row or column of a plan is the largest or the smallest.

    An entry is a kernel value (one rounding of the exponential, two of its argument) times two scalings, each of which
    gathers the roundings of a sum and a quotient per iteration: ``4 (iterations + 1)`` roundings; two are compared.
    """
    bound = 8 * (iterations + 1) * torch.finfo(torch.float32).eps
    for i, x in enumerate(given):
        for j, y in enumerate(given):
            if i == j:
                continue
            cost = torch.nn.functional.pad(torch.cdist(x.double(), y.double()), (1, 0, 1, 0), value=0.5)
            kernel = torch.exp(-cost / len(x))
            rows, columns = (torch.full((n,), 1 / n, dtype=torch.float64) for n in kernel.shape)
            u = rows
            for _ in range(iterations):
                v = columns / (kernel.T @ u)
                u = rows / (kernel @ v)
            plan = u[:, None] * kernel * v
            for dim in (0, 1):
                order = plan.sort(dim=dim).values
                first, last = order.narrow(dim, 0, 2), order.narrow(dim, order.shape[dim] - 2, 2)
                if any(bool((pair.diff(dim=dim) <= bound * pair.narrow(dim, 1, 1)).any()) for pair in (first, last)):
                    return False
    return True


def vava(sample: Sample, step: int) -> dict[str, Any]:
    given, iterations = sequences(sample), 3 + sample.seed % 20
    # the loss jumps where two entries of a plan are equal: other sequences then, at a distance from every jump
    for salt in range(1, 30):
        if ranks_are_clear(given, iterations):
            break
        given = [x + 0.25 * sample.randn(*x.shape, salt=100 * salt + i) for i, x in enumerate(given)]
    else:
        raise AssertionError("no sequences with clear ranks")
    return {"sequences": given, "global_step": sample.seed % 900, "maxIter": iterations}


def two(sample: Sample, step: int) -> dict[str, Any]:
    n, m = 1 + sample.seed % 13, 1 + sample.seed // 13 % 17
    return {"x": sample.randn(sample.batch, n, WIDTH, salt=1), "y": sample.randn(sample.batch, m, WIDTH, salt=2)}


def soft_kwargs(sample: Sample) -> dict[str, Any]:
    return {"gamma": (0.5, 1.0, 2.0)[sample.seed % 3]}


def single_precision(call: GoldenCall) -> bool:
    """Recorded in float32, with two sequences or more of two frames or more."""
    given = call.args[0] if isinstance(call.args[0], list) else [call.args[0]]
    valid = len(given) > 1 or isinstance(call.args[0], torch.Tensor)
    return call.dtype == torch.float32 and valid and all(len(x) > 1 for x in given)


def record(symbol: str, inputs: Any, **more: Any) -> ParityRecord:
    options = {"ids": NO_IDS, "train": (True,), "dtypes": (torch.float32,), "examples": 8} | more
    return ParityRecord(symbol, inputs, system=SYSTEM, **options)


RECORDS = [
    record("loss_functions.TCC_loss", tcc, golden=single_precision, factor=5.0),
    record(
        "loss_functions.IntraContrast_loss",
        contrast,
        dtypes=(torch.float64, torch.float32),
        golden=lambda call: True,
    ),
    # both keep float32 tables: rounding of R_ij / gamma (up to 1e4) shows in the gradient
    record("loss_functions.LAV_loss", lav, golden=single_precision, factor=5.0),
    record("loss_functions.VAVA_loss", vava, golden=single_precision, within=exact_constant),
    record("softdtw.SoftDTW", two, kwargs=soft_kwargs),
    record("softdtw.SoftDTW", two, variant="divergence", kwargs=lambda s: soft_kwargs(s) | {"normalize": True}),
    record("soft_dtw_cuda.SoftDTW", two, kwargs=lambda s: soft_kwargs(s) | {"dtw_dist": "cosine_dis"}),
]
