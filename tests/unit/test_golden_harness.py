"""The golden replay fails when an implementation differs: one perturbation for each thing that it compares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.golden import Case, Comparison, GoldenMismatch, leaves, load_cases, replay
from tests.support.twins import golden_module, golden_name, twin, twin_module


def find(module: str, name: str, system: str = "multimodal_insight") -> Case:
    return next(case for case in load_cases(system, module) if case.data["case"] == name)


def replay_with(case: Case, **changed: Any) -> None:
    """Replay with some names of the case's own module replaced."""

    def resolve(system: str, module: str) -> Any:
        original = golden_module(system, module)
        return SimpleNamespace(**{**vars(original), **changed}) if module == case.module else original

    replay(case, resolve)


def subclass(path: str, change: Callable[[Any, tuple[Any, ...]], Any]) -> type[nn.Module]:
    """A twin whose answers pass through ``change(answer, args)``."""
    base = twin(path)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return change(base.forward(self, *args, **kwargs), args)

    return type(base.__name__, (base,), {"forward": forward})


def case_with_gradient(module: str, dtype: str | None = "float64") -> Case:
    cases = (case for case in load_cases("multimodal_insight", module) if case.data["dtype"] == dtype)
    return next(case for case in cases if case.calls and case.calls[0].get("grads"))


def reverse_keys(answer: dict[str, Any], args: Any) -> dict[str, Any]:
    return dict(reversed(answer.items()))


def other_key(answer: dict[str, Any], args: Any) -> dict[str, Any]:
    return {("total" if key == "loss" else key): value for key, value in answer.items()}


CHANGES: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "value": (lambda answer, args: {**answer, "loss": answer["loss"] * (1 + 1e-8)}, "answer.loss: value deviates"),
    "python value": (lambda answer, args: {**answer, "sim_weight": 1e9}, "answer.sim_weight: value deviates"),
    "gradient": (
        # same value, other gradient
        lambda answer, args: {**answer, "loss": answer["loss"] + (args[0] - args[0].detach()).sum()},
        "gradient.args.0: grad deviates",
    ),
    "no graph": (lambda answer, args: {**answer, "loss": answer["loss"].detach()}, "the answer has no graph"),
    "dtype": (lambda answer, args: {**answer, "loss": answer["loss"].float()}, "answer.loss: dtype torch.float32"),
    "shape": (lambda answer, args: {**answer, "loss": answer["loss"].reshape(1)}, "answer.loss: shape"),
    "key order": (reverse_keys, "keys: order"),
    "key name": (other_key, "keys: missing ['loss'], unexpected ['total']"),
    "tensor in place of float": (
        lambda answer, args: {**answer, "invariance_loss": torch.tensor(answer["invariance_loss"])},
        "answer.invariance_loss: got Tensor",
    ),
    "int in place of float": (lambda answer, args: {**answer, "warmup_factor": 1}, "answer.warmup_factor: got int"),
    "kind": (lambda answer, args: (answer["loss"], answer), "got tuple"),
}


def test_the_unchanged_twin_passes() -> None:
    replay_with(case_with_gradient("vicreg_loss"))
    replay_with(case_with_gradient("memory_queue_contrastive_loss", None))


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_answer_is_noticed(name: str) -> None:
    change, message = CHANGES[name]
    case = case_with_gradient("vicreg_loss")
    with pytest.raises(GoldenMismatch) as error:
        replay_with(case, VICRegLoss=subclass("vicreg_loss.VICRegLoss", change))
    assert message in str(error.value)


def test_a_changed_state_is_noticed() -> None:
    def lose_an_entry(self: nn.Module, vision: torch.Tensor, text: torch.Tensor) -> None:
        twin("memory_queue_contrastive_loss.MemoryQueueContrastiveLoss")._update_queue(self, vision, text)
        self.vision_queue[0, 0] += 1e-3

    base = twin("memory_queue_contrastive_loss.MemoryQueueContrastiveLoss")
    changed = type(base.__name__, (base,), {"_update_queue": lose_an_entry})
    with pytest.raises(GoldenMismatch, match=r"state\.vision_queue: state deviates"):
        replay_with(case_with_gradient("memory_queue_contrastive_loss", None), MemoryQueueContrastiveLoss=changed)


def test_an_additional_buffer_is_noticed_before_the_first_call() -> None:
    base = twin("vicreg_loss.VICRegLoss")

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        base.__init__(self, *args, **kwargs)
        self.register_buffer("steps", torch.zeros(()))

    with pytest.raises(GoldenMismatch, match=r"state_before: keys: missing \[\], unexpected \['steps'\]"):
        replay_with(case_with_gradient("vicreg_loss"), VICRegLoss=type("VICRegLoss", (base,), {"__init__": __init__}))


def test_the_order_of_random_draws_is_noticed() -> None:
    """Text targets drawn before image targets: every single draw is as probable, the numbers differ."""
    base = twin("clip_style_loss.CLIPStyleLoss")

    def swapped(self: Any, match_ids: Any, batch_size: int, device: Any) -> Any:
        t2v, v2t = base._draw_targets(self, match_ids, batch_size, device)
        return v2t, t2v

    changed = type("CLIPStyleLoss", (base,), {"_draw_targets": swapped})
    failed = 0
    for case in load_cases("multimodal_insight", "clip_style_loss"):
        if case.symbol == "CLIPStyleLoss":
            try:
                replay_with(case, CLIPStyleLoss=changed)
            except GoldenMismatch:
                failed += 1
    assert failed > 0


