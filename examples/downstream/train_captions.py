"""Train image and caption encoders on handwritten digits.

    python train_captions.py --loss clip|simclr|queue|vicreg [--epochs 2] [--log losses.jsonl]
"""

import argparse
import json
from pathlib import Path

import torch

from captions.config import load_config
from captions.data import digit_captions
from captions.evaluate import alignment
from captions.factory import build_loss
from captions.models import CaptionModel
from captions.trainer import Trainer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--loss", choices=["clip", "simclr", "queue", "vicreg"], default="clip")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--config", default=Path(__file__).parent / "captions" / "config.json")
    parser.add_argument("--log", help="write one JSON line per step to this file")
    args = parser.parse_args()

    config = load_config(args.config)
    torch.manual_seed(config["seed"])
    train, held_out = digit_captions()
    model = CaptionModel(dim=config["dim"])
    loss_fn = build_loss(args.loss, config, model, train)
    trainer = Trainer(model, loss_fn, lr=config["lr"], batch_size=config["batch_size"], seed=config["seed"])

    before = alignment(model, held_out)
    history = []
    for epoch in range(args.epochs or config["epochs"]):
        history += trainer.train_epoch(epoch, train)
        print(f"epoch {epoch}: loss {history[-1]['loss']:.4f}")
    after = alignment(model, held_out)
    print(f"held-out loss {before['loss']:.4f} -> {after['loss']:.4f}, accuracy {before['accuracy']:.3f} -> {after['accuracy']:.3f}")
    if args.log:
        Path(args.log).write_text("".join(json.dumps(row) + "\n" for row in history))


if __name__ == "__main__":
    main()
