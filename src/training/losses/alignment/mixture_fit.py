"""Mixtures of discretised Gaussians fitted to many histograms at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..base import require_choice, require_number

__all__ = ["FIT_METHODS", "FIT_OBJECTIVES", "fit_histogram_mixture"]

FIT_METHODS = ("quasi_newton", "em")
FIT_OBJECTIVES = ("jeffreys", "kl")

FLOOR = 1e-30


class _Problem:
    """One mixture per row: parameters ``[R, 3 K]`` (means, variances, logits) and the objective at them."""

    def __init__(
        self, histograms: Tensor, lengths: Tensor, components: int, objective: str, min_variance: float
    ) -> None:
        self.p, self.components, self.objective, self.min_variance = histograms, components, objective, min_variance
        self.index = torch.arange(histograms.shape[1], device=histograms.device).to(histograms)
        self.real = self.index < lengths[:, None]
        self.last = lengths[:, None].to(histograms) - 1

    def start(self) -> Tensor:
        """Means spread over the histogram, variances of its length, equal weights."""
        order = torch.arange(self.components, device=self.p.device).to(self.p)
        means = 1 + order * (self.last - 1) / self.components
        return torch.cat([means, (self.last + 1).expand_as(means), torch.ones_like(means)], dim=1)

    def mixture(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Components ``[R, K, N]``, each adding up to 1, and weights ``[R, K]``."""
        means, variances, logits = at.chunk(3, dim=1)
        logit = (self.index - means[..., None]).square() / (-2 * variances.clamp_min(self.min_variance)[..., None])
        logit = logit.masked_fill(~self.real[:, None], -math.inf)
        return torch.softmax(logit, dim=2), torch.softmax(logits, dim=1)

    def inside(self, at: Tensor) -> Tensor:
        """The nearest parameters whose means lie on the histogram."""
        means, rest = at[:, : self.components], at[:, self.components :]
        return torch.cat([torch.minimum(means.clamp_min(0), self.last), rest], dim=1)

    def value(self, at: Tensor) -> Tensor:
        """The objective of every row, ``[R]``."""
        components, weights = self.mixture(at)
        q = torch.einsum("rk,rkn->rn", weights, components)
        ratio = torch.log(self.p + FLOOR) - torch.log(q + FLOOR)
        side = self.p - q if self.objective == "jeffreys" else self.p
        return (side * ratio).sum(dim=1)

    def gradient(self, at: Tensor) -> tuple[Tensor, Tensor]:
        """Objective ``[R]`` and its gradient ``[R, 3 K]``."""
        with torch.enable_grad():
            leaf = at.detach().requires_grad_()
            value = self.value(leaf)
            (slope,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), slope


def _direction(slope: Tensor, steps: list[Tensor], changes: list[Tensor]) -> Tensor:
    """The quasi-Newton direction of every row from the last steps and changes of the slope (two-loop recursion)."""
    rest, used = slope, []
    for step, change in zip(reversed(steps), reversed(changes), strict=True):
        curvature = (step * change).sum(dim=1, keepdim=True)
        inverse = torch.where(curvature > 1e-10, 1 / curvature, 0.0)
        factor = inverse * (step * rest).sum(dim=1, keepdim=True)
        rest = rest - factor * change
        used.append((step, change, inverse, factor))
    if changes:
        curvature = (steps[-1] * changes[-1]).sum(dim=1, keepdim=True)
        scale = curvature / changes[-1].square().sum(dim=1, keepdim=True).clamp_min(1e-30)
        rest = rest * torch.where(curvature > 1e-10, scale, 1.0)
    for step, change, inverse, factor in reversed(used):
        rest = rest + step * (factor - inverse * (change * rest).sum(dim=1, keepdim=True))
    return -rest


