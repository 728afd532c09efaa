"""Schedules that live in the state_dict and never synchronise with the device."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor, nn

from .base_loss import require_choice, require_numbers

logger = logging.getLogger(__name__)

WARMUPS = ("linear", "cosine", "damped")


class WarmupFactor(nn.Module):
    """A factor that grows with training, driven by ``update_epoch`` and ``update_step``.

    Progress ``p`` is ``step / (warmup_epochs * steps_per_epoch)`` once steps are counted, with
    ``steps_per_epoch = total_steps / num_epochs``, and ``epoch / warmup_epochs`` before.

    * ``linear``: ``min(p, 1)``.
    * ``cosine``: ``(1 - cos(pi min(p, 1))) / 2``.
    * ``damped``: 0.01 in epoch 0, 0.3 in epoch 1, later ``p^0.33`` between 0.3 and 0.5. For runs tuned with it.

    ``warmup_epochs`` is the length of the warm-up, ``num_epochs`` that of the run, which turns steps into epochs.
    """

    def __init__(self, kind: str, *, warmup_epochs: int, num_epochs: int) -> None:
        super().__init__()
        require_choice("warmup", kind, WARMUPS)
        require_numbers(0, warmup_epochs=warmup_epochs, num_epochs=num_epochs)
        self.kind, self.warmup_epochs, self.num_epochs = kind, warmup_epochs, num_epochs
        self._driven = False
        self.epoch, self.step, self.total_steps = (nn.Buffer(torch.zeros((), dtype=torch.int64)) for _ in range(3))

    def update_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0."""
        require_numbers(0, integer=True, epoch=epoch)
        self.epoch.fill_(epoch)
        self._driven = True

    def update_step(self, step: int, total_steps: int) -> None:
        """Set the step of the run and the number of steps that it will have."""
        self.step.fill_(step)
        self.total_steps.fill_(total_steps)
        self._driven = True

    def forward(self, like: Tensor) -> Tensor:
        """The factor, 0-d, in the dtype of ``like``."""
        if self.training and not self._driven and not torch.compiler.is_compiling():
            logger.warning("the %s warm-up is at its start: call update_epoch or update_step while training", self.kind)
            self._driven = True
        epoch, step, total = (b.to(like.dtype) for b in (self.epoch, self.step, self.total_steps))
        steps = (self.warmup_epochs * (total / max(self.num_epochs, 1)).clamp(min=1)).clamp(min=1)
        progress = torch.where((total > 0) & (step > 0), step / steps, epoch / max(self.warmup_epochs, 1))
        if self.kind == "damped":
            late = progress.pow(0.33).clamp(0.3, 0.5)
            return torch.where(epoch == 0, 0.01, torch.where(epoch == 1, 0.3, late))
        progress = progress.clamp(max=1)
        return progress if self.kind == "linear" else (1 - (math.pi * progress).cos()) / 2

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        # states saved before there were schedules have none of the counters: the schedule stays where it is
        own = {prefix + name: buffer for name, buffer in self.named_buffers()}
        if not own.keys() & state_dict.keys():
            state_dict |= own
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._driven = True

    def extra_repr(self) -> str:
        """Configuration."""
        return f"{self.kind!r}, warmup_epochs={self.warmup_epochs}, num_epochs={self.num_epochs}"
