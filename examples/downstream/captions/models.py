import torch
from torch import nn

from .data import WORDS


class CaptionModel(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.vision = nn.Sequential(nn.Linear(64, 96), nn.GELU(), nn.Linear(96, dim))
        self.words = nn.EmbeddingBag(len(WORDS), 48, mode="mean")
        self.text = nn.Sequential(nn.Linear(48, 48), nn.GELU(), nn.Linear(48, dim))

    def forward(self, pixels, tokens):
        return self.vision(pixels), self.text(self.words(tokens))


def noisy_view(pixels, generator):
    return (pixels + 0.15 * torch.randn(pixels.shape, generator=generator)).clamp(0, 1)
