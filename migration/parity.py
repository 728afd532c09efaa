"""Old and new side by side: build both from one old call, run both on the same input, measure every difference.

The measure is that of the recorded cases: ``|new - old| / (1 + scale)``, where ``scale`` is the old value of the same
element for values and states, and the largest old entry of the tensor for gradients.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from .catalog import Case, ResultKey, Symbol
from .memory import PeakMemory
from .resolve import resolve
from .state import convert_state, rule_for
from .translate import bind, translate, translate_forward

__all__ = [
    "TOLERANCE",
    "Comparison",
    "Pair",
    "build_pair",
    "compare_calls",
    "compare_function",
    "deviation",
    "load_old_state",
    "measured_memory",
    "resolve",
]

TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.float16: 5e-3, torch.bfloat16: 4e-2}
"""Largest deviation of values and states; gradients may deviate ten times as much, except in float64."""


def _double(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().to("cpu", torch.float64)
    return torch.tensor(value, dtype=torch.float64)


def deviation(new: Any, old: Any, *, gradient: bool = False) -> float:
    """The largest deviation of two tensors or numbers; infinite if shapes or places of NaN and infinity differ."""
    a, b = _double(new), _double(old)
    if a.numel() != b.numel():
        return math.inf
    a, b = a.reshape(-1), b.reshape(-1)
    finite = torch.isfinite(b)
    if not torch.equal(finite, torch.isfinite(a)):
        return math.inf
    if not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()):
        return math.inf
    a, b = a[finite], b[finite]
    if not a.numel():
        return 0.0
    scale = b.abs().max() if gradient else b.abs()
    return float(((a - b).abs() / (1 + scale)).max())


@dataclass
class Comparison:
    """Deviations of one call, by what was compared."""

    values: dict[str, float] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)
    state: dict[str, float] = field(default_factory=dict)
    old_loss: float = math.nan
    new_loss: float = math.nan
    old_seconds: float = math.nan
    new_seconds: float = math.nan
    old_bytes: float = math.nan
    new_bytes: float = math.nan
    """Largest memory of living results, measured inside ``measured_memory()`` only."""
    single: set[str] = field(default_factory=set)
    """Metrics that the new loss gives in float32 whatever the input: the limit of float32 holds for them."""
    not_finite: list[str] = field(default_factory=list)
    """Values that are NaN or infinite on both sides, in the same places: no deviation, and no agreement either."""

    @property
    def worst(self) -> float:
        """The largest deviation of all."""
        return max([*self.values.values(), *self.gradients.values(), *self.state.values()], default=0.0)

    def failures(self, dtype: torch.dtype, *, factor: float = 1.0) -> list[str]:
        """What deviates by more than the tolerance of ``dtype`` (times ``factor``), in words."""
        limit = TOLERANCE[dtype] * factor
        grad_limit = limit * (1 if dtype == torch.float64 else 10)
        return [
            f"{kind} {name}: {value:.3g}"
            for kind, part, bound in (
                ("value", self.values, limit),
                ("gradient", self.gradients, grad_limit),
                ("state", self.state, limit),
            )
            for name, value in part.items()
            if not value <= (max(bound, TOLERANCE[torch.float32]) if kind == "value" and name in self.single else bound)
        ]


def _flatten(result: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(result, Mapping):
        items: Sequence[tuple[str, Any]] = [(str(key), value) for key, value in result.items()]
    elif isinstance(result, (tuple, list)):
        items = [(str(index), value) for index, value in enumerate(result)]
    else:
        return {prefix or "loss": result}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat.update(_flatten(value, f"{prefix}.{key}" if prefix else key))
    return flat


def _loss(flat: Mapping[str, Any]) -> Tensor:
    """The entry to differentiate: the rule of the recorded cases."""
    for key in ("loss", "total_loss", "total", "0", "0.loss"):
        value = flat.get(key)
        if isinstance(value, Tensor):
            return value
    carrying = [v for v in flat.values() if isinstance(v, Tensor) and v.requires_grad]
    if not carrying:
        return next((v for v in flat.values() if isinstance(v, Tensor)), torch.tensor(math.nan))
    return torch.stack([value.sum() for value in carrying]).sum()


def _leaves(value: Any, path: str, found: dict[str, Tensor]) -> Any:
    """A copy of ``value`` whose floating tensors are leaves that require gradients, collected in ``found``."""
    if isinstance(value, Tensor):
        copy = value.detach().clone()
        if copy.is_floating_point():
            found[path] = copy.requires_grad_()
        return copy
    if isinstance(value, Mapping):
        return {key: _leaves(item, f"{path}.{key}", found) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_leaves(item, f"{path}.{index}", found) for index, item in enumerate(value))
    return value


def _gradients(loss: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    if not loss.requires_grad or not leaves:
        return dict.fromkeys(leaves)
    given = torch.autograd.grad(loss.sum(), list(leaves.values()), allow_unused=True)
    return dict(zip(leaves, given, strict=True))


def _compare_gradients(
    comparison: Comparison, old: Mapping[str, Tensor | None], new: Mapping[str, Tensor | None], names: Mapping[str, str]
) -> None:
    for name, other in names.items():
        a, b = new.get(other), old.get(name)
        if a is None and b is None:
            continue
        known = b if b is not None else a
        assert known is not None
        zero = torch.zeros_like(known)
        comparison.gradients[name] = deviation(zero if a is None else a, zero if b is None else b, gradient=True)


def _as_rounded(value: Any, like: Any) -> Any:
    """A Python number rounded as ``like`` is: metrics are float32 whatever the dtype of the loss."""
    if isinstance(value, float) and isinstance(like, Tensor) and like.dtype == torch.float32:
        return torch.tensor(value, dtype=torch.float32)
    return value


def _finite(value: Any) -> bool:
    return bool(torch.isfinite(_double(value)).all())


def _compare_values(comparison: Comparison, case: Case, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    old_loss, new_loss = _loss(old), _loss(new)
    if any(isinstance(value, Tensor) for value in old.values()):
        comparison.values["loss"] = deviation(new_loss, old_loss)
        comparison.not_finite += [] if _finite(old_loss) else ["loss"]
    comparison.old_loss, comparison.new_loss = float(old_loss.detach().sum()), float(new_loss.detach().sum())
    for key, value in old.items():
        rule = case.results.get(key)
        if rule is None or rule.new is None or rule.differs or isinstance(value, str):
            continue
        if rule.new not in new:
            comparison.values[key] = math.inf
        else:
            if "loss" in comparison.not_finite and key != "loss" and not _finite(new[rule.new]):
                comparison.not_finite.append(key)  # a metric of values that are not finite: nothing is known of it
                continue
            comparison.values[key] = deviation(new[rule.new], _as_rounded(value, new[rule.new]))
            if key not in ("loss", *comparison.not_finite) and not _finite(value):
                comparison.not_finite.append(key)
            if key != "loss" and isinstance(new[rule.new], Tensor) and new[rule.new].dtype == torch.float32:
                comparison.single.add(key)


def _measured(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result of ``call``, its seconds, and its bytes where memory is measured (which takes time)."""
    if _MEMORY.get():
        with PeakMemory() as memory:
            return call(), math.nan, float(memory.peak)
    start = time.perf_counter()
    return call(), time.perf_counter() - start, math.nan


