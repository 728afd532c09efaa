"""VGG and LPIPS distances: one pass, frozen networks outside the state, options, errors, and the image combinations."""

from __future__ import annotations

import copy
import io
import math
import sys
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from tests.contract.records_perceptual import SquaredDistance, narrow_vgg
from tests.support.harness_triangulate import give, narrow_features, replaced_networks
from tests.support.torchvision_ops import import_torchvision
from tests.support.twins import twin
from training_losses.balancing import ImageGeometricMeanLoss, ImageProductLoss, ImageWeightedSumLoss
from training_losses.perceptual import LPIPSLoss, VGGPerceptualLoss, frozen, lpips_distance, vgg


def images(size: int = 8, batch: int = 2, seed: int = 0, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, batch, channels, size, size, generator=generator, dtype=torch.float64)
    return a, b


def narrow(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return narrow_features().double()


def by_hand(network: nn.Sequential, positions: list[int], a: Tensor, b: Tensor) -> list[Tensor]:
    mean, std = (torch.tensor(v, dtype=a.dtype).view(1, 3, 1, 1) for v in (vgg.IMAGENET_MEAN, vgg.IMAGENET_STD))
    runs = [copy.deepcopy(network[: p + 1]) for p in positions]
    return [(run((a - mean) / std) - run((b - mean) / std)).square().mean() for run in runs]


def test_layers_by_name_in_one_pass() -> None:
    network, (a, b) = narrow(), images(16)
    loss = VGGPerceptualLoss(layers=["conv5_4", "relu1_1", "pool2"], backbone=network, layer_weights={"pool2": 3.0})
    calls = [0] * len(network)
    for i, module in enumerate(network):
        module.register_forward_hook(lambda *_, i=i: calls.__setitem__(i, calls[i] + 1))
    got = loss.double()(a, b)
    assert max(calls) == 2, "every layer once per image"
    assert calls[35:] == [0, 0], "nothing after the deepest layer"
    deep, relu, pool = by_hand(network, [34, 1, 9], a, b)
    torch.testing.assert_close(got, (deep + relu + 3 * pool) / 5)


def test_in_place_layers_change_neither_images_nor_taps() -> None:
    network = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3), nn.ReLU(inplace=True)).double()
    a, b = (x - 0.5 for x in images())
    loss = VGGPerceptualLoss(layers=["conv1_1", "relu1_1"], backbone=network, mean=None, std=None)
    before = a.clone()
    taps = loss.features(a)
    assert torch.equal(a, before)
    assert (taps["conv1_1"] < 0).any()
    assert torch.equal(taps["relu1_1"], taps["conv1_1"].relu())
    assert loss(a, b) > 0


def test_target_has_no_graph_unless_asked() -> None:
    a, b = (x.requires_grad_() for x in images())
    for detach, reaches in ((True, False), (False, True)):
        for loss in (
            VGGPerceptualLoss(layers=["conv1_2"], backbone=narrow(), detach_target=detach),
            LPIPSLoss(backbone=SquaredDistance().double(), detach_target=detach),
        ):
            found = torch.autograd.grad(loss(a, b), [a, b], allow_unused=True)
            assert (found[1] is not None) is reaches
            assert found[0] is not None


def test_network_is_frozen_and_outside_the_state() -> None:
    network = narrow_vgg()
    loss = VGGPerceptualLoss(layers=["conv2_1"], backbone=network)
    assert list(loss.state_dict()) == []
    assert list(loss.parameters()) == []
    assert not any(p.requires_grad for p in network.parameters())
    assert loss.train().training
    assert not network.training
    assert next(loss.double().network.parameters()).dtype == torch.float64
    assert copy.deepcopy(loss).network is not network
    stream = io.BytesIO()
    torch.save(loss, stream)
    again = torch.load(io.BytesIO(stream.getvalue()), weights_only=False)
    a, b = images()
    assert torch.equal(loss(a, b), again(a, b))


def test_resize_and_gray() -> None:
    a, b = images(8, channels=1)
    loss = VGGPerceptualLoss(layers=["conv1_2"], backbone=narrow(), gray_to_rgb=True)
    torch.testing.assert_close(loss(a, b), loss(a.expand(-1, 3, -1, -1), b.expand(-1, 3, -1, -1)))
    with pytest.raises(ValueError, match=r"3 channels, found shape \[2, 1, 8, 8\] \(gray_to_rgb=True"):
        VGGPerceptualLoss(layers=["conv1_2"], backbone=narrow())(a, b)
    deep = VGGPerceptualLoss(layers=["conv5_1"], backbone=narrow(), resize=(16, 24))
    assert deep(*images(4)).isfinite()
    assert deep.features(images(4)[0])["conv5_1"].shape[2:] == (1, 1)


