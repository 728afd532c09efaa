"""How exact the float32 gradients of all losses are at real sizes, beside the plain formula and the old twin.

``measure(case, size, scale)`` gives relative errors (norm over all gradients) against the float64 gradient at the same
inputs: of the loss; of its *plain* form, where every hand-written backward pass is replaced by a formula that autograd
differentiates; of the twin, where one has the same arguments; and how far the float64 gradient itself moves if
every input moves by one float32 rounding, which no implementation can avoid.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from training_losses import LossRegistry
from training_losses.alignment import lav, sinkhorn
from training_losses.alignment import soft_dtw as soft_dtw_module
from training_losses.contrastive import moco, moco_loss

EPS = torch.finfo(torch.float32).eps
FLOOR = 32 * EPS
"""Errors below are rounding."""
SPOILT = 0.1
"""Yardsticks above show that a float32 gradient is lost: then the exact backward pass is the yardstick."""

Size = tuple[int, int]
Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class RealCase:
    """A loss with inputs of any size; ``inputs(draw, n, d)`` gives the arguments of a call."""

    name: str
    inputs: Callable[[Callable[..., Tensor], int, int], Call]
    kwargs: Callable[[int], dict[str, Any]] = lambda width: {}
    sizes: tuple[Size, Size, Size] = ((32, 64), (128, 256), (256, 768))
    scales: tuple[float, float, float] = (0.1, 1.0, 10.0)
    handmade: bool = False
    """Whether a backward pass in it is written by hand."""
    twin: Callable[..., Tensor] | None = None
    warm: int = 0
    """Calls before the one that is measured."""

    def build(self, width: int, dtype: torch.dtype) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return LossRegistry.create(self.name, **self.kwargs(width)).to(dtype)

    def call(self, size: Size, scale: float, seed: int = 0) -> Call:
        """Arguments in float32, so that float64 sees the same numbers."""
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int, positive: bool = False) -> Tensor:
            made = torch.rand(shape, generator=generator) if positive else torch.randn(shape, generator=generator)
            return made * scale

        return self.inputs(draw, *size)


@dataclass(frozen=True)
class Errors:
    """Relative errors of float32 gradients."""

    new: float
    plain: float | None
    twin: float | None
    rounding: float

    def bound(self) -> float:
        """What the error may be: twice the better of plain formula and twin, or of what rounding the inputs does."""
        known = [error for error in (self.plain, self.twin) if error is not None and not math.isnan(error)]
        better = min(known) if known else math.inf
        if better > SPOILT:
            better = self.rounding
        return max(FLOOR, 2 * better if known else 32 * self.rounding)


def gradient(loss: Callable[..., Any], call: Call, dtype: torch.dtype) -> Tensor:
    """Of the sum of the loss by all floating inputs, in one vector of float64."""
    leaves: list[Tensor] = []

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            leaves.append(value.detach().to(dtype).requires_grad_())
            return leaves[-1]
        return value

    args, kwargs = pytree.tree_map(leaf, call)
    out = loss(*args, **kwargs)
    total = (out if isinstance(out, Tensor) else out["loss"]).sum()
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return torch.cat([g.double().flatten() for g in found if g is not None])


def measure(case: RealCase, size: Size, scale: float) -> Errors:
    """All errors of one case."""
    call = case.call(size, scale)

    def of(dtype: torch.dtype, given: Call = call) -> Tensor:
        loss = case.build(size[1], dtype)
        for seed in range(1, case.warm + 1):
            loss(*pytree.tree_map(lambda t: t.to(dtype) if is_real(t) else t, case.call(size, scale, seed))[0])
        return gradient(copy.deepcopy(loss), given, dtype)

    truth = of(torch.float64)
    norm = truth.norm().clamp_min(torch.finfo(torch.float64).tiny)

    def error(found: Tensor) -> float:
        return float((found - truth).norm() / norm)

    signs = torch.Generator().manual_seed(7)
    moved = pytree.tree_map(
        lambda t: t.double() * (1 + EPS / 2 * torch.randn(t.shape, generator=signs)) if is_real(t) else t, call
    )
    plain = twin = None
    if case.handmade:
        with plain_formulas():
            plain = error(of(torch.float32))
    if case.twin is not None:
        twin = error(gradient(case.twin, call, torch.float32))
    return Errors(error(of(torch.float32)), plain, twin, error(of(torch.float64, moved)))


def is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


# ----------------------------------------------------------------------------------------------------- plain formulas
def plain_soft_dtw(cost: Tensor, gamma: float, *, batch_last: bool = False, **options: Any) -> Tensor:
    """Soft-DTW of whole tables in the dtype of the costs, differentiated by autograd."""
    cost = cost.permute(2, 0, 1) if batch_last else cost
    batch, rows, columns = cost.shape
    assert all(
        list(options.get(name) or [n] * batch) == [n] * batch
        for name, n in (("lengths_x", rows), ("lengths_y", columns))
    )
    far = cost.new_full((batch, 1), torch.finfo(cost.dtype).max / 4)
    # two diagonals of sums, by row, with a row more in front
    older = torch.cat([cost.new_zeros(batch, 1), far.expand(-1, rows)], dim=1)
    last = far.expand(-1, rows + 1)
    i = torch.arange(rows)
    for k in range(rows + columns - 1):
        j = k - i
        inside = (j >= 0) & (j < columns)
        before = torch.stack([last[:, :-1], last[:, 1:], older[:, :-1]]) / -gamma
        least = -gamma * torch.logsumexp(before, dim=0)
        now = torch.where(inside, cost[:, i, j.clamp(0, columns - 1)] + least, far)
        older, last = last, torch.cat([far, now], dim=1)
    return last[:, -1]


def plain_costs(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances, summed directly."""
    return torch.stack([(x[:, None] - y).square().sum(dim=2) for x, y in zip(a, b, strict=True)])


