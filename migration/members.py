"""Old attributes of new losses: where the catalog says that they are now. Asked on a miss only, by ``bridge``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Real
from typing import Any

from .catalog import MISSING, Argument, Case, Symbol, Unconvertible, builtin_catalog

__all__ = ["Member", "comes_from", "find_member"]


@dataclass(frozen=True)
class _Place:
    """Where a row puts an old member."""

    symbol: Symbol
    at: str
    convert: Argument | None = None
    fixed: bool = False

    @property
    def operation(self) -> tuple[Any, ...]:
        """Equal for places at which reading and writing are the same."""
        argument = self.convert
        return (self.at, self.fixed, *(() if argument is None else (argument.scale, argument.invert, argument.map)))


@dataclass(frozen=True)
class Member:
    """An old member of one loss: the object that has it, and its name or key there."""

    name: str
    place: _Place
    holder: Any
    last: str

    @property
    def symbol(self) -> Symbol:
        """The old class."""
        return self.place.symbol

    @property
    def value(self) -> Any:
        """The value in the old meaning.

        Raises:
            AttributeError: it has none.
        """
        value = _entry(self.holder, self.last)
        try:
            return value if self.place.convert is None else self.place.convert.revert(value)
        except Unconvertible as error:
            raise AttributeError(f"{self.story}: {error}") from None

    @property
    def story(self) -> str:
        """What became of it."""
        return f"{self.name!r} of the old {self.symbol.name} is {self.place.at!r} now"

    @property
    def advice(self) -> str:
        """What to write in place of it."""
        argument, changed = self.place.convert, ""
        if argument is not None and argument.changes:
            scaled = "with other values" if argument.scale is None else f"the old value times {argument.scale:g}"
            changed = f" ({'inverted' if argument.invert else scaled})"
        return f"Use {self.place.at!r}{changed}"

    def write(self, value: Any) -> None:
        """Set it, from a value in the old meaning.

        Raises:
            AttributeError: it is fixed, or the value has no counterpart.
        """
        current = _entry(self.holder, self.last)
        if self.place.fixed:
            raise AttributeError(f"{self.story}, and fixed by the constructor: build the loss with it")
        if callable(current) != callable(value):
            raise AttributeError(f"{self.story}, and is not set to {value!r}")
        value = self._converted(value)
        if _by_key(self.holder):
            self.holder[self.last] = value
        elif isinstance(value, Real) and hasattr(current, "fill_"):  # a buffer or a parameter takes no number
            current.data.fill_(value)
        else:
            setattr(self.holder, self.last, value)

    def _converted(self, value: Any) -> Any:
        argument = self.place.convert
        if argument is None:
            return value
        if argument.scale is not None and hasattr(value, "dtype"):
            return value * argument.scale
        try:
            return argument.convert(value)
        except Unconvertible as error:
            raise AttributeError(f"{self.story}: {error}") from None


def _by_key(holder: Any) -> bool:
    # dictionaries of modules are no Mapping
    return isinstance(holder, Mapping) or (hasattr(holder, "keys") and hasattr(holder, "__getitem__"))


def _entry(holder: Any, part: str) -> Any:
    return holder[part] if _by_key(holder) else getattr(holder, part)


@cache
def _rows(owners: tuple[str, ...], name: str) -> tuple[tuple[Symbol, Case], ...]:
    """The rows of what became one of ``owners``, of old classes that had ``name``."""
    catalog = builtin_catalog()
    return tuple(row for owner in owners for row in catalog.of_successor(owner) if name in row[1].members)


def comes_from(loss: Any, case: Case) -> bool:
    """Whether ``loss`` can have been made by this row: nothing that it holds tells another one."""
    held = [(pin.name, (pin.value,)) for pin in case.pins.values()]
    for name, options in case.when.items():
        argument = case.arguments[name]
        if argument.drop is None and argument.report is None:
            held.append((argument.new_name, tuple(map(argument.convert, options))))
    own = [(name, options) for name, options in held if name not in type(loss)._old_members]
    values = [(getattr(loss, name, MISSING), options) for name, options in own]
    simple = (bool, int, float, str, type(None))
    return all(value in options for value, options in values if value is not MISSING and isinstance(value, simple))


def _places(loss: Any, owners: tuple[str, ...], name: str) -> tuple[list[_Place], list[str]]:
    """Where the old member ``name`` is now, by the row of each old class, and what rows say where it is not."""
    places: list[_Place] = []
    gone: list[str] = []
    symbols: set[tuple[str, str]] = set()
    rows = _rows(owners, name)
    for symbol, case in [row for row in rows if comes_from(loss, row[1])] or rows:
        if (symbol.system, symbol.old) in symbols:
            continue
        symbols.add((symbol.system, symbol.old))
        new = case.members[name]
        if isinstance(new, str):
            places.append(_Place(symbol, new))
        elif "at" in new:
            places.append(_Place(symbol, new["at"], new["convert"], new["fixed"]))
        else:
            gone.append(f"{name!r} of the old {symbol.name} is gone: {new['report']}")
    return places, gone


def find_member(loss: Any, owners: tuple[str, ...], name: str) -> Member:
    """The old member ``name`` of ``loss``, whose classes are ``owners``.

    Raises:
        AttributeError: it has no counterpart there, or rows disagree; the message says what to do.
    """
    places, gone = _places(loss, owners, name)
    found: dict[tuple[Any, ...], Member] = {}
    absent: dict[str, None] = {}
    for place in places:
        *path, last = place.at.split(".")
        holder = loss
        try:
            for part in path:
                holder = _entry(holder, part)
            _entry(holder, last)
        except (AttributeError, KeyError, TypeError):
            absent[f"{name!r} of the old {place.symbol.name} is {place.at!r} now, which this loss lacks"] = None
            continue
        found.setdefault(place.operation, Member(name, place, holder, last))
    if len(found) == 1:
        return next(iter(found.values()))
    said = [member.story for member in found.values()] or [*absent, *gone]
    raise AttributeError("; ".join([f"{type(loss).__name__!r} object has no attribute {name!r}", *said]))
