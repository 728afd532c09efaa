"""Mixins, masks, InfoNCE and NT-Xent of the contrastive base class."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training_losses.base import BaseContrastiveLoss, FeatureQueue, MomentumEncoder, ProjectionHead
from training_losses.base.queue import NO_ID
from training_losses.functional import encode_ids, info_nce, nt_xent, retrieval_metrics, supervised_contrastive

DOUBLE = torch.float64


class Contrast(BaseContrastiveLoss):
    """The smallest concrete class: one direction of InfoNCE."""

    def forward(self, a: Tensor, b: Tensor, ids: Any = None) -> Tensor:
        positive = self.create_positive_mask(a.shape[0], ids, device=a.device)
        return self.apply_reduction(self.info_nce_loss(self.compute_similarity(a, b), positive))


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


class TestTemperature:
    def test_fixed_divides(self) -> None:
        loss = Contrast(temperature=0.25)
        similarity = features(3, 3)
        assert torch.equal(loss.scale_by_temperature(similarity), similarity / 0.25)
        assert loss.temperature == 0.25
        assert not list(loss.parameters())

    def test_can_be_changed_later(self) -> None:
        loss = Contrast(temperature=0.25)
        loss.temperature = 0.5
        assert loss.scale_by_temperature(torch.ones(1)).item() == 2.0
        with pytest.raises(ValueError, match=r"temperature must be .* greater than 0, found -1"):
            loss.temperature = -1

    def test_learnable_is_the_log_of_the_scale(self) -> None:
        loss = Contrast(temperature=0.1, learnable_temperature=True).double()
        assert loss.logit_scale.item() == pytest.approx(math.log(10), rel=1e-6)
        loss(features(4, 3), features(4, 3, seed=1)).backward()
        assert loss.logit_scale.grad is not None
        assert loss.logit_scale.grad.abs() > 0
        loss.temperature = 0.2
        assert loss.temperature.item() == pytest.approx(0.2)

    def test_learnable_scale_is_clamped(self) -> None:
        loss = Contrast(temperature=0.1, learnable_temperature=True)
        with torch.no_grad():
            loss.logit_scale.fill_(50.0)
        assert loss.scale.item() == 100.0

    @pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf, "0.1", True])
    def test_rejects(self, value: Any) -> None:
        with pytest.raises(ValueError, match="temperature"):
            Contrast(temperature=value)

    def test_learnable_rejects_a_scale_above_the_clamp(self) -> None:
        with pytest.raises(ValueError, match="at most 100"):
            Contrast(temperature=0.001, learnable_temperature=True)


class TestNormalization:
    def test_unit_rows_and_zero_rows(self) -> None:
        loss = Contrast()
        a = features(3, 4)
        a[1] = 0
        (unit,) = loss.normalize(a)
        assert torch.allclose(unit.norm(dim=1), torch.tensor([1.0, 0.0, 1.0], dtype=DOUBLE))

    def test_off(self) -> None:
        a = features(3, 4)
        assert Contrast(normalize=False).normalize(a)[0] is a

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_float32(self, dtype: torch.dtype) -> None:
        similarity = Contrast().compute_similarity(features(3, 4).to(dtype), features(3, 4).to(dtype))
        assert similarity.dtype == torch.float32
        assert torch.allclose(similarity.diagonal(), torch.ones(3), atol=1e-6)


class TestProjection:
    def test_no_heads_by_default(self) -> None:
        a = features(3, 4)
        assert Contrast().project(vision=a)[0] is a

    def test_one_head_per_name_in_order(self) -> None:
        torch.manual_seed(0)
        loss = Contrast(input_dim=4, projection_dim=2).double()
        a, b = loss.project(vision=features(3, 4), text=features(3, 4))
        assert a.shape == b.shape == (3, 2)
        assert not torch.equal(a, b)
        assert [n.split(".")[0] for n, _ in loss.named_parameters()] == ["vision_head"] * 4 + ["text_head"] * 4

    @pytest.mark.parametrize("arguments", [{"input_dim": 3}, {"projection_dim": 3}])
    def test_both_sizes_are_needed(self, arguments: dict[str, int]) -> None:
        with pytest.raises(ValueError, match="belong together"):
            Contrast(**arguments)

    def test_three_layers_have_batch_norm(self) -> None:
        kinds = [type(m).__name__ for m in ProjectionHead(4, 2, hidden_dim=8, layers=3).layers]
        assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
        assert ProjectionHead(4, 2).layers[0].out_features == 4

    def test_wrong_width_and_wrong_sizes(self) -> None:
        with pytest.raises(ValueError, match="width 4"):
            ProjectionHead(4, 2)(torch.ones(1, 3))
        with pytest.raises(ValueError, match="output_dim"):
            ProjectionHead(4, 0)
        with pytest.raises(ValueError, match="one of 2, 3"):
            ProjectionHead(4, 2, layers=5)


class TestMining:
    def test_off_gives_all_negatives_weight_one(self) -> None:
        positive = torch.eye(3, dtype=torch.bool)
        assert torch.equal(Contrast().mine_hard_negatives(features(3, 3), positive), (~positive).double())

    def test_hard_negatives_get_their_weight(self) -> None:
        similarity = torch.tensor([[9.0, 1.0, 2.0, 3.0]])
        positive = torch.tensor([[True, False, False, False]])
        loss = Contrast()
        loss.init_mining(percentile=50, weight=4)
        weights = loss.mine_hard_negatives(similarity, positive)
        assert weights.tolist() == [[0.0, 1.0, 4.0, 4.0]]

    def test_a_row_without_negatives_is_all_zero(self) -> None:
        loss = Contrast()
        loss.init_mining(percentile=50)
        weights = loss.mine_hard_negatives(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool))
        assert weights.tolist() == [[0.0, 0.0]]

    def test_rejects(self) -> None:
        with pytest.raises(ValueError, match="percentile must be a number at least 0 and at most 100, found 101"):
            Contrast().init_mining(percentile=101)


class TestMasks:
    def test_diagonal_without_ids(self) -> None:
        mask = Contrast().create_positive_mask(3, device=torch.device("cpu"))
        assert torch.equal(mask, torch.eye(3, dtype=torch.bool))

    @pytest.mark.parametrize("ids", [[7, 8, 7], ["a", "b", "a"], torch.tensor([7, 8, 7])])
    def test_equal_ids(self, ids: Any) -> None:
        mask = Contrast().create_positive_mask(3, ids, device=torch.device("cpu"))
        assert mask.tolist() == [[True, False, True], [False, True, False], [True, False, True]]

    @pytest.mark.parametrize(
        ("ids", "message"),
        [
            ([1, 2], r"one id per sample \(3\), found 2"),
            ([1, "1", 2], "all integers or all strings, found int, str"),
            (torch.ones(3), "integers or strings"),
            (torch.ones(3, 1, dtype=torch.long), "one dimension"),
        ],
    )
    def test_rejects(self, ids: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            Contrast().create_positive_mask(3, ids, device=torch.device("cpu"))

    def test_string_codes_are_stable(self) -> None:
        assert encode_ids(["a", "b"])[0] == encode_ids(["c", "a"])[1]
        assert (encode_ids(["a", "b"]) >= 0).all()

    def test_numpy_ids_are_ids(self) -> None:
        assert encode_ids(np.array([3, 4])).tolist() == encode_ids(list(np.array([3, 4]))).tolist() == [3, 4]
        assert torch.equal(encode_ids(np.array(["a", "b"])), encode_ids(["a", "b"]))


class TestInfoNCE:
    def test_one_positive_is_cross_entropy(self) -> None:
        logits = features(5, 5)
        expected = torch.nn.functional.cross_entropy(logits, torch.arange(5), reduction="none")
        assert torch.allclose(info_nce(logits), expected, atol=1e-12)
        mask = torch.eye(5, dtype=torch.bool)
        assert torch.allclose(info_nce(logits, mask), expected, atol=1e-12)

    def test_several_positives_are_the_mean_over_them(self) -> None:
        logits, positive = features(1, 4), torch.tensor([[True, False, True, False]])
        expected = -logits.log_softmax(1)[0, [0, 2]].mean()
        assert torch.allclose(info_nce(logits, positive), expected, atol=1e-12)

    def test_label_smoothing_is_that_of_cross_entropy(self) -> None:
        logits = features(5, 5)
        expected = torch.nn.functional.cross_entropy(logits, torch.arange(5), reduction="none", label_smoothing=0.1)
        assert torch.allclose(info_nce(logits, label_smoothing=0.1), expected, atol=1e-12)

    def test_further_negatives_enter_the_denominator(self) -> None:
        logits, more = features(3, 3), features(3, 6, seed=1)
        expected = torch.nn.functional.cross_entropy(torch.cat([logits, more], 1), torch.arange(3), reduction="none")
        assert torch.allclose(info_nce(logits, negative_lse=more.logsumexp(1)), expected, atol=1e-12)

    def test_a_row_without_positives_is_zero_with_graph(self) -> None:
        logits = features(2, 2).requires_grad_()
        loss = info_nce(logits, torch.tensor([[False, False], [True, False]]))
        assert loss[0] == 0
        loss.sum().backward()
        assert logits.grad is not None
        assert torch.equal(logits.grad[0], torch.zeros(2, dtype=DOUBLE))

    def test_class_reduces(self) -> None:
        a, b = features(4, 3), features(4, 3, seed=1)
        none = Contrast(reduction="none")(a, b)
        assert none.shape == (4,)
        assert torch.allclose(Contrast()(a, b), none.mean())
        assert torch.allclose(Contrast(reduction="sum")(a, b), none.sum())


class TestNTXent:
    def test_by_hand(self) -> None:
        a, b = features(3, 4), features(3, 4, seed=1)
        a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
        z = torch.cat([a, b])
        expected = []
        for i in range(6):
            others = [k for k in range(6) if k != i]
            scores = {k: math.exp(float(z[i] @ z[k]) / 0.3) for k in others}
            expected.append(-math.log(scores[(i + 3) % 6] / sum(scores.values())))
        got = nt_xent(a, b, 0.3, reduction="none")
        assert torch.allclose(got, torch.tensor(expected, dtype=DOUBLE), atol=1e-12)
        assert torch.allclose(Contrast(temperature=0.3).nt_xent_loss(5 * a, 2 * b), got.mean(), atol=1e-12)

    def test_one_sample_is_zero(self) -> None:
        a = features(1, 4).requires_grad_()
        loss = nt_xent(a, features(1, 4, seed=1))
        assert loss.item() == pytest.approx(0.0, abs=1e-12)
        loss.backward()

    def test_shapes(self) -> None:
        with pytest.raises(ValueError, match=r"found \[2, 3\] and \[3, 3\]"):
            nt_xent(features(2, 3), features(3, 3))


class TestSupervisedContrastive:
    def test_by_hand_and_lone_rows(self) -> None:
        z = features(4, 3)
        z = (z / z.norm(dim=1, keepdim=True)).requires_grad_()
        labels = torch.tensor([0, 1, 0, 2])
        s = (z @ z.T).detach() / 0.5
        rows = []
        for i, j in ((0, 2), (2, 0)):
            rows.append(float(torch.logsumexp(s[i][torch.arange(4) != i], 0) - s[i, j]))
        loss = supervised_contrastive(z, labels, 0.5)
        assert loss.item() == pytest.approx(sum(rows) / 2, abs=1e-12)
        loss.backward()
        assert z.grad is not None
        assert torch.isfinite(z.grad).all()

    def test_no_positives_at_all(self) -> None:
        z = features(1, 3).requires_grad_()
        loss = supervised_contrastive(z, torch.tensor([0]))
        loss.backward()
        assert loss.item() == 0
        assert z.grad is not None
        assert torch.isfinite(z.grad).all()


class TestRetrieval:
    def test_by_hand(self) -> None:
        similarity = torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.3, 0.1], [0.1, 0.2, 0.7]])
        metrics = retrieval_metrics(similarity, ks=(1, 2, 9))
        assert metrics["accuracy_v2t"] == pytest.approx(2 / 3)
        assert metrics["accuracy_t2v"] == 1.0
        assert metrics["accuracy"] == pytest.approx(5 / 6)
        assert metrics["recall_v2t@2"] == 1.0
        assert metrics["recall@9"] == 1.0

    def test_any_positive_counts_and_bad_k(self) -> None:
        positive = torch.tensor([[True, True], [False, True]])
        metrics = retrieval_metrics(torch.tensor([[0.1, 0.9], [0.5, 0.4]]), positive, ks=(1,))
        assert metrics["recall_v2t@1"] == 0.5
        with pytest.raises(ValueError, match="k must be at least 1, found 0"):
            retrieval_metrics(torch.eye(2), ks=(0,))


class TestQueue:
    def test_wraps_around_and_saves_everything(self) -> None:
        queue = FeatureQueue(5, 2)
        queue.enqueue(torch.full((3, 2), 1.0), torch.tensor([1, 2, 3]))
        queue.enqueue(torch.full((4, 2), 2.0), torch.tensor([4, 5, 6, 7]))
        assert queue.ids.tolist() == [6, 7, 3, 4, 5]
        assert queue.features[:, 0].tolist() == [2.0, 2.0, 1.0, 2.0, 2.0]
        assert (int(queue.ptr), int(queue.filled)) == (2, 5)
        fresh = FeatureQueue(5, 2)
        fresh.load_state_dict(queue.state_dict())
        assert torch.equal(fresh.features, queue.features)
        assert int(fresh.ptr) == 2

    def test_narrow_ids(self) -> None:
        queue = FeatureQueue(2, 1)
        queue.enqueue(torch.ones(2, 1), torch.tensor([4, 5], dtype=torch.int32))
        assert queue.ids.tolist() == [4, 5]

    def test_more_rows_than_the_queue_keeps_the_last(self) -> None:
        queue = FeatureQueue(2, 1)
        queue.enqueue(torch.arange(5.0)[:, None])
        assert sorted(queue.features[:, 0].tolist()) == [3.0, 4.0]
        assert int(queue.ptr) == 1
        queue.enqueue(torch.tensor([[9.0]]))
        assert sorted(queue.features[:, 0].tolist()) == [4.0, 9.0]

    def test_keep_mask(self) -> None:
        queue = FeatureQueue(3, 1)
        queue.enqueue(torch.ones(2, 1), torch.tensor([4, 5]))
        assert queue.keep_mask().tolist() == [[True, True, False]]
        assert queue.keep_mask(torch.tensor([5, NO_ID])).tolist() == [[True, False, False], [True, True, False]]
        assert float(queue.fill_ratio) == pytest.approx(2 / 3)

    def test_rejects(self) -> None:
        with pytest.raises(ValueError, match=r"features must be \[B, 2\], found \[1, 3\]"):
            FeatureQueue(3, 2).enqueue(torch.ones(1, 3))
        with pytest.raises(ValueError, match=r"ids must be \[1\], found \[2\]"):
            FeatureQueue(3, 2).enqueue(torch.ones(1, 2), torch.tensor([1, 2]))
        with pytest.raises(ValueError, match="size must be an integer at least 1, found 0"):
            FeatureQueue(0, 2)


class TestMomentumEncoder:
    def test_follows(self) -> None:
        torch.manual_seed(0)
        encoder = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
        average = MomentumEncoder(encoder, momentum=0.9)
        before = average.encoder[0].weight.clone()
        with torch.no_grad():
            encoder[0].weight += 1.0
        encoder[1].running_mean.fill_(3.0)
        average.update(encoder)
        assert torch.allclose(average.encoder[0].weight, before + 0.1)
        assert average.encoder[1].running_mean.tolist() == [3.0, 3.0]
        assert not any(p.requires_grad for p in average.parameters())
        assert not average(torch.ones(2, 2, requires_grad=True)).requires_grad

    def test_rejects(self) -> None:
        with pytest.raises(ValueError, match="momentum"):
            MomentumEncoder(torch.nn.Linear(1, 1), momentum=1.5)
