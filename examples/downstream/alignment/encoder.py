"""A frame encoder, and the drop network that GTCC asks for."""

from torch import nn


class Encoder(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.frames = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, width))
        self.dropout = nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, width + 1))

    def forward(self, videos):
        outputs = [self.frames(frames) for frames in videos]
        return {"outputs": outputs, "dropouts": [self.dropout(x).mean(dim=0) for x in outputs]}
