"""Label smoothing, class and sample weights, ignored targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from training_losses.base import BaseSupervisedLoss

DOUBLE = torch.float64


class Classify(BaseSupervisedLoss):
    """The smallest concrete class."""

    def forward(self, logits: Tensor, targets: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        return self.weighted_cross_entropy(logits, targets, sample_weight)


def batch(rows: int = 6, classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, classes, generator=generator, dtype=DOUBLE)
    return logits, torch.randint(classes, (rows,), generator=generator)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 0.0]])
def test_equals_torch(reduction: str, smoothing: float, weights: list[float] | None) -> None:
    logits, targets = batch()
    targets[2] = -100
    loss = Classify(reduction=reduction, label_smoothing=smoothing, class_weights=weights).double()
    expected = F.cross_entropy(
        logits,
        targets,
        weight=None if weights is None else torch.tensor(weights, dtype=DOUBLE),
        reduction=reduction,
        label_smoothing=smoothing,
    )
    assert torch.allclose(loss(logits, targets), expected, atol=1e-12)


def test_sample_weights() -> None:
    logits, targets = batch()
    weight = torch.arange(6, dtype=DOUBLE)
    rows = F.cross_entropy(logits, targets, reduction="none")
    assert torch.allclose(Classify()(logits, targets, weight), (rows * weight).sum() / weight.sum())
    assert torch.allclose(Classify(reduction="none")(logits, targets, weight), rows * weight)


def test_smoothed_targets() -> None:
    smoothed = Classify(label_smoothing=0.2).apply_label_smoothing(torch.tensor([[0, 3]]), 4)
    assert torch.allclose(smoothed[0, 0], torch.tensor([0.85, 0.05, 0.05, 0.05]))
    assert smoothed.shape == (1, 2, 4)


def test_all_ignored_is_a_zero_with_graph() -> None:
    logits, _ = batch(2)
    logits.requires_grad_()
    loss = Classify()(logits, torch.tensor([-100, -100]))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_not_finite_logits_of_ignored_rows_stay_out_of_the_gradient() -> None:
    logits, targets = batch(3)
    logits[1] = torch.nan
    targets[1] = -7
    logits.requires_grad_()
    loss = Classify(ignore_index=-7)(logits, targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("arguments", [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"class_weights": [-1.0]}])
def test_rejects_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Classify(**arguments)


def test_rejects_shapes() -> None:
    logits, targets = batch()
    with pytest.raises(ValueError, match=r"found \[6, 4\], \[5\]"):
        Classify()(logits, targets[:5])
    with pytest.raises(ValueError, match=r"sample_weight must be \[6\], found \[1\]"):
        Classify()(logits, targets, torch.ones(1))
    with pytest.raises(ValueError, match="class_weights has 3 entries for logits of 4 classes"):
        Classify(class_weights=[1.0, 1.0, 1.0])(logits, targets)


def test_class_weights_are_saved_and_gradients_are_right() -> None:
    loss = Classify(class_weights=[1.0, 2.0, 3.0, 4.0], label_smoothing=0.1).double()
    assert list(loss.state_dict()) == ["class_weights"]
    logits, targets = batch()
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), logits.requires_grad_())
