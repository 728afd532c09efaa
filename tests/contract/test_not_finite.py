"""What is not finite shows in the loss, and stays nowhere.  Records: ``record.py``."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tests.contract.record import Inputs, LossRecord
from tests.contract.test_contract import RECORDS, detached, for_records, gradients, same, steps, value
from training_losses._config_types import parameters

BAD = (math.nan, math.inf, -math.inf)


def spoiled(record: LossRecord, bad: float, seed: int = 0) -> Iterator[tuple[str, bool, Inputs]]:
    """Inputs with one bad entry: where it is, whether it takes part there, and the inputs.

    Of every tensor the first and the last entry that takes part, and as many of those that do not.
    """
    inputs = detached(record.make(seed=seed))
    masks = {} if record.idle is None else record.idle(inputs, bad)
    idle = {pytree.keystr(path): mask for path, mask in pytree.tree_flatten_with_path(dict(masks))[0]}
    leaves, spec = pytree.tree_flatten_with_path(inputs)
    assert idle.keys() <= {pytree.keystr(path) for path, _ in leaves}, "idle names what is no input"
    for at, (path, leaf) in enumerate(leaves):
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            continue
        where = pytree.keystr(path)
        resting = torch.as_tensor(idle.get(where, False)).expand(leaf.shape).flatten()
        for takes_part, places in ((True, ~resting), (False, resting)):
            found = places.nonzero().flatten().tolist()
            for place in sorted({found[0], found[-1]}) if found else ():
                changed = leaf.flatten().clone()
                changed[place] = bad
                flat = [x for _, x in leaves]
                flat[at] = changed.view(leaf.shape)
                yield f"{where}[{place}] = {bad}", takes_part, record.change(pytree.tree_unflatten(flat, spec), _same)


def _same(x: Tensor) -> Tensor:
    return x


def prepared(record: LossRecord) -> nn.Module:
    loss = record.build()
    if record.advance is not None:
        record.advance(loss, 1)
    return loss


def fails(loss: Any, inputs: Inputs) -> bool:
    """Whether the loss is not finite, or says so."""
    try:
        return not bool(torch.isfinite(value(loss(**inputs))).all())
    except FloatingPointError:
        return True


@for_records
@pytest.mark.parametrize("bad", BAD)
def test_bad_inputs_show(record: LossRecord, bad: float) -> None:
    loss = prepared(record)
    for where, takes_part, inputs in spoiled(record, bad):
        if takes_part:
            assert fails(copy.deepcopy(loss), inputs), f"{where}: a finite loss"
        else:
            check_idle(record, copy.deepcopy(loss), inputs, where)


def check_idle(record: LossRecord, loss: nn.Module, inputs: Inputs, where: str) -> None:
    got = value(loss(**inputs)).sum()
    assert torch.isfinite(got), f"{where}: takes no part, but the loss is {got}"
    for grad in gradients(record, loss, inputs, got):
        assert grad is None or torch.isfinite(grad).all(), f"{where}: takes no part, but a gradient is not finite"


def has_state(record: LossRecord, loss: nn.Module) -> bool:
    """Whether calls change what the loss saves."""
    before = copy.deepcopy(detached(dict(loss.state_dict())))
    loss(**record.make(seed=5))
    flat = zip(pytree.tree_leaves(before), pytree.tree_leaves(dict(loss.state_dict())), strict=True)
    return any(not torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in flat)


def check_untouched(record: LossRecord, loss: nn.Module, other: nn.Module, where: str) -> None:
    """``loss``, which has seen a bad batch, is where ``other`` is, which has not."""
    try:
        same(detached(dict(loss.state_dict())), detached(dict(other.state_dict())))
        same(steps(record, loss, range(2, 4)), steps(record, other, range(2, 4)))
    except AssertionError as error:
        raise AssertionError(f"{where}: the state is another one after this batch") from error


def of_each_input(record: LossRecord) -> list[tuple[str, Inputs]]:
    """Inputs with one bad entry that takes part, for every tensor; NaN, inf and -inf by turns."""
    found = {}
    for bad in BAD:
        entries = [(where, inputs) for where, takes_part, inputs in spoiled(record, bad, seed=9) if takes_part]
        found |= {(where.partition(" ")[0], bad): (where, inputs) for where, inputs in entries}
    return [entry for turn, entry in enumerate(found.values()) if turn % 4 == 0]


STATEFUL = [r for r in RECORDS if has_state(r, prepared(r))]


@pytest.mark.parametrize("record", STATEFUL, ids=[r.id for r in STATEFUL])
def test_state_survives_a_bad_batch(record: LossRecord) -> None:
    loss = record.build()
    steps(record, loss, range(2))
    for where, inputs in of_each_input(record):
        spoilt = copy.deepcopy(loss)
        assert fails(spoilt, inputs), where
        check_untouched(record, spoilt, copy.deepcopy(loss), where)


COMPILED = [r for r in STATEFUL if "compiles" not in r.exempt]


@pytest.mark.parametrize("record", COMPILED, ids=[r.id for r in COMPILED])
def test_state_survives_a_bad_batch_when_compiled(record: LossRecord) -> None:
    torch._dynamo.reset()
    loss, other = prepared(record), prepared(record)
    call = torch.compile(loss, fullgraph=True, backend="eager")
    for one in (call, other):
        one(**record.make(seed=0))
    for where, inputs in of_each_input(record)[::4]:
        assert fails(call, inputs), where
        for (key, got), want in zip(loss.state_dict().items(), other.state_dict().values(), strict=True):
            torch.testing.assert_close(got, want, msg=lambda text, k=key, w=where: f"{w}: {k}: {text}")


@for_records
def test_overflow_shows_or_is_right(record: LossRecord) -> None:
    """Squares of float32 overflow above 1.8e19; a norm that is infinite must not turn its row into zeros."""
    for scale in (1e20, 1e30):
        large = record.change(record.make(), lambda x, s=scale: x * s)
        found = []
        for dtype in (torch.float32, torch.float64):
            loss = prepared(record).to(dtype)
            inputs = pytree.tree_map(lambda x, d=dtype: x.to(d) if floating(x) else x, large)
            inputs = record.change(inputs, _same)
            try:
                total = value(loss(**inputs)).sum()
            except FloatingPointError:
                total = torch.tensor(torch.nan)
            if torch.isfinite(total):
                found.append((total.detach(), gradients(record, loss, inputs, total)))
            elif dtype == torch.float32:
                break
        else:
            (got, grads), (want, true_grads) = found
            torch.testing.assert_close(got.double(), want, rtol=1e-2, atol=1e-6)
            for grad, true in zip(grads, true_grads, strict=True):
                if grad is not None and true is not None:
                    torch.testing.assert_close(grad.double(), true, rtol=0, atol=0.05 * float(true.abs().max()) + 1e-37)


def floating(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


LEARNABLE = [r for r in RECORDS if not r.variant and "learnable_temperature" in parameters(type(r.build()))]


@pytest.mark.parametrize("record", LEARNABLE, ids=[r.id for r in LEARNABLE])
@pytest.mark.parametrize("start", [None, 4.6052, 5.0, 89.0, 1e4])
def test_learnable_temperature_comes_back_from_its_bound(record: LossRecord, start: float | None) -> None:
    loss = record.build(learnable_temperature=True, temperature=0.01)
    if start is not None:  # as loaded
        loss.load_state_dict(loss.state_dict() | {"logit_scale": torch.tensor(start)})
    assert float(loss.scale.detach()) == loss.max_scale == 100.0
    loss(**record.make(seed=1))  # a queue is empty at first
    inputs, found = record.make(), []
    for sign in (1.0, -1.0):
        total = sign * value(copy.deepcopy(loss)(**inputs)).sum()
        assert torch.isfinite(total)
        (grad,) = torch.autograd.grad(sign * value(loss(**inputs)).sum(), loss.logit_scale)
        found.append(float(grad))
    # one of both leads back inside, and passes; the other one leads out
    assert min(found) == 0.0 < max(found) < math.inf


@pytest.mark.parametrize("record", LEARNABLE, ids=[r.id for r in LEARNABLE])
def test_a_temperature_that_is_not_finite_shows(record: LossRecord) -> None:
    loss = record.build(learnable_temperature=True)
    with torch.no_grad():
        loss.logit_scale.fill_(math.nan)
    assert fails(loss, record.make())
