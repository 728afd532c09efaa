from __future__ import annotations

import math

import pytest
import torch

from training_losses.base import NO_ID
from training_losses.contrastive import MemoryQueueLoss
from training_losses.functional import bank_logsumexp


def batch(seed: int, rows: int = 3, dim: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=g).double(), torch.randn(rows, dim, generator=g).double()


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=1, keepdim=True)


def one_way(
    q: torch.Tensor, k: torch.Tensor, bank: torch.Tensor, ids: list[int], bank_ids: list[int], tau: float, own: bool
) -> list[list[float]]:
    """Terms of every positive pair, per anchor, from the formula."""
    terms = []
    for i in range(len(q)):
        s = [float(q[i] @ x) / tau for x in k]
        stored = sum(math.exp(float(q[i] @ x) / tau) for x, d in zip(bank, bank_ids, strict=True) if d != ids[i])
        positives = [j for j in range(len(k)) if ids[j] == ids[i]]
        others = sum(math.exp(s[j]) for j in range(len(k)) if j not in positives)
        full = sum(map(math.exp, s))
        terms.append([math.log((math.exp(s[p]) + others if own else full) + stored) - s[p] for p in positives])
    return terms


@pytest.mark.parametrize("denominator", ["all", "own_positive"])
@pytest.mark.parametrize("average", ["anchors", "pairs"])
@pytest.mark.parametrize("ids", [[0, 1, 2], [5, 0, 5]])
def test_formula(denominator: str, average: str, ids: list[int]) -> None:
    loss = MemoryQueueLoss(
        embed_dim=4, queue_size=5, temperature=0.4, denominator=denominator, average=average
    ).double()
    old_v, old_t = batch(0)
    loss.enqueue(old_v, old_t, [5, 6, 7])
    v, t = batch(1)
    out = loss(v, t, ids)
    both = [
        one_way(unit(a), unit(b), unit(bank), ids, [5, 6, 7], 0.4, denominator == "own_positive")
        for a, b, bank in ((v, t, old_t), (t, v, old_v))
    ]
    if average == "pairs":
        expected = [sum(map(sum, d)) / sum(map(len, d)) for d in both]
    else:
        expected = [sum(sum(terms) / len(terms) for terms in d) / len(d) for d in both]
    assert [float(out["loss_v2t"]), float(out["loss_t2v"])] == pytest.approx(expected)
    assert float(out.loss) == pytest.approx(sum(expected) / 2)
    assert float(out["queue_fill"]) == pytest.approx(3 / 5)
    assert float(out["temperature"]) == 0.4


def test_queue_takes_the_batch_after_the_loss_and_wraps() -> None:
    loss = MemoryQueueLoss(embed_dim=4, queue_size=5).double()
    first, second = batch(0), batch(1)
    loss(*first, [1, 2, 3])
    loss(*second)
    stored = unit(torch.cat([second[0][2:], first[0][1:], second[0][:2]]))
    torch.testing.assert_close(loss.vision_queue.features, stored)
    torch.testing.assert_close(loss.text_queue.features[3:], unit(second[1][:2]))
    assert loss.text_queue.ids.tolist() == [NO_ID, 2, 3, NO_ID, NO_ID]
    assert (int(loss.text_queue.ptr), int(loss.text_queue.filled)) == (1, 5)


def test_evaluation_leaves_the_queue_alone() -> None:
    loss = MemoryQueueLoss(embed_dim=4, queue_size=5).double().eval()
    loss(*batch(0))
    assert int(loss.vision_queue.filled) == 0


def test_several_forwards_before_one_backward() -> None:
    loss = MemoryQueueLoss(embed_dim=4, queue_size=5).double()
    v, t = batch(0)
    v.requires_grad_()
    (loss(v, t).loss + loss(v, t).loss + loss(v, t).loss).backward()
    assert torch.isfinite(v.grad).all()


def test_bank_logsumexp_is_the_log_sum_exp_and_saves_no_bank() -> None:
    g = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, generator=g).double().requires_grad_()
    scale = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    bank, keep = torch.randn(50, 4, generator=g).double(), torch.rand(3, 50, generator=g) < 0.5
    expected = (query @ bank.T * scale).masked_fill(~keep, -math.inf).logsumexp(1)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        got = bank_logsumexp(query, bank, scale, keep)
    torch.testing.assert_close(got, expected)
    assert max(saved) <= query.numel()
    for a, b in zip(
        torch.autograd.grad(got @ weights, [query, scale]),
        torch.autograd.grad(expected @ weights, [query, scale]),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_bank_without_entries_has_no_gradient() -> None:
    query = torch.ones(2, 3, requires_grad=True)
    lse = bank_logsumexp(query, torch.zeros(4, 3), 1.0, torch.zeros(1, 4, dtype=torch.bool))
    assert torch.equal(lse, torch.full((2,), -math.inf))
    torch.logaddexp(lse, torch.zeros(2)).sum().backward()
    assert torch.equal(query.grad, torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "embed_dim is the width"),
        ({"embed_dim": 3, "input_dim": 4, "projection_dim": 2}, "embed_dim=3"),
        ({"embed_dim": 4, "queue_size": 0}, "size must be"),
        ({"embed_dim": 4, "denominator": "none"}, "denominator"),
        ({"embed_dim": 4, "average": "rows"}, "average"),
    ],
)
def test_bad_arguments(kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoryQueueLoss(**kwargs)


def test_width_must_be_that_of_the_queue() -> None:
    with pytest.raises(ValueError, match=r"\[B, 5\], found \[3, 4\]"):
        MemoryQueueLoss(embed_dim=5)(*batch(0))
