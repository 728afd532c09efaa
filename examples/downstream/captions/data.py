"""Digits with captions made from what can be seen: the digit, how dark it is, how wide."""

import torch
from sklearn.datasets import load_digits

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
         "pale", "dark", "narrow", "wide", "top-heavy", "bottom-heavy"]
VOCABULARY = {word: index for index, word in enumerate(WORDS)}


def describe(image, digit):
    columns = image.sum(0) > 12
    words = [WORDS[digit],
             "dark" if image.mean() > 4.9 else "pale",
             "wide" if int(columns.sum()) > 5 else "narrow",
             "top-heavy" if image[:4].sum() > image[4:].sum() else "bottom-heavy"]
    return [VOCABULARY[word] for word in words]


def digit_captions(held_out=200):
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)
    tokens = torch.tensor([describe(image, digit) for image, digit in zip(images, digits.target)])
    ids = [f"digit-{index:04d}" for index in range(len(images))]
    pixels = images.flatten(1) / 16.0
    cut = len(images) - held_out
    return ({"pixels": pixels[:cut], "tokens": tokens[:cut], "ids": ids[:cut]},
            {"pixels": pixels[cut:], "tokens": tokens[cut:], "ids": ids[cut:]})


def batches(data, batch_size, generator=None):
    size = len(data["ids"])
    order = torch.randperm(size, generator=generator) if generator is not None else torch.arange(size)
    for start in range(0, size - batch_size + 1, batch_size):
        rows = order[start:start + batch_size]
        yield data["pixels"][rows], data["tokens"][rows], [data["ids"][row] for row in rows.tolist()]
