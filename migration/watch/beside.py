"""The other loss beside the one that trains: on a sample of calls it gets the same inputs, state and random numbers.

The loss that trains is called as ever, and once. What is compared are copies: of the object before the call, of the
inputs, and the successor that the catalog makes of it. Generators, autocast's cache and logging are as if nothing had
been; the training is bitwise the same.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import json
import logging
import math
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from ..catalog import MISSING, Catalog, Symbol
from ..checkpoint.modules import attribute, successor
from ..parity import TOLERANCE, Comparison, Pair
from ..translate import Untranslatable, bind
from .attach import attach
from .backwards import old_call, predecessor
from .generators import Generators
from .inforce import catalogs_in_force
from .places import Places

__all__ = ["Shadow", "ShadowWatcher", "sampled", "shadow"]


def sampled(number: int, rate: float) -> bool:
    """Whether call ``number`` is compared: the first one, then ``rate`` of them at equal distances."""
    return number == 0 or int((number + 1) * rate) > int(number * rate)


class _Known:
    """What is known of a loss that is shadowed."""

    def __init__(self, entry: Sequence[str], place: str, given: dict[str, Any] | None, plain: dict[str, Any]) -> None:
        self.entry = entry
        self.place = place
        self.given = given
        self.plain = plain
        self.calls = 0


def _plain(subject: Any) -> dict[str, Any]:
    return {k: v for k, v in vars(subject).items() if isinstance(v, (bool, int, float, str))}


def _dtype(values: Any) -> torch.dtype:
    """The coarsest of the tensors' dtypes and of autocast's, whose tolerance holds."""
    found = [v.dtype for v in torch.utils._pytree.tree_leaves(values) if isinstance(v, torch.Tensor)]
    found += [torch.get_autocast_dtype(kind) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)]
    known = [dtype for dtype in found if dtype in TOLERANCE]
    return max(known, key=TOLERANCE.__getitem__, default=torch.float32)


@contextlib.contextmanager
def _aside(generators: Generators) -> Iterator[None]:
    """Room for calls that leave no trace: generators, autocast's cache, logging and what is printed."""
    cached, level = torch.is_autocast_cache_enabled(), logging.root.manager.disable
    torch.set_autocast_cache_enabled(False)
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        logging.disable(level)
        torch.set_autocast_cache_enabled(cached)
        generators.put()


