"""Rehearsed GPU training of the warping network in pieces, on a machine with few packages.

Takes torch, numpy, opencv-python-headless and safetensors; nothing is installed or downloaded. What
must travel along, 64 MiB in all: the package, prepared data of at most 50 MB
(`metaportrait prepare DATA -o prepared --frames-per-identity 60`), and the trimmed perceptual
network that `trim` makes of torchvision's file:

    python -m benchmarks.warping_training trim mobilenet_v2-b0353104.pth kit/features.safetensors
    python -m benchmarks.warping_training train kit/prepared kit/run kit/features.safetensors \
        --minutes 9 --batch 32 --workers 15 --steps 20000 [--compile]

Repeat the last line until the card's step is the last one; the folder `kit/run` has to go back
and forth (state.pt, 4 times the weights). The best weights by people held out of the training
split are `best.safetensors`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from metaportrait_cli.training.perceptual import PerceptualLoss, trimmed
from metaportrait_cli.training.place import RunOptions
from metaportrait_cli.training.warping import WarpingTraining, train_warping


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, dest="command")
    trim = commands.add_parser("trim")
    trim.add_argument("source", type=Path)
    trim.add_argument("output", type=Path)
    train = commands.add_parser("train")
    train.add_argument("data", type=Path)
    train.add_argument("run", type=Path)
    train.add_argument("features", type=Path)
    train.add_argument("--size", type=int, default=128)
    train.add_argument("--steps", type=int, default=20_000)
    train.add_argument("--batch", type=int, default=32)
    train.add_argument("--lr", type=float, default=8e-4)
    train.add_argument("--minutes", type=float, default=9.0)
    train.add_argument("--workers", type=int, default=15)
    train.add_argument("--start-from", type=Path)
    train.add_argument("--device", default="cuda")
    train.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    if arguments.command == "trim":
        save_file(trimmed(arguments.source), arguments.output)
        return
    config = WarpingTraining(
        size=arguments.size, steps=arguments.steps, batch=arguments.batch, lr=arguments.lr
    )
    torch.backends.cudnn.benchmark = True
    card = train_warping(
        config,
        arguments.data,
        arguments.run,
        options=RunOptions(
            device=arguments.device,
            precision="bf16",
            compile=arguments.compile,
            workers=arguments.workers,
            minutes=arguments.minutes,
            log_every=100,
        ),
        start_from=arguments.start_from,
        perceptual=PerceptualLoss.load(arguments.features),
        on_record=lambda record: print(json.dumps(record), flush=True),
    )
    print(json.dumps({key: card[key] for key in ("step", "seconds", "held_out", "best")}))


if __name__ == "__main__":
    main()
