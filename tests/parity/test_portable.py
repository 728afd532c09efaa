"""What the replay leaves to the machine, and that it leaves no more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.support import twins
from tests.support.golden import Case, GoldenMismatch, load_cases, replay
from tests.support.portable import Ties, nudged


def case(system: str, module: str, name: str) -> Case:
    (found,) = (c for c in load_cases(system, module) if c.data["case"] == name)
    return found


def test_ties_are_counted() -> None:
    x = torch.tensor([[1.0, 1.0 + 1e-7, 0.0], [1.0, 0.999, 0.0]])
    with Ties() as ties:
        x.argmax(dim=1)
        torch.argmax(x, 1)
    assert (ties.tied, ties.rows, ties.share) == (2, 4, 1.0)
    with Ties() as ties:
        x.T.argmax(dim=1)
    assert ties.share == 2 / 3


def test_nudged_moves_by_one_ulp() -> None:
    x = torch.tensor([1.0, -3.0, 0.0, torch.inf])
    moved = nudged(x, 0)
    assert torch.equal(moved[2:], x[2:])
    assert bool((moved[:2] != x[:2]).all())
    assert torch.allclose(moved[:2], x[:2], rtol=1.2e-7, atol=0)


def test_an_accuracy_without_ties_may_not_be_off_by_a_row() -> None:
    def off(system: str, module: str) -> Any:
        class CLIPStyleLoss(twins.golden_module(system, module).CLIPStyleLoss):
            def forward(self, *args: Any, **kwargs: Any) -> Any:
                found = super().forward(*args, **kwargs)
                return found | {"accuracy": found["accuracy"] + 0.01}

        return SimpleNamespace(CLIPStyleLoss=CLIPStyleLoss)

    failed = 0
    for tried in load_cases("multimodal_insight", "clip_style_loss"):
        if tried.symbol == "CLIPStyleLoss" and any("accuracy" in str(call.get("returns")) for call in tried.calls):
            with pytest.raises(GoldenMismatch, match="accuracy"):
                replay(tried, resolve=off)
            failed += 1
    assert failed


def test_a_fit_may_not_be_off_by_more_than_rounding_moves_it() -> None:
    def off(system: str, module: str) -> Any:
        fit = twins.golden_module(system, module).get_gmm_lfbgf

        def get_gmm_lfbgf(*args: Any, **kwargs: Any) -> Any:
            bells, weights, info = fit(*args, **kwargs)
            return bells * 1.02, weights, info

        return SimpleNamespace(get_gmm_lfbgf=get_gmm_lfbgf)

    with pytest.raises(GoldenMismatch, match="gaussians"):
        replay(case("alignment", "tensorops", "restored_k1_m20"), resolve=off)


def test_a_drawn_state_may_not_be_another_draw() -> None:
    def off(system: str, module: str) -> Any:
        class EMAMoCoLoss(twins.golden_module(system, module).EMAMoCoLoss):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.text_queue.mul_(1 + 1e-5)

        return SimpleNamespace(EMAMoCoLoss=EMAMoCoLoss)

    with pytest.raises(GoldenMismatch, match=r"state_before\.text_queue"):
        replay(case("multimodal_insight", "ema_moco_loss", "symmetric_f64"), resolve=off)


def test_the_old_fit_answers_with_the_means_that_it_reports() -> None:
    """Its last step may end in a line search that goes back: the answer is the point accepted, not the last seen."""
    given = case("alignment", "loss_functions", "restored_given_k3_dropout_f32")
    y, x = given.decode(given.calls[0]["args"])[0]
    fit = twins.golden_module("alignment", "tensorops").get_gmm_lfbgf
    histograms = torch.exp(-torch.cdist(x, y) / given.calls[0]["kwargs"]["softmax_temp"])
    support = np.arange(len(y))
    for histogram in histograms / histograms.sum(dim=1, keepdim=True):
        bells, _, means = fit(histogram, 3, max_iters=8)
        logarithms = bells.detach().double().log().numpy().T
        curve, slope, _ = np.polyfit(support, logarithms, 2)
        # logarithms have float32 roundings; 21 points fix a mean to 1e-4 of the standard deviation, which is below 10
        assert np.allclose(-slope / (2 * curve), means.detach().clamp(0, len(y) - 1).numpy(), atol=1e-2)
