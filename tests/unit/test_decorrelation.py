"""DecorrelationLoss: VICReg's scale by default, defined edges."""

from __future__ import annotations

import pytest
import torch

from tests.support.twins import twin
from training_losses.contrastive.decorrelation import DecorrelationLoss
from training_losses.contrastive.vicreg import VICRegLoss


def features(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, columns, generator=g, dtype=torch.float64)
    return torch.randn(rows, columns, generator=g, dtype=torch.float64) @ mix


def test_is_the_covariance_term_of_vicreg() -> None:
    x, y = features(9, 4), features(9, 4, 1)
    want = VICRegLoss()(x, y)["covariance_loss"]
    torch.testing.assert_close(2 * DecorrelationLoss()(x, y).loss, want)


def test_old_scale_vanishes_with_the_width() -> None:
    wide = features(64, 256)
    old = twin("decorrelation_loss.DecorrelationLoss")()(wide)
    assert float(old["loss"]) < 1e-4
    assert float(DecorrelationLoss(correlation=True)(wide).loss) > 1


@pytest.mark.parametrize(("reduction", "norm"), [("mean", "pairs"), ("sum", "sum")])
def test_options_bring_the_old_numbers_back(reduction: str, norm: str) -> None:
    x, y, z = features(9, 4), features(9, 4, 1), features(6, 7, 2)
    old = twin("decorrelation_loss.DecorrelationLoss")(coef=0.5, reduction=reduction)(x, y, z)
    new = DecorrelationLoss(
        weight=0.5, covariance_norm=norm, normalize=True, track_statistics=True, relative_threshold=False
    )(x, y, z)
    torch.testing.assert_close(new.loss, old["loss"], rtol=1e-12, atol=1e-12)
    assert float(new["decorrelation_loss_features"]) == pytest.approx(old["generic_decorrelation_loss"], abs=1e-12)
    for name, prefix in (("vision", "vision"), ("text", "text"), ("features", "feature")):
        stats = old["feature_stats"]
        for key, short in (
            ("min_variance", "min_var"),
            ("mean_variance", "mean_var"),
            ("low_variance_fraction", "low_var_pct"),
        ):
            assert float(new[f"{key}_{name}"]) == pytest.approx(stats[f"{prefix}_{short}"], abs=1e-12)


def test_a_collapsed_batch_costs_nothing_which_is_why_it_needs_a_partner() -> None:
    constant = torch.ones(8, 4)
    assert float(DecorrelationLoss()(constant).loss) == 0
    assert float(VICRegLoss()(constant, constant).loss) > 40


def test_the_threshold_is_relative() -> None:
    x = features(64, 8)
    x[:, 0] *= 1e-4
    for scale in (1e-3, 1.0, 1e3):
        out = DecorrelationLoss(track_statistics=True)(x * scale)
        assert float(out["low_variance_count_vision"]) == 1
        assert float(out["low_variance_fraction_vision"]) == pytest.approx(1 / 8)


def test_edges() -> None:
    x = features(6, 1)
    assert torch.isnan(twin("decorrelation_loss.DecorrelationLoss")()(x)["loss"])
    assert float(DecorrelationLoss(covariance_norm="pairs")(x).loss) == 0
    # a set of one row lowered the mean of the others
    big = features(8, 4)
    old = twin("decorrelation_loss.DecorrelationLoss")()
    assert float(old(big, big[:1])["loss"]) == pytest.approx(float(old(big)["loss"]) / 2)
    with pytest.raises(ValueError, match="two rows"):
        DecorrelationLoss()(big, big[:1])
    assert not old()["loss"].requires_grad
    with pytest.raises(ValueError, match="found none"):
        DecorrelationLoss()()
    with pytest.raises(ValueError, match="covariance_norm"):
        DecorrelationLoss(covariance_norm="mean")
