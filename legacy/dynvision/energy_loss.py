"""Frozen twin of ``dynvision.losses.energy_loss``: mean activity of convolution and linear layers over time.

Forward hooks of ``register_hooks(model)`` accumulate the p-norm per sample of every Conv2d, Linear and ConvTranspose2d
output; the loss call normalises, reduces and clears. Both arguments of the call are ignored.

Replaced by ``training_losses.temporal.EnergyLoss``. Kept as it was, among other things: activity without a gradient
(validation, frozen layers) does not count; the largest call count divides every module; the unit count of the first
call stays for ever; what a pass without a loss call left behind enters the next loss; the hooks keep the loss alive.
"""

import math
from typing import Any, Dict, List, Optional

import torch
import torch.nn as nn

from training_losses.migration.deprecation import deprecated_module

from .base_loss import BaseLoss

deprecated_module(__name__)


class EnergyLoss(BaseLoss):
    """Activity penalty; see the module."""

    def __init__(self, reduction: str = "mean", p: Any = 1) -> None:
        super().__init__(reduction=reduction)
        self.requires_responses = False
        self.allow_broadcasting = True
        self.batch_energy: Dict[str, torch.Tensor] = {}
        self.hooks: List[Any] = []
        self.norm_factors: Dict[str, float] = {}
        self.p = p
        self._last_device: Optional[torch.device] = None
        self._last_dtype: Optional[torch.dtype] = None
        self._hook_call_count: Dict[str, int] = {}

    def register_hooks(self, model: nn.Module) -> None:
        self.remove_hooks()
        for name, module in model.named_modules():
            if self._should_monitor_module(module):
                self.hooks.append(module.register_forward_hook(self._hook(name)))

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._accumulate_energy(name, output)

        return hook

    def _should_monitor_module(self, module: nn.Module) -> bool:
        return isinstance(module, (nn.Conv2d, nn.Linear, nn.ConvTranspose2d))

    def remove_hooks(self) -> None:
        for handle in self.hooks:
            handle.remove()
        self.hooks = []

    def __del__(self) -> None:
        if "hooks" in self.__dict__:  # the old one printed an ignored error for an object that was never fully built
            self.remove_hooks()

    def _accumulate_energy(self, module_name: str, activation: Any) -> None:
        if activation is None:
            return
        dims = tuple(range(1, activation.dim())) or None
        energy = torch.norm(activation, p=self.p, dim=dims)
        if module_name not in self.norm_factors:
            self.norm_factors[module_name] = math.prod(activation.shape[1:]) ** (1.0 / self.p)
        if module_name in self.batch_energy:
            before = self.batch_energy[module_name]
            if before.device != energy.device:
                before = before.to(energy.device)
            self.batch_energy[module_name] = before + energy
            self._hook_call_count[module_name] += 1
        else:
            self.batch_energy[module_name] = energy
            self._hook_call_count[module_name] = 1
        self._last_device = energy.device
        self._last_dtype = energy.dtype

    def forward(self, outputs: Any = None, targets: Any = None) -> torch.Tensor:
        return self.apply_reduction(self.compute_loss())

    def compute_loss(self, outputs: Any = None, targets: Any = None, responses: Any = None) -> torch.Tensor:
        total = None
        if self.batch_energy:
            n_timesteps = max(self._hook_call_count.values())
            names = [name for name, energy in self.batch_energy.items() if energy.requires_grad]
            for name in names:
                energy = self.batch_energy[name] / self.norm_factors[name]
                total = energy if total is None else total + energy
            if total is not None:
                total = total / (len(names) * n_timesteps)
            self.batch_energy = {}
            self._hook_call_count = {}
        if total is None:
            total = torch.zeros(1, dtype=self._last_dtype or torch.float32, device=self._last_device)
        return total
