from __future__ import annotations

import math

import pytest
import torch

from training_losses import create_loss
from training_losses.contrastive import CLIPLoss


def batch(rows: int = 5, dim: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=g).double(), torch.randn(rows, dim, generator=g).double()


def by_hand(v: torch.Tensor, t: torch.Tensor, ids: list[int], tau: float, smoothing: float = 0.0) -> list[float]:
    """Loss per pair from the formula, element by element."""
    n = len(ids)
    s = [[float(v[i] @ t[j] / v[i].norm() / t[j].norm()) / tau for j in range(n)] for i in range(n)]

    def row(values: list[float], i: int) -> float:
        own = [values[j] for j in range(n) if ids[j] == ids[i]]
        total = math.log(sum(math.exp(x) for x in values))
        return total - (1 - smoothing) * sum(own) / len(own) - smoothing * sum(values) / n

    return [(row(s[i], i) + row([s[j][i] for j in range(n)], i)) / 2 for i in range(n)]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("ids", [[0, 1, 2, 3, 4], [0, 1, 0, 2, 0], [3] * 5])
def test_formula(ids: list[int], smoothing: float) -> None:
    v, t = batch()
    expected = by_hand(v, t, ids, 0.3, smoothing)
    rows = CLIPLoss(temperature=0.3, label_smoothing=smoothing, reduction="none")(v, t, ids).loss
    torch.testing.assert_close(rows, torch.tensor(expected, dtype=torch.float64))
    mean = CLIPLoss(temperature=0.3, label_smoothing=smoothing)(v, t, match_ids=torch.tensor(ids))
    assert float(mean.loss) == pytest.approx(sum(expected) / 5, abs=1e-12)
    assert list(mean) == ["loss", "loss_v2t", "loss_t2v"]
    assert float(mean["loss_v2t"] + mean["loss_t2v"]) / 2 == pytest.approx(float(mean.loss))


def test_without_ids_the_diagonal_matches() -> None:
    v, t = batch()
    torch.testing.assert_close(CLIPLoss()(v, t).loss, CLIPLoss()(v, t, ["a", "b", "c", "d", "e"]).loss)


def test_metrics_are_cosines_and_count_any_positive() -> None:
    v = torch.eye(3, dtype=torch.float64)
    t = v[[1, 0, 2]]
    out = CLIPLoss(metrics=True, temperature=0.1)(v, t, [7, 7, 9])
    assert out["accuracy_v2t"] == out["accuracy_t2v"] == out["accuracy"] == out["recall@1"] == 1
    assert CLIPLoss(metrics=True)(v, t)["accuracy"] == pytest.approx(1 / 3)
    assert float(out["similarity_mean"]) == pytest.approx(1 / 3)
    assert float(out["similarity_positive"]) == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert float(out["similarity_gap"]) == pytest.approx(2 / 3 - 1 / 3)


def test_given_logits_are_used_as_they_are() -> None:
    v, t = batch(3)
    logits = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 0, 3]], dtype=torch.float64, requires_grad=True)
    loss = CLIPLoss(temperature=0.5)(v, t, logits=logits).loss
    rows = [math.log(math.exp(x) + 2) - x for x in (2.0, 1.0, 3.0)]
    assert float(loss.detach()) == pytest.approx(sum(rows) / 3)
    loss.backward()
    assert logits.grad is not None
    with pytest.raises(ValueError, match=r"logits must be \[3, 3\], found \[2, 3\]"):
        CLIPLoss()(v, t, logits=logits[:2])


def test_learnable_temperature_is_a_clamped_parameter() -> None:
    loss = CLIPLoss(learnable_temperature=True, temperature=0.5)
    assert [n for n, _ in loss.named_parameters()] == ["logit_scale"]
    loss(*batch()).loss.backward()
    assert loss.logit_scale.grad is not None
    with torch.no_grad():
        loss.logit_scale.fill_(50.0)
    assert float(loss.scale.detach()) == 100.0


def test_heads_project_each_modality() -> None:
    loss = CLIPLoss(input_dim=4, projection_dim=2).double()
    v, t = batch()
    bare = CLIPLoss()(loss.vision_head(v), loss.text_head(t)).loss
    torch.testing.assert_close(loss(v, t).loss, bare)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a number greater than 0, found 0.0"),
        ({"label_smoothing": 1.0}, "label_smoothing must be less than 1"),
        ({"label_smoothing": -0.1}, "label_smoothing"),
        ({"reduction": "avg"}, "reduction must be one of"),
        ({"input_dim": 4}, "belong together"),
    ],
)
def test_bad_arguments(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_loss("clip", **kwargs)


def test_bad_ids() -> None:
    v, t = batch(2)
    with pytest.raises(ValueError, match="all integers or all strings, found int, str"):
        CLIPLoss()(v, t, [1, "1"])
    with pytest.raises(ValueError, match="one id per sample"):
        CLIPLoss()(v, t, [1, 2, 3])
