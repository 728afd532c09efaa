"""VICReg and its adaptive form."""

import torch
from torch import nn

from tests.contract.record import LossRecord, two_views

GRAD = ("z_a", "z_b")


def warm_up(loss: nn.Module, step: int) -> None:
    loss.update_epoch(step)
    loss.update_step(3 * step, 60)


def adapt(loss: nn.Module, step: int) -> None:
    terms = zip(("invariance", "variance", "covariance"), torch.tensor([1.0 + step, 0.5, 0.1]), strict=True)
    loss.update_weights({f"{name}_loss": term for name, term in terms})


RECORDS = [
    LossRecord("vicreg", two_views(), GRAD, single="error"),
    LossRecord("vicreg", two_views(3), GRAD, variant="tall", kwargs={"chunk_size": 2}, single="error", batch=5),
    LossRecord(
        "vicreg",
        two_views(3, 2),
        GRAD,
        variant="options",
        kwargs={
            "center_invariance": True,
            "view_reduction": "mean",
            "covariance_norm": "pairs",
            "tokens": "concat",
            "chunk_size": 4,
            "checkpoint": True,
            "warmup": "cosine",
            "warmup_epochs": 5,
            "num_epochs": 10,
        },
        advance=warm_up,
        single="error",
    ),
    LossRecord("adaptive_vicreg", two_views(), GRAD, advance=adapt, single="error"),
    LossRecord("adaptive_vicreg", two_views(), GRAD, variant="learnable", kwargs={"learnable": True}, single="error"),
]
