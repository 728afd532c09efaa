"""What was wrong in the old ContrastiveLoss and its functions, seen in the twin, and what the successors do."""

from __future__ import annotations

import pytest
import torch

from tests.support.draws import all_draws
from tests.support.twins import twin
from training_losses.base import LossOutput
from training_losses.contrastive import CLIPLoss, MemoryQueueLoss, SimCLRLoss
from training_losses.functional import nt_xent, retrieval_metrics, supervised_contrastive
from training_losses.supervised.supervised_contrastive_loss import SupervisedContrastiveLoss

ContrastiveLoss = twin("contrastive_loss.ContrastiveLoss")
COPIES = ("contrastive_loss", "contrastive_learning")
unit = torch.nn.functional.normalize


def batch(rows: int = 4, dim: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=g).double(), torch.randn(rows, dim, generator=g).double()


def old_bank() -> torch.nn.Module:
    arguments = {"add_projection": False, "input_dim": 3, "sampling_strategy": "memory-bank", "memory_bank_size": 8}
    return ContrastiveLoss(**arguments).double()


def test_1_the_bank_fills_by_itself() -> None:
    old, new = old_bank(), MemoryQueueLoss(embed_dim=3, queue_size=8)
    for seed in range(3):
        old(*batch(seed=seed))
        new(*batch(seed=seed))
    assert (int(old.bank_size), int(new.text_queue.filled)) == (0, 8)


def test_2_the_global_store_never_started() -> None:
    old = ContrastiveLoss(add_projection=False, input_dim=3, sampling_strategy="global", dataset_size=9).double()
    old(*batch(), indices=torch.arange(4))
    assert not old.global_initialized
    plain = CLIPLoss()(*batch()).loss
    torch.testing.assert_close(old(*batch(), indices=torch.arange(4))["loss"], plain)


def test_3_backward_with_a_filled_bank() -> None:
    v, t = (x.requires_grad_() for x in batch())
    old, new = old_bank(), MemoryQueueLoss(embed_dim=3, queue_size=8).double()
    old.update_memory_bank(*(unit(x) for x in batch(seed=5)))
    new.enqueue(*batch(seed=5))
    answer = old(v, t)["loss"]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        answer.backward()
    loss = new(v, t).loss
    loss.backward()
    assert torch.isfinite(v.grad).all()
    # the value of the old loss was right
    torch.testing.assert_close(loss, answer)


def test_4_and_5_and_6_heads_are_neither_skipped_nor_replaced() -> None:
    old = ContrastiveLoss(input_dim=3, projection_dim=2)
    v, t = batch()
    raw = CLIPLoss()(v, t).loss
    torch.testing.assert_close(old(v, t)["loss"], raw)  # float64 features, float32 heads: the heads were skipped
    new = CLIPLoss(input_dim=3, projection_dim=2)
    with pytest.raises(ValueError, match=r"vision_features must be torch.float32 .* found torch.float64"):
        new(v, t)
    before = old.vision_projection
    old(*(x.float() for x in batch(dim=5)))
    assert old.vision_projection is not before
    with pytest.raises(ValueError, match="features of width 3"):
        new(*(x.float() for x in batch(dim=5)))
    wide = torch.ones(2, 768) + torch.eye(2, 768)
    old(wide, wide)
    assert old.add_projection is False


def test_7_the_default_needs_no_width() -> None:
    with pytest.raises(AssertionError):
        ContrastiveLoss()
    assert list(CLIPLoss().parameters()) == []
    assert SimCLRLoss()(*batch()).loss > 0


def test_8_no_noise_on_small_batches() -> None:
    old, new = ContrastiveLoss(add_projection=False, sampling_strategy="in-batch"), CLIPLoss()
    torch.manual_seed(0)
    assert old(*batch())["loss"] != old(*batch())["loss"]
    assert new(*batch()).loss == new(*batch()).loss == old.eval()(*batch())["loss"]


def test_9_all_positives_count_and_the_bank_keeps_ids() -> None:
    old, ids = ContrastiveLoss(add_projection=False), ["a", "b", "a", "c"]
    answers = all_draws(lambda: old(*batch(), ids)["loss"])
    assert len({float(a) for a in answers}) > 1
    torch.testing.assert_close(CLIPLoss()(*batch(), ids).loss, torch.stack(answers).mean())
    queue = MemoryQueueLoss(embed_dim=3, queue_size=4)
    queue.enqueue(*batch(), ids)
    assert not queue.text_queue.keep_mask(queue.text_queue.ids).diagonal().any()


def test_10_metrics_are_those_of_the_loss() -> None:
    v, t = batch()
    old = ContrastiveLoss(add_projection=False, loss_type="nt_xent")(v, t)
    assert old["loss_v2t"] != pytest.approx(float(old["loss"]))
    new = SimCLRLoss(metrics=True)(v, t)
    assert set(new) == {"loss", "accuracy", "positive_similarity", "negative_similarity"}
    z = unit(torch.cat([v, t]))
    cosine = (z @ z.T).fill_diagonal_(-2)
    assert new["accuracy"] == (cosine.argmax(1) == (torch.arange(8) + 4) % 8).float().mean()


def test_11_no_silent_infonce() -> None:
    for loss_type in ("supervised", "nonsense"):
        old = ContrastiveLoss(add_projection=False, loss_type=loss_type)
        torch.testing.assert_close(old(*batch())["loss"], CLIPLoss()(*batch()).loss)
    with pytest.raises(ValueError, match="needs labels"):
        SupervisedContrastiveLoss(contrast_mode="joint")(*batch())


