"""Still images become sequences: presentation patterns, reaction time, delayed outputs.

A *pattern* says at which steps the stimulus is shown; the other steps get a *null input* and the *void label*. After
each *onset* (a step of stimulus behind one without) the labels of the *reaction time* are void as well: the network may
think first. Everything that depends on the configuration alone is computed once; a batch is blanked and masked with
``masked_fill``, without a loop and without looking at values.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..base import require_choice, require_number
from ..base.constants import ConstantsMixin

__all__ = [
    "PresentationSchedule",
    "Rows",
    "Sequences",
    "onset_mask",
    "parse_pattern",
    "reaction_mask",
    "reaction_steps",
    "select_valid",
    "select_void",
    "stretch_pattern",
    "void_mask",
]

Pattern = str | Sequence[int | bool] | Tensor


class Sequences(NamedTuple):
    """Inputs over time and their labels."""

    inputs: Tensor
    targets: Tensor


class Rows(NamedTuple):
    """Outputs ``[M, ...]`` and their labels ``[M]``."""

    outputs: Tensor
    targets: Tensor


def parse_pattern(pattern: Pattern) -> Tensor:
    """The base pattern as booleans ``[P]``.

    Args:
        pattern: zeros and ones as a string (``"1011"``; spaces, commas, semicolons, ``|``, ``_`` and ``-`` may separate
            them), a list or tuple of 0, 1, ``False``, ``True``, or a 1-D tensor.

    Raises:
        ValueError: empty, another type (a bare integer would lose leading zeros), or elements other than 0 and 1.
    """
    if isinstance(pattern, Tensor):
        # a configuration value: read once, when the schedule is built
        pattern = pattern.tolist() if pattern.dim() == 1 else []
    if isinstance(pattern, str):
        elements: list[object] = [int(c) if c in "01" else c for c in re.sub(r"[\s,;|_\-\[\]]", "", pattern)]
    elif isinstance(pattern, Sequence):
        elements = list(pattern)
    else:
        raise ValueError(f"pattern must be a string or a list of 0 and 1, found {pattern!r}")
    if not elements or any(element not in (0, 1) for element in elements):
        raise ValueError(f"pattern must be a non-empty string or list of 0 and 1, found {pattern!r}")
    return torch.tensor([bool(element) for element in elements])


def stretch_pattern(pattern: Tensor, n_steps: int) -> Tensor:
    """A base pattern ``[P]`` stretched or thinned to ``[T]``: step ``t`` takes element ``floor(t P / T)``.

    ``1011`` over 10 steps is ``1110011111``; a pattern is never tiled, and ``T`` need not be a multiple of ``P``.
    """
    require_number("n_steps", n_steps, low=1, integer=True)
    steps = torch.arange(n_steps, device=pattern.device)
    return pattern[steps * pattern.shape[0] // n_steps]


def reaction_steps(reaction_time: float, dt: float) -> int:
    """Steps of a reaction time: ``ceil(reaction_time / dt)``, at least 1 unless it is 0.

    A quotient within 1e-9 above an integer counts as that integer: 4.2 / 0.7 is 6 steps, not 7.

    Args:
        reaction_time: milliseconds (any unit that ``dt`` has too).
        dt: length of a step.
    """
    require_number("reaction_time", reaction_time, low=0.0)
    require_number("dt", dt, low=0.0, exclusive=True)
    if reaction_time == 0:
        return 0
    quotient = reaction_time / dt
    return max(1, math.ceil(quotient - 1e-9 * max(1.0, quotient)))


def onset_mask(pattern: Tensor) -> Tensor:
    """Steps at which the stimulus appears: on, and off (or nothing) one step before. Booleans ``[T] -> [T]``."""
    before = torch.cat([pattern.new_zeros(min(1, pattern.shape[0])), pattern[:-1]])
    return pattern & ~before


def reaction_mask(pattern: Tensor, n_reaction: int) -> Tensor:
    """Steps less than ``n_reaction`` after the latest onset; the window may reach past the end of its chunk."""
    steps = torch.arange(pattern.shape[0], device=pattern.device)
    if n_reaction == 0 or pattern.shape[0] == 0:
        return torch.zeros_like(pattern)
    latest = torch.where(onset_mask(pattern), steps, -n_reaction).cummax(0).values
    return steps - latest < n_reaction


def void_mask(pattern: Tensor, reaction_time: float = 0.0, dt: float = 2.0) -> Tensor:
    """Steps without a label: no stimulus, or still within the reaction time. Booleans ``[T] -> [T]``."""
    return ~pattern | reaction_mask(pattern, reaction_steps(reaction_time, dt))


def select_valid(outputs: Tensor, targets: Tensor, ignore_index: int = -1) -> Rows:
    """Rows of ``outputs`` ``[N, ...]`` and ``targets`` ``[N]`` whose label is not void, order kept.

    The number of rows depends on the values, so a GPU is waited for; the losses of this package mask instead.
    """
    return _select(outputs, targets, targets != ignore_index)


def select_void(outputs: Tensor, targets: Tensor, ignore_index: int = -1) -> Rows:
    """The rows that :func:`select_valid` leaves out."""
    return _select(outputs, targets, targets == ignore_index)


def _select(outputs: Tensor, targets: Tensor, chosen: Tensor) -> Rows:
    if targets.dim() != 1 or outputs.shape[:1] != targets.shape:
        raise ValueError(
            f"outputs must be [N, ...] and targets [N], found {list(outputs.shape)} and {list(targets.shape)}"
        )
    chosen = chosen.to(outputs.device)
    return Rows(outputs[chosen], targets.to(outputs.device)[chosen])


class PresentationSchedule(ConstantsMixin):
    """Shows each image of a batch over ``T`` steps by a pattern, and voids the labels that are not meant.

    Use it where batches enter the training step; ``TemporalCrossEntropyLoss`` with the same ``ignore_index`` reads the
    labels. It has no parameters and nothing in its ``state_dict``; as a sub-module it moves with the model and shuffles
    only in training mode.

    Rules, with ``s_t`` the pattern stretched to ``T`` steps and ``r`` the reaction time in steps:
        * input ``t`` is the image where ``s_t = 1``, else ``null_value``;
        * label ``t`` is void where ``s_t = 0`` or fewer than ``r`` steps have passed since the latest onset;
        * with ``output_delay = R`` the inputs get ``R`` null steps at the end and the labels move ``R`` steps back
          (void first), so that label ``t + R`` meets the output that answers input ``t``.
        * ``n_steps = 1`` shows the image once, with its label.

    Args:
        pattern: see :func:`parse_pattern`.
        n_steps: ``T``.
        dt: length of a step in milliseconds.
        reaction_time: milliseconds after each onset without a label; also for patterns of length one.
        ignore_index: the void label.
        null_value: what null steps show: a number, or a tensor that broadcasts against one image (a grey per channel).
        shuffle: permute the base pattern anew for every training batch. Needs ``generator``.
        output_delay: ``R``, steps until an input reaches the output.
        sequences: what happens to inputs that already have ``T`` steps: ``keep`` them and their labels (loaders of
            sequences void their own labels), or ``mask`` them like images.
        generator: source of the shuffling, on the CPU.

    Shapes:
        Images ``[B, ...]`` with targets ``[B]`` or ``[B, 1]`` (then ``[B, 1, ...]``), or sequences ``[B, T, ...]`` with
        ``[B, T]``. Returned: ``[B, T + R, ...]`` and ``[B, T + R]``.

    Warns:
        UserWarning, once, at construction: a chunk of stimulus is not longer than the reaction time, so that none of
        its labels is left; or no label at all is left. (Not for shuffled patterns, which differ from batch to batch.)

    Raises:
        ValueError: an argument out of range, shapes that do not fit.

    Differs from the methods of ``dynvision.base.TemporalBase`` at the documented version: patterns of length one
    respect the reaction time, null steps show ``null_value`` instead of 0, labels follow the delay, a reaction time of
    4.2 at ``dt=0.7`` is 6 steps (7 there), shuffling stops in evaluation, and the promised warning comes.
    """

    pattern: Tensor
    null_steps: Tensor
    void_steps: Tensor
    null_value: Tensor | float

    def __init__(
        self,
        *,
        pattern: Pattern = "1",
        n_steps: int = 1,
        dt: float = 2.0,
        reaction_time: float = 0.0,
        ignore_index: int = -1,
        null_value: float | Tensor = 0.0,
        shuffle: bool = False,
        output_delay: int = 0,
        sequences: str = "keep",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        base = parse_pattern(pattern)
        require_number("n_steps", n_steps, low=1, integer=True)
        require_number("ignore_index", ignore_index, integer=True)
        require_number("output_delay", output_delay, low=0, integer=True)
        require_choice("sequences", sequences, ("keep", "mask"))
        if shuffle and generator is None:
            raise ValueError("shuffle=True needs a generator (a torch.Generator on the CPU), found None")
        self.n_steps = n_steps
        self.dt = dt
        self.reaction_time = reaction_time
        self.n_reaction = reaction_steps(reaction_time, dt)
        self.ignore_index = ignore_index
        self.shuffle = shuffle
        self.output_delay = output_delay
        self.sequences = sequences
        self.generator = generator
        self.base_pattern = base
        if isinstance(null_value, Tensor):
            self.register_constant("null_value", null_value.detach().clone)
        else:
            self.null_value = null_value
        with torch.device("cpu"):
            shown = stretch_pattern(base, n_steps)
            void = ~shown | reaction_mask(shown, self.n_reaction)
        for name, mask in (("pattern", shown), ("null_steps", ~shown), ("void_steps", void)):
            self.register_constant(name, mask.clone)
        self._masks_inputs = n_steps > 1 and not bool(shown.all())
        self._masks_labels = n_steps > 1 and bool(void.any())
        if n_steps > 1 and not shuffle:
            self._warn(shown)

    def _warn(self, shown: Tensor) -> None:
        chunks = [len(chunk) for chunk in re.findall("1+", "".join("01"[on] for on in shown.tolist()))]
        lost = [length for length in chunks if length <= self.n_reaction]
        written = "".join("01"[on] for on in shown.tolist())
        if len(lost) == len(chunks):
            warnings.warn(
                f"no label is left: none of the {len(chunks)} stimulus chunks of {written!r} is longer than the "
                f"reaction time {self.reaction_time:g} ({self.n_reaction} steps of dt={self.dt:g}). The cross entropy "
                f"will be 0. Shorten reaction_time, or give a pattern or n_steps with longer chunks",
                stacklevel=3,
            )
        elif lost:
            warnings.warn(
                f"{len(lost)} of {len(chunks)} stimulus chunks of {written!r} (the shortest lasts "
                f"{min(lost) * self.dt:g}) are not longer than the reaction time {self.reaction_time:g} and will be "
                f"ignored altogether",
                stacklevel=3,
            )

    def forward(self, inputs: Tensor, targets: Tensor) -> Sequences:
        """The batch over time."""
        sequence = targets.dim() == 2 and targets.shape[1] > 1
        if targets.dim() not in (1, 2) or inputs.shape[: targets.dim()] != targets.shape:
            raise ValueError(
                f"inputs must be [B, ...] with targets [B], or [B, T, ...] with [B, T], "
                f"found {list(inputs.shape)} and {list(targets.shape)}"
            )
        if sequence and self.sequences == "mask" and targets.shape[1] != self.n_steps:
            raise ValueError(f"inputs must have n_steps={self.n_steps} steps, found {targets.shape[1]}")
        if targets.dim() == 1:
            inputs, targets = inputs[:, None], targets[:, None]
        if not sequence:
            inputs = inputs.expand(-1, self.n_steps, *inputs.shape[2:])
            targets = targets.expand(-1, self.n_steps)
        if not sequence or self.sequences == "mask":
            inputs, targets = self._mask(inputs, targets)
        if self.output_delay:
            null = self._null_input(inputs).expand(inputs.shape[0], self.output_delay, *inputs.shape[2:])
            void = targets.new_full((targets.shape[0], self.output_delay), self.ignore_index)
            inputs, targets = torch.cat([inputs, null], dim=1), torch.cat([void, targets], dim=1)
        return Sequences(inputs, targets)

    def _mask(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        null, void = self.null_steps, self.void_steps
        masks_inputs, masks_labels = self._masks_inputs, self._masks_labels
        if self.shuffle and self.training and self.n_steps > 1:
            order = torch.randperm(self.base_pattern.shape[0], generator=self.generator)
            shown = stretch_pattern(self.base_pattern[order], self.n_steps)
            null, void = ~shown, ~shown | reaction_mask(shown, self.n_reaction)
            masks_inputs = masks_labels = True
        if masks_inputs:
            steps = null.to(inputs.device).view(-1, *[1] * (inputs.dim() - 2))
            inputs = torch.where(steps, self._null_input(inputs), inputs)
        if masks_labels:
            targets = targets.masked_fill(void.to(targets.device), self.ignore_index)
        return inputs, targets

    def _null_input(self, inputs: Tensor) -> Tensor:
        value = self.null_value
        return value.to(inputs) if isinstance(value, Tensor) else inputs.new_full((), value)

    def extra_repr(self) -> str:
        """Configuration."""
        return (
            f"n_steps={self.n_steps}, dt={self.dt}, reaction_time={self.reaction_time}, "
            f"output_delay={self.output_delay}, ignore_index={self.ignore_index}, shuffle={self.shuffle}"
        )
