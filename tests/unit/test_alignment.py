"""Alignment losses: degenerate input, options, budget, objective, optional dependency."""

from __future__ import annotations

import importlib
import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from training_losses.alignment import (
    AlignmentObjective,
    GTCCLoss,
    IntraContrastLoss,
    LAVLoss,
    PairBudget,
    SoftDTWLoss,
    TCCLoss,
    VAVALoss,
    fit_histogram_mixture,
    objective_from_config,
    sinkhorn_plan,
    transport_cost,
)
from training_losses.alignment import sequences as sequences_module
from training_losses.functional.soft_dtw import soft_dtw

F64 = torch.float64


def sequences(*lengths: int, seed: int = 0, dtype: torch.dtype = F64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 4, generator=generator, dtype=F64).to(dtype).requires_grad_() for n in lengths]


def call(loss: Any, given: list[torch.Tensor]) -> torch.Tensor:
    if isinstance(loss, GTCCLoss) and loss.keep_floor_decay < 1:
        return loss(given, [torch.ones(x.shape[1] + 1, dtype=x.dtype) for x in given])
    return loss(given, 3) if isinstance(loss, VAVALoss) else loss(given)


def quick(cls: Any) -> Any:
    """The loss with its defaults, but four steps of the mixture fit."""
    return cls(fit_steps=1) if cls is GTCCLoss else cls()


ALL = [TCCLoss, GTCCLoss, LAVLoss, VAVALoss]


# ------------------------------------------------------------------------------------------------------- degenerate
@pytest.mark.parametrize("cls", ALL)
def test_one_sequence(cls: Any) -> None:
    loss = cls(include_self_pairs=False) if cls is TCCLoss else cls()
    given = sequences(9)
    value = call(loss, given)
    assert value == 0
    (gradient,) = torch.autograd.grad(value, given)
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("kind", ["equal", "constant", "zero", "large"])
@pytest.mark.parametrize("length", [2, 12, 30])
def test_finite_on_degenerate_frames(cls: Any, kind: str, length: int) -> None:
    x = torch.randn(length, 4, generator=torch.Generator().manual_seed(1))
    frames = {"equal": x, "constant": torch.ones_like(x), "zero": torch.zeros_like(x), "large": 1e3 * x}[kind]
    given = [frames.clone().requires_grad_() for _ in range(3)]
    value = call(quick(cls), given)
    assert torch.isfinite(value)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(value, given))


@pytest.mark.parametrize("cls", [GTCCLoss, LAVLoss, VAVALoss])
def test_one_frame(cls: Any) -> None:
    given = sequences(1, 5)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(call(cls(), given), given))


def test_tcc_needs_two_frames() -> None:
    with pytest.raises(ValueError, match=r"at least 2 frame.*\[\[1, 4\], \[5, 4\]\]"):
        TCCLoss()(sequences(1, 5))


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "non-empty list"),
        (torch.ones(2, 5, 4), "non-empty list"),
        ([torch.ones(5, 4), torch.ones(5, 3)], "one common D"),
        ([torch.ones(5, 4), torch.ones(5, 4, dtype=F64)], "one floating dtype"),
        ([torch.ones(5, 4), torch.ones(5, 4, device="meta")], "one device"),
        ([torch.ones(5, 4).long()] * 2, "one floating dtype"),
    ],
)
def test_what_is_no_list_of_sequences(cls: Any, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(cls(), given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "non-empty list"),
        ([], "non-empty list"),
        ((x for x in [torch.ones(5, 4)]), "non-empty list"),
        ([[1.0, 2.0], [3.0, 4.0]], r"\[N_i, D\] tensors"),
        ([torch.ones(5, 4), torch.ones(5, 4, dtype=F64)], "one floating dtype"),
        ([torch.ones(5, 4), torch.ones(5, 4, device="meta")], "one device"),
    ],
)
def test_what_the_objective_does_not_take(given: Any, message: str) -> None:
    """Also where a budget leaves the sequences out before a loss sees them."""
    for budget in (None, PairBudget()):
        with pytest.raises(ValueError, match=message):
            AlignmentObjective(losses={"lav": {}}, budget=budget)({"outputs": given})
    with pytest.raises(ValueError, match="model_output must be a batch"):
        AlignmentObjective(losses={"lav": {}})([[torch.ones(5, 4)]])


@pytest.mark.parametrize("given", [None, [[1.0]], torch.ones(5)])
def test_what_is_no_sequence(given: Any) -> None:
    with pytest.raises(ValueError, match=r"embeddings must be \[N_i, D\] tensors"):
        IntraContrastLoss()(given)
    with pytest.raises(ValueError, match="x and y must"):
        SoftDTWLoss()(given, torch.ones(5, 4))


@pytest.mark.parametrize("given", [(torch.ones(5, 4), torch.ones(5, 4, dtype=F64)), (torch.ones(5, 4).long(),) * 2])
def test_soft_dtw_of_mixed_dtypes(given: Any) -> None:
    with pytest.raises(ValueError, match="x and y must share a floating dtype and a device"):
        SoftDTWLoss()(*given)
    with pytest.raises(ValueError, match="x and y must share a floating dtype and a device"):
        SoftDTWLoss()(torch.ones(5, 4), torch.ones(5, 4, device="meta"))
    with pytest.raises(ValueError, match="at least one pair, frame and feature"):
        SoftDTWLoss()(torch.ones(0, 4), torch.ones(5, 4))


