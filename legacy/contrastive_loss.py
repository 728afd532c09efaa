"""Frozen twin of ``src.training.losses.contrastive_loss``: InfoNCE, NT-Xent and supervised contrastive loss in one.

Kept on purpose: the stores ("memory-bank", "global") never fill by themselves; projection heads are rebuilt or
switched off inside the forward; a ``RuntimeError`` of the heads silently means "no projection". Successors by
``loss_type``: ``SimCLRLoss``, ``CLIPLoss``, ``MemoryQueueLoss``, ``SupervisedContrastiveLoss`` of ``training_losses``.
"""

import logging
import random

import torch
import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


def _head(input_dim, output_dim):
    return nn.Sequential(nn.Linear(input_dim, input_dim), nn.ReLU(), nn.Linear(input_dim, output_dim))


class ContrastiveLoss(nn.Module):
    def __init__(
        self,
        temperature=0.07,
        loss_type="infonce",
        reduction="mean",
        add_projection=True,
        projection_dim=256,
        input_dim=None,
        sampling_strategy="auto",
        memory_bank_size=4096,
        dataset_size=None,
    ):
        super().__init__()
        self.temperature = temperature
        self.loss_type = loss_type
        self.reduction = reduction
        self.memory_bank_size = memory_bank_size
        if sampling_strategy == "auto" and dataset_size is not None:
            small, medium = dataset_size < 1000, dataset_size < 10000
            sampling_strategy = "global" if small else "memory-bank" if medium else "in-batch"
        self.sampling_strategy = sampling_strategy

        if sampling_strategy in ("memory-bank", "global"):
            if input_dim == 768:
                projection_dim = 768
            width = projection_dim if add_projection else (input_dim or 768)
        if sampling_strategy == "memory-bank":
            self.register_buffer("vision_bank", torch.zeros(memory_bank_size, width))
            self.register_buffer("text_bank", torch.zeros(memory_bank_size, width))
            self.register_buffer("bank_ptr", torch.zeros(1, dtype=torch.long))
            self.register_buffer("bank_size", torch.zeros(1, dtype=torch.long))
        elif sampling_strategy == "global":
            self.dataset_size = dataset_size or 1000
            self.register_buffer("global_vision_embeddings", torch.zeros(self.dataset_size, width))
            self.register_buffer("global_text_embeddings", torch.zeros(self.dataset_size, width))
            self.register_buffer("global_indices", torch.zeros(self.dataset_size, dtype=torch.long))
            self.register_buffer("global_size", torch.zeros(1, dtype=torch.long))
            self.register_buffer("global_initialized", torch.tensor(False))

        self.add_projection = add_projection
        if add_projection:
            assert input_dim is not None, "input_dim is needed with add_projection"
            self.vision_projection = _head(input_dim, projection_dim)
            self.text_projection = _head(input_dim, projection_dim)

    def project(self, vision_features, text_features):
        if self.add_projection:
            device = vision_features.device
            if next(self.vision_projection.parameters()).device != device:
                self.vision_projection = self.vision_projection.to(device)
                self.text_projection = self.text_projection.to(device)
            self._project_print_counter = getattr(self, "_project_print_counter", 0) + 1
            first = getattr(self.vision_projection, "0", None)
            if isinstance(first, nn.Linear):
                last = [m for m in self.vision_projection.modules() if isinstance(m, nn.Linear)][-1]
                if first.in_features == 768 and last.out_features != 768:
                    self.vision_projection = nn.Sequential(nn.Linear(768, 768)).to(device)
                    self.text_projection = nn.Sequential(nn.Linear(768, 768)).to(device)
            self.vision_projection = self._fitting_head(self.vision_projection, vision_features.shape[-1], device)
            self.text_projection = self._fitting_head(self.text_projection, text_features.shape[-1], device)
            vision_features = self.vision_projection(vision_features)
            text_features = self.text_projection(text_features)
        return F.normalize(vision_features, p=2, dim=1), F.normalize(text_features, p=2, dim=1)

    def _fitting_head(self, head, width, device):
        first = getattr(head, "0", None)
        if not isinstance(first, nn.Linear) or first.in_features == width:
            return head
        return _head(width, head[-1].out_features if isinstance(head[-1], nn.Linear) else 512).to(device)

    @torch.no_grad()
    def update_memory_bank(self, vision_features, text_features):
        if self.sampling_strategy != "memory-bank":
            return
        n, start, size = vision_features.shape[0], int(self.bank_ptr), self.memory_bank_size
        if start + n >= size:
            room = size - start
            self.vision_bank[start:] = vision_features[:room]
            self.text_bank[start:] = text_features[:room]
            end = n - room
            if end > 0:
                self.vision_bank[:end] = vision_features[room:]
                self.text_bank[:end] = text_features[room:]
        else:
            end = start + n
            self.vision_bank[start:end] = vision_features
            self.text_bank[start:end] = text_features
        self.bank_ptr[0] = end % size
        self.bank_size[0] = min(int(self.bank_size) + n, size)

    @torch.no_grad()
    def update_global_embeddings(self, vision_features, text_features, indices):
        if self.sampling_strategy != "global":
            return
        for i, index in enumerate(indices):
            if index < self.dataset_size:
                self.global_vision_embeddings[index] = vision_features[i].to(self.global_vision_embeddings.dtype)
                self.global_text_embeddings[index] = text_features[i].to(self.global_text_embeddings.dtype)
                self.global_indices[index] = index
        self.global_size[0] = max(int(self.global_size), int(indices.max()) + 1)
        self.global_initialized.fill_(True)

    def forward(self, vision_features, text_features, match_ids=None, indices=None, labels=None):
        batch_size, device = vision_features.shape[0], vision_features.device
        if batch_size == 0:
            return {"loss": torch.tensor(0.0, device=device)}
        if text_features.shape[0] != batch_size:
            raise ValueError(f"batch sizes differ: {batch_size} images, {text_features.shape[0]} texts")
        self._print_counter = getattr(self, "_print_counter", 0) + 1
        if vision_features.shape[-1] == 768 and text_features.shape[-1] == 768:
            self.add_projection = False
            vision, text = F.normalize(vision_features, p=2, dim=1), F.normalize(text_features, p=2, dim=1)
        else:
            try:
                vision, text = self.project(vision_features, text_features)
            except RuntimeError:
                vision, text = F.normalize(vision_features, p=2, dim=1), F.normalize(text_features, p=2, dim=1)

        if match_ids is None:
            v2t_targets = t2v_targets = torch.arange(batch_size, device=device)
        else:
            v2t_targets, t2v_targets = self._draw_targets(match_ids, batch_size, device)

        similarity = vision @ text.T / self.temperature
        if self.sampling_strategy == "in-batch":
            if batch_size < 16 and self.training:
                scale = max(0.005, 0.02 * (16 - batch_size) / 16)
                similarity = similarity + torch.randn_like(similarity) * scale
            pair = (similarity, v2t_targets), (similarity.T, t2v_targets)
        elif self.sampling_strategy == "memory-bank" and self.bank_size > 0:
            filled = int(self.bank_size)
            pair = (
                (torch.cat([similarity, vision @ self.text_bank[:filled].T / self.temperature], dim=1), v2t_targets),
                (torch.cat([similarity.T, text @ self.vision_bank[:filled].T / self.temperature], dim=1), t2v_targets),
            )
        elif self.sampling_strategy == "global" and indices is not None and self.global_initialized:
            filled = int(self.global_size)
            pair = tuple(
                (
                    queries @ store[:filled].T / self.temperature,
                    self._global_targets(indices, match_ids, batch_size, filled).to(device),
                )
                for queries, store in (
                    (vision, self.global_text_embeddings),
                    (text, self.global_vision_embeddings),
                )
            )
        else:
            pair = (similarity, v2t_targets), (similarity.T, t2v_targets)
        loss_v2t, loss_t2v = (F.cross_entropy(logits, q, reduction=self.reduction) for logits, q in pair)
        if self.training and pair[0][0] is not similarity:
            # in place, although the slices above are saved for the backward pass
            if self.sampling_strategy == "memory-bank":
                self.update_memory_bank(vision, text)
            else:
                self.update_global_embeddings(vision, text, indices)

        if self.loss_type == "nt_xent":
            loss = nt_xent_loss(vision, text, self.temperature, self.reduction)
        elif self.loss_type == "supervised" and labels is not None:
            loss = supervised_contrastive_loss(vision, text, labels, self.temperature, self.reduction)
        else:
            loss = (loss_v2t + loss_t2v) / 2
        with torch.no_grad():
            v2t_accuracy = (similarity.argmax(dim=1) == v2t_targets).float().mean()
            t2v_accuracy = (similarity.argmax(dim=0) == t2v_targets).float().mean()
            recalls = compute_recall_at_k(similarity, [1, 5, 10], v2t_targets, t2v_targets)
        return {
            "loss": loss,
            "loss_v2t": loss_v2t.item(),
            "loss_t2v": loss_t2v.item(),
            "v2t_accuracy": v2t_accuracy.item(),
            "t2v_accuracy": t2v_accuracy.item(),
            "accuracy": ((v2t_accuracy + t2v_accuracy) / 2).item(),
            "recalls": recalls,
        }

    def _draw_targets(self, match_ids, batch_size, device):
        ids = match_ids if isinstance(match_ids[0], str) else [str(item) for item in match_ids]
        matches = [[ids[i] == ids[j] for j in range(batch_size)] for i in range(batch_size)]

        def draw(row):
            positives = [j for j, match in enumerate(row) if match]
            return positives[torch.randint(0, len(positives), (1,), device=device)[0]]

        v2t = [draw(row) for row in matches]
        t2v = [draw(column) for column in zip(*matches)]
        return torch.tensor(v2t, device=device), torch.tensor(t2v, device=device)

    def _global_targets(self, indices, match_ids, batch_size, filled):
        known = self.global_indices[:filled]
        targets = []
        for i in range(batch_size if match_ids is None else len(match_ids)):
            found = (known == indices[i]).nonzero().flatten().tolist()
            if not found:
                targets.append(i % filled)
            else:
                targets.append(found[0] if match_ids is None else random.choice(found))
        return torch.tensor(targets)

    def train(self, mode=True):
        self.training = mode
        if self.add_projection:
            self.vision_projection.train(mode)
            self.text_projection.train(mode)
        return self

    def eval(self):
        return self.train(False)


