"""The restored semantics of the alignment losses: new against recorded answers and twins, in float64 throughout.

``tools/mutants_alignment.py`` puts the documented bugs (and more) back and must see this file fail.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.support.golden import Case, load_cases
from tests.support.harness_alignment import bug_in, gtcc_given
from tests.support.twins import twin, twin_module
from training_losses.alignment import (
    GTCCLoss,
    SoftDTWLoss,
    VAVALoss,
    gtcc_loss,
    intra_contrast,
    lav_loss,
    objective_from_config,
    sinkhorn_plan,
    tcc_loss,
    vava_loss,
)
from training_losses.functional import soft_dtw
from training_losses.migration.catalog import Symbol, builtin_catalog
from training_losses.migration.parity import compare_function, deviation
from training_losses.migration.translate import translate

NEW = {"TCC_loss": tcc_loss, "IntraContrast_loss": intra_contrast, "LAV_loss": lav_loss, "VAVA_loss": vava_loss}
ROWS: dict[str, Symbol] = {s.old.partition(".")[2]: s for s in builtin_catalog().symbols if s.system == "alignment"}
CASES = load_cases("alignment", "loss_functions")
LENGTHS = [(7, 12), (26, 34), (20, 31, 9), (18, 27, 30, 23), (40, 5), (25, 3, 18), (20, 7, 16, 25)]


@pytest.fixture(autouse=True)
def everything_in_float64() -> Iterator[None]:
    """As the recorded double precision cases: constants of the twins are float64 as well."""
    name = torch.float
    torch.set_default_dtype(torch.float64)
    torch.float = torch.float64
    yield
    torch.float = name
    torch.set_default_dtype(torch.float32)


def recorded(*symbols: str, variant: str = "restored", harness: str | None = None) -> list[Case]:
    """Float64 cases with an answer that is a tensor and not NaN."""
    found = []
    for case in CASES:
        (call, *_) = case.calls
        fits = case.symbol in symbols and case.data["variant"] == variant and case.data.get("harness") == harness
        if fits and case.data["dtype"] == "float64" and isinstance(call.get("returns"), dict):
            exact = case.data.get("default_dtype") or case.symbol == "IntraContrast_loss"
            found += [case] if exact else []
    return found


def leaves(value: Any) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else list(value)


def answer(function: Any, case: Case, **more: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Value and gradients on the inputs of a case, with its arguments under their new names."""
    (call, *_) = case.calls
    args, kwargs = case.decode(call.get("args", [])), case.decode(call.get("kwargs", {}))
    for leaf in leaves(args[0]):
        leaf.requires_grad_()
    _, given = translate(ROWS[case.symbol], args, kwargs)
    value = function(**given, **more)
    return value, list(torch.autograd.grad(value.sum(), leaves(args[0])))


def record_of(case: Case) -> tuple[torch.Tensor, list[torch.Tensor]]:
    (call, *_) = case.calls
    grads = [g for name, g in call["grads"].items() if name.startswith("args.0")]
    return case.decode(call["returns"]), [case.decode(g) for g in grads]


def distance(a: tuple[torch.Tensor, list[torch.Tensor]], b: tuple[torch.Tensor, list[torch.Tensor]]) -> list[float]:
    gradients = [deviation(x, y, gradient=True) for x, y in zip(a[1], b[1], strict=True)]
    return [deviation(a[0].reshape(()), b[0].reshape(())), max(gradients)]


@pytest.mark.parametrize("case", recorded(*NEW), ids=lambda c: c.id)
def test_meets_the_recorded_answers(case: Case) -> None:
    value, gradient = distance(answer(NEW[case.symbol], case), record_of(case))
    noise = 0.0
    if "long_mm" in case.data["case"]:
        # the record has self distances by a matrix product: the square is off by 4 eps |x|^2 (three sums, one rounding
        # each, and their difference), the distance by the root of it, and a softmax weight by as much of itself
        (sequences, *_) = case.decode(case.calls[0]["args"])
        noise = 2 * (torch.finfo(torch.float64).eps ** 0.5) * max(float(x.norm(dim=1).max()) for x in sequences)
    assert value < max(noise, 1e-10)
    assert gradient < max(noise, 1e-10)


