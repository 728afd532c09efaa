"""``EnergyLoss``: the value by hand, the life cycle of its hooks, what it keeps, and where it leaves its twins."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint

from tests.support.harness_dynvision import Network, drive
from tests.support.twins import twin
from training_losses.functional.activity import _pack_signs, _unpack_signs, mean_activity
from training_losses.temporal import EnergyLoss


class Net(nn.Module):
    """Two weight layers; ``steps`` runs of the first, so that they are called unequally often."""

    def __init__(self, steps: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.act = nn.ReLU()
        self.fc = nn.Linear(2 * 9, 4)
        self.steps = steps
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.steps):
            h = self.conv(x)
            x = h.mean(dim=1, keepdim=True)
        return self.fc(self.act(h).flatten(1))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net().double()


def images(batch: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 1, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attached(net: nn.Module, **arguments: Any) -> EnergyLoss:
    loss = EnergyLoss(**arguments)
    loss.attach(net)
    return loss


def hooks_on(net: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def recorded(net: nn.Module, run: Callable[[], Any]) -> dict[str, list[torch.Tensor]]:
    """Outputs of every module during ``run``, gathered independently of the loss."""
    found: dict[str, list[torch.Tensor]] = {}
    handles = [
        m.register_forward_hook(lambda m, a, out, name=name: found.setdefault(name, []).append(out.detach().clone()))
        for name, m in net.named_modules()
    ]
    run()
    for handle in handles:
        handle.remove()
    return found


# ----------------------------------------------------------------------------------------------------------- the value
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("order", [1, 2, 0.5, float("inf")])
def test_value_by_hand(steps: int, order: float) -> None:
    torch.manual_seed(0)
    net = Net(steps).double()
    loss = attached(net, order=order)
    seen = recorded(net, lambda: [net(images(seed=t)) for t in range(2)])
    expected = []
    for name in ("conv", "fc"):
        magnitudes = torch.stack([a.flatten(1).abs() for a in seen[name]])
        assert len(magnitudes) == 2 * (steps if name == "conv" else 1)
        per_unit = magnitudes.amax(2) if order == float("inf") else (magnitudes**order).mean(2) ** (1 / order)
        expected.append(per_unit.mean(0))
    want = torch.stack(expected).mean(0)
    torch.testing.assert_close(loss(), want.mean())
    for reduction, value in (("sum", want.sum()), ("none", want)):
        loss = attached(net, order=order, reduction=reduction)
        for t in range(2):
            net(images(seed=t))
        torch.testing.assert_close(loss(), value)


def test_signed_activity_is_the_net_drive(net: Net) -> None:
    loss = attached(net, mode="signed")
    seen = recorded(net, lambda: net(images()))
    want = [seen[name][0].flatten(1).mean(1).abs().mean() for name in ("conv", "fc")]
    torch.testing.assert_close(loss(), torch.stack(want).mean())


@given(st.integers(0, 4), st.integers(0, 23), st.integers(0, 99))
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_signs_survive_packing(rows: int, columns: int, seed: int) -> None:
    x = torch.randint(-1, 2, (rows, columns), generator=torch.Generator().manual_seed(seed))
    packed = _pack_signs(x.double())
    assert packed.dtype == torch.uint8
    assert packed.numel() == -(-x.numel() // 5)
    assert torch.equal(_unpack_signs(packed, x.shape, torch.float64).long(), x)


def test_gradient_of_the_mean_magnitude_is_that_of_the_norm() -> None:
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    x[0, 0, 0] = 0.0
    x.requires_grad_()
    torch.testing.assert_close(
        *(torch.autograd.grad(v.square().sum(), x) for v in (mean_activity(x), x.abs().mean((1, 2))))
    )
    assert torch.autograd.gradgradcheck(
        lambda t: mean_activity(t).square(), torch.randn(2, 3, dtype=torch.float64).requires_grad_()
    )


def test_half_precision_is_accumulated_in_float32() -> None:
    x = torch.full((1, 70000), 1.0, dtype=torch.float16)
    for mode, order in (("absolute", 1), ("absolute", 2), ("signed", 1)):
        value = mean_activity(x, mode=mode, order=order)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, torch.ones(1))


# ----------------------------------------------------------------------------------------------------------- selection
def many() -> nn.Module:
    return nn.ModuleDict(
        {
            "stem": nn.Conv1d(1, 1, 1),
            "body": nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.ConvTranspose3d(1, 1, 1)),
            "head": nn.Linear(1, 1),
        }
    )


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, "stem body.0 body.2 head"),
        ({"exclude": "head"}, "stem body.0 body.2"),
        ({"exclude": ("head", "Conv1d")}, "body.0 body.2"),
        ({"select": nn.ReLU}, "body.1"),
        ({"select": "ReLU"}, "body.1"),
        ({"select": ["Conv2d", "Linear", "ConvTranspose2d"]}, "body.0 head"),
        ({"select": "body.*"}, "body.0 body.1 body.2"),
        ({"select": (nn.Linear, "st?m")}, "stem head"),
        ({"select": {"body.1": "signed", nn.Linear: "absolute"}}, "body.1 head"),
        ({"select": lambda name, module: name.endswith("2")}, "body.2"),
    ],
)
def test_selection(arguments: dict[str, Any], names: str) -> None:
    loss = EnergyLoss(**arguments)
    assert loss.attach(many()).names == tuple(names.split())


def test_marked_modules_and_their_modes(net: Net) -> None:
    net.act._activity_monitor = "absolute"
    net.conv._activity_monitor = "signed"
    loss = attached(net, select="marked")
    net(images())
    assert list(loss.report()) == ["conv", "act"]
    net.fc._activity_monitor = "sined"
    with pytest.raises(
        ValueError, match="_activity_monitor of module 'fc' must be one of 'absolute', 'signed', found 'sined'"
    ):
        loss.attach(net)


@pytest.mark.parametrize("select", ["no such", nn.Conv3d, "marked", [], {}, lambda name, module: False])
def test_selecting_nothing_is_an_error(net: Net, select: Any) -> None:
    with pytest.raises(ValueError, match="matches no module of Net"):
        EnergyLoss(select=select).attach(net)


@pytest.mark.parametrize(
    "arguments",
    [
        {"order": 0},
        {"order": "fro"},
        {"order": float("nan")},
        {"order": True},
        {"mode": "norm"},
        {"select": {"conv": "norm"}},
        {"reduction": "max"},
    ],
)
def test_bad_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        EnergyLoss(**arguments)


def test_it_must_be_attached_first() -> None:
    with pytest.raises(ValueError, match="not attached: call attach"):
        EnergyLoss()()


def test_outputs_that_have_no_activity() -> None:
    network = nn.ModuleDict({"rnn": nn.LSTM(2, 3), "ids": nn.Identity()})
    loss = attached(network, select=("rnn", "ids"))
    network["rnn"](torch.ones(1, 1, 2))  # its first tensor counts
    assert list(loss.report()) == ["rnn"]
    with pytest.raises(ValueError, match=r"module 'ids' must return a floating tensor .*torch.int64 \[1\]"):
        network["ids"](torch.ones(1, dtype=torch.long))


# ---------------------------------------------------------------------------------------------------------- what counts
def test_shared_modules_count_their_own_calls() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(2, 2)
    net = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(2, 3))
    loss = attached(net)
    net(torch.randn(4, 2))
    calls = {name: row.calls for name, row in loss.report().items()}
    assert calls == {"0": 2, "3": 1}


def test_a_module_that_runs_more_often_does_not_dilute_the_others(net: Net) -> None:
    loss = attached(net)
    net(images())
    once = loss()
    net(images())
    for _ in range(5):
        net.conv(images())
    torch.testing.assert_close(loss(), once, rtol=0, atol=1e-15)
    old = twin("dynvision.energy_loss.EnergyLoss")()
    old.register_hooks(net)
    net(images())
    for _ in range(5):
        net.conv(images())
    assert old() < 0.9 * once
    old.remove_hooks()


def test_validation_without_gradients_has_the_same_value(net: Net) -> None:
    loss = attached(net)
    net(images())
    with_graph = loss()
    with torch.no_grad():
        net(images())
    without = loss()
    torch.testing.assert_close(without, with_graph.detach(), rtol=0, atol=0)
    assert with_graph.requires_grad
    assert not without.requires_grad
    old = twin("dynvision.energy_loss.EnergyLoss")()
    old.register_hooks(net)
    with torch.no_grad():
        net(images())
    assert old() == 0
    old.remove_hooks()


def test_frozen_layers_keep_their_share(net: Net) -> None:
    loss = attached(net)
    net(images())
    before = loss()
    net.conv.requires_grad_(False)
    net(images())
    frozen = loss()
    torch.testing.assert_close(frozen, before, rtol=0, atol=0)
    frozen.backward()
    assert net.conv.weight.grad is None
    assert net.fc.weight.grad is not None


def test_batches_of_changing_size_average_over_samples(net: Net) -> None:
    loss = attached(net)
    seen = recorded(net, lambda: [net(images(3)), net(images(1, seed=1))])
    want = [torch.cat(seen[name]).flatten(1).abs().mean() for name in ("conv", "fc")]
    torch.testing.assert_close(loss(), torch.stack(want).mean())
    loss = attached(net, reduction="none")
    net(images(3))
    with pytest.raises(ValueError, match="reduction='none' needs one batch size"):
        net(images(2))


def replicate(module: nn.Module) -> nn.Module:
    """What ``nn.DataParallel`` makes of a module for one device."""
    replica = module._replicate_for_data_parallel()
    replica._parameters = dict(module._parameters)
    replica._modules = {name: replicate(child) for name, child in module._modules.items()}
    return replica


def test_replicas_in_threads_give_the_value_of_the_whole_batch(net: Net) -> None:
    loss = attached(net)
    steps = [images(6, seed=t) for t in range(3)]
    for x in steps:
        net(x)
    whole = loss()
    whole_grad = torch.autograd.grad(whole, list(net.parameters()), allow_unused=True)
    for x in steps:
        threads = [threading.Thread(target=replicate(net), args=(part,)) for part in x.split([2, 3, 1])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    split = loss()
    assert loss.report()["conv"].calls == 9
    torch.testing.assert_close(split, whole)
    for a, b in zip(torch.autograd.grad(split, list(net.parameters()), allow_unused=True), whole_grad, strict=True):
        torch.testing.assert_close(a, b)
    loss = attached(net, reduction="sum")
    with pytest.raises(ValueError, match="reduction must be 'mean' for replicas"):
        replicate(net)(images())


def test_moving_the_network_between_steps(net: Net) -> None:
    """Another dtype stands in for another device, where there is none."""
    loss = attached(net)
    net(images())
    net.float()(images().float())
    value = loss()
    assert value.isfinite()
    assert {row.calls for row in loss.report().values()} == {2}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_moving_the_network_to_a_gpu_between_steps(net: Net) -> None:
    loss = attached(net)
    net(images())
    want = loss()
    net(images())
    net.cuda()(images().cuda())
    got = loss()
    assert got.is_cuda
    torch.testing.assert_close(got.cpu(), want)


def test_gradient_checkpointing_counts_once(net: Net) -> None:
    loss = attached(net)
    net(images())
    plain = loss()
    want = torch.autograd.grad(plain, list(net.parameters()), allow_unused=True)
    checkpoint(net, images(), use_reentrant=False)
    again = loss()
    got = torch.autograd.grad(again, list(net.parameters()), allow_unused=True)
    torch.testing.assert_close(again, plain, rtol=0, atol=0)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert loss.report()["conv"].calls == 1
    assert loss() == 0  # the recomputation has left nothing


def test_an_in_place_activation_after_a_monitored_layer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    loss = attached(net)
    (net(torch.randn(2, 3)).sum() + loss()).backward()
    old = twin("dynvision.energy_loss.EnergyLoss")()
    old.register_hooks(net)
    net(torch.randn(2, 3))
    with pytest.raises(RuntimeError, match="inplace"):
        old().backward()
    old.remove_hooks()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # dynamo looks at every input
def test_compiled_networks_are_monitored(net: Net) -> None:
    loss = attached(net)
    for _ in range(2):
        net(images())
    want = loss()
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    for _ in range(2):
        compiled(images())
    torch.testing.assert_close(loss(), want)


# ----------------------------------------------------------------------------------------------------------- life cycle
def test_the_loss_call_forgets(net: Net) -> None:
    loss = attached(net)
    net(images())
    assert loss() > 0
    second = loss()
    assert second == 0
    assert second.dtype == torch.float64
    assert not second.requires_grad
    assert attached(net, reduction="none")().shape == (0,)


def test_it_stands_beside_losses_that_are_called_with_outputs_and_targets(net: Net) -> None:
    loss = attached(net)
    net(images())
    first = loss(torch.ones(2), torch.ones(2))
    net(images())
    torch.testing.assert_close(loss(), first, rtol=0, atol=0)


def test_pause_and_resume(net: Net) -> None:
    loss = attached(net)
    loss.pause()
    net(images())
    loss.resume()
    net(images(seed=1))
    assert loss.report()["conv"].calls == 1


def test_idle_steps_of_the_network_do_not_count(net: Net) -> None:
    loss = attached(net, idle_attribute="idle")
    for idle in (True, False, False):
        net.idle = idle
        net(images())
    assert {row.calls for row in loss.report().values()} == {2}


class Fragile(Net):
    fail = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv(x)
        if self.fail:
            raise RuntimeError("aborted")
        return self.fc(h.flatten(1))


def test_an_aborted_forward_leaves_nothing_behind() -> None:
    torch.manual_seed(0)
    net = Fragile().double()
    loss = attached(net)
    net(images())
    clean = loss()
    net(images(seed=1))  # a first step that works, a second that does not
    net.fail = True
    with pytest.raises(RuntimeError, match="aborted"):
        net(images(5, seed=2))
    net.fail = False
    net(images())
    torch.testing.assert_close(loss(), clean, rtol=0, atol=0)
    # an exception elsewhere does not forget what a sound pass has gathered
    try:
        raise KeyError
    except KeyError:
        net(images())
    assert loss() == clean
    old = twin("dynvision.energy_loss.EnergyLoss")()
    old.register_hooks(net)
    net.fail = True
    with pytest.raises(RuntimeError, match="aborted"):
        net(images(5, seed=2))
    net.fail = False
    with pytest.raises(RuntimeError, match="size"):
        net(images())  # the twin still holds the batch of five
    old.remove_hooks()


def test_an_interrupted_block_leaves_nothing_behind(net: Net) -> None:
    loss = EnergyLoss()

    def interrupted() -> None:
        with loss.attach(net):
            net(images())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert hooks_on(net) == 0
    assert loss() == 0


def test_whole_sequences_start_afresh(net: Net) -> None:
    loss = EnergyLoss()
    loss.attach(net, whole_sequence=True)
    net(images(seed=1))  # a prediction without a loss call
    net(images())
    assert {row.calls for row in loss.report().values()} == {1}
    value = loss()
    net(images())
    torch.testing.assert_close(loss(), value, rtol=0, atol=0)


def test_reset_forgets(net: Net) -> None:
    loss = attached(net)
    net(images())
    loss.reset()
    assert loss() == 0


def test_attaching_again_replaces_the_first_network(net: Net) -> None:
    loss = EnergyLoss()
    first = loss.attach(net)
    other = Net().double()
    net(images())
    second = loss.attach(other)
    assert hooks_on(net) == 0
    first.remove()  # a stale handle does not touch the new hooks
    assert hooks_on(other) == 3
    net(images())
    other(images())
    assert {row.calls for row in loss.report().values()} == {1}
    second.remove()
    second.remove()
    assert hooks_on(other) == 0


def test_leaving_the_block_keeps_the_value(net: Net) -> None:
    loss = EnergyLoss()
    with loss.attach(net) as handle:
        assert handle.names == ("conv", "fc")
        net(images())
    assert hooks_on(net) == 0
    net(images())
    assert loss.report()["conv"].calls == 1
    assert loss() > 0


def test_the_network_is_no_part_of_the_loss(net: Net) -> None:
    loss = attached(net)
    net(images())
    assert loss.state_dict() == {}
    assert list(loss.parameters()) == []
    assert list(loss.modules()) == [loss]
    net.criterion = loss
    keys = set(Net().state_dict())
    assert set(net.state_dict()) == keys
    net.eval().train().to(torch.float32).double()
    loss.attach(net)
    net(images())
    assert loss() > 0
    owner = nn.Linear(3, 2)
    owner._activity_monitor = "absolute"
    owner.criterion = twin("dynvision.activity_loss.ActivityLoss")()
    owner.criterion.register_hooks(owner)
    with pytest.raises(RecursionError):
        owner.eval()
    owner.criterion.remove_hooks()
    del owner.criterion


def test_dropping_the_loss_removes_its_hooks(net: Net) -> None:
    loss = attached(net)
    handle = loss.attach(net)  # nor does a handle keep it alive
    net(images())
    reference = weakref.ref(loss)
    assert hooks_on(net) == 3
    del loss
    gc.collect()
    assert reference() is None
    assert hooks_on(net) == 0
    net(images())
    handle.remove()


def test_dropping_the_network_frees_it(net: Net) -> None:
    network = Net()
    loss = attached(network)
    reference = weakref.ref(network)
    del network
    gc.collect()
    assert reference() is None
    assert [f.code for f in loss.diagnose()] == ["unattached"]


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_are_not_attached(net: Net, clone: Callable[[Any], Any]) -> None:
    loss = attached(net, order=2, exclude="fc")
    net(images())
    other_net, other_loss = clone(net), clone(loss)
    other_net(images())
    assert loss.report()["conv"].calls == 1
    with pytest.raises(ValueError, match="not attached"):
        other_loss()
    other_loss.attach(other_net)
    other_net(images())
    torch.testing.assert_close(other_loss(), loss(), rtol=0, atol=0)


# -------------------------------------------------------------------------------------------------------- what is kept
def saved_bytes(run: Callable[[], torch.Tensor]) -> int:
    """Bytes that the graph of ``run()`` keeps, each storage once."""
    storages: dict[int, int] = {}

    def pack(t: torch.Tensor) -> torch.Tensor:
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        keep.append(t)
        return t

    keep: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        keep.append(run())
    return sum(storages.values())


def test_only_scalars_and_signs_are_kept() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 144, 10),
    )
    frames = [torch.randn(4, 3, 12, 12) for _ in range(20)]

    def run() -> torch.Tensor:
        return torch.stack([net(x) for x in frames]).sum()

    plain = saved_bytes(run)
    loss = attached(net)
    gathered = saved_bytes(lambda: run() + loss())
    assert gathered <= 1.05 * plain
    net(frames[0])
    assert Counter(t.total.numel() for t in loss._gathered.values()) == Counter({1: 3})
    loss.detach()
    # other orders do need the activations: the check above can fail
    loss = attached(net, order=2)
    assert saved_bytes(lambda: run() + loss()) > 1.2 * plain


# -------------------------------------------------------------------------------------------------------- looking at it
def test_report_by_module(net: Net) -> None:
    loss = attached(net)
    assert loss.report() == {}
    seen = recorded(net, lambda: [net(images(seed=t)) for t in range(2)])
    for _ in range(2):  # before the loss call and after it
        report = loss.report()
        assert list(report) == ["conv", "fc"]
        for name, row in report.items():
            outputs = torch.stack(seen[name])
            torch.testing.assert_close(row.activity, outputs.abs().flatten(2).mean(2).mean())
            torch.testing.assert_close(row.peak, outputs.abs().max())
            assert row.calls == 2
            assert not row.activity.requires_grad
        torch.testing.assert_close(report["conv"].share + report["fc"].share, torch.tensor(1.0, dtype=torch.float64))
        loss()


def codes(loss: EnergyLoss, *args: Any, **kwargs: Any) -> list[str]:
    return [finding.code for finding in loss.diagnose(*args, **kwargs)]


def test_diagnose_finds_what_is_wrong(net: Net) -> None:
    loss = EnergyLoss()
    assert codes(loss) == ["unattached"]
    assert "nothing is penalised" in str(loss.diagnose()[0])
    loss.attach(net)
    assert [(f.code, f.subject) for f in loss.diagnose()] == [("silent", "conv"), ("silent", "fc")]
    net(images())
    energy = loss()
    assert codes(loss, total=100 * energy) == []
    assert codes(loss, total=100 * energy, weight=20) == ["share"]
    assert codes(loss, total=energy * 0) == ["share"]
    assert "10.0% of the total, more than 5%" in str(loss.diagnose(total=10 * energy)[0])
    loss.detach()
    assert codes(loss) == ["unattached"]


def test_diagnose_names_exploding_and_unmonitored_modules(net: Net) -> None:
    loss = EnergyLoss(select=("conv", "recurrent.*"))
    loss.attach(net)
    net.conv.weight.data *= 1e3
    net(images())
    loss()
    found = {f.code: f.subject for f in loss.diagnose()}
    assert found == {"unmonitored": "fc", "unmatched": "recurrent.*", "exploding": "conv", "high": "energy"}
    net.conv.weight.data[0] = float("nan")
    net(images())
    loss()
    assert {"exploding", "high"} <= set(codes(loss))


def test_classes_that_are_absent_are_no_finding(net: Net) -> None:
    loss = attached(net, select=["Conv2d", "Linear", "ConvTranspose2d"])
    net(images())
    loss()
    assert codes(loss) == []
    assert codes(attached(net, exclude="fc")) == ["silent"]


# ---------------------------------------------------------------------- recorded, outside the domain
def test_recorded_deviations_have_the_stated_cause() -> None:
    """Cases of the old loss that the new one answers differently, each for the reason in the catalog."""
    torch.manual_seed(0)
    weights = {
        "conv_w": torch.randn(3, 2, 3, 3),
        "conv_b": torch.randn(3),
        "fc_w": torch.randn(5, 48),
        "fc_b": torch.randn(5),
    }
    inputs = torch.randn(3, 4, 2, 4, 4)

    def both(freeze: bool = False, no_grad: bool = False, extra: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        leaves = {k: v.clone().requires_grad_(not (freeze and k.startswith("conv"))) for k, v in weights.items()}
        network = Network(**leaves)
        old, new = (
            twin("dynvision.energy_loss.EnergyLoss")(),
            EnergyLoss(select=["Conv2d", "Linear", "ConvTranspose2d"]),
        )
        old.register_hooks(network)
        new.attach(network)
        drive(network, inputs, no_grad, extra)
        values = old(), new()
        old.remove_hooks()
        return values

    old, new = both()
    torch.testing.assert_close(old, new)
    old, frozen = both(freeze=True)
    torch.testing.assert_close(frozen, new)
    assert (old - new).abs() > 1e-3  # the frozen layer has dropped out
    old, quiet = both(no_grad=True)
    torch.testing.assert_close(quiet, new.detach())
    assert old == 0
    old, uneven = both(extra=4)
    assert not torch.isclose(old, uneven)  # 7 calls of fc have diluted conv


def looks(energies: list[float], totals: list[float], **kwargs: Any) -> list[set[str]]:
    """The codes that depend on the course, at each look; the network is one layer whose output is set."""
    layer = nn.Linear(1, 1, bias=False)
    loss = EnergyLoss()
    loss.attach(layer)
    found = []
    for energy, total in zip(energies, totals, strict=True):
        with torch.no_grad():
            layer.weight.fill_(energy)
        layer(torch.ones(1, 1))
        loss()
        codes = {f.code for f in loss.diagnose(total, weight=0.1, max_energy=100.0, max_share=1.0, **kwargs)}
        assert codes == {f.code for f in loss.diagnose(total, weight=0.1, max_energy=100.0, max_share=1.0, **kwargs)}
        found.append(codes)
    return found


def test_an_energy_without_a_plateau_is_named() -> None:
    falling = [2.0, 1.8, 1.6, 1.4, 1.2, 1.0]
    assert looks([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], falling)[-2:] == [set(), {"growing"}]
    assert looks([0.1, 0.2, 0.3, 0.4, 0.5, 0.5], falling)[-1] == set()
    assert looks([0.1, 0.2, 0.3], falling[:3], patience=2)[-1] == {"growing"}


def test_an_energy_that_rises_with_the_rest_is_named() -> None:
    rising = [2.0, 2.1, 2.0, 2.2, 2.1, 2.3]
    assert looks([0.1, 0.3, 0.2, 0.4, 0.3, 0.5], rising)[-2:] == [set(), {"rising_together"}]
    # the total rises by what the energy adds, the rest of it does not
    assert looks([0.1, 0.3, 0.2, 0.4, 0.3, 0.5], [2.01, 2.03, 2.02, 2.04, 2.03, 2.05])[-1] == set()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_activities_of_two_devices_are_added_on_the_later_one(reduction: str) -> None:
    with FakeTensorMode():  # two accelerators that need not exist; mixing them raises, as it does on real ones
        devices = [torch.device("cuda", index) for index in (0, 1)]
        tallies = [
            EnergyLoss(reduction=reduction)._measure("m", "absolute", torch.ones(3, 4, device=d)) for d in devices
        ]
        with pytest.raises(RuntimeError, match="same device"):
            tallies[0].total + tallies[1].total
        tallies[0].add(tallies[1])
        assert (tallies[0].total.device, tallies[0].peak.device) == (devices[1], devices[1])
        activations = {"a": [torch.ones(3, 4, device=d) for d in devices], "b": torch.ones(3, 4, device=devices[0])}
        loss = EnergyLoss(reduction=reduction)
        assert loss(activations=activations).device == devices[0], "modules are added on the device of the last"
        assert loss.report()["a"].share.device == devices[1]
