"""Losses of dynvision.

The two activity losses take no arguments: their records run a small network, to which both are attached at once, and
compare values and the gradients of its inputs and weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tests.support.golden import load_cases
from tests.support.harness_dynvision import Network, drive
from tests.support.parity import GoldenCall, ParityRecord, Sample
from training_losses.migration.parity import Comparison, build_pair, deviation

ORDERS = (1, 2, 0.5, 3.0, float("inf"))
REDUCTIONS = ("mean", "sum", "none")


# ------------------------------------------------------------------------------------------------------ cross entropy
def labelled(sample: Sample, step: int) -> dict[str, Any]:
    """Rows with labels, about a third of them void; for odd seeds with two more dimensions behind the classes."""
    extra = (2, 3) if sample.seed % 2 else ()
    classes = 1 + sample.dim % 7
    generator = torch.Generator().manual_seed(sample.seed)
    targets = torch.randint(0, classes, (sample.batch, *extra), generator=generator)
    void = torch.rand(targets.shape, generator=generator) < 0.3
    return {
        "outputs": 3 * sample.randn(sample.batch, classes, *extra),
        "targets": torch.where(void, {0: -1, 1: -100, 2: 0}[sample.seed % 3], targets),
    }


def cross_entropy(sample: Sample) -> dict[str, Any]:
    weight = sample.randn(1 + sample.dim % 7, salt=5).abs() if sample.seed % 5 else None
    reduction = REDUCTIONS[sample.seed // 3 % 3]
    return {"reduction": reduction, "weight": weight, "ignore_index": {0: -1, 1: -100, 2: 0}[sample.seed % 3]}


def plain_rows(call: GoldenCall) -> bool:
    outputs = call.argument("outputs", 0)
    return isinstance(outputs, torch.Tensor) and bool(outputs.isfinite().all()) and not call.kwargs


# ----------------------------------------------------------------------------------------------------------- activity
def compared(old: torch.Tensor, new: torch.Tensor, leaves: dict[str, torch.Tensor]) -> Comparison:
    comparison = Comparison(values={"loss": deviation(new, old)})
    graphs = old.requires_grad, new.requires_grad
    assert graphs[0] == graphs[1], graphs
    if graphs[0]:
        found = [
            torch.autograd.grad(loss.sum(), list(leaves.values()), retain_graph=True, allow_unused=True)
            for loss in (old, new)
        ]
        for name, a, b in zip(leaves, *found, strict=True):
            assert (a is None) == (b is None), name
            if a is not None:
                comparison.gradients[name] = deviation(b, a, gradient=True)
    return comparison


def small_network(sample: Sample, deconvolution: bool) -> tuple[Network, dict[str, torch.Tensor]]:
    """The network of the recorded cases with weights from the seed, and its weights as leaves."""
    channels = 1 + sample.dim % 3
    shapes = {"conv_w": (channels, 2, 3, 3), "conv_b": (channels,), "fc_b": (5,)}
    if deconvolution:
        shapes["deconv_w"] = (channels, 2, 2, 2)
    shapes["fc_w"] = (5, 2 * 25 if deconvolution else channels * 16)
    weights = {n: sample.randn(*s, salt=i).requires_grad_() for i, (n, s) in enumerate(shapes.items())}
    return Network(**weights), weights


@dataclass(frozen=True)
class ActivityRecord(ParityRecord):
    """A loss that gathers by hooks."""

    system: str = "dynvision"
    harness: str = ""
    outside: frozenset[str] = frozenset()
    """Recorded cases outside the domain."""

    def pair(self, network: nn.Module, dtype: torch.dtype, arguments: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
        built = build_pair(self.row, dtype=dtype, **arguments)
        members = built.case.members
        built.old.register_hooks(network)
        getattr(built.new, members["register_hooks"])(network)
        return built.old, built.new

    def mark(self, network: Network, sample: Sample) -> None:
        if self.harness == "activity_hooks":
            for i, module in enumerate((network.conv, network.act, network.fc)):
                if (sample.seed + i) % 3:
                    module._activity_monitor = ("absolute", "signed")[(sample.seed // 3 + i) % 2]

    def run(self, sample: Sample) -> Iterator[Comparison]:
        network, leaves = small_network(sample, sample.seed % 2 == 0)
        self.mark(network, sample)
        old, new = self.pair(network, sample.dtype, self.kwargs(sample))
        for step in range(2):
            inputs = sample.randn(1 + sample.seed % 4, sample.batch, 2, 4, 4, salt=50 + step).requires_grad_()
            drive(network, inputs, False, 0, (1,) if self.harness == "activity_hooks" else None)
            yield compared(old(None, None), new(None, None), {**leaves, "inputs": inputs})

    def run_golden(self) -> Iterator[tuple[str, torch.dtype, Comparison]]:
        for case in load_cases("dynvision", self.symbol.partition(".")[0]):
            if case.data.get("harness") != self.harness or case.data["case"] in self.outside:
                continue
            given = case.decode(case.calls[0]["kwargs"])
            tensors = {k: v for k, v in given.items() if isinstance(v, torch.Tensor)}
            if case.calls[0]["grads"] is not None:
                for tensor in tensors.values():
                    tensor.requires_grad_()
            weights = [
                given.get(f"{m}_{p}")
                for m, p in (("conv", "weight"), ("conv", "bias"), ("fc", "weight"), ("fc", "bias"))
            ]
            network = Network(*weights, given.get("deconv_weight"))
            for name, mode in given.get("monitor", {}).items():
                getattr(network, name)._activity_monitor = mode
            arguments = {k: given[k] for k in ("reduction", "p", "ord") if k in given}
            dtype = getattr(torch, case.data["dtype"])
            old, new = self.pair(network, dtype, arguments)
            drive(network, given["inputs"], given.get("no_grad", False), 0, given.get("idle_steps", ()))
            yield case.id, dtype, compared(old(), new(), tensors)


def energy(sample: Sample) -> dict[str, Any]:
    return {"reduction": REDUCTIONS[sample.seed % 3], "p": ORDERS[sample.seed // 3 % len(ORDERS)]}


def activity(sample: Sample) -> dict[str, Any]:
    return {"reduction": REDUCTIONS[sample.seed % 3], "ord": ORDERS[sample.seed // 3 % len(ORDERS)]}


# ------------------------------------------------------------------------------------------------------------- helper
def rows_with_void(sample: Sample, step: int) -> dict[str, Any]:
    labels = torch.randint(-1, 2, (sample.batch,), generator=torch.Generator().manual_seed(sample.seed))
    return {
        "outputs": sample.randn(sample.batch, sample.dim),
        "label_indices": labels,
        "non_label_index": sample.seed % 3 - 1,
        "selector": ("!=", "==")[sample.seed % 2],
    }


ANY = ("none",)
RECORDS = [
    ParityRecord(
        "cross_entropy_loss.CrossEntropyLoss",
        system="dynvision",
        inputs=labelled,
        kwargs=cross_entropy,
        golden=plain_rows,
        ids=ANY,
        batch=(0, 17),
        examples=25,
    ),
    ActivityRecord(
        "energy_loss.EnergyLoss",
        kwargs=energy,
        harness="energy_hooks",
        outside=frozenset({"hooks_no_grad", "hooks_frozen_conv", "hooks_uneven", "hooks_removed"}),
        golden=bool,
        ids=ANY,
        batch=(1, 5),
        examples=20,
    ),
    ActivityRecord(
        "activity_loss.ActivityLoss",
        kwargs=activity,
        harness="activity_hooks",
        outside=frozenset({"hooks_uneven", "hooks_unmarked"}),
        golden=bool,
        ids=ANY,
        batch=(1, 5),
        examples=20,
    ),
    ParityRecord(
        "masking.mask_non_labels",
        system="dynvision",
        inputs=rows_with_void,
        golden=lambda call: call.argument("label_indices", 1).dim() == 1,
        golden_module="package",
        ids=ANY,
    ),
]
