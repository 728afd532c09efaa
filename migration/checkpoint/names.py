"""State_dicts: which old loss stands below which prefix, and its keys under their new names."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..catalog import Case, Catalog, StateRule
from ..state import convert_state, rule_for
from .model import Assignments, CheckpointError, KeyChange, Plan, Row, Rows, Slot, Source, rebuilt
from .modules import migrate_module
from .optimizer import entry_of, fits, renumbered

_LOSS_LIKE = re.compile(r"loss|criteri|objective|contrast|regulari", re.IGNORECASE)

_WRAPPERS = ("module", "_orig_mod", "_forward_module")
"""What DistributedDataParallel, torch.compile and Lightning put in front of a name."""

_NO_PARAMETERS = ("running_mean", "running_var", "num_batches_tracked")


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
        found[_dotted(prefix)] = [(symbols[0], case) for case in cases]
    return found


def _dotted(prefix: str) -> str:
    return prefix and prefix.removesuffix(".") + "."


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, Mapping) and {"state", "param_groups"} <= set(value)


def _below(keys: Sequence[str]) -> dict[str, list[str]]:
    """Every dotted prefix of the keys, outermost first, the empty one included -> what follows it."""
    found: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        found[""].append(key)
        for dot in re.finditer(r"\.", key):
            found[key[: dot.end()]].append(key[dot.end() :])
    return dict(sorted(found.items(), key=lambda item: (item[0].count("."), item[0])))


def _reads_like_loss(prefix: str) -> bool:
    names = [name for name in prefix.split(".")[:-1] if name not in _WRAPPERS]
    return not names or bool(_LOSS_LIKE.search(names[-1]))


def _unknown(case: Case, keys: Sequence[str], reverse: bool) -> list[str]:
    """The keys that the rules of ``case`` do not know."""
    spare = {n for rule in case.state for n in (rule.new[1:] if rule.old else rule.new)} if reverse else set()
    return [key for key in keys if key not in spare and rule_for(case.state, key, reverse=reverse) is None]


def _changes(case: Case, keys: Sequence[str], reverse: bool, *, drops: bool = False) -> bool:
    """Whether ``case`` renames one of the keys (or drops one, with ``drops``)."""
    for key in keys:
        found = rule_for(case.state, key, reverse=reverse)
        if found is not None and (found[0].new != (found[0].old,) if found[0].new else drops):
            return True
    return False


def _outcome(case: Case, keys: Sequence[str], reverse: bool) -> tuple[tuple[str, tuple[str, ...], StateRule], ...]:
    """Per key: what becomes of it, and by which rule."""
    rows = []
    for key in keys:
        found = rule_for(case.state, key, reverse=reverse)
        if found is not None:
            rule, rest = found
            targets = (rule.old,) if reverse else rule.new
            rows.append((key, tuple(target.replace("*", rest) for target in targets), rule))
    return tuple(rows)


class _Converter:
    """One conversion: collects changes, problems and the sources of names on the way through the tree."""

    def __init__(
        self, catalog: Catalog, given: Assignments, skip: Sequence[str], reverse: bool, drop_optimizer: bool
    ) -> None:
        self.catalog, self.given, self.reverse, self.drop_optimizer = catalog, given, reverse, drop_optimizer
        self.skip = tuple(_dotted(prefix) for prefix in skip)
        self.plan = Plan()
        self.sources: list[Source] = []
        self.used: set[str] = set()
        self.rows = [(s, c) for s, c in catalog.successors() if c.state]

    # --- the tree

    def tree(self, value: Any, place: str, leaf: Callable[[Any, str], Any]) -> Any:
        """``value`` with ``leaf`` applied to modules, state_dicts, optimizers; the same object if nothing changes."""
        if isinstance(value, nn.Module) or _is_optimizer(value):
            return leaf(value, place)
        if isinstance(value, Mapping):
            items = {key: self.tree(item, f"{place}.{key}" if place else str(key), leaf) for key, item in value.items()}
            if _is_state_dict(items):
                items = leaf(items, place)
            same = list(items) == list(value) and all(items[key] is value[key] for key in items)
            return value if same else rebuilt(value, items)
        if isinstance(value, (list, tuple)):
            parts = [
                self.tree(item, f"{place}.{number}" if place else str(number), leaf)
                for number, item in enumerate(value)
            ]
            if all(a is b for a, b in zip(parts, value, strict=True)):
                return value
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        return value

    def convert(self, data: Any) -> Any:
        """The whole file: state_dicts and modules first, the optimizers that number their parameters afterwards."""
        converted = self.tree(
            data, "", lambda value, place: value if _is_optimizer(value) else self.names(value, place)
        )
        if any(source.passes for source in self.sources):
            converted = self.tree(
                converted, "", lambda value, place: self.optimizer(value, place) if _is_optimizer(value) else value
            )
        for prefix, rows in self.given.items():
            if prefix not in self.used and not self._already(prefix):
                self.plan.problems.append(
                    f"--loss {prefix.rstrip('.')}={rows[0][0].old}: no state_dict has keys below {prefix!r}"
                )
        # every pass over a state_dict sees what the ones before it could not convert
        self.plan.problems = list(dict.fromkeys(self.plan.problems))
        return converted

    def names(self, value: Any, place: str) -> Any:
        """A state_dict or module with new names."""
        if isinstance(value, nn.Module):
            return self.module(value, place)
        tensors = {k: v for k, v in value.items() if isinstance(v, Tensor)}
        source = Source({k: v.shape if v.is_floating_point() else None for k, v in tensors.items()})
        self.sources.append(source)
        state = dict(value)
        done: set[str] = set()
        while rows := self.recognise([k for k, v in state.items() if isinstance(v, Tensor)], place, done):
            source.passes.append(rows)
            done |= set(rows)
            state = self.apply(state, rows, place)
        return state if done else value

    # --- state_dicts

    def recognise(self, keys: Sequence[str], place: str, done: set[str]) -> dict[str, Row]:
        """Prefix -> row, for every outermost loss with old keys that is not ``done``."""
        found: dict[str, Row] = {}
        visible = [key for key in keys if not key.startswith(self.skip)] if self.skip else keys
        for prefix, below in _below(visible).items():
            if prefix in done or any(prefix.startswith(taken) for taken in found):
                continue
            where = f"{place or 'the file'}: prefix {prefix!r}"
            if prefix in self.given:
                row = self.assigned(where, prefix, below)
            else:
                row = self.guess(where, prefix, below, any(prefix.startswith(outer) for outer in done))
            if row is not None:
                found[prefix] = row
        self.used |= set(found) & set(self.given)
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

    def guess(self, where: str, prefix: str, below: Sequence[str], inside: bool) -> Row | None:
        """The row that knows all keys ``below`` and renames one, if the name of the prefix supports it."""
        rows = [(s, c) for s, c in self.rows if _changes(c, below, self.reverse)]
        complete = [(s, c) for s, c in rows if not _unknown(c, below, self.reverse)]
        names = ", ".join(dict.fromkeys(symbol.old for symbol, _ in complete or rows))
        name = prefix.rstrip(".")
        likely = inside or _reads_like_loss(prefix)
        if not complete:
            if rows and likely and prefix:
                unknown = min((_unknown(c, below, self.reverse) for _, c in rows), key=len)
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
        else:
            return complete[0]
        return None

    def apply(self, state: Mapping[str, Any], rows: Rows, place: str) -> dict[str, Any]:
        """``state`` with the new keys in the places of the old ones."""
        converted: dict[str, Any] = {}
        listed: set[str] = set()
        for key, value in state.items():
            prefix = next((p for p in rows if key.startswith(p)), None)
            if prefix is None or not isinstance(value, Tensor) or (self.skip and key.startswith(self.skip)):
                converted[key] = value
                continue
            symbol, case = rows[prefix]
            short = key[len(prefix) :]
            for number, (name, item) in enumerate(convert_state(case, {short: value}, reverse=self.reverse).items()):
                # copies share no memory: safetensors refuses that, and a later in-place update would reach both
                converted[prefix + name] = item.clone() if number else item
            for rule in case.state:
                if rule.rows and prefix + rule.rows in converted and prefix + rule.new[0] not in listed:
                    listed.add(prefix + rule.new[0])
                    note = f"the number of rows of {rule.rows}"
                    self.plan.changes.append(KeyChange(place, "", prefix + rule.new[0], symbol.old, note))
            for old, targets, rule in _outcome(case, [short], self.reverse):
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

    def _already(self, prefix: str) -> bool:
        """Whether keys below ``prefix`` were seen by ``assigned``: converted, new already, or complained about."""
        return any(prefix in _below(list(source.shapes)) for source in self.sources)

    # --- pickled modules

    def module(self, module: nn.Module, place: str) -> nn.Module:
        """The module with successors in it."""
        if self.reverse:
            self.sources.append(Source({}))
            self.plan.problems.append(
                f"{place or 'the file'}: a pickled module cannot be turned back, a state_dict can"
            )
            return module
        shapes: dict[str, torch.Size | None] = {name: p.shape for name, p in module.named_parameters()}
        passes: list[Rows] = []
        new, changes, problems = migrate_module(module, self.catalog, passes)
        self.sources.append(Source(shapes, passes, exact=True))
        self.plan.changes += [KeyChange(place, c.old, c.new, c.symbol, c.note) for c in changes]
        self.plan.problems += [f"{place or 'the file'}: {problem}" for problem in problems]
        return new

    # --- optimizers

    def optimizer(self, optimizer: Mapping[str, Any], place: str) -> Any:
        """An optimizer state whose parameters have their new names or numbers."""
        groups = optimizer["param_groups"]
        numbers = [n for group in groups for n in group["params"]]
        if all(isinstance(n, str) for n in numbers):
            return self.named_optimizer(optimizer)
        if self.drop_optimizer:
            self.plan.notes.append(f"{place}: the optimizer's state was dropped")
            return rebuilt(optimizer, {**optimizer, "state": {}})
        outcomes: list[list[list[Slot]]] = []
        for names, source in self.name_lists(optimizer):
            moved = self.moved(names, source)
            if moved not in outcomes:
                outcomes.append(moved)
        if len(outcomes) != 1 and not any(self.may_move(source) for source in self.sources):
            return optimizer
        if len(outcomes) != 1:
            what = "no state_dict of the file fits" if not outcomes else "several state_dicts fit"
            self.plan.problems.append(
                f"{place}: the optimizer numbers its {len(numbers)} parameters, the conversion moves or drops some, "
                f"and {what} them: save it with names (an optimizer over named_parameters()), or --drop-optimizer"
            )
            return optimizer
        lossy = self.reverse and any(
            not rule.new and "*" in rule.old
            for source in self.sources
            for rows in source.passes
            for _, case in rows.values()
            for rule in case.state
        )
        if lossy:
            self.plan.problems.append(f"{place}: the old class had more parameters to number; --drop-optimizer")
        return renumbered(optimizer, outcomes[0])

    def named_optimizer(self, optimizer: Mapping[str, Any]) -> Any:
        """States by name."""
        state = {}
        for name, entry in optimizer["state"].items():
            slot = self.rename(Slot(0, name))
            if slot is not None:
                state[slot.name] = entry_of(entry, slot.transposed)
        groups = []
        for group in optimizer["param_groups"]:
            slots = [self.rename(Slot(0, name)) for name in group["params"]]
            groups.append({**group, "params": [slot.name for slot in slots if slot is not None]})
        return rebuilt(optimizer, {**optimizer, "state": state, "param_groups": groups})

    def rename(self, slot: Slot) -> Slot | None:
        """The slot under its new name, ``None`` if it was dropped."""
        for source in self.sources:
            if slot.name in source.shapes and source.passes:
                (moved,) = self.moved([[slot]], source)
                return moved[0] if moved else None
        return slot

    def name_lists(self, optimizer: Mapping[str, Any]) -> Iterator[tuple[list[list[Slot]], Source]]:
        """Every reading of the optimizer's numbers as names that fits their count and shapes."""
        groups = optimizer["param_groups"]
        if all(len(group.get("param_names", ())) == len(group["params"]) for group in groups):
            named = [[Slot(*pair) for pair in zip(g["params"], g["param_names"], strict=True)] for g in groups]
            first = {slot.name for group in named for slot in group}
            # a wrapper that saves less than the whole model still names its parameters
            source = max(self.sources, key=lambda s: (len(first & set(s.shapes)), len(s.passes)))
            yield named, source
            return
        numbers = [n for group in groups for n in group["params"]]
        joined = Source({}, [])
        for source in self.sources:
            joined.shapes.update(source.shapes)
            joined.passes += [rows for rows in source.passes if rows not in joined.passes]
        for source in [*self.sources, *([joined] if len(self.sources) > 1 else [])]:
            for names in self.parameter_names(source):
                if len(names) == len(numbers) and fits(optimizer["state"], numbers, [source.shapes[n] for n in names]):
                    name_of = dict(zip(numbers, names, strict=True))
                    yield [[Slot(n, name_of[n]) for n in group["params"]] for group in groups], source
                    break

    def parameter_names(self, source: Source) -> Iterator[list[str]]:
        """What may be the parameters: all names, or those of the converted losses, with fewer and fewer doubtful ones.

        First all, then without single entries of losses, which are mostly buffers, then without what is dropped.
        """
        names = [n for n, shape in source.shapes.items() if shape is not None]
        names = names if source.exact else [n for n in names if not n.endswith(_NO_PARAMETERS)]
        single, dropped, inside = set(), set(), set()
        for prefix, (_, case) in (item for rows in source.passes for item in rows.items()):
            for name in names:
                found = rule_for(case.state, name[len(prefix) :], reverse=self.reverse)
                inside |= {name} if name.startswith(prefix) else set()
                if name.startswith(prefix) and found is not None:
                    single |= {name} if "*" not in found[0].old else set()
                    dropped |= {name} if not found[0].new else set()
        for block in (names, [n for n in names if n in inside]):
            yield block
            yield [n for n in block if n not in single]
            yield [n for n in block if n not in single | dropped]

    def may_move(self, source: Source) -> bool:
        """Whether some parameter of ``source`` may get another number or layout."""
        slots = [Slot(n, name) for n, (name, shape) in enumerate(source.shapes.items()) if shape is not None]
        (moved,) = self.moved([slots], source)
        return [s.number for s in moved] != [s.number for s in slots] or any(s.transposed for s in moved)

    def moved(self, groups: list[list[Slot]], source: Source) -> list[list[Slot]]:
        """Per group the parameters in their new order: that of the rules, within the places that the loss had."""
        for rows in source.passes:
            for prefix, (_, case) in rows.items():
                groups = [self._moved_group(group, prefix, case) for group in groups]
        return groups

    def _moved_group(self, group: list[Slot], prefix: str, case: Case) -> list[Slot]:
        ranked: list[tuple[int, Slot]] = []
        places: list[int] = []
        for place, slot in enumerate(group):
            found = rule_for(case.state, slot.name[len(prefix) :], reverse=self.reverse)
            if slot.name.startswith(prefix) and found is not None:
                rule, rest = found
                places.append(place)
                targets = (rule.old,) if self.reverse else rule.new[:1]
                for target in targets:
                    name = prefix + target.replace("*", rest)
                    ranked.append((case.state.index(rule), Slot(slot.number, name, slot.transposed ^ rule.transpose)))
        if not self.reverse:
            ranked.sort(key=lambda item: item[0])
        filled: list[Slot | None] = list(group)
        for place in places:
            filled[place] = None
        for place, (_, slot) in zip(places, ranked, strict=False):
            filled[place] = slot
        return [slot for slot in filled if slot is not None]


def plan(
    data: Any,
    catalog: Catalog,
    *,
    assignments: Assignments | None = None,
    skip: Sequence[str] = (),
    reverse: bool = False,
    drop_optimizer: bool = False,
) -> tuple[Plan, Any]:
    """What the conversion of the loaded ``data`` does, and its result. ``data`` itself is not changed, except modules.

    Args:
        data: what ``torch.load`` returned.
        catalog: the rows.
        assignments: prefix -> rows, as ``parse_assignments`` gives it.
        skip: prefixes that are left alone.
        reverse: back to the old keys.
        drop_optimizer: empty the state of optimizers that number their parameters.

    Raises:
        CheckpointError: there is no state_dict and no module in it.
    """
    converter = _Converter(catalog, assignments or {}, skip, reverse, drop_optimizer)
    converted = converter.convert(data)
    if not converter.sources:
        raise CheckpointError("neither a state_dict nor a module is in it")
    return converter.plan, converted
