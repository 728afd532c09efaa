"""A second derivative is right, or it is refused: never silently wrong."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from tests.contract.record import Inputs, LossRecord, all_records
from training_losses.functional import first_derivative_only

# where the value is not what the gradient belongs to, its change is not what autograd sees
RECORDS = [record for record in all_records() if "gradcheck" not in record.exempt]
REFUSED = r"cannot be differentiated again|the derivative for '\w+' is not implemented"


def slopes(record: LossRecord, inputs: Inputs, loss: torch.nn.Module, *, graph: bool) -> tuple[Tensor, list[Tensor]]:
    """The gradient in one vector, and the leaves."""
    out = copy.deepcopy(loss)(**inputs)
    leaves = record.leaves(inputs)
    total = (out["loss"] if isinstance(out, dict) else out).sum()
    found = torch.autograd.grad(total, leaves, create_graph=graph, allow_unused=True)
    flat = [(torch.zeros_like(x) if g is None else g).flatten() for g, x in zip(found, leaves, strict=True)]
    return torch.cat(flat), leaves


@pytest.mark.parametrize("record", RECORDS, ids=[record.id for record in RECORDS])
def test_second_derivative_is_right_or_refused(record: LossRecord) -> None:
    """Along a direction, against differences of the gradient; the incoming gradient needs none itself."""
    loss = record.build().double()
    # a queue is filled by a first batch
    loss(**record.make(torch.float64, seed=5))
    inputs = record.make(torch.float64)
    gradient, leaves = slopes(record, inputs, loss, graph=True)
    generator = torch.Generator().manual_seed(1)
    weight, way = (torch.randn(gradient.shape, generator=generator, dtype=torch.float64) for _ in range(2))
    found: list[Tensor | None] = [None] * len(leaves)
    if gradient.requires_grad:
        try:
            found = list(torch.autograd.grad(gradient @ weight, leaves, allow_unused=True))
        except RuntimeError as error:
            with pytest.raises(RuntimeError, match=REFUSED):
                raise error
            return
    got = torch.cat(
        [torch.zeros_like(x).flatten() if h is None else h.flatten() for h, x in zip(found, leaves, strict=True)]
    )
    sides = []
    for step in (1e-5, -1e-5):
        parts = iter((step * way).split([x.numel() for x in leaves]))
        moved = record.change(inputs, lambda t, parts=parts: t + next(parts).view_as(t))
        sides.append(slopes(record, moved, loss, graph=False)[0])
    want = (sides[0] - sides[1]) @ weight / 2e-5
    torch.testing.assert_close(got @ way, want, rtol=2e-5, atol=1e-6)


def test_a_refused_gradient_is_a_gradient() -> None:
    x = torch.ones(3, requires_grad=True)
    with torch.no_grad():
        assert not first_derivative_only("that of a test", x * 2, x).requires_grad
    got = first_derivative_only("that of a test", (x * 2).detach(), x)
    assert torch.equal(got, torch.full((3,), 2.0))
    with pytest.raises(RuntimeError, match=r"^that of a test cannot be differentiated again"):
        got.sum().backward()