class ShadowWatcher:
    """Told of constructions and calls; compares a sample."""

    def __init__(
        self, rate: float, log: Path | None = None, *, side: str = "old", only: bool = False, root: Path | None = None
    ) -> None:
        if not 0 < rate <= 1:
            raise ValueError(f"rate must be above 0 and at most 1, found {rate!r}")
        self.rate = rate
        self.log = log
        self.side = side
        self.only = only
        self.catalog: Catalog = catalogs_in_force()
        self.twins = {symbol.twin: symbol for symbol in self.catalog.symbols}
        self.known: dict[int, _Known] = {}
        self.places: dict[str, dict[str, Any]] = {}
        self.frames = Places(root or Path.cwd())
        self.seen = threading.local()
        self.spent = 0.0

    def where(self, frame: FrameType | None) -> str:
        """``file:line`` of the user's line behind a frame."""
        file, line = self.frames.of(frame)
        return f"{file}:{line}"

    # --- constructions ------------------------------------------------------------------------------------------------

    def build(self, entry: Sequence[str], init: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Run a constructor and keep what it was given."""
        subject, inside = args[0], getattr(self.seen, "building", None)
        if inside is not None or self.only or entry[0] != self.side:
            init(*args, **kwargs)
            return
        self.seen.building = subject
        try:
            init(*args, **kwargs)
        finally:
            self.seen.building = None
        with contextlib.suppress(Exception):
            given: dict[str, Any] | None = None
            with contextlib.suppress(Untranslatable, TypeError):
                given = self._given(entry, init, args, kwargs) if type(subject).__init__ is not object else None
            self.know(subject, _Known(entry, self.where(sys._getframe(3)), given, _plain(subject)))

    def _given(self, entry: Sequence[str], init: Any, args: Any, kwargs: Any) -> dict[str, Any]:
        if self.side == "old":
            return bind(self.twins[entry[1]].signature, args[1:], kwargs)
        bound = inspect.signature(init).bind(*args, **kwargs).arguments
        options = bound.pop("options", {})  # what a constructor hands on to its base
        return {**dict(list(bound.items())[1:]), **options}

    def know(self, subject: Any, known: _Known) -> None:
        """Remember a loss as long as it lives."""
        key = id(subject)
        weakref.finalize(subject, self.known.pop, key, None)
        self.known[key] = known

    # --- calls --------------------------------------------------------------------------------------------------------

    def call(self, entry: Sequence[str], original: Callable[..., Any], method: bool, args: Any, kwargs: Any) -> Any:
        """Run a call; compare it if it is in the sample."""
        depth = getattr(self.seen, "depth", 0)
        subject = args[0] if method else None
        wanted = None
        if method and not depth and entry[0] == self.side and isinstance(subject, nn.Module):
            with contextlib.suppress(Exception):
                wanted = self._wanted(entry, subject)
        self.seen.depth = depth + 1
        try:
            if wanted is None:
                return original(*args, **kwargs)
            return self._beside(wanted, original, subject, args[1:], kwargs)
        finally:
            self.seen.depth = depth

    def _wanted(self, entry: Sequence[str], subject: Any) -> _Known | None:
        known = self.known.get(id(subject))
        if known is None:
            if self.only:
                return None
            known = _Known(entry, self.where(sys._getframe(3)), None, _plain(subject))
            self.know(subject, known)
        number, known.calls = known.calls, known.calls + 1
        place = self._place(known)
        place["calls"][0] += 1
        if not sampled(number, self.rate) or torch._C._len_torch_dispatch_stack():
            return None
        if torch._C._functorch.peek_interpreter_stack() is not None:
            return None
        # packing what others save for their backward pass would count ours with it
        return None if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None else known

    def _beside(self, known: _Known, original: Any, subject: Any, args: Any, kwargs: Any) -> Any:
        begun = time.perf_counter()
        before: tuple[Generators, Any, Any, Any] | None = None
        trouble = ""
        try:
            reach = [subject, list(args), dict(kwargs)]
            generators = Generators(reach)
            with torch.inference_mode(False), torch.no_grad():
                twin = copy.deepcopy(subject)
                inputs = torch.utils._pytree.tree_map_only(
                    torch.Tensor, lambda t: t.detach().clone(), (tuple(args), dict(kwargs))
                )
            before = generators, twin, *inputs
        except Exception as error:
            trouble = f"cannot be copied: {type(error).__name__}: {error}"
        self.spent += time.perf_counter() - begun
        result = original(subject, *args, **kwargs)
        begun = time.perf_counter()
        try:
            comparison: Comparison | str = trouble
            if before is not None:
                now = Generators([subject, list(args), dict(kwargs)])
                with _aside(now):
                    comparison = self._compare(known, original, subject, *before)
            self._note(known, comparison, _dtype((args, kwargs)))
        except Exception as error:
            self._note(known, f"{type(error).__name__}: {error}", torch.float32)
        self.spent += time.perf_counter() - begun
        return result

    def _compare(
        self, known: _Known, original: Any, subject: Any, generators: Generators, twin: Any, args: Any, kwargs: Any
    ) -> Comparison | str:
        dtype = _dtype((args, kwargs))
        try:
            if self.side == "old":
                pair = self._forwards(known, twin, dtype)
                pair.call = lambda *a, **k: original(twin, *a, **k)
                given = args, kwargs
            else:
                names = list(inspect.signature(original).parameters)[1:]
                new = twin
                old, symbol, case = predecessor(new, known.entry[1], known.given or {}, self.catalog)
                _like(old, new)
                pair = Pair(symbol, case, old, _Through(new, original), dtype)
                given = (), old_call(case, {**dict(zip(names, args, strict=False)), **kwargs})
        except (Untranslatable, KeyError) as error:
            return f"not compared: {error}"
        pair.draws = generators.put
        known.entry = [*known.entry[:3], pair.case.new or "", pair.symbol.twin]
        try:
            return pair.compare(*given[0], **given[1])
        except Exception as error:
            return f"the other loss refuses this call: {type(error).__name__}: {error}"

    def _forwards(self, known: _Known, twin: nn.Module, dtype: torch.dtype) -> Pair:
        symbol = self.twins[known.entry[1]]
        given = known.given
        if given is not None:
            given = {**given, **self._written(symbol, known, twin)}
        new, case = successor(twin, symbol, given)
        _like(new, twin)
        return Pair(symbol, case, twin, new, dtype)

    @staticmethod
    def _written(symbol: Symbol, known: _Known, twin: nn.Module) -> dict[str, Any]:
        """Arguments whose attribute has been written since the construction."""
        row = symbol.cases[0]
        found = {}
        for name in row.arguments:
            paths = row.kept.get(name, (name,))
            value = attribute(twin, paths)
            first = known.plain.get(paths[0], MISSING)
            if value is not MISSING and first is not MISSING and first != value and type(value) is type(first):
                found[name] = value
        return found

    # --- results ------------------------------------------------------------------------------------------------------

    def _place(self, known: _Known) -> dict[str, Any]:
        key = f"{known.place} {known.entry[1]}"
        if key not in self.places:
            file, _, line = known.place.rpartition(":")
            self.places[key] = {
                "file": file, "line": int(line), "what": known.entry[1], "calls": [0, 0], "value": 0.0, "gradient": 0.0,
                "state": 0.0, "tolerance": TOLERANCE[torch.float32], "first": None, "curve": [], "seconds": [0.0, 0.0],
                "skipped": {}, "other": "",
            }  # fmt: skip
        return self.places[key]

    def _note(self, known: _Known, comparison: Comparison | str, dtype: torch.dtype) -> None:
        place = self._place(known)
        number = known.calls - 1
        if isinstance(comparison, str) and comparison.startswith("not compared"):
            place["skipped"][comparison[:300]] = place["skipped"].get(comparison[:300], 0) + 1
            self._write(place, number, comparison)
            return
        place["calls"][1] += 1
        place["tolerance"] = TOLERANCE[dtype]
        if len(known.entry) > 3:
            place["other"] = known.entry[3 if self.side == "old" else 4]
        failures = [comparison] if isinstance(comparison, str) else comparison.failures(dtype)
        if not isinstance(comparison, str):
            for key, part in zip(("value", "gradient", "state"), _parts(comparison), strict=True):
                place[key] = max([place[key], *part.values()])
            gap = abs(comparison.new_loss - comparison.old_loss) / (1 + abs(comparison.old_loss))
            place["curve"].append([number, comparison.old_loss, comparison.new_loss, gap])
            place["seconds"][0] += comparison.old_seconds
            place["seconds"][1] += comparison.new_seconds
            if len(place["curve"]) > 800:
                place["curve"] = place["curve"][::2]
        if failures and place["first"] is None:
            place["first"] = {"call": number, "text": "; ".join(failures)[:500]}
        self._write(place, number, "; ".join(failures))
        self._live()

    def _write(self, place: Mapping[str, Any], number: int, text: str) -> None:
        if self.log is None:
            return
        name = f"{place['file']}:{place['line']}"
        line = {"place": name, "loss": place["what"], "call": number, "differs": text}
        curve = place["curve"]
        if curve and curve[-1][0] == number:
            line.update(old=_number(curve[-1][1]), new=_number(curve[-1][2]))
        with open(self.log / f"shadow-{os.getpid()}.jsonl", "a", encoding="utf-8") as handle:
            handle.write(json.dumps(line) + "\n")

    def _live(self) -> None:
        if sys.stderr.isatty():
            compared = sum(place["calls"][1] for place in self.places.values())
            bad = sum(place["first"] is not None for place in self.places.values())
            state = f"{bad} places deviate" if bad else "all agree"
            sys.stderr.write(f"\r\x1b[Kshadow: {compared} calls compared, {state}\r")
            sys.stderr.flush()


class _Through(nn.Module):
    """A module that is called past the watcher."""

    def __init__(self, inner: nn.Module, original: Callable[..., Any]) -> None:
        super().__init__()
        self.__dict__["inner"] = inner
        self.__dict__["original"] = original

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The call itself."""
        return self.__dict__["original"](self.__dict__["inner"], *args, **kwargs)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        """Those of the module inside."""
        return self.__dict__["inner"].named_parameters(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """That of the module inside."""
        return self.__dict__["inner"].state_dict(*args, **kwargs)


def _like(module: nn.Module, other: nn.Module) -> None:
    """Bring ``module`` to where ``other`` is."""
    tensor = next((t for t in other.state_dict().values() if t.is_floating_point()), None)
    if tensor is not None:
        module.to(device=tensor.device, dtype=tensor.dtype)


def _parts(comparison: Comparison) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    return comparison.values, comparison.gradients, comparison.state


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


class Shadow:
    """What ``shadow`` returns: the findings so far."""

    def __init__(self, watcher: ShadowWatcher, subject: nn.Module) -> None:
        self._watcher = watcher
        self._key = id(subject)

    @property
    def compared(self) -> int:
        """Number of calls that were compared."""
        return sum(place["calls"][1] for place in self._watcher.places.values())

    @property
    def findings(self) -> list[str]:
        """What deviates, the first time at each place, and what could not be compared."""
        found = []
        for place in self._watcher.places.values():
            where = f"{place['file']}:{place['line']}"
            if place["first"] is not None:
                found.append(f"{where}, call {place['first']['call'] + 1}: {place['first']['text']}")
            found += [f"{where}: {text}" for text in place["skipped"]]
        return found

    def close(self) -> None:
        """Stop comparing."""
        self._watcher.known.pop(self._key, None)


def shadow(loss: nn.Module, rate: float = 0.01, *, log: Path | None = None) -> Shadow:
    """Compare ``loss`` with its counterpart on a sample of its calls: an old one with its successor, a new one with the
    twin that it came from. The loss is not changed and trains on.

    Args:
        loss: an old or new loss that the catalog names.
        rate: share of calls, above 0 and at most 1; the first call is always compared.
        log: folder for a log, one JSON line per comparison.

    Raises:
        ValueError: the catalog does not name the class of ``loss``, or the rate is out of range.
    """
    from .inforce import targets

    names = targets(catalogs_in_force())
    for cls in type(loss).__mro__:
        entry = names.get(cls.__module__, {}).get(cls.__qualname__)
        if entry is not None:
            watcher = ShadowWatcher(rate, log, side=entry[0], only=True)
            attach(sys.modules[cls.__module__], cls.__qualname__, entry, watcher)
            watcher.know(loss, _Known(entry, watcher.where(sys._getframe(1)), None, _plain(loss)))
            return Shadow(watcher, loss)
    raise ValueError(f"loss: no row of the catalog names {type(loss).__module__}.{type(loss).__qualname__}")
