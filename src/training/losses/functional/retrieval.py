"""Retrieval metrics of a similarity matrix. They never carry a graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .precision import shown


def _hits(similarity: Tensor, columns: Tensor, positive: Tensor | None) -> Tensor:
    """Share of rows with a positive among the chosen ``columns`` ``[R, K]``; 0 without rows, NaN with a NaN."""
    if positive is None:
        positive = torch.eye(*similarity.shape, dtype=torch.bool, device=similarity.device)
    hits = positive.gather(1, columns).any(dim=1).float().sum() / max(len(similarity), 1)
    return shown(hits, similarity)  # NaN ranks first


@torch.no_grad()
def retrieval_recall(similarity: Tensor, k: int, positive: Tensor | None = None) -> Tensor:
    """Recall at ``k``: share of rows with at least one positive among their ``k`` most similar columns.

    ``similarity`` is ``[R, C]``, ``k`` at least 1 and cut to ``C``, ``positive`` boolean ``[R, C]`` (default: the
    diagonal). The result is a 0-d float32 tensor, 0 for an empty matrix.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}")
    return _hits(similarity, similarity.topk(min(k, similarity.shape[1]), dim=1).indices, positive)


@torch.no_grad()
def retrieval_accuracy(similarity: Tensor, positive: Tensor | None = None) -> Tensor:
    """Share of rows whose most similar column is a positive: recall at 1, with ties going to the first column."""
    if similarity.numel() == 0:
        return similarity.new_zeros((), dtype=torch.float32)
    return _hits(similarity, similarity.argmax(dim=1, keepdim=True), positive)


@torch.no_grad()
def retrieval_metrics(
    similarity: Tensor, positive: Tensor | None = None, *, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, Tensor]:
    """Accuracy and recall in both directions of an image-text matrix (rows: vision, columns: text).

    Keys: ``accuracy_v2t``, ``accuracy_t2v``, their mean ``accuracy``, ``recall_v2t@k``, ``recall_t2v@k``, ``recall@k``.
    """
    transposed = None if positive is None else positive.mT
    v2t, t2v = retrieval_accuracy(similarity, positive), retrieval_accuracy(similarity.mT, transposed)
    metrics = {"accuracy_v2t": v2t, "accuracy_t2v": t2v, "accuracy": (v2t + t2v) / 2}
    for k in ks:
        v2t, t2v = retrieval_recall(similarity, k, positive), retrieval_recall(similarity.mT, k, transposed)
        metrics |= {f"recall_v2t@{k}": v2t, f"recall_t2v@{k}": t2v, f"recall@{k}": (v2t + t2v) / 2}
    return metrics
