"""Schedules as functions of the position, and the losses that follow them."""

from __future__ import annotations

import io

import pytest
import torch

from training_losses.base.schedules import (
    CosineRamp,
    Curriculum,
    LinearRamp,
    PiecewiseConstant,
    PiecewiseLinear,
    Schedule,
    make_schedule,
)
from training_losses.predictive import HJEPACombinedLoss, HJEPALoss, SIGRegLoss

CASES = [
    (PiecewiseConstant(boundaries=[2, 5], values=[1.0, 0.5, 0.1]), {0: 1.0, 1.9: 1.0, 2: 0.5, 4: 0.5, 5: 0.1, 99: 0.1}),
    (PiecewiseLinear(positions=[1, 3, 4], values=[0.0, 1.0, 0.5]), {0: 0.0, 1: 0.0, 2: 0.5, 3: 1.0, 3.5: 0.75, 9: 0.5}),
    (LinearRamp(start=1.0, end=3.0, length=4, begin=2), {0: 1.0, 2: 1.0, 3: 1.5, 6: 3.0, 9: 3.0}),
    (CosineRamp(start=0.0, end=2.0, length=4), {-1: 0.0, 0: 0.0, 1: 1 - 0.5**0.5, 2: 1.0, 4: 2.0, 9: 2.0}),
    (LinearRamp(start=0.0, end=2.0, length=0, begin=1), {0: 0.0, 1: 2.0}),
    (
        Curriculum(weights=[1.0, 0.5], starts=[0, 4], length=2),
        {0: (0.0, 0.0), 1: (0.5, 0.0), 5: (1.0, 0.25), 6: (1.0, 0.5)},
    ),
    (Curriculum(weights=[1.0, 0.5], starts=[0, 4]), {0: (1.0, 0.0), 3.9: (1.0, 0.0), 4: (1.0, 0.5)}),
]


@pytest.mark.parametrize(("schedule", "values"), CASES, ids=[type(s).__name__ for s, _ in CASES])
def test_values(schedule: Schedule, values: dict[float, float]) -> None:
    for position, value in values.items():
        assert schedule(position) == pytest.approx(value)
    again = make_schedule(schedule.config())
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert repr(again) == repr(schedule)


BAD = [
    ({"type": "piecewise_constant", "boundaries": [2, 2], "values": [1, 2, 3]}, "increase strictly"),
    ({"type": "piecewise_constant", "boundaries": [2], "values": [1]}, "one entry more"),
    ({"type": "piecewise_linear", "positions": [], "values": []}, "same length of at least 1"),
    ({"type": "piecewise_linear", "positions": [2, 1], "values": [0, 1]}, "increase strictly"),
    ({"type": "linear_ramp", "start": 0, "end": 1, "length": -1}, "length must be at least 0"),
    ({"type": "curriculum", "weights": [1.0], "starts": [0, 1]}, "same length"),
    ({"type": "curriculum", "weights": [1.0], "starts": [0], "length": -2}, "length must be at least 0"),
    ({"type": "linear_ramp", "stop": 1}, "linear_ramp"),
    ({"type": "ramp"}, "schedule type must be one of"),
]


@pytest.mark.parametrize(("config", "message"), BAD)
def test_bad_schedules(config: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_schedule(config)


def levels() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    made = [torch.randn(4, 2, 3, generator=g) for _ in range(4)]
    return made[:2], made[2:]


def test_a_curriculum_switches_levels_on() -> None:
    loss = HJEPALoss(schedules={"hierarchy_weights": Curriculum(weights=[1.0, 0.5], starts=[0, 3])})
    p, t = levels()
    seen = []
    for step in (0, 3):
        loss.step_schedule(step)
        out = loss(p, t)
        seen.append(out.loss.item())
        expected = out["loss_h0"] + (0.5 * out["loss_h1"] if step == 3 else 0)
        torch.testing.assert_close(out.loss, expected)
    assert seen[0] < seen[1]


def test_the_position_is_saved_and_the_values_follow() -> None:
    def build() -> HJEPACombinedLoss:
        ramp = LinearRamp(start=0.0, end=1.0, length=10)
        return HJEPACombinedLoss(
            jepa_loss=HJEPALoss(schedules={"hierarchy_weights": Curriculum(weights=[1.0, 1.0], starts=[0, 5])}),
            schedules={"regularizer_weight": ramp},
        )

    loss = build()
    loss.step_schedule(4)
    loss.step_schedule()
    assert loss.regularizer_weight == 0.5
    assert loss.jepa_loss.hierarchy_weights.tolist() == [1.0, 1.0], "the parts are driven, too"
    buffer = io.BytesIO()
    torch.save(loss.state_dict(), buffer)
    buffer.seek(0)
    fresh = build()
    assert fresh.regularizer_weight == 0.0
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    assert fresh.regularizer_weight == 0.5
    p, t = levels()
    assert fresh(p, t).loss == loss(p, t).loss


def test_a_compiled_loss_sees_the_change() -> None:
    loss = SIGRegLoss(
        num_slices=4, fixed_slices=True, schedules={"sigreg_weight": LinearRamp(start=1, end=3, length=2)}
    )
    call = torch.compile(loss, backend="eager", fullgraph=True)
    x = levels()[0][0]
    first = call(x).loss
    loss.step_schedule(2)
    torch.testing.assert_close(call(x).loss, 3 * first)


def test_errors() -> None:
    with pytest.raises(ValueError, match="no schedule is attached"):
        HJEPALoss().step_schedule(1)
    with pytest.raises(ValueError, match=r"'huber_delta' cannot be scheduled \(possible: \['hierarchy_weights'\]\)"):
        HJEPALoss(schedules={"huber_delta": LinearRamp(start=0, end=1, length=1)})
