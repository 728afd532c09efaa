"""Video alignment by optimal transport with temporal priors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import require_choice, require_number
from ..loss_registry import LossRegistry
from .intra_contrast import IntraContrastLoss
from .presets import PresetMixin
from .sequences import Sequences, cached, distances, ordered_pairs
from .sinkhorn import require_pot, sinkhorn_plan, transport_cost

__all__ = ["VAVALoss", "VAVATerms", "vava_loss"]

Epsilon = str | float | Callable[[int, int], float]


@dataclass(frozen=True)
class VAVATerms:
    """The inner quantities of one ordered pair; matrices are ``[N, M]`` with a virtual frame in front."""

    phi: float
    structure_weight: float
    prior_weight: float
    cost: Tensor
    """Distances, the virtual frame at ``virtual_frame_cost``."""
    plan: Tensor
    prior: Tensor
    transport: Tensor
    """The transport value; a constant by default."""
    structure: Tensor
    divergence: Tensor
    core: Tensor
    """``transport - structure_weight structure + prior_weight divergence``."""
    cross_contrast: Tensor


@LossRegistry.register("vava")
class VAVALoss(PresetMixin):
    """Alignment by optimal transport with temporal priors: frames may be out of order, repeated, or match nothing.

    Use it for recordings of one process whose steps come in different orders. It needs POT (extra ``alignment``).

    For every ordered pair of ``n`` and ``m`` frames, ``N = n + 1``, ``M = m + 1``: ``D`` are the Euclidean distances
    with a virtual frame at ``virtual_frame_cost`` in front of both, ``T = sinkhorn(D, epsilon = n)``. With ``r``,
    ``c`` from 0, the best matches ``J_r = argmax_c T_rc`` and ``R_c = argmax_r T_rc``, ``s = sqrt(1/N^2 + 1/M^2)``,
    bandwidth ``h`` and ``phi = min(max(0.999^floor(sqrt(step + 1)), 0.001), 0.999)``::

        P  = phi G(|c/M - r/N| / s) + (1 - phi) G((|c - R_c| + |r - J_r|) / (2 N s)),   G normal with deviation h
        I  = phi sum T / ((c/M - r/N)^2 + 1) + (1 - phi) sum T / (((c - R_c)^2 + (r - J_r)^2) / (2 N^2) + 1)
        KL = sum T log((T + 1e-8) / (P + 1e-8))
        C  = IC(X) + IC(Y) + sum over mutual best cells of D - sum over mutual worst cells of D
        pair = 1e6 / (N M) - (n + m) I + 0.1 (n m / 4) KL + contrast_weight C

    and the loss is the sum over the pairs. ``IC`` is :class:`IntraContrastLoss` with a window of 15, computed once
    for each sequence. Sums, not means; ``C_X + C_Y`` whole; no division by ``N M``; ``epsilon`` is the length of the
    first sequence.

    Paper: Liu et al. 2022 (arXiv 2111.09301), in the reading of Donahue and Elhamifar 2024 as corrected later. The
    first term is a constant there; ``transport_value="expected_cost"`` gives the paper's ``<T, D>`` with its envelope
    gradient. ``VAVALoss.preset("gtcc_authors")`` is the first public version of that reading (compounding weights,
    wider prior).

    Args:
        sinkhorn_iterations: at least 1.
        virtual_frame_cost: distance of the virtual frame from every frame.
        prior_bandwidth: ``h``, greater than 0.
        contrast_weight: weight of ``C``.
        structure_weight: times ``n + m``, weight of ``I``.
        prior_weight: times ``n m / 4``, weight of ``KL``.
        epsilon: ``num_rows`` (``n``), ``prior_scaled`` (``prior_weight n m / 4``), a number, or a function of ``(n,
            m)``.
        step_schedule: ``sqrt`` (above), or ``linear`` (``0.999^(step + 1)``).
        transport_value: ``mass`` (the constant), ``expected_cost``, or ``none``.
        kl_form: ``plain`` (above) or ``shifted`` (1e-5 in place of 1e-8, ``T + 1e-5`` also as the factor).
        prior_scale: ``density`` or ``times_2pi`` (``G`` times ``2 pi``).
        weight_accumulation: ``per_pair``, or ``compounding``: each pair multiplies the weights of the pair before.
        optimality_scale: ``rows`` (above), or ``own_axis``: row ``r`` has its match ``J_r`` among the columns, so
            ``|c - J_r|`` is divided by ``M`` and ``|r - R_c|`` by ``N``, as in the paper.
        cross_contrast: whether ``C`` has the part between the sequences.
        contrast: options of :class:`IntraContrastLoss` other than its defaults; ``window`` is 15 unless given.
        batch_pairs: solve pairs of equal lengths in one call of POT; pays on accelerators.

    Shape: a list of ``S`` tensors ``[N_i, D]``; the result is 0-d. Fewer than two sequences give a zero that keeps
    the graph.

    Raises:
        ValueError: an option out of range, a step below -1, an empty list, mixed sizes, dtypes or devices.
        ImportError: POT is not installed.

    torch.compile: not supported (POT decides on the host).

    Differs from the old ``VAVA_loss``: any floating dtype, on any device (float64 raised, the CPU too); fewer than two
    sequences give zero (``None``); plans are finite where the old ones underflowed to NaN; ``structure_weight`` and
    ``prior_weight`` can be set.
    """

    PRESETS = {
        "gtcc_authors": {
            "step_schedule": "linear",
            "kl_form": "shifted",
            "prior_scale": "times_2pi",
            "weight_accumulation": "compounding",
        }
    }

    def __init__(
        self,
        *,
        sinkhorn_iterations: int = 20,
        virtual_frame_cost: float = 0.5,
        prior_bandwidth: float = 0.6,
        contrast_weight: float = 0.5,
        structure_weight: float = 1.0,
        prior_weight: float = 0.1,
        epsilon: Epsilon = "num_rows",
        step_schedule: str = "sqrt",
        transport_value: str = "mass",
        kl_form: str = "plain",
        prior_scale: str = "density",
        weight_accumulation: str = "per_pair",
        optimality_scale: str = "rows",
        cross_contrast: bool = True,
        contrast: Mapping[str, Any] | None = None,
        batch_pairs: bool = False,
    ) -> None:
        super().__init__()
        require_pot()
        require_number("sinkhorn_iterations", sinkhorn_iterations, low=1, integer=True)
        require_number("prior_bandwidth", prior_bandwidth, low=0.0, exclusive=True)
        for name, value in (
            ("virtual_frame_cost", virtual_frame_cost),
            ("contrast_weight", contrast_weight),
            ("structure_weight", structure_weight),
            ("prior_weight", prior_weight),
        ):
            require_number(name, value)
        if isinstance(epsilon, str):
            require_choice("epsilon", epsilon, ("num_rows", "prior_scaled"))
        elif not callable(epsilon):
            require_number("epsilon", epsilon, low=0.0, exclusive=True)
        require_choice("step_schedule", step_schedule, ("sqrt", "linear"))
        require_choice("transport_value", transport_value, ("mass", "expected_cost", "none"))
        require_choice("kl_form", kl_form, ("plain", "shifted"))
        require_choice("prior_scale", prior_scale, ("density", "times_2pi"))
        require_choice("weight_accumulation", weight_accumulation, ("per_pair", "compounding"))
        require_choice("optimality_scale", optimality_scale, ("rows", "own_axis"))
        self.sinkhorn_iterations, self.virtual_frame_cost = sinkhorn_iterations, virtual_frame_cost
        self.prior_bandwidth, self.prior_scale, self.kl_form = prior_bandwidth, prior_scale, kl_form
        self.contrast_weight, self.structure_weight, self.prior_weight = contrast_weight, structure_weight, prior_weight
        self.epsilon, self.step_schedule, self.transport_value = epsilon, step_schedule, transport_value
        self.weight_accumulation, self.optimality_scale = weight_accumulation, optimality_scale
        self.cross_contrast, self.batch_pairs = cross_contrast, batch_pairs
        self.contrast = IntraContrastLoss(**{"window": 15, **(contrast or {})})

    def forward(self, sequences: Sequence[Tensor], step: int) -> Tensor:
        """The loss of a list of ``[N_i, D]`` sequences at a training step (it mixes the two priors)."""
        given = Sequences.of(sequences)
        terms = self._terms(given, step)
        if not terms:
            return given.zero
        # the contrast of a sequence occurs in 2 (S - 1) ordered pairs
        contrast = 2 * (len(given) - 1) * self.contrast.per_sequence(given).sum()
        between = torch.stack([term.core + self.contrast_weight * term.cross_contrast for term in terms]).sum()
        return between + self.contrast_weight * contrast

    def terms(self, sequences: Sequence[Tensor], step: int) -> list[VAVATerms]:
        """The inner quantities, pair by pair in the order ``(0, 1), (0, 2), ..., (1, 0), ...``."""
        return self._terms(Sequences.of(sequences), step)

    def _terms(self, given: Sequences, step: int) -> list[VAVATerms]:
        require_number("step", step, low=-1, integer=True)
        power = math.isqrt(step + 1) if self.step_schedule == "sqrt" else step + 1
        phi = max(min(0.999**power, 0.999), 0.001)
        pairs = ordered_pairs(len(given))
        costs = {
            (i, j): F.pad(distances(given.items[i], given.items[j]), (1, 0, 1, 0), value=self.virtual_frame_cost)
            for i, j in pairs
        }
        plans = self._plans(costs)
        structure, prior = self.structure_weight, self.prior_weight
        terms = []
        for i, j in pairs:
            n, m = given.lengths[i], given.lengths[j]
            weights = structure * (n + m), prior * n * m / 4
            if self.weight_accumulation == "compounding":
                structure, prior = weights
            terms.append(self._pair(costs[i, j], plans[i, j], phi, *weights))
        return terms

    def _plans(self, costs: Mapping[tuple[int, int], Tensor]) -> dict[tuple[int, int], Tensor]:
        groups: dict[Any, list[tuple[int, int]]] = {}
        for pair, cost in costs.items():
            groups.setdefault(cost.shape if self.batch_pairs else pair, []).append(pair)
        plans: dict[tuple[int, int], Tensor] = {}
        for members in groups.values():
            cost = torch.stack([costs[pair] for pair in members]) if self.batch_pairs else costs[members[0]]
            epsilon = self._epsilon(cost.shape[-2] - 1, cost.shape[-1] - 1)
            plan = sinkhorn_plan(cost, epsilon, num_iters=self.sinkhorn_iterations)
            plans.update(zip(members, plan if self.batch_pairs else [plan], strict=True))
        return plans

    def _epsilon(self, n: int, m: int) -> float:
        if self.epsilon == "num_rows":
            return float(n)
        if self.epsilon == "prior_scaled":
            return self.prior_weight * n * m / 4
        return float(self.epsilon(n, m) if callable(self.epsilon) else self.epsilon)

    def _pair(self, cost: Tensor, plan: Tensor, phi: float, structure_weight: float, prior_weight: float) -> VAVATerms:
        rows, columns = plan.shape
        with torch.no_grad():
            near = cached(_diagonal_distance, rows, columns, like=plan)
            far = self._match_distance(plan)
            unit = 1.0 / rows**2 + 1.0 / columns**2
            # the second prior takes the sum of the two offsets, the second weight that of their squares
            prior = phi * self._bell(near / unit) + (1 - phi) * self._bell((far[0] + far[1]).square() / (4 * unit))
            reward = phi / (near + 1) + (1 - phi) / (0.5 * (far[0].square() + far[1].square()) + 1)
            sign = _mutual(plan, largest=True).to(plan) - _mutual(plan, largest=False).to(plan)
        structure = (plan * reward).sum()
        shift = 1e-8 if self.kl_form == "plain" else 1e-5
        mass = plan if self.kl_form == "plain" else plan + shift
        divergence = (mass * torch.log((plan + shift) / (prior + shift))).sum()
        if self.transport_value == "expected_cost":
            transport = transport_cost(plan, cost)
        else:
            transport = plan.new_tensor(1e6 / (rows * columns) if self.transport_value == "mass" else 0.0)
        return VAVATerms(
            phi=phi,
            structure_weight=structure_weight,
            prior_weight=prior_weight,
            cost=cost,
            plan=plan,
            prior=prior,
            transport=transport,
            structure=structure,
            divergence=divergence,
            core=transport - structure_weight * structure + prior_weight * divergence,
            cross_contrast=(sign * cost).sum() if self.cross_contrast else plan.new_zeros(()),
        )

    def _bell(self, squared: Tensor) -> Tensor:
        """The normal density at a squared distance."""
        scale = self.prior_bandwidth * math.sqrt(2 * math.pi)
        if self.prior_scale == "times_2pi":
            scale /= 2 * math.pi
        return torch.exp(squared / (-2 * self.prior_bandwidth**2)) / scale

    def _match_distance(self, plan: Tensor) -> tuple[Tensor, Tensor]:
        """Offsets of every cell from the best match of its column and of its row, relative to the lengths."""
        rows, columns = plan.shape
        r, c = cached(torch.arange, rows, like=plan)[:, None], cached(torch.arange, columns, like=plan)
        of_row, of_column = plan.argmax(dim=1)[:, None].to(plan), plan.argmax(dim=0).to(plan)
        if self.optimality_scale == "rows":
            return (c - of_column).abs() / rows, (r - of_row).abs() / rows
        return (c - of_row).abs() / columns, (r - of_column).abs() / rows


def _diagonal_distance(rows: int, columns: int) -> Tensor:
    r = torch.arange(rows, dtype=torch.float64)[:, None] / rows
    return (torch.arange(columns, dtype=torch.float64) / columns - r).square()


def _mutual(plan: Tensor, *, largest: bool) -> Tensor:
    """Cells that are the largest (smallest) of their row and of their column."""
    pick = torch.amax if largest else torch.amin
    return (plan == pick(plan, dim=1, keepdim=True)) & (plan == pick(plan, dim=0, keepdim=True))


def vava_loss(
    sequences: Sequence[Tensor],
    step: int,
    *,
    sinkhorn_iterations: int = 20,
    virtual_frame_cost: float = 0.5,
    prior_bandwidth: float = 0.6,
    contrast_weight: float = 0.5,
) -> Tensor:
    """:class:`VAVALoss` with its default options, as a function."""
    loss = VAVALoss(
        sinkhorn_iterations=sinkhorn_iterations,
        virtual_frame_cost=virtual_frame_cost,
        prior_bandwidth=prior_bandwidth,
        contrast_weight=contrast_weight,
    )
    return loss.forward(sequences, step)
