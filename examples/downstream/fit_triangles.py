"""Approximate a photograph with triangles, with four ways to combine three image losses.

    python fit_triangles.py [--loss fixed|geometric|uncertainty|gradnorm] [--steps 150] [--log losses.jsonl]
    python fit_triangles.py --picture triangles.png        # all four, a table and the pictures
"""

import argparse
import json
from pathlib import Path

from triangles import small_networks

small_networks.install()

import torch
from triangles.renderer import Triangles
from sklearn.datasets import load_sample_image
from torch.nn import functional as F
from triangulate_ai.loss import CombinedLoss, GeometricMeanLoss, VGGPerceptualLoss

LAYERS = ["conv1_2", "conv2_2", "conv3_4"]
NAMES = ["perceptual", "l1", "lpips"]


def photograph(name="flower.jpg", size=40):
    image = torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None].double() / 255
    side = min(image.shape[2:])
    return F.interpolate(image[:, :, :side, -side:], size=(size, size), mode="area")


def make(seed=0):
    picture = Triangles(seed=seed)
    return picture, torch.optim.Adam(picture.parameters(), lr=0.1)


def fit_fixed(photo, steps):
    loss_fn = CombinedLoss(alpha=0.01, beta=10.0, gamma=0.01, vgg_layers=LAYERS, device="cpu")
    picture, optimizer = make()
    history = []
    for step in range(steps):
        out = loss_fn(picture(), photo)
        optimizer.zero_grad()
        out["total"].backward()
        optimizer.step()
        history.append({"step": step, "loss": out["total"].item(), "perceptual": out["perceptual"].item(), "l1": out["l1"].item(), "lpips": out["lpips"].item()})
    return picture, history


def fit_geometric(photo, steps):
    loss_fn = GeometricMeanLoss(vgg_layers=LAYERS, device="cpu", epsilon=1e-8, min_loss_value=1e-4, regularization_weight=0.01)
    picture, optimizer = make()
    history = []
    for step in range(steps):
        out = loss_fn(picture(), photo)
        optimizer.zero_grad()
        out["total"].backward()
        optimizer.step()
        history.append({"step": step, "loss": out["total"].item(), "perceptual": out["perceptual"].item(), "l1": out["l1"].item(), "lpips": out["lpips"].item()})
    return picture, history


def components():
    """The three losses one by one, for the balancers that came later."""
    vgg = VGGPerceptualLoss(LAYERS, device="cpu")
    lpips = small_networks.LPIPS()
    return {
        "perceptual": vgg,
        "l1": F.l1_loss,
        "lpips": lambda a, b: lpips(2 * a - 1, 2 * b - 1).mean(),
    }


def fit_uncertainty(photo, steps):
    from training_losses.balancing import UncertaintyWeightedLoss

    losses = components()
    balancer = UncertaintyWeightedLoss(names=NAMES, likelihood={"l1": "laplace"})
    picture, optimizer = make()
    optimizer.add_param_group({"params": balancer.parameters(), "lr": 0.05})
    history = []
    for step in range(steps):
        rendered = picture()
        values = {name: losses[name](rendered, photo) for name in NAMES}
        balanced = balancer(values)
        optimizer.zero_grad()
        balanced.loss.backward()
        optimizer.step()
        history.append({"step": step, "loss": balanced.loss.item(), **{name: values[name].item() for name in NAMES}})
    return picture, history


def fit_gradnorm(photo, steps):
    from training_losses.balancing import GradNormLoss

    losses = components()
    balancer = GradNormLoss(names=NAMES, alpha=0.5, lr=2.0)
    picture, optimizer = make()
    history = []
    for step in range(steps):
        rendered = picture()
        values = {name: losses[name](rendered, photo) for name in NAMES}
        balanced = balancer(values)
        balancer.balance(values, rendered)
        optimizer.zero_grad()
        balanced.loss.backward()
        optimizer.step()
        history.append({"step": step, "loss": balanced.loss.item(), **{name: values[name].item() for name in NAMES}})
    return picture, history


FITS = {"fixed": fit_fixed, "geometric": fit_geometric, "uncertainty": fit_uncertainty, "gradnorm": fit_gradnorm}


def table(histories):
    lines = ["| combination | perceptual | l1 | lpips | RMS error |", "|---|---|---|---|---|"]
    for name, (history, error) in histories.items():
        cells = [f"{history[0][key]:.4f} -> {history[-1][key]:.4f}" for key in NAMES]
        lines.append(f"| {name} | {' | '.join(cells)} | {error:.4f} |")
    return "\n".join(lines)


def draw(path, photo, pictures):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2 * (len(pictures) + 1), 2.5), layout="constrained")
    axes = figure.subplots(1, len(pictures) + 1)
    for axis, (name, image) in zip(axes, {"photograph": photo, **pictures}.items()):
        axis.imshow(image[0].permute(1, 2, 0).clamp(0, 1).numpy())
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loss", choices=list(FITS), default="fixed")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--log", help="write one JSON line per step to this file")
    parser.add_argument("--picture", help="run all four combinations and draw the results into this file")
    args = parser.parse_args()

    torch.set_default_dtype(torch.float64)
    photo = photograph()
    pictures, histories = {}, {}
    for name in FITS if args.picture else [args.loss]:
        picture, history = FITS[name](photo, args.steps)
        pictures[name] = picture().detach()
        histories[name] = history, (pictures[name] - photo).square().mean().sqrt().item()
    print(table(histories))
    if args.picture:
        draw(args.picture, photo, pictures)
    if args.log:
        Path(args.log).write_text("".join(json.dumps(row) + "\n" for row in histories[args.loss][0]))


if __name__ == "__main__":
    main()
