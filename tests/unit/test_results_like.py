"""``results_like``: results in the form of the old class, for code that uses whole results."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
import torch
from torch import Tensor, nn

from training_losses import create_loss
from training_losses.balancing import WeightedSumLoss
from training_losses.base import LossOutput
from training_losses.config import create_loss_from_config, dump_config
from training_losses.contrastive import BarlowTwinsLoss, CLIPLoss, VICRegLoss
from training_losses.predictive import HJEPALoss

CLIP = "clip_style_loss.CLIPStyleLoss"


def pairs() -> tuple[Tensor, Tensor]:
    x, y = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x.requires_grad_(), y


def test_keys_order_and_kinds() -> None:
    out = CLIPLoss(temperature=0.1, metrics=True, results_like=CLIP)(*pairs())
    assert list(out)[:4] == ["loss", "v2t_loss", "t2v_loss", "v2t_accuracy"]
    assert {type(value) for key, value in out.items() if key not in ("loss", "recalls")} == {float}
    assert (
        json.loads(json.dumps({k: v for k, v in out.items() if k != "loss"}))["recalls"].keys() == out["recalls"].keys()
    )
    assert {**out}.keys() == dict(out).keys() == out.keys()
    out.loss.backward()


def test_scaled_as_it_was() -> None:
    new = CLIPLoss(temperature=0.1, metrics=True)(*pairs())
    old = CLIPLoss(temperature=0.1, metrics=True, results_like=CLIP)(*pairs())
    assert old["similarity_gap"] == pytest.approx(10 * new["similarity_gap"].item())
    assert old["mean_similarity"] == pytest.approx(10 * new["similarity_mean"].item())


def test_new_keys_answer_beside_them() -> None:
    out = CLIPLoss(metrics=True, results_like=CLIP)(*pairs())
    assert out["loss_v2t"] == out["v2t_loss"]
    assert "loss_v2t" in out
    assert "loss_v2t" not in list(out)
    assert out.get("loss_v2t") is not None
    assert out.get("nothing", 3) == 3
    with pytest.raises(KeyError, match="nothing"):
        out["nothing"]


def test_entries_with_their_graphs() -> None:
    levels = [torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(k)).requires_grad_() for k in range(2)]
    other = [level.detach().flip(0) for level in levels]
    out = HJEPALoss(num_hierarchies=2, results_like="hjepa_loss.HJEPALoss")(levels, other)
    assert list(out) == ["loss_h0", "loss_h1", "loss", "loss_unweighted"]
    (out["loss_h0"] + 2 * out["loss_h1"]).backward()
    assert all(level.grad is not None for level in levels)


def test_tuple() -> None:
    loss, logs = BarlowTwinsLoss(results_like="barlow_twins_loss.BarlowTwinsLoss")(*pairs())
    loss.backward()
    assert {key: type(value) for key, value in logs.items()} == {"diagonal_loss": float, "off_diagonal_loss": float}


def test_names_of_the_old_class() -> None:
    for name in ("vicreg_loss.VICRegLoss", "src.training.losses.VICRegLoss"):
        assert "sim_weight" in list(VICRegLoss(results_like=name)(*pairs()))
    with pytest.raises(
        ValueError, match=r"results_like must name the old class of VICRegLoss \(vicreg.*found 'VICRegLoss'"
    ):
        VICRegLoss(results_like="VICRegLoss")  # two systems had one
    with pytest.raises(ValueError, match="found 'nothing'"):
        CLIPLoss(results_like="nothing")
    with pytest.raises(ValueError, match="results_like must name"):
        create_loss("simclr", results_like="contrastive.NTXentLoss")  # two of its entries cannot be had


def test_survives() -> None:
    loss = create_loss("clip", metrics=True, results_like=CLIP)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), create_loss_from_config(dump_config(loss))):
        assert list(other(*pairs())) == list(loss(*pairs()))
    out = loss(*(x.detach() for x in pairs()))
    assert pickle.loads(pickle.dumps(out)) == copy.deepcopy(out) == out
    assert loss.state_dict() == {}


def test_in_a_subclass_and_in_a_combination() -> None:
    class Mine(CLIPLoss):
        def __init__(self, scale: float, **options: float) -> None:
            super().__init__(**options)
            self.scaled = scale

    loss = Mine(2.0, temperature=0.1, results_like=CLIP)
    assert "v2t_loss" in list(loss(*pairs()))
    total = WeightedSumLoss(terms={"clip": loss, "l1": nn.L1Loss()})(*pairs())
    assert isinstance(total, LossOutput)


def test_without_it_nothing_changes() -> None:
    out = CLIPLoss()(*pairs())
    assert type(out) is LossOutput
    assert "v2t_loss" not in list(out)
