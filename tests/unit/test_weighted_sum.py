"""WeightedSumLoss: what it adds, what it hands to its terms, what it reports."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.support.twins import twin
from training_losses.balancing.weighted_sum import WeightedSumLoss
from training_losses.contrastive.clip_loss import CLIPLoss
from training_losses.contrastive.vicreg import VICRegLoss

G = torch.Generator().manual_seed(0)
A, B = (torch.randn(6, 4, generator=G, dtype=torch.float64) for _ in range(2))


class Spy(nn.Module):
    """Records its arguments and returns what it was told to."""

    def __init__(self, value: object = None) -> None:
        super().__init__()
        self.value, self.seen = value, []

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> object:
        self.seen.append((x, scale))
        return x.mean() * scale if self.value is None else self.value


def test_sum_and_report() -> None:
    loss = WeightedSumLoss(terms={"l2": nn.MSELoss(), "l1": nn.L1Loss()}, weights={"l1": 0.25})
    out = loss(A, B)
    l2, l1 = (A - B).square().mean(), (A - B).abs().mean()
    torch.testing.assert_close(out.loss, l2 + 0.25 * l1)
    want = {
        "terms.l2": l2,
        "terms.l1": l1,
        "weighted.l2": l2,
        "weighted.l1": 0.25 * l1,
        "weights.l2": 1.0,
        "weights.l1": 0.25,
    }
    assert {k: float(v) for k, v in out.items() if k != "loss"} == pytest.approx({k: float(v) for k, v in want.items()})


def test_each_term_gets_what_it_takes() -> None:
    loss = WeightedSumLoss(
        terms={"clip": CLIPLoss(), "vicreg": VICRegLoss()},
        weights={"vicreg": 0.1},
        arguments={"vicreg": {"z_a": "vision_features", "z_b": "text_features"}},
    )
    ids = torch.tensor([0, 0, 1, 2, 3, 4])
    out = loss(vision_features=A, text_features=B, match_ids=ids)
    clip, vicreg = CLIPLoss()(A, B, ids), VICRegLoss()(A, B)
    torch.testing.assert_close(out.loss, clip.loss + 0.1 * vicreg.loss)
    torch.testing.assert_close(out["metrics.vicreg.variance_loss"], vicreg["variance_loss"])
    with pytest.raises(TypeError, match="labels"):
        loss(vision_features=A, text_features=B, labels=ids)


def test_weight_zero_costs_nothing_unless_asked() -> None:
    spy = Spy(torch.tensor(float("nan")))
    loss = WeightedSumLoss(terms={"a": Spy(), "nan": spy}, weights={"nan": 0})
    out = loss(A)
    assert torch.isfinite(out.loss)
    assert float(out["terms.nan"]) == 0
    assert spy.seen == []
    old = twin("combined_loss.CombinedLoss")(Spy(), spy, secondary_loss_weight=0.0)
    assert torch.isnan(old(A)["loss"])
    asked = WeightedSumLoss(terms={"a": Spy(), "b": Spy()}, weights={"b": 0}, evaluate_zero_weight=True)
    assert float(asked(A)["terms.b"]) == float(A.mean())


def test_weights_may_change_between_calls() -> None:
    loss = WeightedSumLoss(terms={"a": Spy(), "b": Spy()})
    loss.weights["b"] = 3.0
    torch.testing.assert_close(loss(A).loss, 4 * A.mean())
    loss.weights.update(a=0.0, b=0.0)
    with pytest.raises(ValueError, match="all be 0"):
        loss(A)


def test_metrics_cannot_collide() -> None:
    noisy = Spy({"loss": torch.tensor(1.0), "weight": torch.tensor(7.0), "note": "text"})
    out = WeightedSumLoss(terms={"first": Spy(), "second": noisy})(A)
    assert float(out["weights.second"]) == 1.0
    assert float(out["metrics.second.weight"]) == 7.0
    assert "metrics.second.note" not in out
    old = twin("combined_loss.CombinedLoss")(Spy(), noisy)(A)
    assert float(old["secondary_weight"]) == 7.0  # the metric overwrote the weight


def test_the_three_old_positions() -> None:
    old = twin("combined_loss.CombinedLoss")(nn.MSELoss(), nn.L1Loss(), 0.7, nn.SmoothL1Loss(), 0.2)
    new = WeightedSumLoss(
        terms={"primary": nn.MSELoss(), "secondary": nn.L1Loss(), "tertiary": nn.SmoothL1Loss()},
        weights={"secondary": 0.7, "tertiary": 0.2},
        evaluate_zero_weight=True,
    )
    a = A.clone().requires_grad_()
    want, got = old(a, B), new(a, B)
    torch.testing.assert_close(got.loss, want["loss"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*(torch.autograd.grad(o["loss"], a)[0] for o in (got, want)), rtol=1e-12, atol=1e-12)
    for name in ("primary", "secondary", "tertiary"):
        assert float(got[f"terms.{name}"]) == pytest.approx(want[f"{name}_loss"], abs=1e-12)


def test_unreduced_terms_of_one_shape() -> None:
    terms = {"l2": nn.MSELoss(reduction="none"), "l1": nn.L1Loss(reduction="none")}
    torch.testing.assert_close(WeightedSumLoss(terms=terms)(A, B).loss, (A - B).square() + (A - B).abs())
    with pytest.raises(ValueError, match="one shape"):
        WeightedSumLoss(terms={**terms, "mean": nn.MSELoss()})(A, B)


def test_state_and_mode_reach_the_terms() -> None:
    loss = WeightedSumLoss(terms={"clip": CLIPLoss(learnable_temperature=True)})
    assert list(loss.state_dict()) == ["terms.clip.logit_scale"]
    assert not loss.eval().terms["clip"].training


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"terms": {}}, "at least one"),
        ({"terms": {"a.b": Spy()}}, "without dots"),
        ({"terms": {"keys": Spy()}}, "keys"),
        ({"terms": {"a": lambda x: x}}, "torch.nn.Module"),
        ({"terms": {"a": Spy()}, "weights": {"b": 1.0}}, "unknown names"),
        ({"terms": {"a": Spy()}, "weights": {"a": -1.0}}, "at least 0"),
        ({"terms": {"a": Spy()}, "weights": {"a": 0}}, "all be 0"),
        ({"terms": {"a": Spy()}, "arguments": {"b": {}}}, "unknown terms"),
    ],
)
def test_constructor_errors(kwargs: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        WeightedSumLoss(**kwargs)


@pytest.mark.parametrize("value", [(torch.tensor(1.0), {}), 2.5, {"total": torch.tensor(1.0)}])
def test_terms_that_return_something_else(value: object) -> None:
    with pytest.raises(ValueError, match="term 'odd' must return"):
        WeightedSumLoss(terms={"odd": Spy(value)})(A)
