"""Puts a watcher on the constructors and calls of losses, by the identity of the class or function.

A wrapper carries the globals of what it wraps, so that tools which look at those (``torch.jit``) see the original's. A
graph that ``torch.compile`` traces is the one without a watcher.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any, Protocol

__all__ = ["Watcher", "attach", "attach_module"]

_MARK = "_training_losses_watched"


class Watcher(Protocol):
    """What is told of constructions and calls."""

    def build(self, entry: Sequence[str], init: Callable[..., Any], args: Any, kwargs: Any) -> None:
        """Run a constructor."""

    def call(self, entry: Sequence[str], original: Callable[..., Any], method: bool, args: Any, kwargs: Any) -> Any:
        """Run a call and give its result."""


def _template(original: Any, tell: Any, compiling: Any) -> Any:
    def wrapper(*args, **kwargs):  # type: ignore[no-untyped-def]  # only its code is used
        if compiling():
            return original(*args, **kwargs)
        return tell(args, kwargs)

    return wrapper


def _wrapped(original: Any, tell: Callable[[Any, Any], Any], watcher: Watcher) -> Any:
    """``original`` that goes through ``tell`` whenever it is not being traced."""
    import torch

    template = _template(original, tell, torch.compiler.is_compiling)
    source = getattr(original, "__globals__", None)
    made = template if source is None else FunctionType(template.__code__, source, None, None, template.__closure__)
    functools.update_wrapper(made, original)
    setattr(made, _MARK, watcher)
    return made


def _own_or_inherited(cls: type, name: str) -> Any:
    """The method of ``cls`` itself, else one that goes on along the order of bases of whatever object it meets."""
    own = cls.__dict__.get(name)
    if own is not None:
        return own

    def inherited(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(cls, self), name)(*args, **kwargs)

    functools.update_wrapper(inherited, getattr(cls, name))
    return inherited


def _attach_class(cls: type, entry: Sequence[str], watcher: Watcher) -> None:
    import torch

    if issubclass(cls, torch.autograd.Function):
        return
    init = _own_or_inherited(cls, "__init__")
    if isinstance(init, FunctionType) and getattr(init, _MARK, None) is not watcher:
        wrapped = _wrapped(init, lambda args, kwargs: watcher.build(entry, init, args, kwargs), watcher)
        setattr(cls, "__init__", wrapped)  # noqa: B010  # mypy knows no other way
    for name in ("forward", "__call__"):
        if not hasattr(cls, name) or (name == "__call__" and hasattr(cls, "forward")):
            continue
        method = _own_or_inherited(cls, name)
        if isinstance(method, FunctionType) and getattr(method, _MARK, None) is not watcher:
            setattr(cls, name, _wrapped(method, _call(watcher, entry, method, True), watcher))


def _call(watcher: Watcher, entry: Sequence[str], original: Any, method: bool) -> Callable[[Any, Any], Any]:
    return lambda args, kwargs: watcher.call(entry, original, method, args, kwargs)


def attach(holder: Any, name: str, entry: Sequence[str], watcher: Watcher) -> None:
    """Watch what ``holder`` has under ``name``: a class, or a function that is replaced there."""
    found = vars(holder).get(name)
    if isinstance(found, type):
        _attach_class(found, entry, watcher)
    elif isinstance(found, FunctionType) and getattr(found, _MARK, None) is not watcher:
        setattr(holder, name, _wrapped(found, _call(watcher, entry, found, False), watcher))


def attach_module(module: ModuleType, names: Mapping[str, Sequence[str]], watcher: Watcher) -> None:
    """Watch the losses of a module that has been imported."""
    for name, entry in names.items():
        attach(module, name, entry, watcher)
