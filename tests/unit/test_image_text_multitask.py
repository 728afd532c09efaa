"""ImageTextMultiTaskLoss: the closed form of every term; the twin cannot be built."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.support.twins import twin
from training_losses.contrastive.clip_loss import CLIPLoss
from training_losses.multimodal.image_text_multitask import ImageTextMultiTaskLoss


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


V, T = drawn(5, 4, seed=0), drawn(5, 4, seed=1)


def test_the_twin_raises_and_the_new_default_is_clip() -> None:
    with pytest.raises(NameError):
        twin("contrastive_learning.MultiModalMixedContrastiveLoss")()
    ids = [0, 1, 1, 2, 3]
    torch.testing.assert_close(ImageTextMultiTaskLoss()(V, T, match_ids=ids).loss, CLIPLoss()(V, T, match_ids=ids).loss)


def test_loss_is_the_sum_of_all_tasks() -> None:
    logits, labels = drawn(5, 3, seed=2), torch.tensor([0, 1, 2, 0, 1])
    match, truth = drawn(5, seed=3), torch.tensor([1, 0, 1, 1, 0])
    loss = ImageTextMultiTaskLoss(contrastive_weight=0.5, classification_weight=2.0, matching_weight=3.0, metrics=True)
    out = loss(V, T, class_logits=logits, class_labels=labels, matching_logits=match, matching_labels=truth)
    classification = F.cross_entropy(logits, labels)
    matching = -(truth * match.sigmoid().log() + (1 - truth) * (1 - match.sigmoid()).log()).mean()
    contrastive = CLIPLoss()(V, T).loss
    torch.testing.assert_close(out.loss, 0.5 * contrastive + 2 * classification + 3 * matching)
    torch.testing.assert_close(out["matching_loss"], matching)
    assert float(out["classification_accuracy"]) == float((logits.argmax(1) == labels).double().mean())
    assert float(out["matching_accuracy"]) == float(((match > 0) == (truth > 0)).double().mean())


def test_hard_negatives_widen_the_denominators() -> None:
    vn, tn = drawn(3, 4, seed=4), drawn(2, 4, seed=5)
    out = ImageTextMultiTaskLoss(hard_negative_weight=0.3, temperature=0.2)(
        V, T, hard_negatives={"vision": vn, "text": tn}
    )
    v, t, hv, ht = (F.normalize(x) for x in (V, T, vn, tn))
    rows = F.cross_entropy(torch.cat([v @ t.T, v @ ht.T], 1) / 0.2, torch.arange(5))
    columns = F.cross_entropy(torch.cat([t @ v.T, t @ hv.T], 1) / 0.2, torch.arange(5))
    plain = CLIPLoss(temperature=0.2)(V, T).loss
    torch.testing.assert_close(out["hard_contrastive_loss"], (rows + columns) / 2)
    torch.testing.assert_close(out.loss, 0.7 * plain + 0.3 * (rows + columns) / 2)


def test_errors() -> None:
    with pytest.raises(ValueError, match="class_logits"):
        ImageTextMultiTaskLoss(classification_weight=1.0)(V, T)
    with pytest.raises(ValueError, match="hard_negatives"):
        ImageTextMultiTaskLoss(hard_negative_weight=0.5)(V, T, hard_negatives={"vision": V})
    with pytest.raises(ValueError, match="weights"):
        ImageTextMultiTaskLoss(contrastive_weight=0.0)
    with pytest.raises(ValueError, match="one shape"):
        ImageTextMultiTaskLoss(matching_weight=1.0)(
            V, T, matching_logits=drawn(5, 1, seed=0), matching_labels=torch.ones(5, 2)
        )
