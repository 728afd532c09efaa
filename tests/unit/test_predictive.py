"""HJEPALoss, HJEPACombinedLoss, ContrastiveJEPALoss, SIGRegLoss: what the parity and contract tests do not show."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training_losses.contrastive import SimCLRLoss
from training_losses.contrastive.barlow_twins import BarlowTwinsLoss
from training_losses.contrastive.cross_modal_vicreg import CrossModalVICRegLoss
from training_losses.contrastive.vicreg import VICRegLoss
from training_losses.functional.counter_random import counter_normal
from training_losses.functional.normality import (
    characteristic_distance,
    gaussian_quadrature,
    kernel_distance,
    normal_quantiles,
)
from training_losses.predictive import ContrastiveJEPALoss, HJEPACombinedLoss, HJEPALoss, SIGRegLoss


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


P, T = randn(5, 4, 6), randn(5, 4, 6, seed=1)

BAD_ARGUMENTS = [
    (HJEPALoss, {"loss_type": "smoothl1"}, "loss_type must be one of 'smooth_l1', 'mse', 'huber', found 'smoothl1'"),
    (HJEPALoss, {"hierarchy_weights": []}, "hierarchy_weights must have at least one entry"),
    (HJEPALoss, {"hierarchy_weights": [1.0], "num_hierarchies": 2}, "hierarchy_weights must have 2 entries"),
    (HJEPALoss, {"hierarchy_weights": [1.0, math.nan]}, "hierarchy_weights must be a number"),
    (HJEPALoss, {"num_hierarchies": 0}, "num_hierarchies must be an integer at least 1"),
    (HJEPALoss, {"huber_delta": 0.0}, "huber_delta must be a number greater than 0"),
    (HJEPALoss, {"eps": 0.0}, "eps must be"),
    (HJEPALoss, {"mask_average": "all"}, "mask_average must be one of"),
    (HJEPACombinedLoss, {"reduction": "none"}, "reduction must be one of 'mean', 'sum'"),
    (HJEPACombinedLoss, {"views": "half"}, "views must be one of"),
    (
        HJEPACombinedLoss,
        {"regularize": "all"},
        "regularize must be one of 'auto', 'context', 'levels', 'a level number'",
    ),
    (HJEPACombinedLoss, {"regularize": True}, "regularize must be one of"),
    (HJEPACombinedLoss, {"tokens": "sum"}, "tokens must be one of"),
    (HJEPACombinedLoss, {"regularizer": []}, "regularizer must have one or more entries, found 0"),
    (HJEPACombinedLoss, {"vicreg_configs": [{}], "num_hierarchies": 2}, "vicreg_configs must have 2 entries, found 1"),
    (HJEPACombinedLoss, {"regularizer_weight": [0.1], "num_hierarchies": 2}, "regularizer_weight must have 2 entries"),
    (HJEPACombinedLoss, {"jepa_loss": HJEPALoss(), "eps": 1e-3}, "eps belong to the built-in jepa_loss"),
    (HJEPACombinedLoss, {"regularizer": SIGRegLoss(), "vicreg_eps": 1e-3}, "vicreg_eps belong to the built-in"),
    (HJEPACombinedLoss, {"regularizer": SIGRegLoss(), "vicreg_configs": [{}]}, "give one regularizer per level"),
    (ContrastiveJEPALoss, {"contrast": "target"}, "contrast must be one of"),
    (ContrastiveJEPALoss, {"pool": "max"}, "pool must be one of"),
    (ContrastiveJEPALoss, {"jepa_weight": -1.0}, "jepa_weight must be"),
    (ContrastiveJEPALoss, {"temperature": 0.0}, "temperature must be"),
    (SIGRegLoss, {"num_slices": 0}, "num_slices must be an integer at least 1, found 0"),
    (SIGRegLoss, {"num_knots": 1}, "num_knots must be"),
    (SIGRegLoss, {"t_min": 3.0, "t_max": 3.0}, "t_max must be a number greater than 3"),
    (SIGRegLoss, {"window": 0.0}, "window must be"),
    (SIGRegLoss, {"tokens": "mean"}, "tokens must be one of"),
]


@pytest.mark.parametrize(("loss", "kwargs", "message"), BAD_ARGUMENTS, ids=[str(i) for i in range(len(BAD_ARGUMENTS))])
def test_bad_arguments(loss: type[nn.Module], kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(**kwargs)


BAD_INPUTS = [
    (HJEPALoss(), ([P], [T, T]), "same levels, found 1 and 2"),
    (HJEPALoss(), ([], []), "same levels, found 0 and 0"),
    (HJEPALoss(num_hierarchies=2), (P, T), "must have 2 levels, found 1"),
    (HJEPALoss(), (P[:, 0], T[:, 0]), r"\[B, N, D\].*found \[5, 6\] and \[5, 6\]"),
    (HJEPALoss(), (P, T[:, :3]), r"level 0: .*found \[5, 4, 6\] and \[5, 3, 6\]"),
    (HJEPALoss(), (P, T, [None, None]), r"one per level \(1\), found 2"),
    (HJEPALoss(), (P, T, [torch.ones(5, 3)]), r"level 0: mask must be .*found \[5, 3, 1\]"),
    (HJEPALoss(), (P, T, [torch.ones(5, 4, 2)]), r"found \[5, 4, 2\]"),
    (HJEPACombinedLoss(regularize=3), (P, T), "regularize=3 names a level that is not there"),
    (HJEPACombinedLoss(regularize="context"), (P, T), "needs context_features"),
    (HJEPACombinedLoss(regularize="context", views="target_prediction"), (P, T, None, P), "needs a level"),
    (HJEPACombinedLoss(regularizer=BarlowTwinsLoss()), (P, T), "BarlowTwinsLoss compares two views"),
    (HJEPACombinedLoss(regularizer_weight=[0.1, 0.1]), (P, T), "regularizer_weight has 2 entries, found 1 levels"),
    (ContrastiveJEPALoss(contrast="context"), (P, T), "needs context_features_a and context_features_b"),
    (SIGRegLoss(), (P, T[:3]), "one common shape"),
    (SIGRegLoss(invariance_weight=1.0), (P,), "z_b is needed"),
    (SIGRegLoss(standardize=True), (P[:1, 0],), "at least two rows"),
    (SIGRegLoss(), (P[:0],), "at least one embedding"),
    (SIGRegLoss(), (P, T, randn(3, 2)), r"directions must be \[M, 6\], found \[3, 2\]"),
    (CrossModalVICRegLoss(vision_dim=6, text_dim=3, projection_dim=4), (P[:, 0], T[:, 0]), r"text_features .*\[B, 3\]"),
    (CrossModalVICRegLoss(vision_dim=6, text_dim=6, projection_dim=4), (P[:, 0], T[:3, 0]), "found 5 and 3"),
]


@pytest.mark.parametrize(("loss", "inputs", "message"), BAD_INPUTS, ids=[str(i) for i in range(len(BAD_INPUTS))])
def test_bad_inputs(loss: nn.Module, inputs: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss.double()(*inputs)


def test_contrast_needs_2d_or_3d_features() -> None:
    with pytest.raises(ValueError, match="features must be"):
        ContrastiveJEPALoss()(P, T, context_features_a=P[0, 0], context_features_b=P[0, 0])


@pytest.mark.parametrize("kind", ["smooth_l1", "mse", "huber"])
def test_elementwise_formulas(kind: str) -> None:
    x = (3 * (P - T)).abs()
    d = 0.7
    expected = {
        "mse": x.square(),
        "smooth_l1": torch.where(x < 1, x.square() / 2, x - 0.5),
        "huber": torch.where(x <= d, x.square() / 2, d * (x - d / 2)),
    }[kind]
    loss = HJEPALoss(loss_type=kind, normalize_embeddings=False, huber_delta=d)
    torch.testing.assert_close(loss(3 * P, 3 * T).loss, expected.mean())
    mask = torch.arange(20).reshape(5, 4) % 3 == 0
    torch.testing.assert_close(loss(3 * P, 3 * T, mask).loss, expected[mask].mean())
    weights = mask * 0.5 + 0.25
    weighted = (expected * weights[..., None]).sum() / (6 * weights.sum())
    torch.testing.assert_close(loss(3 * P, 3 * T, weights.double()).loss, weighted)


@pytest.mark.parametrize("regularizer", [BarlowTwinsLoss(), SimCLRLoss(metrics=True)])
@pytest.mark.parametrize("tokens", ["flatten", "mean"])
def test_other_regularisers_of_two_views(regularizer: nn.Module, tokens: str) -> None:
    name = {"BarlowTwinsLoss": "barlow_twins", "SimCLRLoss": "simclr"}[type(regularizer).__name__]
    p = P.clone().requires_grad_()
    out = HJEPACombinedLoss(regularizer=regularizer, views="target_prediction", tokens=tokens)(
        [p, p[:, :2]], [T, T[:, :2]]
    )
    rows = [x.flatten(0, 1) if tokens == "flatten" else x.mean(dim=1) for x in (T, P)]
    torch.testing.assert_close(out[f"{name}_h0"], regularizer(*rows)["loss"])
    torch.testing.assert_close(out.loss, out["jepa_loss"] + out[f"{name}_loss"])
    assert torch.autograd.grad(out.loss, p)[0].abs().sum() > 0


def test_real_views_and_one_regulariser_per_level() -> None:
    view_a, view_b = randn(5, 6, seed=2), randn(5, 6, seed=3)
    out = HJEPACombinedLoss(regularizer_weight=1.0)(P, T, None, (view_a, view_b))
    torch.testing.assert_close(out["vicreg_loss"], VICRegLoss()(view_a, view_b).loss)
    assert "vicreg_invariance" in out
    parts = [VICRegLoss(), SIGRegLoss(num_slices=4)]
    out = HJEPACombinedLoss(regularizer=parts, tokens="keep")([P, P], [T, T])
    assert {"vicreg_h0", "sigreg_h1", "regularizer_loss"} <= set(out)
    torch.testing.assert_close(out["regularizer_loss"], 0.1 * (out["vicreg_h0"] + out["sigreg_h1"]), rtol=1e-6, atol=0)


def test_a_tensor_valued_prediction_loss_and_regulariser() -> None:
    class Plain(nn.Module):
        def forward(self, predictions: list[Tensor], targets: list[Tensor], masks: object = None) -> Tensor:
            return F.mse_loss(predictions[0], targets[0])

    out = HJEPACombinedLoss(jepa_loss=Plain(), regularizer=nn.MSELoss(), views="target_prediction")(P, T)
    torch.testing.assert_close(out.loss, 1.1 * F.mse_loss(P, T), rtol=1e-6, atol=0)
    assert "regularizer_h0" in out
    torch.testing.assert_close(ContrastiveJEPALoss(jepa_loss=Plain())(P, T)["jepa_loss"], F.mse_loss(P, T))


def test_pooling_of_contrasted_features() -> None:
    a, b = randn(5, 3, 4, seed=4), randn(5, 3, 4, seed=5)
    pair = {"target_features_a": a, "target_features_b": b}
    first = ContrastiveJEPALoss(contrast="features")(P, T, **pair)["contrastive_loss"]
    torch.testing.assert_close(first, SimCLRLoss(temperature=0.1)(a[:, 0], b[:, 0]).loss)
    mean = ContrastiveJEPALoss(contrast="features", pool="mean")(P, T, **pair)["contrastive_loss"]
    pooled = {"target_features_a": a.mean(dim=1), "target_features_b": b.mean(dim=1)}
    torch.testing.assert_close(mean, ContrastiveJEPALoss()(P, T, **pooled)["contrastive_loss"])


def test_directions_are_normal_and_differ_by_seed_and_step() -> None:
    def drawn(seed: int, step: int) -> Tensor:
        return counter_normal(400, 250, seed=seed, step=torch.tensor(step), dtype=torch.float64)

    first = drawn(0, 0)
    assert torch.equal(first, drawn(0, 0))
    for other in (drawn(0, 1), drawn(1, 0), drawn(2**40 + 7, 3)):
        assert abs((first * other).mean()) < 0.02
        assert abs(other.mean()) < 0.02
        assert abs(other.std() - 1) < 0.01
    assert abs(first.pow(4).mean() - 3) < 0.1
    assert torch.corrcoef(first.T)[0, 1:].abs().max() < 0.25
    assert abs((first[1:] * first[:-1]).mean()) < 0.02


@pytest.mark.parametrize("method", ["characteristic_function", "reference_points"])
@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_streaming_changes_nothing(method: str, chunk_size: int) -> None:
    x = P.clone().requires_grad_()
    whole = SIGRegLoss(num_slices=7, test_method=method).double()
    parts = SIGRegLoss(num_slices=7, test_method=method, chunk_size=chunk_size).double()
    want, got = whole(x).loss, parts(x).loss
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(*(torch.autograd.grad(loss, x)[0] for loss in (got, want)))


def test_row_blocks_of_the_kernel_statistic_change_nothing() -> None:
    y = randn(3, 11).requires_grad_()
    points = normal_quantiles(5).double()
    want, got = kernel_distance(y, points), kernel_distance(y, points, rows=4)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(*(torch.autograd.grad(d.sum(), y)[0] for d in (got, want)))


def test_sigreg_by_hand() -> None:
    """One direction, by a plain loop over the definition."""
    y = P[:, 0, 0].tolist()
    knots = [-5 + 10 * k / 16 for k in range(17)]
    total = 0.0
    for k, t in enumerate(knots):
        real = sum(math.cos(t * v) for v in y) / len(y) - math.exp(-(t**2) / 2)
        imaginary = sum(math.sin(t * v) for v in y) / len(y)
        weight = 10 / 16 * (0.5 if k in (0, 16) else 1.0) * math.exp(-(t**2) / 2)
        total += weight * (real**2 + imaginary**2)
    loss = SIGRegLoss().double()
    direction = torch.zeros(1, 6, dtype=torch.float64)
    direction[0, 0] = 1.0
    torch.testing.assert_close(loss(P[:, 0], directions=direction).loss.item(), len(y) * total)
    even = SIGRegLoss(num_knots=16).double()(P[:, 0], directions=direction).loss
    torch.testing.assert_close(even.item(), len(y) * total, rtol=0.02, atol=0)


def test_regularize_of_vicreg_counts_a_set_once() -> None:
    x = P.flatten(0, 1)
    one, two = VICRegLoss().regularize(P), VICRegLoss()(x, x)
    torch.testing.assert_close(2 * one.loss, two.loss)
    with pytest.raises(ValueError, match="at least two rows"):
        VICRegLoss().regularize(P[0, :1])
    warm = VICRegLoss(warmup="linear", warmup_epochs=4)
    warm.update_epoch(2)
    torch.testing.assert_close(warm.regularize(P).loss, 0.5 * one.loss)


def test_cross_modal_heads_learn_and_are_saved() -> None:
    loss = CrossModalVICRegLoss(vision_dim=6, text_dim=3, projection_dim=4, vicreg=VICRegLoss(variance_weight=3.0))
    out = loss.double()(P[:, 0], randn(5, 3))
    out.loss.backward()
    assert all(p.grad is not None for p in loss.parameters())
    assert {"vision_head.layers.0.weight", "text_head.layers.0.weight"} <= set(loss.state_dict())
    projected = loss.project(vision=P[:, 0], text=randn(5, 3))
    torch.testing.assert_close(out.loss, VICRegLoss(variance_weight=3.0)(*projected).loss)


def test_configuration_is_printed() -> None:
    assert "smooth_l1" in repr(HJEPALoss())
    assert "views='whole'" in repr(HJEPACombinedLoss())
    assert "contrast='auto'" in repr(ContrastiveJEPALoss())
    assert "num_slices=1024" in repr(SIGRegLoss())


def test_level_weights_of_the_combined_loss() -> None:
    """Each level counts with its own weight, in the prediction and in the regulariser."""
    levels = [randn(4, 3, 5, seed=i) for i in range(3)], [randn(4, 3, 5, seed=9 + i) for i in range(3)]
    weights, penalties = [1.0, 0.5, 0.25], [0.3, 0.0, 2.0]
    loss = HJEPACombinedLoss(hierarchy_weights=weights, regularizer_weight=penalties, regularize="levels").double()
    out = loss(*levels)
    prediction = sum(w * out[f"loss_h{i}"] for i, w in enumerate(weights))
    penalty = sum(w * out[f"vicreg_h{i}"] for i, w in enumerate(penalties))
    torch.testing.assert_close(out["jepa_loss"], prediction, rtol=1e-12, atol=0)
    torch.testing.assert_close(out["vicreg_loss"], penalty, rtol=1e-7, atol=0)
    torch.testing.assert_close(out.loss, prediction + penalty, rtol=1e-7, atol=0)
    assert len({float(out[f"loss_h{i}"]) for i in range(3)}) == 3, "levels that are equal would show nothing"


def test_slope_of_the_characteristic_distance() -> None:
    knots = torch.linspace(-1.0, 2.0, 5, dtype=torch.float64)
    weights = gaussian_quadrature(knots, 1.0)
    y = randn(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: characteristic_distance(y, knots, weights), y)
    assert torch.autograd.gradgradcheck(lambda y: characteristic_distance(y, knots, weights), y)
    whole = torch.autograd.grad(characteristic_distance(y, knots, weights).sum(), y)[0]
    with patch("training_losses.functional.normality._TILE", 1):  # row by row
        rows = torch.autograd.grad(characteristic_distance(y, knots, weights).sum(), y)[0]
    torch.testing.assert_close(rows, whole, rtol=1e-12, atol=1e-15)


def test_directions_are_those_of_the_hash() -> None:
    """In integers of Python: the products of the loss wrap around in 32 bits."""

    def mix(x: int) -> int:
        x = ((x ^ (x >> 16)) * 0x7FEB352D) % 2**32
        x = ((x ^ (x >> 15)) * 0x846CA68B) % 2**32
        return x ^ (x >> 16)

    for seed, step in ((0, 0), (3, 7), (2**32 - 1, 2**31 + 5)):
        key = mix((step + mix(seed)) % 2**32)
        bits = [mix(mix(i ^ key) ^ (key >> 1)) >> 8 for i in range(12)]
        wanted = torch.erfinv(torch.tensor([2 * (b + 0.5) / 2**24 - 1 for b in bits], dtype=torch.float64)) * 2**0.5
        found = counter_normal(3, 4, seed=seed, step=torch.tensor(step), dtype=torch.float64)
        torch.testing.assert_close(found.flatten(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"standardize": True}, {"test_method": "reference_points", "standardize": True}])
def test_sigreg_in_chunks_compiles_with_open_sizes(options: dict[str, object]) -> None:
    torch._dynamo.reset()
    made = {"num_slices": 4, "chunk_size": 2, "fixed_slices": True, **options}
    loss = SIGRegLoss(**made)
    call = torch.compile(loss, fullgraph=True, dynamic=True, backend="eager")
    for rows in (5, 9):
        z = torch.randn(rows, 3, generator=torch.Generator().manual_seed(rows))
        torch.testing.assert_close(call(z).loss, loss(z).loss)
