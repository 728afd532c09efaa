"""What was wrong in the old CLIPStyleLoss, seen in the twin, and what CLIPLoss does. Numbers as in the spec's table."""

from __future__ import annotations

import logging

import pytest
import torch

from tests.support.draws import all_draws
from tests.support.twins import twin
from training_losses.contrastive import CLIPLoss

CLIPStyleLoss = twin("clip_style_loss.CLIPStyleLoss")


@pytest.fixture
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    return torch.randn(4, 3, generator=g).double(), torch.randn(4, 3, generator=g).double()


def test_1_smoothed_labels_were_cached_by_batch_size(pairs) -> None:
    old, new = CLIPStyleLoss(label_smoothing=0.1), CLIPLoss(label_smoothing=0.1)
    torch.manual_seed(0)
    old(*pairs, ["a", "b", "a", "b"])
    cached = old._labels_cache[4].clone()
    old(*pairs, ["a", "a", "b", "b"])
    assert torch.equal(old._labels_cache[4], cached)
    first, second = (new(*pairs, ids).loss for ids in (["a", "b", "a", "b"], ["a", "a", "b", "b"]))
    assert torch.equal(second, CLIPLoss(label_smoothing=0.1)(*pairs, ["a", "a", "b", "b"]).loss)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("ids", [["a", "b", "a", "c"], ["x", "x", "x", "y"]])
def test_2_and_3_repeated_ids_give_the_expectation_over_the_draws(pairs, ids) -> None:
    v, t = (x.requires_grad_() for x in pairs)
    answers = all_draws(lambda: CLIPStyleLoss()(v, t, ids)["loss"])
    assert len({round(float(a.detach()), 9) for a in answers}) > 1, "the twin is random"
    expected = torch.stack(answers).mean()
    got = CLIPLoss()(v, t, ids).loss
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(got, (v, t)), torch.autograd.grad(expected, (v, t)), rtol=1e-10, atol=1e-12
    )


def test_2_no_random_numbers(pairs) -> None:
    before = torch.random.get_rng_state()
    CLIPLoss()(*pairs, [1, 2, 1, 2])
    assert torch.equal(torch.random.get_rng_state(), before)
    CLIPStyleLoss()(*pairs, [1, 2, 3, 4])
    assert not torch.equal(torch.random.get_rng_state(), before)


def test_4_reduction_none(pairs) -> None:
    with pytest.raises(RuntimeError):
        CLIPStyleLoss(reduction="none")(*pairs)
    assert CLIPLoss(reduction="none")(*pairs).loss.shape == (4,)


def test_5_arguments_without_effect_are_gone(pairs) -> None:
    plain, hard = CLIPStyleLoss()(*pairs), CLIPStyleLoss(use_hard_negatives=True, hard_negative_weight=9.0)(*pairs)
    assert torch.equal(plain["loss"], hard["loss"])
    with pytest.raises(TypeError):
        CLIPLoss(use_hard_negatives=True)


def test_6_given_logits(pairs) -> None:
    logits = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    old = CLIPStyleLoss()(*pairs, similarity_matrix=logits)["loss"]
    torch.testing.assert_close(CLIPLoss()(*pairs, logits=logits).loss, old)


def test_7_similarities_are_cosines(pairs) -> None:
    old, new = CLIPStyleLoss(temperature=0.2)(*pairs), CLIPLoss(temperature=0.2, metrics=True)(*pairs)
    for before, after in (("mean_similarity", "similarity_mean"), ("matched_similarity", "similarity_positive")):
        assert float(new[after]) == pytest.approx(0.2 * old[before])
        assert abs(float(new[after])) <= 1


def test_8_smoothed_labels_have_the_dtype_of_the_logits(pairs) -> None:
    old, new = CLIPStyleLoss(label_smoothing=0.1)(*pairs)["loss"], CLIPLoss(label_smoothing=0.1)(*pairs).loss
    assert 1e-11 < abs(float(old - new)) < 1e-6
    v, t = (torch.nn.functional.normalize(x) for x in pairs)
    s, y = v @ t.T / 0.07, torch.arange(4)
    ce = torch.nn.functional.cross_entropy
    exact = (ce(s, y, label_smoothing=0.1) + ce(s.T, y, label_smoothing=0.1)) / 2
    torch.testing.assert_close(new, exact, rtol=1e-13, atol=1e-13)


def test_9_smoothing_spreads_over_all_columns(pairs) -> None:
    # with one id for all, both the positives and the spread are uniform: smoothing changes nothing
    torch.testing.assert_close(CLIPLoss(label_smoothing=0.3)(*pairs, [1] * 4).loss, CLIPLoss()(*pairs, [1] * 4).loss)


def test_10_no_warning_without_ids(pairs, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        CLIPLoss()(*pairs)
        assert caplog.records == []
        CLIPStyleLoss()(*pairs)
    assert len(caplog.records) == 1


def test_11_ids_are_compared_as_they_are(pairs) -> None:
    v, t = pairs[0][:2], pairs[1][:2]
    assert len(all_draws(lambda: CLIPStyleLoss()(v, t, [1, "1"]))) == 16, "the twin takes 1 and '1' for equal"
    assert len(all_draws(lambda: CLIPStyleLoss()(v, t, torch.tensor([1.00001, 1.00002])))) == 16
    with pytest.raises(ValueError, match="int, str"):
        CLIPLoss()(v, t, [1, "1"])
    with pytest.raises(ValueError, match="float32"):
        CLIPLoss()(v, t, torch.tensor([1.00001, 1.00002]))


def test_12_empty_batch() -> None:
    empty = torch.zeros(0, 3, dtype=torch.float64, requires_grad=True)
    old = CLIPStyleLoss()(empty, empty)["loss"]
    assert (old.dtype, old.requires_grad) == (torch.float32, False)
    with pytest.raises(ValueError, match="empty batch"):
        CLIPLoss()(empty, empty)


def test_13_unknown_keywords_are_errors(pairs) -> None:
    CLIPStyleLoss()(*pairs, match_idz=[1, 2, 3, 4])
    with pytest.raises(TypeError):
        CLIPLoss()(*pairs, match_idz=[1, 2, 3, 4])


def test_14_metrics_are_detached_tensors_on_demand(pairs) -> None:
    assert isinstance(CLIPStyleLoss()(*pairs)["accuracy"], float)
    assert "accuracy" not in CLIPLoss()(*pairs)
    assert isinstance(CLIPLoss(metrics=True)(*pairs)["accuracy"], torch.Tensor)