@pytest.mark.parametrize("kind", ["one frame", "equal", "constant"])
def test_contrast_and_soft_dtw_of_degenerate_frames(kind: str) -> None:
    x = torch.randn(1 if kind == "one frame" else 20, 3, generator=torch.Generator().manual_seed(0))
    x = (torch.ones_like(x) if kind == "constant" else x).requires_grad_()
    for value in (IntraContrastLoss()(x), SoftDTWLoss()(x, x), SoftDTWLoss(divergence=True)(x, x.detach())):
        assert torch.isfinite(value)
        assert torch.isfinite(torch.autograd.grad(value, x)[0]).all()
    assert SoftDTWLoss(divergence=True)(x, x).item() == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (2, 1, 6)])
def test_plans_of_one_row_or_column(shape: tuple[int, ...]) -> None:
    cost = torch.rand(*shape, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    plan = sinkhorn_plan(cost, 0.5)
    n, m = shape[-2:]
    torch.testing.assert_close(plan, torch.full(shape, 1 / (n * m), dtype=F64))
    assert torch.isfinite(torch.autograd.grad(plan.square().sum(), cost)[0]).all()


@pytest.mark.parametrize(
    ("cost", "kwargs", "message"),
    [
        (torch.ones(0, 3), {}, "cost must be a floating"),
        (torch.ones(2, 3).long(), {}, "cost must be a floating"),
        (torch.ones(2, 3), {"epsilon": 0.0}, "epsilon must be a number greater than 0"),
        (torch.ones(2, 3), {"epsilon": torch.ones(2)}, r"epsilon must be a number or \[1\]"),
        (torch.ones(2, 2, 3), {"row_lengths": [1, 2]}, "must both be given"),
        (torch.ones(2, 2, 3), {"row_lengths": [1, 3], "column_lengths": [1, 1]}, "row_lengths must hold 2 numbers"),
        (torch.ones(1, 2, 3), {"row_lengths": [1], "column_lengths": [1], "row_mass": torch.ones(2)}, "must be None"),
    ],
)
def test_plans_are_checked(cost: torch.Tensor, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sinkhorn_plan(cost, **{"epsilon": 1.0, **kwargs})


def test_contrast_of_a_short_sequence_is_constant() -> None:
    (x,) = sequences(7)
    value = IntraContrastLoss(window=7)(x)
    index = torch.arange(7.0)
    assert value.item() == pytest.approx(2 * ((index[:, None] - index).square() + 1).sum().item())
    assert torch.equal(torch.autograd.grad(value, x)[0], torch.zeros_like(x))


# ----------------------------------------------------------------------------------------------------- padded batches
def padded_batch(given: list[torch.Tensor]) -> tuple[torch.Tensor, list[int]]:
    """NaN behind the lengths, and one frame more than the longest has."""
    batch = torch.nn.utils.rnn.pad_sequence([x.detach() for x in given], batch_first=True, padding_value=torch.nan)
    batch = torch.nn.functional.pad(batch, (0, 0, 0, 1), value=torch.nan)
    return batch.requires_grad_(), [len(x) for x in given]


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize("kind", [list, tuple, torch.tensor])
def test_a_padded_batch_is_the_list(cls: Any, kind: Any) -> None:
    given = sequences(9, 30, 5)
    batch, lengths = padded_batch(given)
    loss, options = quick(cls), {"step": 3} if cls is VAVALoss else {}
    if cls is GTCCLoss:
        options = {"generator": torch.Generator().manual_seed(1)}
    value = loss((batch, kind(lengths)), **options)
    if cls is GTCCLoss:
        options = {"generator": torch.Generator().manual_seed(1)}
    expected = loss(given, **options)
    assert torch.equal(value, expected)
    (gradient,) = torch.autograd.grad(value, batch)
    for x, wanted in zip(gradient, torch.autograd.grad(expected, given), strict=True):
        assert torch.equal(x[: len(wanted)], wanted)
        assert not x[len(wanted) :].any()


def test_the_objective_takes_padded_batches() -> None:
    given = sequences(12, 30, 14)
    batch, lengths = padded_batch(given)
    objective = AlignmentObjective(losses={"tcc": {}, "lav": {}}, budget=PairBudget(limits={"lav": 200}))
    expected = objective({"outputs": given})
    out = objective([{"outputs": (batch, lengths)}])
    assert {name: value.item() for name, value in out.items()} == {name: v.item() for name, v in expected.items()}
    wanted = torch.cat(torch.autograd.grad(expected.loss, given))
    (gradient,) = torch.autograd.grad(out.loss, batch)
    assert torch.equal(torch.cat([x[:n] for x, n in zip(gradient, lengths, strict=True)]), wanted)


@pytest.mark.parametrize("cls", ALL)
@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([5], r"lengths must be 2 integers from 0 to 6 for a batch \[2, 6, 4\], found \[5\]"),
        ([5, 7], r"lengths must be 2 integers.*found \[5, 7\]"),
        ([5, -1], r"lengths must be 2 integers.*found \[5, -1\]"),
        ([5, 4.0], r"lengths must be 2 integers.*found \[5, 4.0\]"),
        (torch.tensor([5.0, 4.0]), r"lengths must be 2 integers"),
        (torch.tensor(5), r"lengths must be 2 integers"),
        (None, r"lengths must be 2 integers.*found None"),
        (torch.ones(2, 6, 4), r"lengths must be 2 integers"),
        ([5, 0], r"at least \d frame\(s\).*\[\[5, 4\], \[0, 4\]\]"),
    ],
)
def test_lengths_of_a_padded_batch_are_checked(cls: Any, lengths: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(cls(), (torch.ones(2, 6, 4), lengths))  # type: ignore[arg-type]  # on purpose


def test_other_tuples_are_no_padded_batches() -> None:
    given = tuple(x.detach() for x in sequences(5, 6))
    assert torch.equal(LAVLoss()(given), LAVLoss()(list(given)))
    for wrong in ((torch.ones(5, 4), [5]), (torch.ones(2, 5, 4),)):
        with pytest.raises(ValueError, match=r"sequences must be \[N_i, D\] tensors"):
            LAVLoss()(wrong)


# ---------------------------------------------------------------------------------------------------------- options
@pytest.mark.parametrize(
    ("cls", "kwargs", "message"),
    [
        (TCCLoss, {"temperature": 0.0}, "temperature must be a number greater than 0, found 0.0"),
        (TCCLoss, {"variance": "frame"}, "variance must be one of 'per_column', 'per_frame'"),
        (IntraContrastLoss, {"window": 0}, "window must be an integer at least 1, found 0"),
        (GTCCLoss, {"window_fraction": 1.2}, "window_fraction must be a number at least 0.05 and at most 1"),
        (GTCCLoss, {"on_failure": "exit"}, "on_failure must be one of"),
        (GTCCLoss, {"fit": "em"}, "fit_objective must be one of 'kl', found 'jeffreys'"),
        (LAVLoss, {"smoothing": -1}, "smoothing must be a number greater than 0"),
        (LAVLoss, {"contrast": {"window": 0}}, "window must be an integer"),
        (VAVALoss, {"epsilon": "rows"}, "epsilon must be one of 'num_rows', 'prior_scaled'"),
        (SoftDTWLoss, {"divergence": True, "open_end": True}, "divergence must be False"),
    ],
)
def test_options_are_checked(cls: Any, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**kwargs)


@pytest.mark.parametrize("cls", [TCCLoss, LAVLoss, VAVALoss, GTCCLoss])
def test_presets(cls: Any) -> None:
    for name in cls.PRESETS:
        given = sequences(8, 11)
        loss = cls.preset(name, **({"fit_steps": 1} if cls is GTCCLoss else {}))
        value = call(loss, given)
        assert torch.isfinite(value)
        # LAV and VAVA have the numbers of the old repository anyway
        same = name == "restored" or (name == "gtcc_repository" and cls in (LAVLoss, VAVALoss))
        assert (value == call(cls(), given)) == same
        assert torch.isfinite(torch.autograd.grad(value, given)[0]).all()
    with pytest.raises(ValueError, match="name must be one of"):
        cls.preset("no such")


def test_paper_variance_of_tcc() -> None:
    """The variance of the weights themselves, written out for one pair."""
    x, y = (s.detach() for s in sequences(6, 9))
    loss = TCCLoss(variance="per_frame", include_self_pairs=False, variance_weight=0.0)
    expected = 0.0
    for a, b in ((x, y), (y, x)):
        alpha = torch.softmax(-torch.cdist(a, b), dim=1)
        beta = torch.softmax(-torch.cdist(alpha @ b, a), dim=1)
        time = torch.arange(len(a), dtype=F64)
        mean = beta @ time
        variance = beta @ time.square() - mean.square()
        expected += ((time - mean).square() / variance).sum().item() / 2
    assert loss([x, y]).item() == pytest.approx(expected, rel=1e-10)


def test_lav_options() -> None:
    given = sequences(9, 20, 18)
    base = LAVLoss()(given)
    assert LAVLoss(pair_reduction="mean")(given).item() == pytest.approx(base.item() / 6)
    contrast = sum(IntraContrastLoss(window=15)(x) for x in given)
    once = LAVLoss(count_contrast="once")(given)
    assert (base - once).item() == pytest.approx(0.01 * 3 * contrast.item())
    same = [given[0].detach(), given[0].detach()]
    assert LAVLoss(divergence=True, contrast_weight=0.0)(same).item() == pytest.approx(0.0, abs=1e-9)


def test_vava_groups_of_any_size_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    given = sequences(9, 9, 7, 28, 2)
    base = VAVALoss()(given, 3)
    monkeypatch.setitem(sequences_module.TABLE_CELLS, "cpu", 1)
    for method in ("kernel", "log"):
        value = VAVALoss(sinkhorn_method=method)(given, 3)
        assert value.item() == pytest.approx(base.item(), rel=1e-12)
        gradients = (torch.autograd.grad(v, given, retain_graph=True) for v in (base, value))
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_vava_own_axis() -> None:
    """With the matches on their own axis, a plan on the diagonal has no optimality cost on it."""
    below = torch.eye(5, dtype=F64)[None] - 1
    column, row = VAVALoss(optimality_scale="own_axis")._match_distance(below, below, (5,), (5,))
    assert torch.equal((column + row)[0].diagonal(), torch.zeros(5, dtype=F64))


# ---------------------------------------------------------------------------------------------------------- the parts
def test_soft_dtw_near_zero_smoothing_is_dtw() -> None:
    generator = torch.Generator().manual_seed(3)
    cost = torch.rand(1, 6, 8, generator=generator, dtype=F64)
    table = torch.full((7, 9), torch.inf, dtype=F64)
    table[0, 0] = 0
    for i in range(6):
        for j in range(8):
            table[i + 1, j + 1] = cost[0, i, j] + min(table[i, j], table[i, j + 1], table[i + 1, j])
    assert soft_dtw(cost, 1e-4).item() == pytest.approx(table[6, 8].item(), abs=1e-3)
    loss = SoftDTWLoss(smoothing=1e-4)
    x = torch.randn(5, 2, generator=generator, dtype=F64)
    value, alignment = loss.alignment(x, x)
    assert value.item() == pytest.approx(0.0, abs=1e-3)
    torch.testing.assert_close(alignment, torch.eye(5, dtype=F64), atol=1e-6, rtol=0)


def test_soft_dtw_gradcheck_with_lengths_and_open_end() -> None:
    cost = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=F64, requires_grad=True)
    for open_end in (False, True):
        assert torch.autograd.gradcheck(
            lambda c, o=open_end: soft_dtw(c, 0.3, lengths_x=[4, 2, 1], lengths_y=[3, 5, 1], open_end=o), cost
        )


