"""Attributes of the old classes: each has a row, and the new loss answers it by this row or says what to do."""

from __future__ import annotations

import ast
import copy
import inspect
import runpy
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.contract.record import LossRecord
from tests.contract.record import all_records as contract_records
from tests.parity.records_triangulate import ImageRecord, networks, seeded_features
from tests.support.parity import ParityRecord, Sample, all_records
from training_losses.base import BaseLoss, compat
from training_losses.migration.catalog import Symbol, builtin_catalog
from training_losses.migration.parity import Pair, build_pair
from training_losses.migration.resolve import resolve

ROOT = Path(__file__).parents[2]
CLASSES = [symbol for symbol in builtin_catalog().symbols if symbol.kind == "class"]
RECORDS = [r for r in all_records() if r.row.kind == "class" and r.by_hand is None and not r.reason]
CALLED = [r for r in RECORDS if type(r) in (ParityRecord, ImageRecord)]
"""Records whose inputs are those of one call."""


def assigned(cls: type) -> Iterator[str]:
    """Names that the source of ``cls`` gives to its instances."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    for node in ast.walk(body):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            yield from [node.attr] * (node.value.id == "self")
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "").startswith("register_"):
            yield from (str(part.value) for part in node.args[:1] if isinstance(part, ast.Constant))
    for node in body.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    yield target.id


def public(symbol: Symbol) -> list[str]:
    """The public attributes of an old class that torch does not give to every module."""
    twin = resolve(symbol.twin)
    known = {*dir(nn.Module), "training"}
    names = {name for cls in twin.__mro__ if ".legacy." in cls.__module__ for name in assigned(cls)}
    return sorted(name for name in names if not name.startswith("_") and name not in known)


@pytest.mark.parametrize("symbol", CLASSES, ids=lambda s: f"{s.system}-{s.old}")
def test_every_public_attribute_has_a_row(symbol: Symbol) -> None:
    for case in symbol.cases:
        assert not set(public(symbol)) - set(case.members), case.describe()


def test_the_table_of_names_is_current() -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "old_members.py"))
    assert tool["FILE"].read_text(encoding="utf-8") == tool["text"]()


@pytest.mark.parametrize("record", contract_records(), ids=lambda r: r.id)
def test_no_loss_asks_for_old_members_itself(record: LossRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "bridge", lambda: pytest.fail("the catalog is asked"))
    loss = record.build()
    for part in loss.modules():
        if isinstance(part, BaseLoss):
            own = {*vars(part), *dir(type(part)), *part._parameters, *part._buffers, *part._modules}
            assert not part._old_members & own


def built(record: ParityRecord) -> Pair:
    sample = Sample(max(record.batch[0], min(6, record.batch[1])), 8, record.ids[0], torch.float64, record.train[0], 5)
    prepare = record.prepare
    return build_pair(
        record.row,
        seed=5,
        train=record.train[0],
        prepare=None if prepare is None else lambda twin: prepare(twin, sample),
        **record.kwargs(sample),
    )


@pytest.fixture(autouse=True)
def _networks() -> Iterator[None]:
    """Nobody downloads a network."""
    with networks(seeded_features(5)):
        yield


def answered(record: ParityRecord, name: str, use: Callable[[], Any]) -> tuple[str, Any]:
    """What the error of ``use`` says that is due where there is no answer, and the answer (which warns)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = use()
        except AttributeError as error:
            text = str(error)
            if f"{name!r} of the old {record.row.name} is" not in text:
                raise
            return text, None
    assert [f"attribute '{name}'" in str(w.message) and w.filename == __file__ for w in caught] == [True]
    return "", found


def same(new: Any, old: Any) -> bool:
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return len(new) == len(old) and all(map(same, new, old))
    if isinstance(old, Tensor | float) or isinstance(new, Tensor):
        return torch.allclose(torch.as_tensor(new).double(), torch.as_tensor(old).double())
    return (callable(new) and callable(old)) or bool(new == old)


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.id)
def test_reading_gives_the_old_value_or_says_what_to_do(record: ParityRecord) -> None:
    pair = built(record)
    if not isinstance(pair.new, BaseLoss):
        pytest.skip("what came of it is no loss")
    for name in pair.new._old_members & set(public(record.row)):
        if not hasattr(pair.old, name):
            continue
        old = getattr(pair.old, name)
        said, new = answered(record, name, lambda name=name: getattr(pair.new, name))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert hasattr(pair.new, name) == (not said)
        if said:
            continue
        if isinstance(old, bool | int | float | str | tuple | list | Tensor):
            assert same(new, old), name
        else:
            assert callable(new) == callable(old), name


def changed(value: Any) -> Any:
    return not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else 0.5 * value + 0.125


def raises(pair: Pair, inputs: dict[str, Any]) -> bool:
    """Whether the old class breaks with what it was given."""
    try:
        copy.deepcopy(pair.old)(**inputs)
    except Exception:  # the old classes raise whatever happens to them
        return True
    return False


def numbers(pair: Pair, record: ParityRecord) -> Iterator[str]:
    """Numbers of the old class that the new one answers by the same name, or has by the same name and meaning."""
    for name in public(record.row):
        value = getattr(pair.old, name, None)
        missed = name in pair.new._old_members
        shared = not missed and isinstance(pair.case.members[name], str) and hasattr(pair.new, name)
        if isinstance(value, bool | int | float) and (missed or shared):
            yield name


@pytest.mark.parametrize("record", CALLED, ids=lambda r: r.id)
def test_writing_does_what_it_did_or_says_what_to_do(record: ParityRecord) -> None:
    first = built(record)
    if not isinstance(first.new, BaseLoss):
        pytest.skip("what came of it is no loss")
    sample = Sample(max(record.batch[0], min(6, record.batch[1])), 8, record.ids[0], torch.float64, record.train[0], 5)
    for name in numbers(first, record):
        pair = built(record)
        value = changed(getattr(pair.old, name))
        if name not in pair.new._old_members:
            setattr(pair.new, name, value)
        elif answered(record, name, lambda: setattr(pair.new, name, value))[0]:  # noqa: B023 (called at once)
            continue
        setattr(pair.old, name, value)
        assert name not in pair.new._old_members & {*vars(pair.new)}
        for step in range(record.steps):
            if raises(pair, record.inputs(sample, step)):
                break
            comparison = pair.compare(seed=step, backward=record.backward, **record.inputs(sample, step))
            assert not comparison.failures(torch.float32, factor=record.factor), name


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.id)
def test_names_of_both_mean_the_same_or_are_reported(record: ParityRecord) -> None:
    """What both classes have is read without a miss: a row that is no plain name is a finding of the codemod."""
    pair = built(record)
    for name in set(public(record.row)) - getattr(pair.new, "_old_members", frozenset()):
        if isinstance(pair.case.members[name], str) and hasattr(pair.new, name) and hasattr(pair.old, name):
            assert same(getattr(pair.new, name), getattr(pair.old, name)), name
