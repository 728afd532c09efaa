"""HybridPretrainVICRegLoss: when it hands over, what it adds up, what is saved."""

from __future__ import annotations

import copy

import pytest
import torch

from tests.support.twins import twin
from training_losses.contrastive.clip_loss import CLIPLoss
from training_losses.contrastive.hybrid_pretrain_vicreg import HybridPretrainVICRegLoss
from training_losses.contrastive.vicreg import VICRegLoss


def views(seed: int = 0, rows: int = 8, columns: int = 4, noise: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, columns, generator=g, dtype=torch.float64)
    return a, a + noise * torch.randn(rows, columns, generator=g, dtype=torch.float64)


def run(loss: HybridPretrainVICRegLoss, steps: range, noise: float = 0.5) -> list[float]:
    seen = []
    for step in steps:
        out = loss(*views(step, noise=noise))
        seen.append(float(out["transition_progress"]))
        loss.update_step(step, 100)
    return seen


def test_each_phase_is_its_loss() -> None:
    a, b = views()
    loss = HybridPretrainVICRegLoss(
        alignment_threshold=None, pretrain_steps=2, transition_steps=4, temperature=0.2
    ).double()
    contrastive, vicreg = CLIPLoss(temperature=0.2)(a, b).loss, VICRegLoss()(a, b).loss
    assert loss.phase == "contrastive_pretrain"
    torch.testing.assert_close(loss(a, b).loss, contrastive)
    loss.update_step(2, 10)
    loss.update_step(3, 10)
    assert loss.phase == "transition"
    torch.testing.assert_close(loss(a, b).loss, 0.75 * contrastive + 0.25 * vicreg)
    loss.update_step(9, 10)
    assert loss.phase == "vicreg"
    torch.testing.assert_close(loss(a, b).loss, vicreg)


def test_the_deadline_holds_where_the_old_loss_waited_for_ever() -> None:
    old = twin("hybrid_pretrain_vicreg_loss.HybridPretrainVICRegLoss")(
        min_alignment_threshold=5.0, contrastive_pretrain_steps=3, fusion_dim=4, vision_dim=4, text_dim=4
    ).double()
    new = HybridPretrainVICRegLoss(alignment_threshold=5.0, pretrain_steps=3, transition_steps=2).double()
    for step in range(1, 8):
        for loss in (old, new):
            loss(*views(step))
            loss.update_step(step, 100)
    assert old.in_pretrain_phase
    assert new.phase == "vicreg"


def test_threshold_or_deadline_whichever_comes_first() -> None:
    aligned = HybridPretrainVICRegLoss(alignment_threshold=0.2, pretrain_steps=50, transition_steps=2).double()
    assert run(aligned, range(1, 5), noise=0.1) == [0.0, 0.0, 0.5, 1.0]
    late = HybridPretrainVICRegLoss(alignment_threshold=0.99, pretrain_steps=3, transition_steps=0).double()
    assert run(late, range(1, 6)) == [0.0, 0.0, 0.0, 1.0, 1.0]


def test_progress_never_runs_backwards() -> None:
    old = twin("hybrid_pretrain_vicreg_loss.HybridPretrainVICRegLoss")(
        gradual_transition_steps=10, fusion_dim=4, vision_dim=4, text_dim=4
    )
    old.alignment_gap = 1.0
    old.update_step(5, 100)
    old.update_step(2, 100)
    assert old.transition_progress < 0
    new = HybridPretrainVICRegLoss(alignment_threshold=None, pretrain_steps=5, transition_steps=10)
    seen = []
    for step in (5, 8, 2, 30, 1):
        new.update_step(step, 100)
        seen.append(float(new.transition_progress))
    assert seen == pytest.approx([0.0, 0.3, 0.3, 1.0, 1.0])


def test_the_phase_is_saved_and_evaluation_does_not_move_the_gap() -> None:
    first = HybridPretrainVICRegLoss(alignment_threshold=0.2, transition_steps=6).double()
    run(first, range(1, 4), noise=0.1)
    second = HybridPretrainVICRegLoss(alignment_threshold=0.2, transition_steps=6).double()
    second.load_state_dict(first.state_dict())
    assert run(second, range(4, 8)) == run(copy.deepcopy(first), range(4, 8))
    gap = first.alignment_gap.clone()
    first.eval()(*views(9, noise=3.0))
    assert torch.equal(first.alignment_gap, gap)


def test_gap_average() -> None:
    loss = HybridPretrainVICRegLoss(gap_momentum=0.75).double()
    gaps = [float(loss(*views(seed))["alignment_gap"]) for seed in range(3)]
    want = 0.0
    for gap in gaps:
        want = 0.75 * want + 0.25 * gap
    assert float(loss.alignment_gap) == pytest.approx(want)


def test_one_space_heads_of_fixed_width_and_the_true_temperature() -> None:
    a, b = views(columns=6)
    loss = HybridPretrainVICRegLoss(input_dim=6, projection_dim=3, temperature=0.3).double()
    out = loss(a, b)
    assert float(out["temperature"]) == pytest.approx(0.3)
    heads = loss.vision_head(a), loss.text_head(b)
    torch.testing.assert_close(out["vicreg_loss"], VICRegLoss()(*heads).loss.detach())
    old = twin("hybrid_pretrain_vicreg_loss.HybridPretrainVICRegLoss")(
        temperature=0.3, fusion_dim=3, vision_dim=8, text_dim=8
    )
    before = old.contrastive_loss.vision_projection[0]
    assert old(a.float(), b.float())["temperature"] == 0.07
    assert old.contrastive_loss.vision_projection[0] is not before  # rebuilt in the forward pass, unknown to optimisers
    with pytest.raises(ValueError, match="width 6"):
        loss(a[:, :4], b[:, :4])


def test_shared_ids_are_positives() -> None:
    a, b = views()
    ids = torch.tensor([0, 0, 1, 2, 3, 3, 4, 5])
    out = HybridPretrainVICRegLoss(metrics=True)(a, b, match_ids=ids)
    torch.testing.assert_close(out["contrastive_loss"], CLIPLoss()(a, b, match_ids=ids).loss)
    assert {"accuracy", "recall@5"} <= set(out)


def test_keys_are_the_same_in_every_phase() -> None:
    a, b = views()
    loss = HybridPretrainVICRegLoss(pretrain_steps=1, transition_steps=2)
    keys = []
    for step in range(5):
        keys.append(list(loss(a.float(), b.float())))
        loss.update_step(step, 10)
    assert all(k == keys[0] for k in keys)
    assert loss.phase == "vicreg"


def test_errors() -> None:
    with pytest.raises(ValueError, match="both be None"):
        HybridPretrainVICRegLoss(pretrain_steps=None, alignment_threshold=None)
    with pytest.raises(ValueError, match="two rows"):
        HybridPretrainVICRegLoss()(*views(rows=1))