def _by_slopes(problem: _Problem, steps: int, history: int) -> Tensor:
    """The parameters after so many quasi-Newton steps."""
    at = problem.inside(problem.start())
    value, slope = problem.gradient(at)
    done: list[Tensor] = []
    changes: list[Tensor] = []
    for count in range(steps):
        direction = _direction(slope, done, changes)
        descent = (direction * slope).sum(dim=1)
        # a row whose curvature misleads it starts again downhill
        lost = ~(descent < 0)
        direction = torch.where(lost[:, None], -slope, direction)
        descent = torch.where(lost, -slope.square().sum(dim=1), descent)
        size = torch.ones_like(value) if count else (1 / slope.abs().sum(dim=1).clamp_min(1e-30)).clamp_max(1.0)
        for _ in range(12):
            trial = problem.value(problem.inside(at + size[:, None] * direction))
            size = torch.where(trial <= value + 1e-4 * size * descent, size, size * 0.5)
        step = problem.inside(at + size[:, None] * direction) - at
        better = problem.value(at + step) <= value
        step = torch.where(better[:, None], step, 0.0)
        at = at + step
        value, new_slope = problem.gradient(at)
        done, changes = [*done, step][-history:], [*changes, new_slope - slope][-history:]
        slope = new_slope
    return at


def _by_moments(problem: _Problem, steps: int) -> Tensor:
    """The parameters after so many rounds of expectation-maximisation."""
    at = problem.start()
    for _ in range(steps):
        components, weights = problem.mixture(at)
        shares = weights[..., None] * components
        shares = problem.p[:, None] * shares / shares.sum(dim=1, keepdim=True).clamp_min(FLOOR)
        mass = shares.sum(dim=2).clamp_min(FLOOR)
        means = (shares @ problem.index) / mass
        variances = (shares * (problem.index - means[..., None]).square()).sum(dim=2) / mass
        at = torch.cat([means, variances, mass.log()], dim=1)
    return at


def fit_histogram_mixture(
    histograms: Tensor,
    num_components: int,
    *,
    lengths: Tensor | None = None,
    steps: int = 32,
    objective: str = "jeffreys",
    min_variance: float = 0.5,
    history: int = 10,
    method: str = "quasi_newton",
) -> tuple[Tensor, Tensor]:
    """Components ``[R, K, N]`` and weights ``[R, K]`` of a Gaussian mixture for each histogram, detached.

    Minimises the divergence of ``p`` and ``q = sum_k psi_k g_k``, all rows at once; ``g_k`` is a normal density on
    ``0 .. N-1``, scaled to add up to 1. No randomness. A row that is not finite gives components that are not finite.

    Args:
        histograms: ``[R, N]``, rows adding up to 1; entries behind a row's length are ignored.
        num_components: ``K``, at least 1.
        lengths: valid entries of each row; default: all.
        steps: quasi-Newton steps, or rounds of expectation and maximisation.
        objective: ``jeffreys`` (``KL(p|q) + KL(q|p)``) or ``kl`` (``KL(p|q)``).
        min_variance: smallest variance of a component.
        history: quasi-Newton steps that are remembered.
        method: ``quasi_newton`` (limited-memory BFGS with backtracking), or ``em``: expectation-maximisation, for
            ``kl`` only. A round costs less than a tenth of a step; it takes the moments of what falls to a component,
            as if components did not end with the histogram.

    Raises:
        ValueError: an argument out of range or of another shape.
    """
    require_number("num_components", num_components, low=1, integer=True)
    require_number("steps", steps, low=1, integer=True)
    require_choice("objective", objective, FIT_OBJECTIVES)
    require_choice("method", method, FIT_METHODS)
    if method == "em" and objective != "kl":
        raise ValueError(f"objective must be 'kl' with method='em', found {objective!r}")
    if histograms.dim() != 2 or not histograms.numel():
        raise ValueError(f"histograms must be [R, N] with a row and a bin, found {list(histograms.shape)}")
    if lengths is None:
        lengths = torch.full((len(histograms),), histograms.shape[1], device=histograms.device)
    # the fit takes gradients of its own, also in inference mode, whose tensors autograd refuses; in this order, because
    # leaving inference mode switches gradients on
    with torch.inference_mode(False), torch.no_grad():
        given, valid = (x.clone() if x.is_inference() else x.detach() for x in (histograms, lengths))
        problem = _Problem(given, valid, num_components, objective, min_variance)
        at = _by_moments(problem, steps) if method == "em" else _by_slopes(problem, steps, history)
        components, weights = problem.mixture(at)
        failed = ~torch.isfinite(problem.value(at))[:, None]
    return components.masked_fill(failed[..., None], torch.nan), weights.masked_fill(failed, torch.nan)
