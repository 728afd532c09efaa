"""The optional recorded cases of triangulate, formulas of papers and LPIPS itself, met by the new classes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.golden import Case, load_cases, replay
from tests.support.torchvision_ops import import_torchvision
from training_losses.balancing import GeometricMeanLoss, GradNormLoss, UncertaintyWeightedLoss
from training_losses.perceptual import LPIPSLoss, lpips_distance


def named(values: Tensor) -> dict[str, Tensor]:
    return {f"task{i}": value for i, value in enumerate(values.unbind())}


def paper_uncertainty(losses: Tensor, log_variances: Tensor, kinds: list[str]) -> dict[str, Tensor]:
    values = named(losses)
    loss = UncertaintyWeightedLoss(names=list(values), likelihood=dict(zip(values, kinds, strict=True))).double()
    parameters = {f"log_variance.{name}": s for name, s in zip(values, log_variances.unbind(), strict=True)}
    out = torch.func.functional_call(loss, parameters, (values,))
    return {"total": out.loss, "terms": torch.stack([out[f"weighted.{name}"] for name in values])}


def paper_geometric(losses: Tensor, focus: tuple[int, ...] = ()) -> dict[str, Tensor]:
    return {"total": GeometricMeanLoss(eps=0.0, focus=[f"task{i}" for i in focus])(named(losses)).loss}


def paper_gradnorm(
    shared: Tensor,
    matrices: list[Tensor],
    offsets: list[Tensor],
    alpha: float,
    lr_weights: float,
    lr_shared: float,
    steps: int,
    initial: Any = None,
) -> dict[str, Any]:
    names = list(named(torch.zeros(len(matrices))))
    given = None if initial is None else dict(zip(names, torch.as_tensor(initial).tolist(), strict=True))
    loss = GradNormLoss(names=names, alpha=alpha, lr=lr_weights, initial_losses=given).double()
    if given is not None:
        loss.initial_loss.write(torch.as_tensor(initial))
    w = shared.detach().clone().requires_grad_()
    trace = []
    for _ in range(steps):
        values = {n: (a @ w - b).square().mean() for n, a, b in zip(names, matrices, offsets, strict=True)}
        total = loss(values).loss
        trace.append(loss.balance(values, w))
        (gradient,) = torch.autograd.grad(total, w)
        w = (w - lr_shared * gradient).detach().requires_grad_()
    return {"trace": trace, "final_weights": loss.weight.stack(), "final_shared": w}


def scenario_lpips_features(
    features0: list[Tensor], features1: list[Tensor], linear_weights: list[Tensor]
) -> dict[str, Any]:
    total, layers = lpips_distance(features0, features1, linear_weights)
    return {"total": total, "per_layer": layers}


def scenario_lpips_seeded(image0: Tensor, image1: Tensor, normalize: bool) -> dict[str, Any]:
    """LPIPSLoss around the package's network with the recorder's random trunk."""
    import_torchvision()
    import lpips

    torch.manual_seed(123)
    network = lpips.LPIPS(net="vgg", spatial=False, pnet_rand=True, verbose=False)
    loss = LPIPSLoss(
        backbone=network,
        input_range=(0.0, 1.0) if normalize else (-1.0, 1.0),
        detach_target=False,
        reduction="none",
    ).train()
    layers = network(image0, image1, retPerLayer=True, normalize=normalize)[1]
    return {"total": loss(image0, image1).view(-1, 1, 1, 1), "per_layer": layers}


NEW = SimpleNamespace(
    scenario_lpips_features=scenario_lpips_features,
    scenario_lpips_seeded=scenario_lpips_seeded,
    paper_uncertainty=paper_uncertainty,
    paper_geometric=paper_geometric,
    paper_gradnorm=paper_gradnorm,
)
CASES = [case for module in ("paper_formulas", "lpips_wrapper") for case in load_cases("triangulate", module)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_optional_case(case: Case) -> None:
    replay(case, resolve=lambda system, module: NEW)
