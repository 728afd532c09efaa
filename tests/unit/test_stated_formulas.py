"""Formulas that are not the ones a requirement wrote down; the guide lists them with the reason."""

from __future__ import annotations

import torch

from training_losses.contrastive import CLIPLoss
from training_losses.contrastive.vicreg import VICRegLoss
from training_losses.predictive import HJEPALoss
from training_losses.temporal import EnergyLoss


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_an_energy_of_order_two_divides_by_the_root_of_the_units() -> None:
    for units in (4, 25):
        a = randn(3, units, seed=0)
        got = EnergyLoss(order=2)(activations={"m": a})
        torch.testing.assert_close(got, (a.norm(dim=1) / units**0.5).mean(), rtol=1e-12, atol=0)
        assert not torch.isclose(got, (a.norm(dim=1) / units).mean())


def test_the_mse_of_a_level_divides_by_all_elements() -> None:
    p, t = randn(2, 3, 5, seed=0), randn(2, 3, 5, seed=1)
    got = HJEPALoss(loss_type="mse", normalize_embeddings=False)([p], [t]).loss
    torch.testing.assert_close(got, (p - t).square().sum() / (2 * 3 * 5), rtol=1e-12, atol=0)


def test_the_variance_of_vicreg_is_unbiased() -> None:
    z = randn(4, 6, seed=0) * 0.1
    got = VICRegLoss(eps=1e-4).double()(z, z)["variance_loss_a"]
    deviation = (z.var(dim=0, unbiased=True) + 1e-4).sqrt()
    torch.testing.assert_close(got, (1 - deviation).relu().mean(), rtol=1e-10, atol=0)
    assert not torch.isclose(got, (1 - (z.var(dim=0, unbiased=False) + 1e-4).sqrt()).relu().mean(), rtol=1e-6)


def test_similarities_are_not_divided_by_the_temperature() -> None:
    a, b = randn(3, 4, seed=0), randn(3, 4, seed=1)
    loss = CLIPLoss(temperature=0.1)
    cosine = torch.nn.functional.normalize(a) @ torch.nn.functional.normalize(b).T
    torch.testing.assert_close(loss.compute_similarity(a, b), cosine, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.scale_by_temperature(cosine), cosine / 0.1, rtol=1e-6, atol=0)
