"""LabelSmoothingCrossEntropyLoss: torch's semantics, plus sample weights."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.support.twins import twin
from training_losses.supervised.cross_entropy import LabelSmoothingCrossEntropyLoss

G = torch.Generator().manual_seed(0)
LOGITS = torch.randn(6, 4, generator=G, dtype=torch.float64)
DENSE = torch.randn(3, 4, 5, generator=G, dtype=torch.float64)
TARGET = torch.tensor([0, 1, 2, 3, 1, -100])
WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 0.1], dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_equals_torch(smoothing: float, weights: torch.Tensor | None, reduction: str) -> None:
    loss = LabelSmoothingCrossEntropyLoss(
        label_smoothing=smoothing, class_weights=weights, reduction=reduction
    ).double()
    dense_target = TARGET[:5].repeat(3, 1)
    for logits, target in ((LOGITS, TARGET), (DENSE, dense_target)):
        want = F.cross_entropy(logits, target, weight=weights, label_smoothing=smoothing, reduction=reduction)
        torch.testing.assert_close(loss(logits, target), want)


def test_sample_weights() -> None:
    weight = torch.tensor([1.0, 2.0, 0.0, 0.5, 1.0, 9.0], dtype=torch.float64)
    rows = F.cross_entropy(LOGITS, TARGET, reduction="none") * weight
    loss = LabelSmoothingCrossEntropyLoss(label_smoothing=0.0)
    torch.testing.assert_close(loss(LOGITS, TARGET, weight), rows.sum() / weight[:5].sum())
    elements = LabelSmoothingCrossEntropyLoss(label_smoothing=0.0, mean_over="elements")
    torch.testing.assert_close(elements(LOGITS, TARGET, weight), rows.mean())
    target = torch.zeros(3, 5, dtype=torch.int64)
    per_row = elements(DENSE, target, torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64))
    want = F.cross_entropy(DENSE, target, reduction="none") * torch.tensor([[1.0], [0.0], [2.0]], dtype=torch.float64)
    torch.testing.assert_close(per_row, want.mean())


def test_class_weights_count_with_smoothing() -> None:
    target = TARGET.clamp(min=0)
    old = twin("losses.CrossEntropyLoss")
    assert torch.equal(old(weight=WEIGHTS)(LOGITS, target), old()(LOGITS, target))  # silently ignored
    new = LabelSmoothingCrossEntropyLoss(class_weights=WEIGHTS).double()
    torch.testing.assert_close(
        new(LOGITS, target), F.cross_entropy(LOGITS, target, weight=WEIGHTS, label_smoothing=0.1)
    )
    assert float(new(LOGITS, target)) != pytest.approx(float(LabelSmoothingCrossEntropyLoss()(LOGITS, target)))


def test_weighted_mean_is_normalised_unless_asked() -> None:
    target = TARGET.clamp(min=0)
    old = twin("losses.CrossEntropyLoss")(smoothing=0.0, weight=WEIGHTS)(LOGITS, target)
    options = {"label_smoothing": 0.0, "class_weights": WEIGHTS}
    torch.testing.assert_close(
        LabelSmoothingCrossEntropyLoss(**options, mean_over="elements").double()(LOGITS, target), old
    )
    ratio = old / LabelSmoothingCrossEntropyLoss(**options).double()(LOGITS, target)
    assert float(ratio) == pytest.approx(float(WEIGHTS[target].mean()))


def test_ignored_targets_neither_crash_nor_dilute() -> None:
    with pytest.raises(RuntimeError):
        twin("losses.CrossEntropyLoss")()(LOGITS, TARGET)
    new = LabelSmoothingCrossEntropyLoss()
    torch.testing.assert_close(new(LOGITS, TARGET), new(LOGITS[:5], TARGET[:5]))
    nothing = torch.full((6,), -100)
    logits = LOGITS.clone().requires_grad_()
    value = new(logits, nothing)
    assert float(value.detach()) == 0
    assert torch.equal(torch.autograd.grad(value, logits)[0], torch.zeros_like(LOGITS))


def test_the_class_axis_is_always_axis_one() -> None:
    target = torch.zeros(3, 5, dtype=torch.int64)
    with pytest.raises(RuntimeError):
        twin("losses.CrossEntropyLoss")(smoothing=0.1)(DENSE, target)
    twin("losses.CrossEntropyLoss")(smoothing=0.0)(DENSE, target)
    for smoothing in (0.0, 0.1):
        LabelSmoothingCrossEntropyLoss(label_smoothing=smoothing)(DENSE, target)


def test_targets_are_smoothed_in_float64() -> None:
    target = TARGET.clamp(min=0)
    want = F.cross_entropy(LOGITS, target, label_smoothing=0.1)
    old = twin("losses.CrossEntropyLoss")()(LOGITS, target)
    assert 1e-12 < abs(float(old - want)) < 1e-6
    assert float(LabelSmoothingCrossEntropyLoss()(LOGITS, target)) == pytest.approx(float(want), abs=1e-14)


def test_errors() -> None:
    for bad in ({"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"reduction": "avg"}, {"mean_over": "rows"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            LabelSmoothingCrossEntropyLoss(**bad)
    with pytest.raises(ValueError, match="class axis"):
        LabelSmoothingCrossEntropyLoss()(DENSE, TARGET)
    with pytest.raises(ValueError, match="sample_weight"):
        LabelSmoothingCrossEntropyLoss()(LOGITS, TARGET, torch.ones(3))
