"""Train a hierarchical joint-embedding predictor on photographs; the loss comes from a YAML file.

    python train_hjepa.py [--no-vicreg] [--end-to-end] [--config hjepa.yaml] [--steps 60] [--log steps.jsonl]

Prints how the loss falls and what the features do: their spread (standard deviation per dimension, over images) and the
number of dimensions in use (exponential of the entropy of the covariance's eigenvalues). Prediction is easiest when all
images have the same features. A target encoder that follows slowly keeps some spread, in one or two dimensions; without
it (--end-to-end) nothing is left. VICReg keeps both.
"""

import argparse
import json
from pathlib import Path

import torch
import yaml

from hjepa.model import HJEPA
from hjepa.photos import crops, photographs
from src.losses import HJEPALoss, VICRegLoss, create_loss_from_config

HERE = Path(__file__).parent / "hjepa"


@torch.no_grad()
def spread(model, images):
    """Deviation per dimension and number of dimensions in use, of the average token of 256 images."""
    patches = crops(images, 256, torch.Generator().manual_seed(9))
    features = model.encoder(patches)[:, 1:].mean(dim=1)
    share = torch.linalg.eigvalsh(torch.cov(features.T)).clamp(min=1e-12)
    share = share / share.sum()
    return features.std(dim=0).mean().item(), torch.exp(-(share * share.log()).sum()).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(HERE / "hjepa.yaml"))
    parser.add_argument("--no-vicreg", action="store_true", help="the prediction loss alone")
    parser.add_argument("--end-to-end", action="store_true", help="no target encoder: gradients into the targets")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--log", help="write one JSON line per step to this file")
    args = parser.parse_args()

    with open(args.config) as file:
        config = yaml.safe_load(file)
    training = config["training"]
    steps = training["steps"] if args.steps is None else args.steps
    torch.manual_seed(0)
    images = photographs()
    model = HJEPA(
        width=config["model"]["width"],
        depth=config["model"]["depth"],
        levels=config["model"]["num_hierarchies"],
        momentum=config["model"]["momentum"],
    )
    vicreg = None
    if args.no_vicreg or args.end_to_end:
        criterion = HJEPALoss(
            "smoothl1",
            [1.0, 0.5],
            num_hierarchies=2,
            normalize_embeddings=False,
            detach_targets=not args.end_to_end,
        )
        if not args.no_vicreg:
            vicreg = VICRegLoss(invariance_weight=0.0, variance_weight=5.0, covariance_weight=5.0)
    else:
        criterion = create_loss_from_config(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=training["learning_rate"])
    draws = torch.Generator().manual_seed(1)

    rows = []
    print("| step | loss | spread | dimensions in use |")
    print("|---|---|---|---|")
    print("| 0 | | {:.4f} | {:.1f} |".format(*spread(model, images)))
    for step in range(1, steps + 1):
        patches = crops(images, training["batch"], draws)
        mask = torch.rand(patches.shape[:2], generator=draws) < training["hidden_share"]
        predictions, targets, context = model(patches, mask, args.end_to_end)
        out = criterion(predictions=predictions, targets=targets, context_features=context)
        loss = out["loss"]
        if vicreg is not None:
            loss = loss + vicreg(context[:, 1:].mean(dim=1))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.update_target()
        rows.append({"step": step, "loss": loss.item(), "loss_h0": out["loss_h0"].item()})
        if step % 20 == 0 or step == steps:
            print("| {} | {:.4f} | {:.4f} | {:.1f} |".format(step, loss.item(), *spread(model, images)))
    if args.log:
        with open(args.log, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
