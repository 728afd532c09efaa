"""Contract records of the balancers over given values (those that own their terms are in records_perceptual.py)."""

from __future__ import annotations

import torch

from tests.contract.record import Inputs, LossRecord, draw

NAMES = ["perceptual", "l1", "lpips"]


def values(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    """Three positive scalars; a batch of scalars does not exist, so its size does not matter."""
    return {
        "values": {
            name: draw(g, dtype, 1)[0].abs() * scale + 0.1 for name, scale in zip(NAMES, (3, 1, 0.3), strict=True)
        }
    }


BAD = {
    "a term is missing": lambda inputs: {"values": {k: v for k, v in inputs["values"].items() if k != "l1"}},
    "a term is no scalar": lambda inputs: {"values": {**inputs["values"], "l1": torch.ones(2)}},
    "no mapping": lambda inputs: {"values": torch.ones(3)},
}
COMMON = {"grad": ("values",), "empty": "finite", "bad": BAD}


def record(name: str, variant: str = "", exempt: dict[str, str] | None = None, **kwargs: object) -> LossRecord:
    advance = (lambda loss, step: loss.step_schedule(step)) if "schedules" in kwargs else None
    return LossRecord(
        name, values, variant=variant, kwargs={"names": NAMES, **kwargs}, advance=advance, exempt=exempt or {}, **COMMON
    )


RAMP = {"type": "linear_ramp", "start": 0.1, "end": 0.5, "length": 2}
RECORDS = [
    record("geometric_mean"),
    record("geometric_mean", "log_sum", objective="log_sum", floor=1.0, schedules={"floor_weight": RAMP}),
    record("geometric_mean", "focus", objective="log_mean", focus=["l1"], exponents={"lpips": 2.0}),
    record("geometric_mean", "dynamic", {"gradcheck": "the dynamic epsilon is held constant"}, eps="dynamic"),
    record("uncertainty"),
    record("uncertainty", "range", likelihood={"l1": "laplace"}, log_variance_range=(-1.0, 2.0), log_scale=0.5),
    record("gradnorm"),
    record("product", exempt={"gradcheck": "the first batch is its own mean, which is held constant"}),
    record("product", "bounded", max_total=1e-3, normalize=False),
    record("product", "hybrid", product_weight=0.1, warmup=1, max_total=100.0, additive_weights={"l1": 0.1}),
]
