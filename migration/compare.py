"""An old loss and its successor side by side on the user's own tensors."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .catalog import Case, Symbol, Unconvertible, builtin_catalog
from .console import brief, say, show_table
from .parity import (
    TOLERANCE,
    Comparison,
    Pair,
    build_pair,
    compare_function,
    load_old_state,
    measured_memory,
    resolve,
)
from .report.tally import COLUMNS, Entry, number, plain, table_rows
from .translate import Untranslatable, bind, select

__all__ = ["CompareError", "read_batches", "run_compare"]

REPEATS = 5
"""Calls that are timed."""
Batch = tuple[Sequence[Any], Mapping[str, Any]]
"""Positional and keyword arguments of one old call."""


class CompareError(ValueError):
    """Bad input: no such name, unreadable data, or arguments that the old loss itself refuses."""


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``{"p.0": x, "p.1": y}`` -> ``{"p": [x, y]}``; names in place of numbers make a dict."""
    made: dict[str, Any] = {}
    for name, value in flat.items():
        *heads, last = name.split(".")
        place = made
        for head in heads:
            place = place.setdefault(head, {})
        place[last] = value

    def lists(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        items = {key: lists(item) for key, item in value.items()}
        numbered = sorted(items) == sorted(map(str, range(len(items)))) and items
        return [items[str(number)] for number in range(len(items))] if numbered else items

    return {name: lists(value) for name, value in made.items()}


def _array(name: str, value: Any) -> Any:
    if value.dtype.kind in "US":
        return value.tolist()
    if value.dtype.kind not in "biuf":
        raise CompareError(f"array {name!r} has dtype {value.dtype}; numbers, booleans and strings are possible")
    return torch.from_numpy(np.ascontiguousarray(value)) if value.ndim else value.item()


def _as_batch(value: Any, where: str) -> Batch:
    if isinstance(value, Mapping):
        return (), dict(value)
    if isinstance(value, (tuple, list)):
        return tuple(value), {}
    raise CompareError(f"{where}: a batch is a dict of arguments by name or a tuple, found {type(value).__name__}")


def _entry_point(entry: str) -> Any:
    module, colon, name = entry.partition(":")
    if not colon or not module or not name:
        raise CompareError(f"--entry {entry!r}: expected MODULE:FUNCTION")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise CompareError(f"--entry {entry!r}: {error}") from error


def read_batches(data: Path | None, entry: str | None) -> Iterator[Batch]:
    """The batches of a file or of an entry point.

    Raises:
        CompareError: the source cannot be read, or holds something else.
    """
    if entry is not None:
        try:
            for count, value in enumerate(_entry_point(entry)):
                yield _as_batch(value, f"--entry {entry}, batch {count}")
        except CompareError:
            raise
        except Exception as error:  # whatever the user's function raises
            raise CompareError(f"--entry {entry!r}: {type(error).__name__}: {error}") from error
        return
    assert data is not None
    try:
        if data.suffix == ".npz":
            with np.load(data, allow_pickle=False) as arrays:
                yield (), _nested({name: _array(name, arrays[name]) for name in arrays.files})
            return
        content = torch.load(data, map_location="cpu", weights_only=True)
    except CompareError:
        raise
    except Exception as error:
        raise CompareError(f"--data {data}: cannot be read: {brief(error)}") from error
    several = (
        isinstance(content, list) and content and all(isinstance(item, (Mapping, tuple, list)) for item in content)
    )
    for count, value in enumerate(content if several else [content]):
        yield _as_batch(value, f"--data {data}, batch {count}")


def _dtype(batch: Batch) -> torch.dtype:
    """The dtype in which both run: that of the data, float64 or float32."""
    args, kwargs = batch
    floats = [leaf.dtype for leaf in _tensors([*args, *kwargs.values()]) if leaf.is_floating_point()]
    return torch.float64 if floats and all(dtype == torch.float64 for dtype in floats) else torch.float32


def _coarsest(batch: Batch, dtype: torch.dtype) -> torch.dtype:
    """The dtype whose tolerance holds: that of the coarsest tensor of the data."""
    args, kwargs = batch
    found = [leaf.dtype for leaf in _tensors([*args, *kwargs.values()]) if leaf.dtype in TOLERANCE]
    return max([dtype, *found], key=TOLERANCE.__getitem__)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)


def _symbol(name: str) -> Symbol:
    found = builtin_catalog().find(name)
    if len(found) == 1:
        return found[0]
    if found:
        raise CompareError(f"{name!r} could be {', '.join(f'{s.system}: {s.twin}' for s in found)}: give the full path")
    raise CompareError(f"no row for {name!r}; see `python -m training_losses catalog show`")


