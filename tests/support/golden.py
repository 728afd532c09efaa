"""Replay recorded answers ("golden cases") against an implementation.

``load_cases(system, module)`` reads ``tests/golden/SYSTEM/MODULE.json`` and its ``.npz``; ``replay(case)`` builds the
object under test, drives it call by call in the recorded order of events and raises :class:`GoldenMismatch` with every
difference found. By default the twins answer; ``replay(case, resolve=...)`` puts any other module in their place
(``resolve(system, module)`` returns it).

What a machine may decide is not compared as if it were part of the answer (:mod:`tests.support.portable`): ranks count
within their ties, a drawn state within the rounding of the draw (after which the recorded state is loaded, so that what
follows is judged from the same numbers), and a deviation beyond its limit passes only if the implementation itself
moves as far when its inputs move by one unit in the last place.

A case that is not driven directly names a *harness*. ``tests/support/harness_SYSTEM.py`` registers them::

    @harness("alignment", "sink_weighted")
    def sink_weighted(run, M, reg, weight, **kw):      # arguments of the call, tensors already decoded
        cost, plan = run.symbol(M, reg, cuda=False, **kw)
        return (plan * weight).sum(), cost, plan

``run`` is a :class:`Run`: ``run.symbol`` (the symbol in the implementation's module), ``run.module``, ``run.options``,
``run.sibling("other_module")``, ``run.case``. For cases of kind ``class`` the harness gets the keyword arguments of the
constructor and returns the object under test. ``@stand_ins("triangulate")`` registers a context manager (called with
``run``) that is open while a case with ``stand_ins`` is replayed, imports included.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.support import twins
from tests.support.portable import DRAWN, MOVES, SAFETY, Ties, nudged

GOLDEN = Path(__file__).resolve().parents[1] / "golden"

Resolve = Callable[[str, str], Any]


# ------------------------------------------------------------------------------------------------------------ cases
@cache
def _read(system: str, module: str) -> tuple[dict[str, Any], ...]:
    return tuple(json.loads((GOLDEN / system / f"{module}.json").read_text())["cases"])


@lru_cache(maxsize=4)
def _arrays(system: str, module: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / system / f"{module}.npz") as packed:
        return dict(packed)


@dataclass(frozen=True)
class Case:
    """One recorded case. ``data`` is the JSON entry, markers undecoded."""

    system: str
    module: str
    data: dict[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        return f"{self.system}-{self.module}-{self.data['symbol']}-{self.data['case']}"

    @property
    def symbol(self) -> str:
        return self.data["symbol"]

    @property
    def calls(self) -> list[dict[str, Any]]:
        return self.data.get("calls", [])

    def decode(self, value: Any) -> Any:
        """Plain value, tensors fresh; ``$build`` nodes are left to :class:`Run`."""
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "$tensor" in value:
            array = _arrays(self.system, self.module)[value["$tensor"]].copy()
            return array if value.get("numpy") else torch.from_numpy(array)
        if "$tuple" in value:
            return tuple(self.decode(item) for item in value["$tuple"])
        if "$float" in value:
            return float(value["$float"])
        if "$torch" in value:
            return getattr(torch, value["$torch"])
        if "$namespace" in value:
            return SimpleNamespace(**self.decode(value["$namespace"]))
        return {key: self.decode(item) for key, item in value.items()}


def systems() -> list[str]:
    return sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())


def modules(system: str) -> list[str]:
    return sorted(path.stem for path in (GOLDEN / system).glob("*.json"))


def load_cases(system: str, module: str) -> list[Case]:
    return [Case(system, module, data) for data in _read(system, module)]


# ------------------------------------------------------------------------------------------------------------ stubs
class DictLoss(nn.Module):
    def __init__(self, scale: float = 1.0, extra: dict[str, Any] | None = None, loss_key: str = "loss") -> None:
        super().__init__()
        self.scale, self.extra, self.loss_key = scale, extra or {}, loss_key

    def forward(self, a: torch.Tensor, b: torch.Tensor, *_: Any, **__: Any) -> dict[str, Any]:
        return {self.loss_key: self.scale * ((a - b) ** 2).mean(), **self.extra, "training": self.training}


class TupleLoss(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, dict[str, int]]:
        return ((a - b) ** 2).mean(), {"n": 1}


class ConstLoss(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, *_: Any, **__: Any) -> float:
        return self.value


class DictLinear(nn.Linear):
    def forward(self, d: dict[str, torch.Tensor]) -> torch.Tensor:
        return super().forward(d["x"])


STUBS = {cls.__name__: cls for cls in (DictLoss, TupleLoss, ConstLoss, DictLinear)}


# -------------------------------------------------------------------------------------------------------- harnesses
HARNESSES: dict[tuple[str, str], Callable[..., Any]] = {}
STAND_INS: dict[str, Callable[[Run], contextlib.AbstractContextManager[Any]]] = {}


def harness(system: str, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        if HARNESSES.setdefault((system, name), function) is not function:
            raise ValueError(f"harness {name!r} of {system!r} is registered twice")
        return function

    return register


def stand_ins(system: str) -> Callable[[Any], Any]:
    def register(manager: Any) -> Any:
        STAND_INS[system] = manager
        return manager

    return register


@cache
def load_harnesses() -> None:
    """Import every ``tests/support/harness_*.py``."""
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if info.name.startswith("harness_"):
            importlib.import_module(f"tests.support.{info.name}")


@harness("*", "value")
def _value(run: Run) -> dict[Any, Any]:
    return dict(run.symbol)


# ------------------------------------------------------------------------------------------------------- comparison
class GoldenMismatch(AssertionError):
    """The implementation does not answer as recorded."""


class Comparison:
    """Collects the differences between recorded (JSON) and actual values of one case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.problems: list[str] = []
        self.excess: list[tuple[tuple[str, str, str], float, str]] = []
        """Deviations beyond their limit: where, how far, in words."""
        self.seen: dict[tuple[str, str, str], torch.Tensor] = {}
        self.ties = 0.0
        """Share of the ranks of the present call that are within rounding of another order."""
        override = case.data.get("tolerance", {})
        single = case.data["dtype"] == "float32"
        self.base = {kind: self._limit(kind, single) for kind in ("value", "grad", "state")}
        self.limits = {kind: override.get(kind, self.base[kind]) for kind in self.base}
        self.limits["state"] = override.get("value", self.base["state"])
        self.paths: dict[str, float] = override.get("paths", {})

    @staticmethod
    def _limit(kind: str, single: bool) -> float:
        return ({"grad": 2e-4} if single else {"grad": 1e-10}).get(kind, 2e-5 if single else 1e-10)

    def limit(self, kind: str, path: str, dtype: torch.dtype | None = None) -> float:
        if path.rpartition(".")[2].endswith("accuracy"):
            return self.ties + torch.finfo(torch.float32).eps
        limit = self.limits[kind]
        if dtype == torch.float32:
            limit = max(limit, self._limit(kind, single=True))
        for part, special in self.paths.items():
            if path == part or path.startswith(f"{part}."):
                limit = max(limit, special)
        return limit

    @property
    def found(self) -> list[str]:
        """Everything so far, also deviations that rounding may yet explain."""
        return [*self.problems, *(text for _, _, text in self.excess)]

    def complain(self, where: str, path: str, text: str) -> None:
        self.problems.append(f"{where}{'.' if path else ''}{path}: {text}")

    def keys(self, where: str, path: str, want: list[str], got: list[str]) -> bool:
        if want == got:
            return True
        missing, extra = [k for k in want if k not in got], [k for k in got if k not in want]
        text = f"missing {missing}, unexpected {extra}" if missing or extra else f"order {got}, recorded {want}"
        self.complain(where, path, f"keys: {text}")
        return False

    def compare(self, where: str, want: Any, got: Any, path: str = "", kind: str = "value") -> None:
        def kind_of(*types: type) -> bool:
            if isinstance(got, types):
                return True
            self.complain(where, path, f"got {type(got).__name__} {got!r:.60}, recorded {want!r:.60}")
            return False

        if isinstance(want, dict) and "$tensor" in want:
            self.tensor(where, want, got, path, kind)
        elif isinstance(want, dict) and "$tuple" in want:
            if kind_of(tuple):
                self.sequence(where, want["$tuple"], got, path, kind)
        elif isinstance(want, dict) and "$object" in want:
            if type(got).__name__ != want["$object"]:
                self.complain(where, path, f"got a {type(got).__name__}, recorded a {want['$object']}")
        elif isinstance(want, dict) and "$torch" in want:
            if got is not getattr(torch, want["$torch"]):
                self.complain(where, path, f"got {got!r}, recorded torch.{want['$torch']}")
        elif isinstance(want, float) or (isinstance(want, dict) and "$float" in want):
            if kind_of(float):
                self.number(where, self.case.decode(want), got, path, kind)
        elif isinstance(want, dict):
            if kind_of(dict) and self.keys(where, path, list(want), list(got)):
                for key, item in want.items():
                    self.compare(where, item, got[key], f"{path}.{key}".lstrip("."), kind)
        elif isinstance(want, list):
            if kind_of(list):
                self.sequence(where, want, got, path, kind)
        elif type(got) is not type(want) or got != want:
            self.complain(where, path, f"got {type(got).__name__} {got!r:.60}, recorded {want!r:.60}")

    def sequence(self, where: str, want: list[Any], got: Any, path: str, kind: str) -> None:
        if len(want) != len(got):
            self.complain(where, path, f"{len(got)} entries, recorded {len(want)}")
            return
        for i, (a, b) in enumerate(zip(want, got, strict=True)):
            self.compare(where, a, b, f"{path}.{i}".lstrip("."), kind)

    def number(self, where: str, want: float, got: float, path: str, kind: str) -> None:
        if math.isfinite(want) and math.isfinite(got):
            a, b = (torch.tensor(value, dtype=torch.float64) for value in (got, want))
            self.measure((where, path, kind), a, b, self.limit(kind, path))
        elif not (want == got or (math.isnan(want) and math.isnan(got))):
            self.complain(where, path, f"got {got!r}, recorded {want!r}")

    def tensor(self, where: str, want: dict[str, Any], got: Any, path: str, kind: str) -> None:
        expected_type = np.ndarray if want.get("numpy") else torch.Tensor
        if not isinstance(got, expected_type):
            self.complain(where, path, f"got {type(got).__name__} {got!r:.60}, recorded a {expected_type.__name__}")
            return
        recorded = self.case.decode(want)
        for name in ("dtype", "shape"):
            if getattr(got, name) != getattr(recorded, name):
                self.complain(where, path, f"{name} {getattr(got, name)}, recorded {getattr(recorded, name)}")
                return
        expected = torch.as_tensor(recorded)
        actual = torch.as_tensor(got).detach().cpu()
        if not expected.dtype.is_floating_point:
            if not torch.equal(actual, expected):
                self.complain(where, path, f"got {actual.tolist()!r:.80}, recorded {expected.tolist()!r:.80}")
            return
        a, b = actual.double(), expected.double()
        finite = b.isfinite()
        if not torch.equal(a.isfinite(), finite) or not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()):
            self.complain(where, path, "not-a-number or infinity at other places than recorded")
            return
        a, b = a[finite], b[finite]
        if not a.numel():
            return
        limit = self.limit(kind, path, expected.dtype)
        if kind == "state" and bool((b.float().double() == b).all()):
            # drawn in float32, whatever the case is
            limit = max(limit, DRAWN)
        self.measure((where, path, kind), a, b, limit)

    def measure(self, key: tuple[str, str, str], got: torch.Tensor, want: torch.Tensor, limit: float) -> None:
        self.seen[key] = got
        found = self.distance(key[2], got, want)
        if found > limit:
            where, path, kind = key
            name = f"{where}{'.' if path else ''}{path}"
            self.excess.append((key, found, f"{name}: {kind} deviates by {found:.3g} (allowed {limit:.3g})"))

    @staticmethod
    def distance(kind: str, a: torch.Tensor, b: torch.Tensor) -> float:
        if a.shape != b.shape:
            return math.nan
        scale = b.abs().max() if kind == "grad" else b.abs()
        return float(((a - b).abs() / (1 + scale)).max())

    def gradients(self, where: str, want: dict[str, Any] | None, got: dict[str, torch.Tensor | None] | None) -> None:
        if want is None or got is None:
            if want is not got:
                self.complain(where, "", "the answer has a graph" if want is None else "the answer has no graph")
            return
        if not self.keys(where, "", list(want), list(got)):
            return
        for name, recorded in want.items():
            actual = got[name]
            if name.startswith("param.") or (recorded is not None and actual is not None):
                self.compare(where, recorded, actual, name, "grad")
                continue
            # an input that is not reached may also come out as exact zeros
            value = actual if recorded is None else self.case.decode(recorded)
            if value is not None and bool((value != 0).any()):
                self.complain(
                    where, name, f"gradient is {'None' if actual is None else 'not None'}, recorded otherwise"
                )

    def finish(self, again: Callable[[int], Comparison] | None = None) -> None:
        """Raise what is wrong; ``again(n)`` replays the case with inputs moved by one ulp, for the ``n``-th time."""
        if self.excess and not self.problems and again is not None:
            for turn in range(MOVES):
                moved = again(turn).seen
                # a comparison with NaN (nothing there, another shape) is false: the excess stays
                self.excess = [
                    (key, found, text)
                    for key, found, text in self.excess
                    if not (key in moved and found <= SAFETY * self.distance(key[2], moved[key], self.seen[key]))
                ]
                if not self.excess:
                    break
        found = self.found
        if found:
            shown = found[:12]
            more = f"\n  ... and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
            raise GoldenMismatch(f"{self.case.id}\n  " + "\n  ".join(shown) + more)


