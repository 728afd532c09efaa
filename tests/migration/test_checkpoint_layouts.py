"""Two hundred layouts of models and optimizers: nothing is converted wrongly, and hardly anything is refused.

A layout is a small program: where the loss stands, what wraps the model, which optimizer takes which parameters in
which order. It runs with the old loss, its checkpoint is converted, and it runs again with the successor. Every
parameter is filled with a number of its own, and so is its state: after the way through the file they must be the same.
"""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.twins import twin
from training_losses.migration.catalog import builtin_catalog
from training_losses.migration.checkpoint import plan
from training_losses.migration.parity import resolve
from training_losses.migration.translate import translate

HEADS = {"add_projection": True, "input_dim": 4, "projection_dim": 4}
LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "projection": ("contrastive_loss.ContrastiveLoss", {"sampling_strategy": "auto", **HEADS}),
    "bank": ("contrastive_loss.ContrastiveLoss", {"sampling_strategy": "memory-bank", "memory_bank_size": 4, **HEADS}),
    "barlow": ("barlow_twins_loss.BarlowTwinsLoss", HEADS),
    "mixed": ("multimodal_mixed_contrastive_loss.MultiModalMixedContrastiveLoss", HEADS),
    "queue": ("memory_queue_contrastive_loss.MemoryQueueContrastiveLoss", {"dim": 4, "queue_size": 4}),
}
Parameters = list[tuple[str, nn.Parameter]]
GROUPINGS: dict[str, Callable[[Parameters], list[Parameters]]] = {
    "all": lambda ps: [ps],
    "decay": lambda ps: [[p for p in ps if p[1].dim() > 1], [p for p in ps if p[1].dim() < 2]],
    "no decay first": lambda ps: [[p for p in ps if p[1].dim() < 2], [p for p in ps if p[1].dim() > 1]],
    "bias last": lambda ps: [[*_having(ps, "bias", False), *_having(ps, "bias", True)]],
    "loss first": lambda ps: [[*_having(ps, "loss", True), *_having(ps, "loss", False)]],
    "loss last": lambda ps: [[*_having(ps, "loss", False), *_having(ps, "loss", True)]],
    "loss apart": lambda ps: [_having(ps, "loss", False), _having(ps, "loss", True)],
    "sorted": lambda ps: [sorted(ps, key=lambda p: p[0])],
    "sorted decay": lambda ps: GROUPINGS["decay"](sorted(ps, key=lambda p: p[0])),
}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adam": lambda ps: torch.optim.Adam(ps, lr=0.1),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=0.1, amsgrad=True),
    "momentum": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9),
    "rmsprop": lambda ps: torch.optim.RMSprop(ps, lr=0.1),
    "adafactor": lambda ps: torch.optim.Adafactor(ps, lr=0.1),
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.1),
}


def _having(parameters: Parameters, word: str, wanted: bool) -> Parameters:
    return [p for p in parameters if (word in p[0]) == wanted]


@dataclass(frozen=True)
class Layout:
    """One program."""

    loss: str
    optimizer: str
    grouping: str
    names: str
    """``numbers``, ``beside`` (an optimizer over names), ``instead`` (states by name)."""
    wrapper: str
    path: tuple[str, ...]
    loss_first: bool
    apart: bool
    """The loss has an entry of its own in the file."""

    def model(self, loss: nn.Module) -> nn.Module:
        inner: nn.Module = loss
        for name in reversed(self.path):
            inner = nn.ModuleDict({name: inner})
        backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
        parts = [("zoo", backbone), *inner.named_children(), ("head", nn.Linear(4, 4))]
        return nn.ModuleDict(dict(sorted(parts, key=lambda p: p[0] != self.path[0]) if self.loss_first else parts))

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        parts = GROUPINGS[self.grouping](list(model.named_parameters()))
        return [{"params": p if self.names != "numbers" else [q for _, q in p]} for p in parts if p]


