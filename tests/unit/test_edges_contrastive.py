"""Contrastive losses: small numbers worked out by hand, and values exactly at the edges of conditions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from training_losses.contrastive import (
    CLIPLoss,
    DecorrelationLoss,
    DynamicTemperatureLoss,
    HardNegativeLoss,
    InfoNCELoss,
    MoCoLoss,
)
from training_losses.contrastive.dcl import DecoupledContrastiveLoss
from training_losses.contrastive.decoupled_loss import IntraInterModalLoss
from training_losses.contrastive.hybrid_pretrain_vicreg import HybridPretrainVICRegLoss
from training_losses.contrastive.vicreg import AdaptiveVICRegLoss, VICRegLoss
from training_losses.multimodal import ImageTextMultiTaskLoss
from training_losses.supervised import SupervisedContrastiveLoss

IMAGES = torch.eye(2, dtype=torch.float64)
TEXTS = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
"""Cosines [[1, 0.6], [0, 0.8]] of images (rows) with texts."""


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(want, dtype=torch.as_tensor(got).dtype))


def lse(*logits: float) -> float:
    return math.log(sum(map(math.exp, logits)))


def test_clip_by_hand() -> None:
    out = CLIPLoss(temperature=0.5, metrics=True)(IMAGES, TEXTS)
    by_row = [lse(2.0, 1.2) - 2.0, lse(0.0, 1.6) - 1.6]
    by_column = [lse(2.0, 0.0) - 2.0, lse(1.2, 1.6) - 1.6]
    close(out["loss_v2t"], sum(by_row) / 2)
    close(out["loss_t2v"], sum(by_column) / 2)
    close(out["similarity_mean"], 0.6)
    close(out["similarity_positive"], 0.9)
    close(out["similarity_gap"], 0.3)
    # all texts belong to all images
    shared = CLIPLoss(temperature=0.5, metrics=True)(IMAGES, TEXTS, [7, 7])
    close(shared["similarity_positive"], 0.6)
    smooth = CLIPLoss(temperature=0.5, label_smoothing=0.5, reduction="none")(IMAGES, TEXTS)
    close(smooth["loss_v2t"], torch.tensor([lse(2.0, 1.2) - 1.8, lse(0.0, 1.6) - 1.2]))
    close(smooth["loss_t2v"], torch.tensor([lse(2.0, 0.0) - 1.5, lse(1.2, 1.6) - 1.5]))


@pytest.mark.parametrize("sigma", [None, 0.5])
def test_dcl_by_hand(sigma: float | None) -> None:
    """The four rows are both images, both texts; the negatives of a row are the two of the other sample."""
    rows = torch.cat([IMAGES, TEXTS])
    cosines = (rows @ rows.T / 0.5).tolist()
    matched = [1.0, 0.8, 1.0, 0.8]
    total = sum(math.exp(m / (sigma or 1.0)) for m in matched)
    weights = [2 - 4 * math.exp(m / sigma) / total if sigma else 1.0 for m in matched]
    others = {0: (1, 3), 1: (0, 2), 2: (1, 3), 3: (0, 2)}
    want = [lse(*(cosines[i][j] for j in others[i])) - weights[i] * matched[i] / 0.5 for i in range(4)]
    loss = DecoupledContrastiveLoss(temperature=0.5, sigma=sigma, reduction="none")
    close(loss(IMAGES, TEXTS), torch.tensor(want))
    lone = torch.ones(1, 2, requires_grad=True)
    assert loss(lone, lone).tolist() == [0.0, 0.0]
    for bad in (0.0, -1.0):
        with pytest.raises(ValueError, match="sigma"):
            DecoupledContrastiveLoss(sigma=bad)


def test_positives_inside_a_modality_by_hand() -> None:
    """Rows 0 and 1 share an id, row 2 is alone: pairs (0, 1) and (1, 0), their own entries left out."""
    x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)
    loss = IntraInterModalLoss(temperature=0.5, intra_positives="same_id", reduction="sum")
    out = loss(x, x, [4, 4, 5])
    want = (lse(1.2, 0.0) - 1.2) + (lse(1.2, 1.6) - 1.2)
    close(out["intra_vision_loss"], want)


def test_dynamic_temperature_by_hand() -> None:
    options: dict[str, Any] = {"base_temperature": 0.5, "min_temperature": 0.01, "max_temperature": 9.0}
    paired = DynamicTemperatureLoss(**options, include_paired=True)(IMAGES, TEXTS, [1, 2])
    close(paired["positive_similarity"], 0.9)
    close(paired["negative_similarity"], 0.3)
    # without the pairs there are positives only where ids repeat
    three, texts = torch.eye(3, dtype=torch.float64), torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0, 0, 1.0]]).double()
    rest = DynamicTemperatureLoss(**options, include_paired=False)(three, texts, [1, 1, 2])
    close(rest["positive_similarity"], 0.3)
    close(rest["negative_similarity"], 0.0)


def weights(loss: HardNegativeLoss, similarity: Tensor, positive: Tensor) -> list[list[float]]:
    return [[round(value) for value in row] for row in loss.log_weights(similarity, positive).exp().tolist()]


def test_semi_hard_negatives_lie_between() -> None:
    """Strictly below the positive, strictly above it less the margin."""
    similarity = torch.tensor([[0.75, 0.75, 0.5, 0.25, 0.0]], dtype=torch.float64)
    positive = torch.tensor([[True, False, False, False, False]])
    loss = HardNegativeLoss(mining="semi_hard", semi_hard_margin=0.5, hard_negative_weight=3.0)
    assert weights(loss, similarity, positive)[0][1:] == [1, 3, 1, 1]


def test_hardest_negatives_of_each_row() -> None:
    """Half of three negatives is one, half of four is two."""
    similarity = torch.tensor([[0.9, 0.8, 0.1, 0.2, 0.3], [0.4, 0.9, 0.3, 0.2, 0.1]], dtype=torch.float64)
    positive = torch.tensor([[True, True, False, False, False], [False, True, False, False, False]])
    loss = HardNegativeLoss(mining="hard", hard_fraction=0.5, hard_negative_weight=3.0)
    found = weights(loss, similarity, positive)
    assert found[0][2:] == [1, 1, 3]
    assert found[1] == [3, found[1][1], 3, 1, 1]


def test_anchors_without_negatives_do_not_count() -> None:
    """Two pairs of one id have no negatives; the mean is over those of the others."""
    loss = HardNegativeLoss(temperature=0.5, mining="none")
    assert float(loss(IMAGES, TEXTS, [3, 3]).loss) == 0.0
    plain = loss(IMAGES, TEXTS, [1, 2])
    close(plain["loss_v2t"], ((lse(2.0, 1.2) - 2.0) + (lse(0.0, 1.6) - 1.6)) / 2)


def test_low_variances_are_below_the_threshold() -> None:
    """Variances 0, 1 and 4 of two rows: at the threshold is not below it."""
    x = torch.tensor([[0.0, 0.0, 0.0], [0.0, math.sqrt(2.0), math.sqrt(8.0)]], dtype=torch.float64)
    for relative, threshold, count in ((False, 1.25, 2), (False, 0.75, 1), (True, 0.5, 1), (True, 0.75, 2)):
        loss = DecorrelationLoss(
            low_variance_threshold=threshold, relative_threshold=relative, track_statistics=True, normalize=False
        )
        out = loss(features=x)
        assert int(out["low_variance_count_features"]) == count, (relative, threshold)
        close(out["mean_variance_features"], 5 / 3)
        close(out["low_variance_fraction_features"], count / 3)
    zero = torch.zeros(2, 3, dtype=torch.float64)
    flat = DecorrelationLoss(low_variance_threshold=1.0, relative_threshold=True, track_statistics=True)(features=zero)
    assert int(flat["low_variance_count_features"]) == 0  # none lies below the mean of 0


def test_hybrid_metrics_by_hand() -> None:
    loss = HybridPretrainVICRegLoss(temperature=0.5, pretrain_steps=8, alignment_threshold=None, transition_steps=4)
    loss.double().update_step(2, 100)
    out = loss(IMAGES, TEXTS)
    close(out["diagonal_similarity"], 0.9)
    close(out["mean_similarity"], 0.6)
    close(out["alignment_gap"], 0.3)
    cosines = torch.tensor([1.0, 0.6, 0.0, 0.8], dtype=torch.float64)
    close(out["alignment_snr"], 0.3 / (float(cosines.std()) + 1e-6))
    close(out["pretrain_progress"], 0.25)
    assert (float(out["contrastive_weight"]), float(out["vicreg_weight"])) == (1.0, 0.0)
    rows = (lse(2.0, 1.2) - 2.0 + lse(0.0, 1.6) - 1.6) / 2
    columns = (lse(2.0, 0.0) - 2.0 + lse(1.2, 1.6) - 1.6) / 2
    close(out.loss.detach(), (rows + columns) / 2)
    loss.update_step(8, 100)
    loss.update_step(9, 100)
    out = loss(IMAGES, TEXTS)
    assert (float(out["contrastive_weight"]), float(out["vicreg_weight"])) == (0.75, 0.25)
    assert float(out["pretrain_progress"]) == 1.0
    close(out.loss.detach(), 0.75 * out["contrastive_loss"] + 0.25 * out["vicreg_loss"])


def test_hybrid_without_a_first_phase() -> None:
    loss = HybridPretrainVICRegLoss(pretrain_steps=0, alignment_threshold=None, transition_steps=0)
    loss.update_step(0, 10)
    assert loss.phase == "vicreg"
    assert float(loss(IMAGES, TEXTS)["pretrain_progress"]) == 0.0
    endless = HybridPretrainVICRegLoss(pretrain_steps=None, alignment_threshold=0.25)
    assert float(endless(IMAGES, TEXTS)["pretrain_progress"]) == 0.0


def test_hybrid_hands_over_beyond_the_threshold() -> None:
    loss = HybridPretrainVICRegLoss(pretrain_steps=None, alignment_threshold=0.25, transition_steps=4)
    for gap, phase in ((0.25, "contrastive_pretrain"), (0.375, "transition")):
        loss.alignment_gap.fill_(gap)
        loss.update_step(1, 10)
        assert loss.phase == phase


@pytest.mark.parametrize(
    "bad", [{"pretrain_steps": 1.5}, {"pretrain_steps": -1}, {"gap_momentum": 1.2}, {"transition_steps": 0.5}]
)
def test_hybrid_options(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        HybridPretrainVICRegLoss(**bad)


def test_weights_inside_the_modalities() -> None:
    x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], dtype=torch.float64)
    y = torch.tensor([[0.0, 1.0], [0.8, 0.6], [1.0, 0.0]], dtype=torch.float64)
    out = IntraInterModalLoss(vision_weight=2.0, text_weight=3.0)(x, y, [4, 4, 5])
    close(out["intra_modal_loss"], 2 * out["intra_vision_loss"] + 3 * out["intra_text_loss"])
    close(out.loss.detach(), out["inter_modal_loss"] + out["intra_modal_loss"])


def test_temperature_of_a_batch_by_hand() -> None:
    """Positives at 0.9, negatives at 0.3: the base temperature times 0.25 + 2 exp(-1.5 * 0.6)."""
    loss = DynamicTemperatureLoss(
        base_temperature=0.5, offset=0.25, amplitude=2.0, sharpness=1.5, min_temperature=0.01, max_temperature=9.0,
        include_paired=True,
    )  # fmt: skip
    close(loss(IMAGES, TEXTS, [1, 2])["temperature"], 0.5 * (0.25 + 2 * math.exp(-0.9)))


def test_a_correlation_has_a_floor() -> None:
    """Variances of 1e-5 count half: 1e-5 is added to them."""
    x = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    x = x * math.sqrt(1e-5 * 3 / 4)
    loss = DecorrelationLoss(correlation=True, covariance_norm="sum", normalize=False, weight=1.0)
    close(loss(features=x).loss, 2 * 0.5**2)


def test_the_deadline_may_be_one_step() -> None:
    loss = HybridPretrainVICRegLoss(pretrain_steps=1, alignment_threshold=None)
    loss.update_step(1, 10)
    assert float(loss(IMAGES, TEXTS)["pretrain_progress"]) == 1.0


def test_info_nce_of_a_zero_vector_and_its_metrics() -> None:
    """Its length stays 0: the squared distance from a unit vector is 1, per dimension a half."""
    loss = InfoNCELoss(alignment="mse", metrics=True)
    images = torch.tensor([[0.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    out = loss(images, TEXTS, [1, 2])
    close(out["alignment"], ((0 + 1 - 0) / 2 + (1 + 1 - 1.6) / 2) / 2)
    close(out["similarity_positive"], 0.4)
    close(out["similarity_negative"], 0.0)
    close(out["similarity_gap"], 0.4)
    close(loss(IMAGES, TEXTS, [1, 2])["similarity_gap"], 0.9 - 0.3)


def test_accuracy_of_moco_among_the_batch() -> None:
    """A match has to beat the best of its rivals, not the worst."""
    loss = MoCoLoss(embed_dim=3, queue_size=4, in_batch_negatives=True, metrics=True, symmetric=False).double()
    queries = torch.eye(3, dtype=torch.float64)
    keys = torch.tensor([[0.6, 0.8, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    out = loss(queries, queries, keys, keys)
    close(out["accuracy_v2t"], 1 / 3)


def test_vicreg_norms_by_hand() -> None:
    """Three columns that are equal but for scale: six covariances, over 3, or over all 3 * 2 pairs."""
    column = torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
    x = torch.stack([column, 2 * column, 3 * column], dim=1)
    energy = 2 * (2**2 + 3**2 + 6**2)
    for norm, divisor in (("features", 3), ("pairs", 6)):
        out = VICRegLoss(covariance_norm=norm, view_reduction="mean")(x, x)
        close(out["covariance_loss"], energy / divisor)
    lone = VICRegLoss(covariance_norm="pairs")(x[:, :1], x[:, :1])
    assert float(lone["covariance_loss"]) == 0.0


def test_scales_of_weights_may_be_small() -> None:
    assert AdaptiveVICRegLoss(weight_scales=(0.5, 0.0, 1.0)).weight_scales == (0.5, 0.0, 1.0)
    with pytest.raises(ValueError, match="weight_scales"):
        AdaptiveVICRegLoss(weight_scales=(-0.5, 0.0, 1.0))


def test_accuracies_of_the_heads() -> None:
    """Logits of 0 and labels of one half are negative answers; of classes the largest score counts."""
    loss = ImageTextMultiTaskLoss(classification_weight=1.0, matching_weight=1.0, metrics=True)
    out = loss(
        IMAGES, TEXTS, [1, 2],
        class_logits=torch.tensor([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]]).double(), class_labels=torch.tensor([1, 1]),
        matching_logits=torch.tensor([0.0, 0.5], dtype=torch.float64), matching_labels=torch.tensor([0.5, 0.6]),
    )  # fmt: skip
    assert float(out["classification_accuracy"]) == 0.5
    assert float(out["matching_accuracy"]) == 1.0


def test_weights_of_anchors_in_both_modalities() -> None:
    """Rows of both modalities have the weight of their label."""
    loss = SupervisedContrastiveLoss(contrast_mode="joint", temperature=0.5, reduction="none")
    labels, weights = torch.tensor([0, 1]), torch.tensor([2.0, 3.0], dtype=torch.float64)
    plain = loss(IMAGES, TEXTS, labels=labels).loss
    close(loss(IMAGES, TEXTS, labels=labels, class_weights=weights).loss, plain * torch.tensor([2.0, 3.0, 2.0, 3.0]))


def test_scores_at_the_threshold_are_positives() -> None:
    scores = torch.tensor([[1.0, 0.5], [0.25, 1.0]], dtype=torch.float64)
    loss = SupervisedContrastiveLoss(similarity_threshold=0.5, contrast_mode="cross", metrics=True)
    assert loss._positives(None, scores, torch.eye(2, dtype=torch.bool)).tolist() == [[True, True], [False, True]]


def test_ranking_accuracy_by_hand() -> None:
    """Ties are not won; a row without negatives has no pairs."""
    similarity = torch.tensor([[3.0, 2.0, 2.0, 1.0], [1.0, 2.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    positive = torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1]]).bool()
    # row 0: 3 beats 2 and 1, 2 beats 1 and ties; row 1: 2 beats 1, 0 beats none of (1, 3)
    close(SupervisedContrastiveLoss.ranking_accuracy(similarity, positive), (3 + 1) / 8)
    assert float(SupervisedContrastiveLoss.ranking_accuracy(similarity, torch.ones_like(positive))) == 0.0
