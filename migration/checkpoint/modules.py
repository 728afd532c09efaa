"""Pickled modules: old losses in them are built anew as their successors."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..catalog import MISSING, Case, Catalog, Symbol
from ..parity import resolve
from ..state import UnknownKeys, convert_state
from ..translate import Untranslatable, translate
from .model import KeyChange, Rows

_PLAIN = (bool, int, float, str, type(None), tuple, list)


def _plain(value: Any, given: bool) -> bool:
    """Whether a changed value shows in its ``repr``; dicts that were given may be scaled anew."""
    return isinstance(value, _PLAIN if given else (*_PLAIN, dict))


def attribute(value: Any, paths: Sequence[str]) -> Any:
    """What stands at the first of the dotted ``paths`` that is there; tensors of no dimension as numbers."""
    for path in paths:
        with contextlib.suppress(AttributeError, IndexError, TypeError):
            found = value
            for part in path.split("."):
                found = found[int(part)] if part.lstrip("-").isdigit() else getattr(found, part)
            return found.item() if isinstance(found, Tensor) and not found.dim() else found
    return MISSING


def _arguments(old: nn.Module, symbol: Symbol) -> dict[str, Any]:
    """The constructor's arguments, read from the attributes of ``old``.

    Raises:
        Untranslatable: an argument was not kept, or a fresh object made with these arguments differs from ``old``.
    """
    row = symbol.cases[0]
    found = {name: attribute(old, row.kept.get(name, (name,))) for name in row.arguments}
    given = {name: value for name, value in found.items() if value is not MISSING}
    # what is dropped or reported has no counterpart in the new object; where the catalog says a place that is not
    # there, the old object had no use for it
    lost = [
        name
        for name, argument in row.arguments.items()
        if name not in given and (argument.required or name not in row.kept)
        if argument.drop is None and argument.report is None and not argument.variadic
    ]
    if lost:
        raise Untranslatable(f"does not keep its argument {', '.join(lost)}")
    with torch.random.fork_rng(devices=[]):
        try:
            fresh = resolve(symbol.twin)(**given)
        except (TypeError, ValueError, AssertionError, ImportError, OSError) as error:
            raise Untranslatable(f"cannot be built again from its attributes: {error}") from error
    # what the successor's state takes over, or what only the last call left behind, may differ
    moved = {*vars(nn.Module()), *row.running, *(name for rule in row.state for name in rule.kept)}
    kept = {n: v for n, v in vars(old).items() if n not in moved and _plain(v, n in given)}
    other = [n for n, v in kept.items() if n not in vars(fresh) or repr(vars(fresh)[n]) != repr(v)]
    if other:
        raise Untranslatable(f"is not what its attributes say: {', '.join(other)} changed after it was built")
    return given


def successor(old: nn.Module, symbol: Symbol, given: Mapping[str, Any] | None = None) -> tuple[nn.Module, Case]:
    """The successor of ``old`` with its state, and the row; ``given``: the arguments of the old constructor if known.

    Raises:
        Untranslatable: an argument was not kept, or has no counterpart.
        UnknownKeys: the state has keys that the catalog does not know.
    """
    case, arguments = translate(symbol, (), _arguments(old, symbol) if given is None else given)
    assert case.new is not None
    with torch.random.fork_rng(devices=[]):
        new: nn.Module = resolve(case.new)(**arguments)
    like = next((t for t in old.state_dict().values() if t.is_floating_point()), None)
    if like is not None:
        new.to(device=like.device, dtype=like.dtype)
    # what the rules make of entries that the old object has not got yet, a queue before its first call, stays as it is
    own = new.state_dict()
    state = {name: own[name] for rule in case.state for name in rule.new if name in own}
    for rule in case.state:
        moved = [(name, attribute) for name, attribute in zip(rule.new, rule.kept, strict=False) if name in own]
        for name, attribute in moved:
            value = getattr(old, attribute)
            numbers = list(value.values()) if isinstance(value, dict) else value
            state[name] = torch.as_tensor(numbers, dtype=own[name].dtype)
    new.load_state_dict(state | convert_state(case, old.state_dict()))
    return new.train(old.training), case


def migrate_module(
    module: nn.Module, catalog: Catalog, passes: list[Rows] | None = None
) -> tuple[nn.Module, list[KeyChange], list[str]]:
    """``module`` with every old loss in it replaced by its successor, built from the old one's attributes.

    An old loss that holds others is replaced first, then those inside its successor.

    Args:
        module: changed in place, unless it is an old loss itself.
        catalog: the rows.
        passes: gets the rows that were applied, by prefix, outer losses first.

    Returns:
        The module (or the successor, if it is a loss itself), what was replaced, and what could not be.
    """
    twins = {symbol.twin: symbol for symbol in catalog.symbols if symbol.kind == "class"}
    changes: list[KeyChange] = []
    problems: list[str] = []
    seen: dict[int, nn.Module] = {}

    def visit(old: nn.Module, prefix: str) -> nn.Module:
        if id(old) in seen:
            return seen[id(old)]
        new = old
        symbol = twins.get(f"{type(old).__module__}.{type(old).__qualname__}")
        if symbol is not None:
            place = prefix.rstrip(".")
            try:
                new, case = successor(old, symbol)
            except (Untranslatable, ValueError, RuntimeError, TypeError, UnknownKeys) as error:
                why = " ".join(str(error).split())
                problems.append(
                    f"{place and f'{place}: '}{symbol.old} {why}; "
                    "build the successor in code and load the converted state_dict"
                )
                return old
            if passes is not None:
                passes.append({prefix: (symbol, case)})
            changes.append(KeyChange(place, place or symbol.name, case.new or "", symbol.old, "module"))
        seen[id(old)] = seen[id(new)] = new
        for name, child in list(new.named_children()):
            replaced = visit(child, f"{prefix}{name}.")
            if replaced is not child:
                new._modules[name] = replaced
        return new

    return visit(module, ""), changes, problems
