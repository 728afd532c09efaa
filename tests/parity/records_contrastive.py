"""Contrastive losses of multimodal_insight."""

from __future__ import annotations

from typing import Any

import torch

from tests.support.parity import GoldenCall, ParityRecord, Sample, pairs

TAKES_NO_IDS = ("none", "unique")


def distinct(ids: Any) -> bool:
    return ids is None or len({str(i) for i in ids}) == len(ids)


def clip_call(call: GoldenCall) -> bool:
    """Inside the domain: pairs with distinct ids; smoothing in float32."""
    ids = call.argument("match_ids", 2)
    smooth = call.init.get("label_smoothing", 0.0) > 0 and call.dtype != torch.float32
    known = set(call.kwargs) <= {"vision_features", "text_features", "match_ids", "similarity_matrix"}
    return known and distinct(ids) and not smooth and call.argument("vision_features", 0).shape[0] > 0


def clip_kwargs(sample: Sample) -> dict[str, Any]:
    made: dict[str, Any] = {
        "temperature": (0.07, 0.5)[sample.seed % 2],
        "reduction": ("mean", "sum")[sample.seed // 2 % 2],
    }
    if sample.dtype == torch.float32 and sample.seed % 3 == 0:
        made["label_smoothing"] = 0.1
    return made


def given_logits(sample: Sample, step: int) -> dict[str, Any]:
    return pairs(sample, step) | {"similarity_matrix": 5 * sample.randn(sample.batch, sample.batch, salt=9)}


def bank_full(twin: Any, sample: Sample) -> None:
    """Fill the queues, as after some steps of training."""
    rows = twin.queue_size
    twin.initialize_queue(sample.randn(rows, sample.dim, salt=101), sample.randn(rows, sample.dim, salt=102))
    twin.to(sample.dtype)


def heads(sample: Sample) -> dict[str, Any]:
    """Arguments of an old ContrastiveLoss with heads for every odd seed."""
    if sample.seed % 2:
        return {"add_projection": True, "input_dim": sample.dim, "projection_dim": 5}
    return {"add_projection": False}


def old_contrastive(loss_type: str, strategy: str = "auto") -> Any:
    def kwargs(sample: Sample) -> dict[str, Any]:
        reduction = ("mean", "sum")[sample.seed // 2 % 2]
        chosen = {"loss_type": loss_type, "sampling_strategy": strategy, "reduction": reduction, "temperature": 0.2}
        return heads(sample) | chosen

    return kwargs


def labelled(sample: Sample, step: int) -> dict[str, Any]:
    made = pairs(sample, step)
    made.pop("match_ids", None)
    return made | {"labels": labels_of(sample)}


def labels_of(sample: Sample) -> torch.Tensor:
    draws = torch.randint(3, (sample.batch,), generator=torch.Generator().manual_seed(sample.seed + 1))
    return draws.view(-1, 1) if sample.seed % 3 == 0 else draws


def old_bank(sample: Sample) -> dict[str, Any]:
    made = old_contrastive("infonce", "memory-bank")(sample) | {"memory_bank_size": 11, "reduction": "mean"}
    return made if made["add_projection"] else made | {"input_dim": sample.dim}


def fill_bank(twin: Any, sample: Sample) -> None:
    width = twin.vision_bank.shape[1]
    rows = (3, 11, 14)[sample.seed % 3]
    unit = torch.nn.functional.normalize
    twin.update_memory_bank(unit(sample.randn(rows, width, salt=7)), unit(sample.randn(rows, width, salt=8)))


def hard_call(call: GoldenCall) -> bool:
    ids = call.argument("match_ids", 2)
    strategy = call.init.get("mining_strategy", "semi-hard")
    plain = isinstance(ids, list) and call.dtype in (torch.float32, torch.float64)
    known = strategy in ("hard", "semi-hard", "none", None)
    return plain and known and fits(call) and len({str(i) for i in ids}) > 1


def fits(call: GoldenCall) -> bool:
    """One id per pair, integers or strings, at least one pair, a temperature that does not overflow."""
    ids = call.argument("match_ids", 2)
    v, t = call.argument("vision_features", 0), call.argument("text_features", 1)
    if ids is None or not (len(ids) == v.shape[0] == t.shape[0] > 0) or v.shape != t.shape:
        return False
    kinds = {type(i) for i in ids} if isinstance(ids, list) else {int}
    cold = call.init.get("temperature", call.init.get("base_temperature", 0.07)) < 0.0114
    integers = not isinstance(ids, torch.Tensor) or (ids.dim() == 1 and not ids.is_floating_point())
    return len(kinds) == 1 and kinds <= {int, str} and integers and not cold


def labelled_call(call: GoldenCall) -> bool:
    labels, scores = call.argument("labels", 2), call.argument("similarity_scores", 3)
    if call.init.get("reduction", "mean") not in ("mean", "sum") or set(call.kwargs) - KNOWN:
        return False
    if call.init.get("contrast_mode", "all") not in ("all", "cross", "intra"):
        return False
    if isinstance(labels, torch.Tensor) and (labels.dim() == 1 or labels.shape[1] == 1):
        positive = labels.view(-1, 1) == labels.view(1, -1)
    elif labels is None and scores is not None and torch.equal(scores, scores.T):
        positive = scores >= call.init.get("similarity_threshold", 0.5)
    else:
        return False
    rows = call.argument("vision_features", 0).shape[0]
    return positive.shape == (rows, rows) and bool((positive & ~torch.eye(rows, dtype=torch.bool)).any())


KNOWN = {"vision_features", "text_features", "labels", "similarity_scores", "class_weights"}


def scored(sample: Sample, step: int) -> dict[str, Any]:
    made = labelled(sample, step)
    if sample.seed % 4 == 1:
        del made["labels"]
        scores = sample.randn(sample.batch, sample.batch, salt=5)
        made["similarity_scores"] = scores + scores.T + 9 * torch.ones_like(scores).triu(sample.batch - 1).tril().T
    return with_positive(made)


def with_positive(made: dict[str, Any]) -> dict[str, Any]:
    """The same with at least one positive pair: the first two samples."""
    if "labels" in made:
        made["labels"] = made["labels"].clone()
        made["labels"][1] = made["labels"][0]
    else:
        made["similarity_scores"][0, 1] = made["similarity_scores"][1, 0] = 9.0
    return made


def weighted(sample: Sample, step: int) -> dict[str, Any]:
    return with_positive(labelled(sample, step)) | {"class_weights": sample.randn(3, salt=6).abs()}


def supcon_kwargs(sample: Sample) -> dict[str, Any]:
    return {
        "temperature": (0.07, 0.3)[sample.seed % 2],
        "base_temperature": (0.07, 0.2)[sample.seed // 2 % 2],
        "contrast_mode": ("all", "cross", "intra")[sample.seed % 3],
        "reduction": ("mean", "sum")[sample.seed % 2],
    }


def similar(sample: Sample, step: int) -> dict[str, Any]:
    rows = sample.batch
    return {"similarity": sample.randn(rows, rows), "K": [1, 5, 10]}


def views(sample: Sample, step: int) -> dict[str, Any]:
    unit = torch.nn.functional.normalize
    made = pairs(sample, step)
    return {
        "vision_features": unit(made["vision_features"]),
        "text_features": unit(made["text_features"]),
        "temperature": 0.3,
        "reduction": ("mean", "sum", "none")[sample.seed % 3],
    }


def contrastive_call(loss_type: str, strategy: str = "auto") -> Any:
    """Calls of the old ContrastiveLoss inside the domain of one of its rows."""

    def inside(call: GoldenCall) -> bool:
        init, v, t = call.init, call.argument("vision_features", 0), call.argument("text_features", 1)
        if (init.get("loss_type", "infonce"), init.get("sampling_strategy", "auto")) != (loss_type, strategy):
            return False
        heads_fit = not init.get("add_projection", True) or init.get("input_dim") == v.shape[1]
        shapes = v.shape == t.shape and v.shape[0] > 0 and 768 not in (v.shape[1], init.get("input_dim"))
        positives = loss_type != "infonce" or distinct(call.argument("match_ids", 2))
        labels = call.argument("labels", 4) is not None or loss_type != "supervised"
        return heads_fit and shapes and positives and labels and init.get("dataset_size") is None

    return inside


def function_call(call: GoldenCall) -> bool:
    first = call.args[0] if call.args else next(iter(call.kwargs.values()))
    plain = first.shape[0] > 0 and first.dtype in (torch.float32, torch.float64)
    return plain and bool(torch.isfinite(call.case.decode(call.case.calls[call.index]["returns"])).all())


def recall_call(call: GoldenCall) -> bool:
    first = call.argument("similarity", 0)
    ks = call.argument("K", 1) or [1]
    targets = call.argument("v2t_targets", 2) is not None or call.argument("t2i_targets", 3) is not None
    return (
        first.dim() == 2
        and first.shape[0] == first.shape[1] > 0
        and min(ks) > 0
        and set(ks) <= {1, 5, 10}
        and not targets
    )


def simple_call(call: GoldenCall) -> bool:
    ids = call.argument("match_ids", 2)
    known = not set(call.kwargs) - {"vision_features", "text_features", "match_ids"}
    known = known and call.init.get("temperature", 0.1) > 0
    return (
        known and call.argument("vision_features", 0).shape[0] > 1 and (ids is None or (fits(call) and distinct(ids)))
    )


RECORDS = [
    ParityRecord("clip_style_loss.CLIPStyleLoss", kwargs=clip_kwargs, ids=TAKES_NO_IDS, golden=clip_call),
    ParityRecord("clip_style_loss.CLIPStyleLoss", variant="logits", inputs=given_logits, ids=TAKES_NO_IDS),
    ParityRecord(
        "memory_queue_contrastive_loss.MemoryQueueContrastiveLoss",
        kwargs=lambda s: {"dim": s.dim, "queue_size": 19, "temperature": (0.07, 0.3)[s.seed % 2]},
        prepare=bank_full,
        ids=("unique", "repeated", "same"),
        train=(True,),
        steps=3,
    ),
    ParityRecord(
        "contrastive_loss.ContrastiveLoss",
        variant="infonce",
        kwargs=old_contrastive("infonce"),
        ids=TAKES_NO_IDS,
        golden=contrastive_call("infonce", "auto"),
    ),
    ParityRecord(
        "contrastive_loss.ContrastiveLoss",
        variant="in-batch",
        kwargs=old_contrastive("infonce", "in-batch"),
        ids=TAKES_NO_IDS,
        train=(False,),
    ),
    ParityRecord(
        "contrastive_loss.ContrastiveLoss",
        variant="nt_xent",
        kwargs=old_contrastive("nt_xent"),
        golden=contrastive_call("nt_xent", "in-batch"),
    ),
    ParityRecord(
        "contrastive_loss.ContrastiveLoss",
        variant="supervised",
        kwargs=old_contrastive("supervised"),
        inputs=labelled,
        golden=contrastive_call("supervised", "auto"),
    ),
    ParityRecord(
        "contrastive_loss.ContrastiveLoss",
        variant="filled bank",
        kwargs=old_bank,
        prepare=fill_bank,
        ids=TAKES_NO_IDS,
        train=(False,),
    ),
    *(
        ParityRecord(f"{module}.nt_xent_loss", inputs=views, ids=("none",), golden=function_call)
        for module in ("contrastive_loss", "contrastive_learning")
    ),
    *(
        ParityRecord(f"{module}.compute_recall_at_k", inputs=similar, ids=("none",), golden=recall_call)
        for module in ("contrastive_loss", "contrastive_learning")
    ),
    ParityRecord(
        "hard_negative_mining_contrastive_loss.HardNegativeMiningContrastiveLoss",
        kwargs=lambda s: {
            "temperature": (0.07, 0.5)[s.seed % 2],
            "hard_negative_factor": (2.0, 0.5)[s.seed // 2 % 2],
            "mining_strategy": ("semi-hard", "hard", "none")[s.seed % 3],
        },
        ids=("unique", "repeated"),
        batch=(3, 17),
        golden=hard_call,
    ),
    ParityRecord(
        "dynamic_temperature_contrastive_loss.DynamicTemperatureContrastiveLoss",
        kwargs=lambda s: {"base_temperature": (0.07, 0.3)[s.seed % 2], "max_temp": (0.2, 2.0)[s.seed // 2 % 2]},
        ids=("unique", "repeated", "same"),
        golden=lambda call: fits(call) and call.init.get("min_temp", 0.04) <= call.init.get("max_temp", 0.2),
    ),
    ParityRecord(
        "decoupled_contrastive_loss.DecoupledContrastiveLoss",
        kwargs=lambda s: {"temperature": (0.07, 0.5)[s.seed % 2], "lambda_v": 0.3},
        ids=("unique", "repeated", "same"),
        batch=(2, 17),
        golden=lambda call: fits(call) and call.argument("vision_features", 0).shape[0] > 1,
    ),
    ParityRecord(
        "supervised_contrastive_loss.SupervisedContrastiveLoss",
        kwargs=supcon_kwargs,
        inputs=scored,
        batch=(2, 17),
        golden=labelled_call,
    ),
    ParityRecord(
        "supervised_contrastive_loss.SupervisedContrastiveLoss",
        variant="class weights",
        kwargs=lambda s: supcon_kwargs(s) | {"use_class_weights": True},
        inputs=weighted,
        batch=(2, 17),
    ),
    ParityRecord(
        "loss_factory.SimpleContrastiveLoss",
        kwargs=lambda s: {"temperature": (0.1, 0.4)[s.seed % 2]},
        ids=TAKES_NO_IDS,
        batch=(2, 17),
        golden=simple_call,
    ),
]
