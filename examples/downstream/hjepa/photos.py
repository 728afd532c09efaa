"""Crops of scikit-learn's two photographs, cut into patches."""

import numpy as np
import torch
from sklearn.datasets import load_sample_images

CROP, PATCH = 32, 8


def photographs():
    """The two sample photographs as one float tensor [2, 3, 427, 640], each channel with mean 0 and deviation 1."""
    images = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2).float() / 255
    mean, std = images.mean(dim=(0, 2, 3), keepdim=True), images.std(dim=(0, 2, 3), keepdim=True)
    return (images - mean) / std


def crops(images, count, generator):
    """``count`` random crops as rows of patches [count, patches, 3 * PATCH * PATCH]."""
    _, _, height, width = images.shape
    which = torch.randint(len(images), (count,), generator=generator).tolist()
    tops = torch.randint(height - CROP, (count,), generator=generator).tolist()
    lefts = torch.randint(width - CROP, (count,), generator=generator).tolist()
    cut = [images[i, :, t : t + CROP, x : x + CROP] for i, t, x in zip(which, tops, lefts)]
    cut = torch.stack(cut)
    # without brightness and contrast, which would be an easy thing to predict
    mean, std = cut.mean(dim=(1, 2, 3), keepdim=True), cut.std(dim=(1, 2, 3), keepdim=True)
    tiles = ((cut - mean) / (std + 0.1)).unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
    return tiles.permute(0, 2, 3, 1, 4, 5).reshape(count, (CROP // PATCH) ** 2, -1)
