"""Watch several losses during training: plain numbers for any logger, warning signs, a picture of the run."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..base import require_number

__all__ = ["BalanceWarning", "LossBalanceMonitor", "MonitorReport"]

RESOLUTION = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class BalanceWarning:
    """A warning sign: what kind, about which term (or ``None``), in words."""

    kind: str
    term: str | None
    message: str


@dataclass(frozen=True)
class MonitorReport:
    """What one step looked like."""

    step: int
    metrics: dict[str, float]
    warnings: list[BalanceWarning] = field(default_factory=list)

    def criterion_logs(self, *, stage: str = "train", names: Mapping[str, str] | None = None) -> dict[str, float]:
        """The metrics under the log keys of ``dynvision``, for dashboards and checkpoints that monitor those.

        ``loss/<class>`` is a term with its weight, under the name of the old class (``loss/CrossEntropyLoss``,
        ``loss/EnergyLoss``); ``<stage>_loss`` is the total.

        Args:
            stage: ``train``, ``val`` or ``test``.
            names: term -> old class, where it does not follow from the term's name (``energy`` or ``energy_loss``).
        """
        logs = {f"{stage}_loss": self.metrics["loss"]} if "loss" in self.metrics else {}
        for key, value in self.metrics.items():
            if key.startswith("weighted/"):
                term = key.removeprefix("weighted/")
                words = term.removeprefix("temporal_").removesuffix("_loss").split("_")
                default = f"{''.join(map(str.title, words))}Loss"
                logs[f"loss/{(names or {}).get(term, default)}"] = value
        return logs


class LossBalanceMonitor:
    """Metrics and warning signs from the results of a balancer (any ``LossOutput`` with entries ``terms.<name>``).

    Call it once per step, or once per logging interval::

        monitor = LossBalanceMonitor(floor=1e-4)
        out = balancer(values)
        report = monitor.update(out, images=rendered)
        logger.log(report.metrics)
        for warning in report.warnings: ...

    Metrics (floats): ``loss``; per term ``term/<name>``, ``log/<name>`` ``= log(L + eps)``,
    ``progress/<name>`` ``= L(t) / L(0)``; ``weight/<name>``, ``weighted/<name>``, ``gradient_norm/<name>`` where given;
    ``geometric_mean``; ``jump`` ``= |log GM(t) - log GM(t-1)|``; ``penalty`` and ``penalty_share``
    ``= |R| / (|R| + sum_i |log_i|)`` where the result has a ``floor_penalty``; ``gradient_ratio``; ``image_std``.

    Warnings, by kind:

    * ``not_finite``: any metric is infinite or not a number; ``negative``: a term is below zero.
    * ``vanishing``: a term is below ``vanishing * eps``, or its log fell by more than ``log_fall`` within the window.
    * ``penalty_dominates`` (share above ``share_dominates``), ``penalty_notice`` (above ``share_notice``), and
      ``penalty_inactive``: a term is below ``floor``, but the penalty is below the resolution of the loss in float32.
    * ``jump``: the geometric mean moved by more than ``jump`` (in logarithms), or by more than ``jump_factor`` times
      the mean move of the window (and ``jump_floor``).
    * ``gradients_apart``: largest gradient norm above ``gradient_ratio`` times the smallest.
    * ``competing``: over the whole window one term rose, while another fell, by more than the share ``compete``.
    * ``rising_together``: over the whole window two terms or more rose by more than that, and none fell so far: an
      energy that rises with the cross entropy, for instance, costs without serving.
    * ``growing``: a term rose in each quarter of the window, and by more than ``compete`` in all: no plateau.
    * ``uniform_image``: the standard deviation of the given images is below ``image_std``.

    Args:
        window: number of updates that are looked back on.
        eps: ``eps``.
        floor: value below which a term ought to be stopped by the floor penalty; ``None``: not looked at.
        keep: keep all reports in ``reports``, for ``plot``.
        vanishing, log_fall, share_notice, share_dominates, jump, jump_factor, jump_floor, gradient_ratio, compete,
            image_std: the thresholds.

    ``update`` copies one small tensor to the host, and so waits for the device: call it as often as you log.
    ``state_dict`` / ``load_state_dict`` carry the window over a restart.

    Raises:
        ValueError: thresholds that are not positive; a result without terms.
    """

    def __init__(
        self,
        *,
        window: int = 100,
        eps: float = 1e-8,
        floor: float | None = None,
        keep: bool = True,
        vanishing: float = 100.0,
        log_fall: float = 3.0,
        share_notice: float = 0.1,
        share_dominates: float = 0.5,
        jump: float = 1.0,
        jump_factor: float = 6.0,
        jump_floor: float = 0.05,
        gradient_ratio: float = 100.0,
        compete: float = 0.2,
        image_std: float = 0.01,
    ) -> None:
        require_number("window", window, low=2, integer=True)
        self.thresholds = {
            "eps": eps,
            "vanishing": vanishing,
            "log_fall": log_fall,
            "share_notice": share_notice,
            "share_dominates": share_dominates,
            "jump": jump,
            "jump_factor": jump_factor,
            "jump_floor": jump_floor,
            "gradient_ratio": gradient_ratio,
            "compete": compete,
            "image_std": image_std,
        }
        for name, value in self.thresholds.items():
            require_number(name, value, low=0, exclusive=True)
        self.window, self.floor, self.keep = window, floor, keep
        self.reports: list[MonitorReport] = []
        self._step = 0
        self._first: dict[str, float] = {}
        self._terms: deque[dict[str, float]] = deque(maxlen=window)
        self._log_means: deque[float] = deque(maxlen=window)

    def update(
        self,
        output: Mapping[str, Tensor],
        *,
        gradient_norms: Mapping[str, Tensor] | None = None,
        images: Tensor | None = None,
    ) -> MonitorReport:
        """Metrics and warnings of one step.

        Args:
            output: result of a balancer.
            gradient_norms: per term, for instance from ``GradNormLoss.balance``.
            images: the rendered batch; its standard deviation within each image shows a collapse.
        """
        given = _to_host(output, gradient_norms or {}, images)
        terms = {key[5:]: value for key, value in given.items() if key.startswith("term/")}
        if not terms:
            raise ValueError(f"output must have entries 'terms.<name>', found {list(output)}")
        metrics = {**given, **self._derived(terms, given)}
        warnings = [*self._about_values(metrics, terms), *self._about_time(metrics, terms)]
        self._terms.append(terms)
        self._log_means.append(math.log(metrics["geometric_mean"]) if metrics["geometric_mean"] > 0 else math.nan)
        report = MonitorReport(self._step, metrics, warnings)
        self._step += 1
        if self.keep:
            self.reports.append(report)
        return report

    def _derived(self, terms: Mapping[str, float], given: Mapping[str, float]) -> dict[str, float]:
        logs = {name: _log(value + self.thresholds["eps"]) for name, value in terms.items()}
        self._first = self._first or dict(terms)
        mean = sum(logs.values()) / len(logs)
        derived = {f"log/{name}": value for name, value in logs.items()}
        derived |= {f"progress/{n}": v / (self._first.get(n) or math.nan) for n, v in terms.items()}
        derived["geometric_mean"] = math.exp(mean) if math.isfinite(mean) else mean
        if self._log_means:
            derived["jump"] = abs(mean - self._log_means[-1])
        if "penalty" in given:
            total = abs(given["penalty"]) + sum(abs(value) for value in logs.values())
            derived["penalty_share"] = abs(given["penalty"]) / total if total else 0.0
        norms = [value for key, value in given.items() if key.startswith("gradient_norm/")]
        if norms:
            derived["gradient_ratio"] = max(norms) / min(norms) if min(norms) > 0 else math.inf
        return derived

    def _about_values(self, metrics: Mapping[str, float], terms: Mapping[str, float]) -> list[BalanceWarning]:
        limit = self.thresholds
        found = []
        bad = [key for key, value in metrics.items() if not math.isfinite(value) and not key.startswith("progress/")]
        if bad:
            found.append(BalanceWarning("not_finite", None, f"not finite: {', '.join(bad)}"))
        for name, value in terms.items():
            if value < 0:
                found.append(BalanceWarning("negative", name, f"{name} is negative ({value:.3g}), logs need >= 0"))
            elif value < limit["vanishing"] * limit["eps"]:
                found.append(BalanceWarning("vanishing", name, f"{name} is down to {value:.3g}, its log runs away"))
        found += self._about_penalty(metrics, terms)
        if metrics.get("gradient_ratio", 0.0) > limit["gradient_ratio"]:
            text = f"the largest gradient norm is {metrics['gradient_ratio']:.3g} times the smallest"
            found.append(BalanceWarning("gradients_apart", None, text))
        if metrics.get("image_std", math.inf) < limit["image_std"]:
            text = f"the images are nearly uniform (standard deviation {metrics['image_std']:.3g})"
            found.append(BalanceWarning("uniform_image", None, text))
        return found

    def _about_penalty(self, metrics: Mapping[str, float], terms: Mapping[str, float]) -> list[BalanceWarning]:
        share = metrics.get("penalty_share")
        if share is None:
            return []
        if share > self.thresholds["share_notice"]:
            dominates = share > self.thresholds["share_dominates"]
            kind = "penalty_dominates" if dominates else "penalty_notice"
            return [BalanceWarning(kind, None, f"the penalty makes up {share:.0%} of the loss")]
        below = [name for name, value in terms.items() if self.floor is not None and value < self.floor]
        if below and abs(metrics["penalty"]) < RESOLUTION * abs(metrics.get("loss", 1.0)):
            text = f"{', '.join(below)} below the floor, but the penalty does not show in the loss"
            return [BalanceWarning("penalty_inactive", below[0], text)]
        return []

    def _about_time(self, metrics: Mapping[str, float], terms: Mapping[str, float]) -> list[BalanceWarning]:
        limit = self.thresholds
        found = []
        for name in terms:
            highest = max((past.get(name, 0.0) for past in self._terms), default=0.0)
            fall = _log(highest + limit["eps"]) - metrics[f"log/{name}"]
            if fall > limit["log_fall"]:
                text = f"the log of {name} fell by {fall:.2g} within {len(self._terms)} updates"
                found.append(BalanceWarning("vanishing", name, text))
        jump = metrics.get("jump", 0.0)
        usual = self._usual_jump()
        if jump > limit["jump"] or (jump > limit["jump_floor"] and jump > limit["jump_factor"] * usual):
            text = f"the geometric mean jumped by {jump:.3g} (logarithm); usual is {usual:.3g}"
            found.append(BalanceWarning("jump", None, text))
        if len(self._terms) == self.window:
            found += self._over_the_window(terms, self._terms[0])
        return found

    def _usual_jump(self) -> float:
        moves = [abs(b - a) for a, b in zip(self._log_means, islice(self._log_means, 1, None), strict=False)]
        # a mean of a few moves says nothing
        return sum(moves) / len(moves) if len(moves) >= 10 else math.inf

    def _over_the_window(self, terms: Mapping[str, float], past: Mapping[str, float]) -> list[BalanceWarning]:
        share = self.thresholds["compete"]
        up = [name for name, value in terms.items() if value > past.get(name, math.inf) * (1 + share)]
        down = [name for name, value in terms.items() if value < past.get(name, -math.inf) * (1 - share)]
        found = []
        if up and down:
            text = f"{', '.join(up)} rose while {', '.join(down)} fell over {self.window} updates"
            found.append(BalanceWarning("competing", up[0], text))
        elif len(up) > 1:
            text = f"{', '.join(up)} rose together over {self.window} updates"
            found.append(BalanceWarning("rising_together", up[0], text))
        for name in up:
            # fewer than four steps are no course
            marks = [self._terms[i * self.window // 4].get(name, math.nan) for i in range(4)] + [terms[name]]
            if self.window >= 4 and all(a < b for a, b in pairwise(marks)):
                text = f"{name} keeps growing: it rose in each quarter of {self.window} updates"
                found.append(BalanceWarning("growing", name, text))
        return found

    def state_dict(self) -> dict[str, Any]:
        """Step, first values and window, as plain numbers."""
        return {
            "step": self._step,
            "first": dict(self._first),
            "terms": [dict(terms) for terms in self._terms],
            "log_means": list(self._log_means),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where ``state_dict`` was taken."""
        self._step, self._first = state["step"], dict(state["first"])
        self._terms = deque((dict(terms) for terms in state["terms"]), maxlen=self.window)
        self._log_means = deque(state["log_means"], maxlen=self.window)

    def plot(self, path: str | Path | None = None) -> Any:
        """Draw terms, weights and warnings over the steps; save to ``path`` if given.

        Returns:
            The matplotlib figure.

        Raises:
            ImportError: matplotlib is missing.
            ValueError: nothing was kept.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plot needs matplotlib: pip install matplotlib") from error
        if not self.reports:
            raise ValueError("plot: there are no reports (keep=True keeps them)")
        figure = Figure(figsize=(8, 6), layout="constrained")
        axes = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2, 1]})
        steps = [report.step for report in self.reports]
        for axis, prefix, title in ((axes[0], "term/", "terms"), (axes[1], "weight/", "weights")):
            keys = dict.fromkeys(k for report in self.reports for k in report.metrics if k.startswith(prefix))
            for key in keys:
                axis.plot(
                    steps, [report.metrics.get(key, math.nan) for report in self.reports], label=key[len(prefix) :]
                )
            axis.set_ylabel(title)
            if keys:
                axis.set_yscale("log", nonpositive="mask")
                axis.legend(loc="upper right", fontsize="small")
        kinds = list(dict.fromkeys(w.kind for report in self.reports for w in report.warnings))
        for height, kind in enumerate(kinds):
            at = [report.step for report in self.reports if any(w.kind == kind for w in report.warnings)]
            axes[2].plot(at, [height] * len(at), "|", markersize=10)
        axes[2].set_yticks(range(len(kinds)), kinds, fontsize="small")
        axes[2].set_ylabel("warnings")
        axes[2].set_xlabel("step")
        if path is not None:
            figure.savefig(path)
        return figure


def _log(value: float) -> float:
    return math.log(value) if value > 0 else (-math.inf if value == 0 else math.nan)


def _to_host(output: Mapping[str, Tensor], norms: Mapping[str, Tensor], images: Tensor | None) -> dict[str, float]:
    """The numbers of interest under their metric names, fetched from the device in one transfer."""
    metric_of = {
        "loss": "loss",
        "terms": "term/",
        "weights": "weight/",
        "weighted": "weighted/",
        "floor_penalty": "penalty",
    }
    wanted: dict[str, Tensor] = {}
    for key, value in output.items():
        head, _, name = key.partition(".")
        if head in metric_of:
            wanted[metric_of[head] + name] = value
    wanted |= {f"gradient_norm/{name}": norm for name, norm in norms.items()}
    if images is not None:
        wanted["image_std"] = images.detach().float().flatten(1).std(dim=1).mean()
    if not wanted:
        return {}
    numbers: list[float] = torch.stack([value.detach().float() for value in wanted.values()]).tolist()
    return dict(zip(wanted, numbers, strict=True))
