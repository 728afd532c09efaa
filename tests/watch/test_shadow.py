"""The other loss beside the one that trains: the training is bitwise the same, and deviations are found."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.support.parity import ParityRecord, Sample, all_records
from training_losses.contrastive.clip_loss import CLIPLoss
from training_losses.contrastive.moco_loss import MemoryQueueLoss
from training_losses.migration import watch
from training_losses.migration.__main__ import main
from training_losses.migration.catalog import builtin_catalog
from training_losses.migration.parity import resolve
from training_losses.migration.watch.beside import sampled

CLIPStyleLoss = resolve("training_losses.legacy.clip_style_loss.CLIPStyleLoss")


def classes() -> Iterator[Any]:
    """One record of every old class whose calls translate."""
    seen: set[str] = set()
    for record in all_records():
        plain = type(record) is ParityRecord and record.by_hand is None and not record.reason
        if plain and record.row.kind == "class" and record.row.twin not in seen:
            seen.add(record.row.twin)
            yield pytest.param(record, id=record.id)


@pytest.fixture
def restored() -> Iterator[None]:
    """Whatever is attached to a class goes away."""
    kept = [
        (cls, name, cls.__dict__.get(name))
        for symbol in builtin_catalog().symbols
        for path in (symbol.twin, *(case.new for case in symbol.cases if case.new))
        if isinstance(cls := resolve(path), type)
        for name in ("__init__", "forward", "__call__")
    ]
    yield
    for cls, name, value in kept:
        if value is not None:
            setattr(cls, name, value)
        elif name in cls.__dict__:
            delattr(cls, name)


def _states() -> list[Any]:
    return [torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()]  # noqa: NPY002


def _train(record: ParityRecord, sample: Sample, autocast: bool, rate: float) -> tuple[list[Any], Any]:
    """Three steps with gradients; everything that they leave, and the shadow."""
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    loss: nn.Module = resolve(record.row.twin)(**record.kwargs(sample))
    loss.to(sample.dtype).train(sample.train)
    if record.prepare is not None:
        record.prepare(loss, sample)
    shadow = watch.shadow(loss, rate) if rate else None
    left: list[Any] = []
    for step in range(3):
        given = copy.deepcopy(record.inputs(sample, step))
        leaves = [
            t.requires_grad_() for t in pytree.tree_leaves(given) if isinstance(t, Tensor) and t.is_floating_point()
        ]
        with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
            result = loss(**given)
        carrying = [t for t in pytree.tree_leaves(dict(result) if isinstance(result, dict) else result)
                    if isinstance(t, Tensor) and t.requires_grad]  # fmt: skip
        if carrying:
            carrying[0].sum().backward()
        left += [[t.grad for t in leaves], pytree.tree_leaves(dict(result) if isinstance(result, dict) else result)]
    left += [loss.state_dict(), [p.grad for p in loss.parameters()], _states()]
    return left, shadow


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b) or (a != a and b != b)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("record", list(classes()))
def test_the_training_is_bitwise_the_same(record: ParityRecord, autocast: bool) -> None:
    ids = "unique" if "unique" in record.ids else record.ids[0]
    sample = Sample(batch=4, dim=6, ids=ids, dtype=torch.float32, train=record.train[0], seed=3)
    plain, _ = _train(record, sample, autocast, 0.0)
    shadowed, shadow = _train(record, sample, autocast, 1.0)
    assert _same(plain, shadowed)
    if not autocast:
        told = [text for text in shadow.findings if "not compared" not in text]
        assert told == []


@pytest.mark.usefixtures("restored")
def test_a_deviation_is_found_at_its_call() -> None:
    loss = CLIPStyleLoss(0.1)
    shadow = watch.shadow(loss, 1.0)
    x, y = torch.randn(6, 4), torch.randn(6, 4)
    loss(x, y)
    assert shadow.findings == []
    loss(x, y, match_ids=torch.tensor([0, 0, 1, 1, 2, 2]))  # outside the domain of the row
    assert shadow.compared == 2
    (text,) = shadow.findings
    assert "call 2" in text
    assert "test_shadow.py" in text
    shadow.close()
    loss(x, y)
    assert shadow.compared == 2


@pytest.mark.usefixtures("restored")
def test_attributes_that_were_written_go_with_it() -> None:
    loss = CLIPStyleLoss(0.1)
    shadow = watch.shadow(loss, 1.0)
    loss.temperature = 0.5
    with torch.no_grad():
        loss(torch.randn(6, 4), torch.randn(6, 4))
    with torch.inference_mode():
        loss(torch.randn(6, 4), torch.randn(6, 4))
    assert shadow.findings == []
    assert shadow.compared == 2


@pytest.mark.usefixtures("restored")
def test_new_losses_are_compared_with_the_old_ones() -> None:
    for loss, given in ((CLIPLoss(temperature=0.2), {}), (MemoryQueueLoss(embed_dim=4, queue_size=8), {})):
        shadow = watch.shadow(loss, 1.0)
        state = torch.get_rng_state()
        for step in range(3):
            x = torch.randn(4, 4, generator=torch.Generator().manual_seed(step), requires_grad=True)
            made = loss(x, torch.randn(4, 4, generator=torch.Generator().manual_seed(9)), **given)
            (made["loss"] if isinstance(made, dict) else made).backward()
        assert torch.equal(torch.get_rng_state(), state)
        assert [text for text in shadow.findings if "not compared" not in text] == []


def test_bad_rates_and_losses() -> None:
    with pytest.raises(ValueError, match="rate must be above 0 and at most 1, found 2"):
        watch.shadow(CLIPStyleLoss(), 2)
    with pytest.raises(ValueError, match=r"loss: no row of the catalog names torch\.nn\.modules\.loss\.MSELoss"):
        watch.shadow(nn.MSELoss(), 0.5)


@pytest.mark.parametrize("rate", [1.0, 0.5, 0.1, 0.013])
def test_the_sample_has_the_first_call_and_the_rate(rate: float) -> None:
    chosen = [n for n in range(10000) if sampled(n, rate)]
    assert chosen[0] == 0
    assert len(chosen) == pytest.approx(10000 * rate, abs=1.5)


SCRIPT = """
import sys, torch
from src.training.losses.clip_style_loss import CLIPStyleLoss
torch.manual_seed(0)
loss = CLIPStyleLoss(0.1)
for step in range(6):
    ids = torch.arange(6) // (1 + (step == 4 and "apart" in sys.argv))
    out = loss(torch.randn(6, 4), torch.randn(6, 4), match_ids=ids)
    print(out["loss"].item().hex())
