"""What was wrong in the old MemoryQueueContrastiveLoss, seen in the twin, and what MemoryQueueLoss does."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from tests.support.twins import twin
from training_losses.contrastive import MemoryQueueLoss

Twin = twin("memory_queue_contrastive_loss.MemoryQueueContrastiveLoss")
IDS = [0, 1, 2]


def batch(seed: int, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 4, generator=g), torch.randn(rows, 4, generator=g)


def test_1_and_2_an_empty_queue_adds_nothing() -> None:
    # the old queue adds exp(0) = 1 per column; with one pair nothing else is in the denominator
    v, t = batch(0, rows=1)
    cosine = float(torch.nn.functional.cosine_similarity(v, t))
    for size in (4, 400):
        expected = math.log(1 + size / math.exp(cosine / (0.07 * 1.3)))
        assert float(Twin(dim=4, queue_size=size)(v, t, [0])["loss"]) == pytest.approx(expected, rel=1e-4)
        assert MemoryQueueLoss(embed_dim=4, queue_size=size)(v, t, [0]).loss == 0


def test_1_and_2_only_filled_columns_count_at_full_weight() -> None:
    # 9 of 10 columns are written: the old loss weighs them fully (1.5 * 0.9 > 1), but uses the random tenth as well,
    # and a temperature 3 % too high
    torch.manual_seed(0)
    old, new = Twin(dim=4, queue_size=10), MemoryQueueLoss(embed_dim=4, queue_size=10)
    stored = batch(1, rows=9)
    old.initialize_queue(*stored)
    new.enqueue(*stored)
    v, t = (torch.nn.functional.normalize(x) for x in batch(2))
    s = v @ t.T / 0.07
    bank_v, bank_t = (torch.nn.functional.normalize(x) for x in stored)
    columns = [v @ bank_t.T / 0.07, t @ bank_v.T / 0.07]
    rows = [torch.cat([a, b], 1).logsumexp(1) - s.diagonal() for a, b in zip((s, s.T), columns, strict=True)]
    expected = (rows[0].mean() + rows[1].mean()) / 2
    torch.testing.assert_close(new(v, t, IDS).loss, expected)
    assert abs(float(old(v, t, IDS)["loss"] - expected)) > 1e-3


def test_3_entries_of_the_same_id_are_no_negatives() -> None:
    v, t = batch(0)
    old, new = Twin(dim=4, queue_size=3), MemoryQueueLoss(embed_dim=4, queue_size=3)
    old.initialize_queue(v, t)
    new.enqueue(v, t, IDS)
    # every entry is the query's own text or another sample of the batch
    assert old(v, t, IDS)["loss"] > new(v, t, IDS).loss + 0.1
    apart = MemoryQueueLoss(embed_dim=4, queue_size=3, mask_same_id=False)
    apart.enqueue(v, t, IDS)
    torch.testing.assert_close(apart(v, t, IDS).loss, old.forward(v, t, IDS)["loss"])


def test_4_the_width_is_an_argument_that_counts() -> None:
    v, t = batch(0)
    assert Twin(dim=999)(v, t, IDS)["loss"] > 0
    with pytest.raises(ValueError, match="999"):
        MemoryQueueLoss(embed_dim=999)(v, t, IDS)


def test_5_low_temperatures_do_not_overflow() -> None:
    v, _ = batch(0)
    assert not torch.isfinite(Twin(dim=4, queue_size=4, temperature=0.005)(v, v, IDS)["loss"])
    assert torch.isfinite(MemoryQueueLoss(embed_dim=4, queue_size=4, temperature=0.005)(v, v, IDS).loss)


def test_6_evaluation_does_not_write() -> None:
    old, new = Twin(dim=4, queue_size=8).eval(), MemoryQueueLoss(embed_dim=4, queue_size=8).eval()
    old(*batch(0), IDS)
    new(*batch(0), IDS)
    assert (int(old.queue_fill_level), int(new.text_queue.filled)) == (3, 0)


def test_7_the_state_loads_into_a_new_object() -> None:
    old, new = Twin(dim=4, queue_size=8), MemoryQueueLoss(embed_dim=4, queue_size=8)
    old(*batch(0), IDS)
    new(*batch(0), IDS)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        Twin(dim=4, queue_size=8).load_state_dict(old.state_dict())
    again = MemoryQueueLoss(embed_dim=4, queue_size=8)
    again.load_state_dict(new.state_dict())
    assert torch.equal(again(*batch(1), IDS).loss, new(*batch(1), IDS).loss)


def test_8_any_floating_dtype() -> None:
    v, t = (x.double() for x in batch(0))
    with pytest.raises(RuntimeError):
        Twin(dim=4, queue_size=8)(v, t, IDS)
    assert MemoryQueueLoss(embed_dim=4, queue_size=8)(v, t, IDS).loss.dtype == torch.float64


def test_9_another_width_is_an_error() -> None:
    old, new = Twin(dim=4, queue_size=8), MemoryQueueLoss(embed_dim=4, queue_size=8)
    for loss in (old, new):
        loss(*batch(0), IDS)
    wide = torch.ones(3, 5)
    old(wide, wide, IDS)
    assert (old.vision_queue.shape[0], int(old.queue_ptr), int(old.queue_fill_level)) == (5, 6, 3)
    with pytest.raises(ValueError, match="width"):
        new(wide, wide, IDS)


def test_10_the_temperature_is_constant() -> None:
    old, new = Twin(dim=4, queue_size=12), MemoryQueueLoss(embed_dim=4, queue_size=12)
    seen = [(old(*batch(i), IDS)["temperature"], float(new(*batch(i), IDS)["temperature"])) for i in range(5)]
    assert [a for a, _ in seen] == pytest.approx([0.091, 0.08575, 0.0805, 0.07525, 0.07])
    assert [b for _, b in seen] == pytest.approx([0.07] * 5)


def test_11_assigning_the_temperature_works() -> None:
    old, new = Twin(dim=4, queue_size=3), MemoryQueueLoss(embed_dim=4, queue_size=3).eval()
    old.initialize_queue(*batch(1))
    new.enqueue(*batch(1))
    reset = copy.deepcopy(old)
    reset.temperature = 0.5
    assert torch.equal(old(*batch(0), IDS)["loss"], reset(*batch(0), IDS)["loss"])
    before = new(*batch(0), IDS).loss
    new.temperature = 0.5
    assert not torch.equal(before, new(*batch(0), IDS).loss)


def test_12_no_random_numbers() -> None:
    old, new = Twin(dim=4, queue_size=4), MemoryQueueLoss(embed_dim=4, queue_size=4)
    state = torch.random.get_rng_state()
    new(*batch(0), IDS)
    assert torch.equal(torch.random.get_rng_state(), state)
    old(*batch(0), IDS)
    assert not torch.equal(torch.random.get_rng_state(), state)


def test_14_the_default_weighs_samples_and_not_pairs() -> None:
    v, t = batch(0)
    ids = [0, 0, 1]
    new, by_pairs = (MemoryQueueLoss(embed_dim=4, queue_size=4, average=a) for a in ("anchors", "pairs"))
    rows = MemoryQueueLoss(embed_dim=4, queue_size=4, reduction="none")(v, t, ids).loss
    sums = MemoryQueueLoss(embed_dim=4, queue_size=4, average="pairs", reduction="none")(v, t, ids).loss
    torch.testing.assert_close(sums, rows * torch.tensor([2.0, 2.0, 1.0]))
    torch.testing.assert_close(new(v, t, ids).loss, rows.mean())
    torch.testing.assert_close(by_pairs(v, t, ids).loss, sums.sum() / 5)


def test_15_nothing_to_compare() -> None:
    nan = float("nan")
    answer = Twin(dim=4, queue_size=4)(*batch(0), [nan, nan, nan])
    assert list(answer) == ["loss"]
    assert not answer["loss"].requires_grad
    with pytest.raises(ValueError, match="integers or all strings"):
        MemoryQueueLoss(embed_dim=4, queue_size=4)(*batch(0), [nan, nan, nan])
    with pytest.raises(ValueError, match="empty"):
        MemoryQueueLoss(embed_dim=4, queue_size=4)(*batch(0, rows=0), [])


def test_state_converts_under_any_prefix_and_continues_bitwise() -> None:
    old = Twin(dim=4, queue_size=5)
    for seed in range(2):
        old(*batch(seed), IDS)
    state = {f"module.criterion.{k}": v for k, v in old.state_dict().items()} | {"module.head": torch.ones(1)}
    model = torch.nn.Module()
    model.module = torch.nn.Module()
    model.module.criterion = MemoryQueueLoss(embed_dim=4, queue_size=5)
    model.module.register_buffer("head", torch.zeros(1))
    model.load_state_dict(state)
    new = model.module.criterion
    assert torch.equal(new.text_queue.features, old.text_queue.T)
    assert (int(new.text_queue.ptr), int(new.vision_queue.filled)) == (1, 5)
    again = copy.deepcopy(model)
    again.load_state_dict(model.state_dict())
    for seed in (5, 6):
        old(*batch(seed), IDS)
        assert torch.equal(new(*batch(seed), IDS).loss, again.module.criterion(*batch(seed), IDS).loss)
        assert torch.equal(new.vision_queue.features, old.vision_queue.T)
        assert int(new.vision_queue.ptr) == int(old.queue_ptr)
    with pytest.raises(RuntimeError, match="nonsense"):
        model.load_state_dict(state | {"module.criterion.nonsense": torch.ones(1)})
