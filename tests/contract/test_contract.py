"""The contract that every registered loss keeps.  Records and how to add one: ``record.py``."""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import pickle
import pkgutil
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils import _pytree as pytree

import training_losses
from tests.contract.record import Inputs, LossRecord, all_records
from training_losses._config_types import parameters
from training_losses._public import REGISTRY
from training_losses.base.output import LossOutput
from training_losses.loss_registry import LossRegistry

RECORDS = all_records()
DOCS = Path(__file__).parents[2] / "docs" / "losses"


def for_records(test: Any) -> Any:
    """Run a check on every record that is not exempt from it."""
    check = test.__name__.removeprefix("test_")
    chosen = [r for r in RECORDS if check not in r.exempt]
    return pytest.mark.parametrize("record", chosen, ids=[r.id for r in chosen])(test)


def value(out: Any) -> Tensor:
    return out["loss"] if isinstance(out, dict) else out


def plain(out: Any) -> Any:
    return dict(out) if isinstance(out, dict) else out


def detached(tree: Any) -> Any:
    return pytree.tree_map(lambda t: t.detach() if isinstance(t, Tensor) else t, tree)


def same(a: Any, b: Any, **tolerance: float) -> None:
    """Equal trees of tensors (bitwise unless a tolerance is given)."""
    flat_a, spec_a = pytree.tree_flatten(a)
    flat_b, spec_b = pytree.tree_flatten(b)
    assert str(spec_a) == str(spec_b)
    for x, y in zip(flat_a, flat_b, strict=True):
        if isinstance(x, Tensor):
            torch.testing.assert_close(x, y, **(tolerance or {"rtol": 0, "atol": 0}), equal_nan=True)
        else:
            assert x == y


def gradients(record: LossRecord, loss: nn.Module, inputs: Inputs, total: Tensor) -> list[Tensor | None]:
    parameters = [p for p in loss.parameters() if p.requires_grad]
    leaves = record.leaves(inputs) + parameters
    return list(torch.autograd.grad(total, leaves, allow_unused=True, retain_graph=True))


def check_finite(record: LossRecord, loss: nn.Module, inputs: Inputs) -> Tensor:
    """The value, after checking that it and every gradient are finite and that there is a graph."""
    got = value(loss(**inputs)).sum()
    assert torch.isfinite(got)
    assert got.requires_grad
    for grad in gradients(record, loss, inputs, got):
        assert grad is None or torch.isfinite(grad).all()
    return got.detach()


def steps(record: LossRecord, loss: nn.Module, seeds: range) -> list[Any]:
    """What a loss answers on consecutive steps: results, gradients and state."""
    seen = []
    for seed in seeds:
        if record.advance is not None:
            record.advance(loss, seed)
        inputs = record.make(seed=seed)
        out = loss(**inputs)
        grads = gradients(record, loss, inputs, value(out).sum())
        seen.append((detached(plain(out)), grads))
    return [seen, [(k, v.clone() if isinstance(v, Tensor) else v) for k, v in loss.state_dict().items()]]


def test_every_registered_loss_has_a_record_and_a_page() -> None:
    for module in pkgutil.walk_packages(training_losses.__path__, "training_losses."):
        importlib.import_module(module.name)
    registered = set(LossRegistry.available())
    assert registered == set(REGISTRY), "training_losses._public.REGISTRY must list what is registered"
    assert registered
    assert registered <= {r.name for r in RECORDS}, "losses without a record"
    assert {r.name for r in RECORDS} <= registered, "records without a loss"
    assert {n for n in registered if not (DOCS / f"{n}.md").is_file()} == set(), "losses without a page"


def test_records_are_well_formed() -> None:
    assert [i for i, n in Counter(r.id for r in RECORDS).items() if n > 1] == []
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    checks = {name for source in sources for name in re.findall(r"^def test_(\w+)", source, re.MULTILINE)}
    for record in RECORDS:
        assert set(record.exempt) <= checks, record.id
        assert all(len(reason) > 10 for reason in record.exempt.values()), record.id
        assert set(record.grad) <= set(record.make()), record.id
        if "compiles" in record.exempt:
            assert "torch.compile" in (type(record.build()).__doc__ or ""), f"{record.id}: the docstring must say why"


@for_records
def test_constructor_is_keyword_only_and_strict(record: LossRecord) -> None:
    with pytest.raises(TypeError):
        record.build(no_such_argument=1)
    parameters = inspect.signature(type(record.build()).__init__).parameters
    kinds = {p.kind for name, p in parameters.items() if name != "self"}
    # **kwargs only hands on to the parent class, which is as strict
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}


