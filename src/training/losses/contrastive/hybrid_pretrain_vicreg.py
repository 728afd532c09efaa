"""Contrastive pre-training that hands over to VICReg."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..base import BaseContrastiveLoss, Ids, LossOutput, require_features, require_numbers, require_one_dtype
from ..functional import info_nce, l2_normalize, retrieval_metrics
from ..loss_registry import LossRegistry
from .vicreg import VICRegLoss


@LossRegistry.register("hybrid_pretrain_vicreg")
class HybridPretrainVICRegLoss(BaseContrastiveLoss):
    """Symmetric InfoNCE first, VICReg once the two modalities are aligned.

    For encoders with which VICReg alone does not start. ``update_step``, called after each step, moves the phase.

    With cosines ``c_ij``, the alignment gap ``g = mean_i c_ii - mean_ij c_ij`` and progress ``p``::

        loss = (1 - p) InfoNCE(c / t) + p VICReg

    ``p`` is 0 until ``g`` exceeds the threshold or ``pretrain_steps`` is reached; then it grows to 1 within
    ``transition_steps`` and never falls. Samples of one id are positives of each other. Both terms are always computed.

    Args:
        invariance_weight, variance_weight, covariance_weight, eps, center_invariance, warmup, warmup_epochs,
            num_epochs: of the VICReg part, see ``VICRegLoss``.
        temperature: ``t`` of the InfoNCE part.
        pretrain_steps, alignment_threshold: deadline of the first phase, gap that ends it; one of them may be ``None``.
        gap_momentum: ``g`` is averaged over forward passes in training mode with this momentum; 0: the last one alone.
        transition_steps: length of the hand-over; 0 switches at once.
        input_dim, projection_dim: widths of the features and behind the heads ``vision_head`` (of ``z_a``) and
            ``text_head`` (of ``z_b``). Default: no heads. Give their ``parameters()`` to the optimiser.
        normalize_input: scale rows to unit length before the heads.
        project_vicreg: VICReg and the gap see what the heads give (one space for both phases), not the features.
        metrics: report accuracies and recalls as well.

    Shapes: ``z_a``, ``z_b`` ``[B, D]`` with ``B >= 2``; ``match_ids``: one id per row.

    Returns:
        ``LossOutput``: ``loss``; ``contrastive_loss``, ``vicreg_loss``, ``contrastive_weight``, ``vicreg_weight``,
        ``transition_progress``, ``pretrain_progress``; ``diagonal_similarity``, ``mean_similarity``,
        ``alignment_gap``, ``alignment_snr`` (gap over the standard deviation of the cosines), ``temperature``; the
        parts and weights of ``VICRegLoss``; with ``metrics`` those of ``CLIPLoss``. All but ``loss`` are detached.

    Raises:
        ValueError: an argument out of range, unfit shapes or ids, one row only, neither deadline nor threshold.

    No paper. The old class ignored the deadline beside a threshold, compared in two spaces, rebuilt its heads, drew one
    positive, returned other keys in each phase, could run backwards, and did not save its phase.
    """

    head_inputs = {"vision": "z_a", "text": "z_b"}
    changing = ("alignment_gap",)

    def __init__(
        self,
        *,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        eps: float = 1e-4,
        center_invariance: bool = False,
        warmup: str | None = None,
        warmup_epochs: int = 10,
        num_epochs: int = 100,
        temperature: float = 0.07,
        pretrain_steps: int | None = 300,
        alignment_threshold: float | None = 0.3,
        gap_momentum: float = 0.0,
        transition_steps: int = 100,
        input_dim: int | None = None,
        projection_dim: int | None = None,
        normalize_input: bool = False,
        project_vicreg: bool = True,
        metrics: bool = False,
    ) -> None:
        super().__init__(temperature=temperature, input_dim=input_dim, projection_dim=projection_dim)
        if pretrain_steps is None and alignment_threshold is None:
            raise ValueError("pretrain_steps and alignment_threshold must not both be None")
        require_numbers(0, integer=True, optional=True, pretrain_steps=pretrain_steps)
        require_numbers(optional=True, alignment_threshold=alignment_threshold)
        require_numbers(0.0, 1.0, gap_momentum=gap_momentum)
        require_numbers(0, integer=True, transition_steps=transition_steps)
        self.pretrain_steps, self.alignment_threshold = pretrain_steps, alignment_threshold
        self.gap_momentum, self.transition_steps = gap_momentum, transition_steps
        self.normalize_input, self.project_vicreg, self.metrics = normalize_input, project_vicreg, metrics
        self.vicreg = VICRegLoss(
            invariance_weight=invariance_weight,
            variance_weight=variance_weight,
            covariance_weight=covariance_weight,
            eps=eps,
            center_invariance=center_invariance,
            warmup=warmup,
            warmup_epochs=warmup_epochs,
            num_epochs=num_epochs,
        )
        self.step, self.trigger_step = nn.Buffer(torch.tensor(0)), nn.Buffer(torch.tensor(-1))
        self.transition_progress, self.alignment_gap = nn.Buffer(torch.zeros(())), nn.Buffer(torch.zeros(()))

    def update_epoch(self, epoch: int) -> None:
        """Tell the warm-up of VICReg the epoch."""
        self.vicreg.update_epoch(epoch)

    @torch.no_grad()
    def update_step(self, step: int, total_steps: int) -> None:
        """Move the phase: the step just done, counted from the start of the run, and the length of the run."""
        self.vicreg.update_step(step, total_steps)
        self.step.fill_(step)
        deadline = math.inf if self.pretrain_steps is None else self.pretrain_steps
        threshold = math.inf if self.alignment_threshold is None else self.alignment_threshold
        due = (self.step >= deadline) | (self.alignment_gap > threshold)
        started = self.trigger_step >= 0
        self.trigger_step.copy_(torch.where(due & ~started, self.step, self.trigger_step))
        done = (self.step - self.trigger_step) / self.transition_steps if self.transition_steps else started | due
        progress = torch.where(self.trigger_step >= 0, done, 0.0).clamp(0, 1).to(self.transition_progress.dtype)
        self.transition_progress.copy_(torch.maximum(self.transition_progress, progress))

    @property
    def phase(self) -> str:
        """``contrastive_pretrain``, ``transition`` or ``vicreg``. Reads the state from the device: for logs."""
        if float(self.transition_progress) >= 1:
            return "vicreg"
        return "contrastive_pretrain" if int(self.trigger_step) < 0 else "transition"

    def forward(self, z_a: Tensor, z_b: Tensor, match_ids: Ids | None = None) -> LossOutput:
        """The loss of one batch."""
        require_features(z_a=z_a, z_b=z_b)
        require_one_dtype(z_a=z_a, z_b=z_b)
        positive = None if match_ids is None else self.create_positive_mask(len(z_a), match_ids, device=z_a.device)
        given = (l2_normalize(z_a), l2_normalize(z_b)) if self.normalize_input else (z_a, z_b)
        projected = self.project(vision=given[0], text=given[1])
        seen = projected if self.project_vicreg else (z_a, z_b)
        vicreg, logits = self.vicreg(*seen), self.compute_similarity(*projected)
        alignment = self._align(logits if self.project_vicreg else self.compute_similarity(z_a.detach(), z_b.detach()))
        logits = self.scale_by_temperature(logits)
        # before there is a graph of InfoNCE, which takes memory
        metrics = retrieval_metrics(logits.detach(), positive) if self.metrics else {}
        contrastive = (info_nce(logits, positive).mean() + info_nce(logits, positive, dim=0).mean()) / 2
        # a copy: update_step may move it before the backward pass
        ahead = self.transition_progress.to(contrastive.dtype, copy=True)
        loss = (1 - ahead) * contrastive + ahead * vicreg.loss
        deadline = math.inf if self.pretrain_steps is None else max(self.pretrain_steps, 1)
        entries = {"contrastive_loss": contrastive, "vicreg_loss": vicreg.loss, "contrastive_weight": 1 - ahead}
        entries |= {"vicreg_weight": ahead, "transition_progress": ahead}
        entries["pretrain_progress"] = (self.step.to(ahead.dtype) / deadline).clamp(max=1)
        entries["temperature"] = torch.ones_like(ahead) * self._fixed_temperature
        entries |= alignment | {key: value for key, value in vicreg.items() if key != "loss"} | metrics
        return self.output(loss, **entries)

    @torch.no_grad()
    def _align(self, cosines: Tensor) -> dict[str, Tensor]:
        diagonal, mean = cosines.diagonal().mean(), cosines.mean()
        gap = diagonal - mean
        if self.training:
            self.alignment_gap.lerp_(gap.to(self.alignment_gap.dtype), 1 - self.gap_momentum)
        snr = gap.abs() / (cosines.std() + 1e-6)
        return {"diagonal_similarity": diagonal, "mean_similarity": mean, "alignment_gap": gap, "alignment_snr": snr}
