"""Checkpoint files whose losses have old keys -> the keys of the new losses.

A file is understood as a tree of dicts and lists. Every dict of tensors in it is a state_dict, in which the keys of a
loss stand below a prefix. Which old class stands there is said by the user (``PREFIX=OLD.NAME``), or recognised: the
rules of one class, and no other with another outcome, know every key below the prefix, and the prefix is empty or reads
like a loss. What is not understood is refused; nothing is written then.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .catalog import Case, Catalog, Symbol
from .state import convert_state, rule_for
from .translate import Untranslatable, translate

__all__ = ["CheckpointError", "KeyChange", "Plan", "convert_file", "default_output", "migrate_module", "plan"]

_LOSS_LIKE = re.compile(r"loss|criteri|objective|contrast|regulari", re.IGNORECASE)


class CheckpointError(ValueError):
    """The file cannot be read, or holds something that is not understood."""


@dataclass(frozen=True)
class KeyChange:
    """One entry of one state_dict: old key, new key (empty: dropped), and the old class that it belongs to."""

    place: str
    old: str
    new: str
    symbol: str
    note: str = ""


@dataclass
class Plan:
    """What a conversion would do."""

    changes: list[KeyChange] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        """Nothing to convert."""
        return not self.changes and not self.problems


Assignments = Mapping[str, tuple[Symbol, Case]]


def parse_assignments(catalog: Catalog, texts: Sequence[str]) -> dict[str, tuple[Symbol, Case]]:
    """``PREFIX=OLD.NAME`` or ``PREFIX=OLD.NAME:argument=value`` -> the row that holds.

    Raises:
        CheckpointError: not of this form, no such name, or several rows with different state rules.
    """
    found: dict[str, tuple[Symbol, Case]] = {}
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
        if len({case.state for case in cases}) != 1:
            raise CheckpointError(
                f"--loss {text!r}: {'no row has' if not cases else 'several rows have different'} state rules"
                + (", add :argument=value to choose one" if cases else "")
            )
        found[prefix and prefix.removesuffix(".") + "."] = (symbols[0], cases[0])
    return found


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items())
    )


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, Mapping) and {"state", "param_groups"} <= set(value)


def _walk(value: Any, place: str = "") -> Iterator[tuple[str, Any, Any, Any]]:
    """Every state_dict, optimizer and module of the tree: place, container, key, value."""
    if isinstance(value, Mapping):
        items: Iterator[tuple[Any, Any]] = iter(value.items())
    elif isinstance(value, list):
        items = iter(enumerate(value))
    else:
        return
    for key, item in items:
        here = f"{place}.{key}" if place else str(key)
        if _is_state_dict(item) or _is_optimizer(item) or isinstance(item, nn.Module):
            yield here, value, key, item
        else:
            yield from _walk(item, here)


def _prefixes(keys: Sequence[str]) -> list[str]:
    """Every dotted prefix of the keys, outermost first, the empty one included."""
    found = {""}
    for key in keys:
        parts = key.split(".")
        found.update(".".join(parts[:depth]) + "." for depth in range(1, len(parts)))
    return sorted(found, key=lambda prefix: (prefix.count("."), prefix))


def _knows(case: Case, keys: Sequence[str], reverse: bool) -> bool:
    """Whether the rules of ``case`` know all ``keys``, and rename at least one."""
    if not keys:
        return False
    fresh = {new for rule in case.state if rule.fresh for new in rule.new}
    copies = {new for rule in case.state for new in rule.new[1:]}
    renames = False
    for key in keys:
        rule = rule_for(case.state, key, reverse=reverse)
        if rule is not None:
            renames |= not (len(rule[0].new) == 1 and rule[0].old == rule[0].new[0])
        elif not (reverse and (key in fresh or key in copies)):
            return False
    return renames


def _outcome(case: Case, keys: Sequence[str], reverse: bool) -> tuple[tuple[str, str, bool, bool], ...]:
    rows = []
    for key in keys:
        rule = rule_for(case.state, key, reverse=reverse)
        if rule is not None:
            targets = (rule[0].old,) if reverse else rule[0].new
            new = " + ".join(target.replace("*", rule[1]) for target in targets)
            rows.append((key, new, rule[0].transpose, rule[0].squeeze))
    return tuple(rows)


def _recognise(
    catalog: Catalog, state: Mapping[str, Any], place: str, given: Assignments, reverse: bool, plan: Plan
) -> dict[str, tuple[Symbol, Case]]:
    """Prefix -> row, for every loss with old keys in ``state``."""
    keys = list(state)
    found: dict[str, tuple[Symbol, Case]] = {}
    for prefix in [*(p for p in given), *_prefixes(keys)]:
        if any(prefix.startswith(taken) for taken in found):
            continue
        below = [key[len(prefix) :] for key in keys if key.startswith(prefix)]
        if prefix in given:
            if below and _knows(given[prefix][1], below, reverse):
                found[prefix] = given[prefix]
            continue
        rows = [(s, c) for s, c in catalog.successors() if c.state and _knows(c, below, reverse)]
        outcomes = {_outcome(case, below, reverse) for _, case in rows}
        if not outcomes:
            continue
        where = f"{place or 'the file'}: prefix {prefix!r}"
        names = ", ".join(dict.fromkeys(symbol.old for symbol, _ in rows))
        if len(outcomes) > 1:
            plan.problems.append(f"{where} could be any of {names}: say which with --loss {prefix.rstrip('.')}=NAME")
        elif prefix and not _LOSS_LIKE.search(prefix.split(".")[-2]):
            plan.problems.append(
                f"{where} has the keys of {names}, but its name is not that of a loss: "
                f"convert it with --loss {prefix.rstrip('.')}=NAME, or leave it with --skip {prefix.rstrip('.')}"
            )
        else:
            found[prefix] = rows[0]
    return found


def _convert_state_dict(state: Mapping[str, Any], rows: Assignments, reverse: bool) -> dict[str, Any]:
    """``state`` with the new keys in the places of the old ones."""
    converted: dict[str, Any] = {}
    done: set[str] = set()
    for key, value in state.items():
        prefix = next((p for p in rows if key.startswith(p)), None)
        if prefix is None:
            converted[key] = value
        elif prefix not in done:
            done.add(prefix)
            below = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
            new = convert_state(rows[prefix][1], below, reverse=reverse)
            # copies share no memory: safetensors refuses that, and a later in-place update would reach both
            converted.update({prefix + k: v.clone() for k, v in new.items()})
    return converted


def _rename(name: str, rows: Assignments, reverse: bool) -> tuple[str, bool]:
    """The new name of a parameter, and whether its layout is transposed."""
    for prefix, (_, case) in rows.items():
        if name.startswith(prefix):
            rule = rule_for(case.state, name[len(prefix) :], reverse=reverse)
            if rule is not None and rule[0].new:
                target = rule[0].old if reverse else rule[0].new[0]
                return prefix + target.replace("*", rule[1]), rule[0].transpose
    return name, False


def _convert_optimizer(optimizer: Mapping[str, Any], rows: Assignments, reverse: bool) -> dict[str, Any]:
    """An optimizer state with the names of its parameters renamed (states by index keep their order)."""
    state = {}
    for key, entry in optimizer["state"].items():
        new, transpose = _rename(key, rows, reverse) if isinstance(key, str) else (key, False)
        if transpose:
            entry = {k: v.mT.contiguous() if isinstance(v, Tensor) and v.dim() >= 2 else v for k, v in entry.items()}
        state[new] = entry
    groups = []
    for group in optimizer["param_groups"]:
        new_group = dict(group)
        for field_name in ("params", "param_names"):
            if field_name in group:
                new_group[field_name] = [
                    _rename(name, rows, reverse)[0] if isinstance(name, str) else name for name in group[field_name]
                ]
        groups.append(new_group)
    return {**optimizer, "state": state, "param_groups": groups}


def migrate_module(module: nn.Module, catalog: Catalog) -> tuple[nn.Module, list[KeyChange], list[str]]:
    """``module`` with every old loss in it replaced by its successor, built from the old one's attributes.

    Returns:
        The module (or the successor, if it is a loss itself), what was replaced, and what could not be.
    """
    twins = {symbol.twin: symbol for symbol in catalog.symbols if symbol.kind == "class"}
    changes: list[KeyChange] = []
    problems: list[str] = []

    def successor(old: nn.Module, place: str) -> nn.Module | None:
        symbol = twins.get(f"{type(old).__module__}.{type(old).__qualname__}")
        if symbol is None:
            return None
        given = {name: getattr(old, name) for name in symbol.signature if hasattr(old, name)}
        missing = [name for name, arg in symbol.signature.items() if name not in given and not arg.variadic]
        unclear = [n for n in missing if symbol.cases[0].arguments[n].drop is None]
        if unclear:
            problems.append(
                f"{place or 'the file'}: {symbol.old} does not keep its argument {', '.join(unclear)}; build "
                "the successor in code and load the converted state_dict"
            )
            return None
        try:
            case, arguments = translate(symbol, (), given)
            assert case.new is not None
            path, _, name = case.new.rpartition(".")
            new: nn.Module = getattr(__import__(path, fromlist=[name]), name)(**arguments)
            new.load_state_dict(convert_state(case, old.state_dict()))
        except (Untranslatable, ValueError, RuntimeError, KeyError) as error:
            problems.append(f"{place or 'the file'}: {symbol.old}: {error}")
            return None
        new.train(old.training)
        changes.append(KeyChange(place, symbol.old, case.new, symbol.old, "module"))
        return new

    replaced = successor(module, "")
    if replaced is not None:
        return replaced, changes, problems
    for name, child in list(module.named_modules()):
        if name and (new := successor(child, name)) is not None:
            parent, _, last = name.rpartition(".")
            setattr(module.get_submodule(parent), last, new)
    return module, changes, problems


def plan(
    data: Any,
    catalog: Catalog,
    *,
    assignments: Assignments | None = None,
    skip: Sequence[str] = (),
    reverse: bool = False,
) -> tuple[Plan, Any]:
    """What the conversion of the loaded ``data`` does, and its result. ``data`` itself is not changed, except modules.

    Args:
        data: what ``torch.load`` returned.
        catalog: the rows.
        assignments: prefix -> row, as ``parse_assignments`` gives it.
        skip: prefixes that are left alone.
        reverse: back to the old keys.
    """
    result = Plan()
    box: dict[str, Any] = {"": data}
    given = dict(assignments or {})
    rows_of_all: dict[str, tuple[Symbol, Case]] = {}
    skipped = tuple(prefix.removesuffix(".") + "." for prefix in skip)

    def convert(value: Any, place: str) -> Any:
        if isinstance(value, nn.Module):
            if reverse:
                result.problems.append(
                    f"{place or 'the file'}: a pickled module cannot be turned back, a state_dict can"
                )
                return value
            module, changes, problems = migrate_module(value, catalog)
            result.changes += changes
            result.problems += problems
            return module
        if _is_state_dict(value):
            visible = {key: item for key, item in value.items() if not key.startswith(skipped or ("\0",))}
            rows = _recognise(catalog, visible, place, given, reverse, result)
            rows_of_all.update(rows)
            for prefix, (symbol, case) in rows.items():
                below = [key[len(prefix) :] for key in visible if key.startswith(prefix)]
                for old, new, transpose, squeeze in _outcome(case, below, reverse):
                    notes = [word for word, on in (("transposed", transpose), ("reshaped", squeeze)) if on]
                    targets = " + ".join(prefix + part for part in new.split(" + ") if part)
                    result.changes.append(KeyChange(place, prefix + old, targets, symbol.old, ", ".join(notes)))
            return _convert_state_dict(value, rows, reverse) if rows else value
        if isinstance(value, Mapping):
            inside = {
                key: item if _is_optimizer(item) else convert(item, f"{place}.{key}" if place else str(key))
                for key, item in value.items()
            }
            return OrderedDict(inside) if isinstance(value, OrderedDict) else inside
        if isinstance(value, list):
            return [item if _is_optimizer(item) else convert(item, f"{place}.{i}") for i, item in enumerate(value)]
        return value

    converted = convert(data, "")
    box[""] = converted
    if rows_of_all:
        for _, container, key, item in list(_walk(box)):
            if _is_optimizer(item):
                container[key] = _convert_optimizer(item, rows_of_all, reverse)
    unused = [prefix for prefix in given if prefix not in rows_of_all]
    already = [p for p in unused if _already(data, p, given[p][1], reverse)]
    result.problems += [
        f"--loss {prefix.rstrip('.')}={given[prefix][0].old}: no state_dict has old keys of it below {prefix!r}"
        for prefix in unused
        if prefix not in already
    ]
    return result, box[""]


def _already(data: Any, prefix: str, case: Case, reverse: bool) -> bool:
    """Whether the keys below ``prefix`` are those that the conversion would give."""
    box = {"": data}
    for _, _, _, item in _walk(box):
        if _is_state_dict(item):
            below = [key[len(prefix) :] for key in item if key.startswith(prefix)]
            if _knows(case, below, not reverse):
                return True
    return False


def _load(path: Path, trust: bool) -> tuple[Any, dict[str, str] | None]:
    """The content of the file, and the metadata of a safetensors file."""
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118  # no mapping
    from .shims import install

    install()  # pickles name the old paths
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.load(path, map_location="cpu", weights_only=not trust), None
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        hint = "" if trust else "; --trust loads pickled objects, which can run code, so use it for your own files only"
        raise CheckpointError(f"{path}: cannot be loaded: {first}{hint}") from error


def default_output(path: Path, reverse: bool = False) -> Path:
    """``model.pt`` -> ``model.migrated.pt`` (``model.old.pt`` in reverse)."""
    return path.with_suffix(f".{'old' if reverse else 'migrated'}{path.suffix}")


def convert_file(
    path: Path,
    catalog: Catalog,
    *,
    output: Path | None = None,
    write: bool = False,
    losses: Sequence[str] = (),
    skip: Sequence[str] = (),
    trust: bool = False,
    reverse: bool = False,
    force: bool = False,
) -> tuple[Plan, Path | None]:
    """Plan the conversion of a file and, with ``write``, write the result to a new file, all of it or nothing.

    Returns:
        The plan, and the file that was written (``None``: nothing to do, problems, or a dry run).

    Raises:
        CheckpointError: the file cannot be read or written, ``losses`` are wrong, or ``output`` exists.
    """
    if not path.is_file():
        raise CheckpointError(f"FILE {str(path)!r} does not exist or is no file")
    data, metadata = _load(path, trust)
    made, converted = plan(data, catalog, assignments=parse_assignments(catalog, losses), skip=skip, reverse=reverse)
    if not write or made.problems or not made.changes:
        return made, None
    target = output or default_output(path, reverse)
    if target.exists() and not force:
        raise CheckpointError(f"{target} exists; choose another --output, or --force")
    if not target.parent.is_dir():
        raise CheckpointError(f"--output {target}: the folder {target.parent} does not exist")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {error}") from error
    try:
        if metadata is not None:
            from safetensors.torch import save_file

            save_file({key: value.contiguous() for key, value in converted.items()}, name, metadata or None)
        else:
            torch.save(converted, name)
        os.chmod(name, path.stat().st_mode & 0o777)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return made, target
