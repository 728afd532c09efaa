"""Frozen twin of the label masking in ``dynvision.base.temporal``: still images become sequences.

``TemporalBase._process_batch`` repeats each image over the time steps of the model, blanks the inputs of null steps and
writes the void label where the loss shall not look (null steps, the reaction time after an onset, residual steps);
``_init_loss`` builds the criteria, see ``criterion_list``. Only these methods of the old model base class are here.

Replaced by ``training_losses.temporal.PresentationSchedule``. Kept as it was, among other things: patterns of length
one ignore the reaction time; null inputs get 0, not ``non_input_value``; labels do not follow the residual steps; the
cached expansion is never refreshed; shuffling draws from the global generator, in evaluation too; the promised warning
for chunks shorter than the reaction window never comes.
"""

import logging
import math
import sys
from typing import Any, Optional, Tuple

import torch
import torch.nn as nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class TemporalBase(nn.Module):
    """Presentation pattern, reaction time and residual steps of a model over time; see the module."""

    def __init__(
        self,
        n_timesteps: int = 1,
        dt: float = 2.0,
        data_presentation_pattern: Any = [1],
        shuffle_presentation_pattern: bool = False,
        loss_reaction_time: float = 0.0,
        non_label_index: int = -1,
        non_input_value: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.n_timesteps = n_timesteps
        self.dt = float(dt)
        self.data_presentation_pattern = data_presentation_pattern
        self.shuffle_presentation_pattern = shuffle_presentation_pattern
        self.loss_reaction_time = float(loss_reaction_time)
        self.non_label_index = non_label_index
        self.non_input_value = non_input_value
        self.register_buffer("n_residual_timesteps", torch.tensor(0, dtype=torch.int32))

    def _adjust_data_dimensions(self, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.dim() == 2:
            return inputs[None, None, None]
        if inputs.dim() == 3:
            return inputs[:, None, None]
        if inputs.dim() == 4:
            return inputs[:, None]
        if inputs.dim() == 5:
            return inputs
        logger.error("inputs of shape %s", tuple(inputs.shape))
        raise ValueError(f"inputs have shape {tuple(inputs.shape)}, two to five dimensions are possible")

    def _adjust_label_dimensions(self, label_index: torch.Tensor) -> torch.Tensor:
        if label_index.dim() == 1:
            return label_index[:, None]
        if label_index.dim() == 2:
            return label_index
        if label_index.dim() == 3:
            return label_index.squeeze(-1)
        logger.error("labels of shape %s", tuple(label_index.shape))
        raise ValueError(f"labels have shape {tuple(label_index.shape)}, one to three dimensions are possible")

    def _cache_presentation_pattern(self) -> None:
        pattern = self.data_presentation_pattern
        if isinstance(pattern, int):
            logger.warning("the presentation pattern %r is an integer, leading zeros are lost", pattern)
            pattern = str(pattern)
        if not isinstance(pattern, (str, list)):
            raise ValueError(f"the presentation pattern has type {type(pattern).__name__}, not str or list")
        if len(pattern) == 0:
            raise ValueError("the presentation pattern is empty")
        self._base_presentation_pattern = torch.tensor([bool(int(element)) for element in pattern])
        self._cached_presentation_pattern = self._expand_pattern(self._base_presentation_pattern)

    def _expand_pattern(self, base: torch.Tensor) -> torch.Tensor:
        if len(base) == 1:
            return base.repeat(self.n_timesteps)
        if self.n_timesteps <= 0:
            raise ValueError(f"n_timesteps is {self.n_timesteps}, it must be positive")
        steps = torch.arange(self.n_timesteps, device=base.device)
        return base[steps * len(base) // self.n_timesteps]

    def _get_presentation_pattern(self) -> torch.Tensor:
        if getattr(self, "_cached_presentation_pattern", None) is None:
            self._cache_presentation_pattern()
        base = self._base_presentation_pattern
        if not self.shuffle_presentation_pattern or len(base) <= 1:
            return self._cached_presentation_pattern
        return self._expand_pattern(base[torch.randperm(len(base), device=base.device)])

    def _compute_reaction_mask(self, pattern: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(len(pattern), dtype=torch.bool, device=pattern.device)
        if self.loss_reaction_time <= 0 or len(pattern) == 0:
            return mask
        n_steps = max(1, math.ceil(self.loss_reaction_time / self.dt))
        onsets = pattern.clone()
        onsets[1:] &= ~pattern[:-1]
        for onset in torch.where(onsets)[0].tolist():
            mask[onset : onset + n_steps] = True
        return mask

    def _expand_timesteps(self, batch: Any) -> Tuple[Any, ...]:
        inputs, label_index, *extra = batch
        inputs = self._adjust_data_dimensions(inputs)
        label_index = self._adjust_label_dimensions(label_index)
        if inputs.size(1) == 1 and self.n_timesteps > 1:
            inputs = inputs.expand(-1, self.n_timesteps, -1, -1, -1)
            label_index = label_index.expand(-1, self.n_timesteps)
            if len(self.data_presentation_pattern) > 1:
                pattern = self._get_presentation_pattern()
                null = ~pattern
                void = null | self._compute_reaction_mask(pattern)
                if "0" in str(self.data_presentation_pattern) or self.loss_reaction_time > 0:
                    inputs, label_index = inputs.clone(), label_index.clone()
                    inputs[:, null] = 0
                    label_index[:, void] = self.non_label_index
        return (inputs, label_index, *extra)

    def _extend_residual_timesteps(self, batch: Any) -> Tuple[Any, ...]:
        inputs, label_index, *extra = batch
        inputs = self._adjust_data_dimensions(inputs)
        label_index = self._adjust_label_dimensions(label_index)
        n_residual = int(self.n_residual_timesteps)
        if n_residual > 0:
            inputs = self._pad_steps(inputs, n_residual, self.non_input_value)
            label_index = self._pad_steps(label_index, n_residual, self.non_label_index)
        return (inputs, label_index, *extra)

    @staticmethod
    def _pad_steps(values: torch.Tensor, n_steps: int, fill: Any) -> torch.Tensor:
        shape = (values.size(0), n_steps, *values.shape[2:])
        return torch.cat([values, values.new_full(shape, fill)], dim=1)

    def _process_batch(self, batch: Any, batch_idx: Optional[int] = 0) -> Tuple[Any, ...]:
        return self._extend_residual_timesteps(self._expand_timesteps(batch))

    def _init_loss(self) -> None:
        if getattr(self, "_loss_initialized", False):
            return
        if getattr(self, "criterion_params", None) is None:
            self.criterion_params = [("CrossEntropyLoss", {"weight": 1.0})]
        losses = sys.modules[__package__]
        self.criterion = []
        for name, settings in self.criterion_params:
            weight = settings.pop("weight", 1)
            if name.lower() in ("crossentropyloss", "cross_entropy_loss") and "ignore_index" not in settings:
                settings["ignore_index"] = self.non_label_index
            if not hasattr(losses, name):
                raise ValueError(f"unknown criterion {name!r}")
            criterion = getattr(losses, name)(**settings)
            self.criterion.append((criterion, weight))
            try:
                criterion.register_hooks(self)
            except Exception as error:
                logger.debug("no hooks for %s: %s", name, error)
        self._loss_initialized = True
