"""Optimizer states follow their parameters: by name where the file has names, else by number.

A number says nothing by itself. Its name is found by trying every order in which programs hand parameters over (that
of the module or of the names; losses, decayed parameters or biases first or last), and keeping those that fit the
sizes of the groups and the shapes of the states. Two that fit and lead to different files are one too many: the file
is refused, unless ``order`` says which it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from typing import Any, Final

import torch
from torch import Tensor

from ..state import rule_for
from .model import KeyChange, Plan, Source, canonical, rebuilt

__all__ = ["ORDERS", "FlatKey", "Optimizers", "flat_key", "is_optimizer"]

ORDERS: Final = ("module", "name", "file")
"""``--order``: that of ``parameters()``, that of sorted names, or as it is in the file, whatever it was."""
_BUFFERS: Final = ("running_mean", "running_var", "num_batches_tracked")
_ENTRIES: Final = frozenset(
    {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "acc_delta", "sum"}
    | {"exp_inf", "mu_product", "eta", "ax", "mu", "prev", "step_size", "exp_avg_sq_row", "exp_avg_sq_col", "row_var"}
    | {"col_var", "variance"}
)
"""Of the optimizers of torch and Adafactor: how a flattened state is told from a module named ``state``."""
_FLAT: Final = re.compile(r"((?:.*\.)?)(state|param_groups)\.(.+)\.(\w+)")


def is_optimizer(value: Any) -> bool:
    """Whether ``value`` is the state_dict of an optimizer."""
    return isinstance(value, Mapping) and {"state", "param_groups"} <= set(value)


@dataclass(frozen=True)
class FlatKey:
    """``optim.state.loss.head.weight.exp_avg``, as distributed checkpoints flatten optimizers."""

    head: str
    name: str
    entry: str


def flat_key(key: Any) -> FlatKey | None:
    """The parts of a flattened optimizer key, ``None`` for any other key."""
    found = _FLAT.fullmatch(key) if isinstance(key, str) else None
    if found is None or (found[2] == "state" and found[4] not in _ENTRIES):
        return None
    return FlatKey(f"{found[1]}{found[2]}.", found[3], found[4])


@dataclass(frozen=True)
class _Parameter:
    """A name of a state_dict that may be a parameter, and what the conversion makes of it."""

    old: str
    new: str | None
    shape: torch.Size
    source: int
    transposed: bool = False
    frozen: bool = False
    inside: bool = False
    """It belongs to a loss that was converted."""
    single: bool = False
    """An entry of its own in the catalog, which mostly is a buffer."""
    counted: bool = True
    """It has a number of its own in an optimizer over all parameters."""
    lossy: bool = False
    """The old class of its loss had parameters that the new one lacks."""


def _traced(source: Source, number: int, reverse: bool) -> list[_Parameter]:
    """The parameters of ``source`` in their new order, the dropped ones where they were."""
    found = [
        _Parameter(
            name,
            name,
            shape,
            number,
            counted=name not in source.uncounted and (source.exact or not name.endswith(_BUFFERS)),
        )
        for name, shape in source.shapes.items()
    ]
    for rows in source.passes:
        for prefix, (_, case) in rows.items():
            ranked: list[tuple[int, int, _Parameter]] = []
            for place, parameter in enumerate(found):
                name = parameter.new
                if name is None or not name.startswith(prefix):
                    continue
                match = rule_for(case.state, name[len(prefix) :], reverse=reverse)
                lossy = reverse and any(not rule.new and "*" in rule.old for rule in case.state)
                parameter = found[place] = replace(parameter, inside=True, lossy=parameter.lossy or lossy)
                if match is not None:
                    rule, rest = match
                    target = rule.old if reverse else next(iter(rule.new), "")
                    after = replace(
                        parameter,
                        new=prefix + target.replace("*", rest) if target else None,
                        transposed=parameter.transposed ^ rule.transpose,
                        frozen=parameter.frozen or rule.frozen,
                        single=parameter.single or "*" not in rule.old,
                    )
                    ranked.append((0 if reverse else case.state.index(rule), place, after))
            # the rules stand in the order in which the new object holds its parameters
            for place, (_, _, parameter) in zip([p for _, p, _ in ranked], sorted(ranked, key=_rank), strict=True):
                found[place] = parameter
    return found


def _rank(item: tuple[int, int, _Parameter]) -> tuple[int, int]:
    return item[:2]


_Key = Callable[[_Parameter], bool | int]
_FEATURES: Final[tuple[_Key, ...]] = (
    lambda p: p.inside,
    lambda p: len(p.shape) > 1,
    lambda p: p.old.endswith("bias"),
    lambda p: p.source,
)


_Keys = tuple[tuple[_Key, bool], ...]


def _keys(base: str, groups: int) -> list[_Keys]:
    """Nothing first; one feature, either way round; two of them. Sorted names have features in groups only.

    Of two state_dicts, whose names have no common root, either may come first.
    """
    features = _FEATURES[-1:] if base == "name" and groups == 1 else _FEATURES
    single = [(feature, flipped) for feature in features for flipped in (False, True)]
    pairs = [(one, other) for one in single for other in single if one[0] is not other[0]]
    return [(), *((one,) for one in single), *(pairs if base == "module" else [])]


def _arranged(
    parameters: Sequence[_Parameter], keys: _Keys, name: Callable[[_Parameter], str] | None
) -> list[_Parameter]:
    """In the order of a program: sorted by ``name``, if any, then what has the features first or last."""
    found = sorted(parameters, key=name) if name else list(parameters)
    for key, flipped in reversed(keys):
        found.sort(key=key, reverse=flipped)
    return found


def _old_name(parameter: _Parameter) -> str:
    return parameter.old


def _new_name(parameter: _Parameter) -> str:
    return parameter.new or ""


def _cut(items: Sequence[Any], sizes: Sequence[int]) -> list[list[Any]]:
    parts, start = [], 0
    for size in sizes:
        parts.append(list(items[start : start + size]))
        start += size
    return parts


def _shape_fits(name: str, value: Any, shape: torch.Size) -> bool:
    """Whether an entry of a state may belong to a parameter: its shape, one number, or what Adafactor keeps."""
    if not isinstance(value, Tensor) or name == "step" or not value.dim() or value.shape == shape:
        return True
    squeezed = [n for n in value.shape if n != 1]
    factors = ([n for n in part if n != 1] for part in (shape[:-1], shape[:-2] + shape[-1:]))
    return len(shape) > 1 and ("row" in name or "col" in name) and squeezed in factors


def _entry(entry: Any, transposed: bool) -> Any:
    if not transposed:
        return entry
    return {k: v.mT.contiguous() if isinstance(v, Tensor) and v.dim() >= 2 else v for k, v in entry.items()}


@dataclass(frozen=True)
class _Reading:
    """One answer to the question which numbers are which parameters, and what the new program will number them."""

    old: tuple[_Parameter, ...]
    groups: tuple[tuple[tuple[int, _Parameter], ...], ...]
    """Per group old numbers with their parameters, in the new order, without those that were dropped."""
    plain: bool = field(default=False, compare=False)
    """Nothing is first or last: ``parameters()``, or sorted names."""
    names: Mapping[_Parameter, str] = field(default_factory=dict, compare=False)
    """New names that differ from those of the state_dict, by wrappers or a longer path."""

    def fits(self, numbers: Sequence[int], states: Mapping[int, Any]) -> bool:
        """Whether the states may be those of these parameters."""
        for number, parameter in zip(numbers, self.old, strict=True):
            state = states.get(number)
            if state and (parameter.frozen or not all(_shape_fits(k, v, parameter.shape) for k, v in state.items())):
                return False
        return True

    def outcome(self, states: Mapping[int, Any]) -> Any:
        """What the file would hold; parameters without a state are all alike."""
        return tuple(
            tuple((number, parameter.transposed) if states.get(number) else None for number, parameter in group)
            for group in self.groups
        )


def _read(
    old: Sequence[_Parameter], new: Sequence[_Parameter], sizes: Sequence[int], numbers: Sequence[int]
) -> _Reading:
    number_of = dict(zip(old, numbers, strict=True))
    parts = _cut(old, sizes)
    group_of = {parameter: place for place, part in enumerate(parts) for parameter in part}
    groups: list[list[tuple[int, _Parameter]]] = [[] for _ in parts]
    for parameter in new:
        if parameter.new is not None:
            groups[group_of[parameter]].append((number_of[parameter], parameter))
    return _Reading(tuple(old), tuple(map(tuple, groups)))


def _spelled(name: str, parameter: _Parameter) -> str | None:
    """The new name of ``parameter`` for somebody who calls it ``name``: other wrappers, a longer or shorter path."""
    old, new = parameter.old, parameter.new
    if new is None or name == old:
        return new
    if old == new:
        return name
    before, after = old.split("."), new.split(".")
    same = next(i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b)
    tail = ".".join(before[same:])
    if name == tail or name.endswith(f".{tail}"):
        return name[: len(name) - len(tail)] + ".".join(after[same:])
    return canonical(new)


class Optimizers:
    """The optimizers of one file, converted after its state_dicts."""

    def __init__(
        self, sources: Sequence[Source], plan: Plan, *, reverse: bool, drop: bool, order: str | None = None
    ) -> None:
        self.plan, self.reverse, self.drop, self.order = plan, reverse, drop, order
        traced = [_traced(source, number, reverse) for number, source in enumerate(sources)]
        self.after = [[p for p in found if p.counted] for found in traced]
        self.before = [_in_order(after, source) for after, source in zip(self.after, sources, strict=True)]
        self.parameters = [p for found, source in zip(traced, sources, strict=True) for p in _in_order(found, source)]
        self.converted = any(p.inside for p in self.parameters)

    def convert(self, optimizer: Mapping[str, Any], place: str) -> Any:
        """An optimizer state whose parameters have their new names or numbers."""
        groups, states = optimizer["param_groups"], optimizer["state"]
        numbers = [n for group in groups for n in group["params"]]
        if not self.converted or not numbers:
            return optimizer
        if all(isinstance(n, str) for n in numbers):
            return self._by_name(optimizer, place)
        named = all(len(group.get("param_names", ())) == len(group["params"]) for group in groups)
        if self.drop:
            self.plan.notes.append(f"{place}: the optimizer's state was dropped")
            return rebuilt(optimizer, {**optimizer, "state": {}})
        if not named and self._untouched():
            return optimizer
        sizes = [len(group["params"]) for group in groups]
        readings = self._named(groups, sizes, numbers, place) if named else self._fitting(sizes, numbers, states)
        if readings is None:
            return optimizer
        if len({reading.outcome(states) for reading in readings}) != 1:
            self._refuse(place, len(numbers), bool(readings))
            return optimizer
        if self.reverse and any(p.lossy for p in self.parameters):
            self.plan.problems.append(f"{place}: the old class had more parameters to number; --drop-optimizer")
        return _renumbered(optimizer, readings[0])

    def _refuse(self, place: str, count: int, several: bool) -> None:
        what = "several orders of them fit" if several else "no state_dict of the file fits them"
        self.plan.problems.append(
            f"{place}: the optimizer numbers its {count} parameters, the conversion moves or drops some, and {what}: "
            f"{'say which it was with --order, ' if several else ''}save it with names (an optimizer over "
            "named_parameters()), or --drop-optimizer"
        )

    # --- by name

    def _called(self, name: str) -> list[_Parameter]:
        """The parameters that ``name`` may mean: those of that name, else those whose path it ends, or that end it."""
        wanted = canonical(name)
        exact = [p for p in self.parameters if canonical(p.old) == wanted]
        if exact:
            return exact
        return [
            p for p in self.parameters if (old := canonical(p.old)).endswith(f".{wanted}") or wanted.endswith(f".{old}")
        ]

    def _renamed(self, name: str) -> tuple[str | None, bool]:
        """The new name of the parameter ``name`` (``None``: dropped), and whether its layout changes.

        Raises:
            KeyError: the file has no such parameter, or several that become different things.
        """
        found = {(_spelled(name, p), p.transposed) for p in self._called(name)}
        if len(found) != 1:
            raise KeyError(name)
        return found.pop()

    def _unknown(self, place: str, names: Sequence[str]) -> None:
        listed = ", ".join(map(repr, list(dict.fromkeys(names))[:5]))
        self.plan.problems.append(
            f"{place or 'the file'}: the optimizer names {listed}, and no state_dict of the file says what becomes of "
            "it: put that of its model into the same file, or --drop-optimizer"
        )

    def _by_name(self, optimizer: Mapping[str, Any], place: str) -> Any:
        """States by name, as ``torch.distributed.checkpoint`` and FSDP write them."""
        if self.drop:
            self.plan.notes.append(f"{place}: the optimizer's state was dropped")
        state: dict[str, Any] = {}
        groups: list[Any] = []
        try:
            for name, entry in optimizer["state"].items():
                target, transposed = self._renamed(name)
                if target is not None and not self.drop:
                    state[target] = _entry(entry, transposed)
            for group in optimizer["param_groups"]:
                targets = [self._renamed(name)[0] for name in group["params"]]
                groups.append({**group, "params": [target for target in targets if target is not None]})
        except KeyError as error:
            self._unknown(place, error.args)
            return optimizer
        return rebuilt(optimizer, {**optimizer, "state": state, "param_groups": groups})

    def flat(self, items: Mapping[Any, Any], place: str) -> Mapping[Any, Any]:
        """``items`` with their flattened optimizer keys under new names."""
        if not self.converted or not any(flat_key(key) for key in items):
            return items
        made: dict[Any, Any] = {}
        unknown: list[str] = []
        for key, value in items.items():
            parts = flat_key(key)
            if parts is None:
                made[key] = value
                continue
            if self.drop and parts.head.endswith("state."):
                continue
            try:
                name, transposed = self._renamed(parts.name)
            except KeyError:
                unknown.append(parts.name)
                continue
            new = "" if name is None else f"{parts.head}{name}.{parts.entry}"
            if new:
                made[new] = _entry({"": value}, transposed)[""]
            if new != key:
                self.plan.changes.append(KeyChange(place, key, new, "", "state of the optimizer"))
        if unknown:
            self._unknown(place, unknown)
            return items
        renamed: Mapping[Any, Any] = rebuilt(items, made)
        return renamed

    # --- by number

    def _untouched(self) -> bool:
        """Whether every parameter keeps its number and layout in any order."""
        for before, after in zip(self.before, self.after, strict=True):
            if before != after or any(p.new is None or p.transposed for p in after):
                return False
            if sorted(after, key=_new_name) != sorted(after, key=_old_name):
                return False
        return True

    def _candidates(self) -> Iterator[tuple[list[_Parameter], list[_Parameter]]]:
        """What an optimizer may hold, in module order before and after: one state_dict of the file, or several."""
        places = range(len(self.before))
        subsets = chain.from_iterable(combinations(places, n) for n in places[:4] or ())
        for chosen in [*((p,) for p in places), *(c for c in subsets if len(c) > 1), tuple(places)]:
            before = [p for place in chosen for p in self.before[place]]
            yield before, [p for place in chosen for p in self.after[place]]

    def _named(
        self, groups: Sequence[Mapping[str, Any]], sizes: Sequence[int], numbers: Sequence[int], place: str
    ) -> list[_Reading] | None:
        """Numbers whose names stand beside them: the order is one of those of ``_readings``, or stays as it is."""
        names = [name for group in groups for name in group["param_names"]]
        meant = [{(_spelled(name, p), p.transposed): p for p in self._called(name)} for name in names]
        unknown = [name for name, found in zip(names, meant, strict=True) if len(found) != 1]
        if unknown:
            self._unknown(place, unknown)
            return None
        old = [next(iter(found.values())) for found in meant]
        wanted = set(old)
        before = [p for p in self.parameters if p in wanted]
        after = [p for p in chain.from_iterable(self.after) if p in wanted]
        if len(after) != len(numbers):
            after, before = old, old  # a tied tensor under its other name
        readings = [reading for reading in self._readings(before, after, sizes, numbers) if reading.old == tuple(old)]
        readings = [reading for reading in readings if reading.plain] or readings
        if not readings or self.order == "file":
            # an order of its own, which the new program keeps
            readings = [_read(old, old, sizes, numbers)]
        return [replace(r, names={p: _spelled(n, p) or "" for n, p in zip(names, old, strict=True)}) for r in readings]

    def _readings(
        self, before: Sequence[_Parameter], after: Sequence[_Parameter], sizes: Sequence[int], numbers: Sequence[int]
    ) -> Iterator[_Reading]:
        """Every order in which programs hand parameters over; the given one alone, if there is one."""
        seen = set()
        for base in ("module", "name"):
            if self.order in ("module", "name") and base != self.order:
                continue
            for keys in _keys(base, len(sizes)):
                old = _arranged(before, keys, _old_name if base == "name" else None)
                new = _arranged(after, keys, _new_name if base == "name" else None)
                reading = replace(_read(old, new, sizes, numbers), plain=not keys)
                if reading not in seen:
                    seen.add(reading)
                    yield reading

    def _fitting(self, sizes: Sequence[int], numbers: Sequence[int], states: Mapping[int, Any]) -> list[_Reading]:
        """All that fits the sizes of the groups and the shapes of the states."""
        found: list[_Reading] = []
        seen: set[tuple[_Parameter, ...]] = set()
        for before, after in self._candidates():
            for part in _parts(before):
                if len(part) != len(numbers) or tuple(part) in seen:
                    continue
                seen.add(tuple(part))
                chosen = set(part)
                rest = [p for p in after if p in chosen]
                found += [r for r in self._readings(part, rest, sizes, numbers) if r.fits(numbers, states)]
        return found


def _in_order(after: Sequence[_Parameter], source: Source) -> list[_Parameter]:
    position = {name: place for place, name in enumerate(source.shapes)}
    return sorted(after, key=lambda p: position[p.old])


def _parts(before: Sequence[_Parameter]) -> Iterator[list[_Parameter]]:
    """What of a state_dict may be parameters: all, or without what mostly is none; or those of the losses alone."""
    for block in (list(before), [p for p in before if p.inside]):
        yield block
        without = [p for p in block if not p.single]
        yield without
        yield [p for p in without if not p.frozen]
        yield [p for p in without if p.new is not None]


def _renumbered(optimizer: Mapping[str, Any], reading: _Reading) -> Any:
    """The optimizer state with its parameters in the order of ``reading``."""
    state, made, count = {}, [], 0
    for group, slots in zip(optimizer["param_groups"], reading.groups, strict=True):
        new_group = {**group, "params": list(range(count, count + len(slots)))}
        if "param_names" in group:
            new_group["param_names"] = [reading.names.get(p, p.new) for _, p in slots]
        for number, (old, parameter) in enumerate(slots, count):
            if old in optimizer["state"]:
                state[number] = _entry(optimizer["state"][old], parameter.transposed)
        count += len(slots)
        made.append(new_group)
    return rebuilt(optimizer, {**optimizer, "state": state, "param_groups": made})