def test_12_reduction_none() -> None:
    with pytest.raises(RuntimeError):
        ContrastiveLoss(add_projection=False, reduction="none")(*batch())
    assert SimCLRLoss(reduction="none")(*batch()).loss.shape == (8,)
    assert MemoryQueueLoss(embed_dim=3, reduction="none")(*batch()).loss.shape == (4,)


def test_13_unset_rows_of_a_store_are_no_negatives() -> None:
    old = ContrastiveLoss(add_projection=False, input_dim=3, sampling_strategy="global", dataset_size=9).double().eval()
    v, t = batch()
    old.update_global_embeddings(unit(v), unit(t), torch.tensor([1, 2, 3, 8]))
    s = unit(v) @ unit(t).T / 0.07
    zeros = torch.full((4, 5), 0.0).double()  # rows 0, 4, 5, 6, 7 were never written
    expected = (torch.cat([s, zeros], 1).logsumexp(1) - s.diagonal()).mean()
    assert old(v, t, indices=torch.tensor([1, 2, 3, 8]))["loss_v2t"] == pytest.approx(float(expected))
    new = MemoryQueueLoss(embed_dim=3, queue_size=9)
    new.enqueue(*batch(seed=1))
    assert new.text_queue.keep_mask().sum() == 4


@pytest.mark.parametrize("module", COPIES)
def test_15_supervised_function_does_not_overflow(module: str) -> None:
    old = twin(f"{module}.supervised_contrastive_loss")
    v, t = (unit(x).float() for x in batch())
    labels = torch.tensor([0, 1, 0, 1])

    def new(*rows: torch.Tensor, **kwargs: object) -> torch.Tensor:
        return supervised_contrastive(torch.cat(rows), torch.cat([labels, labels]), **kwargs)

    for reduction in ("mean", "sum", "none"):
        torch.testing.assert_close(new(v, t, reduction=reduction), old(v, t, labels, reduction=reduction))
    double = [x.double().requires_grad_() for x in (v, t)]
    got, expected = new(*double, temperature=0.3), old(*double, labels, temperature=0.3)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        torch.autograd.grad(got, double), torch.autograd.grad(expected, double), rtol=1e-10, atol=1e-12
    )
    assert torch.isnan(old(v, t, labels, temperature=0.01))
    assert torch.isfinite(new(v, t, temperature=0.01))
    assert old(v, t, labels, reduction="nonsense").shape == (8,)
    with pytest.raises(ValueError, match="nonsense"):
        SupervisedContrastiveLoss(reduction="nonsense")


@pytest.mark.parametrize("module", COPIES)
def test_long_rows_do_not_make_nt_xent_nan(module: str) -> None:
    v, t = (1e18 * x.float() for x in batch())
    old = twin(f"{module}.nt_xent_loss")
    assert torch.isnan(old(v * 1e2, t * 1e2, 0.07))
    assert torch.isfinite(SimCLRLoss()(v, t).loss)
    assert not torch.isnan(nt_xent(v, t, 0.07))


@pytest.mark.parametrize("module", COPIES)
def test_recall_takes_several_matches(module: str) -> None:
    similarity = torch.tensor([[0.1, 0.9, 0.0], [0.8, 0.2, 0.1], [0.0, 0.1, 0.7]])
    assert twin(f"{module}.compute_recall_at_k")(similarity, [1])["avg_recall@1"] == pytest.approx(1 / 3)
    matches = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    assert retrieval_metrics(similarity, matches, ks=[1])["recall@1"] == 1


def test_16_and_18_empty_batch_and_trainable_heads() -> None:
    empty = torch.zeros(0, 3, requires_grad=True)
    assert not ContrastiveLoss(add_projection=False)(empty, empty)["loss"].requires_grad
    for loss in (CLIPLoss(), MemoryQueueLoss(embed_dim=3), SimCLRLoss()):
        with pytest.raises(ValueError, match="empty"):
            loss(empty, empty)
    assert len(list(CLIPLoss(input_dim=3, projection_dim=2).parameters())) == 8


def test_old_result_keys_answer_with_a_warning() -> None:
    out = CLIPLoss(metrics=True)(*batch())
    assert isinstance(out, LossOutput)
    with pytest.warns(DeprecationWarning, match="accuracy_v2t"):
        assert out["v2t_accuracy"] is out["accuracy_v2t"]
    with pytest.raises(KeyError):
        out["nonsense"]


@pytest.mark.parametrize("prefix", ["", "model.criterion."])
def test_heads_and_banks_convert_and_continue_bitwise(prefix: str) -> None:
    torch.manual_seed(0)
    old = ContrastiveLoss(input_dim=3, projection_dim=2, sampling_strategy="memory-bank", memory_bank_size=6)
    v, t = (x.float() for x in batch())
    old.update_memory_bank(*old.project(v, t))
    state = {prefix + key: value.clone() for key, value in old.state_dict().items()}

    def fresh() -> tuple[torch.nn.Module, MemoryQueueLoss]:
        loss = MemoryQueueLoss(input_dim=3, projection_dim=2, queue_size=6, mask_same_id=False)
        model: torch.nn.Module = loss
        for name in reversed(prefix.split(".")[:-1]):
            model = torch.nn.ModuleDict({name: model})
        return model, loss

    (first, new), (second, again) = fresh(), fresh()
    first.load_state_dict(dict(state))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(new.eval()(v, t).loss, old.eval()(v, t)["loss"])
    assert torch.equal(new.text_queue.features, old.text_bank)
    for seed in (1, 2):
        inputs = [x.float() for x in batch(seed=seed)]
        assert torch.equal(new.train()(*inputs).loss, again.train()(*inputs).loss)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    with pytest.raises(RuntimeError, match="surprise"):
        first.load_state_dict(state | {f"{prefix}surprise": v})