def random_layout(seed: int) -> Layout:
    draw = random.Random(seed)
    return Layout(
        draw.choice(sorted(LOSSES)),
        draw.choice(sorted(OPTIMIZERS)),
        draw.choice(sorted(GROUPINGS)),
        draw.choice(["numbers", "numbers", "beside", "instead"]),
        draw.choice(["", "", "module.", "_orig_mod.", "module._orig_mod.", "_fsdp_wrapped_module."]),
        draw.choice([("loss",), ("contrastive_loss",), ("losses", "clip"), ("aux", "loss_fn")]),
        draw.random() < 0.4,
        draw.random() < 0.3,
    )


def filled(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """A number per parameter, in it and in its state."""
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters(), 1):
            parameter.fill_(number)
            for key, value in optimizer.state[parameter].items():
                if isinstance(value, Tensor) and key != "step":
                    value.fill_(number)


def saved(layout: Layout, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    state = {layout.wrapper + name: value for name, value in model.state_dict().items()}
    states = copy.deepcopy(optimizer.state_dict())
    if layout.names == "instead":
        names = {n: name for g in states["param_groups"] for n, name in zip(g["params"], g["param_names"], strict=True)}
        states = {
            "state": {names[n]: entry for n, entry in states["state"].items()},
            "param_groups": [{"lr": 0.1, "params": g["param_names"]} for g in states["param_groups"]],
        }
    if not layout.apart:
        return {"model": state, "optimizer": states}
    prefix = layout.wrapper + ".".join(layout.path) + "."
    loss = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    rest = {key: value for key, value in state.items() if not key.startswith(prefix)}
    return {"model": rest, "criterion": loss, "optimizer": states}


def joined(layout: Layout, content: dict[str, Any]) -> dict[str, Any]:
    """The state_dict of the whole model, without its wrapper."""
    state = {key.removeprefix(layout.wrapper): value for key, value in content["model"].items()}
    prefix = ".".join(layout.path) + "."
    return state | {prefix + key: value for key, value in content.get("criterion", {}).items()}


def restored(layout: Layout, optimizer: torch.optim.Optimizer, states: dict[str, Any], named: Iterable[Any]) -> None:
    if layout.names == "instead":
        own = optimizer.state_dict()
        order = [name for g in own["param_groups"] for name in g["param_names"]]
        assert sorted(order) == sorted(n for g in states["param_groups"] for n in g["params"])
        own["state"] = {n: states["state"][name] for n, name in enumerate(order) if name in states["state"]}
        states = own
    optimizer.load_state_dict(states)


def run(layout: Layout) -> list[str]:
    """The problems that the conversion names; the rest is asserted."""
    name, arguments = LOSSES[layout.loss]
    row = builtin_catalog().find(name)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optimizers without parameters, lazily built queues
        torch.manual_seed(0)
        old_loss = twin(name)(**arguments)
        if layout.loss == "queue":
            old_loss(torch.randn(2, 4), torch.randn(2, 4), ["a", "b"])
        old = layout.model(old_loss)
        optimizer = OPTIMIZERS[layout.optimizer](layout.groups(old))
        filled(old, optimizer)
        made, result = plan(saved(layout, old, optimizer), builtin_catalog())
        if made.problems:
            return made.problems
        case, keywords = translate(row, (), arguments)
        assert case.new is not None
        new = layout.model(resolve(case.new)(**keywords))
        new.load_state_dict(joined(layout, result))
        after = OPTIMIZERS[layout.optimizer](layout.groups(new))
        restored(layout, after, result["optimizer"], new.named_parameters())
    for parameter in new.parameters():
        assert float(parameter.detach().min()) == float(parameter.detach().max())
        for key, value in after.state[parameter].items():
            if isinstance(value, Tensor) and key != "step":
                torch.testing.assert_close(value, parameter.detach().reshape(-1)[0].expand_as(value))
    assert len(after.state) == len(optimizer.state)
    return []


@pytest.mark.parametrize("start", range(0, 200, 20))
def test_two_hundred_layouts(start: int) -> None:
    refused = {seed: found for seed in range(start, start + 20) if (found := run(random_layout(seed)))}
    assert not refused, refused
