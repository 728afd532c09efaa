"""Bad batches in combinations and over whole runs; each loss alone: ``tests/contract/test_not_finite.py``."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from training_losses.balancing import GradNormLoss, ProductLoss, UncertaintyWeightedLoss, WeightedSumLoss
from training_losses.base import BaseLoss, FeatureQueue
from training_losses.contrastive.moco_loss import MemoryQueueLoss
from training_losses.contrastive.vicreg import AdaptiveVICRegLoss
from training_losses.functional import bounded_exp, l2_normalize, retrieval_metrics, returning_clamp, standardize
from training_losses.perceptual import LPIPSLoss
from training_losses.predictive import HJEPALoss, SIGRegLoss

DOUBLE = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def states(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


class Gap(BaseLoss):
    """A stateless term with an input of its own."""

    def forward(self, gap: Tensor) -> Tensor:
        return gap.square().mean()


class Count(BaseLoss):
    """A loss from outside the package: counts its calls, then may fail."""

    changing = ("calls",)
    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, fail: bool = False) -> Tensor:
        self.calls.add_(1)
        if fail:
            raise ValueError("x must be something else")
        return x.sum()


def test_the_state_of_a_term_survives_a_bad_value_of_another_term() -> None:
    queue = MemoryQueueLoss(embed_dim=4, queue_size=6)
    loss = WeightedSumLoss(terms={"queue": queue, "gap": Gap()}).double()
    good = {"vision_features": normal(4, 4), "text_features": normal(4, 4, seed=1), "gap": normal(3)}
    loss(**good)
    before = states(loss)
    for rows in (1, 4, 9):  # into the free rows, around the end, more than there are
        v, t = normal(rows, 4, seed=2), normal(rows, 4, seed=3)
        assert loss(vision_features=v, text_features=t, gap=torch.tensor([math.nan], dtype=DOUBLE)).loss.isnan()
        assert_equal(states(loss), before)
    assert queue.vision_queue._overwritten is None, "nothing is remembered between the calls"
    loss(**good)
    assert int(queue.vision_queue.ptr) == 8 % 6


def test_skipping_bad_batches_is_training_without_them() -> None:
    """The loop of the guide, with every third batch spoiled, against the loop over the others."""

    def run(skipped: bool) -> tuple[list[float], dict[str, Tensor]]:
        values = nn.Parameter(torch.tensor([1.0, 2.0], dtype=DOUBLE))
        loss = ProductLoss(names=["a", "b"], momentum=0.5, mean_steps=2).double()
        optimizer = torch.optim.SGD([values], lr=0.1)
        seen = []
        for step in range(9):
            bad = step % 3 == 2
            if bad and not skipped:
                continue
            scale = torch.tensor([math.inf if step == 2 else math.nan if bad else 1.0 + step, 1.0], dtype=DOUBLE)
            a, b = (values.square() * scale).unbind()
            total = loss({"a": a, "b": b}).loss
            if not bool(total.isfinite()):
                continue
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            seen.append(float(total.detach()))
        return seen, states(loss)

    (with_bad, state), (without, wanted) = run(True), run(False)
    assert len(without) == 6
    assert with_bad == without
    assert_equal(state, wanted)


def test_a_call_that_raises_leaves_the_state() -> None:
    loss = Count()
    loss(torch.ones(2))
    with pytest.raises(ValueError, match="something else"):
        loss(torch.ones(2), fail=True)
    loss(torch.tensor([math.inf]))
    assert int(loss.calls) == 1
    assert int(loss.eval().calls) == 1


def test_regularize_alone_keeps_the_step() -> None:
    loss = SIGRegLoss(num_slices=4).double()
    loss.regularize(normal(5, 3))
    loss.regularize(normal(5, 3) * math.nan)
    assert int(loss.step) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_adaptive_weights_survive_bad_terms(bad: float) -> None:
    loss = AdaptiveVICRegLoss(momentum=0.5)
    before = states(loss)
    terms = {"invariance_loss": 1.0, "variance_loss": bad, "covariance_loss": 2.0}
    loss.update_weights({name: torch.tensor(term) for name, term in terms.items()})
    assert_equal(states(loss), before)
    loss.update_weights({name: torch.tensor(1.0) for name in terms})
    assert not torch.equal(states(loss)["invariance_weight"], before["invariance_weight"])


def test_gradnorm_survives_rates_that_overflow() -> None:
    loss, shared = GradNormLoss(names=["a", "b"]), torch.ones(2, requires_grad=True)
    loss.balance({"a": 0 * shared.sum(), "b": shared.sum()}, shared)
    loss.balance({"a": 1e3 * shared.sum(), "b": shared.sum()}, shared)  # 2e3 / tiny is infinite
    weights = torch.stack([*loss.weight.buffers()])
    assert weights.isfinite().all()


def test_a_queue_that_nobody_guards_remembers_nothing() -> None:
    queue = FeatureQueue(3, 2)
    queue.enqueue(torch.ones(2, 2))
    assert queue._overwritten is None
    outer = queue.begin()
    queue.enqueue(2 * torch.ones(2, 2))
    inner = queue.begin()
    queue.enqueue(3 * torch.ones(2, 2))
    queue.settle(inner, False)
    assert queue.features.flatten().tolist() == [2.0, 2.0, 1.0, 1.0, 2.0, 2.0]
    queue.settle(outer, torch.tensor(False))
    assert queue.features.flatten().tolist() == [1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert (int(queue.ptr), int(queue.filled), queue._overwritten) == (2, 2, None)


# ------------------------------------------------------------------------------------------------------------- bounds
@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", "classification"])
def test_a_task_of_loss_zero_never_gives_nan(likelihood: str) -> None:
    loss = UncertaintyWeightedLoss(names=["done", "open"], likelihood=likelihood)
    optimizer = torch.optim.SGD(loss.parameters(), lr=1.0)
    for _ in range(400):
        optimizer.zero_grad()
        out = loss({"done": torch.tensor(0.0), "open": torch.tensor(1.0)})
        out.loss.backward()
        optimizer.step()
    assert out.loss.isfinite()
    assert out["weights.done"].isfinite()
    assert float(loss.log_variance.done.detach()) == pytest.approx(-20.0, abs=0.5)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_bounds_are_exact_and_let_go(dtype: torch.dtype) -> None:
    x = torch.tensor([-3.0, -2.3, 0.1, 1.7, 12.3], dtype=dtype, requires_grad=True)
    y = returning_clamp(x, -2.3, 1.7)
    assert y.tolist() == x.detach().clamp(-2.3, 1.7).tolist()
    up, down = (torch.autograd.grad((sign * y).sum(), x, retain_graph=True)[0].tolist() for sign in (1.0, -1.0))
    assert up == [0.0, 0.0, 1.0, 1.0, 1.0]
    assert down == [-1.0, -1.0, -1.0, 0.0, 0.0]
    for bound in (0.3, 1.0, 7.7, 100.0, 1e4):
        s = torch.tensor([math.log(bound), math.log(bound) + 1e-4, 1e3, math.log(bound) - 1e-5], dtype=dtype)
        found = bounded_exp(s.requires_grad_(), bound)
        assert found[:3].tolist() == torch.full((3,), bound, dtype=dtype).tolist()
        assert (found <= torch.tensor(bound, dtype=dtype)).all()
        (grad,) = torch.autograd.grad(found.sum(), s)
        torch.testing.assert_close(grad, torch.full_like(s, bound), rtol=1e-4, atol=0)
    inside = torch.tensor([-1.0, 0.5], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: bounded_exp(t, 100.0), inside)
    assert bounded_exp(torch.tensor([math.nan]), 100.0).isnan().all()
    per_row = torch.func.vmap(torch.func.grad(lambda t: bounded_exp(t, 2.0)))(torch.tensor([0.0, 5.0], dtype=dtype))
    torch.testing.assert_close(per_row, torch.tensor([1.0, 2.0], dtype=dtype))


# ------------------------------------------------------------------------------------- norms, comparisons, networks
def test_rows_whose_length_overflows_are_nan_and_not_zero() -> None:
    x = torch.tensor([[1e20, 0.0], [3.0, 4.0], [0.0, 0.0]])
    found = l2_normalize(x)
    assert found[0].isnan().all()
    assert found[1:].tolist() == nn.functional.normalize(x[1:]).tolist()
    assert l2_normalize(x.double())[0].tolist() == [1.0, 0.0]
    assert standardize(torch.tensor([[1e20, 1.0], [0.0, 2.0]]), eps=1e-5)[:, 0].isnan().all()
    p, t = normal(2, 3, 4).float() * 1e20, normal(2, 3, 4, seed=1).float()
    assert HJEPALoss()([p], [t]).loss.isnan()
    assert HJEPALoss()([p.double()], [t.double()]).loss.isfinite()
    nothing = torch.zeros(2, 3, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(HJEPALoss()([nothing], [t]).loss, nothing)
    assert not grad.any(), "rows of zeros still get no gradient"


def test_metrics_of_nan_are_no_hits() -> None:
    similarity = torch.eye(3)
    assert float(retrieval_metrics(similarity)["accuracy"]) == 1.0
    similarity[:, 1] = math.nan
    assert all(metric.isnan() for metric in retrieval_metrics(similarity).values())


class Parts(nn.Module):
    """The parts of an LPIPS network, with one layer of ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer, self.lins = nn.Identity(), nn.ModuleList([nn.Conv2d(2, 1, 1, bias=False)])
        self.net = Trunk()
        nn.init.ones_(self.lins[0].weight)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        raise AssertionError("the plain formula")


