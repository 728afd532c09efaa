"""VICRegLoss and AdaptiveVICRegLoss: closed forms, restored defaults, what the twins did instead."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.bench_contrastive import peak_bytes
from tests.support.twins import twin
from training_losses.base.warmup import WarmupFactor
from training_losses.contrastive.vicreg import AdaptiveVICRegLoss, VICRegLoss
from training_losses.functional import covariance_energy, moments, squared_difference


def views(rows: int, columns: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, columns, generator=g, dtype=dtype)
    return a, a + 0.3 * torch.randn(rows, columns, generator=g, dtype=dtype)


def loops(a: Tensor, b: Tensor) -> tuple[float, float, float]:
    """The paper's three terms, element by element."""
    n, d = a.shape
    invariance = sum(float((a[i, k] - b[i, k]) ** 2) for i in range(n) for k in range(d)) / (n * d)
    variance = covariance = 0.0
    for x in (a, b):
        mean = [sum(float(x[i, k]) for i in range(n)) / n for k in range(d)]
        cov = [
            [sum((float(x[i, k]) - mean[k]) * (float(x[i, m]) - mean[m]) for i in range(n)) / (n - 1) for m in range(d)]
            for k in range(d)
        ]
        variance += sum(max(0.0, 1 - math.sqrt(cov[k][k] + 1e-4)) for k in range(d)) / d
        covariance += sum(cov[k][m] ** 2 for k in range(d) for m in range(d) if k != m) / d
    return invariance, variance, covariance


@pytest.mark.parametrize(("rows", "columns"), [(5, 3), (3, 5), (4, 4), (2, 1)])
def test_defaults_are_the_paper(rows: int, columns: int) -> None:
    a, b = views(rows, columns)
    invariance, variance, covariance = loops(0.4 * a, 0.4 * b)
    out = VICRegLoss()(0.4 * a, 0.4 * b)
    assert float(out["invariance_loss"]) == pytest.approx(invariance, abs=1e-12)
    assert float(out["variance_loss"]) == pytest.approx(variance, abs=1e-12)
    assert float(out["covariance_loss"]) == pytest.approx(covariance, abs=1e-12)
    assert float(out.loss) == pytest.approx(25 * invariance + 25 * variance + covariance, abs=1e-11)
    assert float(out["variance_loss_a"] + out["variance_loss_b"]) == pytest.approx(variance, abs=1e-12)


@example(rows=9, columns=7, chunk=3, recompute=False)
@example(rows=9, columns=7, chunk=2, recompute=True)
@example(rows=5, columns=9, chunk=2, recompute=True)
@given(rows=st.integers(2, 17), columns=st.integers(1, 33), chunk=st.integers(1, 40), recompute=st.booleans())
@settings(max_examples=20, deadline=None, derandomize=True)
def test_covariance_through_either_matrix_and_in_chunks(rows: int, columns: int, chunk: int, recompute: bool) -> None:
    x = views(rows, columns)[0].requires_grad_()
    centred = x - x.mean(0)
    full = centred.mT @ centred / (rows - 1)
    want = (full - torch.diag(full.diagonal())).square().sum()
    got = covariance_energy(x, chunk_size=chunk, recompute=recompute)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
    grads = [torch.autograd.grad(value, x)[0] for value in (got, want)]
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-10)


KEPT = [{}, {"recompute": True}, {"chunk_size": 2}, {"chunk_size": 3, "recompute": True}]


def plain_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    covariance = x.mT.cov()
    return covariance.diagonal(), (covariance - covariance.diagonal().diag()).square().sum()