def plain_soft_dtw(cost: torch.Tensor, gamma: float, band: int, open_end: bool) -> torch.Tensor:
    """Of one pair, cell by cell, from the formula; the graph is that of every step."""
    rows, columns = cost.shape
    table = {(-1, -1): cost.new_zeros(())}
    for i in range(rows):
        for j in range(columns):
            before = [table[cell] for cell in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if cell in table]
            if abs(i - j) <= band and before:
                table[i, j] = cost[i, j] - gamma * torch.logsumexp(torch.stack(before) / -gamma, dim=0)
    ends = [table[i, columns - 1] for i in range(rows) if (i, columns - 1) in table]
    return torch.stack(ends).min() if open_end else table[rows - 1, columns - 1]


BANDED = [
    ((6, 6), [(6, 6), (3, 3), (1, 1)], 0),
    ((7, 9), [(7, 9), (4, 6), (3, 1)], 2),
    ((9, 5), [(7, 5), (5, 3), (2, 4)], 2),
    ((5, 12), [(5, 8), (1, 4), (5, 2)], 3),
    ((12, 5), [(8, 5), (4, 1), (2, 5)], 3),
    ((4, 6), [(4, 6), (2, 3), (4, 1)], 50),
]


@pytest.mark.parametrize("open_end", [False, True])
@pytest.mark.parametrize(("shape", "lengths", "band"), BANDED, ids=str)
def test_soft_dtw_in_a_band(shape: tuple[int, int], lengths: list[tuple[int, int]], band: int, open_end: bool) -> None:
    """Values and gradients of each pair alone; what lies outside of the band does not count, be it infinite."""
    generator = torch.Generator().manual_seed(band)
    cost = torch.rand(len(lengths), *shape, generator=generator, dtype=F64)
    far = (torch.arange(shape[0])[:, None] - torch.arange(shape[1])).abs() > band
    cost = cost.masked_fill(far, torch.inf).requires_grad_()
    rows, columns = ([pair[side] for pair in lengths] for side in (0, 1))
    value = soft_dtw(cost, 0.3, lengths_x=rows, lengths_y=columns, open_end=open_end, bandwidth=band)
    (gradient,) = torch.autograd.grad(value.sum(), cost)
    assert torch.equal(gradient[:, far], torch.zeros_like(gradient[:, far]))
    for place, (n, m) in enumerate(lengths):
        alone = cost[place, :n, :m].detach().requires_grad_()
        expected = plain_soft_dtw(alone, 0.3, band, open_end)
        torch.testing.assert_close(value[place], expected, rtol=1e-12, atol=1e-12)
        (wanted,) = torch.autograd.grad(expected, alone)
        torch.testing.assert_close(gradient[place, :n, :m], wanted, rtol=1e-10, atol=1e-12)
        assert gradient[place].sum().item() == pytest.approx(wanted.sum().item())


