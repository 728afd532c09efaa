"""Train a recurrent network on handwritten digits that are shown over time.

    python train_temporal.py [--epochs 12] [--energy-weight 0.05] [--log steps.jsonl] [--plot curves.png]
"""

import argparse
import json

import torch
from dynvision.losses import CrossEntropyLoss, EnergyLoss

from temporal.network import RecurrentNet
from temporal.stimuli import digits, present


def accuracy(outputs, targets):
    valid = targets != -1
    return (outputs.argmax(-1)[valid] == targets[valid]).float().mean().item()


def plot(path, table, energy_weight):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    epochs = [row["epoch"] for row in table]
    figure, left = plt.subplots(figsize=(6, 3.5))
    left.plot(epochs, [row["cross_entropy"] for row in table], "C0", label="cross entropy")
    left.set_xlabel("epoch")
    left.set_ylabel("cross entropy", color="C0")
    right = left.twinx()
    right.plot(epochs, [row["energy"] for row in table], "C1", label="energy")
    right.plot(epochs, [row["weighted_energy"] for row in table], "C1--", label="weighted energy")
    right.set_ylabel("energy", color="C1")
    right.set_ylim(bottom=0)
    right.legend(loc="center right")
    left.set_title(f"energy weight {energy_weight}")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--energy-weight", type=float, default=0.05)
    parser.add_argument("--pattern", default="1011")
    parser.add_argument("--n-steps", type=int, default=8)
    parser.add_argument("--dt", type=float, default=2.0)
    parser.add_argument("--reaction-time", type=float, default=2.0)
    parser.add_argument("--log", help="write one JSON line per step to this file")
    parser.add_argument("--plot", help="save the curves as PNG")
    args = parser.parse_args()

    torch.manual_seed(0)
    (images, labels), held_out = digits()
    model = RecurrentNet()
    cross_entropy = CrossEntropyLoss("mean", ignore_index=-1)
    energy = EnergyLoss(p=1)
    energy.register_hooks(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    shuffle = torch.Generator().manual_seed(1)
    timing = (args.pattern, args.n_steps, args.dt, args.reaction_time)

    steps, table = [], []
    print("| epoch | cross entropy | energy | weighted energy | accuracy |")
    print("|---|---|---|---|---|")
    for epoch in range(1, args.epochs + 1):
        sums = torch.zeros(2)
        batches = torch.randperm(len(labels), generator=shuffle).split(65)
        for batch in batches:
            inputs, targets = present(images[batch], labels[batch], *timing)
            outputs = model(inputs).flatten(0, 1)
            terms = cross_entropy(outputs, targets.flatten()), energy(outputs, targets)
            loss = terms[0] + args.energy_weight * terms[1]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            sums += torch.stack(terms).detach()
            steps.append({"step": len(steps), "loss": loss.item()})
        with torch.no_grad():
            inputs, targets = present(*held_out, *timing)
            correct = accuracy(model(inputs), targets)
            energy(None, None)  # forget the activity of the validation
        raw = (sums / len(batches)).tolist()
        row = {"epoch": epoch, "cross_entropy": raw[0], "energy": raw[1], "weighted_energy": args.energy_weight * raw[1]}
        table.append(row)
        print(f"| {epoch} | {raw[0]:.4f} | {raw[1]:.4f} | {row['weighted_energy']:.5f} | {correct:.3f} |")
    if args.log:
        with open(args.log, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in steps)
    if args.plot:
        plot(args.plot, table, args.energy_weight)


if __name__ == "__main__":
    main()