@pytest.mark.parametrize("kept", KEPT, ids=str)
@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5), (2, 2)], ids=str)
def test_derivatives_of_the_moments(shape: tuple[int, int], kept: dict[str, Any]) -> None:
    x = views(*shape)[0].requires_grad_()

    def made(x: Tensor) -> tuple[Tensor, Tensor]:
        return moments(x, **kept)

    torch.testing.assert_close(made(x), plain_moments(x), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(made, x)
    assert torch.autograd.gradgradcheck(made, x)
    # either result alone, and through the transforms of torch.func
    for i in range(2):
        torch.testing.assert_close(
            torch.func.grad(lambda x, i=i: made(x)[i].sin().sum())(x.detach()),
            torch.func.grad(lambda x, i=i: plain_moments(x)[i].sin().sum())(x.detach()),
            rtol=1e-10,
            atol=1e-10,
        )


@pytest.mark.parametrize("shape", [(64, 8), (8, 64)], ids=str)
def test_moments_in_float32_far_from_the_origin(shape: tuple[int, int]) -> None:
    x = (views(*shape)[0] + 1000).float()
    for dtype in (torch.float32, torch.float64):
        y = x.to(dtype).requires_grad_()
        variance, energy = moments(y)
        (grad,) = torch.autograd.grad(variance.sum() + energy, y)
        if dtype == torch.float32:
            got = [variance, energy, grad]
    for a, b in zip(got, (variance, energy, grad), strict=True):
        assert float(((a - b).norm() / b.norm()).detach()) < 2e-6


@pytest.mark.parametrize("centered", [False, True])
def test_derivatives_of_the_squared_difference(centered: bool) -> None:
    a, b = (x.requires_grad_() for x in views(5, 3))
    b = b + 100
    want = (a - b).var(dim=0, correction=0).mean() if centered else torch.nn.functional.mse_loss(a, b)

    def made(a: Tensor, b: Tensor) -> Tensor:
        return squared_difference(a, b, centered=centered)

    torch.testing.assert_close(made(a, b), want, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(made, (a, b))
    assert torch.autograd.gradgradcheck(made, (a, b))


def test_memory_of_the_covariance_is_bounded() -> None:
    """The largest tensor that is made is the smaller matrix, or a copy of the rows."""
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # as torch has it
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, Tensor))
            return out

    for shape, chunk, most in (
        ((64, 8), None, 64 * 8),
        ((8, 64), None, 8 * 64),
        ((96, 96), 4, 96 * 96),
        ((8, 512), 2, 8 * 512),
    ):
        x = torch.randn(shape, requires_grad=True)
        sizes.clear()
        with Watch():
            covariance_energy(x, chunk_size=chunk).backward()
        assert max(sizes) <= most, shape


@pytest.mark.parametrize("shape", [(64, 16), (16, 64)], ids=str)
@pytest.mark.parametrize(("kwargs", "matrices"), [({}, 2), ({"chunk_size": 4}, 0), ({"checkpoint": True}, 0)])
def test_held_until_the_backward_pass(shape: tuple[int, int], kwargs: dict[str, Any], matrices: int) -> None:
    """One small matrix for each view, or none; the embeddings are those that came in."""
    a, b = (x.requires_grad_() for x in views(*shape))
    held: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes() // x.element_size()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = VICRegLoss(**kwargs)(a, b)
    for x in (a, b):
        held.pop(x.untyped_storage().data_ptr(), None)
    side, width = min(shape), shape[1]
    assert sorted(n for n in held.values() if n > width) == [side * side] * matrices
    assert all(entry.untyped_storage().nbytes() <= 16 for entry in out.values())


@pytest.mark.parametrize("shape", [(512, 32), (32, 512), (64, 16, 32)], ids=str)
def test_peak_memory_is_below_the_twins(shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=g, requires_grad=True) for _ in range(2)]
    for x in inputs:
        x.grad = torch.zeros_like(x)
    options = {"view_reduction": "mean", "covariance_norm": "pairs"}
    losses = [twin("hjepa.vicreg.VICRegLoss")(), VICRegLoss(**options), VICRegLoss(checkpoint=True, **options)]
    peaks = [peak_bytes(lambda loss=loss: loss(*inputs)["loss"].backward()) for loss in losses]
    assert peaks[0] > peaks[1] >= peaks[2]
    assert peaks[1] < 4.6 * inputs[0].nbytes


def test_the_sibling_twins_differ_from_the_paper_and_the_options_bring_them_back() -> None:
    a, b = views(6, 4)
    paper = VICRegLoss()(a, b + 5)
    multimodal = twin("vicreg_loss.VICRegLoss")(25.0, 25.0, 1.0, 1e-4, curriculum=False)(a, b + 5)
    hierarchical = twin("hjepa.vicreg.VICRegLoss")()(a, b + 5)
    # a constant offset is free in the old multimodal class, and costs in the paper
    assert float(paper["invariance_loss"]) > 20 > 1 > multimodal["invariance_loss"]
    centred = VICRegLoss(center_invariance=True)(a, b + 5)
    assert float(centred["invariance_loss"]) == pytest.approx(multimodal["invariance_loss"], abs=1e-12)
    # the old hierarchical class: covariance 2 (d - 1) times smaller, variance halved
    assert float(hierarchical["covariance_loss"] * 2 * 3) == pytest.approx(float(paper["covariance_loss"]), abs=1e-12)
    same = VICRegLoss(view_reduction="mean", covariance_norm="pairs")(a, b + 5)
    for key in ("loss", "variance_loss", "covariance_loss", "variance_loss_a", "covariance_loss_b"):
        torch.testing.assert_close(same[key], hierarchical[key].detach(), rtol=1e-12, atol=1e-12)