def test_soft_dtw_gradcheck_in_a_band() -> None:
    cost = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=F64, requires_grad=True)
    for open_end in (False, True):
        options: dict[str, Any] = {"lengths_x": [4, 3, 1], "lengths_y": [5, 3, 2], "open_end": open_end}
        assert torch.autograd.gradcheck(lambda c, o=options: soft_dtw(c, 0.3, bandwidth=1, **o), cost)


def test_soft_dtw_loss_in_a_band() -> None:
    """The options reach all three terms of the divergence, and the alignment; a wide band is none."""
    x, y = (torch.stack(sequences(n, n, seed=n)).detach() for n in (7, 9))
    narrow, wide = SoftDTWLoss(bandwidth=2), SoftDTWLoss(bandwidth=8)
    assert torch.equal(wide(x, y), SoftDTWLoss()(x, y))
    assert (narrow(x, y) > wide(x, y)).all()
    expected = narrow(x, y) - 0.5 * (narrow(x, x) + narrow(y, y))
    torch.testing.assert_close(SoftDTWLoss(bandwidth=2, divergence=True)(x, y), expected, rtol=1e-12, atol=1e-12)
    value, alignment = narrow.alignment(x, y)
    assert torch.equal(value, narrow(x, y))
    assert not alignment[:, (torch.arange(7)[:, None] - torch.arange(9)).abs() > 2].any()
    assert torch.equal(SoftDTWLoss(bandwidth=0)(x, x, [3, 7], [3, 7]), torch.zeros(2, dtype=F64))


@pytest.mark.parametrize("bandwidth", [-1, 1.5, "2"])
def test_soft_dtw_checks_its_bandwidth(bandwidth: Any) -> None:
    with pytest.raises(ValueError, match=f"bandwidth must be an integer at least 0, found {bandwidth!r}"):
        SoftDTWLoss(bandwidth=bandwidth)
    with pytest.raises(ValueError, match=r"bandwidth must be None or an integer at least 0.*found"):
        soft_dtw(torch.ones(1, 3, 3), bandwidth=bandwidth)