def _arguments(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise CompareError(f"--args: no JSON: {error}") from error
    if not isinstance(value, dict):
        raise CompareError(f"--args: expected an object of arguments by name, found {text!r}")
    return value


def _build(
    symbol: Symbol, arguments: Mapping[str, Any], state: Path | None, dtype: torch.dtype, train: bool, seed: int
) -> Pair:
    def prepare(twin: Any) -> None:
        if state is not None:
            load_old_state(symbol, twin, torch.load(state, map_location="cpu", weights_only=True))

    try:
        return build_pair(symbol, dtype=dtype, seed=seed, train=train, prepare=prepare, **arguments)
    except (
        Untranslatable,
        Unconvertible,
        TypeError,
        ValueError,
        RuntimeError,
        KeyError,
        OSError,
        AssertionError,
    ) as error:
        raise CompareError(f"{symbol.old}: {error or type(error).__name__}") from error


def _case(symbol: Symbol, arguments: Mapping[str, Any]) -> Case:
    try:
        return select(symbol, (), arguments)
    except Untranslatable as error:
        raise CompareError(f"--args: {error}") from error


def _compare(symbol: Symbol, pair: Pair | None, batch: Batch, seed: int) -> Comparison | str:
    """The comparison of one call, or why the new loss refuses what the old one takes."""
    args, kwargs = batch
    try:
        return (
            pair.compare(*args, seed=seed, **kwargs) if pair else compare_function(symbol, *args, seed=seed, **kwargs)
        )
    except (Untranslatable, Unconvertible) as error:
        raise CompareError(f"{symbol.old}: {error}") from error
    except Exception as error:
        try:
            given = bind((pair.case.forward or {}) if pair else symbol.signature, args, kwargs)
            (pair.old if pair else resolve(symbol.twin))(**given)
        except Exception as old_error:
            raise CompareError(
                f"the old loss refuses these data: {type(old_error).__name__}: {old_error}"
            ) from old_error
        return f"the new loss refuses what the old one takes: {type(error).__name__}: {error}"


def _cost(result: Entry, symbol: Symbol, pair: Pair | None, batch: Batch, seed: int) -> None:
    """Time and memory, after the comparisons: the first calls pay for what is made once."""
    for count in range(REPEATS + 1):
        with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as stack:
            if count == REPEATS:
                stack.enter_context(measured_memory())
            comparison = _compare(symbol, pair, batch, seed)
        if not isinstance(comparison, str):
            result.tally.cost(comparison)


def _verdict(
    case: Case, failures: Sequence[str], outside_domain: bool, not_finite: Mapping[str, Sequence[int]]
) -> tuple[int, str]:
    if not failures and not_finite:
        where = "; ".join(f"{key} in batch {', '.join(map(str, at[:8]))}" for key, at in not_finite.items())
        return 1, f"NaN or infinite on both sides, so nothing is known there: {where}. All that is finite agrees"
    if not failures:
        return 0, "no deviation beyond the tolerance"
    documented = "; ".join(case.deviations)
    if case.parity == "fixed":
        return 0, f"it deviates, as documented for this row (fixed): {documented}"
    if case.parity == "documented":
        said = f"old and new agree within the domain: {case.domain}. Outside of it: {documented}"
        if outside_domain:
            return 0, f"it deviates, outside the domain as stated: {said}"
        return 1, f"it deviates. {said}. If your data lie outside the domain, that is known: add --outside-domain"
    return 1, "it deviates, and the catalog says that it must not: please report this"


def run_compare(
    name: str,
    *,
    data: Path | None = None,
    entry: str | None = None,
    args: str = "{}",
    state: Path | None = None,
    batches: int = 20,
    train: bool = True,
    seed: int = 0,
    outside_domain: bool = False,
    as_json: bool = False,
) -> int:
    """Compare and print.

    Returns:
        0: as the catalog says, 1: a deviation that it does not document.

    Raises:
        CompareError: bad input.
    """
    symbol, arguments = _symbol(name), _arguments(args)
    if batches < 1:
        raise CompareError(f"--batches must be at least 1, found {batches}")
    found = list(itertools.islice(read_batches(data, entry), batches))
    if not found:
        raise CompareError("there is no batch to compare")
    dtype = _dtype(found[0])
    is_class = symbol.kind == "class"
    if not is_class and arguments:
        raise CompareError(f"--args: {symbol.old} is a function, its arguments belong to the data")
    case = _case(symbol, arguments if is_class else found[0][1])
    if case.new is None:
        raise CompareError(f"{symbol.old} has no successor: {case.reason}")
    with contextlib.redirect_stdout(sys.stderr):  # old losses print
        pair = _build(symbol, arguments, state, dtype, train, seed) if is_class else None
    result = Entry(symbol)
    details: list[dict[str, Any]] = []
    not_finite: dict[str, list[int]] = {}
    limit = _coarsest(found[0], dtype)
    for count, batch in enumerate(found):
        with contextlib.redirect_stdout(sys.stderr):
            comparison = _compare(symbol, pair, batch, seed + count)
        if isinstance(comparison, str):
            result.tally.failures.append(f"batch {count}: {comparison}")
            continue
        result.tally.add(comparison, limit, f"batch {count}")
        for key in comparison.not_finite:
            not_finite.setdefault(key, []).append(count)
        details.append({
            "batch": count, "old_loss": comparison.old_loss, "new_loss": comparison.new_loss,
            "values": comparison.values, "gradients": comparison.gradients, "state": comparison.state,
        })  # fmt: skip
    _cost(result, symbol, pair, found[-1], seed)
    code, verdict = _verdict(case, result.tally.failures, outside_domain, not_finite)
    summary = result.as_data()
    if as_json:
        made = {**summary, "row": case.describe(), "dtype": str(limit).removeprefix("torch."), "batches": details}
        data = plain({**made, "not_finite": not_finite, "verdict": verdict, "exit_code": code})
        sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")
        return code
    show_table(f"{symbol.old} and {case.new}", COLUMNS, table_rows([summary]), text_columns=4)
    say("")
    rows = [
        (f"{kind} {key}", *(number(detail[part].get(key)) for detail in details[:6]))
        for kind, part in (("value", "values"), ("gradient", "gradients"), ("state", "state"))
        for key in dict.fromkeys(key for detail in details for key in detail[part])
    ]
    titles = ["deviation", *(f"batch {detail['batch']}" for detail in details[:6])]
    losses = [(f"{side} loss", *(f"{detail[f'{side}_loss']:.6g}" for detail in details[:6])) for side in ("old", "new")]
    show_table("", titles, [*losses, *rows])
    say("")
    for failure in result.tally.failures[:20]:
        say(failure, "red")
    say(f"{verdict} (tolerance {TOLERANCE[limit]:g} for {limit})", "bold red" if code else "green")
    return code
