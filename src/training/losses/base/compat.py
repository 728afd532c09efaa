"""The one bridge from new to old code.

Nothing is imported until an old key or an old path is asked for, and everything works without ``migration``.
"""

from __future__ import annotations

import dis
import importlib
import inspect
from collections.abc import Container
from functools import cache
from types import ModuleType
from typing import Any

import torch

from .old_members import OLD_MEMBERS


@cache
def bridge() -> ModuleType | None:
    """``training_losses.migration.bridge``, or ``None`` where ``migration`` is not installed."""
    try:
        return importlib.import_module("training_losses.migration.bridge")
    except ModuleNotFoundError as error:
        if error.name in ("migration", "training_losses.migration.bridge"):
            return None
        raise


def path_of(cls: type) -> str:
    """Dotted path of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def new_result_key(owner: str, key: str, known: Container[str]) -> str | None:
    """The key that replaced ``key`` of an old result, if the catalog has one among the ``known`` (warns).

    Compiled code gets no answer: the catalog cannot be read inside a graph.
    """
    if not owner or torch.compiler.is_compiling():
        return None
    module = bridge()
    new: str | None = module.new_result_key(owner, key, known) if module else None
    return new


def upgrade_state(loss: Any, state_dict: dict[str, Any], prefix: str) -> None:
    """Rename the old keys of ``loss`` in ``state_dict`` in place; does nothing unless a key of its own is missing."""
    own: dict[str, Any] = loss.state_dict(keep_vars=True)
    if all(prefix + key in state_dict for key in own):
        return
    if module := bridge():
        # a user's subclass holds what the class holds that it was made from
        for cls in type(loss).__mro__[:-1]:
            if module.upgrade_state(path_of(cls), own, state_dict, prefix):
                return


def old_members(cls: type) -> frozenset[str]:
    """Names that only the old classes had which ``cls`` and its bases replaced: none of those defines them.

    Defining is to have the name in the class body, or to assign it to ``self`` in a method.
    """
    names = frozenset().union(*(OLD_MEMBERS.get(path_of(base), ()) for base in cls.__mro__))
    return names.difference(*(_defined(base, names) for base in cls.__mro__))


def _defined(cls: type, names: frozenset[str]) -> set[str]:
    """Those of ``names`` that the body of ``cls`` defines."""
    defined = names & {*vars(cls), *vars(cls).get("__annotations__", ())}
    for value in vars(cls).values():
        code = getattr(inspect.unwrap(value), "__code__", None) if callable(value) else None
        if code is None or not code.co_argcount or names.isdisjoint(code.co_names):
            continue
        before: Any = None
        for instruction in dis.get_instructions(code):
            if instruction.opname == "STORE_ATTR" and before == code.co_varnames[0]:
                defined |= names & {instruction.argval}
            before = instruction.argval
    return set(defined)


def read_old_member(loss: Any, name: str) -> Any:
    """The value of an old member of ``loss``, by the catalog (warns).

    Raises:
        AttributeError: it has no counterpart; the message says what to do.
    """
    module = None if torch.compiler.is_compiling() else bridge()
    if module is None:
        raise AttributeError(f"{type(loss).__name__!r} object has no attribute {name!r}")
    return module.read_member(loss, tuple(map(path_of, type(loss).__mro__)), name)


def write_old_member(loss: Any, name: str, value: Any) -> bool:
    """Set what an old member of ``loss`` has become (warns); ``False`` if ``loss`` has an attribute of that name.

    Raises:
        AttributeError: it has no counterpart, or the value has none; the message says what to do.
    """
    own = vars(loss)
    if name in own or any(name in own.get(kind, ()) for kind in ("_parameters", "_buffers", "_modules")):
        return False
    if (module := None if torch.compiler.is_compiling() else bridge()) is None:
        return False
    module.write_member(loss, tuple(map(path_of, type(loss).__mro__)), name, value)
    return True


def require_results(cls: type, name: str) -> None:
    """Raise ``ValueError`` unless ``cls`` can answer as the old class ``name`` did."""
    if (module := bridge()) is None:
        raise ValueError(f"results_like={name!r} needs training_losses.migration, which is not installed")
    module.require_results(tuple(map(path_of, cls.__mro__)), name)


def old_result(loss: Any, name: str, entries: dict[str, Any]) -> Any:
    """``entries`` of ``loss`` in the form of the result of the old class ``name``: a dictionary, or a tuple."""
    require_results(type(loss), name)  # unpickled elsewhere
    module: Any = bridge()
    return module.old_result(loss, tuple(map(path_of, type(loss).__mro__)), name, entries)


def old_keyword(cls: type, name: str, call: str) -> str:
    """What became of the keyword ``name`` of an old class that ``cls`` or a base replaced; empty if none had it.

    ``call`` is ``constructor`` or ``forward``.
    """
    module = bridge()
    texts = (module.old_keyword(path_of(base), name, call) for base in cls.__mro__) if module else ()
    return next((text for text in texts if text), "")


def old_loss(name: str) -> tuple[str, ...]:
    """Dotted paths of what replaced the old loss ``name``, if there was one."""
    module = bridge()
    return tuple(module.old_loss(name)) if module else ()


def legacy_attribute(package: str, name: str) -> Any:
    """The frozen twin that ``package`` exported as ``name`` (warns at the caller's line).

    Raises:
        AttributeError: there is none, or ``migration`` is not installed.
    """
    if module := bridge():
        return module.legacy_attribute(package, name)
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