def test_soft_dtw_needs_a_band_that_reaches_the_end() -> None:
    cost = torch.ones(2, 5, 8)
    message = r"bandwidth must be None or an integer at least 3.*lengths \[5, 2\] and \[8, 3\].*found 2"
    for open_end in (False, True):
        with pytest.raises(ValueError, match=message):
            soft_dtw(cost, lengths_x=[5, 2], lengths_y=[8, 3], bandwidth=2, open_end=open_end)
    # of the first pair only the open end lies in the band
    assert torch.isfinite(soft_dtw(cost, lengths_x=[5, 5], lengths_y=[1, 7], bandwidth=2, open_end=True)).all()
    with pytest.raises(ValueError, match="bandwidth must be None or an integer at least 4"):
        SoftDTWLoss(bandwidth=2)(*(s.detach() for s in sequences(5, 1)))
    with pytest.raises(ValueError, match="gamma must be greater than 0, found 0"):
        soft_dtw(cost, 0.0)


def test_soft_dtw_of_padded_pairs_is_that_of_each() -> None:
    x, y = (torch.stack(sequences(n, n, seed=n)).detach() for n in (7, 9))
    loss = SoftDTWLoss(smoothing=0.5, divergence=True, normalize_by_length=True)
    batch = loss(x, y, [7, 3], [2, 9])
    assert batch[0].item() == pytest.approx(loss(x[0], y[0, :2]).item())
    assert batch[1].item() == pytest.approx(loss(x[1, :3], y[1]).item())


@pytest.mark.parametrize("method", ["kernel", "log"])
@pytest.mark.parametrize("epsilon", [0.02, 0.3, 20.0])
def test_padded_plans_are_those_of_pot(method: str, epsilon: float) -> None:
    """Of each pair alone, by ``ot.sinkhorn``: plans, and gradients through all iterations."""
    ot = importlib.import_module("ot")
    generator = torch.Generator().manual_seed(0)
    cost = torch.rand(4, 6, 7, generator=generator, dtype=F64, requires_grad=True)
    weight = torch.rand(4, 6, 7, generator=generator, dtype=F64)
    rows, columns = [6, 2, 5, 1], [7, 4, 1, 3]
    scale = epsilon * torch.arange(1.0, 5.0, dtype=F64)
    plans = sinkhorn_plan(cost, scale, num_iters=13, row_lengths=rows, column_lengths=columns, method=method)
    (gradient,) = torch.autograd.grad((plans * weight).sum(), cost)
    for place, (n, m) in enumerate(zip(rows, columns, strict=True)):
        alone = cost[place, :n, :m].detach().requires_grad_()
        a, b = (torch.full((k,), 1 / k, dtype=F64) for k in (n, m))
        options = {"method": "sinkhorn_log", "numItermax": 13, "stopThr": 0.0, "warn": False}
        plan = ot.sinkhorn(a, b, alone, scale[place].item(), **options)
        torch.testing.assert_close(plans[place, :n, :m], plan, rtol=1e-12, atol=1e-15)
        (expected,) = torch.autograd.grad((plan * weight[place, :n, :m]).sum(), alone)
        torch.testing.assert_close(gradient[place, :n, :m], expected, rtol=1e-9, atol=1e-12)
        assert plans[place].sum().item() == pytest.approx(1.0)
        assert not gradient[place, n:].any()
        assert not gradient[place, :, m:].any()


def test_sinkhorn_gradient_by_finite_differences() -> None:
    cost = torch.rand(4, 5, generator=torch.Generator().manual_seed(0), dtype=F64, requires_grad=True)
    for method in ("kernel", "log"):
        assert torch.autograd.gradcheck(lambda c, m=method: sinkhorn_plan(c, 0.3, num_iters=4, method=m), cost)


def test_sinkhorn_in_the_log_domain_where_the_kernel_vanishes() -> None:
    cost = 1e4 * torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    plan = sinkhorn_plan(cost, 1.0)
    assert torch.isfinite(plan).all()
    torch.testing.assert_close(plan.sum(dim=1), torch.full((4,), 0.25), rtol=0, atol=1e-4)


def test_sinkhorn_with_given_masses() -> None:
    cost = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    rows, columns = torch.tensor([0.5, 0.25, 0.25], dtype=F64), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64)
    plan = sinkhorn_plan(cost, 0.5, num_iters=100, row_mass=rows, column_mass=columns)
    torch.testing.assert_close(plan.sum(dim=1), rows)
    torch.testing.assert_close(plan.sum(dim=0), columns)
    with pytest.raises(ValueError, match=r"row_mass must be \[3\]"):
        sinkhorn_plan(cost, 0.5, row_mass=columns)


def test_envelope_gradient_is_the_plan() -> None:
    cost = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=F64, requires_grad=True)
    plan = sinkhorn_plan(cost, 0.5)
    torch.testing.assert_close(torch.autograd.grad(transport_cost(plan, cost), cost)[0], plan.detach())


def test_without_pot(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, *args: Any) -> Any:
        if name == "ot":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(ImportError, match=r"pip install 'training-losses\[alignment\]'"):
        VAVALoss()
    assert TCCLoss().temperature == 1.0


@pytest.mark.parametrize("components", [1, 3, 5])
@pytest.mark.parametrize("method", ["quasi_newton", "em"])
def test_mixture_fits(components: int, method: str) -> None:
    index = torch.arange(40, dtype=F64)
    rows = torch.stack([torch.exp(-(index - c).square() / (2 * 9.0)) for c in (8.0, 15.5, 30.0)])
    histograms = rows / rows.sum(dim=1, keepdim=True)
    bells, weights = fit_histogram_mixture(histograms, components, steps=60, objective="kl", method=method)
    mixture = torch.einsum("rk,rkn->rn", weights, bells)
    assert (mixture - histograms).abs().sum(dim=1).max() < 0.15
    torch.testing.assert_close(bells.sum(dim=2), torch.ones(3, components, dtype=F64))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3, dtype=F64))