"""


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize(("words", "code"), [([], 0), (["apart"], 1)])
def test_run_with_a_shadow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], code: int
) -> None:
    monkeypatch.setattr("sys.argv", ["x"])
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.setenv("TRAINING_LOSSES_SHIMS", "1")
    script = tmp_path / "main.py"
    script.write_text(SCRIPT, encoding="utf-8")
    page, log = tmp_path / "page.html", tmp_path / "log"
    with pytest.warns(DeprecationWarning, match="CLIPStyleLoss is deprecated"):
        assert main(["run", str(script), *words]) == 0
    plain = capsys.readouterr().out
    options = ["--shadow-log", str(log), "--shadow-html", str(page), "--shadow-format", "json"]
    with pytest.warns(DeprecationWarning, match="CLIPStyleLoss is deprecated"):
        assert main(["run", "--shadow", "1", *options, str(script), *words]) == code
    printed = capsys.readouterr()
    assert printed.out == plain
    data = json.loads(printed.err)
    assert data["exit_code"] == code
    assert data["places"][0]["compared"] == 6
    assert data["places"][0]["line"] == 5
    lines = [json.loads(line) for file in log.iterdir() for line in file.read_text().splitlines()]
    assert [line["call"] for line in lines] == list(range(6))
    assert [bool(line["differs"]) for line in lines] == [False] * 4 + [bool(code), False]
    assert "<svg" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [["--shadow", "0"], ["--shadow", "1", "--shadow-new", "1"], ["--shadow-new", "7"]])
def test_run_refuses_bad_rates(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x"])
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    monkeypatch.setenv("TRAINING_LOSSES_SHIMS", "1")
    script = tmp_path / "main.py"
    script.write_text("raise RuntimeError", encoding="utf-8")
    assert main(["run", *words, str(script)]) == 2
