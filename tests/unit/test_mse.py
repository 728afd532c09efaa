"""WeightedMSELoss."""

from __future__ import annotations

import pytest
import torch

from tests.support.twins import twin
from training_losses.supervised.mse import WeightedMSELoss

G = torch.Generator().manual_seed(0)
A, B = (torch.randn(4, 3, 2, generator=G, dtype=torch.float64) for _ in range(2))
W = torch.tensor([1.0, 0.0, 2.0, 0.5], dtype=torch.float64)


@pytest.mark.parametrize(("reduction", "reduce"), [("mean", torch.mean), ("sum", torch.sum), ("none", lambda e: e)])
def test_weights_belong_to_samples(reduction: str, reduce: object) -> None:
    for a, b in ((A, B), (A[:, :, 0], B[:, :, 0]), (A[:, 0, 0], B[:, 0, 0])):
        error = torch.stack([W[i] * (a[i] - b[i]) ** 2 for i in range(4)])
        torch.testing.assert_close(WeightedMSELoss(reduction=reduction)(a, b, W), reduce(error))


def test_a_weighted_vector_was_an_outer_product() -> None:
    old = twin("losses.MeanSquaredError")(reduction="none")(A[:, 0, 0], B[:, 0, 0], W)
    assert old.shape == (4, 4)
    assert WeightedMSELoss(reduction="none")(A[:, 0, 0], B[:, 0, 0], W).shape == (4,)
    with pytest.raises(RuntimeError):
        twin("losses.MeanSquaredError")()(A, B, W)


def test_max_value_bounds_the_value_and_kills_the_gradient() -> None:
    a = A.clone().requires_grad_()
    old = twin("losses.MeanSquaredError")(clip_grad=0.5)(a, B)
    new = WeightedMSELoss(max_value=0.5)(a, B)
    assert new.item() == old.item() == 0.5
    assert not torch.autograd.grad(new, a)[0].any()
    each = WeightedMSELoss(max_value=0.5, reduction="none")(a, B)
    assert float(each.detach().max()) == 0.5
    torch.testing.assert_close(each, twin("losses.MeanSquaredError")(reduction="none", clip_grad=0.5)(a, B))


def test_shapes_must_be_equal() -> None:
    assert float(twin("losses.MeanSquaredError")()(A, B[:1])) > 0  # broadcast without a word
    for args in ((A, B[:1]), (A, B, W[:3]), (A, B, W[:, None])):
        with pytest.raises(ValueError, match="found"):
            WeightedMSELoss()(*args)
    with pytest.raises(ValueError, match="reduction"):
        WeightedMSELoss(reduction="avg")
    with pytest.raises(ValueError, match="max_value"):
        WeightedMSELoss(max_value=float("nan"))
