"""Video alignment by optimal transport with temporal priors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..base import require_choice, require_number
from ..loss_registry import LossRegistry
from .intra_contrast import IntraContrastLoss
from .presets import PresetMixin
from .sequences import (
    DIRECT_LIMIT,
    Sequences,
    SequencesLike,
    cached,
    differentiated,
    distances,
    frame_mask,
    ordered_pairs,
    sum_of_parts,
    tables_at_once,
)
from .sinkhorn import METHODS, require_pot, sinkhorn_plan, transport_cost

__all__ = ["VAVALoss", "VAVATerms", "vava_loss"]

Epsilon = str | float | Callable[[int, int], float]
Pair = tuple[int, int]
Lengths = tuple[int, ...]


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
    wider prior); ``restored`` and ``gtcc_repository`` are the defaults.

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
        sinkhorn_method: of :func:`sinkhorn_plan`: ``auto``, ``kernel`` or ``log``.

    Shape: a list of ``S`` tensors ``[N_i, D]``, or a padded batch ``([S, L, D], lengths)``; the result is 0-d. Fewer
    than two sequences give a zero that keeps the graph.

    Raises:
        ValueError: an option out of range, a step below -1, an empty list, mixed sizes, dtypes or devices.
        ImportError: POT is not installed.

    torch.compile: not supported (POT decides on the host). The gradient of the pairs is taken together with the
    value, a few pairs at a time, so that no table is kept; to differentiate it twice raises ``RuntimeError``.

    Differs from the old ``VAVA_loss``: any floating dtype, on any device (float64 raised, the CPU too); fewer than two
    sequences give zero (``None``); plans are finite where the old ones underflowed to NaN; ``structure_weight`` and
    ``prior_weight`` can be set.
    """

    PRESETS = {
        "restored": {},
        "gtcc_authors": {
            "step_schedule": "linear",
            "kl_form": "shifted",
            "prior_scale": "times_2pi",
            "weight_accumulation": "compounding",
        },
        "gtcc_repository": {},
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
        sinkhorn_method: str = "auto",
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
        require_choice("sinkhorn_method", sinkhorn_method, METHODS)
        self.sinkhorn_iterations, self.virtual_frame_cost = sinkhorn_iterations, virtual_frame_cost
        self.prior_bandwidth, self.prior_scale, self.kl_form = prior_bandwidth, prior_scale, kl_form
        self.contrast_weight, self.structure_weight, self.prior_weight = contrast_weight, structure_weight, prior_weight
        self.epsilon, self.step_schedule, self.transport_value = epsilon, step_schedule, transport_value
        self.weight_accumulation, self.optimality_scale = weight_accumulation, optimality_scale
        self.cross_contrast, self.sinkhorn_method = cross_contrast, sinkhorn_method
        self.contrast = IntraContrastLoss(**{"window": 15, **(contrast or {})})

    def forward(self, sequences: SequencesLike, step: int) -> Tensor:
        """The loss of ``[N_i, D]`` sequences at a training step (it mixes the two priors)."""
        given = Sequences.of(sequences)
        phi = self._phi(step)
        if len(given) < 2:
            return given.zero
        weights = self._weights(given)
        # the contrast of a sequence occurs in 2 (S - 1) ordered pairs
        contrast = 2 * (len(given) - 1) * self.contrast.per_sequence(given).sum()
        parts = [differentiated(partial(self._between, given, group, phi, weights)) for group in _groups(given)]
        return sum_of_parts(given.padded, parts) + self.contrast_weight * contrast

    def terms(self, sequences: SequencesLike, step: int) -> list[VAVATerms]:
        """The inner quantities, pair by pair in the order ``(0, 1), (0, 2), ..., (1, 0), ...``."""
        given = Sequences.of(sequences)
        phi, weights = self._phi(step), self._weights(given)
        found = {}
        for group in _groups(given):
            parts = self._terms(given, group, phi, weights, given.padded)
            for place, (i, j) in enumerate(_both(group)):
                n, m = given.lengths[i] + 1, given.lengths[j] + 1
                own = {name: part[place, :n, :m] if part.dim() == 3 else part[place] for name, part in parts.items()}
                structure, prior = weights[i, j]
                found[i, j] = VAVATerms(phi=phi, structure_weight=structure, prior_weight=prior, **own)
        return [found[pair] for pair in ordered_pairs(len(given))]

    def _phi(self, step: int) -> float:
        require_number("step", step, low=-1, integer=True)
        power = math.isqrt(step + 1) if self.step_schedule == "sqrt" else step + 1
        return max(min(0.999**power, 0.999), 0.001)

    def _weights(self, given: Sequences) -> dict[Pair, tuple[float, float]]:
        """The weights of ``I`` and of ``KL`` of every ordered pair."""
        structure, prior = self.structure_weight, self.prior_weight
        weights = {}
        for i, j in ordered_pairs(len(given)):
            n, m = given.lengths[i], given.lengths[j]
            weights[i, j] = structure * (n + m), prior * n * m / 4
            if self.weight_accumulation == "compounding":
                structure, prior = weights[i, j]
        return weights

    def _epsilon(self, n: int, m: int) -> float:
        value: Any = self.epsilon(n, m) if callable(self.epsilon) else self.epsilon
        if isinstance(value, str):
            value = n if value == "num_rows" else self.prior_weight * n * m / 4
        require_number("epsilon", value, low=0.0, exclusive=True)
        return float(value)

    def _between(
        self, given: Sequences, group: list[Pair], phi: float, weights: Mapping[Pair, tuple[float, float]], x: Tensor
    ) -> Tensor:
        """What the pairs of a group add to the loss, without the contrast within sequences."""
        terms = self._terms(given, group, phi, weights, x)
        return (terms["core"] + self.contrast_weight * terms["cross_contrast"]).sum()

    def _terms(
        self, given: Sequences, group: list[Pair], phi: float, weights: Mapping[Pair, tuple[float, float]], x: Tensor
    ) -> dict[str, Tensor]:
        """The tensors of :class:`VAVATerms` for the pairs of a group, then for the same pairs the other way round."""
        pairs = _both(group)
        rows, columns = (tuple(given.lengths[pair[side]] + 1 for pair in pairs) for side in (0, 1))
        longest = max(rows) - 1
        ragged = min(rows) <= longest
        first, second = (x[[pair[side] for pair in group], :longest] for side in (0, 1))
        gaps = distances(first, second, direct=longest <= DIRECT_LIMIT)
        # a frame more behind those of different lengths spares the plan another copy
        cost = F.pad(gaps, (1, int(ragged), 1, int(ragged)), value=self.virtual_frame_cost)
        cost = torch.cat([cost, cost.mT])
        real = cached(_cells, rows, columns, cost.shape[1], like=cost) if ragged else None
        epsilon = cost.new_tensor([self._epsilon(n - 1, m - 1) for n, m in zip(rows, columns, strict=True)])
        plan = sinkhorn_plan(
            cost,
            epsilon,
            num_iters=self.sinkhorn_iterations,
            # the next scalings would be rounding
            tol=torch.finfo(cost.dtype).eps,
            row_lengths=rows,
            column_lengths=columns,
            method=self.sinkhorn_method,
        )
        with torch.no_grad():
            prior, reward, sign = self._priors(plan.detach(), rows, columns, real, phi)
        structure = (plan * reward).sum(dim=(1, 2))
        shift = 1e-8 if self.kl_form == "plain" else 1e-5
        mass = plan if self.kl_form == "plain" else plan + shift
        parts = mass * torch.log((plan + shift) / (prior + shift))
        divergence = (parts if real is None or mass is plan else parts * real).sum(dim=(1, 2))
        size = cost.new_tensor([n * m for n, m in zip(rows, columns, strict=True)])
        transport = torch.zeros_like(size)
        if self.transport_value != "none":
            transport = transport_cost(plan, cost) if self.transport_value == "expected_cost" else 1e6 / size
        structure_weight, prior_weight = cost.new_tensor([weights[pair] for pair in pairs]).unbind(1)
        return {
            "cost": cost,
            "plan": plan,
            "prior": prior,
            "transport": transport,
            "structure": structure,
            "divergence": divergence,
            "core": transport - structure_weight * structure + prior_weight * divergence,
            "cross_contrast": (sign * cost).sum(dim=(1, 2)) if self.cross_contrast else torch.zeros_like(size),
        }

    def _priors(
        self, plan: Tensor, rows: Lengths, columns: Lengths, real: Tensor | None, phi: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``P``, the factors of ``T`` in ``I``, and 1 in the mutual best cells, -1 in the mutual worst ones."""
        size = plan.shape[1]
        # 0 where a cell is the largest of its row (column), negative elsewhere
        below_row, below_column = (plan - plan.amax(dim=dim, keepdim=True) for dim in (2, 1))
        far = self._match_distance(below_row, below_column, rows, columns)
        bandwidth = cached(_bandwidth, rows, columns, self.prior_bandwidth, like=plan)
        bell, closeness = cached(_diagonal, rows, columns, size, self.prior_bandwidth, like=plan)
        # the second prior takes the sum of the two offsets, the second weight that of their squares
        spread = far[0] / bandwidth + far[1] / bandwidth
        scale = self.prior_bandwidth * math.sqrt(2 * math.pi)
        if self.prior_scale == "times_2pi":
            scale /= 2 * math.pi
        prior = _normal(spread).mul_((1 - phi) / scale).add_(bell, alpha=phi / scale)
        reward = (far[0].square() / 2 + (far[1].square() / 2 + 1)).reciprocal_()
        reward = reward.mul_(1 - phi).add_(closeness, alpha=phi)
        if real is not None:
            # in front of the smallest, the padding must not win
            plan = plan + 2 * (1 - real)
        above_row, above_column = (plan - plan.amin(dim=dim, keepdim=True) for dim in (2, 1))
        sign = below_row.add_(below_column).sign_().add_(above_row.add_(above_column).sign_())
        return prior, reward, sign

    def _match_distance(
        self, below_row: Tensor, below_column: Tensor, rows: Lengths, columns: Lengths
    ) -> tuple[Tensor, Tensor]:
        """Offsets of every cell from the best match of its column and of its row, relative to the lengths."""
        size = below_row.shape[1]
        index = cached(torch.arange, size, like=below_row)
        r, c = index[:, None], index
        # the first of the largest
        of_row = torch.add(c, below_row.sign(), alpha=-size).amin(dim=2, keepdim=True)
        of_column = torch.add(r, below_column.sign(), alpha=-size).amin(dim=1, keepdim=True)
        height, width = cached(_sizes, rows, columns, like=below_row)
        if self.optimality_scale == "rows":
            return (c - of_column).abs() / height, (r - of_row).abs() / height
        return (c - of_row).abs() / width, (r - of_column).abs() / height


def _both(group: list[Pair]) -> list[Pair]:
    return group + [(j, i) for i, j in group]


def _groups(given: Sequences) -> list[list[Pair]]:
    """The pairs ``i < j`` in groups whose tables are worked on at once, short ones first."""

    def longest(pair: Pair) -> int:
        return max(given.lengths[place] for place in pair)

    groups: list[list[Pair]] = []
    for pair in sorted(combinations(range(len(given)), 2), key=longest):
        fits = tables_at_once(2 * (longest(pair) + 2) ** 2, given.padded.device)
        if (
            groups
            and len(groups[-1]) < fits
            and (longest(groups[-1][0]) <= DIRECT_LIMIT) == (longest(pair) <= DIRECT_LIMIT)
        ):
            groups[-1].append(pair)
        else:
            groups.append([pair])
    return groups


def _sizes(rows: Lengths, columns: Lengths) -> Tensor:
    """``[2, P, 1, 1]``."""
    return torch.tensor([rows, columns], dtype=torch.float64)[:, :, None, None]


def _bandwidth(rows: Lengths, columns: Lengths, width: float) -> Tensor:
    """What divides the sum of two relative offsets, so that the prior is ``exp(-square)``."""
    return 2 * math.sqrt(2) * width * _sizes(rows, columns).pow(-2).sum(dim=0).sqrt()


def _cells(rows: Lengths, columns: Lengths, size: int) -> Tensor:
    return frame_mask(rows, size)[:, :, None] & frame_mask(columns, size)[:, None, :]


def _diagonal(rows: Lengths, columns: Lengths, size: int, width: float) -> Tensor:
    """``[2, P, size, size]``: the (unscaled) prior of the diagonal, and ``1 / (d^2 + 1)`` of the distance ``d``."""
    height, length = _sizes(rows, columns)
    index = torch.arange(size, dtype=torch.float64)
    distance = index / length - index[:, None] / height
    return torch.stack([_normal(2 * distance / _bandwidth(rows, columns, width)), 1 / (distance.square() + 1)])


def _normal(x: Tensor) -> Tensor:
    """``exp(-x^2)``, above the denormal numbers, which are slow; ``x`` is used up."""
    return x.square_().neg_().clamp_min_(-80.0).exp_()


def vava_loss(
    sequences: SequencesLike,
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
