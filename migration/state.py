"""State_dict keys of old classes -> new ones, by the rules of the catalog. Works on any values with ``mT`` and
``reshape``; torch is not imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

from .catalog import Case, StateRule

__all__ = ["UnknownKeys", "convert_state", "rule_for", "upgrade_in_place"]


class UnknownKeys(KeyError):
    """Keys that no rule knows."""

    def __init__(self, keys: Iterable[str]) -> None:
        super().__init__(*keys)
        self.keys = list(keys)

    def __str__(self) -> str:
        return f"no rule for the state_dict keys {', '.join(map(repr, self.keys))}"


def rule_for(rules: Iterable[StateRule], key: str, *, reverse: bool = False) -> tuple[StateRule, str] | None:
    """The first rule for ``key`` (an old one, or a new one with ``reverse``), and what its ``*`` stands for."""
    for rule in rules:
        rest = rule.match_new(key) if reverse else rule.match(key)
        if rest is not None and rule.old:
            return rule, rest
    return None


def _value(rule: StateRule, value: Any, reverse: bool, views: bool) -> Any:
    if rule.transpose:
        value = value.mT if views else value.mT.contiguous()
    if rule.squeeze:
        value = value.reshape((1,) if reverse else ())
    return value


def convert_state(
    case: Case, state: Mapping[str, Any], *, reverse: bool = False, views: bool = False
) -> dict[str, Any]:
    """``state`` of the old class with the keys (and layouts) of the new one, or back with ``reverse``.

    With ``views`` a transposed value is a view of the old one.

    Raises:
        UnknownKeys: a key has no rule. Nothing is dropped without one.
    """
    converted: dict[str, Any] = {}
    unknown = []
    for key, value in state.items():
        found = rule_for(case.state, key, reverse=reverse)
        if found is not None:
            rule, rest = found
            targets = (rule.old,) if reverse else rule.new
            made = _value(rule, value, reverse, views)
            for target in targets:
                # copies share no memory, not even with the source: an update in place would reach all of them
                converted[target.replace("*", rest)] = made.clone() if len(targets) > 1 else made
        elif not (reverse and any(key in (rule.new[1:] if rule.old else rule.new) for rule in case.state)):
            # with reverse, the old state lacks keys that had no counterpart, and copies of a one-to-many rule were read
            # from the first
            unknown.append(key)
    if unknown:
        raise UnknownKeys(unknown)
    for rule in case.state:
        if rule.rows in converted:
            converted.update(dict.fromkeys(rule.new, _number(converted[rule.rows].shape[0])))
    return converted


def _number(value: int) -> Any:
    import torch  # there are tensors, so it is loaded

    return torch.tensor(value)


def upgrade_in_place(
    cases: Iterable[Case], own: Mapping[str, Any], state: MutableMapping[str, Any], prefix: str = ""
) -> Case | None:
    """Rename the old keys below ``prefix`` in ``state``; returns the row that did, or ``None``.

    Of several rows the one that knows most of the keys is taken. Keys that are the new object's own, or that no rule
    knows, stay as they are, so that a strict load complains about the latter.
    """
    present = {key[len(prefix) :] for key in state if key.startswith(prefix)}
    old = present - set(own)
    best: Case | None = None
    best_known: list[str] = []
    for case in cases:
        known = [key for key in old if rule_for(case.state, key) is not None]
        missing = {key for key in own if key not in present}
        fresh = {new for rule in case.state if rule.fresh for new in rule.new}
        if len(known) > len(best_known) or (best is None and missing and missing <= fresh):
            best, best_known = case, known
    if best is None:
        return None
    part = {key: state.pop(prefix + key) for key in best_known}
    state.update({prefix + key: value for key, value in convert_state(best, part).items()})
    for rule in best.state:
        if rule.fresh:
            state.update({prefix + new: own[new] for new in rule.new if new in own and prefix + new not in state})
    return best
