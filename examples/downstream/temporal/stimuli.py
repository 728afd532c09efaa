import math

import torch
from sklearn.datasets import load_digits


def digits(n_train=1300):
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16.0
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, test = order[:n_train], order[n_train:]
    return (images[train], labels[train]), (images[test], labels[test])


def present(images, labels, pattern, n_steps, dt, reaction_time, non_label_index=-1):
    """Show each image by the pattern; labels of null steps and of the reaction time after an onset are void."""
    shown = torch.tensor([pattern[t * len(pattern) // n_steps] == "1" for t in range(n_steps)])
    void = ~shown
    for t in range(n_steps):
        if shown[t] and (t == 0 or not shown[t - 1]):
            void[t : t + math.ceil(reaction_time / dt)] = True
    inputs = images.unsqueeze(1).repeat(1, n_steps, 1, 1, 1)
    inputs[:, ~shown] = 0.0
    targets = labels.unsqueeze(1).repeat(1, n_steps)
    targets[:, void] = non_label_index
    return inputs, targets
