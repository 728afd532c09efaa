"""Frozen twin of the loss part of ``utils.tensorops``: GTCC's mixture fit and a finite check.

Use :class:`training_losses.alignment.GTCCLoss` (its fit is batched and never ends the process) and ``torch.isfinite``.

Kept as it was: one histogram at a time in float32 with L-BFGS, no randomness, process exit with code 1 for a failed fit
or an unknown objective, three ``None`` for a histogram shorter than two, process exit for a list of tensors.
"""

import math
import sys
import time
import traceback

import numpy as np
import torch
import torch.nn.functional as F

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

__all__ = ["contains_non_float_values", "get_gmm_lfbgf"]


def contains_non_float_values(tensor):
    """True if any entry is NaN or infinite; ends the process for what it does not understand."""
    if isinstance(tensor, torch.Tensor):
        return not bool(torch.isfinite(tensor).all())
    if isinstance(tensor, np.ndarray):
        return not bool(np.isfinite(tensor).all())
    if isinstance(tensor, list) and len(tensor) > 0:
        if isinstance(tensor[0], np.ndarray):
            return any(not bool(np.isfinite(entry).all()) for entry in tensor)
        if isinstance(tensor[0], int):
            return not bool(np.isfinite(np.array(tensor)).all())
    sys.exit(1)


def get_gmm_lfbgf(
    probability, n_components=5, device="cpu", debug=False, max_iters=50, history_size=10, max_iter=4, loss_fn="KL"
):
    """Fit ``n_components`` discretised Gaussians to a histogram: ``(components (K, N), weights (K,), means (K,))``."""
    if loss_fn != "KL":
        sys.exit(1)
    length = len(probability)
    if length < 2:
        return None, None, None
    start = time.time()
    with torch.enable_grad():
        p = probability.detach().to(device)
        support = torch.arange(length, dtype=torch.float32, device=device)
        means = [1 + c * (length - 2) / n_components for c in range(n_components)]
        mu = torch.tensor(means, dtype=torch.float32, device=device, requires_grad=True)
        spread = torch.full((n_components,), float(length), dtype=torch.float32, device=device, requires_grad=True)
        logits = torch.ones(n_components, dtype=torch.float32, device=device, requires_grad=True)
        optimizer = torch.optim.LBFGS(
            [mu, spread, logits], lr=0.5, max_iter=max_iter, history_size=history_size, line_search_fn="strong_wolfe"
        )

        def mixture():
            sd = torch.sqrt(torch.clamp(spread, min=0.5)).unsqueeze(1)
            center = torch.clamp(mu, 0, length - 1).unsqueeze(1)
            bells = torch.exp(-0.5 * ((support - center) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))
            bells = bells / bells.sum(dim=1, keepdim=True)
            return bells, F.softmax(logits, dim=0)

        def objective(bells, weights):
            q = weights @ bells
            log_p, log_q = torch.log(p + 1e-30), torch.log(q + 1e-30)
            return (p * (log_p - log_q)).sum() + (q * (log_q - log_p)).sum()

        def closure():
            optimizer.zero_grad()
            value = objective(*mixture())
            if value < 0 or not torch.isfinite(value):
                raise ValueError(f"the mixture fit failed with the value {value}")
            value.backward()
            return value

        try:
            for _ in range(max_iters):
                optimizer.step(closure)
        except Exception:
            traceback.print_exc()
            sys.exit(1)
        # where the search ended, which need not be the point that the closure saw last
        bells, weights = mixture()
        if debug:
            value = objective(bells, weights)
            return bells, weights, {"KL": (value.item(), time.time() - start), "mus": mu, "stds": spread}
    return bells, weights, mu
