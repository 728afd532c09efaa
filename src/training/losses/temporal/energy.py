"""Mean activity of a network's modules over time, gathered while it runs."""

from __future__ import annotations

import fnmatch
import math
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..base import BaseLoss, kind_of, require_choice, require_number
from ..functional.activity import mean_activity
from ..loss_registry import LossRegistry

__all__ = ["Attachment", "EnergyLoss", "Finding", "ModuleActivity"]

MODES = ("absolute", "signed")
MARK = "_activity_monitor"
WEIGHT_LAYERS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)

Selector = str | type[nn.Module]
Select = Selector | Sequence[Selector] | Mapping[Any, str] | Callable[[str, nn.Module], bool]


# ------------------------------------------------------------------------------------------------------ what is kept
@dataclass
class _Tally:
    """What one module did since the last loss call."""

    total: Tensor
    """Sum of the activities over samples and calls, ``[]``; over calls alone, ``[B]``, for reduction ``none``."""
    samples: int
    calls: int
    peak: Tensor

    def add(self, other: _Tally) -> None:
        self.total = self.total.to(other.total.device) + other.total
        self.peak = torch.maximum(self.peak.to(other.peak.device), other.peak)
        self.samples += other.samples
        self.calls += other.calls


@dataclass(frozen=True)
class ModuleActivity:
    """One row of :meth:`EnergyLoss.report`; tensors are 0-d and detached."""

    activity: Tensor
    """Mean activity per call and sample."""
    share: Tensor
    """Part of the energy that comes from this module, in [0, 1]."""
    peak: Tensor
    """Largest magnitude of a single unit."""
    calls: int
    """How often the module ran."""


@dataclass(frozen=True)
class Finding:
    """One complaint of :meth:`EnergyLoss.diagnose`."""

    code: str
    """``unattached``, ``unmatched``, ``unmonitored``, ``silent``, ``exploding``, ``high``, ``share``, ``growing`` or
    ``rising_together``."""
    subject: str
    """Module, selector or term it is about."""
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class _Tap:
    """A forward hook. It holds the loss weakly; a copied or unpickled network has taps that do nothing."""

    def __init__(self, loss: EnergyLoss | None = None, name: str = "", mode: str = "") -> None:
        self.loss = None if loss is None else weakref.ref(loss)
        self.name, self.mode = name, mode

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        loss = None if self.loss is None else self.loss()
        if loss is not None:
            loss._gather(self.name, self.mode, module, output)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


class _Guard(_Tap):
    """Forgets what was gathered when a forward pass ends in an exception."""

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        loss = None if self.loss is None else self.loss()
        if loss is not None and output is None and sys.exc_info()[0] is not None and not _in_backward():
            loss.reset()


class _Restart(_Tap):
    """Forgets what was gathered when a forward pass begins."""

    def __call__(self, module: nn.Module, args: Any, output: Any = None) -> None:
        loss = None if self.loss is None else self.loss()
        if loss is not None and not getattr(module, "_is_replica", False) and not _in_backward():
            loss.reset()


def _in_backward() -> bool:
    """Whether a backward pass is running: gradient checkpointing calls modules a second time there."""
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


class Attachment:
    """Handle of :meth:`EnergyLoss.attach`: call :meth:`remove`, or use it in a ``with`` statement.

    Leaving the ``with`` block removes the hooks and keeps what was gathered for the loss call; leaving it through an
    exception forgets it.
    """

    def __init__(self, loss: EnergyLoss, names: tuple[str, ...], handles: list[RemovableHandle]) -> None:
        self._loss = weakref.ref(loss)
        self._handles = handles
        self.names = names
        """Names of the monitored modules."""

    def remove(self) -> None:
        """Take the hooks off; again: nothing."""
        _remove_all(self._handles)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()
        loss = self._loss()
        if error is not None and loss is not None:
            loss.reset()


def _sum(parts: Sequence[Tensor]) -> Tensor:
    """Sum of tensors that may be on several devices, on the last one."""
    total = parts[0]
    for part in parts[1:]:
        total = total.to(part.device) + part
    return total


def _remove_all(handles: list[RemovableHandle]) -> None:
    while handles:
        handles.pop().remove()


