"""Alignment losses in float32, and in float64 where the old code took it; float64 throughout: ``test_alignment.py``."""

from __future__ import annotations

from typing import Any

import torch

from tests.support.parity import GoldenCall, ParityRecord, Sample

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


def vava(sample: Sample, step: int) -> dict[str, Any]:
    return {"sequences": sequences(sample), "global_step": sample.seed % 900, "maxIter": 3 + sample.seed % 20}


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
    record("loss_functions.VAVA_loss", vava, golden=single_precision, factor=5.0),
    record("softdtw.SoftDTW", two, kwargs=soft_kwargs),
    record("softdtw.SoftDTW", two, variant="divergence", kwargs=lambda s: soft_kwargs(s) | {"normalize": True}),
    record("soft_dtw_cuda.SoftDTW", two, kwargs=lambda s: soft_kwargs(s) | {"dtw_dist": "cosine_dis"}),
]