_MEMORY: ContextVar[bool] = ContextVar("_MEMORY", default=False)


@contextlib.contextmanager
def measured_memory() -> Iterator[None]:
    """Comparisons have bytes in place of seconds meanwhile."""
    token = _MEMORY.set(True)
    try:
        yield
    finally:
        _MEMORY.reset(token)


@dataclass
class Pair:
    """An old object and its successor, built from the same old call, with the same state."""

    symbol: Symbol
    case: Case
    old: nn.Module
    new: nn.Module
    dtype: torch.dtype
    call: Callable[..., Any] | None = None
    """What to call in place of the old object."""
    draws: Callable[[], object] | None = None
    """Sets all generators before each of the two calls, in place of a seed; whoever gives it puts them back."""

    def compare(self, *args: Any, seed: int = 0, backward: bool = True, method: str = "", **kwargs: Any) -> Comparison:
        """Call both with the old forward arguments and compare results, gradients and the state afterwards."""
        comparison = Comparison()
        given = bind(self.case.forward or {}, args, kwargs)
        old_leaves: dict[str, Tensor] = {}
        new_leaves: dict[str, Tensor] = {}
        old_kwargs = {name: _leaves(value, name, old_leaves) for name, value in given.items()}
        renamed = {name: self.case.forward[name].new_name for name in given} if self.case.forward else {}
        new_kwargs = {
            name: _leaves(value, name, new_leaves) for name, value in translate_forward(self.case, (), given).items()
        }
        self._own_leaves(old_leaves, new_leaves)
        if not backward:
            for leaf in (*old_leaves.values(), *new_leaves.values()):
                if not isinstance(leaf, nn.Parameter):
                    leaf.requires_grad_(False)
        draw, call = self.draws or (lambda: torch.manual_seed(seed)), self.call or self.old
        with torch.random.fork_rng(devices=[]):
            draw()
            old_result, comparison.old_seconds, comparison.old_bytes = _measured(lambda: call(**old_kwargs))
            draw()
            new_result, comparison.new_seconds, comparison.new_bytes = _measured(lambda: self.new(**new_kwargs))
        old_flat, new_flat = _flatten(old_result), _flatten(new_result)
        _compare_values(comparison, self.case, old_flat, new_flat)
        if backward:
            names = {}
            for name in old_leaves:
                head, dot, tail = name.partition(".")
                other = self._parameter_names().get(name[6:]) if head == "param" else None
                names[name] = f"param.{other}" if other else f"{renamed.get(head, head)}{dot}{tail}"
            _compare_gradients(
                comparison,
                _gradients(_loss(old_flat), old_leaves),
                self._per_old_unit(_gradients(_loss(new_flat), new_leaves)),
                {old: new for old, new in names.items() if new in new_leaves},
            )
        for key, value in convert_state(self.case, self.old.state_dict()).items():
            own = self.new.state_dict()
            comparison.state[key] = deviation(own[key], value) if key in own else math.inf
        return comparison

    def _per_old_unit(self, gradients: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
        """New gradients with respect to the old arguments: those of a scaled one are scaled."""
        scales = {a.new_name: a.scale for a in (self.case.forward or {}).values() if a.scale is not None}
        return {
            name: gradient if gradient is None else gradient * scales.get(name.partition(".")[0], 1.0)
            for name, gradient in gradients.items()
        }

    def _own_leaves(self, old: dict[str, Tensor], new: dict[str, Tensor]) -> None:
        for module, leaves in ((self.old, old), (self.new, new)):
            leaves.update({f"param.{name}": p for name, p in module.named_parameters() if p.requires_grad})

    def _parameter_names(self) -> dict[str, str]:
        names = {}
        for name, _ in self.old.named_parameters():
            found = rule_for(self.case.state, name)
            if found is not None and found[0].new and not found[0].transpose:
                names[name] = found[0].new[0].replace("*", found[1])
        return names


def build_pair(
    symbol: Symbol,
    *args: Any,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    train: bool = True,
    prepare: Callable[[Any], None] | None = None,
    **kwargs: Any,
) -> Pair:
    """Build the twin with the old arguments and its successor with what the catalog makes of them.

    The twin's state (after ``prepare(twin)``) is converted and loaded strictly into the successor.

    Raises:
        Untranslatable: the catalog has no successor for this call.
        UnknownKeys: the state has keys that the catalog does not know.
    """
    case, new_kwargs = translate(symbol, args, kwargs)
    assert case.new is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        old = resolve(symbol.twin)(*args, **kwargs).to(dtype).train(train)
        if prepare is not None:
            prepare(old)
            old.to(dtype)  # what it has created by now, too
        new = resolve(case.new)(**new_kwargs).to(dtype).train(train)
    new.load_state_dict(_complete(new, convert_state(case, old.state_dict()), case, _unmade(old)))
    return Pair(symbol, case, old, new, dtype)


def _unmade(module: nn.Module) -> set[str]:
    """Buffers that the module has only a name for: it makes them at its first call."""
    parts = module.named_modules()
    return {
        f"{prefix}.{name}".lstrip(".")
        for prefix, part in parts
        for name, buffer in part._buffers.items()
        if buffer is None
    }


def load_old_state(symbol: Symbol, old: nn.Module, state: Mapping[str, Any]) -> None:
    """Load the state of an old object, with the buffers that it would make at its first call only."""
    for key in _unmade(old) & set(state):
        prefix, _, name = key.rpartition(".")
        setattr(old.get_submodule(prefix), name, torch.empty_like(state[key]))
        # it must not make them again
        for flag in (flag for case in symbol.cases for flag in case.running):
            if getattr(old, flag, None) is False:
                setattr(old, flag, True)
    old.load_state_dict(state)


def _complete(new: nn.Module, state: dict[str, Any], case: Case, unmade: set[str]) -> dict[str, Any]:
    own = new.state_dict()
    lacking = [rule for rule in case.state if rule.fresh or rule.old in unmade]
    fresh = {key: own[key] for rule in lacking for key in rule.new if key in own}
    return {**fresh, **state}


def compare_calls(
    case: Case,
    old: Callable[..., Any],
    new: Callable[..., Any],
    inputs: Mapping[str, Any],
    *,
    convert: Callable[..., Mapping[str, Any]] = dict,
    seed: int = 0,
    results: Mapping[str, str] | None = None,
    shared: Mapping[str, Tensor] | None = None,
) -> Comparison:
    """Compare two callables on the same input.

    Args:
        case: the row of the catalog.
        old: takes ``inputs`` by name.
        new: takes what ``convert`` makes of them.
        inputs: tensors in them are copied and get gradients.
        convert: takes ``inputs`` by name and returns the arguments of the successor.
        seed: of both calls.
        results: old key -> new key of what to compare beside the loss; default: as the row says.
        shared: parameters that both use, whose gradients are compared as well.
    """
    comparison = Comparison()
    if results is not None:
        case = replace(case, results={key: ResultKey(key, name) for key, name in results.items()})

    def called(function: Callable[..., Any], translated: Callable[..., Mapping[str, Any]]) -> tuple[Any, ...]:
        leaves: dict[str, Tensor] = {}
        given = translated(**{name: _leaves(value, name, leaves) for name, value in inputs.items()})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            result, seconds, size = _measured(lambda: function(**given))
        flat = _flatten(result)
        return flat, _gradients(_loss(flat), {**leaves, **(shared or {})}), seconds, size

    old_flat, old_grads, comparison.old_seconds, comparison.old_bytes = called(old, dict)
    new_flat, new_grads, comparison.new_seconds, comparison.new_bytes = called(new, convert)
    _compare_values(comparison, case, old_flat, new_flat)
    _compare_gradients(comparison, old_grads, new_grads, {name: name for name in old_grads})
    return comparison


def compare_function(symbol: Symbol, *args: Any, seed: int = 0, **kwargs: Any) -> Comparison:
    """Call an old function and its successor with the same input."""
    case, _ = translate(symbol, args, kwargs)
    assert case.new is not None

    def converted(**given: Any) -> dict[str, Any]:
        return translate(symbol, (), given)[1]

    given = bind(case.arguments, args, kwargs)
    return compare_calls(case, resolve(symbol.twin), resolve(case.new), given, convert=converted, seed=seed)