def made(lengths: tuple[int, ...], seed: int, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(n, 5, generator=generator) for n in lengths]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(
    ("symbol", "kwargs"),
    [
        ("TCC_loss", {}),
        ("TCC_loss", {"alignment_variance": 0.7, "softmax_temp": 0.4}),
        ("LAV_loss", {}),
        ("LAV_loss", {"min_temp": 1.0, "cr_coefficient": 0.5}),
        ("VAVA_loss", {"global_step": 0}),
        ("VAVA_loss", {"global_step": 777, "maxIter": 7, "zeta": 1.5, "delta": 1.1, "gamma": 0.2}),
    ],
)
def test_agrees_with_the_twin(symbol: str, kwargs: dict[str, Any], lengths: tuple[int, ...]) -> None:
    comparison = compare_function(ROWS[symbol], sequences=made(lengths, 3 + len(lengths)), **kwargs)
    assert comparison.values["loss"] < 1e-10
    assert len(comparison.gradients) == len(lengths)
    # self distances within a sequence of more than 25 frames are rounding noise in the old code
    noisy = symbol == "TCC_loss" and max(lengths) > 25
    assert max(comparison.gradients.values()) < (1e-7 if noisy else 1e-10)


def test_sharp_vava_plans_that_do_not_converge() -> None:
    comparison = compare_function(ROWS["VAVA_loss"], sequences=made((4, 9, 6), 1, scale=6.0), global_step=40, maxIter=4)
    assert comparison.failures(torch.float64) == []


@pytest.mark.parametrize("case", recorded("VAVA_loss", variant="original"), ids=lambda c: c.id)
def test_preset_of_the_first_authors(case: Case) -> None:
    def first(sequences: Any, step: int, **options: float) -> torch.Tensor:
        return VAVALoss.preset("gtcc_authors", **options)(sequences, step)

    assert max(distance(answer(first, case), record_of(case))) < 1e-10


@pytest.mark.parametrize("case", [c for c in CASES if c.symbol == "VAVA_loss_terms"], ids=lambda c: c.id)
def test_terms_of_vava(case: Case) -> None:
    (call, *_) = case.calls
    args, kwargs = case.decode(call["args"]), case.decode(call.get("kwargs", {}))
    _, given = translate(ROWS["VAVA_loss"], args, kwargs)
    sequences, step = given.pop("sequences"), given.pop("step")
    terms = VAVALoss(**given).terms(sequences, step)
    names = {"phi": "phi", "l1": "structure_weight", "l2": "prior_weight", "D": "cost", "T": "plan", "P": "prior"}
    names |= {"dist": "transport", "I_T": "structure", "KL_T_P": "divergence", "vava_loss": "core"}
    names |= {"C_XY": "cross_contrast"}
    for want, got in zip(case.decode(call["returns"]), terms, strict=True):
        for old, new in names.items():
            assert deviation(getattr(got, new), want[old]) < 1e-10, old


def chosen(extra: dict[str, Any]) -> dict[str, Any]:
    """Recorded draws and fits as arguments of the new loss."""
    frames = [torch.sort(p[:20]).values for p in extra["perms"]]
    mixtures = list(zip(extra["gaussians"], extra["weights"], strict=True))
    return {"sampled_frames": frames, "window_sides": extra["choices"], "mixtures": mixtures}


@pytest.mark.parametrize("case", recorded("GTCC_loss", harness="gtcc_given"), ids=lambda c: c.id)
def test_gtcc_with_given_draws_and_fits(case: Case) -> None:
    (call, *_) = case.calls
    sequences, kwargs = case.decode(call["args"])[0], case.decode(call.get("kwargs", {}))
    drops = kwargs.get("dropouts") or []
    for leaf in [*sequences, *drops]:
        leaf.requires_grad_()
    _, given = translate(ROWS["GTCC_loss"], (sequences,), kwargs)
    forward = {name: given.pop(name) for name in ("sequences", "drop_vectors", "epoch") if name in given}
    value = GTCCLoss(**given)(**forward, **chosen(case.decode(call["args"])[1]))
    found = torch.autograd.grad(value, [*sequences, *drops], allow_unused=True)
    wanted = [None if g is None else case.decode(g) for g in call["grads"].values()]
    assert deviation(value, case.decode(call["returns"])) < 1e-10
    for got, want in zip(found, wanted, strict=True):
        reference = want if want is not None else torch.zeros(()) if got is None else torch.zeros_like(got)
        assert deviation(reference if got is None else got, reference, gradient=True) < 1e-10


