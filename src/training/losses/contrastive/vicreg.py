"""Variance-invariance-covariance regularisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..base import BaseLoss, LossOutput, require_choice, require_number, require_numbers
from ..base.views import require_tokens, split_views, token_rows
from ..base.warmup import WarmupFactor
from ..functional import moments, squared_difference
from ..loss_registry import LossRegistry


@LossRegistry.register("vicreg")
class VICRegLoss(BaseLoss):
    """VICReg: two views agree, every dimension keeps its spread, dimensions stay uncorrelated.

    For self-supervised learning without negatives, or against collapse of a prediction loss; with 64 rows or more.

    With rows ``a_i, b_i`` (``i = 1..n``, ``d`` columns), ``Var`` and ``Cov`` unbiased, ``f`` the warm-up (else 1)::

        I    = 1/(n d) sum_ik (a_ik - b_ik)^2
        V(x) = 1/d sum_k max(0, t - sqrt(Var(x_k) + eps))
        K(x) = 1/d sum_{k != l} Cov(x)_kl^2
        loss = w_I I + f w_V (V(a) + V(b)) + f w_C (K(a) + K(b))

    The paper sums ``I`` over the columns; its code takes the mean, as here, and halves ``V(a) + V(b)``, unlike here.

    For ``K`` each view holds the smaller of an ``n x n`` and a ``d x d`` matrix (equal sums of squares) until backward.

    Args:
        invariance_weight, variance_weight, covariance_weight: ``w_I``, ``w_V``, ``w_C``, attributes read at every call.
        variance_threshold: ``t``, the standard deviation below which a dimension pays.
        eps: keeps the gradient of a constant column finite.
        center_invariance: subtract the column means before ``I``, so that a constant offset between the views is free.
        view_reduction: ``sum`` (paper) or ``mean`` over the two views, for ``V`` and ``K`` alike.
        covariance_norm: ``features`` divides ``K`` by ``d`` (paper), ``pairs`` by ``d (d - 1)``.
        tokens: ``flatten`` makes each token of ``[B, N, D]`` a row, ``concat`` joins those of a sample (``d = N D``).
        split_single_input: accept ``z_b=None`` and compare the first half of the batch with the second.
        warmup, warmup_epochs, num_epochs: ``linear``, ``cosine`` or ``damped`` factor ``f`` (default: 1), its length,
            and that of the run, to convert steps into epochs (see ``base.warmup.WarmupFactor``).
        chunk_size: columns of that matrix that are formed at a time, in the backward pass again; default: all.
        checkpoint: form the matrix again in the backward pass instead of holding it.

    Shapes: ``z_a``, ``z_b`` ``[B, D]`` or ``[B, N, D]``, at least two rows (half precision is summed in float32).

    Returns:
        ``LossOutput``: ``loss``; unweighted ``invariance_loss``, ``variance_loss``, ``covariance_loss`` (after
        ``view_reduction``) and their parts ``variance_loss_a``, ``variance_loss_b``, ``covariance_loss_a``,
        ``covariance_loss_b``; ``invariance_weight``, ``variance_weight``, ``covariance_weight`` as applied (warm-up
        included) and ``warmup_factor``. All but ``loss`` are detached.

    Raises:
        ValueError: unequal shapes, fewer than two rows, an argument out of range.

    Paper: Bardes, Ponce, LeCun, ICLR 2022 (arXiv 2105.04906). The old classes had other weights and another ``K``,
    gave NaN for one row or one column, and their warm-up was always on, never ended and was not saved.
    """

    shown = ("invariance_weight", "variance_weight", "covariance_weight", "eps")

    def __init__(
        self,
        *,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        variance_threshold: float = 1.0,
        eps: float = 1e-4,
        center_invariance: bool = False,
        view_reduction: str = "sum",
        covariance_norm: str = "features",
        tokens: str = "flatten",
        split_single_input: bool = False,
        warmup: str | None = None,
        warmup_epochs: int = 10,
        num_epochs: int = 100,
        chunk_size: int | None = None,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        weights = {"invariance": invariance_weight, "variance": variance_weight, "covariance": covariance_weight}
        for term, weight in weights.items():
            require_number(f"{term}_weight", weight, low=0.0)
            setattr(self, f"{term}_weight", weight)
        require_numbers(0.0, exclusive=True, variance_threshold=variance_threshold, eps=eps)
        require_choice("view_reduction", view_reduction, ("sum", "mean"))
        require_choice("covariance_norm", covariance_norm, ("features", "pairs"))
        require_tokens(tokens)
        require_numbers(1, integer=True, optional=True, chunk_size=chunk_size)
        self.variance_threshold, self.eps, self.center_invariance = variance_threshold, eps, center_invariance
        self.view_reduction, self.covariance_norm = view_reduction, covariance_norm
        self.tokens, self.split_single_input = tokens, split_single_input
        self.chunk_size, self.checkpoint = chunk_size, checkpoint
        lengths = {"warmup_epochs": warmup_epochs, "num_epochs": num_epochs}
        self.warmup = None if warmup is None else WarmupFactor(warmup, **lengths)

    def update_epoch(self, epoch: int) -> None:
        """Tell the warm-up the epoch, counted from 0 (nothing without one)."""
        if self.warmup is not None:
            self.warmup.update_epoch(epoch)

    def update_step(self, step: int, total_steps: int) -> None:
        """Tell the warm-up the step and the length of the run (nothing without one)."""
        if self.warmup is not None:
            self.warmup.update_step(step, total_steps)

    def forward(self, z_a: Tensor, z_b: Tensor | None = None) -> LossOutput:
        """The loss of two views of one batch."""
        a, b = (token_rows(z, self.tokens) for z in split_views(z_a, z_b, split_single_input=self.split_single_input))
        terms = {"invariance": squared_difference(a, b, centered=self.center_invariance)}
        parts: dict[str, Tensor] = {}
        for name, of_a, of_b in zip(("variance", "covariance"), self._spread(a), self._spread(b), strict=True):
            terms[name] = (of_a + of_b) * (0.5 if self.view_reduction == "mean" else 1.0)
            parts |= {f"{name}_loss_a": of_a, f"{name}_loss_b": of_b}
        return self._weighted(terms, **parts)

    def regularize(self, z: Tensor) -> LossOutput:
        """Variance and covariance of one set of embeddings, each counted once; there is no invariance."""
        variance, covariance = self._spread(token_rows(z, self.tokens))
        return self._weighted({"variance": variance, "covariance": covariance})

    def _weighted(self, terms: Mapping[str, Tensor], **parts: Tensor) -> LossOutput:
        like = terms["variance"]
        factor = like.new_ones(()) if self.warmup is None else self.warmup(like)
        # copies, because update_weights of the adaptive class writes between forward and backward
        weights = {name: (like.new_ones(()) * getattr(self, f"{name}_weight")).to(like.dtype) for name in terms}
        weights |= {name: factor * weights[name] for name in ("variance", "covariance")}
        loss = sum((weights[name] * term for name, term in terms.items()), start=like.new_zeros(()))
        entries = {f"{name}_loss": term for name, term in terms.items()} | parts
        entries |= {f"{name}_weight": weight for name, weight in weights.items()}
        return self.output(loss, **entries, warmup_factor=factor)

    def _spread(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The variance and the covariance term of one view."""
        if x.shape[0] < 2:
            raise ValueError(f"variance and covariance need at least two rows, found {list(x.shape)}")
        variance, energy = moments(x, chunk_size=self.chunk_size, recompute=self.checkpoint)
        pairs = x.shape[1] * (max(x.shape[1] - 1, 1) if self.covariance_norm == "pairs" else 1)
        return F.relu(self.variance_threshold - (variance + self.eps).sqrt()).mean(), energy / pairs