def test_the_initial_weights_are_noticed() -> None:
    """A head built in another order draws other numbers."""
    base = twin("barlow_twins_loss.BarlowTwinsLoss")

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        torch.rand(1)
        base.__init__(self, *args, **kwargs)

    case = next(c for c in load_cases("multimodal_insight", "barlow_twins_loss") if c.data.get("parameters"))
    with pytest.raises(GoldenMismatch, match="state_before"):
        replay_with(case, BarlowTwinsLoss=type("BarlowTwinsLoss", (base,), {"__init__": __init__}))


def test_exceptions_are_compared_by_name_and_may_not_be_missing() -> None:
    case = find("clip_style_loss", "bad_reduction_f64")
    with pytest.raises(GoldenMismatch, match="recorded ValueError"):
        replay_with(case, CLIPStyleLoss=Silent)
    with pytest.raises(GoldenMismatch, match="raised TypeError"):
        replay_with(case, CLIPStyleLoss=Wrong)


class Silent(nn.Module):
    def __init__(self, **_: Any) -> None:
        super().__init__()

    def forward(self, *_: Any) -> float:
        return 0.0


class Wrong(Silent):
    def forward(self, *_: Any) -> float:
        raise TypeError("another kind of error")


def test_a_construction_that_should_fail_is_noticed() -> None:
    case = next(c for c in load_cases("multimodal_insight", "barlow_twins_loss") if "init_raises" in c.data)
    with pytest.raises(GoldenMismatch, match="construction: answered"):
        replay_with(case, BarlowTwinsLoss=Silent)


def test_a_missing_input_gradient_may_be_zero_but_a_parameter_gradient_may_not() -> None:
    case = case_with_gradient("vicreg_loss")
    comparison = Comparison(case)
    comparison.gradients("g", {"args.0": None}, {"args.0": torch.zeros(2)})
    assert comparison.found == []
    comparison.gradients("g", {"args.0": None}, {"args.0": torch.ones(2)})
    comparison.gradients("g", {"param.w": None}, {"param.w": torch.zeros(2)})
    assert len(comparison.problems) == 2


@pytest.mark.parametrize(
    ("recorded", "got", "fits"),
    [
        ({"$float": "nan"}, float("nan"), True),
        ({"$float": "inf"}, float("-inf"), False),
        ({"$float": "nan"}, 0.0, False),
        (1.0, float("nan"), False),
        (1.0, 1.0 + 1e-12, True),
        (1.0, 1.0 + 1e-9, False),
        (1, 1.0, False),
        (True, 1, False),
        ({"$tuple": [1]}, [1], False),
        ([1], (1,), False),
        ([1], [1, 2], False),
        ({"$torch": "float32"}, torch.float32, True),
        ({"$torch": "float32"}, torch.float64, False),
        ({"$object": "Linear"}, nn.Identity(), False),
        (None, None, True),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, False),
    ],
)
def test_plain_answers(recorded: Any, got: Any, fits: bool) -> None:
    comparison = Comparison(find("clip_style_loss", "bad_reduction_f64"))
    comparison.compare("answer", recorded, got)
    assert (comparison.found == []) is fits


def test_infinite_entries_of_tensors_must_stand_at_the_same_places() -> None:
    case = find("clip_style_loss", "bad_reduction_f64")
    comparison = Comparison(case)
    node = case.calls[0]["args"][0]
    wrong = case.decode(node)
    wrong[0, 0] = torch.inf
    comparison.compare("answer", node, wrong)
    assert "infinity at other places" in comparison.problems[0]


def test_tolerance_overrides_reach_only_their_part() -> None:
    case = next(c for c in load_cases("multimodal_insight", "ema_moco_loss") if "tolerance" in c.data)
    comparison = Comparison(case)
    # a share of rows is held to the rows that are tied, whatever the recorded tolerance says
    assert comparison.limit("value", "accuracy") < 1e-6
    comparison.ties = 1 / 6
    assert 1 / 6 < comparison.limit("value", "accuracy") < 1 / 6 + 1e-6
    assert comparison.limit("value", "loss") < 1e-4
    assert comparison.limit("value", "loss", torch.float32) == 2e-5


def test_replay_leaves_the_process_as_it_was() -> None:
    case = next(
        c for c in load_cases("alignment", "ot_pytorch") if c.data.get("default_dtype") and "harness" not in c.data
    )
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    replay(case)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32
    assert torch.float is torch.float32


def test_the_default_dtype_of_a_case_holds_while_it_runs() -> None:
    case = next(
        c for c in load_cases("alignment", "ot_pytorch") if c.data.get("default_dtype") and "harness" not in c.data
    )
    seen: list[torch.dtype] = []
    original = getattr(golden_module("alignment", "ot_pytorch"), case.symbol)

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.extend((torch.get_default_dtype(), torch.float))
        return original(*args, **kwargs)

    replay_with(case, **{case.symbol: spy})
    assert set(seen) == {torch.float64}


def test_leaves_follow_lists_tuples_and_dicts() -> None:
    def names(value: Any) -> Iterator[str]:
        return (name for name, _ in leaves(value, "args"))

    x = torch.zeros(1)
    assert list(names([x, {"a": (x, torch.zeros(1, dtype=torch.long))}])) == ["args.0", "args.1.a.0"]


def test_golden_names_of_twins() -> None:
    assert golden_name("training_losses.legacy") == "__init__"
    assert golden_name("training_losses.legacy.hjepa") == "package"
    assert golden_name("training_losses.legacy.hjepa.vicreg") == "vicreg"
    assert golden_name("training_losses.legacy.vicreg_loss") == "vicreg_loss"
    assert golden_name("torch.nn") == "torch.nn"
    assert twin_module("vicreg_loss") is golden_module("multimodal_insight", "vicreg_loss")