@LossRegistry.register("energy")
class EnergyLoss(BaseLoss):
    """Penalty on the activity of a network, for sparse and cheap representations (metabolic cost).

    Forward hooks gather the activity of the selected modules while the network runs, however often; the call
    normalises, and forgets. Add it with a small weight (start near 0.05): normally it rises during the first epochs,
    reaches a plateau while the task's loss falls, and makes up less than 5 % of the total. ``diagnose()`` checks
    that.

    Example::

        from training_losses.temporal import EnergyLoss

        energy = EnergyLoss()
        energy.attach(network)
        for images, labels in loader:
            logits = torch.stack([network(images) for _ in range(10)], dim=1)
            loss = cross_entropy(logits, labels) + 0.05 * energy()

    With ``a`` the outputs of module ``m`` at its call ``t`` for sample ``b``, ``U`` of them::

        g = (mean_u |a_u|^p)^(1/p)          mode "absolute": the p-norm over U^(1/p)
        g = |mean_u a_u|                    mode "signed": the net drive
        E = mean_b 1/M sum_m 1/n_m sum_{t=1..n_m} g(m, t, b)

    over the ``M`` modules that ran and the ``n_m`` calls of module ``m``. Every module weighs the same, however often
    it is called and however many units it has.

    Args:
        select: which modules are monitored. ``weight_layers``: convolutions of any dimension, transposed ones, Linear.
            ``marked``: modules with an attribute ``_activity_monitor``, whose value is the mode. A type, a module's
            name (``*`` and ``?`` as in file names), the name of a module class (sub-classes count), a list of these;
            a mapping from these to ``absolute`` or ``signed``; or a predicate ``(name, module) -> bool``.
        exclude: types or names, as in ``select``, that are left out (the classifier, for instance).
        mode: ``absolute`` or ``signed``, where ``select`` does not say.
        order: order ``p`` of the norm in mode ``absolute``: any number but 0, ``inf`` for the largest unit. Other
            orders than 1 keep the activations for the backward pass.
        idle_attribute: name of an attribute of the attached network; calls while it is true do not count.
        reduction: ``mean`` over samples; ``sum`` over samples; ``none``: ``[B]``, which needs the same batch size at
            every call. The last two do not work with replicas of ``nn.DataParallel``.

    Returns:
        Tensor: 0-d or ``[B]``, float32 for half precision activations. If nothing was gathered since the last call:
            zero without a graph.

    What counts: every call since the last loss call, ``reset()`` or ``attach()``; with gradients or without
    (validation), frozen or not; each module by its own number of calls; a module that stands at two places by its first
    name; each replica of ``nn.DataParallel`` by its samples. What does not: calls that end in an exception (with all
    that was gathered before), calls while ``pause()`` is on, and recomputation by gradient checkpointing (use
    ``use_reentrant=False``: the reentrant kind runs without a graph, so the penalty would have no gradient). A forward
    pass without a loss call (prediction) is remembered: ``reset()`` afterwards, or attach with ``whole_sequence=True``.

    The network is not a part of the loss: it is not in ``state_dict``, ``parameters`` or ``modules``, the hooks hold
    the loss weakly and vanish with it, and copies or pickles of either are not attached.

    A network compiled with ``torch.compile`` (also ``fullgraph=True``) is monitored like any other: attach to the
    network that was compiled. The call of the loss itself compiles with ``activations``.

    Raises:
        ValueError: an argument out of range; nothing selected; called before ``attach()``.

    Memory: with order 1 a scalar per module, and 1.6 bits an element for the backward pass.

    Paper: none; a metabolic cost of activity, as used with the recurrent vision networks of DynVision.

    Differs from ``dynvision.losses.EnergyLoss`` and ``ActivityLoss``: activity without a gradient counts, modules are
    divided by their own calls, unit counts are never stale, a mistyped mode is an error, and the life cycle above.
    """

    def __init__(
        self,
        *,
        select: Select = "weight_layers",
        exclude: Selector | Sequence[Selector] = (),
        mode: str = "absolute",
        order: float = 1,
        idle_attribute: str | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        require_choice("mode", mode, MODES)
        if order not in (math.inf, -math.inf):
            require_number("order", order)
        if order == 0:
            raise ValueError("order must be a number other than 0, found 0")
        if isinstance(select, Mapping):
            for key, value in select.items():
                require_choice(f"select[{key!r}]", value, MODES)
        self.select = select
        self.exclude = [exclude] if isinstance(exclude, (str, type)) else list(exclude)
        self.mode = mode
        self.order = order
        self.idle_attribute = idle_attribute
        self._start()

    def _start(self) -> None:
        self._gathered: dict[str, _Tally] = {}
        self._last: dict[str, _Tally] = {}
        self._last_value: Tensor | None = None
        self._looks: list[tuple[Tensor | None, float, float]] = []
        self._paused = False
        self._network: weakref.ref[nn.Module] | None = None
        self._names: tuple[str, ...] = ()
        self._handles: list[RemovableHandle] = []
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # gathered graphs, hooks and the lock belong to this object alone
        transient = {
            "_gathered",
            "_last",
            "_last_value",
            "_looks",
            "_paused",
            "_network",
            "_names",
            "_handles",
            "_lock",
        }
        return {key: value for key, value in self.__dict__.items() if key not in transient}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]  # torch gives it no types
        self._start()

    # -------------------------------------------------------------------------------------------------- life cycle
    def attach(self, model: nn.Module, *, whole_sequence: bool = False) -> Attachment:
        """Monitor ``model`` from now on, in place of the network before.

        Args:
            model: the network; its own name is ``""``.
            whole_sequence: one call of ``model`` runs all time steps, so that every call starts afresh and nothing is
                ever left over from a pass without a loss call.

        Raises:
            ValueError: no module is selected, or a mark is neither ``absolute`` nor ``signed``.
        """
        modes = dict(self._selected(model))
        if not modes:
            raise ValueError(f"select={self.select!r} matches no module of {type(model).__name__}")
        self.detach()
        self.reset()
        modules = dict(model.named_modules())
        handles = [modules[name].register_forward_hook(_Tap(self, name, mode)) for name, mode in modes.items()]
        handles.append(model.register_forward_hook(_Guard(self), always_call=True))
        if whole_sequence:
            handles.append(model.register_forward_pre_hook(_Restart(self)))
        # the hooks go with the loss, whoever drops it
        weakref.finalize(self, _remove_all, handles).atexit = False
        self._handles = handles
        self._network = weakref.ref(model)
        self._names = tuple(modes)
        return Attachment(self, self._names, handles)

    def detach(self) -> None:
        """Take the hooks off; what was gathered stays for the loss call."""
        _remove_all(self._handles)

    def reset(self) -> None:
        """Forget what was gathered since the last loss call."""
        self._gathered = {}

    def pause(self) -> None:
        """Calls do not count until :meth:`resume` (idle steps)."""
        self._paused = True

    def resume(self) -> None:
        """Calls count again."""
        self._paused = False

    def _selected(self, model: nn.Module) -> Iterator[tuple[str, str]]:
        """Names and modes of the monitored modules."""
        for name, module in model.named_modules():
            mode = None if any(_matches(s, name, module) for s in self.exclude) else self._mode_of(name, module)
            if mode is not None:
                require_choice(f"{MARK} of module {name!r}", mode, MODES)
                yield name, mode

    def _mode_of(self, name: str, module: nn.Module) -> str | None:
        select = self.select
        if isinstance(select, str) and select == "marked":
            return getattr(module, MARK, None)
        if isinstance(select, Mapping):
            return next((mode for key, mode in select.items() if _matches(key, name, module)), None)
        if isinstance(select, str) and select == "weight_layers":
            chosen = isinstance(module, WEIGHT_LAYERS)
        elif isinstance(select, (str, type)):
            chosen = _matches(select, name, module)
        elif isinstance(select, Sequence):
            chosen = any(_matches(s, name, module) for s in select)
        else:
            chosen = select(name, module)
        return self.mode if chosen else None

    # --------------------------------------------------------------------------------------------------- gathering
    def _gather(self, name: str, mode: str, module: nn.Module, output: Any) -> None:
        network = None if self._network is None else self._network()
        idle = self.idle_attribute is not None and getattr(network, self.idle_attribute, False)
        if output is None or self._paused or idle:
            return
        replica = getattr(module, "_is_replica", False)
        if replica and self.reduction != "mean":
            raise ValueError(f"reduction must be 'mean' for replicas of nn.DataParallel, found {self.reduction!r}")
        tally = self._measure(name, mode, output)
        if _in_backward():
            return  # gradient checkpointing: measured again for the graph, but counted once
        if replica:
            with self._lock:  # replicas run in threads
                self._keep(name, tally)
        else:
            self._keep(name, tally)

    def _measure(self, name: str, mode: str, output: Any) -> _Tally:
        if isinstance(output, (tuple, list)) and output:
            output = output[0]  # recurrent layers: (outputs, hidden state)
        if not isinstance(output, Tensor) or not output.is_floating_point() or output.dim() == 0:
            raise ValueError(
                f"module {name!r} must return a floating tensor [B, ...] (so must activations[{name!r}]), "
                f"found {kind_of(output)}"
            )
        activity = mean_activity(output, mode=mode, order=self.order)
        low, high = torch.aminmax(output.detach()) if output.numel() else (activity.new_zeros(()),) * 2
        peak = torch.maximum(-low, high).to(activity.dtype)
        total = activity if self.reduction == "none" else activity.sum()
        return _Tally(total, activity.shape[0], 1, peak)

    def _keep(self, name: str, tally: _Tally) -> None:
        known = self._gathered.get(name)
        if known is None:
            self._gathered[name] = tally
            return
        if known.total.shape != tally.total.shape:
            raise ValueError(
                f"reduction='none' needs one batch size, found {list(known.total.shape)} and "
                f"{list(tally.total.shape)} at module {name!r}"
            )
        known.add(tally)

    # ------------------------------------------------------------------------------------------------------ value
    def forward(
        self,
        outputs: Any = None,
        targets: Any = None,
        *,
        activations: Mapping[str, Tensor | Sequence[Tensor]] | None = None,
    ) -> Tensor:
        """The energy of what was gathered, which is forgotten.

        Args:
            outputs: ignored, so that the loss can stand beside others that are called with outputs and targets.
            targets: ignored.
            activations: without hooks: module name -> its outputs ``[B, ...]`` at one or several steps; the mode is
                that of the same name in a ``select`` mapping, or ``mode``. What was gathered by hooks stays.
        """
        if activations is not None:
            gathered = self._tallies(activations)
        elif self._network is None:
            raise ValueError("EnergyLoss is not attached: call attach(network) before the network runs")
        else:
            gathered, self._gathered = self._gathered, {}
        self._last = {
            name: _Tally(tally.total.detach(), tally.samples, tally.calls, tally.peak)
            for name, tally in gathered.items()
        }
        value = self._energy(gathered)
        self._last_value = value.detach().mean()
        return value

    def _tallies(self, activations: Mapping[str, Tensor | Sequence[Tensor]]) -> dict[str, _Tally]:
        if not activations:
            raise ValueError("activations must hold at least one module, found none")
        gathered: dict[str, _Tally] = {}
        for name, outputs in activations.items():
            mode = self.select.get(name, self.mode) if isinstance(self.select, Mapping) else self.mode
            tallies = [self._measure(name, mode, x) for x in ([outputs] if isinstance(outputs, Tensor) else outputs)]
            if not tallies:
                raise ValueError(f"activations[{name!r}] must hold at least one step, found none")
            gathered[name] = tallies[0]
            for tally in tallies[1:]:
                gathered[name].add(tally)
        return gathered

    def _energy(self, gathered: Mapping[str, _Tally]) -> Tensor:
        if not gathered:
            shape = (0,) if self.reduction == "none" else ()
            return torch.zeros(shape) if self._last_value is None else self._last_value.new_zeros(shape)
        return _sum([self._per_module(tally) for tally in gathered.values()]) / len(gathered)

    def _per_module(self, tally: _Tally) -> Tensor:
        return tally.total / (max(tally.samples, 1) if self.reduction == "mean" else tally.calls)

    # --------------------------------------------------------------------------------------------------- looking at it
    def report(self) -> dict[str, ModuleActivity]:
        """Per module, by its name: the activity behind the last loss call (before the first one: so far)."""
        rows = self._last or self._gathered
        means = {name: tally.total.detach().sum() / max(tally.samples, 1) for name, tally in rows.items()}
        whole = _sum(list(means.values())).clamp(min=1e-30) if means else None
        return {
            name: ModuleActivity(mean, mean / whole.to(mean.device), rows[name].peak, rows[name].calls)
            for name, mean in means.items()
            if whole is not None
        }

    def diagnose(
        self,
        total: Tensor | float | None = None,
        *,
        weight: float = 1.0,
        max_activation: float = 10.0,
        max_energy: float = 1.0,
        max_share: float = 0.05,
        patience: int = 5,
    ) -> list[Finding]:
        """What is wrong with the penalty, by the numbers of the last loss call; empty if nothing is.

        A tool for the console or once an epoch: it reads values, so a GPU is waited for.

        Args:
            total: the total loss of that step, to judge the share of the energy.
            weight: factor of the energy in that total.
            max_activation: ``exploding``: a unit is larger than this, or not finite.
            max_energy: ``high``: the energy is larger than this.
            max_share: ``share``: the weighted energy is a larger part of the total.
            patience: looks back on so many earlier calls of this method, one an epoch for instance. ``growing``: the
                energy rose at each of them and reaches no plateau; ``rising_together``: the energy and the rest of the
                total (the cross entropy) ended higher than they began.
        """
        require_number("patience", patience, low=1, integer=True)
        network = None if self._network is None else self._network()
        if network is None or not self._handles:
            return [
                Finding("unattached", "EnergyLoss", "no network is attached, nothing is penalised: attach(network)")
            ]
        found = [*self._coverage(network)]
        for name, row in self.report().items():
            peak = float(row.peak)
            if not peak <= max_activation:
                text = f"module {name!r}: a unit reaches {peak:.3g}, more than {max_activation:g}"
                found.append(Finding("exploding", name, text))
        if self._last_value is None:
            return found
        energy = float(self._last_value)  # detached
        if not energy <= max_energy:
            found.append(Finding("high", "energy", f"the energy is {energy:.3g}, more than {max_energy:g}"))
        whole = None if total is None else float(torch.as_tensor(total).detach())
        found += self._course(energy, whole, weight, patience)
        if whole is not None:
            share = weight * energy / whole if whole else math.inf
            if not share <= max_share:
                text = f"the weighted energy is {share:.1%} of the total, more than {max_share:.0%}: lower its weight"
                found.append(Finding("share", "energy", text))
        return found

    def _course(self, energy: float, total: float | None, weight: float, patience: int) -> Iterator[Finding]:
        """What the looks so far say together; another look at the same step counts once."""
        if self._looks and self._looks[-1][0] is self._last_value:
            self._looks.pop()
        self._looks.append((self._last_value, energy, math.nan if total is None else total - weight * energy))
        del self._looks[: -max(patience + 1, 100)]
        looks = self._looks[-patience - 1 :]
        energies, others = [look[1] for look in looks], [look[2] for look in looks]
        if len(energies) <= patience:
            return
        if all(a < b for a, b in pairwise(energies)):
            text = f"the energy rose at each of the last {patience} looks, to {energy:.3g}, and reaches no plateau"
            yield Finding("growing", "energy", text)
        if energies[-1] > energies[0] and others[-1] > others[0]:
            text = f"the energy and the rest of the loss are both higher than {patience} looks ago: lower the weight"
            yield Finding("rising_together", "energy", text)

    def _coverage(self, network: nn.Module) -> Iterator[Finding]:
        """Modules that no hook watches or that never ran, selectors that match nothing."""
        modules = dict(network.named_modules())
        ran = self._last or self._gathered
        for name, module in modules.items():
            if name in self._names:
                if name not in ran:
                    yield Finding("silent", name, f"module {name!r} is monitored, but did not run")
            elif isinstance(module, WEIGHT_LAYERS) and not any(_matches(s, name, module) for s in self.exclude):
                yield Finding("unmonitored", name, f"module {name!r} ({type(module).__name__}) is not monitored")
        for selector in self._selectors():
            if not any(_matches(selector, name, module) for name, module in modules.items()):
                yield Finding("unmatched", selector, f"{selector!r} matches no module of the network")

    def _selectors(self) -> Iterator[str]:
        """Names and patterns among the selectors; classes may well be absent."""
        own = self.select if not isinstance(self.select, str) else [self.select]
        for selector in [*(own if isinstance(own, (Sequence, Mapping)) else ()), *self.exclude]:
            if isinstance(selector, str) and selector not in ("marked", "weight_layers") and not hasattr(nn, selector):
                yield selector

    def extra_repr(self) -> str:
        """Configuration."""
        return f"{super().extra_repr()}, select={self.select!r}, mode={self.mode!r}, order={self.order}"


def _matches(selector: Selector, name: str, module: nn.Module) -> bool:
    """By type, by class name (sub-classes count), or by the module's name with wildcards."""
    if isinstance(selector, type):
        return isinstance(module, selector)
    if fnmatch.fnmatchcase(name, selector):
        return True
    return any(selector == base.__name__ for base in type(module).__mro__)
