"""Retrieval metrics of a similarity matrix. They never carry a graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["retrieval_accuracy", "retrieval_metrics", "retrieval_recall"]


def _positives(similarity: Tensor, positive: Tensor | None) -> Tensor:
    if positive is not None:
        return positive
    rows, columns = similarity.shape
    return torch.eye(rows, columns, dtype=torch.bool, device=similarity.device)


@torch.no_grad()
def retrieval_recall(similarity: Tensor, k: int, positive: Tensor | None = None) -> Tensor:
    """Recall at ``k``: share of rows with at least one positive among their ``k`` most similar columns.

    Args:
        similarity: ``[R, C]``; ``k`` is cut to ``C``.
        k: at least 1.
        positive: boolean ``[R, C]``; default: the diagonal.

    Returns:
        0-d float32 tensor; 0 for an empty matrix.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}")
    if similarity.numel() == 0:
        return torch.zeros((), device=similarity.device)
    top = similarity.topk(min(k, similarity.shape[1]), dim=1).indices
    return _positives(similarity, positive).gather(1, top).any(dim=1).float().mean()


@torch.no_grad()
def retrieval_accuracy(similarity: Tensor, positive: Tensor | None = None) -> Tensor:
    """Share of rows whose most similar column is a positive: recall at 1, with ties going to the first column."""
    if similarity.numel() == 0:
        return torch.zeros((), device=similarity.device)
    return _positives(similarity, positive).gather(1, similarity.argmax(dim=1, keepdim=True)).float().mean()


@torch.no_grad()
def retrieval_metrics(
    similarity: Tensor, positive: Tensor | None = None, *, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, Tensor]:
    """Accuracy and recall in both directions of an image-text matrix (rows: vision, columns: text).

    Keys: ``accuracy_v2t``, ``accuracy_t2v``, ``accuracy`` (their mean), and per ``k`` ``recall_v2t@k``,
    ``recall_t2v@k``, ``recall@k``.
    """
    transposed = None if positive is None else positive.mT
    v2t, t2v = retrieval_accuracy(similarity, positive), retrieval_accuracy(similarity.mT, transposed)
    metrics = {"accuracy_v2t": v2t, "accuracy_t2v": t2v, "accuracy": (v2t + t2v) / 2}
    for k in ks:
        v2t, t2v = retrieval_recall(similarity, k, positive), retrieval_recall(similarity.mT, k, transposed)
        metrics |= {f"recall_v2t@{k}": v2t, f"recall_t2v@{k}": t2v, f"recall@{k}": (v2t + t2v) / 2}
    return metrics
