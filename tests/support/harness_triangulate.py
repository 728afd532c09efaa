"""Stand-in networks and harnesses of the triangulate cases."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from tests.support.golden import Run, harness, stand_ins
from tests.support.torchvision_ops import import_torchvision

PARTS = ("perceptual", "l1", "lpips")
WIDTHS = (2, 3, 0, 2, 3, 0, 2, 3, 2, 3, 0, 2, 3, 2, 3, 0, 2, 3, 2, 3, 0)


def narrow_features() -> nn.Sequential:
    """VGG-19's order of layers with two or three channels; 0 in the widths stands for a pooling layer."""
    layers: list[nn.Module] = []
    channels = 3
    for width in WIDTHS:
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class StandInVGG:
    def __init__(self, **_: Any) -> None:
        self.features = narrow_features()


class StandInLPIPS(nn.Module):
    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.25, 0.5, 0.125]).view(1, 3, 1, 1))
        self.eval()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.w * (a - b) ** 2).sum(1, keepdim=True).mean((2, 3), keepdim=True)


class Calls(list[dict[str, Any]]):
    """The constructors asked for, in order."""

    def recording(self, name: str, build: Any) -> Any:
        def construct(*positional: Any, **keywords: Any) -> Any:
            self.append({"name": name, "positional": list(positional), "keywords": keywords})
            return build(*positional, **keywords)

        return construct


@contextlib.contextmanager
def replaced_networks(vgg19: Any = StandInVGG) -> Iterator[Calls]:
    """``torchvision.models.vgg19`` and ``lpips.LPIPS`` are the stand-ins meanwhile."""
    torchvision = import_torchvision()
    import lpips

    calls = Calls()
    with (
        mock.patch.object(torchvision.models, "vgg19", calls.recording("vgg19", vgg19)),
        mock.patch.object(lpips, "LPIPS", calls.recording("LPIPS", StandInLPIPS)),
    ):
        yield calls


@stand_ins("triangulate")
@contextlib.contextmanager
def _networks(run: Run) -> Iterator[None]:
    with replaced_networks() as calls:
        run.network_calls = calls  # type: ignore[attr-defined]  # read by the harness `construction`
        yield


def optioned_class(run: Run) -> Any:
    module, _, name = run.options["class"].rpartition(".")
    return getattr(run.sibling(module), name)


@harness("triangulate", "construction")
def construction(run: Run) -> dict[str, Any]:
    torch.manual_seed(0)
    built = optioned_class(run)(device="cpu")
    return {
        "calls": list(run.network_calls),  # type: ignore[attr-defined]  # the same
        "trainable": [name for name, p in built.named_parameters() if p.requires_grad],
        "training": built.training,
        "training_of_children": {name: child.training for name, child in built.named_children()},
        "state_dict_keys": list(built.state_dict()),
        "n_parameters": len(list(built.parameters())),
    }


class Given(nn.Module):
    """A component loss whose answer is given."""

    def __init__(self, value: Tensor | None = None) -> None:
        super().__init__()
        self.value = value

    def forward(self, *_: Tensor) -> Tensor | None:
        return self.value


def give(owner: nn.Module, values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        setattr(owner, f"{name}_loss", Given(value))


def images() -> tuple[Tensor, Tensor]:
    return torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 1, 1)


def _adaptive(loss: Any, values: dict[str, Tensor], epochs: list[float]) -> dict[str, Any]:
    give(loss, values)
    steps = []
    for epoch in (None, *epochs):
        if epoch is not None:
            loss.update_epoch(epoch)
        answer = loss(*images())
        steps.append(
            {
                "current_epoch": loss.current_epoch,
                "regularization_weight": loss.regularization_weight,
                "regularization": answer["regularization"],
                "total": answer["total"],
            }
        )
    return {"total": sum(step["total"] for step in steps), "steps": steps}


def _multiplicative(loss: Any, values: dict[str, Tensor], train: bool, repeat: int) -> dict[str, Any]:
    loss.to(values["l1"].dtype).train(train)
    answers = []
    for _ in range(repeat):
        for entry in zip(*(values[name] for name in PARTS), strict=True):
            give(loss, dict(zip(PARTS, entry, strict=True)))
            answers.append(loss(*images()))
    stacked = {name: torch.stack([a[name] for a in answers]) for name in ("total", *(f"{p}_norm" for p in PARTS))}
    return {
        "total": stacked.pop("total"),
        "keys": list(answers[0]),
        "buffers": dict(loss.named_buffers(recurse=False)),
        **stacked,
    }


@harness("triangulate", "given_components")
def given_components(
    run: Run,
    perceptual: Tensor,
    l1: Tensor,
    lpips: Tensor,
    epochs: list[float] | None = None,
    train: bool = True,
    repeat: int = 1,
    **init: Any,
) -> dict[str, Any]:
    values = {"perceptual": perceptual, "l1": l1, "lpips": lpips}
    loss = optioned_class(run)(device="cpu", **init)
    if epochs is not None:
        return _adaptive(loss, values, epochs)
    if type(loss).__name__ == "MultiplicativeLoss":
        return _multiplicative(loss, values, train, repeat)
    give(loss, values)
    if type(loss).__name__ == "HybridLoss":
        give(loss.multiplicative_loss, values)
        loss.to(l1.dtype).train(train)
    return loss(*images())