@for_records
def test_forward_rejects_unknown_keywords(record: LossRecord) -> None:
    with pytest.raises(TypeError):
        record.build()(**record.make(), no_such_argument=1)


@for_records
def test_wrong_shapes_are_value_errors(record: LossRecord) -> None:
    def drop_row(inputs: Inputs) -> Inputs:
        return {**inputs, record.grad[0]: pytree.tree_map(lambda t: t[:-1], inputs[record.grad[0]])}

    for breakage in (record.bad or {"one row less": drop_row}).values():
        with pytest.raises(ValueError):
            record.build()(**breakage(record.make()))


def floats_as(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """``value`` with every floating tensor changed."""
    return pytree.tree_map(lambda t: change(t) if _is_floating(t) else t, value)


def floating_inputs(record: LossRecord) -> list[str]:
    return [name for name, v in record.make().items() if any(map(_is_floating, pytree.tree_leaves(v)))]


def _is_floating(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


@for_records
def test_inputs_of_another_kind_are_named(record: LossRecord) -> None:
    kinds: dict[str, Callable[[Tensor], Any]] = {
        "numpy.ndarray": lambda t: t.detach().numpy(),
        "torch.int64": lambda t: t.detach().long(),
    }
    for name in floating_inputs(record):
        for found, change in kinds.items():
            if found == "torch.int64" and name in record.may_be_integers:
                continue
            given = record.make()
            with pytest.raises(ValueError) as caught:
                record.build()(**{**given, name: floats_as(given[name], change)})
            assert {word for word in (name, found) if word in str(caught.value)} == {name, found}, str(caught.value)


@for_records
def test_float64_beside_float32_is_right_or_named(record: LossRecord) -> None:
    for name in floating_inputs(record):
        given = record.make()
        refused = ""
        try:
            got = value(record.build()(**{**given, name: floats_as(given[name], Tensor.double)}))
        except ValueError as error:
            refused = str(error)
        if refused:
            assert {word for word in (name, "torch.float64") if word in refused} == {name, "torch.float64"}, refused
            continue
        want = value(record.build().double()(**floats_as(given, Tensor.double)))
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)


@for_records
def test_output_keeps_the_contract(record: LossRecord) -> None:
    for dtype in (torch.float32, torch.float64):
        loss = record.build().to(dtype)
        out = loss(**record.make(dtype))
        assert value(out).requires_grad
        assert value(out).dtype == dtype
        if not isinstance(out, dict):
            assert isinstance(out, Tensor)
            continue
        assert isinstance(out, LossOutput)
        assert out.loss is out["loss"]
        for key, entry in out.items():
            assert isinstance(key, str)
            assert isinstance(entry, Tensor), key
            assert key == "loss" or not entry.requires_grad, key


@for_records
def test_works_without_gradients_in_eval_mode(record: LossRecord) -> None:
    inputs = detached(record.make())
    with torch.no_grad():
        loss = record.build().eval()
        got = value(loss(**inputs))
        again = value(loss(**inputs))
    assert torch.isfinite(got).all()
    assert not got.requires_grad
    assert torch.equal(got, again), "two calls in eval mode on one input"
    with torch.inference_mode():
        same(value(record.build().eval()(**inputs)).clone(), got, rtol=1e-5, atol=1e-6)
    if record.advance is None:
        trained = record.build()
        trained(**record.make(seed=5))
        with torch.inference_mode():
            trained(**record.make(seed=6))
        check_finite(record, trained, record.make(seed=7))


@for_records
def test_compiles(record: LossRecord) -> None:
    torch._dynamo.reset()
    eager = record.build()
    compiled = copy.deepcopy(eager)
    call = torch.compile(compiled, fullgraph=True, backend="eager" if record.variant else "aot_eager")
    for seed in (0, 1):
        for loss in (eager, compiled):
            if record.advance is not None:
                record.advance(loss, seed)
        first, second = record.make(seed=seed), record.make(seed=seed)
        want, got = eager(**first), call(**second)
        same(plain(want), plain(got), rtol=1e-5, atol=1e-6)
        same(
            gradients(record, eager, first, value(want).sum()),
            gradients(record, compiled, second, value(got).sum()),
            rtol=1e-4,
            atol=1e-6,
        )
    same(dict(eager.state_dict()), dict(compiled.state_dict()), rtol=1e-5, atol=1e-6)


TWELVE_SIZES = (32, 17, 64, 9, 21, 48, 33, 5, 12, 40, 7, 19)
MOST_GRAPHS = 3
"""The first size, sizes left open, and one more where a loss works in another way on small batches."""


COMPILED = [r for r in RECORDS if "compiles" not in r.exempt and not r.variant]


@pytest.mark.parametrize("record", COMPILED, ids=[r.id for r in COMPILED])
def test_few_graphs_serve_all_batch_sizes(record: LossRecord) -> None:
    """Also with sizes left open from the start (``dynamic=True``)."""
    for dynamic, sizes in ((None, TWELVE_SIZES), (True, TWELVE_SIZES[:3])):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("eager")
        eager, compiled = record.build(), record.build()
        call = torch.compile(compiled, fullgraph=True, dynamic=dynamic, backend=counter)
        for seed, batch in enumerate(sizes):
            inputs = record.make(batch=batch, seed=seed)
            same(detached(plain(eager(**inputs))), detached(plain(call(**inputs))), rtol=1e-5, atol=1e-6)
        assert counter.frame_count <= MOST_GRAPHS


@for_records
def test_gradcheck(record: LossRecord) -> None:
    loss = record.build().double()
    inputs = record.make(torch.float64)
    parameters = {n: p for n, p in loss.named_parameters() if p.requires_grad}
    flat, spec = pytree.tree_flatten(inputs)
    slots = [i for i, t in enumerate(flat) if isinstance(t, Tensor) and t.requires_grad]

    def run(*tensors: Tensor) -> Tensor:
        filled = list(flat)
        for slot, tensor in zip(slots, tensors[: len(slots)], strict=True):
            filled[slot] = tensor
        # a copy each time: a loss may change its own state
        fresh = copy.deepcopy(loss)
        weights = dict(zip(parameters, tensors[len(slots) :], strict=True))
        return value(torch.func.functional_call(fresh, weights, kwargs=pytree.tree_unflatten(filled, spec)))

    leaves = [flat[i] for i in slots] + list(parameters.values())
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


def close_to_float32(record: LossRecord, rounded: torch.dtype, inputs: Inputs, got: Tensor) -> None:
    """Within 2 % of the float32 loss of the same (rounded) numbers."""
    want = value(record.build()(**record.change(inputs, lambda t: t.to(rounded).float()))).detach().sum()
    torch.testing.assert_close(got.float(), want, rtol=0.02, atol=record.half_atol)


@for_records
def test_autocast_bfloat16(record: LossRecord) -> None:
    inputs = record.change(record.make(batch=8), lambda t: t.bfloat16().float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = record.build()
        got = check_finite(record, loss, inputs)
    close_to_float32(record, torch.bfloat16, inputs, got)


@for_records
def test_float16_inputs_with_loss_scaling(record: LossRecord) -> None:
    inputs = record.change(record.make(batch=8), Tensor.half)
    loss = record.build()
    with torch.autocast("cpu", dtype=torch.float16):
        got = value(loss(**inputs)).sum()
    assert torch.isfinite(got)
    for grad in gradients(record, loss, inputs, got * 2.0**7):
        assert grad is None or torch.isfinite(grad).all()
    close_to_float32(record, torch.float16, inputs, got.detach())


@for_records
def test_batch_of_one(record: LossRecord) -> None:
    degenerate(record, record.single, 1)


@for_records
def test_empty_batch(record: LossRecord) -> None:
    degenerate(record, record.empty, 0)


def degenerate(record: LossRecord, expected: str, batch: int) -> None:
    if expected == "finite":
        check_finite(record, record.build(), record.make(batch=batch))
    else:
        with pytest.raises(ValueError):
            record.build()(**record.make(batch=batch))


@for_records
def test_zero_vectors(record: LossRecord) -> None:
    check_finite(record, record.build(), record.change(record.make(), torch.zeros_like))


@for_records
def test_one_zero_row(record: LossRecord) -> None:
    def blank(t: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(t[:1]), t[1:]]) if t.ndim else t

    check_finite(record, record.build(), record.change(record.make(), blank))


@for_records
def test_large_and_small_embeddings(record: LossRecord) -> None:
    for scale in (1e3, 1e-3):
        check_finite(record, record.build(), record.change(record.make(), lambda t, s=scale: t * s))


@for_records
def test_reductions_agree(record: LossRecord) -> None:
    takes = "reduction" in parameters(type(record.build()))
    assert takes == bool(record.reductions), "the record must list the values of reduction"
    if not takes:
        return
    with pytest.raises(ValueError):
        record.build(reduction="no_such_reduction")
    if not {"none", "sum", "mean"} <= set(record.reductions):
        return

    def run(reduction: str) -> tuple[nn.Module, Inputs, Tensor]:
        loss, inputs = record.build(reduction=reduction).double(), record.make(torch.float64)
        return loss, inputs, value(loss(**inputs))

    loss, inputs, parts = run("none")
    assert parts.ndim >= 1
    count = parts.numel() if record.mean_count is None else record.mean_count(inputs)
    for reduction, divisor in (("sum", 1), ("mean", count)):
        other, given, total = run(reduction)
        expected = parts.sum() / divisor
        assert total.ndim == 0
        same(total, expected, rtol=1e-10, atol=1e-10)
        grads = gradients(record, other, given, total), gradients(record, loss, inputs, expected)
        same(*grads, rtol=1e-9, atol=1e-10)
    # a non-uniform grad_output is the weighted sum of the elements' own gradients
    weights = torch.linspace(-1.0, 2.0, parts.numel(), dtype=parts.dtype).view_as(parts)
    got = torch.autograd.grad(parts, record.leaves(inputs), grad_outputs=weights, retain_graph=True, allow_unused=True)
    each = [
        torch.autograd.grad(part, record.leaves(inputs), retain_graph=True, allow_unused=True)
        for part in parts.flatten().unbind()
    ]
    for i, leaf in enumerate(record.leaves(inputs)):
        want = torch.zeros_like(leaf)
        for weight, grads in zip(weights.flatten(), each, strict=True):
            want = want + weight * (0 if grads[i] is None else grads[i])
        torch.testing.assert_close(torch.zeros_like(leaf) if got[i] is None else got[i], want, rtol=1e-9, atol=1e-10)


def scheduled(record: LossRecord) -> dict[str, Any]:
    """A schedule for every hyper-parameter of a loss that can follow one."""
    names = getattr(type(record.build()), "schedulable", ())
    ramp = {"type": "linear_ramp", "start": 1.0, "end": 2.0, "length": 5}
    free = "schedules" in parameters(type(record.build())) and "schedules" not in record.constructor_kwargs()
    return {"schedules": dict.fromkeys(names, ramp)} if names and free else {}


@for_records
def test_two_forwards_before_one_backward(record: LossRecord) -> None:
    """Schedules, queues and running means move between forward and backward; the gradient is that of each forward."""
    together = record.build(**scheduled(record))
    apart = copy.deepcopy(together)
    total, given, each = torch.zeros(()), [], []
    for seed in range(2):
        for loss in (together, apart):
            if record.advance is not None:
                record.advance(loss, seed)
            if seed and scheduled(record):
                loss.step_schedule(seed)
        given.append(record.make(seed=seed))
        total = total + value(together(**given[-1])).sum()
        inputs = record.make(seed=seed)
        got = value(apart(**inputs)).sum()
        each.append(torch.autograd.grad(got, record.leaves(inputs), allow_unused=True))
    leaves = [leaf for inputs in given for leaf in record.leaves(inputs)]
    grads = torch.autograd.grad(total, leaves, allow_unused=True)
    same(list(grads), [grad for part in each for grad in part], rtol=1e-5, atol=1e-7)


@for_records
def test_uses_no_global_random_numbers(record: LossRecord) -> None:
    loss, inputs = record.build(), record.make()
    before = torch.random.get_rng_state()
    value(loss(**inputs)).sum().backward()
    assert torch.equal(torch.random.get_rng_state(), before)


@for_records
def test_leaves_its_inputs_alone(record: LossRecord) -> None:
    loss, inputs = record.build(), record.make()
    before = copy.deepcopy(detached(inputs))
    loss(**inputs)
    same(detached(inputs), before)


def through_state_dict(record: LossRecord, loss: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(loss.state_dict(), buffer)
    buffer.seek(0)
    fresh = record.build()
    fresh.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    return fresh


@for_records
def test_built_on_the_meta_device(record: LossRecord) -> None:
    """Memory without values, then a strict load: nothing that a call reads may be left out of the state."""
    reference = record.build()
    with torch.device("meta"):
        loss = record.build()
    loss = loss.to_empty(device="cpu")
    for buffer in loss.buffers():
        buffer.fill_(77)
    loss.load_state_dict(reference.state_dict(), strict=True)
    same(plain(loss(**record.make())), plain(reference(**record.make())), rtol=1e-6, atol=1e-7)


@for_records
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "state_dict"])
def test_continues_bitwise_after(record: LossRecord, way: str) -> None:
    loss = record.build()
    steps(record, loss, range(2))
    if way == "deepcopy":
        twin = copy.deepcopy(loss)
    elif way == "pickle":
        twin = pickle.loads(pickle.dumps(loss))
    else:
        twin = through_state_dict(record, loss)
    same(steps(record, twin, range(2, 4)), steps(record, loss, range(2, 4)))
