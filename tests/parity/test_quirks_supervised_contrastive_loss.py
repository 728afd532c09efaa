"""What was wrong in the old SupervisedContrastiveLoss, seen in the twin, and what the new class does."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support.twins import twin
from training_losses.contrastive import CLIPLoss
from training_losses.supervised.supervised_contrastive_loss import SupervisedContrastiveLoss

Twin = twin("supervised_contrastive_loss.SupervisedContrastiveLoss")
LABELS = torch.tensor([0, 1, 0, 2])


def batch(rows: int = 4, dim: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(rows, dim, generator=g).double(), torch.randn(rows, dim, generator=g).double()


def part(v: torch.Tensor, t: torch.Tensor, positive: torch.Tensor, *, skip_self: bool) -> float:
    """Mean over the anchors with positives, element by element."""
    n = len(v)
    s = [[float(torch.cosine_similarity(v[i], t[j], dim=0)) / 0.07 for j in range(n)] for i in range(n)]
    terms = []
    for i in range(n):
        own = [j for j in range(n) if positive[i, j] and not (skip_self and i == j)]
        if own:
            total = sum(math.exp(s[i][j]) for j in range(n) if not (skip_self and i == j))
            terms.append(math.log(total) - sum(s[i][j] for j in own) / len(own))
    return sum(terms) / len(terms)


def test_1_partners_attract() -> None:
    v, t = batch()
    match = LABELS[:, None] == LABELS
    apart = match & ~torch.eye(4, dtype=torch.bool)
    old, new = Twin()(v, t, LABELS), SupervisedContrastiveLoss()(v, t, LABELS)
    for mask, got in ((apart, old), (match, new)):
        cross = (part(v, t, mask, skip_self=False) + part(t, v, mask, skip_self=False)) / 2
        assert float(got["cross_modal_loss"]) == pytest.approx(cross, rel=1e-6)
    assert float(new["intra_vision_loss"]) == pytest.approx(part(v, v, match, skip_self=True))
    assert float(new.loss) == pytest.approx(float(sum(v for k, v in new.items() if k != "loss")) / 3)


@pytest.mark.parametrize("labels", [torch.arange(4), None])
def test_2_distinct_or_no_labels_are_clip(labels: torch.Tensor | None) -> None:
    v, t = (x.requires_grad_() for x in batch())
    old = Twin()(v, t, labels)["loss"]
    assert (float(old), old.requires_grad) == (0.0, False)
    new = SupervisedContrastiveLoss(contrast_mode="cross")(v, t, labels).loss
    torch.testing.assert_close(new, CLIPLoss()(v, t).loss)
    intra = SupervisedContrastiveLoss(contrast_mode="intra")(v, t, labels).loss
    intra.backward()
    assert intra == 0


def test_3_several_labels_per_sample() -> None:
    v, t = batch()
    hot = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]])
    with pytest.raises(UnboundLocalError):
        Twin()(v, t, hot)
    shared = (hot @ hot.T) > 0
    new = SupervisedContrastiveLoss(contrast_mode="intra")(v, t, hot)
    assert float(new["intra_text_loss"]) == pytest.approx(part(t, t, shared, skip_self=True))
    weights = torch.tensor([1.0, 3.0, 5.0])
    per_sample = SupervisedContrastiveLoss(reduction="none", contrast_mode="cross")
    ratio = per_sample(v, t, hot, class_weights=weights).loss / per_sample(v, t, hot).loss
    torch.testing.assert_close(ratio, torch.tensor([2.0, 3.0, 5.0, 1.0]).double())


def test_4_reduction_none() -> None:
    v, t = batch()
    with pytest.raises(RuntimeError):
        Twin(reduction="none")(v, t, LABELS)
    rows = SupervisedContrastiveLoss(reduction="none", contrast_mode="cross")(v, t, LABELS).loss
    torch.testing.assert_close(rows.mean(), SupervisedContrastiveLoss(contrast_mode="cross")(v, t, LABELS).loss)


def test_5_no_epsilon_in_the_logarithm() -> None:
    # orthogonal samples at a low temperature: the logarithm of the old loss stops at log 1e-8
    v = torch.eye(4).double()
    twin_loss = Twin(temperature=0.01, base_temperature=0.01, contrast_mode="intra")
    old = twin_loss(v, v, LABELS)["intra_vision_loss"]
    new = SupervisedContrastiveLoss(temperature=0.01, contrast_mode="intra")(v, v, LABELS)["intra_vision_loss"]
    assert float(new) == pytest.approx(math.log(3))
    assert old == pytest.approx(math.log(1e-8) + 100)
    pinned = SupervisedContrastiveLoss(temperature=0.01, contrast_mode="intra", log_epsilon=1e-8)(v, v, LABELS)
    assert float(pinned["intra_vision_loss"]) == pytest.approx(old)


def test_6_unknown_mode() -> None:
    assert Twin(contrast_mode="both")(*batch(), LABELS)["loss"] == 0.0
    with pytest.raises(ValueError, match="contrast_mode must be one of 'all', 'cross', 'intra', 'joint'"):
        SupervisedContrastiveLoss(contrast_mode="both")


def test_7_asymmetric_scores_count_their_columns() -> None:
    v, t = batch()
    scores = torch.zeros(4, 4)
    scores[0, 1] = scores[0, 2] = scores[3, 1] = 1.0
    mask = scores > 0.5
    expected = (part(v, t, mask, skip_self=False) + part(t, v, mask.T, skip_self=False)) / 2
    options = {"contrast_mode": "cross"}
    new = SupervisedContrastiveLoss(include_paired=False, **options)(v, t, similarity_scores=scores)
    assert float(new.loss) == pytest.approx(expected)
    assert abs(float(Twin(**options)(v, t, similarity_scores=scores)["loss"]) - expected) > 0.1


def test_8_one_rule_for_the_accuracy() -> None:
    v, t = batch()
    match = LABELS[:, None] == LABELS
    by_labels = SupervisedContrastiveLoss(metrics=True)(v, t, LABELS)["ranking_accuracy"]
    by_scores = SupervisedContrastiveLoss(metrics=True)(v, t, similarity_scores=match.float())["ranking_accuracy"]
    assert by_labels == by_scores == pytest.approx(Twin()(v, t, LABELS)["contrastive_accuracy"])
    assert Twin()(v, t, similarity_scores=match.float())["contrastive_accuracy"] != pytest.approx(float(by_labels))


def test_9_no_scaling_by_default() -> None:
    v, t = batch()
    old = [Twin(temperature=0.2, base_temperature=b)(v, t, LABELS)["loss"] for b in (0.07, 0.2)]
    torch.testing.assert_close(old[0], old[1] * 0.2 / 0.07)
    new = [SupervisedContrastiveLoss(temperature=0.2, base_temperature=b)(v, t, LABELS).loss for b in (None, 0.2, 0.07)]
    torch.testing.assert_close(new[0], new[1])
    torch.testing.assert_close(new[2], new[1] * 0.2 / 0.07)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": torch.zeros(3)}, r"labels must be \[4\] or \[4, C\], found \[3\]"),
        ({"labels": torch.zeros(4, 2, 2)}, "labels must be"),
        ({"similarity_scores": torch.zeros(4, 3)}, "similarity_scores must be"),
        ({"class_weights": torch.ones(3)}, "class_weights needs labels"),
        ({"labels": torch.eye(4), "class_weights": torch.ones(3)}, r"class_weights must be \[4\]"),
    ],
)
def test_bad_inputs(arguments: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SupervisedContrastiveLoss()(*batch(), **arguments)


def test_labels_may_be_a_list() -> None:
    v, t = batch()
    given = SupervisedContrastiveLoss()(v, t, ["a", "b", "a", "c"]).loss
    torch.testing.assert_close(given, SupervisedContrastiveLoss()(v, t, LABELS).loss)


def test_ranking_accuracy_counts_ties_as_misses() -> None:
    g = torch.Generator().manual_seed(0)
    similarity, positive = torch.randint(0, 6, (40, 30), generator=g).float(), torch.rand(40, 30, generator=g) < 0.3
    wins = sum(int((x[m][:, None] > x[~m]).sum()) for x, m in zip(similarity, positive, strict=True))
    pairs = sum(int(m.sum() * (~m).sum()) for m in positive)
    got = SupervisedContrastiveLoss.ranking_accuracy(similarity, positive)
    assert float(got) == pytest.approx(wins / pairs, abs=1e-6)
    assert SupervisedContrastiveLoss.ranking_accuracy(similarity, torch.ones_like(positive)) == 0
