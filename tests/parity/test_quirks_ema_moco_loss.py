"""What was wrong in the old EMAMoCoLoss, seen in the twin, and what MoCoLoss with MomentumEncoder does."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.twins import twin
from training_losses.base import MomentumEncoder
from training_losses.contrastive import MoCoLoss

EMAMoCoLoss = twin("ema_moco_loss.EMAMoCoLoss")
LEGACY: dict[str, Any] = {"enqueue_before_logits": True, "in_batch_negatives": True}


def encoders() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return nn.Linear(5, 4).double(), nn.Linear(3, 4).double()


def batch(seed: int, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 5, generator=g).double(), torch.randn(rows, 3, generator=g).double()


def old_loss(size: int = 7, **kwargs: Any) -> tuple[nn.Module, nn.Module, nn.Module]:
    vision, text = encoders()
    torch.manual_seed(1)
    loss = EMAMoCoLoss(vision, text, dim=4, K=size, **kwargs).double()
    loss.vision_encoder, loss.text_encoder = vision, text
    return loss, vision, text


def converted(old: nn.Module, **kwargs: Any) -> MoCoLoss:
    """The successor with the queues of ``old``, by the rules of the catalog."""
    new = MoCoLoss(embed_dim=4, queue_size=7, **{**LEGACY, **kwargs}).double()
    new.load_state_dict({k: v for k, v in old.state_dict().items() if "encoder" not in k})
    return new


def step(new: MoCoLoss, keys: tuple[nn.Module, nn.Module], query: tuple[nn.Module, nn.Module], seed: int) -> Any:
    x, y = batch(seed)
    return new(query[0](x), query[1](y), keys[0](x), keys[1](y))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("momentum", [0.9, 1.0])
def test_with_both_options_it_is_the_old_loss(symmetric: bool, momentum: float) -> None:
    old, vision, text = old_loss(symmetric=symmetric, m=momentum, T=0.2)
    new = converted(old, symmetric=symmetric, temperature=0.2)
    keys = (MomentumEncoder(vision, momentum=momentum), MomentumEncoder(text, momentum=momentum))
    optimizer = torch.optim.SGD([*vision.parameters(), *text.parameters()], lr=0.1)
    for seed in range(4):
        got = step(new, keys, (vision, text), seed)
        weights = [*vision.parameters(), *text.parameters()][: 4 if symmetric else 2]
        ours = torch.autograd.grad(got.loss, weights)
        expected = old(*batch(seed))
        theirs = torch.autograd.grad(expected["loss"], weights)
        torch.testing.assert_close(got.loss, expected["loss"], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        for before, after in (("v2t_loss", "loss_v2t"), ("t2v_loss", "loss_t2v")):
            assert float(got[after]) == pytest.approx(expected[before], abs=1e-12)
        torch.testing.assert_close(new.text_queue.features, old.text_queue.T)
        for average, encoder in zip(keys, (vision, text), strict=True):
            average.update(encoder)
        torch.testing.assert_close(keys[0].encoder.weight, old.vision_key_encoder.weight)
        for parameter, gradient in zip(weights, ours, strict=True):
            parameter.grad = gradient
        optimizer.step()


def test_q1_unusable_as_constructed() -> None:
    vision, text = encoders()
    with pytest.raises(AttributeError):
        EMAMoCoLoss(vision, text, dim=4, K=7).double()(*batch(0))
    loss = MoCoLoss(embed_dim=4, queue_size=7).double()
    assert torch.isfinite(step(loss, (MomentumEncoder(vision), MomentumEncoder(text)), (vision, text), 0).loss)


def test_q2_the_positive_is_no_negative() -> None:
    old, _, _ = old_loss(T=0.001)
    assert old(*batch(0))["loss"] > math.log(2) - 1e-12
    # with equal queries and keys and orthogonal samples the loss is nearly zero
    eye = torch.eye(4)
    loss = MoCoLoss(embed_dim=4, queue_size=7, in_batch_negatives=True, temperature=0.01)
    assert loss(eye, eye, eye, eye).loss < 1e-6
    early = MoCoLoss(embed_dim=4, queue_size=7, temperature=0.01, **LEGACY)
    assert float(early(eye, eye, eye, eye).loss) == pytest.approx(math.log(2), abs=1e-5)


def test_q4_the_average_moves_before_the_keys_are_made() -> None:
    encoder = nn.Linear(2, 2)
    average = MomentumEncoder(encoder, momentum=0.75)
    with torch.no_grad():
        encoder.weight.add_(1.0)
    before = average.encoder.weight.clone()
    average.update(encoder)
    torch.testing.assert_close(average.encoder.weight, before + 0.25)
    x = torch.ones(1, 2, requires_grad=True)
    assert not average(x).requires_grad


def test_q5_two_forwards_before_a_backward() -> None:
    old, vision, text = old_loss()
    total = old(*batch(0))["loss"] + old(*batch(1))["loss"]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()
    new, keys = converted(old_loss()[0]), (MomentumEncoder(vision), MomentumEncoder(text))
    (step(new, keys, (vision, text), 0).loss + step(new, keys, (vision, text), 1).loss).backward()
    assert torch.isfinite(vision.weight.grad).all()


def test_q6_batch_statistics_and_dropout_of_the_key_encoder() -> None:
    encoder = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    calm = MomentumEncoder(encoder, always_eval=True).train()
    assert calm.training
    assert not any(m.training for m in calm.encoder.modules())
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(calm(x), calm(x))
    encoder(x)
    calm.update(encoder)
    assert torch.equal(calm.encoder[1].running_mean, encoder[1].running_mean)
    assert MomentumEncoder(encoder).encoder[1].training


def test_q7_evaluation_changes_nothing() -> None:
    old, vision, text = old_loss()
    old.eval()(*batch(0))
    assert int(old.text_queue_ptr) == 3
    new = MoCoLoss(embed_dim=4, queue_size=7).double().eval()
    step(new, (MomentumEncoder(vision), MomentumEncoder(text)), (vision, text), 0)
    assert (int(new.text_queue.ptr), int(new.text_queue.filled)) == (0, 0)


def test_q8_random_columns_are_no_negatives() -> None:
    vision, text = encoders()
    new = MoCoLoss(embed_dim=4, queue_size=7).double()
    keys = (MomentumEncoder(vision), MomentumEncoder(text))
    assert step(new, keys, (vision, text), 0).loss == 0
    out = step(new, keys, (vision, text), 1)
    (x, y), (_, before) = batch(1), batch(0)
    unit = torch.nn.functional.normalize
    q, k, bank = unit(vision(x)), unit(text(y)), unit(text(before))
    own = (q * k).sum(1, keepdim=True) / 0.07
    expected = (torch.cat([own, q @ bank.T / 0.07], 1).logsumexp(1) - own[:, 0]).mean()
    torch.testing.assert_close(out["loss_v2t"], expected.detach())
    assert float(out["queue_fill"]) == pytest.approx(3 / 7)


def test_q10_the_state_holds_no_encoders() -> None:
    assert any("key_encoder" in key for key in old_loss()[0].state_dict())
    assert not any("encoder" in key for key in MoCoLoss(embed_dim=4).state_dict())


def test_q10_key_encoders_convert_to_their_wrappers() -> None:
    old, vision, _ = old_loss(m=0.5)
    old(*batch(0))
    average = MomentumEncoder(vision)
    state = {k.removeprefix("vision_key_"): v for k, v in old.state_dict().items() if k.startswith("vision_key_")}
    average.load_state_dict(state)
    torch.testing.assert_close(average(batch(1)[0]), old.vision_key_encoder(batch(1)[0]))


def test_q11_in_batch_negatives_are_an_option() -> None:
    eye = torch.eye(3, 4)
    plain = MoCoLoss(embed_dim=4, queue_size=5).eval()
    assert plain(eye, eye, eye, eye).loss == 0
    more = MoCoLoss(embed_dim=4, queue_size=5, in_batch_negatives=True, temperature=1.0).eval()
    assert float(more(eye, eye, eye, eye).loss) == pytest.approx(math.log(1 + 2 / math.e))
    same = more(eye, eye, eye, eye, [1, 1, 2])["loss_v2t"]
    assert float(same) == pytest.approx((2 * math.log(1 + 1 / math.e) + math.log(1 + 2 / math.e)) / 3)


def test_q12_names() -> None:
    with pytest.raises(TypeError):
        MoCoLoss(embed_dim=4, K=5)


def test_state_converts_and_continues_bitwise() -> None:
    old, vision, text = old_loss()
    old(*batch(0))
    new = converted(old)
    again = copy.deepcopy(new)
    again.load_state_dict(new.state_dict())
    keys = (MomentumEncoder(vision), MomentumEncoder(text))
    for seed in (1, 2):
        results = [step(loss, keys, (vision, text), seed).loss for loss in (new, again)]
        assert torch.equal(*results)
    assert int(new.text_queue.filled) == 7
    assert int(new.text_queue.ptr) == 2


def test_metrics_count_keys_that_beat_all_negatives() -> None:
    eye = torch.eye(4)
    loss = MoCoLoss(embed_dim=4, queue_size=5, in_batch_negatives=True, metrics=True)
    assert loss(eye, eye, eye, eye)["accuracy"] == 1
    assert loss(eye, eye, eye[[1, 0, 2, 3]], eye)["accuracy_t2v"] == 0.0
