"""Align videos of handwritten digits with the new losses, and measure how well, on videos of other images.

    python train_alignment_new_losses.py [--losses tcc lav] [--steps 300] [--json results.json]

Kendall's tau: of two frames of one video, how often their nearest neighbours in another video come in the same order
(1: always, 0: chance). Phase accuracy: how often the nearest neighbour shows the same digit.
"""

import argparse
import json

import torch
from training_losses.alignment import GTCCLoss, LAVLoss, TCCLoss, VAVALoss

from alignment.digit_videos import digit_videos
from alignment.encoder import Encoder

LOSSES = {
    "tcc": lambda: TCCLoss(temperature=0.5, variance_weight=0.001, variance="per_frame", include_self_pairs=False),
    "gtcc": lambda: GTCCLoss.preset("paper", num_components=2, fit="em", temperature=0.5, variance_weight=0.001),
    "lav": lambda: LAVLoss(smoothing=1.0, contrast_weight=1.0, count_contrast="once", contrast={"near_term": "distance", "window": 4}),
    "vava": lambda: VAVALoss(transport_value="expected_cost", epsilon=0.5),
}


@torch.no_grad()
def measure(model, videos):
    embedded = [(model.frames(frames), phases) for frames, phases in videos]
    tau, hits = [], []
    for i, (x, own) in enumerate(embedded):
        for j, (y, other) in enumerate(embedded):
            if i == j:
                continue
            nearest = torch.cdist(x, y).argmin(dim=1)
            hits.append((other[nearest] == own).float().mean())
            order = torch.sign(nearest[None, :] - nearest[:, None]).float()
            later = torch.triu(torch.ones_like(order), diagonal=1)
            tau.append((order * later).sum() / later.sum())
    return {"tau": torch.stack(tau).mean().item(), "phase_accuracy": torch.stack(hits).mean().item()}


def train(name, steps, seed=0):
    torch.manual_seed(seed)
    model, loss_fn = Encoder(), LOSSES[name]()
    train_videos, test_videos = digit_videos(40, held_out=False), digit_videos(8, held_out=True, seed=1)
    before = measure(model, test_videos)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    order = torch.Generator().manual_seed(seed)
    for step in range(steps):
        chosen = torch.randperm(len(train_videos), generator=order)[:4]
        outputs = [model.frames(train_videos[k][0]) for k in chosen]
        loss = loss_fn(outputs, step) if name == "vava" else loss_fn(outputs)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return before, measure(model, test_videos)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--json", help="write the results to this file")
    args = parser.parse_args()
    results = {}
    print("| loss | tau before | tau after | phase accuracy before | after |\n|---|---|---|---|---|")
    for name in args.losses:
        before, after = train(name, args.steps)
        results[name] = {"before": before, "after": after}
        print(
            f"| {name} | {before['tau']:.3f} | {after['tau']:.3f} "
            f"| {before['phase_accuracy']:.3f} | {after['phase_accuracy']:.3f} |",
            flush=True,
        )
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
