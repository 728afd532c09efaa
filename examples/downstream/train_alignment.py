"""Align videos of handwritten digits.

    python train_alignment.py [RUN] --tcc|--gtcc|--lav|--vava [--ep 2] [--log steps.jsonl]

Several losses are added up. RUN names the run. The flags of the original runs (--ego --resnet50 --mcn) are accepted, so
that their command lines work: the digits stand in for the data set, the small encoder for the network, and all videos
are of one task.
"""

import argparse
import json

import numpy as np
import torch
from utils.loss_functions import GTCC_loss, LAV_loss, TCC_loss, VAVA_loss

from alignment.digit_videos import digit_videos
from alignment.encoder import Encoder


def alignment_loss(args, output, epoch):
    sequences = output["outputs"]
    loss = 0
    if args.tcc:
        loss = loss + TCC_loss(sequences, softmax_temp=0.5, alignment_variance=0.001)
    if args.gtcc:
        loss = loss + GTCC_loss(
            sequences, n_components=2, gamma=0.95, delta=0.5, dropouts=output["dropouts"], max_gmm_iters=2, epoch=epoch
        ).sum()
    if args.lav:
        loss = loss + LAV_loss(sequences, min_temp=1.0)
    if args.vava:
        loss = loss + VAVA_loss(sequences, epoch)
    return loss


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("tcc", "gtcc", "lav", "vava"):
        parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("run", nargs="?", default="digits", help="name of the run")
    parser.add_argument("--ego", "--egoprocel", action="store_true", help="data of the original runs; digits here")
    parser.add_argument("--resnet50", "--rnet50", action="store_true", help="encoder of the original runs; a small one here")
    parser.add_argument("--mcn", action="store_true", help="multi-task network of the original runs; one task here")
    parser.add_argument("--ep", "--epochs", type=int, default=2, dest="epochs")
    parser.add_argument("--log", help="write one JSON line per step to this file")
    args = parser.parse_args()
    if not (args.tcc or args.gtcc or args.lav or args.vava):
        parser.error("choose at least one loss")

    torch.manual_seed(0)
    np.random.seed(0)
    videos = [frames for frames, _ in digit_videos(12, held_out=False)]
    model = Encoder()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    history = []
    for epoch in range(args.epochs):
        for start in range(0, len(videos), 2):
            optimizer.zero_grad()
            loss = alignment_loss(args, model(videos[start : start + 2]), epoch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            history.append({"step": len(history), "epoch": epoch, "loss": loss.item()})
        print(f"{args.run}, epoch {epoch}: loss {history[-1]['loss']:.4f}")
    if args.log:
        with open(args.log, "w") as log:
            log.writelines(json.dumps(row) + "\n" for row in history)


if __name__ == "__main__":
    main()
