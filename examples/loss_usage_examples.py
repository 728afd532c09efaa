"""Every usage of the joint-embedding losses, runnable: python examples/loss_usage_examples.py

Basic, combined, hierarchical with different VICReg settings per level, from a configuration, from YAML, in a training
loop.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "checkout"))

from training_losses import create_loss_from_config, dump_config
from training_losses.base.schedules import Curriculum
from training_losses.contrastive.vicreg import VICRegLoss
from training_losses.predictive import HJEPACombinedLoss, HJEPALoss, SIGRegLoss

WEIGHTS = [1.0, 0.7, 0.5]


def batch(seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    """Predictions and targets on three levels: 16, 8 and 4 tokens of width 32 for 8 images."""
    g = torch.Generator().manual_seed(seed)
    made = [[torch.randn(8, tokens, 32, generator=g) for tokens in (16, 8, 4)] for _ in range(2)]
    return made[0], made[1]


def show(title: str, out: dict[str, Tensor]) -> None:
    shown = [f"{key} {value:.4f}" for key, value in out.items() if not key.startswith(("vicreg_inv", "vicreg_cov"))]
    print(f"{title}\n    {', '.join(shown[:8])}")


def basic() -> None:
    predictions, targets = batch()
    show("HJEPALoss", HJEPALoss(hierarchy_weights=WEIGHTS)(predictions, targets))
    masks = [torch.rand(8, p.shape[1], generator=torch.Generator().manual_seed(1)) > 0.5 for p in predictions]
    show("HJEPALoss, hidden patches only", HJEPALoss(hierarchy_weights=WEIGHTS)(predictions, targets, masks))


def regularisers() -> None:
    g = torch.Generator().manual_seed(2)
    view_a, view_b = torch.randn(2, 64, 32, generator=g)
    show("VICRegLoss", VICRegLoss()(view_a, view_b))
    show("SIGRegLoss", SIGRegLoss(num_slices=128)(view_a))


def combined() -> None:
    predictions, targets = batch()
    show("HJEPACombinedLoss", HJEPACombinedLoss(hierarchy_weights=WEIGHTS)(predictions, targets))
    sigreg = HJEPACombinedLoss(regularizer=SIGRegLoss(num_slices=128), regularizer_weight=0.05)
    show("HJEPACombinedLoss with SIGReg", sigreg(predictions, targets))


def per_level() -> None:
    configs = [
        {"variance_weight": 25.0},
        {"variance_weight": 15.0, "covariance_weight": 0.5},
        {"variance_weight": 10.0},
    ]
    loss = HJEPACombinedLoss(hierarchy_weights=WEIGHTS, regularizer_weight=[0.1, 0.05, 0.025], vicreg_configs=configs)
    show("VICReg with other settings per level", loss(*batch()))


def from_config() -> None:
    old = {"type": "combined", "hierarchy_weights": WEIGHTS, "vicreg_weight": 0.1}
    loss = create_loss_from_config({"loss": old, "model": {"num_hierarchies": 3}})
    show("from an old dictionary", loss(*batch()))
    for preset in ("small_scale", "imagenet_scale", "fine_tuning"):
        show(f"preset {preset}", create_loss_from_config({"preset": preset})(*batch()))
    assert dump_config(create_loss_from_config(dump_config(loss))) == dump_config(loss)


def from_yaml() -> None:
    text = """
    loss:
      name: hjepa_combined
      kwargs:
        hierarchy_weights: [1.0, 0.7, 0.5]
        regularizer_weight: 0.1
        vicreg_eps: 1.0e-4
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "loss.yaml"
        path.write_text(text)
        show("from YAML", create_loss_from_config(path)(*batch()))


def training() -> None:
    torch.manual_seed(0)
    predictor = nn.Linear(32, 32)
    loss = HJEPALoss(schedules={"hierarchy_weights": Curriculum(weights=WEIGHTS, starts=[0, 10, 20], length=5)})
    optimizer = torch.optim.Adam(predictor.parameters(), lr=0.01)
    predictions, targets = batch()
    for step in range(30):
        loss.step_schedule(step)
        out = loss([predictor(p) for p in predictions], targets)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    show("after 30 steps with a curriculum over levels", out)


EXAMPLES = (basic, regularisers, combined, per_level, from_config, from_yaml, training)

if __name__ == "__main__":
    for example in EXAMPLES:
        example()
