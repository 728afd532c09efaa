"""Frozen twin of ``src.training.losses.barlow_twins_loss``: redundancy reduction between two modalities.

Kept on purpose: rows are normalised and columns centred, but not standardised, and both terms are means; so the
"correlation" matrix is none. Successor: ``training_losses.contrastive.barlow_twins.BarlowTwinsLoss``.
"""

import logging

import torch
import torch.nn.functional as F
from torch import nn

from training_losses.migration.deprecation import deprecated_module

deprecated_module(__name__)

logger = logging.getLogger(__name__)


class BarlowTwinsLoss(nn.Module):
    def __init__(
        self,
        lambda_coeff=0.005,
        batch_norm_last_layer=True,
        correlation_mode="cross_modal",
        add_projection=False,
        projection_dim=8192,
        input_dim=None,
        normalize_embeddings=True,
    ):
        super().__init__()
        self.lambda_coeff = lambda_coeff
        self.normalize_embeddings = normalize_embeddings
        self.correlation_mode = correlation_mode
        self.batch_norm_last_layer = batch_norm_last_layer
        self.add_projection = add_projection
        if add_projection:
            assert input_dim is not None, "input_dim is needed with add_projection"
            self.vision_projection = self._head(input_dim, projection_dim)
            self.text_projection = self._head(input_dim, projection_dim)

    def _head(self, input_dim, output_dim):
        layers = []
        for _ in range(2):
            layers += [nn.Linear(input_dim, input_dim), nn.BatchNorm1d(input_dim), nn.ReLU(inplace=True)]
        layers.append(nn.Linear(input_dim, output_dim))
        if self.batch_norm_last_layer:
            layers.append(nn.BatchNorm1d(output_dim, affine=False))
        return nn.Sequential(*layers)

    def project(self, vision_features, text_features):
        if self.add_projection:
            device = vision_features.device
            if next(self.vision_projection.parameters()).device != device:
                self.vision_projection = self.vision_projection.to(device)
                self.text_projection = self.text_projection.to(device)
            vision_features = self.vision_projection(vision_features)
            text_features = self.text_projection(text_features)
        if self.normalize_embeddings:
            vision_features = F.normalize(vision_features, p=2, dim=1)
            text_features = F.normalize(text_features, p=2, dim=1)
        return vision_features, text_features

    def forward(self, vision_features, text_features):
        batch_size = vision_features.shape[0]
        if batch_size == 0:
            zero = torch.tensor(0.0, device=vision_features.device)
            return zero, {"diagonal_loss": 0.0, "off_diagonal_loss": 0.0}
        vision, text = self.project(vision_features, text_features)
        vision = vision - vision.mean(dim=0, keepdim=True)
        text = text - text.mean(dim=0, keepdim=True)
        if self.correlation_mode == "cross_modal":
            correlation = vision.T @ text / batch_size
        else:
            correlation = (vision.T @ vision / batch_size + text.T @ text / batch_size) / 2
        diagonal = (torch.diagonal(correlation) - 1).pow(2).mean()
        identity = torch.eye(correlation.shape[0], device=correlation.device)
        off_diagonal = (correlation * (1 - identity)).pow(2).mean()
        loss = diagonal + self.lambda_coeff * off_diagonal
        return loss, {"diagonal_loss": diagonal.item(), "off_diagonal_loss": off_diagonal.item()}

    def train(self, mode=True):
        if self.add_projection:
            self.vision_projection.train(mode)
            self.text_projection.train(mode)
        return super().train(mode)
