"""Hard negatives, dynamic temperature, the two classes called DecoupledContrastiveLoss, SimpleContrastiveLoss: what was
wrong, seen in the twins, and what the successors do. Numbers as in the spec of each module."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.support.draws import all_draws
from tests.support.twins import twin
from training_losses.contrastive import (
    CLIPLoss,
    DecoupledContrastiveLoss,
    DynamicTemperatureLoss,
    HardNegativeLoss,
    InfoNCELoss,
    IntraInterModalLoss,
)

HardTwin = twin("hard_negative_mining_contrastive_loss.HardNegativeMiningContrastiveLoss")
DynamicTwin = twin("dynamic_temperature_contrastive_loss.DynamicTemperatureContrastiveLoss")
DecoupledTwin = twin("decoupled_contrastive_loss.DecoupledContrastiveLoss")
OtherDecoupledTwin = twin("contrastive_learning.DecoupledContrastiveLoss")
SimpleTwin = twin("loss_factory.SimpleContrastiveLoss")
IDS = [1, 2, 3, 4]
LEGACY: dict[str, Any] = {"average": "pairs", "exclude_same_id": False}


def batch(rows: int = 4, dim: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=g).double(), torch.randn(rows, dim, generator=g).double()


def cosines(v: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (v / v.norm(dim=1, keepdim=True)) @ (t / t.norm(dim=1, keepdim=True)).T


class TestHardNegative:
    def test_1_and_10_no_negatives(self) -> None:
        v, t = (x.requires_grad_() for x in batch())
        with pytest.raises(AttributeError):
            HardTwin()(v, t, [1, 1, 1, 1])
        out = HardNegativeLoss()(v, t, [1, 1, 1, 1])
        out.loss.backward()
        assert out.loss == 0
        assert set(out) == set(HardNegativeLoss()(v, t, IDS))
        assert torch.equal(v.grad, torch.zeros_like(v))

    def test_2_low_temperatures(self) -> None:
        v, t = (x.float() for x in batch())
        assert torch.isnan(HardTwin(temperature=0.01)(v, v, IDS)["loss"])
        loss = HardNegativeLoss(temperature=0.01, mining="none")(v.double(), t.double()).loss
        torch.testing.assert_close(HardNegativeLoss(temperature=0.01, mining="none")(v, t).loss, loss.float())

    def test_3_the_weight_is_a_shift_of_the_logit(self) -> None:
        v, t = batch()
        shifted = cosines(v, t) / 0.07 + math.log(3) * (1 - torch.eye(4).double())
        expected = torch.nn.functional.cross_entropy(shifted, torch.arange(4))
        loss = HardNegativeLoss(hard_negative_weight=3.0, mining="hard", hard_fraction=1.0)(v, t)
        torch.testing.assert_close(loss["loss_v2t"], expected)
        for weight in (0.0, -1.0):
            with pytest.raises(ValueError, match="hard_negative_weight"):
                HardNegativeLoss(hard_negative_weight=weight)

    def test_4_unknown_mining(self) -> None:
        v, t = batch()
        none = HardTwin(mining_strategy="none")(v, t, IDS)["loss"]
        assert torch.equal(HardTwin(mining_strategy="sem-hard")(v, t, IDS)["loss"], none)
        with pytest.raises(ValueError, match="mining must be one of 'semi_hard'"):
            HardNegativeLoss(mining="sem-hard")

    def test_5_fraction_and_margin_are_arguments(self) -> None:
        v, t = batch(rows=12)
        positive = torch.eye(12, dtype=torch.bool)
        for fraction, count in ((0.1, 1), (0.5, 5), (1.0, 11)):
            weights = HardNegativeLoss(mining="hard", hard_fraction=fraction).log_weights(cosines(v, t), positive)
            assert ((weights > 0) & ~positive).sum(dim=1).tolist() == [count] * 12
        s = cosines(v, t)
        band = (s < s.diagonal()[:, None]) & (s > s.diagonal()[:, None] - 0.6)
        got = HardNegativeLoss(semi_hard_margin=0.6).log_weights(s, positive) > 0
        assert torch.equal(got & ~positive, band & ~positive)

    def test_6_all_negatives_stay_in(self) -> None:
        v, t = (x.requires_grad_() for x in batch())
        HardNegativeLoss(mining="hard")(v, t).loss.backward()
        row = torch.autograd.grad(HardNegativeLoss(mining="hard", reduction="none")(v, t).loss[0], t)[0]
        assert (row.abs().sum(dim=1) > 0).all()

    def test_8_short_ids(self) -> None:
        v, t = batch()
        short = HardTwin()(v, t, [1, 2])["loss"]
        torch.testing.assert_close(short, HardTwin()(v[:2], t[:2], [1, 2])["loss"])
        with pytest.raises(ValueError, match="one id per sample"):
            HardNegativeLoss()(v, t, [1, 2])

    def test_12_no_print(self, capsys: pytest.CaptureFixture[str]) -> None:
        HardNegativeLoss()
        assert capsys.readouterr().out == ""


class TestDynamicTemperature:
    def test_1_paired_items_count(self) -> None:
        v = torch.eye(4).double()
        assert DynamicTwin()(v, v, IDS)["pos_similarity"] == 0.0
        out = DynamicTemperatureLoss()(v, v, IDS)
        assert float(out["positive_similarity"]) == 1.0
        assert float(out["temperature"]) == pytest.approx(0.07 * (0.8 + 0.4 * math.exp(-2.0)))

    def test_2_no_gradient_through_the_temperature(self) -> None:
        v, t = (x.requires_grad_() for x in batch())
        out = DynamicTemperatureLoss()(v, t)
        fixed = CLIPLoss(temperature=float(out["temperature"]))(v, t).loss
        torch.testing.assert_close(out.loss, fixed)
        ours = torch.autograd.grad(out.loss, v)[0]
        torch.testing.assert_close(ours, torch.autograd.grad(fixed, v)[0])
        through = torch.autograd.grad(DynamicTemperatureLoss(detach_temperature=False)(v, t).loss, v)[0]
        assert not torch.allclose(through, ours)

    def test_3_the_constants_are_arguments(self) -> None:
        v, t = batch()
        assert float(DynamicTwin(min_temp=0.001, max_temp=9.0)(v, t, IDS)["temperature"]) >= 0.056
        out = DynamicTemperatureLoss(offset=0.1, amplitude=0.2, sharpness=3.0, min_temperature=1e-4)(v, t)
        gap = float(out["positive_similarity"] - out["negative_similarity"])
        assert float(out["temperature"]) == pytest.approx(min(0.2, 0.07 * (0.1 + 0.2 * math.exp(-3 * gap))))

    def test_4_no_state(self) -> None:
        loss = DynamicTemperatureLoss()
        assert torch.equal(loss(*batch()).loss, loss(*batch()).loss)
        assert loss.state_dict() == {}

    def test_5_swapped_bounds(self) -> None:
        assert DynamicTwin(min_temp=0.5, max_temp=0.1)(*batch(), IDS)["temperature"] == pytest.approx(0.1)
        with pytest.raises(ValueError, match=r"max_temperature must be a number at least 0.5, found 0.1"):
            DynamicTemperatureLoss(min_temperature=0.5, max_temperature=0.1)

    def test_6_always_the_same_keys(self) -> None:
        nan = float("nan")
        assert list(DynamicTwin()(*batch(), [nan] * 4)) == ["loss"]
        assert set(DynamicTemperatureLoss()(*batch(rows=1))) == set(DynamicTemperatureLoss()(*batch()))

    def test_8_half_precision_is_computed_in_float32(self) -> None:
        v, t = (x.half() for x in batch())
        assert DynamicTwin()(v, t, IDS)["loss"].dtype == torch.float16
        exact = DynamicTemperatureLoss()(v.double(), t.double()).loss
        torch.testing.assert_close(DynamicTemperatureLoss()(v, t).loss.double(), exact, rtol=1e-5, atol=1e-5)


class TestDecoupled:
    def test_1_the_mean_is_over_terms(self) -> None:
        # two copies of the same pairs: the old cross-modal loss is halved, the new one is not
        v, t = batch()
        double = [torch.cat([x, x]) for x in (v, t)]
        ids = IDS
        once, twice = (DecoupledTwin()(*x, ids * n)["cross_modal_loss"] for x, n in (((v, t), 1), (double, 2)))
        torch.testing.assert_close(twice, once / 2)
        new = [IntraInterModalLoss()(*x, ids * n)["inter_modal_loss"] for x, n in (((v, t), 1), (double, 2))]
        torch.testing.assert_close(new[0], once)
        torch.testing.assert_close(new[1], once)

    def test_2_duplicates_are_not_pushed_apart(self) -> None:
        v, t = batch()
        v = torch.cat([v[:1], v[:1], v[2:]]).requires_grad_()
        ids = [1, 1, 2, 3]
        parts = {k: IntraInterModalLoss(exclude_same_id=k)(v, t, ids)["intra_vision_loss"] for k in (True, False)}
        torch.testing.assert_close(parts[False], DecoupledTwin()(v, t, ids)["vision_inst_loss"].detach())
        assert parts[True] < parts[False] - 0.3
        g = cosines(v, v).detach() / 0.07
        terms = [math.log(1 + sum(math.exp(g[i, k] - g[i, i]) for k in range(4) if ids[k] != ids[i])) for i in range(4)]
        assert float(parts[True]) == pytest.approx(sum(terms) / 4)

    def test_3_reduction(self) -> None:
        v, t = batch()
        assert torch.equal(DecoupledTwin(reduction="sum")(v, t, IDS)["loss"], DecoupledTwin()(v, t, IDS)["loss"])
        torch.testing.assert_close(
            IntraInterModalLoss(reduction="sum")(v, t).loss, 4 * IntraInterModalLoss()(v, t).loss
        )

    def test_4_low_temperatures(self) -> None:
        v, t = (x.float() for x in batch())
        assert not torch.isfinite(DecoupledTwin(temperature=0.01)(v, t, IDS)["loss"])
        exact = IntraInterModalLoss(temperature=0.01)(v.double(), t.double()).loss
        torch.testing.assert_close(
            IntraInterModalLoss(temperature=0.01)(v, t).loss.double(), exact, rtol=1e-4, atol=1e-5
        )

    def test_5_one_kind_of_result(self) -> None:
        one = batch(rows=1)
        assert isinstance(DecoupledTwin()(*one, [1])["loss"], float)
        assert DecoupledTwin()(*(x.requires_grad_() for x in batch()), IDS)["v2t_loss"].requires_grad
        v, t = (x.requires_grad_() for x in one)
        out = IntraInterModalLoss()(v, t)
        out.loss.backward()
        assert out.loss == 0
        assert set(out) == set(IntraInterModalLoss()(*batch()))

    def test_6_any_positive_is_a_hit(self) -> None:
        v = torch.eye(3).double()
        t = v[[1, 0, 2]]  # the best text of image 0 is text 1, of the same id
        assert float(DecoupledTwin()(v, t, [5, 5, 6])["v2t_accuracy"]) == pytest.approx(2 / 3)
        assert IntraInterModalLoss(metrics=True)(v, t, [5, 5, 6])["accuracy_v2t"] == 1

    def test_7_the_intra_entry_is_what_enters_the_loss(self) -> None:
        v, t = batch()
        old = DecoupledTwin(lambda_v=0.1, lambda_t=2.0)(v, t, IDS)
        assert abs(float(old["loss"] - old["cross_modal_loss"] - old["instance_loss"])) > 1e-3
        new = IntraInterModalLoss(vision_weight=0.1, text_weight=2.0, **LEGACY)(v, t)
        torch.testing.assert_close(new["inter_modal_loss"] + new["intra_modal_loss"], new.loss)
        torch.testing.assert_close(new.loss, old["loss"])

    def test_8_sizes_first(self) -> None:
        empty, some = torch.zeros(0, 3), torch.zeros(2, 3)
        assert DecoupledTwin()(empty, some, [])["loss"] == 0
        with pytest.raises(ValueError, match=r"\[0, 3\].*\[2, 3\]"):
            IntraInterModalLoss()(empty, some, [])

    def test_other_1_distinct_ids_are_no_constant(self) -> None:
        v, t = (x.requires_grad_() for x in batch())
        old = OtherDecoupledTwin()(v, t, IDS)["loss"]
        assert (float(old), old.requires_grad) == (0.0, False)
        new = IntraInterModalLoss(positives="per_pair", intra_positives="same_id")(v, t, IDS).loss
        s, y = cosines(v, t) / 0.07, torch.arange(4)
        ce = torch.nn.functional.cross_entropy
        torch.testing.assert_close(new, (ce(s, y) + ce(s.T, y)) / 2)
        assert torch.autograd.grad(new, v)[0].abs().sum() > 0

    @pytest.mark.parametrize("ids", [[1, 1, 2, 3], [1, 1, 2, 2], [1, 1, 1, 1]])
    def test_other_2_divided_by_the_pairs_that_were_summed(self, ids: list[int]) -> None:
        v, t = (x.requires_grad_() for x in batch())
        pairs = sum(a == b for a in ids for b in ids)
        old = OtherDecoupledTwin(lambda_v=0.2, lambda_t=0.7)(v, t, ids)
        new = IntraInterModalLoss(
            positives="per_pair", intra_positives="same_id", vision_weight=0.2, text_weight=0.7, metrics=True
        )(v, t, ids)
        factor = (pairs - 4) / pairs
        for before, after in (("v2t_loss", "loss_v2t"), ("t2v_loss", "loss_t2v")):
            assert float(new[after]) == pytest.approx(old[before] * factor, rel=1e-12)
        for key, name in (("vision_inst_loss", "intra_vision_loss"), ("text_inst_loss", "intra_text_loss")):
            assert float(new[name]) == pytest.approx(old[key], rel=1e-12)
        assert float(new["accuracy"]) == pytest.approx(old["accuracy"])
        intra = float(old["loss"].detach()) - old["cross_modal_loss"]
        assert intra == pytest.approx(float(new["intra_modal_loss"]), abs=1e-12)

    def test_dcl_is_another_loss(self) -> None:
        # the positive is not in the denominator, so the loss can be negative
        z = torch.eye(3).double()
        assert DecoupledContrastiveLoss()(z, z) < 0


class TestSimple:
    def test_1_and_2_all_positives_without_draws(self) -> None:
        v, t = batch(rows=3)
        ids = ["a", "b", "a"]
        answers = all_draws(lambda: SimpleTwin()(v, t, ids)["loss"])
        assert len({round(float(a), 9) for a in answers}) > 1
        new = InfoNCELoss(temperature=0.1, alignment="mse", alignment_weight=0.5)(v, t, ids).loss
        torch.testing.assert_close(new, torch.stack(answers).mean(), rtol=1e-12, atol=1e-12)
        before = torch.random.get_rng_state()
        InfoNCELoss()(v, t, ids)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_1_random_positives_have_their_own_generator(self) -> None:
        v, t = batch(rows=3)
        ids, loss = [1, 2, 1], InfoNCELoss(positives="random", temperature=0.1)
        allowed = {round(float(a) * 2, 9) for a in all_draws(lambda: SimpleTwin()(v, t, ids)["infonce_loss"])}
        got = {round(float(loss(v, t, ids, torch.Generator().manual_seed(s)).loss) * 2, 9) for s in range(40)}
        assert got <= allowed
        assert len(got) > 3

    def test_2_other_positives_need_not_be_negatives(self) -> None:
        v, t = batch(rows=3)
        rows = InfoNCELoss(denominator="own_positive", reduction="none")(v, t, [1, 1, 1]).loss
        assert torch.equal(rows, torch.zeros(3).double())

    def test_4_ids_of_one_kind(self) -> None:
        v, t = batch(rows=3)
        SimpleTwin()(v, t, [1, 1.0, "1"])
        with pytest.raises(ValueError, match="ids"):
            InfoNCELoss()(v, t, [1, 1.0, "1"])

    def test_5_similarities_are_cosines(self) -> None:
        v, t = batch()
        old, new = SimpleTwin()(v, t, IDS), InfoNCELoss(metrics=True)(v, t)
        for before, after in (("pos_sim", "similarity_positive"), ("neg_sim", "similarity_negative")):
            assert float(new[after]) == pytest.approx(0.1 * old[before])

    def test_6_decor_loss_is_not_swallowed(self) -> None:
        v, t = batch()
        assert torch.equal(SimpleTwin()(v, t, IDS, decor_loss=9.0)["loss"], SimpleTwin()(v, t, IDS)["loss"])
        with pytest.raises(TypeError):
            InfoNCELoss()(v, t, decor_loss=9.0)

    def test_7_learnable_temperature(self) -> None:
        loss = InfoNCELoss(learnable_temperature=True)
        loss(*batch()).loss.backward()
        assert loss.logit_scale.grad is not None

    def test_8_empty_batch(self) -> None:
        empty = torch.zeros(0, 3)
        with pytest.raises(RuntimeError):
            SimpleTwin()(empty, empty, [])
        with pytest.raises(ValueError, match="empty"):
            InfoNCELoss()(empty, empty, [])

    def test_10_cosine_distance_does_not_fade_with_the_width(self) -> None:
        for dim in (4, 400):
            v, t = batch(dim=dim)
            mse, cosine = (InfoNCELoss(alignment=a)(v, t)["alignment"] for a in ("mse", "cosine"))
            torch.testing.assert_close(mse, 2 * cosine / dim)
            assert float(cosine) == pytest.approx(1 - float(cosines(v, t).diagonal().mean()))

    def test_11_no_counter(self) -> None:
        old = SimpleTwin()
        old(*batch(), IDS)
        assert old.iteration == 1
        assert not hasattr(InfoNCELoss(), "iteration")