class Trunk(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x[:, :2].relu()]


def test_lpips_is_safe_by_default() -> None:
    loss = LPIPSLoss(backbone=Parts(), detach_target=False, input_range=(-1.0, 1.0))
    blank = torch.full((1, 3, 4, 4), -1.0, requires_grad=True)  # no channel is above 0 anywhere
    loss(blank, torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))).backward()
    assert blank.grad is not None
    assert blank.grad.isfinite().all()
    with pytest.raises(AssertionError, match="plain formula"):
        LPIPSLoss(backbone=Parts(), safe_norm=False)(blank, blank)


def test_what_a_relu_hides_shows() -> None:
    loss = LPIPSLoss(backbone=Parts(), input_range=(-1.0, 1.0), reduction="none")
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    spoiled = images.clone()
    spoiled[1, 0, 2, 2] = -math.inf
    found = loss(spoiled, images)
    assert found[0].isfinite()
    assert found[1].isnan()


def test_a_copy_of_a_loss_within_a_call_is_whole() -> None:
    loss = MemoryQueueLoss(embed_dim=4, queue_size=6, learnable_temperature=True).double()
    loss(normal(3, 4), normal(3, 4, seed=1)).loss.backward()
    assert loss._scale_of_call is None
    assert_equal(states(copy.deepcopy(loss)), states(loss))
