"""Golden harnesses of dynvision: networks with hooks, models over time, criterion lists."""

from __future__ import annotations

import contextlib
import copy
import gc
import inspect
import logging
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from tests.support.golden import Run, harness


class _Counter(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += record.levelno == logging.WARNING


@contextlib.contextmanager
def counted_warnings() -> Iterator[_Counter]:
    """Counts the log records of exactly level WARNING, whatever the logger."""
    counter = _Counter()
    logging.getLogger().addHandler(counter)
    try:
        yield counter
    finally:
        logging.getLogger().removeHandler(counter)


@harness("dynvision", "probe_class")
def probe_class(run: Run, **init: Any) -> nn.Module:
    class SquaredErrorProbe(run.module.BaseLoss):  # type: ignore[misc, name-defined]  # base found at run time
        def compute_loss(self, outputs: Any, targets: Any, responses: Any = None) -> torch.Tensor:
            return (outputs - targets) ** 2

    class CountingProbe(SquaredErrorProbe):
        def __init__(self, reduction: str = "mean", ignore_index: int = -1) -> None:
            super().__init__(reduction)
            self.ignore_index = ignore_index

    return {cls.__name__: cls for cls in (SquaredErrorProbe, CountingProbe)}[run.case.symbol](**init)


# ------------------------------------------------------------------------------------------------- networks with hooks
def with_weights(module: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Module:
    """The given tensors themselves become the weights: plain attributes, no parameters."""
    del module.weight
    module.weight = weight
    if bias is not None:
        del module.bias
        module.bias = bias
    return module


class Network(nn.Module):
    """conv, (deconv), act, fc; flattened before fc."""

    def __init__(self, conv_w: Any, conv_b: Any, fc_w: Any, fc_b: Any, deconv_w: Any = None) -> None:
        super().__init__()
        out_channels, in_channels, kernel, _ = conv_w.shape
        self.conv = with_weights(nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2), conv_w, conv_b)
        self.deconv = nn.Identity()
        if deconv_w is None:
            del self.deconv
        else:
            channels, features, kernel, _ = deconv_w.shape
            self.deconv = with_weights(nn.ConvTranspose2d(channels, features, kernel, bias=False), deconv_w)
        self.act = nn.ReLU()
        self.fc = with_weights(nn.Linear(fc_w.shape[1], fc_w.shape[0]), fc_w, fc_b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.conv(x))
        if hasattr(self, "deconv"):
            x = self.deconv(x)
        return self.fc(x.flatten(1))


def drive(network: Network, inputs: torch.Tensor, no_grad: bool, extra_fc_calls: int, idle_steps: Any = None) -> None:
    with torch.set_grad_enabled(not no_grad):
        for t, x in enumerate(inputs):
            if idle_steps is not None:
                network._in_idle_period = t in idle_steps
            network(x)
        network._in_idle_period = False
        for _ in range(extra_fc_calls):
            network.fc(torch.ones(inputs.shape[1], network.fc.in_features, dtype=inputs.dtype))


@harness("dynvision", "energy_hooks")
def energy_hooks(
    run: Run, inputs: Any, conv_weight: Any, conv_bias: Any, fc_weight: Any, fc_bias: Any, deconv_weight: Any = None,
    reduction: str = "mean", p: Any = 1, no_grad: bool = False, freeze_conv: bool = False, extra_fc_calls: int = 0,
    register_twice: bool = False, remove_before: bool = False,
) -> dict[str, Any]:  # fmt: skip
    if freeze_conv:
        inputs, conv_weight, conv_bias = inputs.detach(), conv_weight.detach(), conv_bias.detach()
    network = Network(conv_weight, conv_bias, fc_weight, fc_bias, deconv_weight)
    loss_fn = run.module.EnergyLoss(reduction=reduction, p=p)
    for _ in range(1 + register_twice):
        loss_fn.register_hooks(network)
    n_hooks = len(loss_fn.hooks)
    if remove_before:
        loss_fn.remove_hooks()
    drive(network, inputs, no_grad, extra_fc_calls)
    counts, accumulated = dict(loss_fn._hook_call_count), dict(loss_fn.batch_energy)
    loss = loss_fn(None, None)
    return {
        "loss": loss,
        "n_hooks": n_hooks,
        "call_counts": counts,
        "accumulated": accumulated,
        "norm_factors": dict(loss_fn.norm_factors),
        "requires_grad": loss.requires_grad,
        "counts_after": dict(loss_fn._hook_call_count),
        "second_call": loss_fn(None, None),
    }


@harness("dynvision", "energy_lifetime")
def energy_lifetime(run: Run) -> dict[str, Any]:
    model = nn.Linear(3, 2)
    loss_fn = run.module.EnergyLoss()
    loss_fn.register_hooks(model)
    reference = weakref.ref(loss_fn)
    del loss_fn
    gc.collect()
    answer = {"alive_after_del": reference() is not None, "hooks_left_on_model": len(model._forward_hooks)}
    reference().remove_hooks()
    gc.collect()
    return {**answer, "alive_after_remove_hooks": reference() is not None}


@harness("dynvision", "activity_hooks")
def activity_hooks(
    run: Run, inputs: Any, conv_weight: Any, conv_bias: Any, fc_weight: Any, fc_bias: Any, monitor: dict[str, str],
    deconv_weight: Any = None, reduction: str = "mean", ord: Any = 1, no_grad: bool = False, idle_steps: Any = (),
    extra_fc_calls: int = 0,
) -> dict[str, Any]:  # fmt: skip
    network = Network(conv_weight, conv_bias, fc_weight, fc_bias, deconv_weight)
    for name, mode in monitor.items():
        getattr(network, name)._activity_monitor = mode
    loss_fn = run.module.ActivityLoss(reduction=reduction, ord=ord)
    loss_fn.register_hooks(network)
    n_hooks = len(loss_fn.hooks)
    drive(network, inputs, no_grad, extra_fc_calls, idle_steps)
    counts, accumulated = dict(loss_fn._hook_call_count), dict(loss_fn.batch_activity)
    loss = loss_fn(None, None)
    return {
        "loss": loss,
        "n_hooks": n_hooks,
        "call_counts": counts,
        "accumulated": accumulated,
        "norm_factors": dict(loss_fn._norm_factors),
        "requires_grad": loss.requires_grad,
        "state_dict_keys": sorted(loss_fn.state_dict()),
        "child_names": [name for name, _ in loss_fn.named_children()],
        "second_call": loss_fn(None, None),
    }


@harness("dynvision", "activity_registration")
def activity_registration(run: Run) -> dict[str, Any]:
    model = nn.Linear(3, 2)
    model._activity_monitor = "absolute"
    loss_fn = run.module.ActivityLoss()
    before = sorted(loss_fn.state_dict())
    loss_fn.register_hooks(model)
    after, n_parameters = sorted(loss_fn.state_dict()), len(list(loss_fn.parameters()))
    loss_fn.remove_hooks()
    children = [name for name, _ in loss_fn.named_children()]
    owner = nn.Module()
    owner.fc, owner.criterion = nn.Linear(3, 2), run.module.ActivityLoss()
    owner.criterion.register_hooks(owner)
    try:
        owner.eval()
        outcome = "ok"
    except Exception as error:
        outcome = type(error).__name__
    return {
        "state_dict_before": before,
        "state_dict_after": after,
        "n_parameters": n_parameters,
        "children_after_remove_hooks": children,
        "eval_of_a_model_that_owns_it": outcome,
    }


# --------------------------------------------------------------------------------------------------- models over time
def bare_model(run: Run, **attributes: Any) -> Any:
    """A model that never ran its constructor: only the attributes that the methods read."""

    class Bare(run.module.TemporalBase):  # type: ignore[misc, name-defined]  # base found at run time
        def __init__(self) -> None:
            nn.Module.__init__(self)

    defaults = {
        "n_timesteps": 1, "data_presentation_pattern": "1", "dt": 2.0, "loss_reaction_time": 0.0, "non_label_index": -1,
        "non_input_value": 0.0, "shuffle_presentation_pattern": False, "n_residual_timesteps": 0,
    }  # fmt: skip
    model = Bare()
    for name, value in {**defaults, **attributes}.items():
        setattr(model, name, torch.tensor(value, dtype=torch.int32) if name == "n_residual_timesteps" else value)
    return model


@harness("dynvision", "expand_timesteps")
def expand_timesteps(
    run: Run, inputs: Any, label_index: Any, shuffle: bool = False, **attributes: Any
) -> dict[str, Any]:
    model = bare_model(run, shuffle_presentation_pattern=shuffle, **attributes)
    with counted_warnings() as counter:
        inputs, label_index, *extra = model._expand_timesteps((inputs, label_index, "extra"))
    pattern = getattr(model, "_cached_presentation_pattern", None)
    return {
        "inputs": inputs,
        "label_index": label_index,
        "extra": extra,
        "warnings": counter.count,
        "pattern": pattern,
    }


@harness("dynvision", "process_batch")
def process_batch(run: Run, inputs: Any, label_index: Any, **attributes: Any) -> dict[str, Any]:
    inputs, label_index = bare_model(run, **attributes)._process_batch((inputs, label_index))
    return {"inputs": inputs, "label_index": label_index}


@harness("dynvision", "presentation_pattern")
def presentation_pattern(run: Run, **attributes: Any) -> dict[str, Any]:
    with counted_warnings() as counter:
        pattern = bare_model(run, **attributes)._get_presentation_pattern()
    return {"pattern": pattern, "warnings": counter.count}


@harness("dynvision", "reaction_mask")
def reaction_mask(run: Run, pattern: Any, dt: float, loss_reaction_time: float) -> dict[str, Any]:
    model = bare_model(run, n_timesteps=len(pattern), dt=dt, loss_reaction_time=loss_reaction_time)
    with counted_warnings() as counter:
        mask = model._compute_reaction_mask(torch.as_tensor(pattern).bool())
    return {"mask": mask, "warnings": counter.count}


# ----------------------------------------------------------------------------------------------------- criterion lists
def criteria_of(model: Any) -> dict[str, list[Any]]:
    return {
        "classes": [type(criterion).__name__ for criterion, _ in model.criterion],
        "weights": [weight for _, weight in model.criterion],
        "ignore_index": [getattr(criterion, "ignore_index", None) for criterion, _ in model.criterion],
    }


@harness("dynvision", "criteria")
def criteria(
    run: Run, outputs: Any, label_index: Any, criterion_params: Any, non_label_index: int = -1, inputs: Any = None,
    fc_weight: Any = None, fc_bias: Any = None,
) -> dict[str, Any]:  # fmt: skip
    model = bare_model(run, non_label_index=non_label_index)
    if criterion_params is not None:
        criterion_params = [(name, dict(settings)) for name, settings in criterion_params]
    model.criterion_params = criterion_params
    logged: list[Any] = []
    keywords: list[dict[str, Any]] = []
    model.log_dict = lambda values, **kw: (logged.append(values), keywords.append(kw))
    if fc_weight is not None:
        model.fc = with_weights(nn.Linear(fc_weight.shape[1], fc_weight.shape[0]), fc_weight, fc_bias)
    with counted_warnings() as counter:
        model._init_loss()
        if inputs is not None:
            outputs = torch.stack([model.fc(inputs[:, t]) for t in range(inputs.shape[1])], dim=1)
        loss = run.module.LightningBase.compute_loss(model, outputs, label_index)
    found = criteria_of(model)
    return {
        "loss": loss,
        "loss_dtype": loss.dtype,
        "requires_grad": loss.requires_grad,
        "logged": logged,
        "log_keywords": sorted({key for kw in keywords for key in kw}),
        "batch_size": [kw["batch_size"] for kw in keywords],
        **{key: found[key] for key in ("weights", "classes", "ignore_index")},
        "configs_after": [settings for _, settings in criterion_params or ()],
        "warnings": counter.count,
    }


@harness("dynvision", "update_criterion_params")
def update_criterion_params(run: Run, criterion_params: Any, name: str, config: Any) -> dict[str, Any]:
    if criterion_params is not None:
        criterion_params = [(key, dict(settings)) for key, settings in criterion_params]
    holder = SimpleNamespace(criterion_params=criterion_params)
    run.module.LightningBase.update_criterion_params(holder, name, config)
    return {"criterion_params": [list(pair) for pair in holder.criterion_params]}


@harness("dynvision", "shared_default")
def shared_default(run: Run) -> dict[str, Any]:
    lightning = run.module.LightningBase
    default = inspect.signature(lightning.__init__).parameters["criterion_params"].default
    untouched = copy.deepcopy(default)
    models = []
    try:
        for weight, void in ((0.3, -1), (None, -7)):
            model = bare_model(run, non_label_index=void)
            model.criterion_params = default
            lightning.update_criterion_params(model, "EnergyLoss", {"weight": weight})
            model._init_loss()
            models.append(criteria_of(model))
    finally:
        default[:] = untouched
    return {"models": models}