@pytest.mark.parametrize("lengths", [(24, 21), (21, 34, 26), (26, 21, 34, 23)], ids=str)
def test_gtcc_agrees_with_the_twin(lengths: tuple[int, ...]) -> None:
    """Draws and mixtures of its own for every sequence and pair, the same for both."""
    module = twin_module("alignment.loss_functions")
    generator = torch.Generator().manual_seed(len(lengths))
    sequences, drops = made(lengths, 11), [torch.randn(6, generator=generator) for _ in lengths]
    pairs = [m for i in range(len(lengths)) for j, m in enumerate(lengths) if i != j]
    extra = {
        "perms": [torch.randperm(n, generator=generator) for n in lengths],
        "choices": [i % 2 for i in range(len(lengths))],
        "gaussians": [torch.randn(20, 2, m, generator=generator).mul(3).softmax(dim=2) for m in pairs],
        "weights": [torch.randn(20, 2, generator=generator).softmax(dim=1) for _ in pairs],
    }
    leaves = [x.requires_grad_() for x in [*sequences, *drops]]
    options = {"n_components": 2, "gamma": 0.5, "delta": 0.3, "softmax_temp": 0.7, "alignment_variance": 0.1}
    twin_run: Any = SimpleNamespace(symbol=module.GTCC_loss, module=module)
    old = gtcc_given(twin_run, sequences, extra, dropouts=drops, epoch=1, **options)
    _, given = translate(ROWS["GTCC_loss"], (sequences,), options)
    given.pop("sequences")
    new = GTCCLoss(**given)(sequences, drops, 1, **chosen(extra))
    grads = [list(torch.autograd.grad(value, leaves)) for value in (new, old)]
    assert max(distance((new, grads[0]), (old, grads[1]))) < 1e-10


BUGS = ["mean", "nograd", "half_cx_cy", "no_cxy", "reg_l2", "div_nm"]


@pytest.mark.parametrize("bug", BUGS)
def test_no_documented_bug_is_back(bug: str) -> None:
    """The new losses lie far from the answers that were recorded with the bug, in value or gradient."""
    cases = list(recorded("LAV_loss", "VAVA_loss", variant="broken_only", harness="one_bug"))
    cases = [c for c in cases if c.data["options"]["bug"] == bug]
    assert cases
    for case in cases:
        assert max(distance(answer(NEW[case.symbol], case), record_of(case))) > 1e-7


def test_bugs_in_the_twin_move_it_away() -> None:
    """The comparison would notice: the twin with a bug no longer agrees (LAV without graph keeps its value)."""
    module = twin_module("alignment.loss_functions")
    sequences = [x.requires_grad_() for x in made((19, 23), 5)]
    new = lav_loss(sequences)
    grads = list(torch.autograd.grad(new, sequences))
    with bug_in(module, "nograd"):
        old = module.LAV_loss(sequences)
        value, gradient = distance((new, grads), (old, list(torch.autograd.grad(old, sequences))))
    assert value < 1e-10
    assert gradient > 0.1