def test_weights_are_reached_and_not_damped() -> None:
    a, b = views(8, 3)
    old = twin("vicreg_loss.VICRegLoss")()
    assert old(a, b)["var_weight"] == pytest.approx(0.01 * 5)  # 1 % in epoch 0, for a caller that never counts epochs
    for epoch in range(1, 200):
        old.update_epoch(epoch)
    assert old(a, b)["var_weight"] == pytest.approx(0.5 * 5)  # and never more than half
    new = VICRegLoss(warmup="linear", warmup_epochs=4)
    seen = []
    for epoch in range(6):
        new.update_epoch(epoch)
        seen.append(float(new(a, b)["variance_weight"]))
    assert seen == pytest.approx([0.0, 6.25, 12.5, 18.75, 25.0, 25.0])
    assert float(VICRegLoss()(a, b)["variance_weight"]) == 25.0


@pytest.mark.parametrize(
    "bad", [{"eps": 0.0}, {"variance_weight": -1}, {"tokens": "x"}, {"warmup": "slow"}, {"chunk_size": 0}]
)
def test_arguments_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        VICRegLoss(**bad)


def test_one_row_raises_where_the_twins_gave_nan() -> None:
    a = torch.randn(1, 4)
    with pytest.warns(UserWarning, match="degrees of freedom"):
        assert torch.isnan(twin("hjepa.vicreg.VICRegLoss")()(a, a)["loss"])
    with pytest.raises(ValueError, match="at least two rows"):
        VICRegLoss()(a, a)


def test_one_column_has_no_covariance() -> None:
    a, b = views(6, 1)
    assert torch.isnan(twin("hjepa.vicreg.VICRegLoss")()(a, b)["covariance_loss"])
    assert float(VICRegLoss(covariance_norm="pairs")(a, b)["covariance_loss"]) == 0.0


def test_halves_of_one_batch_are_views_only_on_request() -> None:
    a, b = views(4, 3)
    with pytest.raises(ValueError, match="split_single_input"):
        VICRegLoss()(torch.cat([a, b]))
    split = VICRegLoss(split_single_input=True)
    torch.testing.assert_close(split(torch.cat([a, b])).loss, VICRegLoss()(a, b).loss)
    with pytest.raises(ValueError, match="even"):
        split(torch.randn(5, 3))


def test_tokens() -> None:
    a, b = torch.randn(4, 3, 2, dtype=torch.float64), torch.randn(4, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(VICRegLoss()(a, b).loss, VICRegLoss()(a.view(12, 2), b.view(12, 2)).loss)
    torch.testing.assert_close(VICRegLoss(tokens="concat")(a, b).loss, VICRegLoss()(a.view(4, 6), b.view(4, 6)).loss)


def test_the_covariance_is_float32_under_autocast() -> None:
    """The old hierarchical class multiplies in half precision there."""
    g = torch.Generator().manual_seed(0)
    a = torch.randn(256, 16, generator=g) + 3
    want = VICRegLoss()(a, a)["covariance_loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(VICRegLoss()(a, a)["covariance_loss"], want)
        old = twin("hjepa.vicreg.VICRegLoss")()(a, a)["covariance_loss"].detach()
    assert float((old.float() * 2 * 15 / want - 1).abs()) > 1e-4


def test_the_position_of_the_warmup_is_saved_and_old_states_load() -> None:
    a, b = views(6, 3)
    first = VICRegLoss(warmup="cosine", warmup_epochs=10, num_epochs=20)
    first.update_epoch(3)
    first.update_step(60, 400)
    second = VICRegLoss(warmup="cosine", warmup_epochs=10, num_epochs=20)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(a, b).loss, first(a, b).loss)
    assert float(first(a, b)["warmup_factor"]) == pytest.approx((1 - math.cos(math.pi * 0.3)) / 2)
    second.load_state_dict({})  # the old class saved nothing: the warm-up stays where it is
    assert torch.equal(second(a, b).loss, first(a, b).loss)
    with pytest.raises(RuntimeError, match="Unexpected"):
        second.load_state_dict({"warmup.unknown": torch.zeros(())})


def test_a_warmup_that_nobody_drives_says_so(caplog: pytest.LogCaptureFixture) -> None:
    a, b = views(6, 3)
    loss = VICRegLoss(warmup="linear")
    with caplog.at_level(logging.WARNING):
        loss(a, b)
        loss(a, b)
    assert [r.message for r in caplog.records if "update_epoch" in r.message] == [caplog.records[0].message]
    with pytest.raises(ValueError, match="epoch"):
        loss.update_epoch(-1)


@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (1, 5), (2, 0), (2, 5), (2, 30), (7, 0), (30, 900)])
def test_the_damped_factor_is_the_old_one(epoch: int, step: int) -> None:
    old = twin("vicreg_loss.VICRegLoss")(warmup_epochs=10, num_epochs=20)
    new = WarmupFactor("damped", warmup_epochs=10, num_epochs=20)
    for schedule in (old, new):
        schedule.update_epoch(epoch)
        schedule.update_step(step, 1000)
    want = old.get_warmup_factor() * (0.1 if epoch == 0 else 1)
    assert float(new(torch.zeros((), dtype=torch.float64))) == pytest.approx(want, abs=1e-14)


