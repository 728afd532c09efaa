"""Weights that equalise the training rates of several losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

from ..base import LossOutput, require_number
from ..base.schedules import Schedule
from ..functional import upcast
from ..loss_registry import LossRegistry
from .balancer import Arguments, NamedScalars, Names, TermBalancer, Terms, stack_values, tagged

__all__ = ["GradNormLoss"]


@LossRegistry.register("gradnorm")
class GradNormLoss(TermBalancer):
    """Adapt the weights so that all terms pull on the shared parameters in proportion to how far they lag.

    Use it when terms share a trunk and their gradients there differ in size by orders of magnitude. Per update, with
    shared parameters ``W``, weights ``w_i`` (all 1 at the start) and ``T`` terms:

    * ``G_i = |grad_W (w_i L_i)|_2``, over all elements of ``W`` together; mean ``mean(G)``;
    * inverse training rate ``r_i = p_i / mean_j p_j``, with ``p_i = L_i / L_i(0)``;
    * targets ``target_i = mean(G) r_i^alpha``, constants;
    * ``w_i <- w_i - lr d/dw_i sum_j |G_j - target_j|``, at least ``min_weight``, then scaled to ``sum_i w_i = T``.

    ``forward`` gives ``sum_i w_i L_i`` with constant weights; ``balance`` does the rest::

        values = {"depth": ..., "normals": ...}
        out = loss(values)
        loss.balance(values, trunk.last_layer.parameters())    # before backward frees the graph
        out.loss.backward()

    It needs one backward pass per term down to ``W``. With an activation in place of the parameters (the rendered
    image, the trunk's output) there is no pass through the network at all: the norms then measure what each term asks
    of that activation.

    Args:
        terms: name -> loss, see ``TermBalancer``; ``compute`` gives the values for ``balance``.
        arguments: per owned term, its parameter -> keyword of the call, where the two differ.
        names: or the names of the given values.
        alpha: strength of the pull towards equal rates; 0 equalises the norms. 1.5 for unlike tasks, 0.12
            for like ones.
        lr: step size of the weights, plain gradient descent. May be scheduled.
        initial_losses: ``L_i(0)`` for every name, where the first measured values depend too much on the
            initialisation (``log C`` for a cross entropy of C classes); ``None``: the first measured ones.
        min_weight: lower bound of a weight before scaling; keeps them positive.
        schedules: of ``lr``.

    Returns:
        ``LossOutput`` with ``loss``, ``terms.<name>`` (raw), ``weights.<name>``, ``weighted.<name>``.

    State: ``weight.<name>``, ``initial_loss.<name>``, ``started``. Partial sums between micro-batches are not part of
    it: save after an update.

    Raises:
        ValueError: neither terms nor names, numbers out of range, wrong values; in ``balance`` values without a graph
            or shared tensors that no term reaches.

    Paper: Chen, Badrinarayanan, Lee, Rabinovich: GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep
    Multitask Networks, ICML 2018. The paper leaves open how weights stay positive; here they are clamped.

    Differs from the old sketch, which had no balancing step and raised in every forward, and from the outline beside
    it: norms of the *weighted* losses (with unweighted ones nothing ever settles), training rates, the gradient of the
    paper's objective, renormalisation.
    """

    needs_names = True
    schedulable = ("lr",)
    started: Tensor

    def __init__(
        self,
        *,
        terms: Terms = None,
        arguments: Arguments = None,
        names: Names = None,
        alpha: float = 1.5,
        lr: float = 0.025,
        initial_losses: Mapping[str, float] | None = None,
        min_weight: float = 1e-3,
        schedules: Mapping[str, Schedule | Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(terms=terms, arguments=arguments, names=names)
        require_number("alpha", alpha, low=0)
        require_number("lr", lr, low=0)
        require_number("min_weight", min_weight, low=0, high=1, exclusive=True)
        if initial_losses is not None and set(initial_losses) != set(self.fixed_names):
            raise ValueError(f"initial_losses must name {list(self.fixed_names)}, found {list(initial_losses)}")
        initial = dict.fromkeys(self.fixed_names, 1.0) if initial_losses is None else initial_losses
        for name, value in initial.items():
            require_number(f"initial_losses[{name!r}]", value, low=0, exclusive=True)
        self.alpha, self.lr, self.min_weight = alpha, lr, min_weight
        self.weight = NamedScalars(dict.fromkeys(self.fixed_names, 1.0))
        self.initial_loss = NamedScalars({name: initial[name] for name in self.fixed_names})
        self.register_buffer("started", torch.tensor(initial_losses is not None))
        self._pending: tuple[list[list[Tensor]], Tensor, int] | None = None
        self.attach_schedules(schedules)

    def combine(self, values: Mapping[str, Tensor]) -> LossOutput:
        """The weighted sum; no gradient reaches the weights."""
        raw = stack_values(self.checked(values))
        weights = self.weight.stack().to(raw.dtype)
        weighted = weights * raw
        return self.output(
            weighted.sum(),
            **tagged("terms", self.fixed_names, raw),
            **tagged("weights", self.fixed_names, weights),
            **tagged("weighted", self.fixed_names, weighted),
        )

    def balance(
        self,
        values: Mapping[str, Tensor],
        shared: Tensor | Iterable[Tensor],
        *,
        update: bool = True,
        loss_scale: float | Tensor = 1.0,
    ) -> dict[str, Tensor]:
        """One update of the weights. Call it while the graph of ``values`` still exists.

        Args:
            values: the unscaled terms, as given to the loss (or returned by ``compute``).
            shared: parameters, or an activation, on which the gradients are measured.
            update: ``False`` only adds this micro-batch; the next call with ``True`` uses the mean of all of them.
            loss_scale: factor applied before, and removed after, differentiation, against underflow in half precision
                (``scaler.get_scale()``). An update with gradients that are not finite is left out.

        Returns:
            The quantities of the update as vectors in the order of the names: ``weights`` (before it), ``losses``,
            ``gradient_norms``, ``inverse_rate``, ``target``, ``gradnorm_loss``, ``weight_gradient``. Empty without
            ``update``. Norms and losses are averaged over the processes of a running process group.

        Raises:
            ValueError: values without a graph, nothing shared, or shared tensors that no term reaches.
        """
        values = self.checked(values)
        gradients = self._gradients(values, [shared] if isinstance(shared, Tensor) else list(shared), loss_scale)
        losses = stack_values(values).detach()
        count = 1
        if self._pending is not None:
            before, total, seen = self._pending
            gradients = [[a + b for a, b in zip(g, p, strict=True)] for g, p in zip(gradients, before, strict=True)]
            losses, count = losses + total, seen + 1
        self._pending = None if update else (gradients, losses, count)
        if not update:
            return {}
        norms = torch.stack([_norm(tensors) for tensors in gradients]).to(losses.dtype) / count
        return self._step(*_averaged(norms, losses / count))

    def _gradients(
        self, values: Mapping[str, Tensor], shared: list[Tensor], loss_scale: float | Tensor
    ) -> list[list[Tensor]]:
        without = [name for name, value in values.items() if not value.requires_grad]
        if without or not shared:
            raise ValueError(
                f"balance needs values with a graph and shared tensors, found none for {without or 'shared'}"
            )
        found = [
            torch.autograd.grad(value * loss_scale, shared, retain_graph=True, allow_unused=True)
            for value in values.values()
        ]
        if all(gradient is None for gradients in found for gradient in gradients):
            raise ValueError(f"shared: none of the terms {list(values)} depends on the given tensors")
        return [
            [
                upcast(torch.zeros_like(w) if g is None else g) / loss_scale
                for w, g in zip(shared, gradients, strict=True)
            ]
            for gradients in found
        ]

    def _step(self, norms: Tensor, losses: Tensor) -> dict[str, Tensor]:
        weights = self.weight.stack().to(norms.dtype)
        initial = torch.where(self.started, self.initial_loss.stack().to(losses.dtype), losses)
        progress = losses / initial.clamp(min=torch.finfo(losses.dtype).tiny)
        mean = progress.mean()
        rate = torch.where(mean > 0, progress / mean, 1.0)
        weighted = weights * norms
        target = weighted.mean() * rate**self.alpha
        gradient = (weighted - target).sign() * norms
        moved = (weights - self.lr * gradient).clamp(min=self.min_weight)
        moved = moved * (moved.numel() / moved.sum())
        # rates are relative to the first losses and may overflow
        valid = norms.isfinite().all() & losses.isfinite().all() & moved.isfinite().all()
        self.weight.write(torch.where(valid, moved, weights))
        self.initial_loss.write(torch.where(valid, initial, self.initial_loss.stack().to(initial.dtype)))
        self.started.logical_or_(valid)
        return {
            "weights": weights,
            "losses": losses,
            "gradient_norms": weighted,
            "inverse_rate": rate,
            "target": target,
            "gradnorm_loss": (weighted - target).abs().sum(),
            "weight_gradient": gradient,
        }

    def extra_repr(self) -> str:
        """Configuration."""
        return f"alpha={self.alpha}, lr={self.lr}, min_weight={self.min_weight}"


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm over all elements of all tensors."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(t) for t in tensors]))
    return norm


def _averaged(norms: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Means over the processes, where there are several; weights must not drift apart between them."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return norms, losses
    both = torch.stack([norms, losses])
    distributed.all_reduce(both)
    both = both / distributed.get_world_size()
    return both[0], both[1]