@pytest.mark.parametrize("epsilon", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("method", ["auto", "log"])
def test_plans(epsilon: float, method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    cost, weight = (torch.rand(6, 9, generator=generator) for _ in range(2))
    cost.requires_grad_()
    _, old = twin("alignment.ot_pytorch.sink")(cost, epsilon, numItermax=11)
    new = sinkhorn_plan(cost, epsilon, num_iters=11, method=method)
    assert deviation(new, old) < 1e-12
    grads = [torch.autograd.grad((plan * weight).sum(), cost)[0] for plan in (new, old)]
    assert deviation(*grads, gradient=True) < 1e-12
    batched = sinkhorn_plan(cost.detach().expand(3, -1, -1), epsilon, num_iters=11)
    assert deviation(batched[1], old) < 1e-12


@pytest.mark.parametrize("kwargs", [{}, {"gamma": 0.1}, {"gamma": 0.01}, {"normalize": True}], ids=str)
def test_soft_dtw(kwargs: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.randn(3, n, 4, generator=generator, requires_grad=True) for n in (9, 14))
    renamed = {{"gamma": "smoothing", "normalize": "divergence"}[name]: v for name, v in kwargs.items()}
    old, new = twin("alignment.softdtw.SoftDTW")(**kwargs)(x, y), SoftDTWLoss(**renamed)(x, y)
    assert deviation(new, old) < 1e-12
    weight = torch.tensor([1.0, -2.0, 0.5])
    for a, b in zip(*(torch.autograd.grad((v * weight).sum(), (x, y)) for v in (new, old)), strict=True):
        assert deviation(a, b, gradient=True) < 1e-10


@pytest.mark.parametrize(("columns", "bandwidth"), [(9, 0), (9, 1), (14, 5), (6, 4)])
def test_soft_dtw_in_a_band(columns: int, bandwidth: int) -> None:
    """The twin has no band: there the cells outside of it get a cost that no path can bear."""
    generator = torch.Generator().manual_seed(3)
    cost = torch.rand(3, 9, columns, generator=generator, requires_grad=True)
    far = (torch.arange(9)[:, None] - torch.arange(columns)).abs() > bandwidth
    old = twin("alignment.softdtw.SoftDTW")().func_dtw(cost.masked_fill(far, 1e5), 0.1)
    new = soft_dtw(cost, 0.1, bandwidth=bandwidth)
    assert deviation(new, old) < 1e-12
    weight = torch.tensor([1.0, -2.0, 0.5])
    grads = [torch.autograd.grad((value * weight).sum(), cost)[0] for value in (new, old)]
    assert deviation(*grads, gradient=True) < 1e-10


def test_objective_of_an_old_configuration() -> None:
    """Two batches, and one of a single sequence, which counts nothing."""
    config = SimpleNamespace(
        LOSS_TYPE={"tcc": True, "GTCC": False, "LAV": True, "VAVA": True},
        TCC_ORIGINAL_PARAMS={"softmax_temp": 0.5, "alignment_variance": 0.001},
        GTCC_PARAMS={},
        LAV_PARAMS={"min_temp": 0.1},
        VAVA_PARAMS={"zeta": 0.7},
    )
    batches = [{"outputs": made(lengths, 1)} for lengths in ((12, 9), (20, 7, 16), (8,))]
    old = twin("alignment.loss_entry.get_loss_function")(config)(batches, 30)
    new = objective_from_config(config)(batches, 30)
    for name, key in {"total_loss": "loss", "tcc_loss": "tcc", "LAV_loss": "lav", "VAVA_loss": "vava"}.items():
        # the old sums are float32
        assert new[key].item() == pytest.approx(old[name].item(), rel=3e-7)


def test_gtcc_draws_from_its_generator() -> None:
    """The deviation of the row: other frames than those of the global generators, whose state is left alone."""
    sequences = made((22, 25), 7)
    before = torch.random.get_rng_state()
    first, second = (gtcc_loss(sequences, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    again = gtcc_loss(sequences, generator=torch.Generator().manual_seed(1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert gtcc_loss(made((5, 1), 8)).dim() == 0


def test_lav_in_float64_outside_the_domain() -> None:
    """The deviation of the row: with float32 as default dtype the old tables are rounded, the new ones are not."""
    sequences = made((9, 13), 4)
    exact = twin("alignment.loss_functions.LAV_loss")(sequences)
    with default_dtype(torch.float32):
        assert 1e-13 < deviation(twin("alignment.loss_functions.LAV_loss")(sequences), exact) < 1e-6
        assert deviation(lav_loss(sequences), exact) < 1e-12


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)
