"""Calls in random layouts: whatever goes and comes, the result parses and has the arguments that it should have."""

from __future__ import annotations

import ast

import libcst as cst
from hypothesis import given, settings
from hypothesis import strategies as st

from training_losses.migration.catalog import builtin_catalog
from training_losses.migration.codemod.edits.kinds.calls import Row, changed
from training_losses.migration.codemod.project import rewrite_text
from training_losses.migration.codemod.rules import Rules
from training_losses.migration.translate import translate

CATALOG = builtin_catalog()
CLIP = CATALOG.by_path["src.training.losses.clip_style_loss.CLIPStyleLoss"]
VALUES = {
    "temperature": 0.5,
    "use_hard_negatives": True,
    "hard_negative_weight": 0.5,
    "reduction": "sum",
    "label_smoothing": 0.1,
    "cache_labels": False,
}
OPENINGS = ["", "\n    ", "  # opened\n    "]
SEPARATORS = [", ", ",", ",\n    ", ",  # said\n    ", " ,\n    ", ",\n    # own line\n    ", ", \\\n    "]
CLOSINGS = ["", ",", "\n", ",\n", ", ", ",  # last\n", " # last\n"]


@st.composite
def layouts(draw: st.DrawFn, most: int) -> tuple[str, list[str], str]:
    """What stands behind the opening bracket, between the items and before the closing one."""
    between = draw(st.lists(st.sampled_from(SEPARATORS), min_size=most - 1, max_size=most - 1))
    return draw(st.sampled_from(OPENINGS)), between, draw(st.sampled_from(CLOSINGS))


def _joined(items: list[str], layout: tuple[str, list[str], str]) -> str:
    opening, between, closing = layout
    body = "".join(item + (between[n] if n + 1 < len(items) else "") for n, item in enumerate(items))
    return opening + body + closing


@settings(max_examples=200, deadline=None, derandomize=True)
@given(layouts(5), st.integers(1, 5), st.sets(st.integers(0, 4)))
def test_items_are_removed_from_any_layout(layout: tuple[str, list[str], str], count: int, doomed: set[int]) -> None:
    items = [f"a{n}={n}" for n in range(count)]
    call = cst.ensure_type(cst.parse_expression(f"f({_joined(items, layout)})"), cst.Call)
    gone = {n for n in doomed if n < count}
    new = changed(Row.of(call), gone, []).put(call)
    text = f"x = {cst.Module([]).code_for_node(new)}\n"
    assert _keywords(text) == {f"a{n}": n for n in range(count) if n not in gone}
    assert Row.of(call).put(call).deep_equals(call)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(layouts(len(VALUES)), st.permutations(sorted(VALUES)), st.integers(0, len(VALUES)), st.booleans())
def test_calls_are_rewritten_in_any_layout(
    layout: tuple[str, list[str], str], names: list[str], count: int, newline: bool
) -> None:
    given = {name: VALUES[name] for name in names[:count]}
    body = _joined([f"{name}={value!r}" for name, value in given.items()], layout) if count else ""
    text = f"from {CLIP.all_paths[0].rpartition('.')[0]} import CLIPStyleLoss\nx = CLIPStyleLoss({body})\n"
    text = text.replace("\n", "\r\n") if newline else text
    new, outcome = rewrite_text(text, Rules(CATALOG), "a.py")
    assert not [f for f in outcome.findings if f.level in ("left", "error")], (text, outcome.findings)
    assert _keywords(new) == translate(CLIP, (), given)[1], new
    assert rewrite_text(new, Rules(CATALOG), "a.py")[0] == new


def _keywords(text: str) -> dict[str, object]:
    call = ast.parse(text).body[-1].value  # type: ignore[attr-defined]  # an assignment
    assert not call.args
    return {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
