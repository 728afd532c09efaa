"""MixedContrastiveLoss: its three terms, expectations in place of draws, stability."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from tests.support.twins import twin
from training_losses.contrastive.clip_loss import CLIPLoss
from training_losses.multimodal.mixed_loss import MixedContrastiveLoss


def pair(rows: int = 6, columns: int = 5, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return tuple(torch.randn(rows, columns, generator=g, dtype=torch.float64).to(dtype) for _ in range(2))


def test_terms_and_sum() -> None:
    v, t = pair()
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    out = MixedContrastiveLoss(temperature=0.2, weights={"nt_xent": 0.5})(v, t, labels=labels)
    torch.testing.assert_close(out["loss_infonce"], CLIPLoss(temperature=0.2)(v, t).loss)
    z = F.normalize(torch.cat([v, t]))
    s = (z @ z.T / 0.2).fill_diagonal_(-torch.inf)
    both = torch.cat([labels, labels])
    nt_xent = supervised = 0.0
    for i in range(12):
        log_p = s[i] - s[i].logsumexp(0)
        nt_xent -= float(log_p[(i + 6) % 12]) / 12
        positives = [j for j in range(12) if j != i and both[j] == both[i]]
        supervised -= float(log_p[positives].mean()) / 12
    assert float(out["loss_nt_xent"]) == pytest.approx(nt_xent)
    assert float(out["loss_supervised"]) == pytest.approx(supervised)
    want = 0.4 * out["loss_infonce"] + 0.5 * out["loss_nt_xent"] + 0.3 * out["loss_supervised"]
    torch.testing.assert_close(out.loss, want)


def test_repeated_ids_give_the_mean_over_the_old_draws() -> None:
    """The twin draws one positive per row and per column; the new term is the exact expectation."""
    v, t = pair(4)
    ids = [0, 0, 1, 2]
    s = F.normalize(v) @ F.normalize(t).T / 0.07
    choices = list(itertools.product((0, 1), (0, 1), (2,), (3,)))
    rows = sum(F.cross_entropy(s, torch.tensor(c)) for c in choices) / len(choices)
    columns = sum(F.cross_entropy(s.T, torch.tensor(c)) for c in choices) / len(choices)
    torch.testing.assert_close(MixedContrastiveLoss()(v, t, match_ids=ids)["loss_infonce"], (rows + columns) / 2)
    old = twin("multimodal_mixed_contrastive_loss.MultiModalMixedContrastiveLoss")().eval()
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        seen.add(round(float(old(v, t, match_ids=ids)["loss_infonce"]), 6))
    assert len(seen) > 1


def test_nt_xent_does_not_push_pairs_of_one_id_apart() -> None:
    v, t = pair(4)
    v[1], t[1] = v[0], t[0]
    same = MixedContrastiveLoss(weights={"infonce": 0, "supervised": 0})
    with_ids = same(v, t, match_ids=[0, 0, 1, 2])["loss_nt_xent"]
    assert float(with_ids) < float(same(v, t)["loss_nt_xent"])


def test_no_noise_in_small_batches() -> None:
    v, t = pair()
    old = twin("multimodal_mixed_contrastive_loss.MultiModalMixedContrastiveLoss")()
    values = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        values.append(float(old(v, t)["loss"]))
    assert values[0] != values[1]
    new = MixedContrastiveLoss()
    assert torch.equal(new(v, t).loss, new(v, t).loss)
    torch.testing.assert_close(new(v, t).loss, old.eval()(v, t)["loss"], rtol=1e-9, atol=1e-9)


def test_low_temperature_is_finite() -> None:
    v, t = pair(dtype=torch.float32)
    labels = torch.arange(6) % 2
    old = twin("multimodal_mixed_contrastive_loss.MultiModalMixedContrastiveLoss")(temperature=0.01).eval()
    assert torch.isnan(old(v, t, labels=labels)["loss"])
    new = MixedContrastiveLoss(temperature=0.01)(v, t, labels=labels).loss
    want = MixedContrastiveLoss(temperature=0.01)(v.double(), t.double(), labels=labels).loss
    torch.testing.assert_close(new, want.float(), rtol=1e-5, atol=1e-5)


def test_parts_are_detached_and_labels_optional() -> None:
    v, t = (x.requires_grad_() for x in pair())
    out = MixedContrastiveLoss()(v, t)
    assert float(out["loss_supervised"]) == 0
    assert [k for k, x in out.items() if x.requires_grad] == ["loss"]
    old = twin("multimodal_mixed_contrastive_loss.MultiModalMixedContrastiveLoss")()(v, t)
    assert old["loss_infonce"].requires_grad


def test_errors() -> None:
    v, t = pair()
    with pytest.raises(ValueError, match="nce"):
        MixedContrastiveLoss(weights={"nce": 1.0})
    with pytest.raises(ValueError, match="reduction"):
        MixedContrastiveLoss(reduction="none")
    with pytest.raises(ValueError, match="labels"):
        MixedContrastiveLoss()(v, t, labels=torch.arange(3))
