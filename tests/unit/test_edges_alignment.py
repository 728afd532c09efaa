"""Alignment: small numbers worked out by hand, and values exactly at the edges of conditions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from training_losses.alignment import (
    GTCCLoss,
    IntraContrastLoss,
    LAVLoss,
    PairBudget,
    SoftDTWLoss,
    TCCLoss,
    VAVALoss,
    mixture_fit,
    sinkhorn_plan,
)
from training_losses.alignment.gtcc import _FiniteGradient
from training_losses.alignment.objective import _evenly
from training_losses.alignment.sequences import Sequences
from training_losses.functional import soft_dtw

F64 = torch.float64


def close(got: Any, want: Any) -> None:
    torch.testing.assert_close(torch.as_tensor(got), torch.as_tensor(want, dtype=torch.as_tensor(got).dtype))


def sequences(*lengths: int, width: int = 3, seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(n, width, generator=g, dtype=F64) for n in lengths]


def test_presets_are_these() -> None:
    paper = {"temperature": 0.1, "variance_weight": 0.001}
    assert TCCLoss.PRESETS["gtcc_repository"] == paper
    assert TCCLoss.PRESETS["paper"] == paper | {
        "variance": "per_frame", "include_self_pairs": False, "distance": "squared_euclidean", "scale_by_dim": True,
        "frame_reduction": "mean", "log_term": "var",
    }  # fmt: skip
    assert LAVLoss.PRESETS["gtcc_repository"] == {"smoothing": 0.1, "contrast_weight": 0.01}
    assert LAVLoss.PRESETS["paper"] == {
        "contrast_weight": 0.5, "pair_reduction": "mean", "count_contrast": "per_ordered_pair",
        "normalize_by_length": True, "normalize_embeddings": True,
        "contrast": {
            "window": 10, "inclusive_window": True, "near_term": "distance", "distance": "squared_euclidean",
        },
    }  # fmt: skip
    assert GTCCLoss.PRESETS["gtcc_repository"] == {
        "temperature": 0.1, "num_components": 15, "window_fraction": 0.2, "keep_floor_decay": 0.95,
    }  # fmt: skip
    assert GTCCLoss.PRESETS["paper"] == {
        "divide_by_variance": True, "window": "centered", "fit_objective": "kl", "standardize_drop_logits": False,
        "stable": True,
    }  # fmt: skip
    assert VAVALoss.PRESETS["restored"] == VAVALoss.PRESETS["gtcc_repository"] == {}
    for loss in (TCCLoss, LAVLoss, GTCCLoss, VAVALoss):
        for name, options in loss.PRESETS.items():
            made = vars(loss.preset(name))
            assert all(made[key] == value for key, value in options.items() if key in made), (loss, name)


# --- GTCC -------------------------------------------------------------------------------------------------------------


def test_gradients_that_are_not_finite_become_zero() -> None:
    x = torch.ones(4, requires_grad=True)
    (_FiniteGradient.apply(x) * torch.tensor([math.nan, math.inf, -math.inf, 2.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.0, 0.0, 2.0]


def test_a_sequence_that_is_not_finite_is_left_out_as_a_whole() -> None:
    good = sequences(5, 6)
    bad = sequences(7, seed=1)[0]
    bad[2, 0] = math.nan
    loss = GTCCLoss(on_failure="skip", fit_steps=1)
    close(loss([*good, bad], window_sides=[0, 1, 0]), loss(good, window_sides=[0, 1]))


def test_an_error_of_zero_has_no_inverse() -> None:
    """One frame each: it returns to itself; the part that is dropped has the inverse of the error."""
    given, drops = [torch.zeros(1, 2, dtype=F64)] * 2, [torch.zeros(3, dtype=F64)] * 2
    with pytest.raises(FloatingPointError, match="the loss is not finite"):
        GTCCLoss(keep_floor_decay=0.5, fit_steps=1)(given, drops)
    assert float(GTCCLoss(keep_floor_decay=0.5, fit_steps=1, on_failure="skip")(given, drops)) == 0.0


def test_draws_are_those_of_the_seed_and_the_call() -> None:
    """Per sequence a permutation, whose first frames are taken, and a side out of two."""
    given = sequences(6, 5, 7, 4, 6, 5, 8)
    loss = GTCCLoss(seed=3, fit_steps=1, num_frames=3, window_fraction=0.3)
    seen = set()
    for call in range(4):
        g = torch.Generator().manual_seed(3 + (call << 24))
        frames, sides = [], []
        for x in given:
            frames.append(torch.sort(torch.randperm(len(x), generator=g)[:3]).values)
            sides.append(int(torch.randint(2, (), generator=g)))
        seen |= set(sides)
        drawn = loss(given)
        close(drawn, GTCCLoss(fit_steps=1, window_fraction=0.3)(given, sampled_frames=frames, window_sides=sides))
    assert seen == {0, 1}


def test_drop_scores_by_hand() -> None:
    x, vectors = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=F64), torch.tensor([[1.0, -1.0, 0.5]], dtype=F64)
    plain = GTCCLoss(standardize_drop_logits=False)
    close(plain._scores(x, vectors), torch.tensor([[-0.5, -0.5]]))
    rows = torch.tensor([[2.0, 0.0], [6.0, 0.0]], dtype=F64)
    close(GTCCLoss()._scores(rows, vectors), torch.tensor([[-1.0, 1.0]]) / math.sqrt(2.0))


@pytest.mark.parametrize(
    ("window", "side", "seen"),
    [
        ("centered", 0, ["110000", "111000", "011100", "001110", "000111", "000011"]),
        ("random_side", 0, ["110000", "111000", "001100", "000110", "000011", "000011"]),
        ("random_side", 1, ["110000", "110000", "110000", "011000", "001111", "000111"]),
    ],
)
def test_windows_by_hand(window: str, side: int, seen: list[str]) -> None:
    """A third of six frames; the corners see each other."""
    found = GTCCLoss(window=window, window_fraction=1 / 3)._window(6, side)
    assert ["".join("01"[on] for on in row) for row in found.tolist()] == seen


def test_a_larger_variance_costs_more() -> None:
    """Frames that are all alike: every weight is 1 / 6, the variance of 0 .. 5 is 35 / 12."""
    given = [torch.zeros(6, 2, dtype=F64)] * 2
    values = [float(GTCCLoss(variance_weight=w, fit_steps=1)(given, window_sides=[0, 0])) for w in (0.0, 1.0)]
    assert values[1] - values[0] == pytest.approx(2 * 6 * math.log(35 / 12) / 2, rel=1e-4)


def test_small_errors_are_no_failures() -> None:
    given = [torch.arange(5, dtype=F64)[:, None] * 4.0] * 2  # frames find themselves
    values = [float(GTCCLoss(fit_steps=8, on_failure=how)(given, window_sides=[0, 0])) for how in ("raise", "skip")]
    assert values[0] / 10 < 0.5
    assert values[0] == values[1]


def test_steps_of_the_fit_and_whole_epochs() -> None:
    given = sequences(5, 6)
    loss = GTCCLoss(fit_steps=2, num_components=2)
    frames = torch.arange(5)
    found, _ = loss._fit(Sequences.of(given), 0, frames, [1])
    alpha = torch.softmax(-torch.cdist(given[0], given[1]), dim=1)
    close(found[0], mixture_fit.fit_histogram_mixture(alpha, 2, steps=8)[0])
    with pytest.raises(ValueError, match="epoch"):
        loss(given, None, 0.5)


# --- contrast ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("near_term", ["constant", "distance", "weighted_distance"])
@pytest.mark.parametrize(
    "options", [{}, {"inclusive_window": True}, {"distance": "squared_euclidean"}, {"reduction": "mean"}]
)
@pytest.mark.parametrize("timed", [False, True])
def test_contrast_cell_by_cell(near_term: str, options: dict[str, Any], timed: bool) -> None:
    (x,) = sequences(7)
    times = torch.tensor([0.0, 0.5, 2.0, 3.5, 4.0, 7.0, 9.0], dtype=F64) if timed else torch.arange(7, dtype=F64)
    reach = 2 + bool(options.get("inclusive_window"))
    total = 0.0
    for i in range(7):
        for j in range(7):
            gap = float((x[i] - x[j]).norm()) ** (2 if options.get("distance") else 1)
            weight = float(times[i] - times[j]) ** 2 + 1
            if abs(i - j) >= reach:
                total += weight * max(0.0, 1.5 - gap)
            else:
                total += {"constant": weight * 1.5, "distance": gap, "weighted_distance": gap / weight}[near_term]
    loss = IntraContrastLoss(window=2, margin=1.5, near_term=near_term, **options)
    close(loss(x, times if timed else None), total / 49 if options.get("reduction") else total)


# --- mixtures ---------------------------------------------------------------------------------------------------------


def test_objectives_of_a_mixture_by_hand() -> None:
    """One component on two bins; its weight is 1."""
    p = torch.tensor([[0.25, 0.75]], dtype=F64)
    at = torch.tensor([[0.0, 2.0, 1.0]], dtype=F64)  # mean 0, variance 2
    odds = math.exp(-1 / 4)
    q = [1 / (1 + odds), odds / (1 + odds)]
    forward = 0.25 * math.log(0.25 / q[0]) + 0.75 * math.log(0.75 / q[1])
    backward = q[0] * math.log(q[0] / 0.25) + q[1] * math.log(q[1] / 0.75)
    lengths = torch.tensor([2])
    for objective, want in (("kl", forward), ("jeffreys", forward + backward)):
        problem = mixture_fit._Problem(p, lengths, 1, objective, 0.5)
        torch.testing.assert_close(problem.value(at), torch.tensor([want], dtype=F64), rtol=1e-5, atol=1e-5)


def test_where_mixtures_start_and_stay() -> None:
    p = torch.full((1, 9), 1 / 9, dtype=F64)
    problem = mixture_fit._Problem(p, torch.tensor([9]), 2, "kl", 0.5)
    close(problem.start(), torch.tensor([[1.0, 4.5, 9.0, 9.0, 1.0, 1.0]]))
    close(problem.inside(torch.tensor([[-1.0, 8.5, 0.1, 9.0, -3.0, 4.0]], dtype=F64))[0, :2], torch.tensor([0.0, 8.0]))
    components, weights = problem.mixture(torch.tensor([[4.0, 4.0, 0.1, 0.5, 0.0, math.log(3.0)]], dtype=F64))
    close(components[0, 0], components[0, 1])  # variances below the smallest count as that
    close(weights, torch.tensor([[0.25, 0.75]]))


def test_a_step_without_curvature_is_forgotten() -> None:
    slope = torch.tensor([[1.0, 2.0]], dtype=F64)
    flat = [torch.tensor([[1.0, 0.0]], dtype=F64)], [torch.tensor([[0.0, 1.0]], dtype=F64)]
    close(mixture_fit._direction(slope, *flat), -slope)
    # a quadratic of curvature 2 along the first axis: the Newton step there, half a step elsewhere
    bowl = [torch.tensor([[1.0, 0.0]], dtype=F64)], [torch.tensor([[2.0, 0.0]], dtype=F64)]
    close(mixture_fit._direction(slope, *bowl), -slope / 2)


def test_a_slope_after_a_slanted_step() -> None:
    """Curvature 2: the slope less half of the change is (0, 1.5); scaled by 2 / 5; 0.2 comes back along the step."""
    step, change = torch.tensor([[1.0, 0.0]], dtype=F64), torch.tensor([[2.0, 1.0]], dtype=F64)
    close(mixture_fit._direction(torch.tensor([[1.0, 2.0]], dtype=F64), [step], [change]), torch.tensor([[-0.2, -0.6]]))


def test_steps_of_a_fit_are_whole() -> None:
    with pytest.raises(ValueError, match="steps"):
        mixture_fit.fit_histogram_mixture(torch.full((1, 4), 0.25), 1, steps=1.5)


# --- budget -----------------------------------------------------------------------------------------------------------


def test_budgets_at_their_edges() -> None:
    with pytest.raises(ValueError, match="default"):
        PairBudget(default=1.5)
    # 100 cells: two of 20 frames become two of 10, which is just enough
    thin = PairBudget(limits={}, default=100, min_length=10, on_exceed="subsample")
    assert thin.frames("tcc", [20, 20]) == {0: 10, 1: 10}
    assert PairBudget(limits={}, default=100, min_length=11, on_exceed="subsample").frames("tcc", [20, 20]) == {}
    assert PairBudget(limits={}, default=100).frames("tcc", [10, 10, 9]) == {0: 10, 1: 10}


def test_frames_taken_evenly() -> None:
    x = torch.arange(9.0)[:, None]
    assert _evenly(x, 5).flatten().tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert _evenly(x, 2).flatten().tolist() == [0.0, 8.0]
    assert _evenly(x, 1).flatten().tolist() == [0.0]


# --- transport --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["kernel", "log"])
@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((2, 4, 3), (3, 4), (3, 3)),
        ((2, 4, 4), (4, 3), (3, 2)),
        ((2, 4, 4), (3, 2), (4, 1)),
        ((2, 3, 3), (3, 3), (3, 3)),
    ],
)
def test_plans_in_a_padded_batch(
    method: str, shape: tuple[int, ...], rows: tuple[int, ...], columns: tuple[int, ...]
) -> None:
    """Each is the plan of its own costs, also where one pair fills the batch in one direction, or has one column."""
    cost = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    plans = sinkhorn_plan(cost, 0.5, row_lengths=rows, column_lengths=columns, method=method)
    for plan, each, n, m in zip(plans, cost, rows, columns, strict=True):
        want = torch.zeros_like(plan)
        want[:n, :m] = sinkhorn_plan(each[:n, :m], 0.5, method=method)
        close(plan, want)


def test_very_negative_costs_go_to_the_log_domain() -> None:
    """Adding a number to all costs changes no plan."""
    cost = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    close(sinkhorn_plan(cost - 2000.0, 1.0), sinkhorn_plan(cost, 1.0))


def test_lengths_of_a_batch_are_checked() -> None:
    cost = torch.rand(2, 3, 3, dtype=F64)
    for bad in ((1, 0), (1, 4), (1,)):
        with pytest.raises(ValueError, match="row_lengths must hold 2 numbers from 1 to 3"):
            sinkhorn_plan(cost, 1.0, row_lengths=bad, column_lengths=(1, 1))


def test_large_costs_go_to_the_log_domain() -> None:
    """Where one row has no cost near 0, a kernel of nothing but zeros would divide by zero."""
    cost = torch.tensor([[0.0, 2000.0], [3000.0, 2500.0]], dtype=F64)
    close(sinkhorn_plan(cost, 1.0), sinkhorn_plan(cost, 1.0, method="log"))


def test_soft_alignments_of_a_batch() -> None:
    """All of the soft minimum goes through the first cell and the last one."""
    _, expected = SoftDTWLoss(smoothing=0.5).alignment(torch.stack(sequences(5, 5, 5)), torch.stack(sequences(4, 4, 4)))
    close(expected[:, 0, 0], torch.ones(3))
    close(expected[:, -1, -1], torch.ones(3))


def test_lav_by_length_is_made_of_its_parts() -> None:
    x = sequences(4, 6, 5)
    loss = LAVLoss(contrast_weight=0.3, smoothing=0.2, count_contrast="once", normalize_by_length=True)
    contrast = loss.contrast.per_sequence(Sequences.of(x))
    want = 0.3 * sum(float(c) / len(s) for c, s in zip(contrast, x, strict=True))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        gaps = (x[i][:, None] - x[j]).square().sum(dim=-1)
        want += 2 * float(soft_dtw(gaps[None], 0.2)) / (len(x[i]) + len(x[j]))
    close(loss(x), want)


def test_gtcc_divides_by_the_variance_and_adds_its_logarithm() -> None:
    """The spread of the frames is above 1: dividing by it makes the loss smaller, its logarithm makes it larger."""
    x = [s * 0.1 for s in sequences(12, 12)]
    frames, sides = [torch.arange(12)] * 2, [0, 0]

    def value(**options: Any) -> float:
        loss = GTCCLoss(num_components=1, window="centered", stable=True, fit="em", fit_objective="kl", **options)
        return float(loss(x, sampled_frames=frames, window_sides=sides))

    plain, divided = value(), value(divide_by_variance=True)
    assert 0 < divided < plain
    assert value(variance_weight=0.5) > plain
    assert value(variance_weight=0.5, divide_by_variance=True) > divided
    close(value(variance_weight=0.5) - plain, value(variance_weight=0.5, divide_by_variance=True) - divided)
    close(value(frame_reduction="mean") * 12, plain)


def test_tcc_scales_by_the_width_and_takes_means_over_frames() -> None:
    x = sequences(5, 5, width=4)
    close(TCCLoss(scale_by_dim=True, temperature=0.3)(x), TCCLoss(temperature=0.3 * 4)(x))
    close(TCCLoss(frame_reduction="mean")(x) * 5, TCCLoss()(x))


def test_vava_epsilon_by_the_prior() -> None:
    x = sequences(6, 9)
    by_name = VAVALoss(epsilon="prior_scaled", prior_weight=0.5)(x, step=3)
    close(by_name, VAVALoss(epsilon=lambda n, m: 0.5 * n * m / 4, prior_weight=0.5)(x, step=3))
    assert float(by_name) != float(VAVALoss(prior_weight=0.5)(x, step=3))


def test_vava_offsets_by_both_lengths() -> None:
    plan = torch.rand(1, 7, 7, generator=torch.Generator().manual_seed(0), dtype=F64)
    below = [plan - plan.amax(dim=dim, keepdim=True) for dim in (2, 1)]
    got = VAVALoss(optimality_scale="own_axis")._match_distance(*below, (5,), (7,))
    best_column, best_row = plan.argmax(dim=2, keepdim=True), plan.argmax(dim=1, keepdim=True)
    close(got[0], (torch.arange(7) - best_column).abs() / 7)
    close(got[1], (torch.arange(7)[:, None] - best_row).abs() / 5)
