"""State_dicts: which old loss stands below which prefix, and its keys under their new names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..catalog import Case, Catalog, StateRule
from ..state import convert_state, rule_for
from .model import (
    Assignments,
    CheckpointError,
    KeyChange,
    Plan,
    Row,
    Rows,
    Source,
    canonical,
    dotted,
    rebuilt,
)
from .modules import migrate_module
from .optimizer import ORDERS, Optimizers, flat_key, is_optimizer

_LOSS_LIKE = re.compile(r"loss|criteri|objective|contrast|regulari", re.IGNORECASE)
_DEPTH = 200
"""Containers within containers that are followed."""


def parse_assignments(catalog: Catalog, texts: Sequence[str]) -> dict[str, list[Row]]:
    """``PREFIX=OLD.NAME`` or ``PREFIX=OLD.NAME:argument=value`` -> the rows that may hold; the keys decide.

    Raises:
        CheckpointError: not of this form, no such name, or no row with state rules.
    """
    found: dict[str, list[Row]] = {}
    for text in texts:
        prefix, equals, rest = text.partition("=")
        name, _, condition = rest.partition(":")
        if not equals or not name:
            raise CheckpointError(f"--loss {text!r}: expected PREFIX=OLD.NAME, an empty PREFIX for the whole file")
        symbols = catalog.find(name)
        if len(symbols) != 1:
            what = "no row" if not symbols else f"several rows ({', '.join(s.old for s in symbols)})"
            raise CheckpointError(f"--loss {text!r}: {what} for {name!r}")
        cases = [case for case in symbols[0].cases if case.state and case.new]
        if condition:
            argument, _, value = condition.partition("=")
            cases = [c for c in cases if any(str(option) == value for option in c.when.get(argument, ()))]
        if not cases:
            raise CheckpointError(f"--loss {text!r}: no row has state rules")
        found[dotted(prefix)] = [(symbols[0], case) for case in cases]
    return found


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _below(keys: Sequence[str]) -> dict[str, list[str]]:
    """Every dotted prefix of the keys, outermost first, the empty one included -> what follows it."""
    found: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        found[""].append(key)
        for dot in re.finditer(r"\.", key):
            found[key[: dot.end()]].append(key[dot.end() :])
    return dict(sorted(found.items(), key=lambda item: (item[0].count("."), item[0])))


def _reads_like_loss(prefix: str) -> bool:
    names = canonical(prefix).split(".")[:-1]
    return not names or any(map(_LOSS_LIKE.search, names))


def _unknown(case: Case, keys: Sequence[str], reverse: bool, dims: Mapping[str, int] | None = None) -> list[str]:
    """The keys that the rules of ``case`` do not know, or know with another number of ``dims``."""
    spare = {n for rule in case.state for n in (rule.new[1:] if rule.old else rule.new)} if reverse else set()
    unknown = []
    for key in keys:
        found = rule_for(case.state, key, reverse=reverse)
        if found is None:
            unknown += [] if key in spare else [key]
        elif dims and found[0].dims not in (None, dims[key]):
            unknown.append(key)
    return unknown


def _changes(case: Case, keys: Sequence[str], reverse: bool, *, drops: bool = False) -> bool:
    """Whether ``case`` renames one of the keys (or drops one, with ``drops``)."""
    for key in keys:
        found = rule_for(case.state, key, reverse=reverse)
        if found is not None and (found[0].new != (found[0].old,) if found[0].new else drops):
            return True
    return False


_Fate = tuple[str, tuple[str, ...], StateRule]


def _fates(case: Case, keys: Sequence[str], reverse: bool) -> tuple[_Fate, ...]:
    """Per key: what becomes of it, and by which rule."""
    rows = []
    for key in keys:
        found = rule_for(case.state, key, reverse=reverse)
        if found is not None:
            rule, rest = found
            targets = (rule.old,) if reverse else rule.new
            rows.append((key, tuple(target.replace("*", rest) for target in targets), rule))
    return tuple(rows)


def _outcome(case: Case, keys: Sequence[str], reverse: bool) -> tuple[tuple[Any, ...], ...]:
    """What the file would hold: two rows with the same outcome need not be told apart."""
    fates = _fates(case, keys, reverse)
    return tuple((key, targets, rule.transpose, rule.squeeze, rule.frozen) for key, targets, rule in fates)


class _Converter:
    """One conversion: collects changes, problems and the sources of names on the way through the tree."""

    def __init__(self, catalog: Catalog, given: Assignments, skip: Sequence[str], reverse: bool, views: bool) -> None:
        self.catalog, self.given, self.reverse, self.views = catalog, given, reverse, views
        self.skip = tuple(dotted(prefix) for prefix in skip)
        self.plan = Plan()
        self.sources: list[Source] = []
        self.optimizers: list[tuple[str, Mapping[str, Any]]] = []
        self.used: set[str] = set()
        self.rows = [(s, c) for s, c in catalog.successors() if c.state]

    def convert(self, data: Any, drop_optimizer: bool, order: str | None) -> Any:
        """The whole file: state_dicts and modules first, the optimizers that number their parameters afterwards."""
        converted = _tree(data, "", self.names)
        for place, optimizer in self.optimizers:
            self.optimizer_names(place, optimizer)
        optimizers = Optimizers(self.sources, self.plan, reverse=self.reverse, drop=drop_optimizer, order=order)

        def follow(value: Any, place: str) -> Any:
            if is_optimizer(value):
                return optimizers.convert(value, place)
            return value if isinstance(value, nn.Module) else optimizers.flat(value, place)

        converted = _tree(converted, "", follow)
        for prefix, rows in self.given.items():
            if prefix not in self.used:
                self.plan.problems.append(
                    f"--loss {prefix.rstrip('.')}={rows[0][0].old}: no state_dict has keys below {prefix!r}"
                )
        # every pass over a state_dict sees what the ones before it could not convert
        self.plan.problems = list(dict.fromkeys(self.plan.problems))
        return converted

    def names(self, value: Any, place: str) -> Any:
        """A state_dict or module with new names; optimizers are noted for later."""
        if isinstance(value, nn.Module):
            return self.module(value, place)
        if is_optimizer(value):
            self.optimizers.append((place, value))
            return value
        own = {key: item for key, item in value.items() if flat_key(key) is None}
        tensors = {k: v for k, v in own.items() if _is_entry(k, v)}
        source = Source({k: v.shape for k, v in tensors.items()}, _uncounted(tensors))
        self.sources.append(source)
        state = self.passes(own, source, place)
        flat = dict.fromkeys(parts.name for parts in map(flat_key, value) if parts)
        if flat:
            known = len(self.plan.changes)
            self.unknown_names(list(flat), place)
            del self.plan.changes[known:]  # they are listed with their keys
            state = {**state, **{key: item for key, item in value.items() if key not in own}}
        return state if source.passes else value

    def passes(self, state: Mapping[Any, Any], source: Source, place: str) -> dict[Any, Any]:
        """``state`` with all losses in it converted, outer ones first; ``source`` gets the rows."""
        state = dict(state)
        done: set[str] = set()
        while rows := self.recognise({k: v for k, v in state.items() if _is_entry(k, v)}, place, done):
            source.passes.append(rows)
            done |= set(rows)
            state = self.apply(state, rows, place)
        return state

    def optimizer_names(self, place: str, optimizer: Mapping[str, Any]) -> None:
        """The names that an optimizer brings along, where no state_dict of the file has them."""
        names = [n for g in optimizer["param_groups"] for n in g.get("param_names", g["params"]) if isinstance(n, str)]
        self.unknown_names(names, place)

    def unknown_names(self, names: Sequence[str], place: str) -> None:
        """A source for those of the ``names`` that none has."""
        known = {canonical(name) for source in self.sources for name in source.shapes}
        missing = [n for n in names if not any(_same_path(canonical(n), other) for other in known)]
        if missing:
            source = Source(dict.fromkeys(missing, torch.Size()), exact=True)
            self.passes({name: torch.empty(1, 1) for name in missing}, source, place)
            if source.passes:
                self.sources.append(source)

    # --- state_dicts

    def recognise(self, tensors: Mapping[str, Tensor], place: str, done: set[str]) -> dict[str, Row]:
        """Prefix -> row, for every outermost loss with old keys that is not ``done``."""
        found: dict[str, Row] = {}
        at = dotted(place)
        visible = [k for k in tensors if not (k.startswith(self.skip) or (at + k).startswith(self.skip))]
        for prefix, below in _below(visible if self.skip else list(tensors)).items():
            if prefix in done or any(prefix.startswith(taken) for taken in found):
                continue
            given = next((name for name in (prefix, at + prefix) if name in self.given), None)
            if given is not None:
                self.used.add(given)
                row = self.assigned(_where(place, prefix), given, below)
            else:
                dims = {key: tensors[prefix + key].dim() for key in below}
                row = self.guess(place, prefix, dims, any(prefix.startswith(outer) for outer in done))
            if row is not None:
                found[prefix] = row
        return found

    def assigned(self, where: str, prefix: str, below: Sequence[str]) -> Row | None:
        """The row of the given class that knows all keys ``below``; ``None`` if they are new already."""
        rows = self.given[prefix]
        name = rows[0][0].old
        complete = [(s, c) for s, c in rows if not _unknown(c, below, self.reverse)]
        changing = [(s, c) for s, c in complete if _changes(c, below, self.reverse, drops=True)]
        if len({_outcome(case, below, self.reverse) for _, case in changing}) > 1:
            self.plan.problems.append(f"{where}: several rows of {name} hold, add :argument=value to --loss")
        elif changing:
            return changing[0]
        elif not complete and not any(not _unknown(case, below, not self.reverse) for _, case in rows):
            unknown = min((_unknown(case, below, self.reverse) for _, case in rows), key=len)
            self.plan.problems.append(f"{where}: {name} has no rule for {', '.join(map(repr, unknown[:5]))}")
        return None

    def guess(self, place: str, prefix: str, dims: Mapping[str, int], inside: bool) -> Row | None:
        """The row that knows all keys ``below`` and renames one, if the name of the prefix supports it."""
        where, at, below = _where(place, prefix), dotted(place), list(dims)
        rows = [(s, c) for s, c in self.rows if _changes(c, below, self.reverse)]
        complete = [(s, c) for s, c in rows if not _unknown(c, below, self.reverse, dims)]
        names = ", ".join(dict.fromkeys(symbol.old for symbol, _ in complete or rows))
        name = prefix.rstrip(".")
        likely = inside or _reads_like_loss(prefix)
        if not complete:
            if rows and likely and canonical(prefix):
                unknown = min((_unknown(c, below, self.reverse, dims) for _, c in rows), key=len)
                self.plan.problems.append(
                    f"{where} has keys of {names}, and {', '.join(map(repr, unknown[:5]))}, which it does not have: "
                    f"leave it with --skip {name}, or convert the losses inside with --loss"
                )
        elif len({_outcome(case, below, self.reverse) for _, case in complete}) > 1:
            self.plan.problems.append(f"{where} could be any of {names}: say which with --loss {name}=NAME")
        elif not likely:
            self.plan.problems.append(
                f"{where} has the keys of {names}, but its name is not that of a loss: "
                f"convert it with --loss {name}=NAME, or leave it with --skip {name}"
            )
        elif inner := self.inner(complete[0][1], dims):
            below_it, other = inner
            if any(dotted(before + prefix + below_it) in self.given for before in ("", at)):
                return None
            self.plan.problems.append(
                f"{where} has the keys of {names}, or holds {other} as {below_it}: say which with --loss {name}=NAME "
                f"or --loss {prefix}{below_it}=NAME"
            )
        else:
            return complete[0]
        return None

    def inner(self, case: Case, dims: Mapping[str, int]) -> tuple[str, str] | None:
        """A loss further inside, of which the keys that ``case`` renames could be, too: its prefix and its name."""
        for prefix, below in _below(list(dims)).items():
            if not prefix or not any(
                prefix < rule.old.partition("*")[0] for rule in case.state if rule.match(prefix + below[0])
            ):
                continue
            keys = {key: dims[prefix + key] for key in below}
            for symbol, other in self.rows:
                if _changes(other, below, self.reverse) and not _unknown(other, below, self.reverse, keys):
                    return prefix.rstrip("."), symbol.old
        return None

    def apply(self, state: Mapping[Any, Any], rows: Rows, place: str) -> dict[Any, Any]:
        """``state`` with the new keys in the places of the old ones."""
        converted: dict[Any, Any] = {}
        listed: set[str] = set()
        at = dotted(place)
        for key, value in state.items():
            prefix = next((p for p in rows if key.startswith(p)), None) if _is_entry(key, value) else None
            if prefix is None or (self.skip and (key.startswith(self.skip) or (at + key).startswith(self.skip))):
                converted[key] = value
                continue
            symbol, case = rows[prefix]
            short = key[len(prefix) :]
            for name, item in convert_state(case, {short: value}, reverse=self.reverse, views=self.views).items():
                converted[prefix + name] = item
            for rule in case.state:
                if rule.rows and prefix + rule.rows in converted and prefix + rule.new[0] not in listed:
                    listed.add(prefix + rule.new[0])
                    note = f"the number of rows of {rule.rows}"
                    self.plan.changes.append(KeyChange(place, "", prefix + rule.new[0], symbol.old, note))
            for old, targets, rule in _fates(case, [short], self.reverse):
                words = [w for w, on in (("transposed", rule.transpose), ("reshaped", rule.squeeze)) if on]
                new = " + ".join(prefix + target for target in targets)
                if new != prefix + old or words:
                    note = ", ".join(words) or rule.drop
                    self.plan.changes.append(KeyChange(place, prefix + old, new, symbol.old, note))
            if self.reverse and rule_for(case.state, short, reverse=True) is None:
                self.plan.changes.append(KeyChange(place, key, "", symbol.old, "the old class had no such entry"))
        for prefix, (symbol, case) in rows.items():
            dropped = [rule.old for rule in case.state if not rule.new]
            if self.reverse and dropped:
                self.plan.notes.append(
                    f"{place or 'the file'}: {symbol.old} also had {', '.join(prefix + d for d in dropped)}, which the "
                    "conversion had dropped: take them from the original file"
                )
        return converted

    # --- pickled modules

    def module(self, module: nn.Module, place: str) -> nn.Module:
        """The module with successors in it."""
        if self.reverse:
            self.sources.append(Source({}))
            self.plan.problems.append(
                f"{place or 'the file'}: a pickled module cannot be turned back, a state_dict can"
            )
            return module
        shapes = {name: p.shape for name, p in module.named_parameters()}
        passes: list[Rows] = []
        new, changes, problems = migrate_module(module, self.catalog, passes)
        self.sources.append(Source(shapes, passes=passes, exact=True))
        self.plan.changes += [KeyChange(place, c.old, c.new, c.symbol, c.note) for c in changes]
        self.plan.problems += [f"{place or 'the file'}: {problem}" for problem in problems]
        return new


def _tree(value: Any, place: str, leaf: Callable[[Any, str], Any], above: tuple[int, ...] = ()) -> Any:
    """``value`` with ``leaf`` applied to modules, state_dicts, optimizers; the same object if nothing changes.

    Raises:
        CheckpointError: a container holds itself, or is nested deeper than Python can follow.
    """
    if isinstance(value, nn.Module) or is_optimizer(value):
        return leaf(value, place)
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if id(value) in above:
        raise CheckpointError(f"{place}: this container holds itself")
    if len(above) > _DEPTH:
        raise CheckpointError(f"{place[:80]}...: nested more than {_DEPTH} levels deep")
    above = (*above, id(value))
    if isinstance(value, Mapping):
        items = {k: _tree(item, f"{place}.{k}" if place else str(k), leaf, above) for k, item in value.items()}
        if _is_state_dict(items):
            items = leaf(items, place)
        same = list(items) == list(value) and all(items[key] is value[key] for key in items)
        return value if same else rebuilt(value, items)
    parts = [_tree(item, f"{place}.{n}" if place else str(n), leaf, above) for n, item in enumerate(value)]
    if all(a is b for a, b in zip(parts, value, strict=True)):
        return value
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def _where(place: str, prefix: str) -> str:
    return f"{place or 'the file'}: prefix {prefix!r}"


def _is_entry(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)


def _uncounted(tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """What ``parameters()`` does not give: what is not floating, and of tied tensors all but the first."""
    seen: set[tuple[Any, ...]] = set()
    found = set()
    for name, tensor in tensors.items():
        where = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() and not tensor.is_meta else (name,)
        if not tensor.is_floating_point() or where in seen:
            found.add(name)
        seen.add(where)
    return frozenset(found)


def _same_path(one: str, other: str) -> bool:
    """Whether two names end alike: one may be longer by a prefix."""
    return one == other or one.endswith(f".{other}") or other.endswith(f".{one}")


def plan(
    data: Any,
    catalog: Catalog,
    *,
    assignments: Assignments | None = None,
    skip: Sequence[str] = (),
    reverse: bool = False,
    drop_optimizer: bool = False,
    order: str | None = None,
    views: bool = False,
) -> tuple[Plan, Any]:
    """What the conversion of the loaded ``data`` does, and its result. ``data`` itself is not changed, except modules.

    Args:
        data: what ``torch.load`` returned.
        catalog: the rows.
        assignments: prefix -> rows, as ``parse_assignments`` gives it.
        skip: prefixes that are left alone.
        reverse: back to the old keys.
        drop_optimizer: empty the state of optimizers that number their parameters.
        views: tensors that change their layout are views of the old ones, not copies.
        order: in which the program hands parameters to its optimizer, where several fit; one of ``ORDERS``.

    Raises:
        CheckpointError: there is no state_dict and no module in it, or it cannot be followed.
    """
    if order is not None and order not in ORDERS:
        raise CheckpointError(f"order must be one of {', '.join(ORDERS)}, found {order!r}")
    converter = _Converter(catalog, assignments or {}, skip, reverse, views)
    converted = converter.convert(data, drop_optimizer, order)
    if not converter.sources:
        raise CheckpointError("neither a state_dict nor a module is in it")
    return converter.plan, converted
