"""Contract records of ``training_losses.alignment``; the batch is the number of sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tests.contract.record import Inputs, LossRecord, draw

ON_HOST = "decides on the host or loops over diagonals in Python; the docstring says so"
EXEMPT = {"compiles": ON_HOST}
NO_FIT_GRADIENT = {"gradcheck": "no gradient goes through the mixture fit, which the value depends on"}


def sequences(g: torch.Generator, dtype: torch.dtype, batch: int) -> list[torch.Tensor]:
    return [0.5 * draw(g, dtype, n, 3) for n in ([5, 3, 4, 6] * 2)[:batch]]


def listed(**more: Any) -> Callable[[torch.Generator, torch.dtype, int], Inputs]:
    return lambda g, dtype, batch: {"sequences": sequences(g, dtype, batch), **more}


def dropped(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    return {"sequences": sequences(g, dtype, batch), "drop_vectors": [draw(g, dtype, 4) for _ in range(batch)]}


def bad(key: str = "sequences") -> dict[str, Callable[[Inputs], Inputs]]:
    def change(edit: Callable[[list[torch.Tensor]], Any]) -> Callable[[Inputs], Inputs]:
        return lambda inputs: {**inputs, key: edit(list(inputs[key]))}

    return {
        "a tensor": change(lambda s: torch.stack([s[0], s[0]])),
        "an empty list": change(lambda s: []),
        "three dimensions": change(lambda s: [s[0][None], *s[1:]]),
        "other widths": change(lambda s: [s[0][:, :2], *s[1:]]),
        "no frame": change(lambda s: [s[0][:0], *s[1:]]),
        "other dtypes": change(lambda s: [s[0].double(), s[1].float(), *s[2:]]),
        "integers": change(lambda s: [x.long() for x in s]),
    }


def loss(name: str, variant: str = "", forward: dict[str, Any] | None = None, **more: Any) -> LossRecord:
    options = {"exempt": EXEMPT, "bad": bad()} | more
    return LossRecord(name, listed(**(forward or {})), grad=("sequences",), variant=variant, **options)


def everything(key: str) -> Callable[[Inputs, float], dict[str, Any]]:
    return lambda inputs, bad: {key: [torch.ones_like(x, dtype=torch.bool) for x in inputs[key]]}


def behind_the_lengths(inputs: Inputs, bad: float) -> Inputs:
    return {
        side: torch.arange(inputs[side].shape[1])[:, None].expand(inputs[side].shape)
        >= torch.tensor(inputs[f"lengths_{side}"])[:, None, None]
        for side in ("x", "y")
    }


def cut_pair(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    lengths = {f"lengths_{side}": [size - i % 2 for i in range(batch)] for side, size in (("x", 5), ("y", 4))}
    return {**pair(g, dtype, batch), **lengths}


def embeddings(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    frames = 3 + batch if batch else 0
    return {"embeddings": 0.5 * draw(g, dtype, frames, 3)}


def pair(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    return {"x": 0.5 * draw(g, dtype, batch, 5, 3), "y": 0.5 * draw(g, dtype, batch, 4, 3)}


def objective(g: torch.Generator, dtype: torch.dtype, batch: int) -> Inputs:
    return {"model_output": {"outputs": sequences(g, dtype, batch)}}


PAPER_TCC = {"variance": "per_frame", "include_self_pairs": False, "distance": "squared_euclidean", "log_term": "var"}

RECORDS = [
    LossRecord(
        "intra_contrast",
        embeddings,
        grad=("embeddings",),
        kwargs={"window": 2},
        reductions=("sum", "mean"),
        bad={
            "one dimension": lambda inputs: {"embeddings": inputs["embeddings"][:, 0]},
            "timestamps": lambda inputs: {**inputs, "timestamps": torch.arange(2)},
        },
    ),
    LossRecord(
        "intra_contrast",
        embeddings,
        grad=("embeddings",),
        variant="attracting",
        kwargs={"window": 2, "near_term": "distance", "distance": "squared_euclidean", "inclusive_window": True},
        reductions=("sum", "mean"),
        bad={"one dimension": lambda inputs: {"embeddings": inputs["embeddings"][:, 0]}},
    ),
    loss("tcc"),
    loss("tcc", "paper", kwargs=PAPER_TCC),
    loss("lav", kwargs={"contrast": {"window": 2}}, half_atol=5e-2),
    loss("lav", "paper", kwargs={"normalize_embeddings": True, "divergence": True}, half_atol=5e-2),
    loss("vava", forward={"step": 5}, half_atol=0.5),
    loss(
        "vava",
        "cost",
        forward={"step": 5},
        kwargs={"transport_value": "expected_cost", "epsilon": 0.5},
        half_atol=0.5,
        exempt=EXEMPT | {"gradcheck": "the envelope gradient is that of the entropic optimum, not of <T, D> itself"},
    ),
    loss("vava", "log domain", forward={"step": 5}, kwargs={"sinkhorn_method": "log"}, half_atol=0.5),
    loss("gtcc", kwargs={"num_components": 2, "fit_steps": 1}, exempt=EXEMPT | NO_FIT_GRADIENT),
    LossRecord(
        "gtcc",
        dropped,
        grad=("sequences", "drop_vectors"),
        variant="drops",
        kwargs={"keep_floor_decay": 0.5, "fit_steps": 1, "stable": True, "on_failure": "skip"},
        bad={"vectors of another length": lambda inputs: {**inputs, "drop_vectors": inputs["drop_vectors"][1:]}},
        # left out, by on_failure="skip"
        idle=lambda inputs, bad: everything("sequences")(inputs, bad) | everything("drop_vectors")(inputs, bad),
        exempt=EXEMPT
        | NO_FIT_GRADIENT
        | {"float16_inputs_with_loss_scaling": "1 / L has no bound: its gradients exceed the range of float16"}
        | {"overflow_shows_or_is_right": "frames whose distances overflow are left out like others that fail"},
    ),
    LossRecord(
        "soft_dtw",
        pair,
        grad=("x", "y"),
        reductions=("none", "mean", "sum"),
        bad={
            "other widths": lambda inputs: {**inputs, "x": inputs["x"][..., :2]},
            "one dimension less": lambda inputs: {**inputs, "x": inputs["x"][0]},
            "lengths": lambda inputs: {**inputs, "lengths_x": [9] * len(inputs["x"])},
            "batches": lambda inputs: {**inputs, "y": inputs["y"][:3]},
        },
        exempt=EXEMPT,
    ),
    LossRecord(
        "soft_dtw",
        pair,
        grad=("x", "y"),
        variant="cosine",
        kwargs={"distance": "cosine", "open_end": True, "normalize_by_length": True, "bandwidth": 2},
        reductions=("none", "mean", "sum"),
        exempt=EXEMPT,
    ),
    LossRecord(
        "soft_dtw",
        cut_pair,
        grad=("x", "y"),
        variant="lengths",
        reductions=("none", "mean", "sum"),
        bad={"batches": lambda inputs: {**inputs, "y": inputs["y"][:3]}},
        idle=behind_the_lengths,
        exempt=EXEMPT,
    ),
    LossRecord(
        "alignment",
        objective,
        grad=("model_output",),
        kwargs={"losses": {"tcc": {}, "lav": {"smoothing": 1.0}}, "weights": {"lav": 0.1}},
        bad={
            "no batch": lambda inputs: {"model_output": []},
            "no outputs": lambda inputs: {"model_output": {"frames": []}},
        },
        exempt=EXEMPT,
        half_atol=5e-2,
    ),
]
