"""FeatureConsistencyLoss: distances, a reference that stays frozen, errors in place of crashes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.support.twins import twin
from training_losses.multimodal.feature_consistency import FeatureConsistencyLoss


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


F1, F2 = drawn(5, 4), drawn(5, 4, seed=1)
BY_HAND = {
    "cosine": lambda f, r: 1 - F.cosine_similarity(f, r),
    "neg_dot": lambda f, r: 1 - (f * r).sum(1),
    "l2": lambda f, r: (f - r).square().sum(1).sqrt(),
    "l1": lambda f, r: (f - r).abs().sum(1),
    "smooth_l1": lambda f, r: torch.where((f - r).abs() < 1, (f - r) ** 2 / 2, (f - r).abs() - 0.5).sum(1),
}


@pytest.mark.parametrize("distance", BY_HAND)
@pytest.mark.parametrize("normalize", [True, False])
def test_distances(distance: str, normalize: bool) -> None:
    loss = FeatureConsistencyLoss(distance=distance, normalize=normalize, text_weight=0.5)
    out = loss(F1, F2, reference_vision_features=F2, reference_text_features=2 * F1)
    unit = F.normalize if normalize else (lambda x: x)
    vision = BY_HAND[distance](unit(F1), unit(F2)).mean()
    text = BY_HAND[distance](unit(F2), unit(2 * F1)).mean()
    torch.testing.assert_close(out["vision_consistency_loss"], vision)
    torch.testing.assert_close(out.loss, vision + 0.5 * text)


def test_cosine_without_normalisation_was_a_dot_product() -> None:
    model = nn.Linear(3, 4).double()
    x = drawn(5, 3, seed=2)
    old = twin("feature_consistency_loss.FeatureConsistencyLoss")(model, normalize_features=False)
    with torch.no_grad():
        aligned = 100 * model(x)
    assert float(old(vision_features=aligned, vision_inputs=x)["loss"]) < -5
    new = FeatureConsistencyLoss(reference_vision_model=model, normalize=False)
    assert float(new(vision_features=aligned, vision_inputs=x).loss) == pytest.approx(0)
    neg_dot = FeatureConsistencyLoss(reference_vision_model=model, normalize=False, distance="neg_dot")
    want = old(vision_features=F1, vision_inputs=x)["loss"]
    torch.testing.assert_close(neg_dot(vision_features=F1, vision_inputs=x).loss, want)


def test_the_reference_stays_in_eval_mode() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    old = twin("feature_consistency_loss.FeatureConsistencyLoss")(model).train()
    assert old.reference_vision_model.training
    new = FeatureConsistencyLoss(reference_vision_model=model).train()
    assert new.training
    assert not any(m.training for m in new.reference_vision_model.modules())
    before = new.reference_vision_model[1].running_mean.clone()
    new(vision_features=F1, vision_inputs=drawn(5, 3))
    assert torch.equal(new.reference_vision_model[1].running_mean, before)


def test_the_callers_model_is_left_alone_unless_asked() -> None:
    model = nn.Linear(3, 4)
    FeatureConsistencyLoss(reference_vision_model=model)
    assert model.training
    assert model.weight.requires_grad
    shared = FeatureConsistencyLoss(reference_vision_model=model, copy_reference=False)
    assert shared.reference_vision_model is model
    assert not model.weight.requires_grad


def test_the_state_holds_the_reference_only_on_request() -> None:
    model = nn.Linear(3, 4)
    light = FeatureConsistencyLoss(reference_vision_model=model)
    assert light.state_dict() == {}
    light.load_state_dict({})
    full = FeatureConsistencyLoss(reference_vision_model=model, save_reference=True)
    old = twin("feature_consistency_loss.FeatureConsistencyLoss")(nn.Linear(3, 4))
    full.load_state_dict(old.state_dict())
    assert torch.equal(full.reference_vision_model.weight, old.reference_vision_model.weight)
    nested = nn.ModuleDict({"keep": light, "head": nn.Linear(2, 2)})
    assert list(nested.state_dict()) == ["head.weight", "head.bias"]
    nested.load_state_dict(nested.state_dict())


def test_a_reference_that_is_trained_gets_gradients() -> None:
    model = nn.Linear(3, 4).double()
    loss = FeatureConsistencyLoss(reference_text_model=model, freeze_reference=False, copy_reference=False)
    loss(text_features=F1, text_inputs=drawn(5, 3)).loss.backward()
    assert model.weight.grad is not None
    with torch.no_grad():
        assert not loss(text_features=F1, text_inputs=drawn(5, 3)).loss.requires_grad


class TakesTokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4).double()

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * mask


def test_mappings_are_unpacked() -> None:
    model = TakesTokens()
    tokens = {"x": drawn(5, 3), "mask": torch.ones(5, 1, dtype=torch.float64)}
    out = FeatureConsistencyLoss(reference_text_model=model)(text_features=F1, text_inputs=tokens)
    torch.testing.assert_close(out.loss, (1 - F.cosine_similarity(F1, model(**tokens))).mean().detach())
    with pytest.raises(TypeError):
        twin("feature_consistency_loss.FeatureConsistencyLoss")(None, model)(text_features=F1, text_inputs=tokens)


def test_what_cannot_be_compared_raises() -> None:
    with pytest.raises(AttributeError):
        twin("feature_consistency_loss.FeatureConsistencyLoss")()(F1, F2)
    loss = FeatureConsistencyLoss(reference_vision_model=nn.Linear(3, 4).double())
    for kwargs, match in (
        ({}, "found none"),
        ({"vision_features": F1}, "vision_features need"),
        ({"text_features": F1, "text_inputs": F2}, "text_features need"),
        ({"vision_inputs": drawn(5, 3)}, "are needed"),
        ({"vision_features": F1, "reference_vision_features": F2[:, :2]}, "one common shape"),
        ({"vision_features": F1[:0], "reference_vision_features": F2[:0]}, "at least one row"),
    ):
        with pytest.raises(ValueError, match=match):
            loss(**kwargs)
    with pytest.raises(ValueError, match="distance"):
        FeatureConsistencyLoss(distance="hamming")


def test_zero_distance_has_a_zero_gradient() -> None:
    for distance in BY_HAND:
        f = F1.clone().requires_grad_()
        FeatureConsistencyLoss(distance=distance)(f, reference_vision_features=F1).loss.backward()
        assert torch.isfinite(f.grad).all()
