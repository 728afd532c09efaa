"""Frozen twin of ``dynvision.losses.activity_loss``: activity of marked modules, the successor of ``EnergyLoss``.

A module is monitored if it has an attribute ``_activity_monitor``: "signed" takes the absolute mean activation, any
other value the normalised norm of order ``ord``. Steps during which the network says ``_in_idle_period`` do not count.

Replaced by ``training_losses.temporal.EnergyLoss`` (``mode``, ``order``). Kept as it was, among other things: the
network becomes a child module of the loss at registration; a mistyped mode silently means the norm; without marks the
loss is a constant zero; the largest call count divides every module; the hooks keep the loss alive.
"""

import math
from typing import Any, Dict, List, Optional

import torch
import torch.nn as nn

from training_losses.migration.deprecation import deprecated_module

from .base_loss import BaseLoss

deprecated_module(__name__)

ACTIVITY_MONITOR_ATTR = "_activity_monitor"


class ActivityLoss(BaseLoss):
    """Activity penalty on marked modules; see the module."""

    def __init__(self, reduction: str = "mean", ord: Any = 1) -> None:
        super().__init__(reduction=reduction)
        self.requires_responses = False
        self.allow_broadcasting = True
        self.batch_activity: Dict[str, torch.Tensor] = {}
        self.hooks: List[Any] = []
        self._norm_factors: Dict[str, float] = {}
        self.ord = ord
        self._last_device: Optional[torch.device] = None
        self._last_dtype: Optional[torch.dtype] = None
        self._hook_call_count: Dict[str, int] = {}
        self._model_ref: Optional[nn.Module] = None

    def register_hooks(self, model: nn.Module) -> None:
        self.remove_hooks()
        self._model_ref = model
        for name, module in model.named_modules():
            mode = getattr(module, ACTIVITY_MONITOR_ATTR, None)
            if mode is not None:
                self.hooks.append(module.register_forward_hook(self._hook(name, mode)))

    def _hook(self, name: str, mode: Any) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._accumulate_activity(name, output, mode)

        return hook

    def _should_monitor_module(self, module: nn.Module) -> bool:
        return isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear))

    def _is_nonlinearity(self, module: nn.Module) -> bool:
        pieces = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.PReLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.SiLU)
        more = (nn.Mish, nn.Softplus, nn.Hardtanh, nn.Hardshrink, nn.Softshrink, nn.Softsign)
        return isinstance(module, pieces + more)

    def remove_hooks(self) -> None:
        for handle in getattr(self, "hooks", ()):
            handle.remove()
        if "hooks" in self.__dict__:
            self.hooks = []

    def __del__(self) -> None:
        self.remove_hooks()

    def _accumulate_activity(self, module_name: str, activation: Any, mode: Any) -> None:
        if activation is None:
            return
        if self._model_ref is not None and getattr(self._model_ref, "_in_idle_period", False):
            return
        dims = tuple(range(1, activation.dim())) or None
        if mode == "signed":
            activity = activation.mean(dim=dims).abs()
        else:
            activity = torch.norm(activation, p=self.ord, dim=dims)
            if module_name not in self._norm_factors:
                self._norm_factors[module_name] = math.prod(activation.shape[1:]) ** (1.0 / self.ord)
            activity = activity / self._norm_factors[module_name]
        if module_name in self.batch_activity:
            before = self.batch_activity[module_name]
            if before.device != activity.device:
                before = before.to(activity.device)
            self.batch_activity[module_name] = before + activity
            self._hook_call_count[module_name] += 1
        else:
            self.batch_activity[module_name] = activity
            self._hook_call_count[module_name] = 1
        self._last_device = activity.device
        self._last_dtype = activity.dtype

    def forward(self, outputs: Any = None, targets: Any = None) -> torch.Tensor:
        return self.apply_reduction(self.compute_loss())

    def compute_loss(self, outputs: Any = None, targets: Any = None, responses: Any = None) -> torch.Tensor:
        if not self.batch_activity:
            return torch.zeros(1, dtype=self._last_dtype or torch.float32, device=self._last_device)
        n_timesteps = max(self._hook_call_count.values())
        total = sum(self.batch_activity.values()) / (len(self.batch_activity) * n_timesteps)
        self.batch_activity = {}
        self._hook_call_count = {}
        return total


ActivityLoss = ActivityLoss  # the old module ended so; the older name was not kept