def test_em_takes_moments() -> None:
    """One component after one round: mean and variance of the histogram itself."""
    p = torch.softmax(torch.randn(1, 30, generator=torch.Generator().manual_seed(2), dtype=F64), dim=1)
    index = torch.arange(30, dtype=F64)
    mean = (p * index).sum()
    variance = (p * (index - mean).square()).sum()
    (bell,), _ = fit_histogram_mixture(p, 1, steps=1, objective="kl", method="em")
    torch.testing.assert_close(bell[0], torch.softmax(-(index - mean).square() / (2 * variance), dim=0))


def test_em_comes_closer_with_each_round() -> None:
    p = torch.softmax(torch.randn(6, 50, generator=torch.Generator().manual_seed(2), dtype=F64).cumsum(1), dim=1)
    far = []
    for steps in (1, 4, 16, 64):
        bells, weights = fit_histogram_mixture(p, 3, steps=steps, objective="kl", method="em")
        far.append((p * (p / torch.einsum("rk,rkn->rn", weights, bells)).log()).sum().item())
    assert far == sorted(far, reverse=True)
    assert far[-1] < 0.8 * far[0]
    with pytest.raises(ValueError, match="objective must be 'kl' with method='em', found 'jeffreys'"):
        fit_histogram_mixture(p, 3, method="em")
    failed = fit_histogram_mixture(torch.full((1, 9), torch.nan), 2, objective="kl", method="em")
    assert all(part.isnan().all() for part in failed)


@pytest.mark.parametrize("method", ["quasi_newton", "em"])
def test_mixture_of_padded_rows_is_that_of_each(method: str) -> None:
    p = torch.softmax(torch.randn(2, 12, generator=torch.Generator().manual_seed(0), dtype=F64), dim=1)
    p[1, 7:] = 0
    p[1] /= p[1].sum()
    options: dict[str, Any] = {"objective": "kl", "method": method}
    bells, weights = fit_histogram_mixture(p, 2, lengths=torch.tensor([12, 7]), **options)
    alone, alone_weights = fit_histogram_mixture(p[1:, :7], 2, **options)
    torch.testing.assert_close(bells[1:, :, :7], alone)
    torch.testing.assert_close(weights[1:], alone_weights)


