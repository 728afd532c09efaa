"""Reductions, results, the registry."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import deprecation
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import training_losses
from training_losses import LossOutput, LossRegistry, create_loss
from training_losses.base import BaseLoss, compat

OWNER = "training_losses.contrastive.clip_loss.CLIPLoss"


class Square(BaseLoss):
    """Reports its mean beside the loss."""

    def forward(self, x: Tensor) -> LossOutput:
        return self.output(self.apply_reduction(x.square()), mean=x.mean())


def output() -> LossOutput:
    return LossOutput({"loss": torch.tensor(2.0), "loss_v2t": torch.tensor(3.0)}, owner=OWNER)


class TestBaseLoss:
    def test_reductions(self) -> None:
        x = torch.tensor([1.0, 2.0, 3.0])
        assert Square()(x).loss == pytest.approx(14 / 3)
        assert Square(reduction="sum")(x).loss == 14
        assert Square(reduction="none")(x).loss.tolist() == [1, 4, 9]
        assert Square().apply_reduction(x, num_valid=2) == 3
        assert Square().apply_reduction(x, num_valid=torch.tensor(0)) == 6

    def test_unknown_reduction(self) -> None:
        with pytest.raises(ValueError, match="reduction must be one of 'mean', 'sum', 'none', found 'avg'"):
            Square(reduction="avg")

    def test_only_the_loss_has_a_graph(self) -> None:
        result = Square()(torch.ones(2, requires_grad=True))
        assert result.loss.requires_grad
        assert not result["mean"].requires_grad

    def test_mean_of_nothing_keeps_the_graph(self) -> None:
        x = torch.zeros(0, requires_grad=True)
        loss = Square()(x)["loss"]
        loss.backward()
        assert loss.item() == 0


class TestLossOutput:
    def test_is_a_dict(self) -> None:
        result = output()
        assert result.loss is result["loss"]
        assert list(result) == ["loss", "loss_v2t"]
        with pytest.raises(KeyError, match="nothing"):
            result["nothing"]
        assert result.get("nothing", 7) == 7
        assert "nothing" not in result

    def test_old_keys_answer_with_a_warning_at_the_users_line(self) -> None:
        result = output()
        with pytest.warns(deprecation.DeprecatedWarning, match="'v2t_loss'.*'loss_v2t'") as caught:
            assert result["v2t_loss"] == 3.0
        assert caught[0].filename == __file__
        with pytest.warns(deprecation.DeprecatedWarning):
            assert result.get("v2t_loss") == 3.0
        with pytest.warns(deprecation.DeprecatedWarning):
            assert "v2t_loss" in result
        with pytest.raises(KeyError):
            result["t2v_loss"]  # known to the catalog, but its successor is not here

    def test_without_migration_old_keys_are_unknown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compat, "bridge", lambda: None)
        with pytest.raises(KeyError):
            output()["v2t_loss"]
        with pytest.raises(AttributeError):
            compat.legacy_attribute("training.losses", "ContrastiveLoss")

    @pytest.mark.parametrize(
        "duplicate", [copy.copy, copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o)), dict.copy]
    )
    def test_copies(self, duplicate: Any) -> None:
        twin = duplicate(output())
        assert {k: v.item() for k, v in twin.items()} == {"loss": 2.0, "loss_v2t": 3.0}
        if duplicate is not dict.copy:
            assert type(twin) is LossOutput
            assert twin.owner == OWNER

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
    def test_copies_leave_the_graph_behind(self, duplicate: Any) -> None:
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        result = Square()(x)
        twin = duplicate(result)
        assert twin.loss.is_leaf
        assert twin.loss.requires_grad
        assert torch.equal(twin.loss, result.loss)
        twin.loss.detach().zero_()
        result.loss.backward()
        assert result.loss != 0
        assert x.grad is not None

    def test_pytree(self) -> None:
        doubled = pytree.tree_map(lambda x: 2 * x, output())
        assert type(doubled) is LossOutput
        assert doubled["loss"] == 4.0
        assert doubled.owner == OWNER

    def test_compiles(self) -> None:
        loss = Square()
        compiled = torch.compile(loss, fullgraph=True, backend="eager")
        x = torch.ones(3, requires_grad=True)
        result = compiled(x)
        assert type(result) is LossOutput
        assert torch.equal(result.loss, loss(x).loss)
        result.loss.backward()


class TestRegistry:
    def test_creates_by_name(self) -> None:
        loss = create_loss("clip", temperature=0.5)
        assert type(loss).__name__ == "CLIPLoss"
        assert loss.temperature == 0.5
        assert "clip" in LossRegistry.available()

    def test_unknown_names_suggest(self) -> None:
        with pytest.raises(ValueError, match=r"Unknown loss 'clpi'; did you mean 'clip'"):
            create_loss("clpi")

    def test_unknown_arguments(self) -> None:
        with pytest.raises(TypeError, match="temprature"):
            create_loss("clip", temprature=0.1)

    def test_duplicates_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"'clip' is taken by .*CLIPLoss"):

            @LossRegistry.register("clip")
            class Other(nn.Module):
                pass

    def test_names_of_losses_that_are_not_imported_yet_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from training_losses._public import REGISTRY

        monkeypatch.setattr(LossRegistry, "_classes", {})
        for name, module in REGISTRY.items():
            with pytest.raises(
                ValueError, match=rf"'{name}' is taken by training\S*\.{module}, .* such as 'my_{name}'"
            ):
                LossRegistry.register(name)(type("CLIPLoss", (nn.Module,), {}))
        assert LossRegistry._classes == {}, "a refused class must leave no trace"
        own = LossRegistry.register("my_clip")(type("CLIPLoss", (nn.Module,), {}))
        assert type(LossRegistry.create("my_clip")) is own

    def test_tables_agree_with_the_registry(self) -> None:
        from training_losses._public import PUBLIC, REGISTRY

        assert LossRegistry.available() == sorted(REGISTRY)
        for name, module in REGISTRY.items():
            assert LossRegistry.get(name).__module__ == f"training_losses.{module}"
        for name in PUBLIC:
            assert getattr(training_losses, name).__name__ == name
        assert set(PUBLIC) <= set(dir(training_losses))
