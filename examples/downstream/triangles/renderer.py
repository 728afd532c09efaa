"""A differentiable picture made of translucent triangles."""

import torch
from torch import nn


class Triangles(nn.Module):
    """``count`` triangles with soft edges, painted one over the other on a plain background."""

    def __init__(self, count=32, size=40, seed=0, sharpness=1.5):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        centers = torch.rand(count, 1, 2, generator=generator) * size
        self.vertices = nn.Parameter(centers + torch.randn(count, 3, 2, generator=generator) * size / 5)
        self.colors = nn.Parameter(torch.randn(count, 3, generator=generator) * 0.3)
        self.opacity = nn.Parameter(torch.full((count,), -0.5))
        self.background = nn.Parameter(torch.zeros(3))
        ticks = torch.arange(size) + 0.5
        self.register_buffer("pixels", torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), dim=-1))
        self.sharpness = sharpness

    def coverage(self):
        """How much of each pixel each triangle covers, [count, size, size]."""
        start = self.vertices
        edge = start.roll(-1, dims=1) - start
        area = edge[:, 0, 0] * edge[:, 1, 1] - edge[:, 0, 1] * edge[:, 1, 0]
        offset = self.pixels - start[:, :, None, None]
        cross = edge[:, :, None, None, 0] * offset[..., 1] - edge[:, :, None, None, 1] * offset[..., 0]
        length = edge.norm(dim=-1)[:, :, None, None] + 1e-6
        inside = (cross / length * area.sign()[:, None, None, None]).amin(dim=1)
        return torch.sigmoid(self.sharpness * inside)

    def forward(self):
        image = torch.sigmoid(self.background).view(3, 1, 1).expand(3, *self.pixels.shape[:2])
        alpha = self.coverage() * torch.sigmoid(self.opacity).view(-1, 1, 1)
        for a, color in zip(alpha, torch.sigmoid(self.colors)):
            image = image * (1 - a) + color.view(3, 1, 1) * a
        return image[None]