def test_reductions_and_distance() -> None:
    a, b = images(batch=3)
    make = {"layers": ["conv1_2", "conv2_1"], "backbone": narrow(), "distance": "l1"}
    parts = VGGPerceptualLoss(**make, reduction="none")(a, b)
    assert parts.shape == (3,)
    alone = VGGPerceptualLoss(**make)(a[1:2], b[1:2])
    torch.testing.assert_close(parts[1], alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ["conv1_3"]}, r"layers must be one or more distinct names of \['conv1_1', 'relu1_1'"),
        ({"layers": ["conv1_1", "conv1_1"]}, "distinct"),
        ({"layers": []}, "one or more"),
        ({"layer_weights": {"conv9_9": 1.0}}, "layer_weights must name layers"),
        ({"layers": ["conv1_1"], "layer_weights": {"conv1_1": 0.0}}, "must not all be 0"),
        ({"mean": None}, "together"),
        ({"distance": "cosine"}, "must be one of 'mse', 'l1'"),
        ({"weights": "random"}, "must be one of 'imagenet', None"),
        ({"backbone": nn.Linear(1, 1)}, "nn.Sequential or have one as features, found Linear"),
    ],
)
def test_constructor_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VGGPerceptualLoss(**options)


def test_image_errors() -> None:
    loss, (a, b) = VGGPerceptualLoss(backbone=narrow()), images(8)
    for rendered, target, message in (
        (a[:, :, :4], b[:, :, :4], "at least 8 x 8"),
        (a, b[:1], r"one shape \[B, C, H, W\]"),
        (a[:0], b[:0], "B >= 1"),
        ((a * 255).int(), b, "floating"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(rendered, target)


def test_weights_are_loaded_once_and_only_when_needed() -> None:
    with replaced_networks() as calls:
        loss = VGGPerceptualLoss(layers=["conv1_2"]).double()
        metric = LPIPSLoss().double()
        assert calls == []
        for _ in range(2):
            loss(*images())
            metric(*images(16))
        assert [c["name"] for c in calls] == ["vgg19", "LPIPS"]
        assert calls[0]["keywords"] == {"weights": "IMAGENET1K_V1"}
        combined = ImageWeightedSumLoss(lpips_weight=0.0, layers=["conv1_2"]).double()
        combined(*images())
        assert len(calls) == 3, "a term of weight 0 loads nothing"


def test_offline_weights_need_no_torchvision_and_no_random_state() -> None:
    before = torch.get_rng_state()
    with mock.patch.dict(sys.modules, {"torchvision": None}):
        loss = VGGPerceptualLoss(layers=["conv1_2", "conv2_2"], weights=None).double()
        values = [loss(*images()), VGGPerceptualLoss(layers=["conv1_2", "conv2_2"], weights=None).double()(*images())]
    assert torch.equal(*values)
    assert torch.equal(before, torch.get_rng_state())
    assert vgg.layer_positions(map(vgg._kind, loss.network)) == vgg.layer_positions(vgg.VGG19_KINDS)
    assert len(vgg.VGG19_KINDS) == 37


def test_missing_and_mismatched_torchvision() -> None:
    real = frozen.importlib.util.find_spec
    missing = lambda name: None if name == "lpips" else real(name)  # noqa: E731  a stand-in of one line
    with (
        mock.patch.dict(sys.modules, {name: m for name, m in sys.modules.items() if name != "lpips"}, clear=True),
        mock.patch.object(frozen.importlib.util, "find_spec", missing),
        pytest.raises(
            ImportError, match=r"LPIPSLoss needs the package lpips: pip install 'training-losses\[perceptual\]'"
        ),
    ):
        LPIPSLoss()
    broken = mock.Mock(side_effect=RuntimeError("operator torchvision::nms does not exist"))
    loss = VGGPerceptualLoss()
    with (
        mock.patch.object(frozen.importlib, "import_module", broken),
        pytest.raises(
            ImportError, match=rf"a torchvision that belongs to torch {torch.__version__.split('+')[0]}.*nms"
        ),
    ):
        loss(*images())


# -------------------------------------------------------------------------------------------------------------- LPIPS
def real_lpips(**options: Any) -> LPIPSLoss:
    import_torchvision()
    return LPIPSLoss(weights=None, **options)


def test_lpips_of_the_package() -> None:
    before = torch.get_rng_state()
    loss = real_lpips(reduction="none").train()
    a, b = (x.float() for x in images(16))
    value = loss(a, b)
    assert torch.equal(before, torch.get_rng_state())
    assert not loss.network.training, "dropout stays off"
    assert torch.equal(value, loss(a, b))
    torch.testing.assert_close(value, loss.network(2 * a - 1, 2 * b - 1).flatten())
    signed = LPIPSLoss(backbone=loss.network, input_range=(-1.0, 1.0))(2 * a - 1, 2 * b - 1)
    torch.testing.assert_close(signed, value.mean())
    bytes_range = LPIPSLoss(backbone=loss.network, input_range=(0.0, 255.0))(255 * a, 255 * b)
    torch.testing.assert_close(bytes_range, value.mean())
    safe = LPIPSLoss(backbone=loss.network, safe_norm=True, reduction="none")(a, b)
    torch.testing.assert_close(safe, value)
    spatial = LPIPSLoss(backbone=loss.network, safe_norm=True, spatial=True, reduction="none")(a, b)
    assert spatial.shape == (2, 16, 16)
    with pytest.raises(ValueError, match="at least 16 x 16"):
        loss(a[:, :, :15], b[:, :, :15])
    with pytest.raises(ValueError, match="safe_norm needs"):
        LPIPSLoss(backbone=SquaredDistance(), safe_norm=True)


def test_safe_norm_has_gradients_where_features_are_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    f, g = torch.rand(2, 1, 4, 2, 2, generator=generator, dtype=torch.float64)
    f[:, :, 0, 0] = 0
    weights = [torch.ones(4, dtype=torch.float64)]
    for safe, finite in ((False, False), (True, True)):
        leaf = f.clone().requires_grad_()
        total, _ = lpips_distance([leaf], [g], weights, safe_norm=safe)
        (gradient,) = torch.autograd.grad(total.sum(), leaf)
        assert bool(gradient.isfinite().all()) is finite
        assert total.isfinite().all()
    plain = lpips_distance([f], [g], weights)[0]
    torch.testing.assert_close(lpips_distance([f], [g], weights, safe_norm=True)[0], plain)


# ------------------------------------------------------------------------------------------------------- combinations
def trio() -> dict[str, nn.Module]:
    perceptual = VGGPerceptualLoss(layers=["conv1_2"], backbone=narrow())
    return {"perceptual": perceptual, "l1": nn.L1Loss(), "lpips": LPIPSLoss(backbone=SquaredDistance().double())}


def test_image_combinations() -> None:
    a, b = images()
    parts = {name: float(loss(a, b)) for name, loss in trio().items()}
    total = ImageWeightedSumLoss(networks=trio(), l1_weight=2.0)(rendered=a, target=b)
    assert float(total.loss) == pytest.approx(parts["perceptual"] + 2 * parts["l1"] + 0.05 * parts["lpips"])
    mean = ImageGeometricMeanLoss(networks=trio(), eps=0.0)(a, b)
    assert float(mean.loss) == pytest.approx(math.prod(parts.values()) ** (1 / 3))
    product = ImageProductLoss(networks=trio(), normalize=False, product_weight=0.5, eps=1e-9)(a, b)
    assert float(product.loss) == pytest.approx(0.5 * sum(parts.values()) + 0.5 * math.prod(parts.values()), rel=1e-6)
    with pytest.raises(ValueError, match="networks must name perceptual, l1 and lpips, found"):
        ImageWeightedSumLoss(networks={"l1": nn.L1Loss()})
    with pytest.raises(ValueError, match="belong together"):
        ImageGeometricMeanLoss(ramp_length=3)


def test_the_ramp_follows_the_old_one_over_epochs() -> None:
    with replaced_networks():
        old = twin("triangulate.geometric_mean.AdaptiveGeometricMeanLoss")(vgg_layers=["conv1_2"], device="cpu")
    new = ImageGeometricMeanLoss(
        networks=trio(), floor_weight=0.001, final_floor_weight=0.1, ramp_length=50, floor_mode="value"
    ).double()
    for epoch in (0, 1, 12.5, 25, 49, 50, 200, 3):
        old.update_epoch(epoch)
        new.step_schedule(epoch)
        assert float(new.floor_weight) == pytest.approx(old.regularization_weight, rel=1e-12)
    old.update_epoch(-5)
    new.step_schedule(-5)
    assert old.regularization_weight < 0 < float(new.floor_weight), "the old ramp extrapolated"


# ------------------------------------------------------------------------- deviations from the twins, and their causes
def test_old_constants_were_float32() -> None:
    network, (a, b) = narrow(), images()
    with replaced_networks(lambda **_: mock.Mock(features=copy.deepcopy(network))):
        old = twin("triangulate.perceptual.VGGPerceptualLoss")(["conv1_2"], "cpu").double()(a, b)
    exact = VGGPerceptualLoss(layers=["conv1_2"], backbone=network)(a, b)
    mean, std = (torch.tensor(v).double().tolist() for v in (vgg.IMAGENET_MEAN, vgg.IMAGENET_STD))
    rounded = VGGPerceptualLoss(layers=["conv1_2"], backbone=network, mean=mean, std=std)(a, b)
    assert mean[0] == 0.48500001430511475
    assert 1e-10 < abs(float(exact / old) - 1) < 1e-6
    torch.testing.assert_close(rounded, old, rtol=1e-13, atol=0)


def test_old_averaging_factor_was_float32() -> None:
    with replaced_networks():
        old = twin("triangulate.multiplicative.MultiplicativeLoss")(["conv1_2"], "cpu").double()
    new = ImageProductLoss(networks=trio()).double()
    for step in range(3):
        old.update_stats(0.1 * (step + 1), 0.2, 0.3)
        new.combine(
            {
                n: torch.tensor(x, dtype=torch.float64)
                for n, x in zip(("perceptual", "l1", "lpips"), (0.1 * (step + 1), 0.2, 0.3), strict=True)
            }
        )
    exact = float(new.running_mean.perceptual)
    assert exact == pytest.approx(0.2, rel=1e-14)
    assert 1e-10 < abs(float(old.perceptual_mean) - 0.2) < 1e-7


def test_negative_weights_and_zeros() -> None:
    with replaced_networks():
        old = twin("triangulate.perceptual.CombinedLoss")(alpha=-1.0, vgg_layers=["conv1_2"], device="cpu")
        assert old(*(x.float() for x in images()))["perceptual"] == 0
    with pytest.raises(ValueError, match=r"weights\['perceptual'\] must be a number at least 0"):
        ImageWeightedSumLoss(networks=trio(), perceptual_weight=-1.0)
    with pytest.raises(ValueError, match="must not all be 0"):
        ImageWeightedSumLoss(networks=trio(), perceptual_weight=0, l1_weight=0, lpips_weight=0)


def test_old_logarithms_of_zero_and_negative_losses() -> None:
    def old(value: float, epsilon: float) -> float:
        with replaced_networks():
            loss = twin("triangulate.geometric_mean.GeometricMeanLoss")(["conv1_2"], "cpu", epsilon=epsilon)
        give(loss, {name: torch.tensor(value) for name in ("perceptual", "l1", "lpips")})
        return float(loss(*(x.float() for x in images()))["total"])

    def new(value: float, epsilon: float) -> float:
        loss = ImageGeometricMeanLoss(networks=trio(), objective="log_sum", eps=epsilon)
        return float(loss.combine({name: torch.tensor(value) for name in ("perceptual", "l1", "lpips")}).loss)

    assert old(0.0, 0.0) == -math.inf
    assert math.isnan(old(-1.0, 1e-8))
    assert math.isfinite(new(0.0, 0.0))
    assert math.isfinite(new(-1.0, 1e-8))
    assert old(0.5, 1e-8) == pytest.approx(new(0.5, 1e-8), rel=1e-6)


def test_old_degenerate_layers_and_state() -> None:
    a, b = (x.float() for x in images())
    with replaced_networks():
        vgg_twin = twin("triangulate.perceptual.VGGPerceptualLoss")
        with pytest.raises(ZeroDivisionError):
            vgg_twin([], "cpu")(a, b)
        once, twice = vgg_twin(["conv1_2"], "cpu"), vgg_twin(["conv1_2", "conv1_2"], "cpu")
        twice.load_state_dict(once.state_dict())
        assert float(twice(a, b)) == pytest.approx(float(once(a, b)) / 2), "divided by the listed names"
        assert len(once.state_dict()) > 2, "the frozen network was part of the state"
        hybrid = twin("triangulate.multiplicative.HybridLoss")(alpha=0.0, vgg_layers=["conv1_2"], device="cpu")
        assert hybrid(a, b)["perceptual"] == 0, "a term without weight was reported as 0"
    new = ImageProductLoss(networks=trio(), perceptual_weight=0.0, product_weight=0.1).double()
    assert new(*images())["terms.perceptual"] > 0
