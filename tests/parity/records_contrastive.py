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
]
