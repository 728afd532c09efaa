"""Presentation patterns, reaction time, delay: by hand, against the recorded newer version, and against the twin."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.golden import Case, load_cases
from tests.support.twins import twin
from training_losses.temporal import (
    PresentationSchedule,
    onset_mask,
    parse_pattern,
    reaction_mask,
    reaction_steps,
    select_valid,
    select_void,
    stretch_pattern,
    void_mask,
)


def bits(mask: torch.Tensor) -> str:
    return "".join("01"[on] for on in mask.tolist())


def shown(pattern: str, n_steps: int) -> str:
    return bits(stretch_pattern(parse_pattern(pattern), n_steps))


def quiet(**arguments: Any) -> PresentationSchedule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return PresentationSchedule(**arguments)


# ------------------------------------------------------------------------------------------------------------ patterns
@pytest.mark.parametrize(
    "pattern", ["1011", [1, 0, 1, 1], (True, False, 1, 1), "1, 0, 1, 1", "10 11", torch.tensor([1, 0, 1, 1])]
)
def test_spellings_of_a_pattern(pattern: Any) -> None:
    assert bits(parse_pattern(pattern)) == "1011"


@pytest.mark.parametrize("pattern", ["", [], "102", [0, 1, 2], 110, None, ["1", "0"], torch.ones(2, 2), "abc"])
def test_what_is_no_pattern(pattern: Any) -> None:
    with pytest.raises(ValueError, match="pattern must be"):
        parse_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "n_steps", "expected"),
    [("1011", 10, "1110011111"), ("110011", 3, "101"), ("10", 7, "1111000"), ("1011", 4, "1011"), ("0", 3, "000")],
)
def test_patterns_are_stretched_not_tiled(pattern: str, n_steps: int, expected: str) -> None:
    assert shown(pattern, n_steps) == expected


@pytest.mark.parametrize(
    ("time", "dt", "steps"),
    [
        (6, 2, 3),
        (5, 2, 3),
        (0.001, 5, 1),
        (4.2, 0.7, 6),
        (0.3, 0.1, 3),
        (0, 2, 0),
        (2.1, 0.7, 3),
        (1e6, 0.1, 10**7),
        (4.3, 0.7, 7),
    ],
)
def test_reaction_time_in_steps(time: float, dt: float, steps: int) -> None:
    assert reaction_steps(time, dt) == steps


@given(st.integers(1, 10**6), st.floats(1e-3, 1e3))
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_whole_multiples_of_a_step_are_exact(steps: int, dt: float) -> None:
    assert reaction_steps(steps * dt, dt) == steps
    assert reaction_steps((steps + 0.01) * dt, dt) == steps + 1


@pytest.mark.parametrize(("time", "dt"), [(-1, 2), (1, 0), (1, -2), (float("nan"), 1), (1, float("inf")), ("1", 1)])
def test_impossible_times(time: Any, dt: Any) -> None:
    with pytest.raises(ValueError, match="must be a number"):
        reaction_steps(time, dt)


@pytest.mark.parametrize(
    ("pattern", "onsets"), [("1", "1"), ("0", "0"), ("1011", "1010"), ("0110", "0100"), ("111", "100"), ("", "")]
)
def test_onsets(pattern: str, onsets: str) -> None:
    assert bits(onset_mask(torch.tensor([c == "1" for c in pattern], dtype=torch.bool))) == onsets


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 8))
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_reaction_windows_follow_every_onset(pattern: list[bool], n_reaction: int) -> None:
    expected = [False] * len(pattern)
    for e, on in enumerate(pattern):
        if on and (e == 0 or not pattern[e - 1]):
            for t in range(e, min(e + n_reaction, len(pattern))):
                expected[t] = True
    assert reaction_mask(torch.tensor(pattern), n_reaction).tolist() == expected


def test_void_steps_are_null_or_reacting() -> None:
    assert bits(void_mask(parse_pattern("1110011111"), reaction_time=3, dt=2.0)) == "1101111000"


# --------------------------------------------------------------------------------- the recorded answers of version head
HEAD = {
    kind: [
        c
        for c in load_cases("dynvision", "temporal_masking")
        if c.data["case"].endswith("_head") and c.symbol == f"scenario_{kind}"
    ]
    for kind in ("pattern", "reaction_mask", "expand_timesteps", "process_batch")
}
# what the new functions refuse: a bare integer, elements other than 0 and 1, labels of three dimensions
REFUSED = {"integer_head", "list_head", "integer_pattern_head", "label_shapes_head", "empty_head", "wrong_type_head"}
# the newer version still had the float error, refused separators, and took tuples for an error
BETTER = {"separator_head", "single_zero_head"}


def recorded(kind: str) -> list[Any]:
    return [pytest.param(c, id=c.data["case"]) for c in HEAD[kind] if c.data["case"] not in REFUSED | BETTER]


def decoded(case: Case) -> tuple[dict[str, Any], Any]:
    return case.decode(case.calls[0]["kwargs"]), case.decode(case.calls[0].get("returns"))


@pytest.mark.parametrize("case", recorded("pattern"))
def test_recorded_patterns(case: Case) -> None:
    given, expected = decoded(case)
    pattern = stretch_pattern(parse_pattern(given["data_presentation_pattern"]), given["n_timesteps"])
    assert torch.equal(pattern, expected["pattern"])


def test_recorded_reaction_masks() -> None:
    corrected = []
    for case in HEAD["reaction_mask"]:
        given, expected = decoded(case)
        if given["loss_reaction_time"] < 0:
            continue  # refused now
        mask = reaction_mask(
            torch.as_tensor(given["pattern"]).bool(), reaction_steps(given["loss_reaction_time"], given["dt"])
        )
        if not torch.equal(mask, expected["mask"]):
            corrected.append((given["loss_reaction_time"], given["dt"]))
    assert corrected == [(4.2, 0.7)]


@pytest.mark.parametrize("case", recorded("expand_timesteps") + recorded("process_batch"))
def test_recorded_batches(case: Case) -> None:
    given, expected = decoded(case)
    inputs = given["inputs"].requires_grad_("grads" in case.calls[0])
    schedule = quiet(
        pattern=given["data_presentation_pattern"],
        n_steps=given["n_timesteps"],
        dt=given.get("dt", 2.0),
        reaction_time=given.get("loss_reaction_time", 0.0),
        ignore_index=given.get("non_label_index", -1),
        null_value=given.get("non_input_value", 0.0),
        shuffle=given.get("shuffle", False),
        output_delay=given.get("n_residual_timesteps", 0),
        generator=torch.Generator().manual_seed(8),
    )
    got = schedule(inputs, given["label_index"])
    assert torch.equal(got.inputs, expected["inputs"])
    assert torch.equal(got.targets, expected["label_index"])
    if "grads" in case.calls[0]:
        (grad,) = torch.autograd.grad(got.inputs.sum(), inputs)
        assert torch.equal(grad, case.decode(case.calls[0]["grads"])["kwargs.inputs"])


# ------------------------------------------------------------------------------------------------------------ schedule
def images(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return 1 + torch.arange(batch * 3.0).view(batch, 3), torch.arange(batch)


def test_a_batch_by_hand() -> None:
    x, y = images()
    got = PresentationSchedule(pattern="1011", n_steps=8, dt=2.0, reaction_time=2.0, null_value=-9.0, output_delay=1)(
        x, y
    )
    assert got.inputs.shape == (2, 9, 3)
    assert bits(got.inputs[1, :, 0] == -9.0) == "001100001"
    assert torch.equal(got.inputs[1, 1], x[1])
    assert bits(got.targets[1] == -1) == "110111000"


def test_length_one_patterns_react() -> None:
    assert bits(PresentationSchedule(n_steps=5, reaction_time=4.0)(*images()).targets[1] == -1) == "11000"


@pytest.mark.parametrize("value", [0.5, float("inf"), torch.tensor([1.0, 2.0, 3.0])])
def test_null_inputs_of_any_value(value: Any) -> None:
    got = PresentationSchedule(pattern="10", n_steps=2, null_value=value)(*images())
    assert torch.equal(got.inputs[1, 1], torch.as_tensor(value).expand(3))
    exact = PresentationSchedule(pattern="10", n_steps=2, null_value=0.1)(images()[0].double(), images()[1])
    assert (exact.inputs[:, 1] == 0.1).all()


def test_the_example_of_the_requirement_loses_every_label_and_says_so() -> None:
    with pytest.warns(UserWarning, match="no label is left: none of the 2 stimulus chunks.*reaction time 6 .3 steps"):
        schedule = PresentationSchedule(pattern="1000111000", n_steps=10, dt=2.0, reaction_time=6.0)
    assert (schedule(*images()).targets == -1).all()
    # what the documentation advises: a shorter reaction time, or longer chunks
    assert bits(quiet(pattern="1000111000", n_steps=10, dt=2.0, reaction_time=2.0).void_steps) == "1111100111"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        longer = PresentationSchedule(pattern="1100111100", n_steps=20, dt=2.0, reaction_time=6.0)
    assert bits(longer.void_steps) == "11101111" + "11100000" + "1111"


def test_a_chunk_shorter_than_the_reaction_window_warns() -> None:
    with pytest.warns(UserWarning, match="1 of 2 stimulus chunks of '1011' .the shortest lasts 2. are not longer"):
        PresentationSchedule(pattern="1011", n_steps=4, dt=2.0, reaction_time=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PresentationSchedule(pattern="11011", n_steps=5, dt=2.0, reaction_time=2.0)
    with pytest.warns(UserWarning, match="no label is left"):
        PresentationSchedule(pattern="0", n_steps=5)


def test_shuffling_needs_a_generator_and_stops_in_evaluation() -> None:
    with pytest.raises(ValueError, match="shuffle=True needs a generator"):
        PresentationSchedule(pattern="10", n_steps=2, shuffle=True)
    schedule = PresentationSchedule(
        pattern="110100", n_steps=12, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    before = torch.random.get_rng_state()
    patterns = {bits(schedule(*images()).targets[1] != -1) for _ in range(8)}
    assert len(patterns) > 2
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(p.count("1") == 6 for p in patterns)
    schedule.eval()
    assert {bits(schedule(*images()).targets[1] != -1) for _ in range(3)} == {"111100110000"}


def test_sequences_are_kept_or_masked() -> None:
    x, y = torch.ones(2, 4, 3), torch.ones(2, 4, dtype=torch.long)
    kept = PresentationSchedule(pattern="10", n_steps=4)(x, y)
    assert torch.equal(kept.inputs, x)
    assert torch.equal(kept.targets, y)
    masked = PresentationSchedule(pattern="10", n_steps=4, sequences="mask")(x, y)
    assert bits(masked.targets[0] == -1) == "0011"
    with pytest.raises(ValueError, match="n_steps=3 steps, found 4"):
        PresentationSchedule(pattern="10", n_steps=3, sequences="mask")(x, y)


def test_images_may_have_a_time_axis_of_length_one() -> None:
    schedule = PresentationSchedule(pattern="10", n_steps=4)
    x, y = images()
    assert torch.equal(schedule(x[:, None], y[:, None]).inputs, schedule(x, y).inputs)


def test_nothing_to_mask_copies_nothing() -> None:
    x, y = images()
    got = PresentationSchedule(n_steps=4)(x, y)
    assert got.inputs.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_it_compiles_and_holds_no_state() -> None:
    schedule = PresentationSchedule(pattern="1011", n_steps=8, reaction_time=1.0, output_delay=1)
    assert schedule.state_dict() == {}
    compiled = torch.compile(schedule, backend="eager", fullgraph=True)
    for a, b in zip(compiled(*images()), schedule(*images()), strict=True):
        assert torch.equal(a, b)


def test_no_value_is_looked_at() -> None:
    """On the meta device every look at a value raises."""
    schedule = PresentationSchedule(pattern="1011", n_steps=8, reaction_time=1.0, output_delay=1).to("meta")
    got = schedule(torch.empty(2, 3, device="meta"), torch.empty(2, dtype=torch.long, device="meta"))
    assert got.inputs.shape == (2, 9, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_steps": 0},
        {"n_steps": 2.5},
        {"dt": 0},
        {"reaction_time": -1},
        {"output_delay": -1},
        {"sequences": "all"},
        {"ignore_index": 0.5},
    ],
)
def test_bad_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        PresentationSchedule(**arguments)


def test_bad_shapes() -> None:
    schedule = PresentationSchedule(n_steps=4)
    for x, y in [
        (torch.ones(2, 3), torch.ones(3)),
        (torch.ones(2, 3), torch.ones(2, 3, 1)),
        (torch.ones(2, 4, 3), torch.ones(2, 5)),
    ]:
        with pytest.raises(ValueError, match=r"inputs must be \[B, ...\]"):
            schedule(x, y)


# ---------------------------------------------------------------------- where the twin differs
def old_model(**attributes: Any) -> Any:
    return twin("dynvision.temporal_masking.TemporalBase")(**attributes)


def test_what_changes_for_a_model_of_the_documented_version() -> None:
    x, y = torch.ones(2, 1, 2, 2), torch.ones(2, dtype=torch.long)
    old = old_model(n_timesteps=6, data_presentation_pattern="1", loss_reaction_time=4.0)._process_batch((x, y))
    new = PresentationSchedule(n_steps=6, reaction_time=4.0)(x, y)
    assert bits(old[1][0] == -1) == "000000"
    assert bits(new.targets[0] == -1) == "110000"
    old = old_model(n_timesteps=4, data_presentation_pattern="10", non_input_value=0.5)._process_batch((x, y))
    assert (old[0][:, 2:] == 0).all()
    assert (PresentationSchedule(pattern="10", n_steps=4, null_value=0.5)(x, y).inputs[:, 2:] == 0.5).all()
    model = old_model(n_timesteps=4, data_presentation_pattern="10")
    model.n_residual_timesteps.fill_(1)
    assert bits(model._process_batch((x, y))[1][0] == -1) == "00111"
    assert bits(PresentationSchedule(pattern="10", n_steps=4, output_delay=1)(x, y).targets[0] == -1) == "10011"


def test_selecting_rows_by_their_label() -> None:
    rows, labels = torch.randn(5, 2), torch.tensor([3, -1, 0, -1, 2])
    valid, void = select_valid(rows, labels), select_void(rows, labels)
    assert torch.equal(valid.outputs, rows[[0, 2, 4]])
    assert valid[1].tolist() == [3, 0, 2]
    assert torch.equal(void[0], rows[[1, 3]])
    old = twin("dynvision.masking.mask_non_labels")
    for selector, new in (("!=", select_valid), ("==", select_void)):
        for a, b in zip(old(rows, labels, 3, selector), new(rows, labels, 3), strict=True):
            assert torch.equal(a, b)
    with pytest.raises(ValueError, match="targets"):
        select_valid(rows, labels[:, None].expand(-1, 2))
    assert select_valid(rows, labels * 0 - 1)[0].shape == (0, 2)
