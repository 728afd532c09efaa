"""Losses by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from typing import Any, ClassVar, TypeVar

from torch import nn

from ._public import REGISTRY

__all__ = ["LossRegistry"]

LossType = TypeVar("LossType", bound=type[nn.Module])


def _record_arguments(loss: type[nn.Module]) -> None:
    """Let instances keep the keyword arguments that they were built with, for ``dump_config``."""
    init = loss.__init__

    @wraps(init)
    def recording(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        # the outermost class counts: a registered class may call the constructor of another
        self.__dict__.setdefault("constructor_arguments", kwargs)
        init(self, *args, **kwargs)

    type.__setattr__(loss, "__init__", recording)


def _plain(name: str) -> str:
    """A name without case, separators and the word "loss": ``CLIPLoss`` and ``clip`` are one."""
    return "".join(filter(str.isalnum, name.lower())).removesuffix("loss")


class LossRegistry:
    """Name -> loss class. Families register themselves at import; ``create`` imports what is not there yet.

    Example::

        @LossRegistry.register("my_clip")
        class MyCLIPLoss(BaseContrastiveLoss): ...

        loss = LossRegistry.create("my_clip", temperature=0.1)
    """

    _classes: ClassVar[dict[str, type[nn.Module]]] = {}
    _load: ClassVar[Callable[[str | None], None] | None] = None
    _homes: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def register(cls, name: str) -> Callable[[LossType], LossType]:
        """Class decorator that registers a loss under ``name``.

        Raises:
            ValueError: the name is taken by another class, also by one that is not imported yet.
        """

        def decorate(loss: LossType) -> LossType:
            known, home = cls._classes.get(name), cls._homes.get(name, loss.__module__)
            again = known is None or (known.__module__, known.__qualname__) == (loss.__module__, loss.__qualname__)
            if not again or home != loss.__module__:
                owner = home if known is None else f"{known.__module__}.{known.__qualname__}"
                raise ValueError(
                    f"the registry name {name!r} is taken by {owner}, "
                    f"found again on {loss.__module__}.{loss.__qualname__}: "
                    f"register the class under a name of its own, such as {'my_' + name!r}"
                )
            cls._classes[name] = loss
            _record_arguments(loss)
            return loss

        return decorate

    @classmethod
    def set_loader(cls, load: Callable[[str | None], None], homes: Mapping[str, str]) -> None:
        """``load(name)`` imports the module that registers ``name``; ``load(None)`` imports all of them.

        Args:
            load: the import.
            homes: registry name -> full name of the module that may register it.
        """
        cls._load, cls._homes = staticmethod(load), homes

    @classmethod
    def get(cls, name: str) -> type[nn.Module]:
        """The class registered under ``name``.

        Raises:
            ValueError: unknown name; the message begins with ``Unknown loss`` and lists close ones.
        """
        if name not in cls._classes and cls._load is not None:
            cls._load(name)
        if name not in cls._classes:
            known = cls.available()
            close = cls._close(str(name))
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise ValueError(f"Unknown loss {name!r}{hint} (available: {', '.join(known)})")
        return cls._classes[name]

    @classmethod
    def _close(cls, name: str) -> list[str]:
        """Registered names that ``name`` may stand for: a name with a slip, a class, or a class of old code."""
        # nothing above the registry is imported before it is asked for
        replaced = import_module(".base.compat", __package__).old_loss(name)
        found = [known for known, loss in cls._classes.items() if f"{loss.__module__}.{loss.__qualname__}" in replaced]
        if found:
            return sorted(found)
        plain = _plain(name)
        spellings = {_plain(text): known for known, loss in cls._classes.items() for text in (loss.__name__, known)}
        if plain in spellings:
            return [spellings[plain]]
        close = difflib.get_close_matches(plain, spellings, n=3)
        return list(dict.fromkeys(spellings[text] for text in close))

    @classmethod
    def create(cls, name: str, /, **kwargs: Any) -> nn.Module:
        """A loss by name, with the keyword arguments of its class.

        Raises:
            ValueError: unknown name, or an argument out of range.
            TypeError: unknown argument.
        """
        return cls.get(name)(**kwargs)

    @classmethod
    def name_of(cls, loss: type[nn.Module]) -> str | None:
        """The name under which exactly this class is registered, if it is."""
        return next((name for name, known in cls._classes.items() if known is loss), None)

    @classmethod
    def available(cls) -> list[str]:
        """All registered names, sorted."""
        if cls._load is not None:
            cls._load(None)
        return sorted(cls._classes)


def _load(name: str | None) -> None:
    modules = REGISTRY.values() if name is None else [REGISTRY[name]] if name in REGISTRY else []
    for module in dict.fromkeys(modules):
        import_module(f".{module}", __package__)


LossRegistry.set_loader(_load, {name: f"{__package__}.{module}" for name, module in REGISTRY.items()})