def plain_bank(query: Tensor, bank: Tensor, scale: Any, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Log-sum-exp over a bank, which the queue changes in place afterwards."""
    scaled = ((query * scale) @ bank.to(query.dtype, copy=True).mT).masked_fill(~keep, -torch.inf)
    return torch.logsumexp(scaled, dim=1), scaled.detach().amax(dim=1)


def plain_plan(
    cost: Tensor, scale: Tensor, fixed: Any, masses: tuple[Tensor, Tensor], cells: Any, blocks: Any
) -> Tensor:
    """Sinkhorn's iterations, unrolled."""
    kernel = torch.exp(-cost / scale if cells is None else -cost * cells / scale)
    kernel = kernel if blocks is None else kernel * blocks
    rows, columns = masses
    u = torch.ones_like(rows)
    v = torch.ones_like(columns)
    for _ in range(fixed[0]):
        v = columns / (kernel * u[:, :, None]).sum(dim=1)
        u = rows / (kernel * v[:, None, :]).sum(dim=2)
    plan = u[:, :, None] * kernel * v[:, None, :]
    return plan if cells is None else plan * cells


@contextmanager
def plain_formulas() -> Iterator[None]:
    """Every hand-written backward pass is replaced by a formula for autograd, in the dtype of the inputs."""
    with ExitStack() as stack:
        # what a compiler gets is free of such passes
        stack.enter_context(patch("torch.compiler.is_compiling", return_value=True))
        for module in (lav, soft_dtw_module):
            stack.enter_context(patch.object(module, "soft_dtw", plain_soft_dtw))
            stack.enter_context(patch.object(module, "most_precise", lambda x: x))
            stack.enter_context(patch.object(module, "squared_costs", lambda a, b: plain_costs(a, b).permute(1, 2, 0)))
        stack.enter_context(patch.object(moco, "bank_logsumexp_max", plain_bank))
        stack.enter_context(patch.object(moco_loss, "bank_logsumexp", lambda *args: plain_bank(*args)[0]))
        stack.enter_context(patch.object(sinkhorn._KernelPlan, "apply", plain_plan))
        yield


# -------------------------------------------------------------------------------------------------------------- cases
Draw = Callable[..., Tensor]


class Absolute(nn.Module):
    """Mean absolute difference."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().mean()


class Square(nn.Module):
    """Mean squared difference."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().mean()


class Channels(nn.Module):
    """A stand-in for a perceptual network: one number an image."""

    def forward(self, a: Tensor, b: Tensor, *_: Any, **__: Any) -> Tensor:
        return (a - b).square().sum(1, keepdim=True).mean((2, 3), keepdim=True)


def pair(draw: Draw, n: int, d: int) -> Call:
    return (draw(n, d), draw(n, d)), {}


def pair_with_ids(draw: Draw, n: int, d: int) -> Call:
    return (draw(n, d), draw(n, d)), {"match_ids": torch.arange(n) // 2}


def keys(draw: Draw, n: int, d: int) -> Call:
    return (draw(n, d), draw(n, d), draw(n, d), draw(n, d)), {"match_ids": torch.arange(n) // 2}


def labelled(draw: Draw, n: int, d: int) -> Call:
    return (draw(n, d), draw(n, d)), {"labels": torch.arange(n) // 2 % 8}


def mixed(draw: Draw, n: int, d: int) -> Call:
    return (draw(n, d), draw(n, d)), {"match_ids": torch.arange(n) // 2, "labels": torch.arange(n) % 8}


def multitask_pairs(draw: Draw, n: int, d: int) -> Call:
    classes = {"class_logits": draw(n, 10), "class_labels": torch.arange(n) % 10}
    matching = {"matching_logits": draw(n), "matching_labels": torch.arange(n) % 2}
    return (draw(n, d), draw(n, d)), {"match_ids": torch.arange(n) // 2, **classes, **matching}


def levels(draw: Draw, n: int, d: int) -> Call:
    return ([draw(n, 8, d), draw(n, 4, d)], [draw(n, 8, d), draw(n, 4, d)]), {}


def images(draw: Draw, n: int, d: int) -> Call:
    return (draw(n, 3, d, d, positive=True), draw(n, 3, d, d, positive=True)), {}


def classes(draw: Draw, n: int, d: int) -> Call:
    return (draw(n, d), torch.arange(n) % d), {}


def classes_over_time(draw: Draw, n: int, d: int) -> Call:
    return (draw(n, 4, d), (torch.arange(4 * n) % d).view(n, 4)), {}


def references(draw: Draw, n: int, d: int) -> Call:
    names = ("vision_features", "text_features", "reference_vision_features", "reference_text_features")
    return (), {name: draw(n, d) for name in names}


def activations(draw: Draw, n: int, d: int) -> Call:
    return (), {"activations": {"first": draw(n, d), "second": draw(n, d)}}


def tasks(draw: Draw, n: int, d: int) -> Call:
    return ({"x": draw(n, d), "y": draw(n, d)}, {"x": draw(n, d), "y": draw(n, d)}), {}


def two_clips(draw: Draw, n: int, d: int) -> Call:
    return ([draw(n, d), draw(n, d)],), {}


def one_clip(draw: Draw, n: int, d: int) -> Call:
    return (draw(n, d),), {}


def two_clips_at_a_step(draw: Draw, n: int, d: int) -> Call:
    return ([draw(n, d), draw(n, d)], 10), {}


def two_clips_with_mixtures(draw: Draw, n: int, d: int) -> Call:
    """The fit itself has no gradient; it is given, so that both precisions have one."""
    frames = min(20, n)
    spread = torch.Generator().manual_seed(3)
    found = [
        (torch.softmax(4 * torch.randn(frames, 2, n, generator=spread), dim=2), torch.full((frames, 2), 0.5))
        for _ in range(2)
    ]
    fixed = {"mixtures": [tuple(t.tolist() for t in each) for each in found]}
    chosen = {"sampled_frames": [torch.arange(frames)] * 2, "window_sides": [0, 1]}
    return ([draw(n, d), draw(n, d)],), fixed | chosen


def model_output(draw: Draw, n: int, d: int) -> Call:
    return ({"outputs": [draw(n, d), draw(n, d)]},), {}


def batch_of_two(draw: Draw, n: int, d: int) -> Call:
    return (draw(2, n, d), draw(2, n, d)), {}


def terms(width: int) -> dict[str, Any]:
    return {"terms": {"absolute": Absolute(), "square": Square()}}


def queue(width: int) -> dict[str, Any]:
    return {"embed_dim": width, "queue_size": 1024}


def vgg() -> nn.Module:
    """The layers of VGG 19 with eight channels."""
    found: list[nn.Module] = []
    channels = 3
    for width in (8, 8, 0, 8, 8, 0, 8, 8, 8, 8, 0, 8, 8, 8, 8):
        found += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        channels = width or channels
    return nn.Sequential(*found)


def networks(width: int) -> dict[str, Any]:
    perceptual = LossRegistry.create("vgg_perceptual", backbone=vgg())
    return {"networks": {"perceptual": perceptual, "l1": Absolute(), "lpips": Square()}}


def old(name: str, **options: Any) -> Callable[..., Tensor]:
    """An alignment twin under its old name."""

    def call(*args: Any, **kwargs: Any) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from training_losses.legacy.alignment import loss_functions, softdtw

            if name == "SoftDTW":
                return softdtw.SoftDTW(**options)(*args, **kwargs)  # type: ignore[no-any-return]
            return getattr(loss_functions, name)(*args, **kwargs, **options)  # type: ignore[no-any-return]

    return call


CLIPS: tuple[Size, Size, Size] = ((32, 32), (64, 128), (128, 256))
PIXELS: tuple[Size, Size, Size] = ((2, 32), (2, 48), (2, 64))
LONG: dict[str, Any] = {"sizes": ((64, 32), (128, 128), (256, 512)), "scales": (1.0, 10.0, 100.0)}

CASES = [
    *(RealCase(name, pair) for name in ("dcl", "mse", "simclr", "sigreg")),
    *(
        RealCase(name, pair, handmade=True)
        for name in ("adaptive_vicreg", "barlow_twins", "decorrelation", "hybrid_pretrain_vicreg", "vicreg")
    ),
    *(
        RealCase(name, pair_with_ids)
        for name in ("clip", "dynamic_temperature", "hard_negative", "info_nce", "intra_inter_modal")
    ),
    *(RealCase(name, pair, terms) for name in ("geometric_mean", "gradnorm", "product", "uncertainty", "weighted_sum")),
    *(
        RealCase(name, levels, sizes=((8, 64), (32, 256), (64, 384)), handmade=True)
        for name in ("contrastive_jepa", "hjepa", "hjepa_combined")
    ),
    *(
        RealCase(name, images, networks, sizes=PIXELS)
        for name in ("image_geometric_mean", "image_product", "image_weighted_sum")
    ),
    RealCase("vgg_perceptual", images, lambda width: {"backbone": vgg()}, sizes=PIXELS),
    RealCase("lpips", images, lambda width: {"backbone": Channels()}, sizes=PIXELS),
    RealCase(
        "cross_modal_vicreg",
        pair,
        lambda width: {"vision_dim": width, "text_dim": width, "projection_dim": 64},
        handmade=True,
    ),
    RealCase("cross_entropy", classes),
    RealCase("temporal_cross_entropy", classes_over_time),
    RealCase("energy", activations, handmade=True),
    RealCase("feature_consistency", references),
    RealCase(
        "image_text_multitask", multitask_pairs, lambda width: {"classification_weight": 1.0, "matching_weight": 1.0}
    ),
    RealCase("memory_queue", pair, queue, handmade=True, warm=3),
    RealCase("moco", lambda *args: (keys(*args)[0], {}), queue, handmade=True, warm=3),
    RealCase("mixed_contrastive", mixed),
    RealCase("supcon", labelled),
    RealCase("multitask", tasks, lambda width: {"tasks": {"x": Square(), "y": Absolute()}}),
    RealCase("intra_contrast", one_clip, sizes=CLIPS),
    RealCase("gtcc", two_clips_with_mixtures, lambda width: {"num_components": 2, "stable": True}, sizes=CLIPS),
    RealCase("tcc", two_clips, sizes=CLIPS, twin=old("TCC_loss")),
    RealCase("alignment", model_output, lambda width: {"losses": {"tcc": {}, "lav": {}}}, sizes=CLIPS, handmade=True),
    RealCase("vava", two_clips_at_a_step, sizes=CLIPS, handmade=True, twin=old("VAVA_loss")),
    RealCase("lav", two_clips, sizes=((64, 128), (64, 256), (128, 256)), handmade=True, twin=old("LAV_loss")),
    RealCase("soft_dtw", batch_of_two, handmade=True, twin=old("SoftDTW", gamma=1.0), **LONG),
]