# ----------------------------------------------------------------------------------------------------------- replay
def leaves(value: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The floating tensors in lists, tuples and dicts, with their paths."""
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from leaves(item, f"{path}.{i}")


def scalar(answer: Any) -> torch.Tensor | None:
    """The one number whose gradient was recorded, if the answer holds one with a graph."""
    if isinstance(answer, torch.Tensor):
        return answer.sum() if answer.requires_grad else None
    if isinstance(answer, dict):
        for key in ("loss", "total_loss", "total"):
            if isinstance(answer.get(key), torch.Tensor):
                return scalar(answer[key])
        parts = [v.sum() for v in answer.values() if isinstance(v, torch.Tensor) and v.requires_grad]
        return torch.stack(parts).sum() if parts else None
    if isinstance(answer, list | tuple) and answer:
        return scalar(answer[0])
    return None


def gradients(answer: Any, inputs: dict[str, torch.Tensor], subject: Any) -> dict[str, torch.Tensor | None] | None:
    total = scalar(answer)
    if total is None:
        return None
    targets = dict(inputs)
    if isinstance(subject, nn.Module):
        targets.update((f"param.{name}", p) for name, p in subject.named_parameters() if p.requires_grad)
    found = torch.autograd.grad(total, list(targets.values()), retain_graph=True, allow_unused=True)
    return dict(zip(targets, found, strict=True))


@contextlib.contextmanager
def _isolated(case: Case) -> Iterator[None]:
    """Leave the process as it was: random states, default dtype, the name ``torch.float``."""
    numpy_state, default, name = np.random.get_state(), torch.get_default_dtype(), torch.float  # noqa: NPY002
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if case.data.get("default_dtype"):
                dtype = getattr(torch, case.data["default_dtype"])
                torch.set_default_dtype(dtype)
                torch.float = dtype
            yield
        finally:
            torch.set_default_dtype(default)
            torch.float = name
            np.random.set_state(numpy_state)  # noqa: NPY002


class Run:
    """One replay; what a harness function gets as its first argument."""

    def __init__(self, case: Case, resolve: Resolve = twins.golden_module, nudge: int | None = None) -> None:
        self.case = case
        self.resolve = resolve
        self.nudge = nudge
        """Which of the random moves of the inputs by one ulp; ``None``: as recorded."""
        self.options: dict[str, Any] = case.data.get("options", {})
        self._given: dict[int, Any] = {}

    def sibling(self, module: str) -> Any:
        """The implementation's counterpart of another golden module of the system."""
        return self.resolve(self.case.system, module)

    @cached_property
    def module(self) -> Any:
        return self.sibling(self.case.module)

    @property
    def symbol(self) -> Any:
        return getattr(self.module, self.case.symbol)

    def golden_name(self, owner: str | ModuleType) -> str:
        return twins.golden_name(owner if isinstance(owner, str) else owner.__name__)

    # -- building
    def _build(self, node: dict[str, Any]) -> Any:
        args = [self.decode(a) for a in node.get("args", [])]
        kwargs = {key: self.decode(a) for key, a in node.get("kwargs", {}).items()}
        root, _, name = node["$build"].rpartition(".")
        if root == "stub":
            cls = STUBS[name]
        elif root == "torch.nn":
            cls = getattr(nn, name)
        else:
            cls = getattr(self.sibling(root.removeprefix("sibling.")), name)
        return cls(*args, **kwargs)

    def decode(self, value: Any) -> Any:
        """As ``Case.decode``, with ``$build`` nodes built where they stand."""
        if isinstance(value, list):
            return [self.decode(item) for item in value]
        if isinstance(value, dict) and "$build" in value:
            return self._given[id(value)] if id(value) in self._given else self._build(value)
        if isinstance(value, dict) and "$tuple" in value:
            return tuple(self.decode(item) for item in value["$tuple"])
        if isinstance(value, dict) and "$namespace" in value:
            return SimpleNamespace(**self.decode(value["$namespace"]))
        if isinstance(value, dict) and not any(key.startswith("$") for key in value):
            return {key: self.decode(item) for key, item in value.items()}
        return self.case.decode(value)

    def _build_given(self, value: Any) -> None:
        if isinstance(value, dict) and value.get("given_weights"):
            self._given[id(value)] = self._build(value)
        elif isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                self._build_given(item)

    def _construct(self, comparison: Comparison) -> Any:
        data = self.case.data
        init, prepare = data.get("init", {}), data.get("prepare", [])
        self._build_given([init, prepare])
        torch.manual_seed(data["seed"])
        kwargs = self.decode(init)
        attached = [(step["attach"], self.decode(step["value"])) for step in prepare if "attach" in step]
        make = self._driver()
        if "init_raises" in data:
            self._expect_error(comparison, "construction", data["init_raises"], lambda: make(**kwargs))
            return None
        subject = make(**kwargs)
        if isinstance(subject, nn.Module):
            if data["dtype"]:
                subject.to(getattr(torch, data["dtype"]))
            subject.train(data["train"])
        for name, value in attached:
            if data["dtype"]:
                value.to(getattr(torch, data["dtype"]))
            setattr(subject, name, value.train(subject.training))
        for prefixes in (step["load_state"] for step in prepare if "load_state" in step):
            state = subject.state_dict()
            with torch.no_grad():
                for key, value in data["state_before"].items():
                    if key.startswith(tuple(prefixes)):
                        state[key].copy_(self.case.decode(value))
        comparison.compare("state_before", data["state_before"], dict(subject.state_dict()), kind="state")
        self._load(subject, data["state_before"])
        comparison.keys("parameters", "", data["parameters"], [name for name, _ in subject.named_parameters()])
        return subject

    def _load(self, subject: Any, recorded: dict[str, Any]) -> None:
        """Go on from the recorded state, which the actual one has just been compared with."""
        state = subject.state_dict() if isinstance(subject, nn.Module) else {}
        with torch.no_grad():
            for key, value in recorded.items():
                given = self.case.decode(value) if isinstance(value, dict) and "$tensor" in value else None
                if isinstance(given, torch.Tensor) and key in state and state[key].shape == given.shape:
                    state[key].copy_(given)

    # -- driving
    def _driver(self) -> Callable[..., Any]:
        name = self.case.data.get("harness", "call")
        if name == "call":
            return self.symbol
        load_harnesses()
        function = HARNESSES.get((self.case.system, name)) or HARNESSES.get(("*", name))
        if function is None:
            raise LookupError(
                f"no harness {name!r} for {self.case.system}: register it in harness_{self.case.system}.py"
            )
        return lambda *args, **kwargs: function(self, *args, **kwargs)

    @staticmethod
    def _expect_error(comparison: Comparison, where: str, name: str, action: Callable[[], Any]) -> None:
        try:
            answer = action()
        except Exception as error:
            if type(error).__name__ != name:
                comparison.complain(where, "", f"raised {type(error).__name__}: {error}, recorded {name}")
        else:
            comparison.complain(where, "", f"answered {answer!r:.60}, recorded {name}")

    def _call(self, comparison: Comparison, index: int, call: dict[str, Any], subject: Any) -> None:
        where = f"call {index}"
        args, kwargs = self.case.decode(call.get("args", [])), self.case.decode(call.get("kwargs", {}))
        if self.nudge is not None:
            for place, (_, tensor) in enumerate([*leaves(args, "args"), *leaves(kwargs, "kwargs")]):
                tensor.copy_(nudged(tensor, 1000 * self.nudge + 100 * index + place))
        inputs: dict[str, torch.Tensor] = {}
        if "grads" in call or call.get("grad"):
            inputs = dict([*leaves(args, "args"), *leaves(kwargs, "kwargs")])
            for tensor in inputs.values():
                tensor.requires_grad_()
        target = getattr(subject, call["method"]) if "method" in call else subject
        seed = self.case.data["seed"] + 1 + index
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  the recorded code draws from numpy's global generator
        if "raises" in call:
            self._expect_error(comparison, where, call["raises"], lambda: target(*args, **kwargs))
            return
        try:
            with Ties() as ties:
                answer = target(*args, **kwargs)
        except SystemExit as stop:
            answer = {"system_exit": stop.code}
        except Exception as error:
            comparison.complain(where, "", f"raised {type(error).__name__}: {error}")
            raise GoldenMismatch(f"{self.case.id}: " + "\n  ".join(comparison.found)) from error
        if "pick" in self.options:
            answer = answer[self.options["pick"]]
        comparison.ties = ties.share
        comparison.compare(f"{where} answer", call["returns"], answer)
        if "grads" in call:
            comparison.gradients(f"{where} gradient", call["grads"], gradients(answer, inputs, subject))
        if "state_after" in call:
            comparison.compare(f"{where} state", call["state_after"], dict(subject.state_dict()), kind="state")
            self._load(subject, call["state_after"])

    def __call__(self) -> None:
        self.compared().finish(lambda turn: Run(self.case, self.resolve, nudge=turn).compared())

    def compared(self) -> Comparison:
        """Replay, and what was found."""
        data = self.case.data
        comparison = Comparison(self.case)
        with contextlib.ExitStack() as stack:
            if data.get("stand_ins"):
                load_harnesses()
                stack.enter_context(STAND_INS[self.case.system](self))
            _ = self.module  # imported under the usual default dtype
            stack.enter_context(_isolated(self.case))
            if data["kind"] == "class":
                subject = self._construct(comparison)
            else:
                subject = self._driver()
            for index, call in enumerate(self.case.calls):
                self._call(comparison, index, call, subject)
        return comparison


def replay(case: Case, resolve: Resolve = twins.golden_module) -> None:
    """Replay one case; :class:`GoldenMismatch` lists what differs."""
    Run(case, resolve)()