def test_adaptive_weights_follow_the_rule() -> None:
    a, b = views(6, 5)
    loss = AdaptiveVICRegLoss(momentum=0.9, eps=1e-4)
    out = loss(a, b)
    terms = [float(out[f"{name}_loss"]) for name in ("invariance", "variance", "covariance")]
    loss.update_weights(out)
    for weight, start, scale, term in zip(
        ("invariance", "variance", "covariance"), (25, 25, 1), (30, 30, 2), terms, strict=True
    ):
        target = scale * (1 - term / (sum(terms) + 1e-4))
        assert float(getattr(loss, f"{weight}_weight")) == pytest.approx(0.9 * start + 0.1 * target, rel=1e-6)
    assert list(loss.state_dict()) == ["invariance_weight", "variance_weight", "covariance_weight"]
    assert not list(loss.parameters())


@pytest.mark.parametrize("learnable", [False, True])
def test_updating_weights_between_forward_and_backward_is_harmless(learnable: bool) -> None:
    a, b = views(6, 5, dtype=torch.float32)
    a.requires_grad_()
    quiet, moved = AdaptiveVICRegLoss(learnable=learnable), AdaptiveVICRegLoss(learnable=learnable)
    want = torch.autograd.grad(quiet(a, b).loss, a)[0]
    out = moved(a, b)
    moved.update_weights(out)
    assert torch.equal(torch.autograd.grad(out.loss, a)[0], want)


def test_learnable_weights_are_those_of_the_twin() -> None:
    a, b = views(6, 5)
    old = twin("hjepa.vicreg.AdaptiveVICRegLoss")(adaptive_weights=True, weight_momentum=0.8).double()
    new = AdaptiveVICRegLoss(learnable=True, momentum=0.8, view_reduction="mean", covariance_norm="pairs").double()
    new.load_state_dict(old.state_dict())
    for _ in range(3):
        want, got = old(a, b), new(a, b)
        torch.testing.assert_close(got.loss, want["loss"], rtol=1e-12, atol=1e-12)
        grads = [torch.autograd.grad(o["loss"], list(m.parameters())) for o, m in ((want, old), (got, new))]
        torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)
        old.update_weights(want)
        new.update_weights(got)


def test_regularisers_of_one_set() -> None:
    a, b = views(6, 4)
    one = VICRegLoss().regularize(a)
    both = VICRegLoss()(a, b)
    torch.testing.assert_close(one["variance_loss"], both["variance_loss_a"])
    torch.testing.assert_close(one["covariance_loss"], both["covariance_loss_a"])
    torch.testing.assert_close(one.loss, 25 * both["variance_loss_a"] + both["covariance_loss_a"])


@pytest.mark.parametrize("bad", [{"momentum": 1.5}, {"weight_scales": (1.0,)}, {"weight_scales": (1.0, -1.0, 1.0)}])
def test_adaptive_arguments_are_checked(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        AdaptiveVICRegLoss(**bad)
