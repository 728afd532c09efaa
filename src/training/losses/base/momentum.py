"""Exponential moving average of an encoder."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from .base_loss import require_numbers


class MomentumEncoder(nn.Module):
    """A frozen copy of ``encoder`` that follows it: ``theta_k <- m theta_k + (1 - m) theta_q`` (He et al. 2020).

    The encoder is copied, not owned; its buffers (batch-norm statistics) are copied at every update. ``momentum`` is
    ``m`` in [0, 1]. ``always_eval`` keeps the copy in eval mode (no dropout, stored statistics), whatever the mode.
    """

    def __init__(self, encoder: nn.Module, *, momentum: float = 0.999, always_eval: bool = False) -> None:
        super().__init__()
        require_numbers(0.0, 1.0, momentum=momentum)
        self.momentum, self.always_eval = momentum, always_eval
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.train(encoder.training)

    def train(self, mode: bool = True) -> MomentumEncoder:
        """Set the mode; with ``always_eval`` the copy stays in eval mode."""
        super().train(mode)
        if self.always_eval:
            self.encoder.eval()
        return self

    @torch.no_grad()
    def update(self, encoder: nn.Module) -> None:
        """One step towards ``encoder``, which must have the structure of the original."""
        for name, value in encoder.named_parameters():
            own = self.encoder.get_parameter(name)
            own.lerp_(value.to(own.dtype), 1.0 - self.momentum)
        for name, buffer in encoder.named_buffers():
            self.encoder.get_buffer(name).copy_(buffer)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The features of the averaged encoder, without a graph."""
        return self.encoder(*args, **kwargs)
