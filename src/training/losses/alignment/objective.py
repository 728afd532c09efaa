"""Several alignment losses at once, and which sequences are small enough for them."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..base import BaseLoss, LossOutput, kind_of, require_choice, require_number, require_numbers
from ..loss_registry import LossRegistry
from .gtcc import GTCCLoss
from .lav import LAVLoss
from .presets import PresetMixin
from .sequences import checked, listed
from .tcc import TCCLoss
from .vava import VAVALoss

__all__ = ["AlignmentObjective", "PairBudget", "objective_from_config"]

logger = logging.getLogger(__name__)

LOSSES: dict[str, type[PresetMixin]] = {"tcc": TCCLoss, "gtcc": GTCCLoss, "lav": LAVLoss, "vava": VAVALoss}

ModelOutput = Mapping[str, Any]

PAIR_LIMITS = {"lav": 3_000_000, "gtcc": 8_000_000, "tcc": 8_000_000, "vava": 6_000_000}


class PairBudget:
    """Leaves out sequences that are too short, or too long for their pair tables to fit.

    The table of two sequences has ``N M`` cells. While the two longest exceed the limit of a loss, the longest
    sequence is left out (or thinned); so are sequences below ``min_length``. Every one is logged, and counted in
    ``skipped`` (``subsampled``) by the name of the loss.

    Args:
        limits: largest ``N M`` by loss name; default: 3 000 000 for lav, 6 000 000 for vava, 8 000 000 otherwise, the
            limits of the old training loop.
        default: limit of other names.
        min_length: shortest sequence, at least 1.
        on_exceed: ``skip``; ``raise`` a ``ValueError``; or ``subsample``: take evenly spaced frames of long sequences,
            the first and the last among them, as many as fit. Windows over frames span more time then. Short sequences
            are skipped, and long ones where ``min_length`` frames do not fit.

    Differs from the old loop: that one left out the whole batch (the same for its batches of two).
    """

    def __init__(
        self,
        *,
        limits: Mapping[str, int] | None = None,
        default: int = 8_000_000,
        min_length: int = 10,
        on_exceed: str = "skip",
    ) -> None:
        self.limits = dict(PAIR_LIMITS if limits is None else limits)
        for name, limit in {**self.limits, "default": default}.items():
            require_number(f"limits[{name!r}]" if name != "default" else name, limit, low=1, integer=True)
        require_number("min_length", min_length, low=1, integer=True)
        require_choice("on_exceed", on_exceed, ("skip", "raise", "subsample"))
        self.default, self.min_length, self.on_exceed = default, min_length, on_exceed
        self.skipped: Counter[str] = Counter()
        self.subsampled: Counter[str] = Counter()

    def keep(self, name: str, lengths: Sequence[int]) -> list[int]:
        """The places of the sequences that the loss ``name`` may have, in order; see :meth:`frames`."""
        return list(self.frames(name, lengths))

    def frames(self, name: str, lengths: Sequence[int]) -> dict[int, int]:
        """Place -> number of frames, of the sequences that the loss ``name`` may have, in order.

        Raises:
            ValueError: something would be left out, and ``on_exceed`` is ``raise``.
        """
        limit = self.limits.get(name, self.default)
        kept = [place for place, length in enumerate(lengths) if length >= self.min_length]
        # longest first; the pair of the first two is the largest
        order = sorted(kept, key=lambda place: -lengths[place])
        most = max(lengths, default=0)
        if self.on_exceed == "subsample" and order:
            # the longest one alone, where the second is short enough for that; both otherwise
            fits = max(math.isqrt(limit), limit // lengths[order[:2][-1]])
            most = fits if fits >= self.min_length else most
        while order and min(most, lengths[order[0]]) * min(most, lengths[order[:2][-1]]) > limit:
            order.pop(0)
        thinned = [place for place in sorted(order) if lengths[place] > most]
        if thinned:
            found = [lengths[place] for place in thinned]
            logger.warning("subsampled: %s: sequences %s of lengths %s to %d frames", name, thinned, found, most)
            self.subsampled[name] += len(thinned)
        left_out = [place for place in range(len(lengths)) if place not in order]
        if left_out:
            text = (
                f"{name}: sequences {left_out} of lengths {[lengths[place] for place in left_out]} are outside the "
                f"budget (at least {self.min_length} frames, pair tables of at most {limit} cells)"
            )
            if self.on_exceed == "raise":
                raise ValueError(text)
            logger.warning("skipped: %s", text)
            self.skipped[name] += len(left_out)
        return {place: min(most, lengths[place]) for place in sorted(order)}


def _evenly(x: Tensor, count: int) -> Tensor:
    """So many frames, the first and the last among them."""
    if count == len(x):
        return x
    return x[torch.arange(count, device=x.device) * (len(x) - 1) // max(count - 1, 1)]


def _made(name: str, options: Mapping[str, Any] | str) -> nn.Module:
    return LOSSES[name].preset(options) if isinstance(options, str) else LOSSES[name](**options)


@LossRegistry.register("alignment")
class AlignmentObjective(BaseLoss):
    """A weighted sum of alignment losses over one or more batches of sequences.

    Use it where a configuration chooses the losses. ``loss = sum_b sum_k w_k loss_k(batch b)``.

    Args:
        losses: name -> the loss, or for ``tcc``, ``gtcc``, ``lav``, ``vava`` its constructor arguments, or the name of
            its preset (``gtcc_repository``: as the old repository trained). Other names need a module that takes the
            list of sequences.
        weights: name -> ``w``; default: 1.
        step_source: what VAVA takes as step: the ``epoch`` (as the old entry point did) or the training ``step``.
        budget: which sequences each loss gets; default: all.
        max_abs_loss: a result whose absolute value is greater is left out: ``loss`` is a zero that keeps the graph
            then, the entries stay as they were found, and it is logged and counted in ``left_out``. Looks at the
            result on the host, for which an accelerator has to be waited for. Default: no limit.

    Returns:
        ``LossOutput`` with ``loss`` and one entry a name (not weighted). A batch with fewer than two sequences
        (within the budget) counts as zero.

    Raises:
        ValueError: an unknown name or weight, no batch, a batch without ``outputs`` or with something else there than a
            list of ``[N_i, D]`` or a padded batch, a missing step.
        FloatingPointError: the result is not finite, with ``max_abs_loss``.

    torch.compile: not supported, since most of the losses are not.

    Differs from the function of the old ``get_loss_function``: weights, unknown names raise (the process ended),
    results in the dtype of the input (float32), zeros that keep the graph.
    """

    def __init__(
        self,
        *,
        losses: Mapping[str, nn.Module | Mapping[str, Any] | str],
        weights: Mapping[str, float] | None = None,
        step_source: str = "epoch",
        budget: PairBudget | None = None,
        max_abs_loss: float | None = None,
    ) -> None:
        super().__init__(reduction="sum")
        require_choice("step_source", step_source, ("epoch", "step"))
        require_numbers(0.0, exclusive=True, optional=True, max_abs_loss=max_abs_loss)
        unknown = [name for name, loss in losses.items() if name not in LOSSES and not isinstance(loss, nn.Module)]
        if not losses or unknown:
            raise ValueError(f"losses must have modules, or names among {sorted(LOSSES)}, found {list(losses)}")
        for name, weight in (weights or {}).items():
            require_choice("weights", name, tuple(losses))
            require_number(f"weights[{name!r}]", weight)
        self.losses = nn.ModuleDict(
            {name: loss if isinstance(loss, nn.Module) else _made(name, loss) for name, loss in losses.items()}
        )
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in losses}
        self.step_source, self.budget = step_source, budget
        self.max_abs_loss, self.left_out = max_abs_loss, 0

    def forward(
        self, model_output: ModelOutput | Sequence[ModelOutput], epoch: int = 0, step: int | None = None
    ) -> LossOutput:
        """The objective.

        Args:
            model_output: ``{"outputs": list of [N_i, D], or ([S, L, D], lengths)}`` with ``"dropouts"`` (one
                ``[D + 1]`` a sequence) where GTCC weighs frames, or a list of such batches.
            epoch: for GTCC, and for VAVA with ``step_source="epoch"``.
            step: training step, for VAVA with ``step_source="step"``.
        """
        if not isinstance(model_output, Mapping | Sequence):
            raise ValueError(f"model_output must be a batch, or a list of batches, found {kind_of(model_output)}")
        batches: list[Any] = [model_output] if isinstance(model_output, Mapping) else list(model_output)
        if not batches or any(not isinstance(batch, Mapping) or "outputs" not in batch for batch in batches):
            raise ValueError("model_output must be a batch, or a list of batches, with sequences under 'outputs'")
        batches = [{**batch, "outputs": listed(batch["outputs"])} for batch in batches]
        for batch in batches:
            # the losses do not see those that the budget leaves out
            checked(batch["outputs"], 0, "model_output['outputs']")
        if self.step_source == "step" and step is None:
            raise ValueError("step must be given for step_source='step', found None")
        zero = torch.stack([x.sum() * 0.0 for batch in batches for x in batch["outputs"]]).sum()
        parts = {
            name: torch.stack([zero, *(self._one(name, loss, batch, epoch, step) for batch in batches)]).sum()
            for name, loss in self.losses.items()
        }
        total = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        if self.max_abs_loss is not None and self._too_large(total.detach(), self.max_abs_loss):
            total = zero
        return self.output(total, **parts)

    def _too_large(self, total: Tensor, limit: float) -> bool:
        if not bool(torch.isfinite(total)):
            raise FloatingPointError(f"the loss is not finite: {float(total)}")
        large = bool(total.abs() > limit)
        if large:
            logger.warning("left out: the loss is %g, with max_abs_loss=%g", float(total), limit)
            self.left_out += 1
        return large

    def _one(self, name: str, loss: nn.Module, batch: ModelOutput, epoch: int, step: int | None) -> Tensor:
        sequences: list[Tensor] = list(batch["outputs"])
        places = {place: len(x) for place, x in enumerate(sequences)}
        if self.budget is not None:
            places = self.budget.frames(name, list(places.values()))
        chosen = [_evenly(sequences[place], count) for place, count in places.items()]
        if len(chosen) < 2:
            return sequences[0].sum() * 0.0
        if isinstance(loss, GTCCLoss):
            drops = batch.get("dropouts")
            value = loss(chosen, None if drops is None else [drops[place] for place in places], epoch)
        elif isinstance(loss, VAVALoss):
            value = loss(chosen, epoch if self.step_source == "epoch" or step is None else step)
        else:
            value = loss(chosen)
        return torch.as_tensor(value)

    def extra_repr(self) -> str:
        """Weights and the source of the step."""
        return f"weights={self.weights}, step_source={self.step_source!r}"


OLD_LOSSES: dict[str, tuple[str, str, dict[str, str]]] = {
    # old name: new name, attribute of the old configuration, old argument -> new argument
    "tcc": (
        "tcc",
        "TCC_ORIGINAL_PARAMS",
        {"softmax_temp": "temperature", "alignment_variance": "variance_weight"},
    ),
    "GTCC": (
        "gtcc",
        "GTCC_PARAMS",
        {
            "softmax_temp": "temperature",
            "alignment_variance": "variance_weight",
            "n_components": "num_components",
            "gamma": "keep_floor_decay",
            "delta": "window_fraction",
            "max_gmm_iters": "fit_steps",
        },
    ),
    "LAV": ("lav", "LAV_PARAMS", {"min_temp": "smoothing", "cr_coefficient": "contrast_weight"}),
    "VAVA": (
        "vava",
        "VAVA_PARAMS",
        {
            "maxIter": "sinkhorn_iterations",
            "zeta": "virtual_frame_cost",
            "delta": "prior_bandwidth",
            "gamma": "contrast_weight",
        },
    ),
}


def objective_from_config(config: Any) -> AlignmentObjective:
    """The objective of a configuration of the GTCC repository.

    Args:
        config: an object with ``LOSS_TYPE`` (old loss name -> bool) and ``TCC_ORIGINAL_PARAMS``, ``GTCC_PARAMS``,
            ``LAV_PARAMS``, ``VAVA_PARAMS`` (old keyword arguments).

    Raises:
        ValueError: an unknown loss or argument, or no loss that is enabled.
    """
    losses: dict[str, dict[str, Any]] = {}
    for old, enabled in config.LOSS_TYPE.items():
        if not enabled:
            continue
        require_choice("LOSS_TYPE", old, tuple(OLD_LOSSES))
        new, attribute, arguments = OLD_LOSSES[old]
        given = getattr(config, attribute)
        for name in given:
            require_choice(attribute, name, tuple(arguments))
        losses[new] = {arguments[name]: value for name, value in given.items()}
    return AlignmentObjective(losses=losses)
