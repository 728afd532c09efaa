"""Old calls and old states in new terms."""

from __future__ import annotations

import pytest
import torch

from training_losses.migration.catalog import Argument, Case, StateRule, Symbol, Unconvertible
from training_losses.migration.state import UnknownKeys, convert_state, upgrade_in_place
from training_losses.migration.translate import Untranslatable, bind, translate, translate_forward

ARGUMENTS = {
    "a": Argument("a"),
    "b": Argument("b", 2.0, rename="beta", scale=0.5, pin=1.0),
    "gone": Argument("gone", False, drop="no effect"),
    "store": Argument("store", None, report="there is no store"),
    "mode": Argument("mode", "x", map=(("x", "mean"), ("y", "sum"))),
    "only": Argument("only", 1, keyword_only=True),
    "rest": Argument("rest", variadic="**"),
}
CASE = Case("n.New", "exact", arguments=ARGUMENTS, forward={"v": Argument("v", rename="z")})
SYMBOL = Symbol("s", "m.Old", "class", "legacy.m.Old", (), (), (CASE,), "1", "2")


def test_translates() -> None:
    assert translate(SYMBOL, (1,)) == (CASE, {"a": 1, "beta": 1.0})
    assert translate(SYMBOL, (1, 4.0, True), {"mode": "y"})[1] == {"a": 1, "beta": 2.0, "mode": "sum"}
    assert translate(SYMBOL, (1,), {"store": None})[1] == {"a": 1, "beta": 1.0}
    assert translate_forward(CASE, (5,), {}) == {"z": 5}


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((1, 2, 3, 4, 5, 6), {}, "6 positional arguments for 5"),
        ((1,), {"a": 2}, "'a' is given twice"),
        ((1,), {"z": 2}, "has no argument 'z'"),
        ((1,), {"rest": 2}, "has no argument 'rest'"),
        ((1,), {"store": 3}, "store=3: there is no store"),
    ],
)
def test_says_what_it_cannot_translate(args: tuple[object, ...], kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(Untranslatable, match=message):
        translate(SYMBOL, args, kwargs)


def test_values_without_counterpart() -> None:
    with pytest.raises(Unconvertible, match="mode='z'"):
        translate(SYMBOL, (1,), {"mode": "z"})


def test_no_successor() -> None:
    symbol = Symbol("s", "m.Old", "class", "l", (), (), (Case(None, "fixed", reason="broken"),), "1", "2")
    with pytest.raises(Untranslatable, match="no successor: broken"):
        translate(symbol)


def test_bind_keeps_the_order_of_the_signature() -> None:
    assert list(bind(ARGUMENTS, (), {"mode": "x", "a": 1})) == ["a", "mode"]


STATE = Case(
    "n.New",
    "exact",
    state=(
        StateRule("head.*", ("new_head.layers.*",)),
        StateRule("bank", ("queue.features",), transpose=True),
        StateRule("ptr", ("queue.ptr", "other.ptr"), squeeze=True),
        StateRule("junk", (), drop="not needed"),
        StateRule("", ("queue.ids",), fresh="had none"),
    ),
)


def old_state() -> dict[str, torch.Tensor]:
    return {
        "head.0.weight": torch.arange(4.0).reshape(2, 2),
        "bank": torch.arange(6.0).reshape(2, 3),
        "ptr": torch.tensor([5]),
        "junk": torch.zeros(1),
    }


def test_states_there_and_back() -> None:
    new = convert_state(STATE, old_state())
    assert list(new) == ["new_head.layers.0.weight", "queue.features", "queue.ptr", "other.ptr"]
    assert new["queue.features"].shape == (3, 2)
    assert new["other.ptr"].shape == ()
    back = convert_state(STATE, new, reverse=True)
    assert set(back) == set(old_state()) - {"junk"}
    for key, value in back.items():
        assert torch.equal(value, old_state()[key])


def test_a_key_may_be_the_number_of_rows_of_another() -> None:
    case = Case("n.New", "exact", state=(*STATE.state, StateRule("", ("queue.filled",), rows="queue.features")))
    new = convert_state(case, old_state())
    assert new["queue.filled"].dtype == torch.int64
    assert new["queue.filled"].shape == ()
    assert int(new["queue.filled"]) == 3
    assert "queue.filled" not in convert_state(case, {"ptr": torch.tensor([5])})
    assert set(convert_state(case, new, reverse=True)) == set(old_state()) - {"junk"}


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(UnknownKeys, match="'nope'"):
        convert_state(STATE, {"nope": torch.zeros(1)})
    with pytest.raises(UnknownKeys, match="'junk2'"):
        convert_state(STATE, {"junk2": torch.zeros(1)}, reverse=True)


def test_in_place_under_a_prefix_and_idempotent() -> None:
    own = {**convert_state(STATE, old_state()), "queue.ids": torch.tensor([7])}
    state = {f"model.loss.{key}": value for key, value in old_state().items()} | {"model.other": torch.ones(1)}
    del state["model.loss.junk"]
    assert upgrade_in_place([STATE], own, state, "model.loss.") is STATE
    assert set(state) == {f"model.loss.{key}" for key in own} | {"model.other"}
    again = dict(state)
    assert upgrade_in_place([STATE], own, again, "model.loss.") is None
    assert again == state


def test_unknown_keys_stay_for_the_strict_load() -> None:
    own = {**convert_state(STATE, old_state()), "queue.ids": torch.tensor([7])}
    state = {**old_state(), "nope": torch.zeros(1)}
    upgrade_in_place([STATE], own, state)
    assert "nope" in state
    assert "queue.features" in state
