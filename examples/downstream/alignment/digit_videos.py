"""Short videos of handwritten digits: the digits 0 to 9 in order, other images and another speed in each video."""

import torch
from sklearn.datasets import load_digits


def digit_videos(count, *, held_out, seed=0):
    """``(frames, phases)`` per video: ``[N, 64]`` images of 8 x 8 pixels and the digit of every frame."""
    digits = load_digits()
    images = torch.tensor(digits.data / 16.0, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    half = len(images) // 2
    images, labels = (images[half:], labels[half:]) if held_out else (images[:half], labels[:half])
    generator = torch.Generator().manual_seed(seed)
    videos = []
    for _ in range(count):
        frames, phases = [], []
        for digit in range(10):
            speed = int(torch.randint(2, 5, (), generator=generator))
            choices = (labels == digit).nonzero()[:, 0]
            chosen = choices[torch.randint(len(choices), (speed,), generator=generator)]
            frames.append(images[chosen])
            phases.append(labels[chosen])
        videos.append((torch.cat(frames), torch.cat(phases)))
    return videos