# ----------------------------------------------------------------------------------------------------------- memory
class _Largest(TorchDispatchMode):
    """How many elements the largest tensor holds in memory that an operation returns."""

    found = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, torch.Tensor):
                self.found = max(self.found, each.untyped_storage().nbytes() // each.element_size())
        return made


@pytest.mark.parametrize("cls", [TCCLoss, LAVLoss, VAVALoss, GTCCLoss, SoftDTWLoss, IntraContrastLoss])
def test_no_table_has_features(cls: Any) -> None:
    """Forward and backward, of nine pairs of sequences, no tensor has ``N x M x D`` elements."""
    frames, width = 31, 512
    given = [torch.randn(frames, width, generator=torch.Generator().manual_seed(i)).requires_grad_() for i in range(3)]
    with _Largest() as largest:
        if cls is SoftDTWLoss:
            cls()(given[0], given[1]).backward()
        elif cls is IntraContrastLoss:
            cls()(given[0]).backward()
        else:
            call(quick(cls), given).backward()
    assert frames * frames <= largest.found < frames * frames * width / 4


def test_constants_are_kept_without_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made once per lengths, dtype and device; an old set goes when there are too many."""
    monkeypatch.setattr(sequences_module, "_CACHE", {})
    made = []

    def build(size: int) -> torch.Tensor:
        made.append(size)
        return torch.arange(size) * torch.ones((), requires_grad=True)

    like = torch.ones(1, dtype=F64)
    first, again = (sequences_module.cached(build, 5, like=like) for _ in range(2))
    assert first is again
    assert first.dtype == F64
    assert not first.requires_grad
    assert sequences_module.cached(build, 5, like=like.float()).dtype == torch.float32
    assert made == [5, 5]
    monkeypatch.setattr(sequences_module, "_CACHE_CELLS", 12)
    sequences_module.cached(build, 7, like=like)
    sequences_module.cached(build, 5, like=like)
    assert made == [5, 5, 7, 5][: len(made)]
    assert sum(each.numel() for each in sequences_module._CACHE.values()) <= 12


@pytest.mark.parametrize("cls", [TCCLoss, LAVLoss, VAVALoss, IntraContrastLoss])
def test_lengths_that_come_again_find_their_constants(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences_module, "_CACHE", {})
    given = sequences(9, 12)
    sizes = []
    for scale in (1.0, 2.0):
        scaled = [scale * x for x in given]
        _ = cls()(scaled[0]) if cls is IntraContrastLoss else call(cls(), scaled)
        sizes.append(list(sequences_module._CACHE))
    assert sizes[0]
    assert sizes[0] == sizes[1]


# ------------------------------------------------------------------------------------------------------------- GTCC
def test_gtcc_continues_its_draws() -> None:
    given = sequences(25, 24)
    first, second = GTCCLoss(seed=4, fit_steps=1), GTCCLoss(seed=4, fit_steps=1)
    a = [first(given).item() for _ in range(3)]
    assert len(set(a)) == 3
    second.load_state_dict({"_extra_state": {"calls": 2}})
    assert second(given).item() == a[2]


def test_gtcc_failures_are_errors() -> None:
    given = [x.detach() for x in sequences(21, 22)]
    given[0][3, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="mixture fit"):
        GTCCLoss()(given)


def test_gtcc_skips_what_fails() -> None:
    given = sequences(21, 22, 23)
    with torch.no_grad():
        given[0][3, 0] = torch.nan
    loss = GTCCLoss(on_failure="skip", fit_steps=1)
    value = loss(given)
    assert torch.isfinite(value)
    assert value > 0
    gradients = torch.autograd.grad(value, given)
    assert all(torch.isfinite(g).all() for g in gradients)
    assert gradients[1].any()


def test_vava_checks_a_function_of_epsilon() -> None:
    with pytest.raises(ValueError, match="epsilon must be a number greater than 0, found 0"):
        VAVALoss(epsilon=lambda n, m: 0.0)(sequences(5, 6), 1)
    assert torch.isfinite(VAVALoss(epsilon=lambda n, m: 0.1 * n)(sequences(5, 6), 1))


def test_gradients_under_autocast_are_those_without() -> None:
    for cls in (TCCLoss, VAVALoss, LAVLoss):
        given = sequences(30, 28, dtype=torch.float32)
        expected = torch.autograd.grad(call(cls(), given), given)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = call(cls(), given)
        for a, b in zip(torch.autograd.grad(value, given), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())


def test_gtcc_drop_vectors() -> None:
    given = sequences(22, 23)
    loss = GTCCLoss(keep_floor_decay=0.5, fit_steps=1)
    with pytest.raises(ValueError, match=r"drop_vectors must be 2 tensors \[5\]"):
        loss(given)
    drops = [torch.zeros(5, dtype=F64, requires_grad=True) for _ in given]
    value = loss(given, drops, 2)
    assert torch.isfinite(value)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(value, [*given, *drops]))


# ------------------------------------------------------------------------------------------------ objective, budget
def test_objective_weighs_and_names() -> None:
    given = sequences(12, 14, dtype=torch.float32)
    objective = AlignmentObjective(losses={"tcc": {"temperature": 0.5}, "lav": LAVLoss()}, weights={"lav": 0.25})
    out = objective([{"outputs": given}, {"outputs": given[:1]}])
    assert list(out) == ["loss", "tcc", "lav"]
    assert out["tcc"].item() == pytest.approx(TCCLoss(temperature=0.5)(given).item())
    assert out.loss.item() == pytest.approx(out["tcc"].item() + 0.25 * out["lav"].item())
    assert not out["lav"].requires_grad
    out.loss.backward()


def test_objective_of_presets() -> None:
    """With the numbers that the old repository trained with."""
    objective = AlignmentObjective(losses=dict.fromkeys(("tcc", "gtcc", "lav", "vava"), "gtcc_repository"))
    tcc, gtcc, lav, vava = objective.losses.values()
    assert (tcc.temperature, tcc.variance_weight, lav.smoothing, vava.contrast_weight) == (0.1, 0.001, 0.1, 0.5)
    assert (gtcc.temperature, gtcc.num_components, gtcc.window_fraction, gtcc.keep_floor_decay) == (0.1, 15, 0.2, 0.95)
    with pytest.raises(ValueError, match="name must be one of 'paper', 'gtcc_repository', found 'papers'"):
        AlignmentObjective(losses={"tcc": "papers"})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"losses": {}}, "losses must have modules, or names among"),
        ({"losses": {"dtw": {}}}, "losses must have modules, or names among"),
        ({"losses": {"tcc": {}}, "weights": {"lav": 1.0}}, "weights must be one of 'tcc'"),
    ],
)
def test_objective_checks(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AlignmentObjective(**kwargs)


def test_objective_steps() -> None:
    given = {"outputs": sequences(12, 14)}
    by_step = AlignmentObjective(losses={"vava": {}}, step_source="step")
    with pytest.raises(ValueError, match="step must be given"):
        by_step(given, 3)
    assert by_step(given, 3, 700).loss.item() == pytest.approx(VAVALoss()(given["outputs"], 700).item())
    by_epoch = AlignmentObjective(losses={"vava": {}})
    assert by_epoch(given, 3, 700).loss.item() == pytest.approx(VAVALoss()(given["outputs"], 3).item())


def test_objective_of_an_old_configuration() -> None:
    config = SimpleNamespace(
        LOSS_TYPE={"tcc": True, "GTCC": False, "LAV": True, "VAVA": False},
        TCC_ORIGINAL_PARAMS={"softmax_temp": 0.1, "alignment_variance": 0.001},
        LAV_PARAMS={"min_temp": 0.1},
    )
    objective = objective_from_config(config)
    assert list(objective.losses) == ["tcc", "lav"]
    assert objective.losses["tcc"].temperature == 0.1
    config.LAV_PARAMS = {"temperature": 1}
    with pytest.raises(ValueError, match="LAV_PARAMS must be one of 'min_temp', 'cr_coefficient', found 'temperature'"):
        objective_from_config(config)


def test_budget(caplog: pytest.LogCaptureFixture) -> None:
    budget = PairBudget(limits={"lav": 600}, min_length=10)
    with caplog.at_level(logging.WARNING):
        assert budget.keep("lav", [20, 30, 9, 40]) == [0, 1]
    assert "sequences [2, 3] of lengths [9, 40]" in caplog.text
    assert budget.keep("tcc", [20, 30, 11]) == [0, 1, 2]
    assert budget.skipped == {"lav": 2}
    assert budget.keep("lav", [25, 25]) == []
    assert PairBudget().limits == {"lav": 3_000_000, "gtcc": 8_000_000, "tcc": 8_000_000, "vava": 6_000_000}
    with pytest.raises(ValueError, match="outside the budget"):
        PairBudget(on_exceed="raise").keep("lav", [3, 30])


def test_objective_with_a_budget() -> None:
    given = sequences(12, 14, 40)
    objective = AlignmentObjective(losses={"tcc": {}, "lav": {}}, budget=PairBudget(limits={"lav": 200}))
    out = objective({"outputs": given})
    assert out["lav"].item() == pytest.approx(LAVLoss()(given[:2]).item())
    assert out["tcc"].item() == pytest.approx(TCCLoss()(given).item())
    none_left = AlignmentObjective(losses={"lav": {}}, budget=PairBudget(limits={"lav": 1}))({"outputs": given})
    assert none_left.loss.item() == 0.0
    none_left.loss.backward()


@pytest.mark.parametrize(
    ("lengths", "limit", "expected", "thinned"),
    [
        ([20, 30, 9, 40], 600, {0: 20, 1: 24, 3: 24}, 2),  # both of the longest
        ([12, 11, 100], 600, {0: 12, 1: 11, 2: 50}, 1),  # the longest one alone
        ([20, 30], 600, {0: 20, 1: 30}, 0),
        ([25, 25], 600, {0: 24, 1: 24}, 2),
        ([40], 600, {0: 24}, 1),
        ([20, 30, 10], 99, {}, 0),  # ten frames do not fit
        ([3], 600, {}, 0),
        ([], 600, {}, 0),
    ],
)
def test_budget_that_subsamples(
    lengths: list[int], limit: int, expected: dict[int, int], thinned: int, caplog: pytest.LogCaptureFixture
) -> None:
    budget = PairBudget(limits={"lav": limit}, min_length=10, on_exceed="subsample")
    with caplog.at_level(logging.WARNING):
        assert budget.frames("lav", lengths) == expected
    assert budget.subsampled["lav"] == thinned
    assert budget.skipped["lav"] == len(lengths) - len(expected)
    assert ("subsampled: lav: sequences" in caplog.text) == (thinned > 0)
    assert budget.keep("lav", lengths) == list(expected)


def test_budgets_that_subsample_always_fit() -> None:
    for first in range(10, 60, 7):
        for second in range(10, 60, 3):
            kept = PairBudget(limits={"lav": 400}, on_exceed="subsample").frames("lav", [first, second, 11])
            # the largest cut, by trying, after which the two longest fit
            cuts = ([min(n, most) for n in (first, second, 11)] for most in range(60, 0, -1))
            assert list(kept.values()) == next(cut for cut in cuts if sorted(cut)[1] * sorted(cut)[2] <= 400)


def test_objective_with_a_budget_that_subsamples() -> None:
    given = sequences(12, 41)
    budget = PairBudget(limits={"lav": 12 * 21}, on_exceed="subsample")
    value = AlignmentObjective(losses={"lav": {}}, budget=budget)({"outputs": given}).loss
    expected = LAVLoss()([given[0], given[1][::2]])
    assert value.item() == expected.item()
    for gradient, wanted in zip(*(torch.autograd.grad(v, given) for v in (value, expected)), strict=True):
        assert torch.equal(gradient, wanted)
    with pytest.raises(ValueError, match="on_exceed must be one of 'skip', 'raise', 'subsample', found 'crop'"):
        PairBudget(on_exceed="crop")


class _Signed(torch.nn.Module):
    """A loss of either sign."""

    def forward(self, given: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack([x.sum() for x in given]).sum()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_objective_leaves_large_results_out(sign: float, caplog: pytest.LogCaptureFixture) -> None:
    """By their absolute value: the old rule let large negative ones pass."""
    given = [torch.full((3, 2), sign, dtype=F64, requires_grad=True) for _ in range(2)]
    objective = AlignmentObjective(losses={"sum": _Signed()}, weights={"sum": 10.0}, max_abs_loss=120.0)
    out = objective({"outputs": given})
    assert out.loss.item() == 120.0 * sign
    assert objective.left_out == 0
    with caplog.at_level(logging.WARNING):
        out = objective({"outputs": [2 * x for x in given]})
    assert f"left out: the loss is {240 * sign:g}, with max_abs_loss=120" in caplog.text
    assert objective.left_out == 1
    assert out.loss.item() == 0.0
    assert out["sum"].item() == 24.0 * sign
    assert all(torch.equal(g, torch.zeros_like(g)) for g in torch.autograd.grad(out.loss, given))
    assert AlignmentObjective(losses={"sum": _Signed()})({"outputs": [1e9 * x for x in given]}).loss != 0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_objective_with_a_limit_refuses_what_is_not_finite(bad: float) -> None:
    """Before it looks at the size: an infinite loss is no large batch."""
    given = [torch.full((3, 2), bad)] * 2
    with pytest.raises(FloatingPointError, match="the loss is not finite"):
        AlignmentObjective(losses={"sum": _Signed()}, max_abs_loss=1e7)({"outputs": given})
    assert not torch.isfinite(AlignmentObjective(losses={"sum": _Signed()})({"outputs": given}).loss)
    for limit in (0.0, -1.0, torch.inf, "1e7"):
        with pytest.raises(ValueError, match="max_abs_loss must be a number greater than 0"):
            AlignmentObjective(losses={"lav": {}}, max_abs_loss=limit)  # type: ignore[arg-type]  # on purpose
