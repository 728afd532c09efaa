"""Activation checkpointing runs a call twice: it counts once, and both runs see one state."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from tests.contract.record import Inputs, LossRecord, draw
from tests.contract.test_contract import RECORDS, detached, same, value
from tests.contract.test_not_finite import STATEFUL
from training_losses.base import FeatureQueue
from training_losses.contrastive import MemoryQueueLoss, MoCoLoss

# drawn numbers and schedules are state as well, where no call changes them
CHANGING = [r for r in RECORDS if r in STATEFUL or r.advance is not None]
Wrap = Callable[..., Any]


def plainly(function: Wrap, *args: Any) -> Any:
    return function(*args)


def reentrant(function: Wrap, *args: Any) -> Any:
    return checkpoint(function, *args, use_reentrant=True)


def without_reentry(function: Wrap, *args: Any) -> Any:
    return checkpoint(function, *args, use_reentrant=False)


class Repeats(torch.autograd.Function):
    """Checkpointing as other libraries write it."""

    @staticmethod
    def forward(ctx: Any, function: Wrap, *args: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*args)
        with torch.no_grad():
            return function(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        args = [x.detach().requires_grad_(x.requires_grad) for x in ctx.saved_tensors]
        with torch.enable_grad():
            out = ctx.function(*args)
        torch.autograd.backward(out, *grads)
        return None, *(x.grad for x in args)


def of_another_library(function: Wrap, *args: Any) -> Any:
    return Repeats.apply(function, *args)


WAYS = [reentrant, without_reentry, of_another_library]


class Model(nn.Module):
    """A scale for each input in front of the loss; the loss takes them by position."""

    def __init__(self, loss: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.loss = loss
        self.leaves, self.spec = pytree.tree_flatten(detached(inputs))
        self.slots = [i for i, x in enumerate(pytree.tree_leaves(inputs)) if isinstance(x, Tensor) and x.requires_grad]
        self.scales = nn.ParameterList([nn.Parameter(torch.tensor(1.5)) for _ in self.slots])

    def forward(self, *given: Tensor) -> Tensor:
        leaves = list(self.leaves)
        for slot, scale, x in zip(self.slots, self.scales, given, strict=True):
            leaves[slot] = x * scale
        return value(self.loss(**pytree.tree_unflatten(leaves, self.spec))).sum()


def run(record: LossRecord, wrap: Wrap) -> list[Any]:
    """Value, gradients and state of two calls before one backward pass."""
    loss = record.build()
    loss(**record.make(seed=3))
    total, models, leaves = torch.zeros(()), [], []
    for seed in range(2):
        if record.advance is not None:
            record.advance(loss, seed + 1)
        inputs = record.make(seed=seed)
        models.append(Model(loss, inputs))
        leaves.append(record.leaves(inputs))
        total = total + wrap(models[-1], *leaves[-1])
    total.backward()
    weights = [*loss.parameters(), *(scale for model in models for scale in model.scales)]
    grads = [x.grad for x in (*weights, *(leaf for group in leaves for leaf in group))]
    return [total.detach(), grads, detached(dict(loss.state_dict()))]


@pytest.mark.parametrize("record", CHANGING, ids=[r.id for r in CHANGING])
def test_a_repeated_call_counts_once(record: LossRecord) -> None:
    want = run(record, plainly)
    for wrap in WAYS:
        # the order of additions may differ
        same(run(record, wrap), want, rtol=1e-5, atol=1e-7)


class Twice(nn.Module):
    """Calls one loss twice in one region, and a second one in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = MoCoLoss(embed_dim=6, queue_size=7, enqueue_before_logits=True)
        self.second = MemoryQueueLoss(embed_dim=6, queue_size=5)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        total = self.first(x, y, y, x).loss + 2 * self.second(x, y).loss
        return total * self.first(y, x.flip(0), x, y).loss


def of_twice(calls: Callable[[Wrap, Tensor, Tensor], Tensor], backward: int = 1) -> list[Any]:
    """Value, gradient and state for ``calls`` of ``Twice``, which gets a function to call."""
    torch.manual_seed(0)
    loss = Twice()
    g = torch.Generator().manual_seed(0)
    for _ in range(2):
        loss(*(draw(g, torch.float32, 4, 6) for _ in range(2)))
    x, y = (draw(g, torch.float32, 4, 6).requires_grad_() for _ in range(2))
    total = calls(loss, x, y)
    # a queue that goes on before the backward pass, in training and by hand
    later = loss(x.detach() + 1, y.detach()).detach()
    loss.second.text_queue.enqueue(draw(g, torch.float32, 6, 6))
    for left in range(backward, 0, -1):
        total.backward(retain_graph=left > 1)
    after = loss(y.detach(), x.detach() + 1)
    return [total.detach(), later, after.detach(), x.grad, y.grad, dict(loss.state_dict())]


@pytest.mark.parametrize("wrap", WAYS)
@pytest.mark.parametrize("inner", [plainly, *WAYS])
def test_several_calls_in_regions_within_regions(wrap: Wrap, inner: Wrap) -> None:
    def calls(one: Wrap, two: Wrap) -> Callable[[Wrap, Tensor, Tensor], Tensor]:
        def part(loss: Wrap, x: Tensor, y: Tensor) -> Tensor:
            return two(loss, x, y) + two(loss, y, x + y).square()

        return lambda loss, x, y: one(lambda *args: part(loss, *args), x * 2, y * 3)

    same(of_twice(calls(wrap, inner)), of_twice(calls(plainly, plainly)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrap", WAYS)
def test_two_backward_passes(wrap: Wrap) -> None:
    def calls(one: Wrap) -> Callable[[Wrap, Tensor, Tensor], Tensor]:
        return lambda loss, x, y: one(loss, x * 2, y) * 3

    same(of_twice(calls(wrap), 2), of_twice(calls(plainly), 2), rtol=1e-5, atol=1e-6)


def test_a_backward_pass_that_nobody_knows_changes_nothing() -> None:
    loss = MemoryQueueLoss(embed_dim=6, queue_size=5)
    x = torch.ones(4, 6, requires_grad=True)
    x.register_hook(lambda grad: loss(x.detach(), x.detach()).loss * 0 + grad)
    x.sum().backward()
    assert int(loss.text_queue.filled) == 0


def test_a_queue_remembers_only_for_those_who_ask() -> None:
    queue = FeatureQueue(5, 2)
    queue.enqueue(torch.ones(3, 2))
    assert queue._moment is None
    moment = queue.moment()
    for number in (2.0, 3.0, 4.0):
        queue.enqueue(torch.full((2, 2), number), torch.full((2,), int(number)))
    now = copy.deepcopy(dict(queue.named_buffers()))
    back = queue.rewind(moment)
    assert queue.features.sum() == 6
    assert queue.filled == queue.ptr == 3
    queue.enqueue(torch.zeros(4, 2))
    back()
    same(now, dict(queue.named_buffers()))
    # what is held is held by the moment: a copy of the queue carries none of it
    assert queue._moment.next is None
    same(now, dict(pickle.loads(pickle.dumps(queue)).named_buffers()))
