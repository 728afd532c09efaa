"""How the alignment functions are driven in their recorded cases (format: the harness section of the golden README)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch

from tests.support.golden import Run, harness


@harness("alignment", "sink_weighted")
def sink_weighted(run: Run, M: torch.Tensor, reg: float, weight: torch.Tensor, **kw: Any) -> tuple[Any, Any, Any]:
    cost, plan = run.symbol(M, reg, cuda=False, **kw)
    return (plan * weight).sum(), cost, plan


@harness("alignment", "mixture_fit")
def mixture_fit(run: Run, p: torch.Tensor, k: int = 5, **kw: Any) -> Any:
    gaussians, weights, info = run.symbol(p, k, **kw)
    if gaussians is None:
        return gaussians, weights, info
    if isinstance(info, dict):
        info = {"KL_value": info["KL"][0], "mus": info["mus"], "stds": info["stds"]}
    return {"gaussians": gaussians.detach(), "weights": weights.detach(), "info": info}


@harness("alignment", "gtcc_given")
def gtcc_given(run: Run, sequences: list[torch.Tensor], given: dict[str, Any], **kw: Any) -> Any:
    dtype = sequences[0].dtype
    rows = iter(
        [
            (torch.as_tensor(g).to(dtype), torch.as_tensor(w).to(dtype), None)
            for gaussians, weights in zip(given["gaussians"], given["weights"], strict=True)
            for g, w in zip(gaussians, weights, strict=True)
        ]
    )
    with (
        mock.patch.object(torch, "randperm", side_effect=list(given["perms"])),
        mock.patch.object(np.random, "choice", side_effect=list(given["choices"])),
        mock.patch.object(run.module, "get_gmm_lfbgf", side_effect=lambda *_, **__: next(rows)),
    ):
        return run.symbol(sequences, **kw)


@harness("alignment", "loss_entry")
def loss_entry(
    run: Run,
    outputs: list[Any],
    epoch: int,
    enabled: list[str],
    dropouts: list[torch.Tensor] | None = None,
    params: dict[str, Any] | None = None,
    as_list: bool = False,
) -> Any:
    params = params or {}
    names = [*enabled, *([params["extra"]] if "extra" in params else [])]
    config = SimpleNamespace(
        LOSS_TYPE={name: name in names for name in ["tcc", "GTCC", "LAV", "VAVA", *set(names)]},
        TCC_ORIGINAL_PARAMS=params.get("tcc", {"softmax_temp": 0.1, "alignment_variance": 0.001}),
        GTCC_PARAMS=params.get("GTCC", {}),
        LAV_PARAMS=params.get("LAV", {"min_temp": 0.1}),
        VAVA_PARAMS=params.get("VAVA", {}),
    )
    function = run.symbol(config)
    if as_list:
        return function([{"outputs": entry} for entry in outputs], epoch)
    return function({"outputs": outputs, **({"dropouts": dropouts} if dropouts is not None else {})}, epoch)


@contextlib.contextmanager
def bug_in(module: Any, bug: str) -> Iterator[None]:
    """One documented bug put back through the global names of the module."""
    contrast: Callable[..., Any] = module.IntraContrast_loss
    sink: Callable[..., Any] = module.sink

    def scaled(factor: Callable[[int], float]) -> Callable[..., Any]:
        return lambda sequence, *args, **kw: contrast(sequence, *args, **kw) * factor(len(sequence))

    def without_graph(*args: Any, **kw: Any) -> Any:
        with torch.no_grad():
            return contrast(*args, **kw)

    def no_cells(T: torch.Tensor, *_: Any) -> torch.Tensor:
        return torch.zeros_like(T, dtype=torch.int)

    def with_prior_weight(M: torch.Tensor, **kw: Any) -> Any:
        return sink(M, **{**kw, "reg": 0.1 * (M.shape[0] - 1) * (M.shape[1] - 1) / 4})

    replaced = {
        "mean": {"IntraContrast_loss": scaled(lambda n: 1 / n**2)},
        "half_cx_cy": {"IntraContrast_loss": scaled(lambda n: 0.5)},
        "nograd": {"IntraContrast_loss": without_graph},
        "no_cxy": {"get_A": no_cells, "get_Abar": no_cells},
        "reg_l2": {"sink": with_prior_weight},
    }[bug]
    with contextlib.ExitStack() as stack:
        for name, value in replaced.items():
            stack.enter_context(mock.patch.object(module, name, value))
        yield


@harness("alignment", "one_bug")
def one_bug(run: Run, sequences: list[torch.Tensor], *args: Any, **kw: Any) -> Any:
    bug = run.options["bug"]
    if bug != "div_nm":
        with bug_in(run.module, bug):
            return run.symbol(sequences, *args, **kw)
    total = 0.0
    for i, x in enumerate(sequences):
        for y in sequences[i + 1 :]:
            full = run.symbol([x, y], *args, **kw)
            core = run.symbol([x, y], *args, **{**kw, "gamma": 0})
            total = total + core / math.prod((len(x), len(y))) + (full - core)
    return total
