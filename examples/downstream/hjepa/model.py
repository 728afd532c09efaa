"""A small vision transformer that predicts the embeddings of hidden patches, on two levels."""

import copy

import torch
from torch import nn

from .photos import CROP, PATCH

TOKENS = (CROP // PATCH) ** 2


class Encoder(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.embed = nn.Linear(3 * PATCH * PATCH, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, TOKENS, width))
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.hidden = nn.Parameter(0.02 * torch.randn(1, 1, width))
        layers = [
            nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(depth)
        ]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)

    def forward(self, patches, mask=None):
        """Class token and patches [B, 1 + TOKENS, width]; patches under the mask are not seen."""
        x = self.embed(patches)
        if mask is not None:
            x = torch.where(mask[..., None], self.hidden, x)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x + self.position], dim=1)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


def pyramid(tokens, levels):
    """Level i is averaged over 2^i neighbouring tokens."""
    return [tokens.unflatten(1, (-1, 2**i)).mean(dim=2) for i in range(levels)]


class HJEPA(nn.Module):
    def __init__(self, width=48, depth=2, levels=2, momentum=0.9):
        super().__init__()
        self.levels, self.momentum = levels, momentum
        self.encoder = Encoder(width, depth)
        self.target = copy.deepcopy(self.encoder).requires_grad_(False)
        self.predictor = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, patches, mask, end_to_end=False):
        """Predictions and targets per level, and the features of the context; end to end, one encoder gives both."""
        context = self.encoder(patches, mask)
        if end_to_end:
            wanted = self.encoder(patches)[:, 1:]
        else:
            with torch.no_grad():
                wanted = self.target(patches)[:, 1:]
        predicted = self.predictor(context[:, 1:])
        return pyramid(predicted, self.levels), pyramid(wanted, self.levels), context

    @torch.no_grad()
    def update_target(self):
        for old, new in zip(self.target.parameters(), self.encoder.parameters()):
            old.lerp_(new, 1 - self.momentum)