def nt_xent_loss(vision_features, text_features, temperature=0.07, reduction="mean"):
    n, device = vision_features.shape[0], vision_features.device
    features = torch.cat([vision_features, text_features], dim=0)
    mask = 1 - torch.eye(2 * n, device=device)
    similarity = features @ features.T / temperature * mask - 1e9 * (1 - mask)
    partners = torch.arange(2 * n, device=device).roll(n)
    return F.cross_entropy(similarity, partners, reduction=reduction)


def supervised_contrastive_loss(vision_features, text_features, labels, temperature=0.07, reduction="mean"):
    features = torch.cat([vision_features, text_features], dim=0)
    labels = torch.cat([labels, labels], dim=0).reshape(-1, 1)
    others = 1 - torch.eye(2 * vision_features.shape[0], device=features.device)
    positives = (labels == labels.T).float() * others
    similarity = features @ features.T / temperature
    attraction = (positives * similarity).sum(dim=1) / positives.sum(dim=1).clamp(min=1)
    losses = -attraction + torch.log((torch.exp(similarity) * others).sum(dim=1))
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses


def compute_recall_at_k(similarity, K=[1, 5, 10], v2t_targets=None, t2i_targets=None):
    n = similarity.shape[0]
    v2t_targets = range(n) if v2t_targets is None else v2t_targets
    t2i_targets = range(n) if t2i_targets is None else t2i_targets

    def recall(matrix, targets, k):
        top = torch.topk(matrix, min(k, n), dim=1).indices
        return torch.tensor([bool((top[i] == targets[i]).any()) for i in range(n)]).float().mean().item()

    recalls = {}
    for k in K:
        v2t, t2i = recall(similarity, v2t_targets, k), recall(similarity.T, t2i_targets, k)
        recalls[f"v2t_recall@{k}"] = v2t
        recalls[f"t2i_recall@{k}"] = t2i
        recalls[f"avg_recall@{k}"] = (v2t + t2i) / 2
    return recalls
