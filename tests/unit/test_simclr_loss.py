from __future__ import annotations

import math

import pytest
import torch

from training_losses.contrastive import SimCLRLoss
from training_losses.functional import nt_xent


def views(rows: int = 4, dim: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(rows, dim, generator=g).double(), torch.randn(rows, dim, generator=g).double()


def by_hand(a: torch.Tensor, b: torch.Tensor, tau: float) -> list[float]:
    z = [x / x.norm() for x in torch.cat([a, b])]
    n = len(z)
    s = [[float(z[i] @ z[j]) / tau for j in range(n)] for i in range(n)]
    partner = [(i + n // 2) % n for i in range(n)]
    return [math.log(sum(math.exp(s[i][k]) for k in range(n) if k != i)) - s[i][partner[i]] for i in range(n)]


def test_formula() -> None:
    a, b = views()
    expected = torch.tensor(by_hand(a, b, 0.5), dtype=torch.float64)
    torch.testing.assert_close(SimCLRLoss(temperature=0.5, reduction="none")(a, b).loss, expected)
    torch.testing.assert_close(SimCLRLoss(temperature=0.5)(a, b).loss, expected.mean())
    torch.testing.assert_close(SimCLRLoss(temperature=0.5, reduction="sum")(a, b).loss, expected.sum())


def test_function_takes_rows_as_they_are() -> None:
    a, b = views()
    torch.testing.assert_close(SimCLRLoss(normalize=False)(a, b).loss, nt_xent(a, b, 0.07))
    with pytest.raises(ValueError, match="z_a and z_b"):
        nt_xent(a, b[:2])


def test_positions_are_samples() -> None:
    a, b = views(6)
    flat = SimCLRLoss()(a, b).loss
    torch.testing.assert_close(SimCLRLoss()(a.view(2, 3, 3), b.view(2, 3, 3)).loss, flat)


def test_metrics_are_raw_and_strict() -> None:
    a, b = views()
    out = SimCLRLoss(metrics=True)(a, b)
    z = torch.nn.functional.normalize(torch.cat([a, b]))
    cosine = z @ z.T
    keep = ~torch.eye(4, dtype=torch.bool).repeat(2, 2)
    torch.testing.assert_close(out["positive_similarity"], cosine.diagonal(4).mean())
    torch.testing.assert_close(out["negative_similarity"], cosine[keep].mean())
    collapsed = SimCLRLoss(metrics=True)(torch.ones(4, 3), torch.ones(4, 3))
    assert collapsed["accuracy"] == 0
    assert float(collapsed.loss) == pytest.approx(math.log(7), abs=1e-5)


def test_one_sample_is_a_zero_with_graph() -> None:
    a = torch.randn(1, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out = SimCLRLoss(metrics=True)(a, a.detach())
    out.loss.backward()
    assert out.loss == 0
    assert torch.equal(a.grad, torch.zeros(1, 3))
    assert out["negative_similarity"] == 0


@pytest.mark.parametrize(("a", "b"), [((3, 2), (4, 2)), ((3,), (3,)), ((0, 2), (0, 2))])
def test_bad_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="z_a"):
        SimCLRLoss()(torch.zeros(a), torch.zeros(b))
