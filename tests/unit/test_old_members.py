"""Attributes that only the old classes had: the new losses answer them, or say what to do."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import deprecation
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from training_losses import create_loss
from training_losses.balancing import WeightedSumLoss
from training_losses.base import BaseLoss, compat
from training_losses.contrastive import (
    BarlowTwinsLoss,
    CLIPLoss,
    DecorrelationLoss,
    MemoryQueueLoss,
    SimCLRLoss,
    VICRegLoss,
)
from training_losses.predictive import ContrastiveJEPALoss, SIGRegLoss


@pytest.fixture
def quiet() -> Iterator[None]:
    """The warnings are looked at elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", deprecation.DeprecatedWarning)
        yield


class TestWarning:
    def test_reading_and_writing_warn_at_the_line(self) -> None:
        loss = VICRegLoss()
        with pytest.warns(
            deprecation.DeprecatedWarning, match="attribute 'sim_coeff' .* Use 'invariance_weight'"
        ) as caught:
            loss.sim_coeff = loss.sim_coeff + 1
        assert [w.filename for w in caught] == [__file__] * 2
        assert loss.invariance_weight == 26.0

    def test_one_warning_a_line(self) -> None:
        loss = VICRegLoss()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            for _ in range(3):
                loss.sim_coeff *= 0.5
        assert len(caught) == 1
        assert loss.invariance_weight == 25.0 / 8

    def test_other_values_are_named(self) -> None:
        with pytest.warns(deprecation.DeprecatedWarning, match="Use 'tokens' .with other values."):
            VICRegLoss().flatten_patches  # noqa: B018


@pytest.mark.usefixtures("quiet")
class TestOldNames:
    def test_ways_to_ask(self) -> None:
        loss = VICRegLoss()
        setattr(loss, "var_coeff", 0.5)  # noqa: B010
        assert loss.variance_weight == 0.5
        assert getattr(loss, "var_coeff", 9.0) == 0.5
        assert hasattr(loss, "cov_coeff")
        assert not hasattr(loss, "warmup_epochs")
        assert getattr(loss, "nothing", 9.0) == 9.0
        assert "var_coeff" not in vars(loss)

    def test_mapped(self) -> None:
        loss = VICRegLoss()
        loss.flatten_patches = False
        assert loss.tokens == "concat"
        assert loss.flatten_patches is False
        with pytest.raises(AttributeError, match=r"'flatten_patches' of the old VICRegLoss is 'tokens' now: .*'maybe'"):
            loss.flatten_patches = "maybe"

    def test_inside_a_part(self) -> None:
        loss = WeightedSumLoss(terms={"primary": nn.L1Loss(), "secondary": nn.MSELoss()}, weights={"secondary": 2.0})
        loss.secondary_loss_weight = 5.0
        loss.primary_loss = nn.SmoothL1Loss()
        assert loss.weights["secondary"] == 5.0
        assert isinstance(loss.terms["primary"], nn.SmoothL1Loss)
        assert "primary_loss" not in loss._modules

    def test_counters_are_buffers_now(self) -> None:
        loss = VICRegLoss(warmup="damped")
        loss.current_epoch = 4
        assert loss.warmup is not None
        assert loss.warmup.epoch.item() == 4
        assert loss.current_epoch == 4

    def test_heads(self) -> None:
        loss = CLIPLoss(input_dim=4, projection_dim=3)
        assert loss.vision_projection[0] is loss.vision_head.layers[0]
        loss.text_projection = nn.Identity()
        assert isinstance(loss.text_head.layers, nn.Identity)
        with pytest.raises(
            AttributeError, match=r"'vision_projection' .* is 'vision_head.layers' now, which this loss lacks"
        ):
            CLIPLoss().vision_projection  # noqa: B018

    def test_methods(self) -> None:
        loss = create_loss("energy")
        assert loss.register_hooks == loss.attach
        with pytest.raises(AttributeError, match="is 'attach' now, and is not set to 3"):
            loss.register_hooks = 3

    @pytest.mark.parametrize("use", [lambda loss: loss.queue_ptr, lambda loss: setattr(loss, "queue_ptr", 0)])
    def test_what_is_gone_says_what_to_do(self, use: Callable[[Any], Any]) -> None:
        loss = MemoryQueueLoss(embed_dim=4, queue_size=8)
        with pytest.raises(AttributeError, match=r"'queue_ptr' of the old .* is gone: .* vision_queue.ptr and"):
            use(loss)
        assert "queue_ptr" not in vars(loss)

    def test_fixed_by_the_constructor(self) -> None:
        loss = MemoryQueueLoss(embed_dim=4, queue_size=8)
        assert loss.queue_size == 8
        with pytest.raises(AttributeError, match=r"'vision_queue.size' now, and fixed by the constructor"):
            loss.queue_size = 9

    def test_a_parameter_or_a_tensor_is_taken(self) -> None:
        loss = VICRegLoss()
        loss.sim_coeff = nn.Parameter(torch.tensor(2.0))
        assert [name for name, _ in loss.named_parameters()] == ["invariance_weight"]
        scaled = DecorrelationLoss()
        scaled.coef = torch.tensor(2.0)
        assert float(scaled.coef) == 2.0

    def test_copies_and_pickles(self) -> None:
        for loss in (copy.deepcopy(VICRegLoss()), pickle.loads(pickle.dumps(VICRegLoss()))):
            loss.sim_coeff = 4.0
            assert loss.invariance_weight == 4.0


