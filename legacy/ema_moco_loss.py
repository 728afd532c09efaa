"""Frozen twin of ``src.training.losses.ema_moco_loss``: cross-modal momentum contrast.

Kept on purpose: the query encoders are not stored, so the forward raises until a caller assigns ``vision_encoder`` and
``text_encoder``; the current keys are enqueued before the logits are formed; the momentum update comes last; all of it
happens in eval mode, too. Successors: ``training_losses.contrastive.moco.MoCoLoss``,
``training_losses.base.MomentumEncoder``.
"""

import copy
import logging

import torch
import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class EMAMoCoLoss(nn.Module):
    def __init__(
        self,
        vision_encoder,
        text_encoder,
        dim=768,
        K=65536,
        m=0.999,
        T=0.07,
        symmetric=True,
        update_key_encoder=True,
    ):
        super().__init__()
        self.K = K
        self.m = m
        self.T = T
        self.symmetric = symmetric
        self.update_key_encoder = update_key_encoder
        self.dim = dim
        self.vision_key_encoder = self._copy_and_detach(vision_encoder)
        self.text_key_encoder = self._copy_and_detach(text_encoder)
        self.register_buffer("text_queue", F.normalize(torch.randn(dim, K), dim=0))
        self.register_buffer("text_queue_ptr", torch.zeros(1, dtype=torch.long))
        if symmetric:
            self.register_buffer("vision_queue", F.normalize(torch.randn(dim, K), dim=0))
            self.register_buffer("vision_queue_ptr", torch.zeros(1, dtype=torch.long))

    def _copy_and_detach(self, model):
        model = copy.deepcopy(model)
        for parameter in model.parameters():
            parameter.requires_grad = False
        return model

    @torch.no_grad()
    def _momentum_update_key_encoder(self, q_encoder, k_encoder):
        if not self.update_key_encoder:
            return
        for query, key in zip(q_encoder.parameters(), k_encoder.parameters()):
            key.data = key.data * self.m + query.data * (1.0 - self.m)

    @torch.no_grad()
    def _dequeue_and_enqueue(self, keys, queue, queue_ptr):
        # on another device this writes to copies, and the buffers never change
        if queue.device != keys.device:
            queue = queue.to(keys.device)
        if queue_ptr.device != keys.device:
            queue_ptr = queue_ptr.to(keys.device)
        n, start = keys.shape[0], int(queue_ptr)
        if start + n <= self.K:
            queue[:, start : start + n] = keys.T
        else:
            room = self.K - start
            queue[:, start:] = keys[:room].T
            queue[:, : n - room] = keys[room:].T
        queue_ptr[0] = (start + n) % self.K

    @torch.no_grad()
    def _keys(self, queries, encoder, features):
        if isinstance(queries, torch.Tensor):
            return F.normalize(encoder(queries.detach().clone()), dim=1)
        logger.warning("the queries are no tensor: the query features serve as keys")
        return features.detach()

    def _contrast(self, features, keys, queue, targets):
        logits = torch.cat([features @ keys.T / self.T, features @ queue / self.T], dim=1)
        loss = F.cross_entropy(logits, targets)
        return loss, (logits.detach().argmax(dim=1) == targets).float().mean()

    def forward(self, vision_queries, text_queries, vision_features=None, text_features=None, **kwargs):
        source = vision_queries if isinstance(vision_queries, torch.Tensor) else vision_features
        targets = torch.arange(source.shape[0], device=source.device)
        if vision_features is None:
            vision_features = self.vision_encoder(vision_queries)
        if text_features is None:
            text_features = self.text_encoder(text_queries)
        vision, text = F.normalize(vision_features, dim=1), F.normalize(text_features, dim=1)
        vision_keys = self._keys(vision_queries, self.vision_key_encoder, vision)
        text_keys = self._keys(text_queries, self.text_key_encoder, text)
        self._dequeue_and_enqueue(text_keys, self.text_queue, self.text_queue_ptr)
        if self.symmetric:
            self._dequeue_and_enqueue(vision_keys, self.vision_queue, self.vision_queue_ptr)

        loss, v2t_accuracy = self._contrast(vision, text_keys, self.text_queue, targets)
        v2t_loss, t2v_loss = loss.item(), 0.0
        accuracy, t2v_accuracy = v2t_accuracy, 0.0
        if self.symmetric:
            text_loss, text_accuracy = self._contrast(text, vision_keys, self.vision_queue, targets)
            loss, t2v_loss = (loss + text_loss) / 2, text_loss.item()
            accuracy, t2v_accuracy = (v2t_accuracy + text_accuracy) / 2, text_accuracy.item()
        self._momentum_update_key_encoder(self.vision_encoder, self.vision_key_encoder)
        self._momentum_update_key_encoder(self.text_encoder, self.text_key_encoder)
        return {
            "loss": loss,
            "v2t_loss": v2t_loss,
            "t2v_loss": t2v_loss,
            "v2t_accuracy": v2t_accuracy.item(),
            "t2v_accuracy": t2v_accuracy,
            "accuracy": accuracy.item(),
            "queue_size": self.K,
            "momentum": self.m,
        }
