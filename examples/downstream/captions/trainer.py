import torch

from training.losses.memory_queue_contrastive_loss import MemoryQueueContrastiveLoss

from .data import batches
from .losses import ContrastiveLoss, VICRegLoss
from .models import noisy_view


class Trainer:
    def __init__(self, model, loss_fn, lr=3e-3, batch_size=96, seed=0):
        self.model, self.loss_fn, self.batch_size = model, loss_fn, batch_size
        self.optimizer = torch.optim.Adam([*model.parameters(), *loss_fn.parameters()], lr=lr)
        self.generator = torch.Generator().manual_seed(seed)

    def train_epoch(self, epoch, data):
        self.model.train()
        self.loss_fn.train()
        if hasattr(self.loss_fn, "update_epoch"):
            self.loss_fn.update_epoch(epoch)
        history = []
        for step, (pixels, tokens, ids) in enumerate(batches(data, self.batch_size, self.generator)):
            outputs = self.compute(pixels, tokens, ids)
            loss = outputs["loss"]
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            history.append({"epoch": epoch, "step": step, "loss": loss.item()})
        return history

    def compute(self, pixels, tokens, ids):
        if isinstance(self.loss_fn, VICRegLoss):
            views = [self.model.vision(noisy_view(pixels, self.generator)) for _ in range(2)]
            return self.loss_fn(views[0], views[1])
        vision, text = self.model(pixels, tokens)
        if isinstance(self.loss_fn, (ContrastiveLoss,)):
            return self.loss_fn(vision, text)
        if isinstance(self.loss_fn, MemoryQueueContrastiveLoss):
            return self.loss_fn(vision, text, ids)
        return self.loss_fn(vision, text, match_ids=ids)
