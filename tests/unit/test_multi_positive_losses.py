"""Formulas of the losses over positive pairs, element by element, and their arguments."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from training_losses import create_loss
from training_losses.contrastive import (
    DecoupledContrastiveLoss,
    DynamicTemperatureLoss,
    HardNegativeLoss,
    InfoNCELoss,
    IntraInterModalLoss,
)
from training_losses.functional import masked_logsumexp, pair_info_nce

IDS = [0, 1, 0, 2, 1]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(5, 4, generator=g).double(), torch.randn(5, 4, generator=g).double()


def cosines(a: torch.Tensor, b: torch.Tensor) -> list[list[float]]:
    return [[float(torch.cosine_similarity(x, y, dim=0)) for y in b] for x in a]


def transposed(s: list[list[float]]) -> list[list[float]]:
    return [list(column) for column in zip(*s, strict=True)]


def pair_terms(s: list[list[float]], tau: float, own_positive: bool, weight: Any = None) -> list[float]:
    """-log of every positive's share, for all pairs of equal ids."""
    terms = []
    for i, p in itertools.product(range(5), repeat=2):
        if IDS[i] != IDS[p]:
            continue
        total = 0.0
        for k in range(5):
            if IDS[k] != IDS[i]:
                total += (1 if weight is None else weight(s, i, k)) * math.exp(s[i][k] / tau)
            elif k == p or not own_positive:
                total += math.exp(s[i][k] / tau)
        terms.append(math.log(total) - s[i][p] / tau)
    return terms


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def semi_hard(s: list[list[float]], i: int, k: int) -> float:
    anchor = mean([s[i][p] for p in range(5) if IDS[p] == IDS[i]])
    return 3.0 if anchor - 0.5 < s[i][k] < anchor else 1.0


def hardest(s: list[list[float]], i: int, k: int) -> float:
    best = max(s[i][j] for j in range(5) if IDS[j] != IDS[i])
    return 3.0 if s[i][k] == best else 1.0


@pytest.mark.parametrize(("mining", "weight"), [("semi_hard", semi_hard), ("hard", hardest), ("none", None)])
def test_hard_negatives(mining: str, weight: Any) -> None:
    loss = HardNegativeLoss(temperature=0.3, hard_negative_weight=3.0, mining=mining, semi_hard_margin=0.5)
    s = cosines(*batch())
    out = loss(*batch(), IDS)
    assert float(out["loss_v2t"]) == pytest.approx(mean(pair_terms(s, 0.3, True, weight)))
    assert float(out["loss_t2v"]) == pytest.approx(mean(pair_terms(transposed(s), 0.3, True, weight)))


def test_percentile_mining_uses_the_quantile_of_the_negatives() -> None:
    loss = HardNegativeLoss(mining="percentile", hard_negative_percentile=50.0, hard_negative_weight=4.0)
    similarity = torch.tensor([[9.0, 1.0, 2.0, 3.0]])
    positive = torch.tensor([[True, False, False, False]])
    assert loss.log_weights(similarity, positive)[0, 1:].tolist() == pytest.approx([0.0, math.log(4), math.log(4)])


@pytest.mark.parametrize("include_paired", [True, False])
def test_dynamic_temperature(include_paired: bool) -> None:
    s = cosines(*batch())
    pairs = list(itertools.product(range(5), repeat=2))
    own = [s[i][j] for i, j in pairs if IDS[i] == IDS[j] and (include_paired or i != j)]
    other = [s[i][j] for i, j in pairs if IDS[i] != IDS[j]]
    tau = min(max(0.1 * (0.8 + 0.4 * math.exp(-2 * (mean(own) - mean(other)))), 0.04), 0.2)
    out = DynamicTemperatureLoss(base_temperature=0.1, include_paired=include_paired)(*batch(), IDS)
    assert float(out["temperature"]) == pytest.approx(tau)
    assert float(out["positive_similarity"]) == pytest.approx(mean(own))
    assert float(out["negative_similarity"]) == pytest.approx(mean(other))
    expected = [mean(pair_terms(x, tau, False)) for x in (s, transposed(s))]
    assert float(out.loss) == pytest.approx(mean(expected))


