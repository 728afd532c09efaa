"""Losses of joint-embedding prediction."""

from __future__ import annotations

from .contrastive_jepa import ContrastiveJEPALoss
from .hjepa import HJEPALoss
from .hjepa_combined import HJEPACombinedLoss
from .sigreg import SIGRegLoss

__all__ = ["ContrastiveJEPALoss", "HJEPACombinedLoss", "HJEPALoss", "SIGRegLoss"]
