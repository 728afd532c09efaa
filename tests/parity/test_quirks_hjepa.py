"""What was wrong in the old joint-embedding losses, seen in the twins, and what the new ones do.

Numbers as in the tables of quirks: P prediction, V VICReg, C combined, N contrastive, S SIGReg.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.support.twins import twin
from training_losses.config import create_loss_from_config
from training_losses.contrastive import SimCLRLoss
from training_losses.contrastive.vicreg import AdaptiveVICRegLoss, VICRegLoss
from training_losses.predictive import ContrastiveJEPALoss, HJEPACombinedLoss, HJEPALoss, SIGRegLoss


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def old(name: str, **kwargs: Any) -> Any:
    return twin(f"hjepa.{name}")(**kwargs).double()


P, T = randn(4, 3, 8), randn(4, 3, 8, seed=1)


def test_p1_masked_mean_was_d_times_larger() -> None:
    everything = torch.ones(4, 3, dtype=torch.bool)
    before = old("hjepa_loss.HJEPALoss", num_hierarchies=1)
    torch.testing.assert_close(before(P, T, [everything])["loss"], 8 * before(P, T)["loss"])
    new = HJEPALoss()
    torch.testing.assert_close(new(P, T, everything).loss, new(P, T).loss)


def test_p2_none_was_broadcast_against_the_last_axis() -> None:
    with pytest.raises(RuntimeError):
        old("hjepa_loss.HJEPALoss", reduction="none")([P] * 3, [T] * 3)
    levels = [P, randn(4, 2, 5, seed=2)], [T, randn(4, 2, 5, seed=3)]
    out = HJEPALoss(reduction="none", hierarchy_weights=[1.0, 0.5])(*levels)
    assert out.loss.shape == (4,)
    torch.testing.assert_close(out.loss, out["loss_h0"] + 0.5 * out["loss_h1"])
    torch.testing.assert_close(out.loss.sum(), HJEPALoss(reduction="sum", hierarchy_weights=[1.0, 0.5])(*levels).loss)


def test_p3_and_p9_levels_are_counted_and_one_mask_serves_all() -> None:
    with pytest.raises(ValueError, match="1 levels"):
        old("hjepa_loss.HJEPALoss")(P, T)
    mask = torch.arange(12).reshape(4, 3) % 2 == 0
    with pytest.raises(ValueError, match="masks"):
        old("hjepa_loss.HJEPALoss")([P] * 3, [T] * 3, mask)
    out = HJEPALoss()([P] * 2, [T] * 2, mask)
    torch.testing.assert_close(out.loss, 2 * HJEPALoss()(P, T, [mask]).loss)
    torch.testing.assert_close(out.loss, HJEPALoss()([P] * 2, [T] * 2, torch.stack([mask] * 2)).loss)


def test_p4_unknown_reduction_acted_as_none_with_masks() -> None:
    mask = torch.ones(4, 3)
    assert old("hjepa_loss.HJEPALoss", num_hierarchies=1, reduction="avg")(P, T, [mask])["loss_h0"].dim() == 3
    with pytest.raises(ValueError, match="reduction must be one of 'mean', 'sum', 'none', found 'avg'"):
        HJEPALoss(reduction="avg")


def test_p5_weights_have_one_source() -> None:
    before = old("hjepa_loss.HJEPALoss", num_hierarchies=1)
    value = before(P, T)["loss"]
    before.hierarchy_weights = [5.0]
    torch.testing.assert_close(before(P, T)["loss"], value)
    new = HJEPALoss(num_hierarchies=1)
    new.load_state_dict({"hierarchy_weights": torch.tensor([5.0])})
    assert "[5.0]" in repr(new)
    torch.testing.assert_close(new(P, T).loss, 5 * value)


def test_p6_eps_is_for_lengths_only() -> None:
    half = torch.full((4, 3), 0.5, dtype=torch.float64)
    exact = F.smooth_l1_loss(F.normalize(P, dim=-1), F.normalize(T, dim=-1))
    torch.testing.assert_close(HJEPALoss(eps=0.1)(P, T, half).loss, exact)
    before = old("hjepa_loss.HJEPALoss", num_hierarchies=1, eps=0.1)(P, T, [half])["loss"] / 8
    assert abs(before / exact - 1) > 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_p7_zero_rows(dtype: torch.dtype) -> None:
    zero = torch.zeros(1, 2, 8, dtype=dtype, requires_grad=True)
    target = T[:1, :2].to(dtype)
    (grad,) = torch.autograd.grad(HJEPALoss()(zero, target).loss, zero)
    assert (grad == 0).all()
    before = twin("hjepa.hjepa_loss.HJEPALoss")(num_hierarchies=1)(zero, target)["loss"]
    (grad,) = torch.autograd.grad(before, zero)
    assert bool(grad.isnan().any()) if dtype == torch.float16 else bool((grad.abs() > 1e4).any())


def test_p8_unit_rows_make_the_loss_a_cosine() -> None:
    p, t = randn(4, 3, 64), randn(4, 3, 64, seed=1)
    cosine = F.cosine_similarity(p, t, dim=-1).mean()
    torch.testing.assert_close(HJEPALoss(loss_type="mse")(p, t).loss, (2 - 2 * cosine) / 64)
    torch.testing.assert_close(HJEPALoss()(p, t).loss, (1 - cosine) / 64)


def test_p10_entries_are_detached() -> None:
    p = P.clone().requires_grad_()
    assert old("hjepa_loss.HJEPALoss", num_hierarchies=1)(p, T)["loss_h0"].requires_grad
    out = HJEPALoss()(p, T)
    assert [key for key, entry in out.items() if entry.requires_grad] == ["loss"]


def test_p11_every_trainer_can_call_every_predictive_loss() -> None:
    context = randn(4, 5, 8, seed=4)
    for loss in (HJEPALoss(), HJEPACombinedLoss(), ContrastiveJEPALoss(), HJEPACombinedLoss(regularize="levels")):
        assert torch.isfinite(loss(predictions=[P], targets=[T], context_features=context).loss)


def test_p_nothing_selected_is_zero_without_explosion() -> None:
    mask = torch.zeros(4, 3, requires_grad=True)
    out = HJEPALoss()(P, T, mask)
    assert out.loss == 0
    (grad,) = torch.autograd.grad(out.loss, mask)
    assert torch.isfinite(grad).all()


def test_v1_covariance_and_views_are_the_papers() -> None:
    a, b = randn(9, 5), randn(9, 5, seed=1)
    before, after = old("vicreg.VICRegLoss")(a, b), VICRegLoss()(a, b)
    torch.testing.assert_close(after["covariance_loss"], before["covariance_loss"] * 2 * (5 - 1))
    torch.testing.assert_close(after["variance_loss"], before["variance_loss"] * 2)


def test_v2_v3_one_row_and_one_column() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert old("vicreg.VICRegLoss", variance_weight=0.0)(randn(1, 4), randn(1, 4))["loss"].isnan()
        assert old("vicreg.VICRegLoss")(randn(5, 1), randn(5, 1))["covariance_loss"].isnan()
    with pytest.raises(ValueError, match="at least two rows"):
        VICRegLoss()(randn(1, 4), randn(1, 4))
    assert VICRegLoss()(randn(5, 1), randn(5, 1))["covariance_loss"] == 0


def test_v4_halves_only_on_request() -> None:
    assert old("vicreg.VICRegLoss")(randn(4, 3))["loss"] > 0
    with pytest.raises(ValueError, match="z_b is needed"):
        VICRegLoss()(randn(4, 3))
    assert VICRegLoss(split_single_input=True)(randn(4, 3)).loss > 0


def test_v7_v8_adaptive_weights() -> None:
    before = old("vicreg.AdaptiveVICRegLoss", adaptive_weights=True)
    optimizer = torch.optim.SGD(before.parameters(), lr=30.0)
    for _ in range(2):
        optimizer.zero_grad()
        before(randn(6, 3), randn(6, 3, seed=1))["loss"].backward()
        optimizer.step()
    assert before.invariance_weight < 0
    new = AdaptiveVICRegLoss()
    assert not list(new.parameters())
    x = randn(6, 3).requires_grad_()
    out = new(x, randn(6, 3, seed=1))
    new.update_weights(out)
    out.loss.backward()


def test_v9_half_precision_is_accumulated_in_float32() -> None:
    a = 300 * randn(64, 8, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = VICRegLoss()(a, a)["covariance_loss_a"]
    torch.testing.assert_close(got, VICRegLoss()(a, a)["covariance_loss_a"])


def test_c1_the_whole_batch_is_one_set_without_invariance() -> None:
    same = randn(1, 3, 8).expand(6, 3, 8) + 0.01 * randn(6, 3, 8, seed=2)
    spread = randn(6, 3, 8, seed=3)
    before = old("combined.CombinedLoss", num_hierarchies=1)
    assert before(spread, spread)["vicreg_invariance_h0"] > 10 * before(same, same)["vicreg_invariance_h0"]
    out = HJEPACombinedLoss()(spread, spread)
    assert not any("invariance" in key for key in out)
    x = spread.flatten(0, 1)
    expected = 25 * F.relu(1 - (x.var(dim=0) + 1e-4).sqrt()).mean()
    covariance = torch.cov(x.T)
    expected += (covariance.square().sum() - covariance.diagonal().square().sum()) / 8
    torch.testing.assert_close(out["vicreg_h0"], expected)
    torch.testing.assert_close(out["vicreg_loss"], 0.1 * expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("regularize", ["auto", "context", "levels", -1, 0])
def test_c2_c3_c5_places_are_named_and_reported_weighted_and_raw(regularize: str | int) -> None:
    context = randn(4, 5, 8, seed=4)
    loss = HJEPACombinedLoss(regularize=regularize, regularizer_weight=[0.5, 0.25])
    out = loss([P, P[:, :2]], [T, T[:, :2]], context_features=context)
    torch.testing.assert_close(out.loss, out["jepa_loss"] + out["vicreg_loss"])
    whole = VICRegLoss()
    first, second = (whole.regularize(x).loss for x in (P, P[:, :2]))
    raw = whole.regularize(context).loss
    weighted = {"levels": 0.5 * first + 0.25 * second, -1: 0.25 * second, 0: 0.5 * first}
    torch.testing.assert_close(out["vicreg_loss"], weighted.get(regularize, 0.5 * raw))
    raws = {"levels": first + second, -1: second, 0: first}
    torch.testing.assert_close(out["vicreg_loss_unweighted"], raws.get(regularize, raw))


def test_c3_the_last_level_was_reported_without_its_weight() -> None:
    before = old("combined.CombinedLoss", num_hierarchies=1, apply_vicreg_per_level=False)(P, T)
    assert not torch.isclose(before["loss"], before["jepa_loss"] + before["vicreg_loss"])


def test_c4_vicreg_has_its_own_eps() -> None:
    flat = 1e-6 * P
    assert old("combined.CombinedLoss", num_hierarchies=1)(flat, T)["vicreg_variance_h0"] > 0.999
    assert HJEPACombinedLoss()(flat, T)["vicreg_variance_h0"] < 0.991
    assert HJEPACombinedLoss(vicreg_eps=1e-8)(flat, T)["vicreg_variance_h0"] > 0.999


def test_c6_targets_are_detached_for_the_regulariser() -> None:
    t = T.clone().requires_grad_()
    before = old("combined.CombinedLoss", num_hierarchies=1, vicreg_on_targets=True)
    assert torch.autograd.grad(before(P, t)["loss"], t)[0].abs().sum() > 0
    p = P.clone().requires_grad_()
    loss = HJEPACombinedLoss(views="target_prediction")(p, t).loss
    assert torch.autograd.grad(loss, [p, t], allow_unused=True)[1] is None
    free = HJEPACombinedLoss(views="target_prediction", detach_targets=False)(p, t).loss
    assert torch.autograd.grad(free, t)[0].abs().sum() > 0


def test_c7_an_odd_batch_is_used_whole() -> None:
    p = randn(3, 2, 8).requires_grad_()
    (grad,) = torch.autograd.grad(HJEPACombinedLoss()(p, T[:3, :2])["loss"], p)
    assert (grad[2] != 0).any()
    context = randn(3, 8).requires_grad_()
    out = old("combined.CombinedLoss", num_hierarchies=1, vicreg_invariance_weight=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert out(P[:3], T[:3], None, context)["loss"].isnan()
    loss = HJEPACombinedLoss(views="halves")
    with pytest.raises(ValueError, match="at least two rows"):
        loss(P[:3], T[:3], None, context)
    with pytest.raises(ValueError, match="needs at least two samples"):
        loss(P[:1], T[:1])


def test_c8_the_weights_are_one_buffer() -> None:
    before = old("combined.CombinedLoss", num_hierarchies=1)
    before.load_state_dict({**before.state_dict(), "_vicreg_weights": torch.tensor([3.0])})
    assert before.vicreg_weights == [0.1]
    new = HJEPACombinedLoss(num_hierarchies=1)
    new.load_state_dict({**new.state_dict(), "regularizer_weight": torch.tensor([3.0])})
    assert "[3.0]" in repr(new)


def test_c10_c11_one_signature_and_one_scheme_of_keys() -> None:
    with pytest.raises(TypeError):
        old("combined.HierarchicalCombinedLoss", num_hierarchies=1)(P, T, context_features=P)
    shared = HJEPACombinedLoss(views="halves")(P, T)
    own = HJEPACombinedLoss(views="halves", vicreg_configs=[{"variance_weight": 3.0}])(P, T, context_features=None)
    assert list(shared) == list(own)
    assert {"vicreg_invariance_h0", "vicreg_variance_a_h0", "vicreg_covariance_b_h0"} <= set(shared)


def test_c12_the_weights_of_sigreg_count() -> None:
    context = randn(6, 4, 8, seed=5, dtype=torch.float32)
    levels = [P.float()], [T.float()]

    def before(**weights: float) -> Tensor:
        torch.manual_seed(0)
        inner = twin("hjepa.sigreg.SIGRegLoss")(num_slices=6, fixed_slices=True, **weights)
        outer = twin("hjepa.combined.HJEPASIGRegLoss")(
            twin("hjepa.hjepa_loss.HJEPALoss")(num_hierarchies=1), inner, 0.5
        )
        return outer(*levels, None, context)["loss"]

    torch.testing.assert_close(before(), before(invariance_weight=0.0, sigreg_weight=1.0))
    old_statistic = {"test_method": "reference_points", "standardize": True, "scale_by_samples": False}

    def after(**weights: float) -> Tensor:
        sigreg = SIGRegLoss(num_slices=4096, **old_statistic, **weights)
        loss = HJEPACombinedLoss(regularizer=sigreg, regularizer_weight=0.5, regularize="context", views="halves")
        return loss(*levels, None, context).loss

    assert not torch.isclose(after(sigreg_weight=25.0), after())
    with pytest.raises(ValueError, match="needs context_features"):
        HJEPACombinedLoss(regularizer=SIGRegLoss(num_slices=4), regularize="context")(*levels)


def test_c12_equal_directions_give_equal_numbers() -> None:
    """The row is ``fixed``; where the ignored weights do not matter, the numbers are the old ones."""
    context = randn(6, 4, 8, seed=5)
    new = SIGRegLoss(
        num_slices=6, test_method="reference_points", standardize=True, scale_by_samples=False, fixed_slices=True
    )
    inner = old("sigreg.SIGRegLoss", num_slices=6, fixed_slices=True)
    inner._fixed_random_slices = new._directions(context.flatten(0, 1), None)[0]
    outer = twin("hjepa.combined.HJEPASIGRegLoss")(old("hjepa_loss.HJEPALoss", num_hierarchies=1), inner, 0.5)
    loss = HJEPACombinedLoss(
        jepa_loss=HJEPALoss(), regularizer=new.double(), regularizer_weight=0.5, regularize="context", views="halves"
    )
    out, before = loss(P, T, None, context), outer(P, T, None, context)
    torch.testing.assert_close(out.loss, before["loss"])
    torch.testing.assert_close(out["sigreg_statistic"], before["sigreg_loss"])
    torch.testing.assert_close(out["sigreg_invariance"], before["sigreg_invariance"])


def test_c13_c14_c15_unused_keys_and_values_are_errors() -> None:
    create = twin("hjepa.combined.create_loss_from_config")
    assert create({"type": "combined", "use_vicreg": False}).vicreg_weights == [0.1] * 3
    # delta was fixed at 1: a key that was ignored must not begin to count where nobody looks
    huber = {"type": "hjepa", "jepa_loss_type": "huber", "huber_delta": 0.5}
    assert create(huber).huber_delta == 1.0
    for config in ({"type": "combined", "use_vicreg": False}, {"type": "vicreg", "eps": 1.0}, huber):
        with pytest.raises(ValueError, match="never read this key: remove it, or write the form name and kwargs"):
            create_loss_from_config(config)
    with pytest.raises(ValueError, match=r"^loss\.hierarchy_weight: unknown key; did you mean 'hierarchy_weights'"):
        create_loss_from_config({"type": "combined", "hierarchy_weight": [1.0]})
    new = {"name": "hjepa", "kwargs": {"loss_type": "huber", "huber_delta": 0.5}}
    assert create_loss_from_config(new).huber_delta == 0.5
    with pytest.raises(ValueError, match=r"jepa_loss_type: expected one of .*'cosine'"):
        create_loss_from_config({"type": "hjepa", "jepa_loss_type": "cosine"})


def test_n1_n2_similarities_are_raw_and_finite() -> None:
    a, b = randn(5, 6), randn(5, 6, seed=1)
    before, after = old("contrastive.NTXentLoss")(a, b), SimCLRLoss(temperature=0.1, metrics=True)(a, b)
    assert before["negative_similarity"] == -math.inf
    cosine = F.cosine_similarity(a, b)
    torch.testing.assert_close(before["positive_similarity"], 10 * cosine.mean())
    torch.testing.assert_close(after["positive_similarity"], cosine.mean())
    assert torch.isfinite(after["negative_similarity"])


def test_n3_a_collapsed_batch_is_not_accurate() -> None:
    same = torch.ones(4, 3, dtype=torch.float64)
    assert old("contrastive.NTXentLoss")(same, same)["accuracy"] == 1
    assert SimCLRLoss(metrics=True)(same, same)["accuracy"] == 0


def test_n5_views_of_another_shape() -> None:
    a, b = randn(2, 3, 4), randn(3, 2, 4)
    assert torch.isfinite(old("contrastive.NTXentLoss")(a, b)["loss"])
    with pytest.raises(ValueError, match="one common shape"):
        SimCLRLoss()(a, b)


def test_n6_n8_the_trainers_call_and_tuples() -> None:
    before = twin("hjepa.contrastive.ContrastiveJEPALoss")(old("hjepa_loss.HJEPALoss", num_hierarchies=1))
    with pytest.raises(TypeError):
        before(predictions=[P], targets=[T], context_features=P)
    with pytest.raises(AttributeError):
        before((P,), (T,), P, P)
    out = ContrastiveJEPALoss()((P,), (T,), None, P)
    z = P.mean(dim=1), T.mean(dim=1)
    torch.testing.assert_close(out["contrastive_loss"], SimCLRLoss(temperature=0.1)(*z).loss)


def test_n7_n10_weights_have_one_source_and_are_floats() -> None:
    before = twin("hjepa.contrastive.ContrastiveJEPALoss")(
        old("hjepa_loss.HJEPALoss", num_hierarchies=1), jepa_weight=2
    )
    assert before._jepa_weight.dtype == torch.int64
    before.jepa_weight = 7.0
    torch.testing.assert_close(
        before([P], [T], P, P)["loss"],
        (2 * before([P], [T], P, P)["jepa_loss"] + 0.1 * before([P], [T], P, P)["contrastive_loss"]),
    )
    new = ContrastiveJEPALoss(jepa_weight=2)
    assert new.jepa_weight.dtype == torch.float32
    value = new([P], [T])
    new.jepa_weight.fill_(7.0)
    torch.testing.assert_close(new([P], [T]).loss - value.loss, 5 * value["jepa_loss"])


def test_n9_keys_of_an_inner_combined_loss_are_kept() -> None:
    out = ContrastiveJEPALoss(jepa_loss=HJEPACombinedLoss())([P], [T])
    torch.testing.assert_close(out["jepa_loss"], out["jepa.jepa_loss"] + out["vicreg_loss"])


@pytest.mark.parametrize("contrast", ["features", "context"])
def test_n_missing_features(contrast: str) -> None:
    with pytest.raises(ValueError, match=r"needs .*context_features_a"):
        ContrastiveJEPALoss(contrast=contrast)([P], [T], target_features_a=P)


def test_s1_the_statistic_sees_location_and_scale() -> None:
    x = randn(64, 16, dtype=torch.float32)
    torch.manual_seed(0)
    before = twin("hjepa.sigreg.SIGRegLoss")(num_slices=64, fixed_slices=True)
    values = [before(s * x, s * x)["sigreg_loss"].item() for s in (1.0, 1e-3)]
    assert abs(values[1] / values[0] - 1) < 0.01
    new = SIGRegLoss(num_slices=64, fixed_slices=True)
    fits, small, moved = (new(y).loss.item() for y in (x, 1e-3 * x, x + 2))
    assert small > 20 * fits
    assert moved > 20 * fits
    unequal = torch.cat([x[:, :8], 0.01 * x[:, 8:]], dim=1)
    assert new(unequal).loss > 3 * fits


def test_s1_a_constant_gets_a_gradient_that_spreads_it() -> None:
    x = (0.01 * randn(64, 8, dtype=torch.float32)).requires_grad_()
    (grad,) = torch.autograd.grad(SIGRegLoss(num_slices=64)(x).loss, x)
    centred = x.detach() - x.detach().mean(dim=0)
    assert (grad * centred).sum() < 0, "a step against the gradient makes the spread larger"


def test_s2_s11_the_statistic_is_the_published_one() -> None:
    """Epps and Pulley (1983) in closed form, for the weight that makes the integral one (window 1, all t)."""
    x = randn(12, 1, seed=8)
    y = x[:, 0]
    n = len(y)
    # integral |phi_n - phi|^2 exp(-t^2/2) dt over the real line
    pairs = torch.exp(-0.5 * (y[:, None] - y[None, :]).square()).sum() / n**2
    cross = torch.exp(-0.25 * y.square()).mean() / math.sqrt(2)
    exact = n * math.sqrt(2 * math.pi) * (pairs - 2 * cross + 1 / math.sqrt(3))
    loss = SIGRegLoss(t_min=-12.0, t_max=12.0, num_knots=401).double()
    torch.testing.assert_close(loss(x, directions=torch.ones(1, 1)).loss, exact, rtol=1e-6, atol=0)
    coarse = SIGRegLoss().double()(x, directions=torch.ones(1, 1)).loss
    torch.testing.assert_close(coarse, exact, rtol=1e-2, atol=0)


def test_s4_s6_directions_are_shared_seeded_and_saved() -> None:
    x = randn(6, 4)
    loss = SIGRegLoss(num_slices=5).double()
    out = loss(x, x)
    assert out["sigreg_loss_a"] == out["sigreg_loss_b"]
    again = SIGRegLoss(num_slices=5).double()
    again.load_state_dict(loss.state_dict())
    second = loss(x).loss
    assert second != out["sigreg_loss"]
    assert again(x).loss == second
    assert SIGRegLoss(num_slices=5, seed=1).double()(x, x).loss != out.loss
    apart = SIGRegLoss(num_slices=5, shared_directions=False).double()(x, x)
    assert apart["sigreg_loss_a"] != apart["sigreg_loss_b"]
    assert loss.eval()(x).loss == loss(x).loss


def test_s5_other_dtypes() -> None:
    x = randn(6, 4)
    with pytest.raises(RuntimeError):
        old("sigreg.SIGRegLoss", num_slices=5)(x, x)
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        assert torch.isfinite(SIGRegLoss(num_slices=5)(x.to(dtype)).loss)


def test_s7_s8_the_hybrid_is_a_weighted_sum() -> None:
    a, b = randn(6, 4), randn(6, 4, seed=1)
    hybrid = old("sigreg.HybridVICRegSIGRegLoss", num_slices=5, sigreg_weight=3.0)
    new = SIGRegLoss(
        num_slices=5, test_method="reference_points", standardize=True, scale_by_samples=False, fixed_slices=True
    ).double()
    hybrid.sigreg_loss.fixed_slices = True
    hybrid.sigreg_loss._fixed_random_slices = new._directions(a, None)[0]
    vicreg = VICRegLoss(eps=1e-6, covariance_norm="pairs", view_reduction="mean")
    # invariance counted twice, the weight of the statistic squared
    invariance = 3.0 * 25.0 * F.mse_loss(a, b)
    expected = vicreg(a, b).loss + invariance + 3.0**2 * new(a, b)["sigreg_loss"]
    torch.testing.assert_close(hybrid(a, b)["loss"], expected)
    terms = [
        {"name": "vicreg", "kwargs": {"eps": 1e-6, "covariance_norm": "pairs", "view_reduction": "mean"}},
        {"name": "sigreg", "weight": 3.0, "kwargs": {"num_slices": 5, "fixed_slices": True}},
    ]
    total = create_loss_from_config(terms)(a, b)
    plain = SIGRegLoss(num_slices=5, fixed_slices=True)(a, b).loss
    torch.testing.assert_close(total.loss, vicreg(a, b).loss + 3.0 * plain)


def test_s9_unknown_methods_are_errors() -> None:
    assert torch.isfinite(twin("hjepa.sigreg.EppsPulleyTest")(test_method="charfunction")(randn(5).float()))
    with pytest.raises(ValueError, match="test_method must be one of"):
        SIGRegLoss(test_method="charfunction")


def test_s10_constants_are_not_saved() -> None:
    assert list(SIGRegLoss().state_dict()) == ["step"]


OLD_CONFIGS = [
    {"type": "mse", "hierarchy_weights": [1.0, 0.5], "normalize_embeddings": False},
    {"type": "hjepa", "jepa_loss_type": "huber", "hierarchy_weights": 0.5, "detach_targets": False},
    {"type": "combined", "vicreg_weight": 0.25, "vicreg_variance_weight": 5.0, "hierarchy_weights": [1.0, 0.5]},
    {"type": "hierarchical_combined", "vicreg_weight": [0.5, 0.25]},
    {"type": "hierarchical_combined", "vicreg_configs": [{"eps": 1e-3}, {"variance_threshold": 0.5}]},
    {"type": "cjepa", "contrastive_weight": 0.5, "contrastive_temperature": 0.2},
    {"type": "SmoothL1", "use_contrastive": True, "use_cosine_similarity": False},
]


@pytest.mark.parametrize("section", OLD_CONFIGS, ids=lambda s: s["type"])
@pytest.mark.parametrize("nested", [True, False])
def test_old_dictionaries_give_the_old_numbers(section: dict[str, Any], nested: bool) -> None:
    config = {"loss": section, "model": {"num_hierarchies": 2}} if nested else {**section, "num_hierarchies": 2}
    before = twin("hjepa.combined.create_loss_from_config")(config)
    after = create_loss_from_config(config)
    after.load_state_dict(after.old_state(before.state_dict()))
    levels = [randn(4, 3, 8, dtype=torch.float32).requires_grad_(), randn(4, 2, 6, seed=1, dtype=torch.float32)]
    targets = [randn(4, 3, 8, seed=2, dtype=torch.float32), randn(4, 2, 6, seed=3, dtype=torch.float32)]
    more: dict[str, Tensor] = {}
    renamed: dict[str, Tensor] = {}
    if "contrastive" in type(before).__module__:
        for i, (a, b) in enumerate((("i", "a"), ("j", "b"))):
            more[f"target_features_{a}"] = renamed[f"target_features_{b}"] = randn(
                4, 3, 8, seed=4 + i, dtype=torch.float32
            )
    want, got = before(levels, targets, **more)["loss"], after(levels, targets, **renamed).loss
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-5)
    grads = [torch.autograd.grad(x, levels[0])[0] for x in (got, want)]
    torch.testing.assert_close(*grads, rtol=2e-4, atol=2e-5)


def test_old_vicreg_and_sigreg_dictionaries() -> None:
    a, b = randn(6, 4, dtype=torch.float32), randn(6, 4, seed=1, dtype=torch.float32)
    create = twin("hjepa.combined.create_loss_from_config")
    config: dict[str, Any] = {"type": "vicreg", "vicreg_variance_weight": 3.0}
    torch.testing.assert_close(create_loss_from_config(config)(a, b).loss, create(config)(a, b)["loss"])
    for method in ("reference_points", "char_function"):
        config = {"type": "sigreg", "sigreg_num_slices": 5, "sigreg_fixed_slices": True, "sigreg_test_method": method}
        before, after = create(config), create_loss_from_config(config)
        before._fixed_random_slices = after._directions(a, None)[0]
        torch.testing.assert_close(after(a, a).loss, before(a, a)["loss"])
        directions = before._fixed_random_slices
        torch.testing.assert_close(after(a, b, directions=directions).loss, before(a, b)["loss"])


def test_patches_are_joined_where_the_part_says_so() -> None:
    """flatten_patches=False of the regulariser counts inside the combined losses, too."""
    config = {"type": "hierarchical_combined", "vicreg_weight": 0.5, "vicreg_configs": [{"flatten_patches": False}] * 2}
    config = {"loss": config, "model": {"num_hierarchies": 2}}
    levels = [randn(6, 4, 3), randn(6, 2, 3, seed=1)], [randn(6, 4, 3, seed=2), randn(6, 2, 3, seed=3)]
    before = twin("hjepa.combined.create_loss_from_config")(config).double()(*levels)
    after = create_loss_from_config(config).double()(*levels)
    torch.testing.assert_close(after["loss"], before["loss"])
    flat = create_loss_from_config({**config, "loss": {**config["loss"], "vicreg_configs": [{}, {}]}}).double()(*levels)
    assert not torch.isclose(flat["loss"], after["loss"])
