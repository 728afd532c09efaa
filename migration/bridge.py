"""What new losses ask of the old world: result keys, state_dict keys, exported names. Loaded on a miss only."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Container, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalog import Symbol

__all__ = [
    "install_finder",
    "legacy_attribute",
    "new_result_key",
    "old_keyword",
    "old_loss",
    "old_result",
    "read_member",
    "require_results",
    "upgrade_state",
    "write_member",
]


def install_finder() -> None:
    """Serve old import paths."""
    from .shims import install

    install()


def legacy_attribute(package: str, name: str) -> Any:
    """See ``shims.legacy_attribute``; the warning points behind the caller's ``__getattr__``."""
    from .shims import legacy_attribute as attribute

    return attribute(package, name, depth=3)


def new_result_key(owner: str, key: str, known: Container[str]) -> str | None:
    """The key that replaced the old result ``key`` of the loss ``owner``, if a row has one that is ``known``."""
    from .catalog import builtin_catalog

    has = dict.__contains__
    for symbol, case in builtin_catalog().of_successor(owner):
        result = case.results.get(key)
        if result is None or result.new is None or not (isinstance(known, dict) and has(known, result.new)):
            continue
        note = f" ({result.differs})" if result.differs else ""
        _warn(symbol, f"result key {key!r}", f"Use {result.new!r}{note}")
        return result.new
    return None


def _warn(symbol: Symbol, what: str, advice: str) -> None:
    """A deprecation warning at the line of the user: the first frame outwards that is not ours."""
    from deprecation import DeprecatedWarning

    frame, depth = sys._getframe(1), 1
    inside = (__name__, "training_losses.base", "torch.nn.modules.module")
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith(inside):
        frame = frame.f_back
        depth += 1
    warnings.warn(DeprecatedWarning(what, symbol.deprecated_in, symbol.removed_in, advice), stacklevel=depth + 1)


def read_member(loss: Any, owners: tuple[str, ...], name: str) -> Any:
    """The value of the old member ``name`` of ``loss``, whose classes are ``owners`` (warns).

    Raises:
        AttributeError: it has no counterpart; the message says what to do.
    """
    from .members import find_member

    member = find_member(loss, owners, name)
    value = member.value
    _warn(member.symbol, f"attribute {name!r}", member.advice)
    return value


def write_member(loss: Any, owners: tuple[str, ...], name: str, value: Any) -> None:
    """Set what the old member ``name`` of ``loss`` has become (warns).

    Raises:
        AttributeError: it has no counterpart, or the value has none; the message says what to do.
    """
    from .members import find_member

    member = find_member(loss, owners, name)
    member.write(value)
    _warn(member.symbol, f"attribute {name!r}", member.advice)


def require_results(owners: tuple[str, ...], name: str) -> None:
    """See ``results.require_results``."""
    from .results import require_results as require

    require(owners, name)


def old_result(loss: Any, owners: tuple[str, ...], name: str, entries: Mapping[str, Any]) -> Any:
    """See ``results.old_entries``."""
    from .results import old_entries

    return old_entries(loss, owners, name, entries)


def old_keyword(owner: str, name: str, call: str) -> str:
    """What became of the keyword ``name`` of the old class that the loss ``owner`` replaced; empty if it had none.

    ``call``: ``constructor`` or ``forward``. The text goes on after the sentence that names the keyword.
    """
    from .catalog import builtin_catalog

    texts: dict[str, None] = {}
    for symbol, case in builtin_catalog().of_successor(owner):
        argument = ((case.forward or {}) if call == "forward" else case.arguments).get(name)
        if argument is None or argument.variadic:
            continue
        gone = argument.drop if argument.drop is not None else argument.report
        if gone is not None:
            texts[f"; {name!r} of the old {symbol.name} is gone: {gone}"] = None
        elif argument.new_name != name:
            changed = " (with other values)" if argument.invert or argument.scale or argument.map else ""
            texts[f"; {name!r} of the old {symbol.name} is called {argument.new_name!r} now{changed}"] = None
    return "".join(texts)


def old_loss(name: str) -> list[str]:
    """Dotted paths of the successors of the old loss ``name`` (a class, or its full path)."""
    from .catalog import builtin_catalog

    cases = [case for symbol in builtin_catalog().find(name) for case in symbol.cases]
    return list(dict.fromkeys(case.new for case in cases if case.new))


def upgrade_state(owner: str, own: Mapping[str, Any], state: MutableMapping[str, Any], prefix: str) -> bool:
    """Rename old state_dict keys of the loss ``owner`` below ``prefix`` in place; whether there were any."""
    from .catalog import builtin_catalog
    from .state import upgrade_in_place

    cases = (case for _, case in builtin_catalog().of_successor(owner))
    return upgrade_in_place(cases, own, state, prefix) is not None