@pytest.mark.usefixtures("quiet")
class TestNamesOfTheUser:
    def test_in_the_body_of_a_subclass(self) -> None:
        class Mine(VICRegLoss):
            sim_coeff = 3.0
            var_coeff: float

        loss = Mine()
        loss.sim_coeff = 5.0
        loss.var_coeff = 7.0
        assert (loss.sim_coeff, loss.invariance_weight, loss.var_coeff, loss.variance_weight) == (5.0, 25.0, 7.0, 25.0)

    def test_property(self) -> None:
        class Mine(VICRegLoss):
            @property
            def sim_coeff(self) -> float:
                return 11.0

        assert Mine().sim_coeff == 11.0

    def test_assigned_in_a_method(self) -> None:
        class Mine(MemoryQueueLoss):
            def __init__(self) -> None:
                super().__init__(embed_dim=4, queue_size=8)
                self.queue_ptr, self.initialized = 3, True

        class Further(Mine):
            pass

        assert (Mine().queue_ptr, Mine().initialized, Further().queue_ptr) == (3, True, 3)
        assert Mine().queue_size == 8

    def test_of_another_object_in_a_method(self) -> None:
        class Mine(VICRegLoss):
            def anneal(self, other: VICRegLoss) -> None:
                other.sim_coeff = 1.0

        loss = Mine()
        loss.anneal(loss)
        assert loss.invariance_weight == 1.0

    def test_other_names_are_plain(self) -> None:
        loss = VICRegLoss()
        loss.note = "mine"
        assert vars(loss)["note"] == "mine"


class TestCost:
    def test_nothing_is_loaded_before_an_old_name_is_used(self) -> None:
        code = (
            "import sys, training_losses.contrastive as c; loss = c.VICRegLoss(); loss.mine = 1; hasattr(loss, 'no');"
            "loaded = [m for m in sys.modules if m.startswith('training_losses.migration')];"
            "assert not loaded, loaded"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_without_migration(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compat, "bridge", lambda: None)
        loss = VICRegLoss()
        loss.sim_coeff = 3.0
        assert vars(loss)["sim_coeff"] == 3.0
        with pytest.raises(AttributeError, match="'VICRegLoss' object has no attribute 'var_coeff'"):
            loss.var_coeff  # noqa: B018

    @pytest.mark.parametrize("build", [lambda: VICRegLoss(), lambda: CLIPLoss(learnable_temperature=True)])
    def test_one_graph(self, build: Callable[[], BaseLoss], quiet: None) -> None:
        loss, x = build(), torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
        if isinstance(loss, VICRegLoss):
            loss.sim_coeff = 3.0
        torch._dynamo.reset()
        counter = CompileCounter()
        compiled = torch.compile(loss, backend=counter, fullgraph=True)
        assert torch.allclose(compiled(*x).loss, loss(*x).loss)
        assert counter.frame_count == 1


def pairs() -> tuple[Tensor, Tensor]:
    x, y = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, y


class TestValues:
    @pytest.mark.parametrize(
        "value", [np.float32(0.25), np.float64(0.25), torch.tensor(0.25), nn.Parameter(torch.tensor(0.25))]
    )
    def test_temperature(self, value: Any) -> None:
        expected = CLIPLoss(temperature=0.25)(*pairs()).loss
        given = CLIPLoss(temperature=value)
        later = CLIPLoss()
        later.temperature = value
        assert given(*pairs()).loss == expected == later(*pairs()).loss

    def test_a_temperature_of_the_user_is_trained(self) -> None:
        loss, logit = CLIPLoss(), nn.Parameter(torch.tensor(0.2, dtype=torch.float64))
        loss.temperature = logit
        loss(*pairs()).loss.backward()
        assert logit.grad is not None
        assert logit.grad != 0
        assert dict(loss.named_parameters()).keys() == {"temperature"} == loss.state_dict().keys()
        assert copy.deepcopy(loss).temperature is not logit
        loss.temperature = 0.5
        assert (loss.temperature, list(loss.parameters())) == (0.5, [])

    def test_a_computed_temperature_carries_its_graph(self) -> None:
        loss, logit = SimCLRLoss(), torch.tensor(0.02, requires_grad=True)
        loss.temperature = logit.clamp(min=0.01)
        loss(*pairs()).loss.backward()
        assert logit.grad is not None

    def test_a_learned_temperature_is_set_to_numbers(self) -> None:
        loss = CLIPLoss(learnable_temperature=True)
        with pytest.raises(ValueError, match=r"temperature must be a number .*: a tensor is not followed"):
            loss.temperature = torch.tensor(0.1)
        with pytest.raises(ValueError, match=r"a 0-d tensor, found torch.float32 \[2\]"):
            CLIPLoss(temperature=torch.ones(2))

    def test_numbers_of_numpy(self) -> None:
        loss = VICRegLoss(invariance_weight=np.float32(2.0), chunk_size=np.int64(2))
        assert loss(*pairs()).loss == VICRegLoss(invariance_weight=2.0)(*pairs()).loss
        with pytest.raises(ValueError, match="variance_weight must be a number at least 0"):
            VICRegLoss(variance_weight=np.bool_(True))
        with pytest.raises(ValueError, match="a tensor is not followed, give float"):
            VICRegLoss(variance_weight=torch.tensor(1.0))

    def test_a_number_for_a_buffer(self) -> None:
        loss = ContrastiveJEPALoss()
        loss.jepa_weight = 0.5
        assert isinstance(loss.jepa_weight, Tensor)
        assert loss.jepa_weight == 0.5
        with pytest.raises(TypeError, match="cannot assign 'str' as buffer"):
            loss.jepa_weight = "much"
        with pytest.raises(TypeError):
            SIGRegLoss(num_slices=4).knots = 0.5

    def test_barlow(self, quiet: None) -> None:
        loss = BarlowTwinsLoss()
        loss.lambda_coeff = 0.5
        assert loss(*pairs()).loss == BarlowTwinsLoss(off_diagonal_weight=0.5)(*pairs()).loss
