"""Generalised temporal cycle-consistency: through several places, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..base import keeps_state, require_choice, require_floating, require_number
from ..functional import autocast_off
from ..loss_registry import LossRegistry
from .mixture_fit import FIT_METHODS, FIT_OBJECTIVES, fit_histogram_mixture
from .presets import PresetMixin
from .sequences import DIRECT_LIMIT, Sequences, SequencesLike, distances, ordered_pairs

__all__ = ["GTCCLoss", "gtcc_loss"]

Mixtures = Sequence[tuple[Tensor, Tensor]]


class _FiniteGradient(torch.autograd.Function):
    """Nothing, with 0 for what is not finite in the gradient: frames that are left out may have such derivatives."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return torch.nan_to_num(grads[0], 0.0, 0.0, 0.0)


def _finite(x: Tensor) -> Tensor:
    """``x`` with 0 for what is not finite, in its gradient too."""
    found: Tensor = _FiniteGradient.apply(x.masked_fill(~torch.isfinite(x), 0.0))  # type: ignore[no-untyped-call]
    return found


@LossRegistry.register("gtcc")
class GTCCLoss(PresetMixin):
    """Temporal cycle-consistency with a mixture of return points and a weight that lets frames drop out.

    Use it for recordings whose steps are repeated, reordered, or interrupted by background.

    For each sequence ``X`` (``N`` frames) with a random half window ``V`` and up to ``num_frames`` random frames
    ``a``, and for each other sequence ``Y``, with temperature ``t`` and ``K`` components::

        alpha_a = softmax(-|x_a - y_m| / t);    (g, psi) = Gaussian mixture fitted to alpha_a (no gradient)
        z_ak    = sum_m g_akm y_m
        beta_ak = V_a exp(-|z_ak - x_l| / t) / (sum_l of it + 1e-6),   mu_ak = sum_l beta_akl l
        L_a     = sum_k psi_ak ((a - mu_ak)^2 + variance_weight log(sqrt(var_ak) + 1e-20))
        term_a  = k_a L_a + (1 - k_a) / L_a

    ``k_a = f + (1 - f) sigmoid(q_a)``, ``f = keep_floor_decay^(epoch + 1)``, ``q`` the standardised scores ``X v +
    v_0`` of the frames by the drop vector ``(v, v_0)`` of ``Y``; with ``keep_floor_decay`` 1 (default) ``term_a =
    L_a`` and no drop vectors are needed. The loss is the sum over pairs and frames.

    Paper: Donahue and Elhamifar 2024 (CVPR). It has ``divide_by_variance=True``, ``window="centered"``,
    ``fit_objective="kl"``, ``standardize_drop_logits=False``: ``GTCCLoss.preset("paper")``, with ``stable`` weights.
    ``preset("gtcc_repository")`` has the numbers that its authors train with (on EgoProceL, CMU and EGTEA).

    Args:
        num_components: ``K``, at least 1.
        keep_floor_decay: greater than 0; below 1 the drop weighting is on.
        window_fraction: width of the window relative to ``N``, from 0.05 to 1.
        temperature: ``t``, greater than 0.
        variance_weight: at least 0.
        fit_steps: four steps of the mixture fit each.
        num_frames: sampled frames of each sequence (all, if it is shorter).
        window: ``random_side`` (ahead or behind, with full corners) or ``centered``.
        divide_by_variance: divide ``(a - mu)^2`` by ``var``.
        stable: a masked softmax in place of ``exp / (sum + 1e-6)``, whose mass fades for distant embeddings.
        standardize_drop_logits: as above.
        fit: ``quasi_newton`` or ``em``, as the method of ``fit_histogram_mixture``.
        fit_objective: ``jeffreys`` or ``kl``; ``kl`` with ``em``.
        on_failure: ``raise`` ``FloatingPointError`` for a fit or a value that is not finite, or ``skip`` such frames
            (and sequences with embeddings or a drop vector that are not finite): they add nothing, also not to the
            gradient. ``raise`` looks at the results on the host, once a sequence and once a call, for which an
            accelerator has to be waited for; ``skip`` does not.
        seed: of the frames and sides that are drawn, others at every call in training mode (their number is part of the
            state_dict), always the same in evaluation mode.
        frame_reduction: ``sum`` over the frames of a pair, or ``mean``.

    Shape: a list of ``S`` tensors ``[N_i, D]``, or a padded batch ``([S, L, D], lengths)``; the result is 0-d. Fewer
    than two sequences give a zero that keeps the graph. No gradient goes through ``alpha``.

    Raises:
        ValueError: an option out of range, missing drop vectors, an empty list, mixed sizes, dtypes or devices.
        FloatingPointError: see ``on_failure``.

    torch.compile: not supported (frames and sides are drawn on the host).

    Differs from the old ``GTCC_loss``: no process exits; no draws from global generators, so that frames and windows
    are others; any dtype; fewer than 20 frames work; the result is 0-d for ``K = 1``; fits of all rows at once, by a
    different line search; constant drop scores are finite. With frames, sides and mixtures given, values and
    gradients are the same.
    """

    PRESETS = {
        "paper": {
            "divide_by_variance": True,
            "window": "centered",
            "fit_objective": "kl",
            "standardize_drop_logits": False,
            "stable": True,
        },
        "gtcc_repository": {
            "temperature": 0.1,
            "num_components": 15,
            "window_fraction": 0.2,
            "keep_floor_decay": 0.95,
        },
    }

    def __init__(
        self,
        *,
        num_components: int = 1,
        keep_floor_decay: float = 1.0,
        window_fraction: float = 1.0,
        temperature: float = 1.0,
        variance_weight: float = 0.0,
        fit_steps: int = 8,
        num_frames: int = 20,
        window: str = "random_side",
        divide_by_variance: bool = False,
        stable: bool = False,
        standardize_drop_logits: bool = True,
        fit: str = "quasi_newton",
        fit_objective: str = "jeffreys",
        on_failure: str = "raise",
        seed: int = 0,
        frame_reduction: str = "sum",
    ) -> None:
        super().__init__()
        require_number("num_components", num_components, low=1, integer=True)
        require_number("keep_floor_decay", keep_floor_decay, low=0.0, exclusive=True)
        require_number("window_fraction", window_fraction, low=0.05, high=1.0)
        require_number("temperature", temperature, low=0.0, exclusive=True)
        require_number("variance_weight", variance_weight, low=0.0)
        require_number("fit_steps", fit_steps, low=1, integer=True)
        require_number("num_frames", num_frames, low=1, integer=True)
        require_number("seed", seed, low=0, integer=True)
        require_choice("window", window, ("random_side", "centered"))
        require_choice("fit", fit, FIT_METHODS)
        require_choice("fit_objective", fit_objective, FIT_OBJECTIVES if fit == "quasi_newton" else ("kl",))
        require_choice("on_failure", on_failure, ("raise", "skip"))
        require_choice("frame_reduction", frame_reduction, ("sum", "mean"))
        self.num_components, self.window_fraction = num_components, window_fraction
        self.keep_floor_decay = keep_floor_decay
        self.temperature, self.variance_weight, self.fit_steps = temperature, variance_weight, fit_steps
        self.num_frames, self.window, self.divide_by_variance = num_frames, window, divide_by_variance
        self.stable, self.standardize_drop_logits = stable, standardize_drop_logits
        self.fit, self.fit_objective, self.on_failure, self.seed = fit, fit_objective, on_failure, seed
        self.frame_reduction, self.calls = frame_reduction, 0

    def get_extra_state(self) -> dict[str, int]:
        """The number of calls, from which the next draws follow."""
        return {"calls": self.calls}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Continue the draws."""
        self.calls = state["calls"]

    @keeps_state
    def forward(
        self,
        sequences: SequencesLike,
        drop_vectors: Sequence[Tensor] | None = None,
        epoch: int = 0,
        *,
        generator: torch.Generator | None = None,
        sampled_frames: Sequence[Tensor] | None = None,
        window_sides: Sequence[int] | None = None,
        mixtures: Mixtures | None = None,
    ) -> Tensor:
        """The loss of ``[N_i, D]`` sequences.

        Args:
            sequences: the embeddings.
            drop_vectors: one ``[D + 1]`` for each sequence, the last entry being the bias; for ``keep_floor_decay <
                1``.
            epoch: at least 0.
            generator: source of the draws, on the CPU; default: one that depends on ``seed`` and, in
                training, on the number of calls.
            sampled_frames: sorted frame numbers of each sequence, instead of drawn ones.
            window_sides: 0 (ahead) or 1 (behind) for each sequence, instead of drawn ones.
            mixtures: components ``[Q, K, M]`` and weights ``[Q, K]`` of each ordered pair, instead of fitted ones.
        """
        given = Sequences.of(sequences)
        self._check(given, drop_vectors, epoch)
        if len(given) < 2:
            return given.zero
        whole = None
        if self.on_failure == "skip":
            # such entries are left out here, and pairs with them below
            usable = [torch.isfinite(x).all() for x in given.items]
            given = Sequences.of([_finite(x) for x in given.items])
            if drop_vectors is not None:
                usable = [fine & torch.isfinite(v).all() for fine, v in zip(usable, drop_vectors, strict=True)]
                drop_vectors = [_finite(v) for v in drop_vectors]
            whole = torch.stack(usable)
        if generator is None:
            calls = self.calls if self.training else 0
            generator = torch.Generator().manual_seed(self.seed + (calls << 24))
        floor = self.keep_floor_decay ** (epoch + 1)
        known = None if mixtures is None else dict(zip(ordered_pairs(len(given)), mixtures, strict=True))
        with autocast_off(given.padded):
            total = self._sum(given, drop_vectors, floor, generator, sampled_frames, window_sides, known, whole)
        if self.on_failure == "raise" and not bool(torch.isfinite(total.detach())):
            raise FloatingPointError(
                "the loss is not finite: an error of 0 whose inverse is taken, or embeddings that are not finite; "
                "on_failure='skip' leaves such frames out"
            )
        self.calls += self.training  # not before: a call that raises leaves the draws as they were
        return total

    def _sum(
        self,
        given: Sequences,
        drop_vectors: Sequence[Tensor] | None,
        floor: float,
        generator: torch.Generator,
        sampled_frames: Sequence[Tensor] | None,
        window_sides: Sequence[int] | None,
        known: dict[tuple[int, int], Any] | None,
        usable: Tensor | None,
    ) -> Tensor:
        total = given.padded.new_zeros(())
        for i, length in enumerate(given.lengths):
            frames = torch.sort(torch.randperm(length, generator=generator)[: self.num_frames]).values
            side = int(torch.randint(2, (), generator=generator))
            if sampled_frames is not None:
                frames = sampled_frames[i]
            if window_sides is not None:
                side = int(window_sides[i])
            frames = frames.to(given.padded.device)
            window = self._window(length, side).to(given.padded)[frames]
            others = [j for j in range(len(given)) if j != i]
            mixture = self._fit(given, i, frames, others) if known is None else self._given(given, i, others, known)
            keep = None
            if drop_vectors is not None and self.keep_floor_decay < 1:
                scores = self._scores(given.items[i], torch.stack([drop_vectors[j] for j in others]))
                keep = (floor + (1 - floor) * torch.sigmoid(scores))[:, frames]
            pairs = None if usable is None else (usable[i] & usable[others])[:, None]
            total = total + self._primary(given, i, frames, window, others, mixture, keep, pairs)
        return total

    def _check(self, given: Sequences, drop_vectors: Sequence[Tensor] | None, epoch: int) -> None:
        require_number("epoch", epoch, low=0, integer=True)
        if drop_vectors is not None:
            require_floating(**{f"drop_vectors[{place}]": v for place, v in enumerate(drop_vectors)})
        if self.keep_floor_decay < 1:
            width = given.padded.shape[2] + 1
            found = None if drop_vectors is None else [list(v.shape) for v in drop_vectors]
            if found != [[width]] * len(given):
                raise ValueError(
                    f"drop_vectors must be {len(given)} tensors [{width}] for "
                    f"keep_floor_decay={self.keep_floor_decay}, found {found}"
                )

    def _window(self, size: int, side: int) -> Tensor:
        width = max(1, round(size * self.window_fraction))
        index = torch.arange(size)
        ahead = index - index[:, None]
        if self.window == "centered":
            return ahead.abs() <= width // 2
        band = (ahead >= 0) & (ahead < width) if side == 0 else (ahead >= -width) & (ahead < 0)
        # the first and the last frames always see each other
        band[:width, :width] = True
        band[-width:, -width:] = True
        return band

    def _scores(self, x: Tensor, vectors: Tensor) -> Tensor:
        """Drop logits of the frames of ``x`` by the vectors of the other sequences, ``[S - 1, N]``."""
        scores = vectors[:, :-1].to(x) @ x.mT + vectors[:, -1:].to(x)
        if not self.standardize_drop_logits:
            return scores
        centred = scores - scores.mean(dim=1, keepdim=True)
        variance = centred.square().sum(dim=1, keepdim=True) / max(len(x) - 1, 1)
        return centred / variance.clamp_min(torch.finfo(x.dtype).tiny).sqrt()

    def _fit(self, given: Sequences, i: int, frames: Tensor, others: list[int]) -> tuple[Tensor, Tensor]:
        """Components ``[S - 1, Q, K, L]`` and weights ``[S - 1, Q, K]`` for the sampled frames of sequence ``i``."""
        with torch.no_grad():
            x, y = given.items[i][frames], given.padded[others]
            direct = max(given.lengths) <= DIRECT_LIMIT
            logits = distances(x.expand(len(others), -1, -1), y, direct=direct) / -self.temperature
            alpha = torch.softmax(logits.masked_fill(~given.mask[others][:, None], -torch.inf), dim=2)
            lengths = torch.tensor([given.lengths[j] for j in others], device=x.device)
            components, weights = fit_histogram_mixture(
                alpha.flatten(0, 1),
                self.num_components,
                lengths=lengths.repeat_interleave(len(frames)),
                steps=4 * self.fit_steps,
                objective=self.fit_objective,
                method=self.fit,
            )
            if self.on_failure == "raise" and not bool(torch.isfinite(components).all()):
                raise FloatingPointError(
                    f"the mixture fit of sequence {i} failed: its embeddings, or those of another one, are not finite"
                )
        shape = (len(others), len(frames), self.num_components)
        return components.view(*shape, -1), weights.view(shape)

    @staticmethod
    def _given(given: Sequences, i: int, others: list[int], known: dict[tuple[int, int], Any]) -> tuple[Tensor, Tensor]:
        size, like = given.longest, given.padded
        parts = [[torch.as_tensor(part).to(like) for part in known[i, j]] for j in others]
        components = [torch.nn.functional.pad(g, (0, size - g.shape[-1])) for g, _ in parts]
        return torch.stack(components), torch.stack([w for _, w in parts])

    def _primary(
        self,
        given: Sequences,
        i: int,
        frames: Tensor,
        window: Tensor,
        others: list[int],
        mixture: tuple[Tensor, Tensor],
        keep: Tensor | None,
        usable: Tensor | None,
    ) -> Tensor:
        """The terms of sequence ``i`` with all others."""
        x, (components, weights) = given.items[i], mixture
        index = given.index[: len(x)]
        through = components.flatten(1, 2) @ given.padded[others]
        direct = max(len(x), self.num_components) <= DIRECT_LIMIT
        gaps = distances(through, x.expand(len(others), -1, -1), direct=direct)
        gaps = gaps.view(*components.shape[:3], len(x)) / -self.temperature
        window = window[:, None]
        if self.stable:
            beta = torch.softmax(gaps.masked_fill(window == 0, -torch.inf), dim=-1)
        else:
            beta = window * torch.exp(gaps)
            beta = beta / (beta.sum(dim=-1, keepdim=True) + 1e-6)
        mean = beta @ index
        missed = (frames[:, None] - mean).square()
        if self.divide_by_variance or self.variance_weight > 0:
            spread = (beta * (index - mean[..., None]).square()).sum(dim=-1)
            spread = spread.clamp_min(torch.finfo(x.dtype).tiny ** 0.5)
            if self.divide_by_variance:
                missed = missed / spread
            missed = missed + self.variance_weight * torch.log(spread.sqrt() + 1e-20)
        error = (weights * missed).sum(dim=-1)
        fine = None
        if usable is not None:
            # an error whose inverse, or the square of it, is out of range counts as a failure, too
            smallest = 0.0 if keep is None else torch.finfo(error.dtype).tiny ** 0.25
            fine = usable & torch.isfinite(error) & (error >= smallest)
            error = torch.where(fine, error, 1.0)
        term = error if keep is None else keep * error + (1 - keep) / error
        if fine is not None:
            term = torch.where(fine, term, 0.0)
        return term.sum() / (len(frames) if self.frame_reduction == "mean" else 1)


def gtcc_loss(
    sequences: SequencesLike,
    *,
    num_components: int = 1,
    keep_floor_decay: float = 1.0,
    window_fraction: float = 1.0,
    drop_vectors: Sequence[Tensor] | None = None,
    temperature: float = 1.0,
    variance_weight: float = 0.0,
    fit_steps: int = 8,
    epoch: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """:class:`GTCCLoss` with the options that the old function had, as a function.

    Without a ``generator`` every call draws the same frames; give one in training.
    """
    loss = GTCCLoss(
        num_components=num_components,
        keep_floor_decay=keep_floor_decay,
        window_fraction=window_fraction,
        temperature=temperature,
        variance_weight=variance_weight,
        fit_steps=fit_steps,
    )
    return loss.forward(sequences, drop_vectors, epoch, generator=generator)
