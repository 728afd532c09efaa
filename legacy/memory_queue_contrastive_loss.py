"""Frozen twin of ``src.training.losses.memory_queue_contrastive_loss``: InfoNCE with first-in-first-out negatives.

Kept on purpose: the queues start as random vectors of which all columns always count; their logits are scaled by the
fill level; the temperature starts 30 percent high; evaluation also writes to the queues; a draw per forward is spent.
Successor: ``training_losses.contrastive.moco_loss.MemoryQueueLoss``.
"""

import logging

import torch
import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class MemoryQueueContrastiveLoss(nn.Module):
    def __init__(self, dim=512, queue_size=8192, temperature=0.07):
        super().__init__()
        self.temperature = temperature
        self.queue_size = queue_size
        self.dim = dim
        self.initialized = False
        self.use_two_buffers = True
        self.initial_temperature = temperature
        self.max_temperature = temperature * 1.3
        self.register_buffer("vision_queue", None)
        self.register_buffer("text_queue", None)
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        self.register_buffer("queue_fill_level", torch.zeros(1, dtype=torch.long))

    def _create_queues(self, dim, device):
        self.vision_queue = F.normalize(torch.randn(dim, self.queue_size, device=device), dim=0)
        self.text_queue = F.normalize(torch.randn(dim, self.queue_size, device=device), dim=0)

    def forward(self, vision_features, text_features, match_ids):
        device, dim = vision_features.device, vision_features.shape[1]
        if not self.initialized:
            self._create_queues(dim, device)
            self.queue_ptr = self.queue_ptr.to(device)
            self.queue_fill_level = torch.zeros(1, dtype=torch.long, device=device)
            self.initialized = True
        elif self.vision_queue.shape[0] != dim:
            self._create_queues(dim, device)
            self.queue_fill_level = torch.zeros(1, dtype=torch.long, device=device)
        elif self.vision_queue.device != device:
            for name in ("vision_queue", "text_queue", "queue_ptr", "queue_fill_level"):
                setattr(self, name, getattr(self, name).to(device))

        batch_size = vision_features.shape[0]
        vision, text = F.normalize(vision_features, dim=1), F.normalize(text_features, dim=1)
        matches = torch.zeros(batch_size, batch_size, dtype=torch.bool, device=device)
        for i in range(batch_size):
            for j in range(batch_size):
                matches[i, j] = bool(match_ids[i] == match_ids[j])

        fill = min(int(self.queue_fill_level), self.queue_size) / self.queue_size
        temperature = self.max_temperature - (self.max_temperature - self.initial_temperature) * fill
        if fill >= 0.95:
            temperature = self.initial_temperature
        weight = min(1.0, 1.5 * fill) if fill >= 0.2 else 0.5 * fill
        similarity = vision @ text.T / temperature
        vision_to_queue = vision @ self.text_queue.detach() / temperature * weight
        text_to_queue = text @ self.vision_queue.detach() / temperature * weight
        loss_v2t = self._direction(similarity, matches, vision_to_queue)
        loss_t2v = self._direction(similarity.T, matches.T, text_to_queue)

        self._update_queue(vision, text)
        pairs = int(matches.sum())
        if pairs == 0:
            return {"loss": torch.tensor(0.0, device=device)}
        loss_v2t, loss_t2v = loss_v2t / pairs, loss_t2v / pairs
        torch.rand(1)  # the old code decided here whether to print
        return {
            "loss": (loss_v2t + loss_t2v) / 2,
            "loss_v2t": loss_v2t.item(),
            "loss_t2v": loss_t2v.item(),
            "temperature": temperature,
            "queue_fill": fill,
        }

    @staticmethod
    def _direction(similarity, matches, queue_logits):
        """Sum over positive pairs; neither the other positives nor a maximum enter the denominator."""
        positives = torch.exp(similarity[matches])
        rows = matches.nonzero()[:, 0]
        negatives = torch.exp(torch.cat([similarity.masked_fill(matches, -torch.inf), queue_logits], dim=1)).sum(dim=1)
        return -torch.log(positives / (positives + negatives[rows])).sum()

    def initialize_queue(self, vision_features, text_features):
        if not isinstance(vision_features, torch.Tensor) or not isinstance(text_features, torch.Tensor):
            return
        if not self.initialized:
            self._create_queues(vision_features.shape[1], vision_features.device)
            self.initialized = True
        self._update_queue(F.normalize(vision_features, dim=1), F.normalize(text_features, dim=1))

    @torch.no_grad()
    def _update_queue(self, vision_features, text_features):
        if not self.initialized:
            return
        n, start = vision_features.shape[0], int(self.queue_ptr)
        room = min(n, self.queue_size - start)
        queues = self.vision_queue.clone(), self.text_queue.clone()
        for queue, features in zip(queues, (vision_features, text_features)):
            features = features.to(queue.dtype)
            queue[:, start : start + room] = features[:room].T
            if n > room:
                queue[:, : n - room] = features[room:].T
        self.vision_queue, self.text_queue = queues
        device = vision_features.device
        self.queue_ptr = torch.tensor([(start + n) % self.queue_size], device=device)
        fill = min(int(self.queue_fill_level) + n, self.queue_size)
        self.queue_fill_level = torch.tensor([fill], device=device)
