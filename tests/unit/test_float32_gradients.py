"""Float32 gradients of every loss at real sizes; larger ones: ``benchmarks/bench_float32.py``."""

from __future__ import annotations

import pytest
import torch

from tests.support.float32 import CASES, FLOOR, RealCase, measure, plain_soft_dtw
from training_losses.alignment import LAVLoss, SoftDTWLoss
from training_losses.functional import soft_dtw
from training_losses.loss_registry import LossRegistry


def test_every_loss_has_a_case() -> None:
    assert sorted(case.name for case in CASES) == sorted(LossRegistry.available())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the twins, whose exponentials overflow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_float32_gradients(case: RealCase) -> None:
    """At most twice the error of the plain formula or the twin; where those are lost, that of an exact backward."""
    places = [(case.sizes[0], scale) for scale in case.scales] + [(case.sizes[1], case.scales[1])]
    for size, scale in places:
        found = measure(case, size, scale)
        assert found.new <= found.bound(), (size, scale, found)


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_huge_inputs_have_gradients(scale: float) -> None:
    """Exact ones, where a backward pass of exponentials of large numbers had none, under a finite value."""
    generator = torch.Generator().manual_seed(0)
    x, y = (scale * torch.randn(2, 64, 32, generator=generator) for _ in range(2))
    for loss in (SoftDTWLoss(), SoftDTWLoss(smoothing=0.1, divergence=True), lambda a, b: LAVLoss()([a[0], b[0]])):
        found = []
        for dtype in (torch.float32, torch.float64):
            leaf = x.to(dtype).requires_grad_()
            value = loss(leaf, y.to(dtype)).sum()
            assert torch.isfinite(value)
            found += torch.autograd.grad(value, leaf)
        assert (found[0].double() - found[1]).norm() <= FLOOR * found[1].norm()


def test_infinite_costs_forbid_a_way() -> None:
    cost = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # all of row 2 but one cell, and for the second pair that cell as well
    cost[:, 2, [0, 1, 2, 4]] = torch.inf
    cost[1, 2, 3] = torch.inf
    cost.requires_grad_()
    value = soft_dtw(cost, 0.5)
    assert torch.isfinite(value[0])
    assert value[1] == torch.inf
    (grad,) = torch.autograd.grad(value[0], cost)
    torch.testing.assert_close(grad[0, 2], torch.tensor([0, 0, 0, 1, 0], dtype=torch.float64))
    far = cost.detach().clamp_max(1e4)
    torch.testing.assert_close(value[0], plain_soft_dtw(far, 0.5)[0], rtol=1e-10, atol=0)
