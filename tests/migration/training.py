"""Train an old loss, move its checkpoint to the successor, and continue both."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.parity import ParityRecord, Sample
from training_losses.migration.catalog import Case, Symbol, builtin_catalog
from training_losses.migration.checkpoint import convert_file
from training_losses.migration.parity import _flatten, _loss, resolve
from training_losses.migration.translate import translate, translate_forward

BEFORE, AFTER = 4, 20


def row_id(symbol: Symbol, case: Case) -> str:
    return f"{symbol.system}: {symbol.old}" + (f" [{case.describe()}]" if case.when else "")


def rows_with_state() -> dict[str, tuple[Symbol, Case]]:
    return {row_id(s, c): (s, c) for s, c in builtin_catalog().successors() if c.state}


@dataclass
class Run:
    """A loss in training: what is called, with what, and the optimizer of its parameters (if it has any)."""

    loss: nn.Module
    call: Callable[[int], Any]
    optimizer: torch.optim.Optimizer | None
    seed: int

    def step(self, number: int) -> float:
        torch.manual_seed(self.seed + number)
        loss: Tensor = _loss(_flatten(self.call(number))).sum()
        if self.optimizer is not None and loss.requires_grad:
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return float(loss.detach())


def optimizer_of(loss: nn.Module) -> torch.optim.Optimizer | None:
    parameters = [p for p in loss.parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=1e-3) if parameters else None


def sample_of(record: ParityRecord, seed: int) -> Sample:
    dtype = torch.float64 if torch.float64 in record.dtypes else torch.float32
    batch = min(record.batch[1], max(record.batch[0], 6))
    return Sample(batch, 7, record.ids[seed % len(record.ids)], dtype, record.train[0], seed)


def old_run(record: ParityRecord, sample: Sample) -> tuple[Run, Case, dict[str, Any]]:
    """The twin of a parity record, the row that holds, and the arguments of the successor."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sample.seed)
        kwargs = record.kwargs(sample)
        case, _ = translate(record.row, (), kwargs)
        twin = resolve(record.row.twin)(**kwargs).to(sample.dtype).train(sample.train)
        if record.prepare is not None:
            record.prepare(twin, sample)
            twin.to(sample.dtype)
        torch.manual_seed(sample.seed)
        # modules among the arguments must not be shared by both runs
        new_kwargs = translate(record.row, (), record.kwargs(sample))[1]

    def call(step: int) -> Any:
        return twin(**copy.deepcopy(record.inputs(sample, step)))

    return Run(twin, call, optimizer_of(twin), sample.seed), case, new_kwargs


def new_run(record: ParityRecord, sample: Sample, case: Case, kwargs: dict[str, Any]) -> Run:
    assert case.new is not None
    loss = resolve(case.new)(**kwargs).to(sample.dtype).train(sample.train)

    def call(step: int) -> Any:
        return loss(**translate_forward(case, (), copy.deepcopy(record.inputs(sample, step))))

    return Run(loss, call, optimizer_of(loss), sample.seed)


def checkpoint(run: Run) -> dict[str, Any]:
    """The layout of Lightning: a model with a loss inside, optimizer states in a list."""
    state = {"backbone.weight": torch.ones(2, 2)}
    state |= {f"criterion.{k}": v.clone() for k, v in run.loss.state_dict().items()}
    optimizers = [] if run.optimizer is None else [copy.deepcopy(run.optimizer.state_dict())]
    return {"epoch": 3, "state_dict": state, "optimizer_states": optimizers, "lr_schedulers": []}


def restore(run: Run, content: dict[str, Any]) -> None:
    """Load a checkpoint strictly."""
    below = {k.partition(".")[2]: v for k, v in content["state_dict"].items() if k.startswith("criterion.")}
    run.loss.load_state_dict(below)
    if run.optimizer is not None:
        run.optimizer.load_state_dict(content["optimizer_states"][0])


def convert(content: dict[str, Any], symbol: Symbol, folder: Path, **kwargs: Any) -> dict[str, Any]:
    """Save, convert, load."""
    path = folder / "run.ckpt"
    torch.save(content, path)
    has_state = any(key.startswith("criterion.") for key in content["state_dict"])
    losses = [f"criterion={symbol.twin}"] if has_state else []
    plan, written = convert_file(path, builtin_catalog(), write=True, losses=losses, force=True, **kwargs)
    assert not plan.problems, plan.problems
    assert (written is not None) == bool(plan.changes)
    return torch.load(written or path, weights_only=True)


def same(a: Any, b: Any) -> None:
    """Equal trees; tensors bitwise and of the same dtype."""
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key, value in a.items():
            same(value, b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    else:
        assert a == b


def close(old: Run, new: Run, first: int, steps: int = AFTER) -> None:
    """Both continue with the same losses, to 1e-6 of each."""
    pairs = [(old.step(first + i), new.step(first + i)) for i in range(steps)]
    worst = max(abs(a - b) / (1 + abs(a)) for a, b in pairs)
    assert worst <= 1e-6, pairs
