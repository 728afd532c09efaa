"""``TemporalCrossEntropyLoss``: what counts, what does not, and where it leaves its twin."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.support.twins import twin
from training_losses.temporal import TemporalCrossEntropyLoss


def batch(*shape: int, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(*shape, classes, generator=g, dtype=torch.float64).requires_grad_()
    targets = torch.randint(-1, classes, shape, generator=g)
    targets.view(-1)[0], targets.view(-1)[1] = -1, 1
    return logits, targets


def test_sequences_and_rows_agree() -> None:
    logits, targets = batch(3, 4)
    loss = TemporalCrossEntropyLoss()
    torch.testing.assert_close(loss(logits, targets), loss(logits.flatten(0, 1), targets.flatten()), rtol=0, atol=0)
    torch.testing.assert_close(
        loss(logits, targets), TemporalCrossEntropyLoss(class_dim=1)(logits.movedim(-1, 1), targets), rtol=0, atol=0
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_torch_on_valid_steps(smoothing: float, weighted: bool) -> None:
    logits, targets = batch(3, 4)
    weights = torch.tensor([0.5, 2.0, 0.0, 1.0, 3.0], dtype=torch.float64) if weighted else None
    settings = {"label_smoothing": smoothing, "class_weights": weights}
    flat, labels = logits.flatten(0, 1), targets.flatten()

    def torch_loss(reduction: str) -> torch.Tensor:
        return F.cross_entropy(flat, labels, weights, ignore_index=-1, reduction=reduction, label_smoothing=smoothing)

    count = (labels != -1).sum()
    torch.testing.assert_close(TemporalCrossEntropyLoss(**settings)(logits, targets), torch_loss("sum") / count)
    for reduction in ("sum", "none"):
        got = TemporalCrossEntropyLoss(reduction=reduction, **settings)(logits, targets)
        torch.testing.assert_close(got.flatten(), torch_loss(reduction).flatten())
    own_mean = TemporalCrossEntropyLoss(weight_normalization="weights", **settings)(logits, targets)
    torch.testing.assert_close(own_mean, torch_loss("mean"))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("normalization", ["count", "weights"])
def test_all_void_keeps_the_graph_where_the_twin_lost_it(reduction: str, normalization: str) -> None:
    logits, targets = batch(2, 3)
    loss = TemporalCrossEntropyLoss(reduction=reduction, weight_normalization=normalization)(logits, targets * 0 - 1)
    assert not loss.any()
    loss.sum().backward()
    assert logits.grad is not None
    assert not logits.grad.any()
    old = twin("dynvision.cross_entropy_loss.CrossEntropyLoss")()
    assert not old(logits.flatten(0, 1), targets.flatten() * 0 - 1).requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_void_rows_of_any_content_do_not_reach_the_gradient(bad: float) -> None:
    logits, targets = batch(3, 4)
    broken = logits.detach().clone()
    broken[targets == -1] = bad
    broken.requires_grad_()
    loss = TemporalCrossEntropyLoss()
    clean = loss(logits, targets)
    torch.testing.assert_close(loss(broken, targets), clean, rtol=0, atol=0)
    loss(broken, targets).backward()
    clean.backward()
    assert broken.grad is not None
    torch.testing.assert_close(broken.grad, logits.grad, rtol=0, atol=0)
    # the twin's value is right, its gradient is not
    old = twin("dynvision.cross_entropy_loss.CrossEntropyLoss")()
    (grad,) = torch.autograd.grad(old(broken.flatten(0, 1), targets.flatten()), broken)
    assert not grad.isfinite().all()


def test_normalizer_replaces_the_count() -> None:
    logits, targets = batch(2, 3)
    total = TemporalCrossEntropyLoss(reduction="sum")(logits, targets)
    loss = TemporalCrossEntropyLoss()
    torch.testing.assert_close(loss(logits, targets, normalizer=7), total / 7)
    torch.testing.assert_close(loss(logits, targets, normalizer=torch.tensor(7)), total / 7)


def test_class_weights_move_with_the_loss_and_are_not_saved() -> None:
    loss = TemporalCrossEntropyLoss(class_weights=[1, 2, 3, 4, 5]).double()
    assert loss.class_weights is not None
    assert loss.class_weights.dtype == torch.float64
    assert loss.state_dict() == {}
    given = torch.ones(5)
    loss = TemporalCrossEntropyLoss(class_weights=given)
    given.zero_()
    assert loss.class_weights is not None
    assert loss.class_weights.all()


def test_errors_name_what_was_found() -> None:
    logits, targets = batch(2, 3)
    loss = TemporalCrossEntropyLoss()
    cases = {
        r"\[2, 3\].*found \[2\]": (logits, targets[:, 0]),
        r"in \[0, 5\).*found 9": (logits, targets * 0 + 9),
        "found -3": (logits, targets * 0 - 3),
        r"\[B, T, C\] or \[N, C\], found torch.float64 \[5\]": (logits[0, 0], targets[0, 0]),
        "integer class indices": (logits, targets.double()),
    }
    for message, arguments in cases.items():
        with pytest.raises(ValueError, match=message):
            loss(*arguments)
    with pytest.raises(ValueError, match="normalizer must be an integer at least 1, found 0"):
        loss(logits, targets, normalizer=0)
    for arguments in (
        {"weight_normalization": "sum"},
        {"class_dim": 2},
        {"label_smoothing": 1.0},
        {"ignore_index": None},
    ):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            TemporalCrossEntropyLoss(**arguments)


def test_a_tuple_is_not_taken_apart() -> None:
    logits, targets = batch(2, 3)
    with pytest.raises((ValueError, AttributeError)):
        TemporalCrossEntropyLoss()((logits, {}), targets)
