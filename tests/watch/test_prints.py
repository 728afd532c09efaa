"""Fingerprints: what they see, and what they leave alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from training_losses.migration import parity
from training_losses.migration.watch import prints
from training_losses.migration.watch.judge import TOLERANCES


def test_projections_measure_the_length_of_a_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    ratios = []
    for _ in range(200):
        x = torch.randn(40, 37, generator=generator, dtype=torch.float64)
        gap = 1e-3 * torch.randn(40, 37, generator=generator, dtype=torch.float64)
        a, b = prints.print_tensor(x), prints.print_tensor(x + gap)
        assert a[0] == pytest.approx(float(x.norm()))
        ratios.append(math.sqrt(float(np.mean((b[1:] - a[1:]) ** 2))) / float(gap.norm()))
    assert 0.9 < float(np.mean(ratios)) < 1.1
    assert min(ratios) > 0.3


@pytest.mark.parametrize("shape", [(5,), (128,), (300, 128), (3, 64, 7), (1,)])
def test_order_is_seen(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    turned = x.flip(0)
    a, b = prints.print_tensor(x), prints.print_tensor(turned)
    assert a[0] == pytest.approx(b[0])
    assert (len(x) == 1) == bool(np.allclose(a, b))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_every_dtype_on_both_ways(dtype: torch.dtype) -> None:
    x = (3 * torch.randn(70, 50, generator=torch.Generator().manual_seed(2))).to(dtype)
    here, there = prints.print_tensor(x), prints.on_device(x).double().numpy()
    assert np.allclose(here, there, rtol=1e-4, atol=1e-2)
    assert prints.on_device(x, brief=True).double().numpy() == pytest.approx(here[:1], rel=1e-5)


def test_complex_and_conjugate() -> None:
    x = torch.randn(6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.complex64)
    assert np.allclose(prints.print_tensor(x.conj())[0], float(x.abs().square().sum().sqrt()), rtol=1e-5)
    assert np.allclose(prints.print_tensor(x.conj().imag), prints.print_tensor(-x.imag), rtol=1e-5)


def test_large_tensors_are_sampled_over_all_columns() -> None:
    x = torch.zeros(4096, 64)
    before = prints.print_tensor(x)
    for column in range(64):
        changed = x.clone()
        changed[:, column] = 1.0
        assert not np.allclose(prints.print_tensor(changed), before)


def test_nothing_global_is_touched() -> None:
    torch.manual_seed(3)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  # that it is not used
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = prints.on_device(torch.ones(200, 3))
    assert torch.equal(inside, prints.on_device(torch.ones(200, 3)))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_not_finite_is_not_hidden() -> None:
    with np.errstate(all="ignore"):
        assert math.isnan(prints.print_tensor(torch.tensor([1.0, math.nan]))[0])
        assert math.isinf(prints.print_tensor(torch.tensor([1.0, -math.inf]))[0])


def test_the_tolerances_are_those_of_parity() -> None:
    assert {str(dtype)[6:]: value for dtype, value in parity.TOLERANCE.items()} == TOLERANCES


def test_an_exchange_of_two_rows_is_seen() -> None:
    x = torch.randn(64, 128, generator=torch.Generator().manual_seed(1))
    before = prints.print_tensor(x)
    for row in range(1, 64):
        order = torch.arange(64)
        order[[0, row]] = torch.tensor([row, 0])
        assert not np.allclose(prints.print_tensor(x[order]), before, rtol=1e-4)