@LossRegistry.register("adaptive_vicreg")
class AdaptiveVICRegLoss(VICRegLoss):
    """VICReg whose weights move towards the terms that are small.

    ``update_weights(output)`` sets each weight to ``m w + (1 - m) s (1 - term / (sum of the terms + eps))`` with the
    momentum ``m`` and the scales ``s``. The smallest term gets the largest weight. Call it once per training step,
    before or after ``backward``. A home-made rule without a paper; for learned weights prefer ``uncertainty``.

    Args:
        momentum: ``m`` in [0, 1].
        weight_scales: ``s`` of invariance, variance and covariance.
        learnable: make the weights parameters as well. Their gradient is the term itself, which is never negative: an
            optimiser that gets them drives them below zero, so this is of use only for its ``state_dict``.
        kwargs: those of ``VICRegLoss``; the weights given there are the initial ones.

    The weights are buffers (or parameters) ``invariance_weight``, ``variance_weight`` and ``covariance_weight``.
    Shapes, result, errors: as ``VICRegLoss``. In the old class they were parameters, and ``update_weights`` waited for
    the device and disturbed a pending backward pass.
    """

    def __init__(
        self,
        *,
        momentum: float = 0.99,
        weight_scales: Sequence[float] = (30.0, 30.0, 2.0),
        learnable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_numbers(0.0, 1.0, momentum=momentum)
        if len(weight_scales) != 3:
            raise ValueError(f"weight_scales must be three numbers, found {weight_scales!r}")
        for scale in weight_scales:
            require_numbers(0.0, weight_scales=scale)
        self.momentum, self.weight_scales = momentum, tuple(weight_scales)
        for name in ("invariance_weight", "variance_weight", "covariance_weight"):
            value = torch.tensor(float(self.__dict__.pop(name)))
            if learnable:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    @torch.no_grad()
    def update_weights(self, output: Mapping[str, Tensor]) -> None:
        """Move the weights, given what ``forward`` returned; terms that are not finite leave them as they are."""
        terms = {name: output[f"{name}_loss"].detach() for name in ("invariance", "variance", "covariance")}
        total = sum(terms.values(), start=torch.full_like(terms["invariance"], self.eps))
        for scale, (name, term) in zip(self.weight_scales, terms.items(), strict=True):
            weight = getattr(self, f"{name}_weight")
            moved = weight.lerp((scale * (1 - term / total)).to(weight.dtype), 1 - self.momentum)
            weight.copy_(torch.where(total.isfinite(), moved, weight))
