"""Self-supervised, multimodal, supervised and combining losses of multimodal_insight."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from tests.parity.records_contrastive import TAKES_NO_IDS, distinct
from tests.support.parity import GoldenCall, ParityRecord, Sample, pairs


def views(sample: Sample, step: int = 0) -> dict[str, Any]:
    made = pairs(sample, step)
    return {"z_a": made["vision_features"], "z_b": made["text_features"]}


def features(sample: Sample, step: int = 0) -> dict[str, Any]:
    return {k: v for k, v in pairs(sample, step).items() if k != "match_ids"}


def two_of_one_shape(call: GoldenCall, names: tuple[str, str]) -> bool:
    a, b = call.argument(names[0], 0), call.argument(names[1], 1)
    return a.dim() == 2 and a.shape == b.shape and a.shape[0] > 1


# --- VICReg ------------------------------------------------------------------------------------------------------


def vicreg_kwargs(sample: Sample) -> dict[str, Any]:
    made: dict[str, Any] = {"curriculum": sample.seed % 2 == 0}
    if sample.seed % 3:
        made |= {"sim_coeff": 7.0, "var_coeff": 3.0, "cov_coeff": 0.5, "epsilon": 1e-4}
    return made | {"warmup_epochs": sample.seed % 7}


# --- Barlow Twins ------------------------------------------------------------------------------------------------


def barlow_kwargs(sample: Sample) -> dict[str, Any]:
    made = {"lambda_coeff": 0.1, "normalize_embeddings": sample.seed % 2 == 0}
    return made | {"correlation_mode": ("cross_modal", "within_batch")[sample.seed // 2 % 2]}


def barlow_heads(sample: Sample) -> dict[str, Any]:
    heads = {"add_projection": True, "input_dim": sample.dim, "projection_dim": 1 + sample.seed % 9}
    return barlow_kwargs(sample) | heads | {"batch_norm_last_layer": sample.seed % 3 == 0}


def barlow_call(call: GoldenCall) -> bool:
    known = call.init.get("correlation_mode", "cross_modal") in ("cross_modal", "within_batch")
    return known and two_of_one_shape(call, ("vision_features", "text_features"))


# --- decorrelation -----------------------------------------------------------------------------------------------


def feature_sets(sample: Sample, step: int) -> dict[str, Any]:
    names = [
        n for i, n in enumerate(("vision_features", "text_features", "features")) if (sample.seed + 1) % 8 >> i & 1
    ]
    return {
        name: sample.randn(sample.batch + salt, sample.dim + 1 + salt, salt=salt)
        for salt, name in enumerate(names or ["features"])
    }


def decorrelation_kwargs(sample: Sample) -> dict[str, Any]:
    made = {"coef": 0.5, "normalize_embeddings": sample.seed % 2 == 0, "track_feature_stats": sample.seed % 3 > 0}
    return made | {"reduction": ("mean", "sum")[sample.seed // 2 % 2]}


def decorrelation_call(call: GoldenCall) -> bool:
    sets = [
        x
        for i, n in enumerate(("vision_features", "text_features", "features"))
        if (x := call.argument(n, i)) is not None
    ]
    known = call.init.get("reduction", "mean") in ("mean", "sum") and "match_ids" not in call.kwargs
    return known and bool(sets) and all(x.dim() == 2 and min(x.shape) > 1 for x in sets)


# --- contrastive pre-training ------------------------------------------------------------------------------------


def hybrid_kwargs(sample: Sample) -> dict[str, Any]:
    made = {"vision_dim": sample.dim, "text_dim": sample.dim, "fusion_dim": 1 + sample.seed % 6, "temperature": 0.2}
    made |= {"curriculum": sample.seed % 2 == 0, "contrastive_pretrain_steps": 3, "gradual_transition_steps": 4}
    return made | {"adaptive_transition": sample.seed // 2 % 2 == 0, "min_alignment_threshold": -5.0}


def hybrid_inputs(sample: Sample, step: int) -> dict[str, Any]:
    return views(sample, step)


def hybrid_call(call: GoldenCall) -> bool:
    width = call.init.get("vision_dim", 768)
    fits = width == call.init.get("text_dim", 768) == call.argument("z_a", 0).shape[-1] != 768
    return fits and not call.kwargs.keys() & {"match_ids"} and two_of_one_shape(call, ("z_a", "z_b"))


# --- mixed contrastive -------------------------------------------------------------------------------------------


def mixed_kwargs(sample: Sample) -> dict[str, Any]:
    made: dict[str, Any] = {
        "temperature": (0.07, 0.5)[sample.seed % 2],
        "reduction": ("mean", "sum")[sample.seed // 2 % 2],
    }
    if sample.seed % 3 == 0:
        made["loss_weights"] = {"infonce": 0.7, "nt_xent": 0.2, "supervised": 1.1}
    return made


def mixed_heads(sample: Sample) -> dict[str, Any]:
    return mixed_kwargs(sample) | {"add_projection": True, "input_dim": sample.dim + 1, "projection_dim": 5}


def mixed_wide(sample: Sample, step: int) -> dict[str, Any]:
    """Two columns and more: with one, cosines are exact ties, which decide accuracies by rounding."""
    return labelled(replace(sample, dim=sample.dim + 1), step)


def labelled(sample: Sample, step: int) -> dict[str, Any]:
    made = pairs(sample, step)
    return made | {"labels": torch.arange(sample.batch) % 3} if sample.seed % 2 else made


def mixed_call(call: GoldenCall) -> bool:
    batch = call.argument("vision_features", 0).shape[0]
    weights = call.init.get("loss_weights") or {}
    known = set(weights) in (set(), {"infonce", "nt_xent", "supervised"})
    quiet = not call.train or batch >= 16
    stable = call.init.get("temperature", 0.07) > 0.0113 and call.init.get("reduction", "mean") in ("mean", "sum")
    return known and quiet and stable and batch > 0 and distinct(call.argument("match_ids", 2))


# --- feature consistency -----------------------------------------------------------------------------------------


def references(sample: Sample) -> dict[str, Any]:
    torch.manual_seed(sample.seed)
    made = {f"reference_{name}_model": nn.Linear(3, sample.dim).to(sample.dtype) for name in ("vision", "text")}
    made["distance_fn"] = ("cosine", "l2", "l1", "smooth_l1")[sample.seed % 4]
    made |= {"normalize_features": sample.seed // 4 % 2 == 0, "detach_reference": sample.seed % 3 > 0}
    return made | {"vision_weight": 0.5, "reduction": ("mean", "sum")[sample.seed // 2 % 2]}


def consistency_inputs(sample: Sample, step: int) -> dict[str, Any]:
    made = features(sample, step)
    return made | {
        f"{name}_inputs": sample.randn(sample.batch, 3, salt=7 + i) for i, name in enumerate(("vision", "text"))
    }


def consistency_call(call: GoldenCall) -> bool:
    given = [
        call.argument(n, i) for i, n in enumerate(("vision_features", "text_features", "vision_inputs", "text_inputs"))
    ]
    models = [call.init.get(f"reference_{name}_model") for name in ("vision", "text")]
    complete = all(
        (f is None) == (x is None) and (f is None or m is not None)
        for f, x, m in zip(given[:2], given[2:], models, strict=True)
    )
    plain = all(m is None or isinstance(m, nn.Linear) for m in models) and "match_ids" not in call.kwargs
    reduction = call.init.get("reduction", "mean") in ("mean", "sum")
    return complete and plain and reduction and any(f is not None for f in given[:2])


# --- supervised --------------------------------------------------------------------------------------------------


def classes(sample: Sample, step: int) -> dict[str, Any]:
    width = sample.dim + 1
    made = {"input": sample.randn(sample.batch, width, salt=step), "target": torch.arange(sample.batch) % width}
    return made | {"sample_weight": sample.randn(sample.batch, salt=5).abs()} if sample.seed % 2 else made


def cross_entropy_kwargs(sample: Sample) -> dict[str, Any]:
    made: dict[str, Any] = {"reduction": ("mean", "sum", "none")[sample.seed % 3]}
    if sample.dtype == torch.float32 and sample.seed // 2 % 2:
        return made | {"smoothing": 0.2}
    return made | {"smoothing": 0.0, "weight": sample.randn(sample.dim + 1, salt=3).abs()}


def cross_entropy_call(call: GoldenCall) -> bool:
    smooth = call.init.get("smoothing", 0.1)
    logits = call.argument("input", 0)
    known = call.init.get("reduction", "mean") in ("mean", "sum", "none") and 0 <= smooth < 1
    target = call.argument("target", 1)
    indices = target.dtype == torch.int64 and (not smooth or bool((target >= 0).all()))
    weight = call.argument("sample_weight", 2)
    fits = weight is None or weight.shape in (target.shape, target.shape[:1])
    return known and indices and fits and (not smooth or (logits.dim() == 2 and call.dtype == torch.float32))


def errors(sample: Sample, step: int) -> dict[str, Any]:
    made = {
        "input": sample.randn(sample.batch, sample.dim, salt=0),
        "target": sample.randn(sample.batch, sample.dim, salt=1),
    }
    return made | {"sample_weight": sample.randn(sample.batch, salt=5).abs()} if sample.seed % 2 else made


def mse_kwargs(sample: Sample) -> dict[str, Any]:
    clip = {"clip_grad": 1.0} if sample.seed // 3 % 2 else {}
    return {"reduction": ("mean", "sum", "none")[sample.seed % 3], **clip}


def mse_call(call: GoldenCall) -> bool:
    a, b, weight = call.argument("input", 0), call.argument("target", 1), call.argument("sample_weight", 2)
    known = call.init.get("reduction", "mean") in ("mean", "sum", "none")
    return known and a.shape == b.shape and (weight is None or (a.dim() == 2 and weight.shape == a.shape[:1]))


# --- tasks -------------------------------------------------------------------------------------------------------


def task_losses(sample: Sample) -> dict[str, Any]:
    made: dict[str, Any] = {"loss_functions": {"recon": nn.MSELoss(), "depth": nn.L1Loss()}}
    if sample.seed % 2:
        made["dynamic_weighting"] = True
    elif sample.seed % 3:
        made["loss_weights"] = {"recon": 2.0, "depth": 1.0}
    return made


def task_inputs(sample: Sample, step: int) -> dict[str, Any]:
    names = ("recon", "depth") if sample.seed % 5 else ("depth",)
    pair = [
        {n: sample.randn(sample.batch, sample.dim, salt=10 * step + i + j) for i, n in enumerate(names)} for j in (0, 5)
    ]
    return {"inputs": pair[0], "targets": pair[1]}


def task_call(call: GoldenCall) -> bool:
    tasks, weights = call.init["loss_functions"], call.init.get("loss_weights") or {}
    reduced = all(getattr(m, "reduction", "mean") != "none" for m in tasks.values())
    inputs, targets = call.argument("inputs", 0), call.argument("targets", 1)
    known = set(inputs) | set(targets) <= set(tasks) and set(weights) in (set(), set(tasks))
    live = call.train or not call.init.get("dynamic_weighting")
    return reduced and known and live and bool(set(inputs) & set(targets)) and call.dtype != torch.float16


RECORDS = [
    ParityRecord(
        "vicreg_loss.VICRegLoss",
        inputs=views,
        kwargs=vicreg_kwargs,
        batch=(2, 17),
        ids=("none",),
        golden=lambda c: two_of_one_shape(c, ("z_a", "z_b")),
    ),
    ParityRecord(
        "barlow_twins_loss.BarlowTwinsLoss",
        inputs=features,
        kwargs=barlow_kwargs,
        batch=(2, 17),
        ids=("none",),
        golden=barlow_call,
    ),
    ParityRecord(
        "barlow_twins_loss.BarlowTwinsLoss",
        variant="heads",
        inputs=features,
        kwargs=barlow_heads,
        batch=(3, 17),
        ids=("none",),
        steps=2,
    ),
    ParityRecord(
        "decorrelation_loss.DecorrelationLoss",
        inputs=feature_sets,
        kwargs=decorrelation_kwargs,
        batch=(2, 17),
        ids=("none",),
        golden=decorrelation_call,
    ),
    ParityRecord(
        "hybrid_pretrain_vicreg_loss.HybridPretrainVICRegLoss",
        inputs=hybrid_inputs,
        kwargs=hybrid_kwargs,
        batch=(2, 17),
        ids=("none",),
        golden=hybrid_call,
    ),
    ParityRecord(
        "multimodal_mixed_contrastive_loss.MultiModalMixedContrastiveLoss",
        inputs=labelled,
        kwargs=mixed_kwargs,
        ids=TAKES_NO_IDS,
        train=(False,),
        golden=mixed_call,
    ),
    ParityRecord(
        "multimodal_mixed_contrastive_loss.MultiModalMixedContrastiveLoss",
        variant="heads",
        inputs=mixed_wide,
        kwargs=mixed_heads,
        ids=TAKES_NO_IDS,
        batch=(16, 19),
    ),
    ParityRecord(
        "feature_consistency_loss.FeatureConsistencyLoss",
        inputs=consistency_inputs,
        kwargs=references,
        ids=("none",),
        golden=consistency_call,
    ),
    ParityRecord(
        "losses.CrossEntropyLoss",
        inputs=classes,
        kwargs=cross_entropy_kwargs,
        ids=("none",),
        golden=cross_entropy_call,
    ),
    ParityRecord("losses.MeanSquaredError", inputs=errors, kwargs=mse_kwargs, ids=("none",), golden=mse_call),
    ParityRecord(
        "multitask_loss.MultitaskLoss",
        inputs=task_inputs,
        kwargs=task_losses,
        ids=("none",),
        train=(True,),
        steps=3,
        golden=task_call,
    ),
]