@pytest.mark.parametrize("positives", ["pooled", "per_pair"])
@pytest.mark.parametrize("intra", ["self", "same_id"])
def test_intra_inter_modal(positives: str, intra: str) -> None:
    v, t = batch()
    loss = IntraInterModalLoss(
        temperature=0.3, positives=positives, intra_positives=intra, vision_weight=0.2, text_weight=0.7
    )
    out = loss(v, t, IDS)

    def inter(s: list[list[float]]) -> float:
        if positives == "per_pair":
            return mean(pair_terms(s, 0.3, False))
        e = [[math.exp(x / 0.3) for x in row] for row in s]
        return mean([-math.log(sum(e[i][p] for p in range(5) if IDS[p] == IDS[i]) / sum(e[i])) for i in range(5)])

    def inside(x: torch.Tensor) -> float:
        e = [[math.exp(g / 0.3) for g in row] for row in cosines(x, x)]
        if intra == "self":
            return mean([math.log(1 + sum(e[i][k] for k in range(5) if IDS[k] != IDS[i]) / e[i][i]) for i in range(5)])
        found = [(i, p) for i, p in itertools.permutations(range(5), 2) if IDS[i] == IDS[p]]
        return mean([-math.log(e[i][p] / sum(e[i][k] for k in range(5) if k != i)) for i, p in found])

    s = cosines(v, t)
    assert float(out["loss_v2t"]) == pytest.approx(inter(s))
    assert float(out["loss_t2v"]) == pytest.approx(inter(transposed(s)))
    assert float(out["intra_vision_loss"]) == pytest.approx(inside(v))
    assert float(out["intra_text_loss"]) == pytest.approx(inside(t))
    weighted = 0.2 * inside(v) + 0.7 * inside(t)
    assert float(out["intra_modal_loss"]) == pytest.approx(weighted)
    assert float(out.loss) == pytest.approx(mean([inter(s), inter(transposed(s))]) + weighted)


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_decoupled_contrastive_learning(sigma: float | None) -> None:
    a, b = batch()
    z = torch.cat([a, b])
    s = cosines(z, z)
    partner = [(i + 5) % 10 for i in range(10)]
    weights = [1.0] * 10
    if sigma is not None:
        spread = [math.exp(s[i][partner[i]] / sigma) for i in range(10)]
        weights = [2 - x / mean(spread) for x in spread]
    rows = [
        -weights[i] * s[i][partner[i]] / 0.1
        + math.log(sum(math.exp(s[i][k] / 0.1) for k in range(10) if k not in (i, partner[i])))
        for i in range(10)
    ]
    got = DecoupledContrastiveLoss(sigma=sigma, reduction="none")(a, b)
    assert got.tolist() == pytest.approx(rows)


@pytest.mark.parametrize("denominator", ["all", "own_positive"])
@pytest.mark.parametrize("alignment", ["cosine", "mse"])
def test_info_nce(denominator: str, alignment: str) -> None:
    v, t = batch()
    loss = InfoNCELoss(temperature=0.3, denominator=denominator, alignment=alignment, alignment_weight=0.7)
    out = loss(v, t, IDS)
    s = cosines(v, t)
    counts = [IDS.count(i) for i in IDS]
    anchors = [i for i, p in itertools.product(range(5), repeat=2) if IDS[i] == IDS[p]]

    def direction(x: list[list[float]]) -> float:
        terms = pair_terms(x, 0.3, denominator == "own_positive")
        return sum(term / counts[i] for i, term in zip(anchors, terms, strict=True)) / 5

    contrast = mean([direction(s), direction(transposed(s))])
    matched = [s[i][p] / counts[i] for i, p in itertools.product(range(5), repeat=2) if IDS[i] == IDS[p]]
    distance = 1 - sum(matched) / 5
    distance = distance if alignment == "cosine" else 2 * distance / 4
    assert float(out["infonce"]) == pytest.approx(contrast)
    assert float(out["alignment"]) == pytest.approx(distance)
    assert float(out.loss) == pytest.approx(contrast + 0.7 * distance)
    assert "accuracy" not in out


def test_masked_logsumexp_of_nothing_is_low_and_has_no_gradient() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    got = masked_logsumexp(logits, torch.tensor([[True, True], [False, False]]))
    assert float(got[0].detach()) == pytest.approx(math.log(math.e + math.e**2))
    assert got[1] < -1e38
    (grad,) = torch.autograd.grad(torch.nn.functional.softplus(got).sum(), logits)
    assert torch.equal(grad[1], torch.zeros(2))


@pytest.mark.parametrize("options", [{}, {"denominator": "own_positive"}, {"positives": "pooled"}])
def test_pair_terms_take_further_negatives_and_empty_rows(options: dict[str, Any]) -> None:
    logits = torch.tensor([[1.0, 0.5, -1.0], [0.0, 2.0, 1.0]], dtype=torch.float64, requires_grad=True)
    positive = torch.tensor([[True, False, False], [False, False, False]])
    stored = torch.tensor([[0.3], [0.9]], dtype=torch.float64)
    got = pair_info_nce(logits, positive, negative_lse=stored.logsumexp(1), **options)
    expected = torch.cat([logits, stored], 1).logsumexp(1)[0] - logits[0, 0]
    torch.testing.assert_close(got[0], expected)
    assert got[1] == 0
    assert torch.isfinite(torch.autograd.grad(got.sum(), logits)[0]).all()


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("hard_negative", {"hard_fraction": 0.0}, "hard_fraction"),
        ("hard_negative", {"semi_hard_margin": -1.0}, "semi_hard_margin"),
        ("hard_negative", {"hard_negative_percentile": 101.0}, "percentile"),
        ("dynamic_temperature", {"min_temperature": 0.0}, "min_temperature"),
        ("dynamic_temperature", {"sharpness": -1.0}, "sharpness"),
        ("intra_inter_modal", {"vision_weight": -0.1}, "vision_weight"),
        ("intra_inter_modal", {"positives": "all"}, "positives"),
        ("intra_inter_modal", {"intra_positives": "all"}, "intra_positives"),
        ("intra_inter_modal", {"average": "rows"}, "average"),
        ("dcl", {"sigma": 0.0}, "sigma"),
        ("info_nce", {"positives": "some"}, "positives"),
        ("info_nce", {"alignment": "l1"}, "alignment"),
        ("info_nce", {"alignment_weight": -1.0}, "alignment_weight"),
        ("moco", {"embed_dim": 0}, "dim must be an integer"),
        ("supcon", {"log_epsilon": -1.0}, "log_epsilon"),
        ("supcon", {"base_temperature": 0.0}, "base_temperature"),
    ],
)
def test_bad_arguments(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_loss(name, **kwargs)
