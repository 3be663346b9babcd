"""Rehearsed GPU training of the compact model in pieces, on a machine with few packages.

Takes torch, numpy, opencv-python-headless and safetensors; nothing is installed or downloaded. What
must travel along, 64 MiB in all: the package, `weights/identity.safetensors`,
`weights/morphable.safetensors` and `weights/manifest.json`, prepared data of at most 50 MB
(`metaportrait prepare DATA -o prepared --frames-per-identity 60`), and the trimmed perceptual
network that `--trim` makes of torchvision's file:

    python -m benchmarks.base_training trim mobilenet_v2-b0353104.pth kit/features.safetensors
    python -m benchmarks.base_training train kit/prepared kit/flow kit/features.safetensors \
        --stage warp --size 128 --minutes 4 --batch 32 --workers 15 --steps 20000 --lr 8e-4
    python -m benchmarks.base_training train kit/prepared kit/run kit/features.safetensors \
        --start-from kit/flow/best.safetensors \
        --minutes 9 --batch 32 --workers 15 --steps 60000 [--compile]

Repeat the last line until the card's step is the last one; the folder `kit/run` has to go back
and forth (state.pt, 4 times the weights). The best weights by people held out of the training
split are `best.safetensors`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from metaportrait_cli.networks.compact import CompactConfig
from metaportrait_cli.networks.identity import IdentityNetwork
from metaportrait_cli.training.base import train_base
from metaportrait_cli.training.config import BaseConfig, RunOptions
from metaportrait_cli.training.perceptual import MobileNetFeatures, PerceptualLoss, trimmed
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network


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
    train.add_argument("--network", choices=["default", "small"], default="default")
    train.add_argument("--stage", choices=["warp", "all"], default="all")
    train.add_argument("--size", type=int, default=256)
    train.add_argument("--steps", type=int, default=60_000)
    train.add_argument("--batch", type=int, default=32)
    train.add_argument("--lr", type=float, default=3e-4)
    train.add_argument("--adversarial-from", type=float, default=0.6)
    train.add_argument("--minutes", type=float, default=9.0)
    train.add_argument("--workers", type=int, default=15)
    train.add_argument("--start-from", type=Path)
    train.add_argument("--device", default="cuda")
    train.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    if arguments.command == "trim":
        save_file(trimmed(arguments.source), arguments.output)
        return
    network = CompactConfig() if arguments.network == "default" else CompactConfig.small()
    config = BaseConfig(
        model=replace(network, image_size=arguments.size),
        stage=arguments.stage,
        steps=arguments.steps,
        batch=arguments.batch,
        lr=arguments.lr,
        adversarial_from=arguments.adversarial_from,
    )
    torch.backends.cudnn.benchmark = True
    card = train_base(
        config,
        arguments.data,
        arguments.run,
        options=RunOptions(
            device=arguments.device,
            bf16=True,
            compile=arguments.compile,
            workers=arguments.workers,
            minutes=arguments.minutes,
            log_every=100,
        ),
        start_from=arguments.start_from,
        perceptual=PerceptualLoss(MobileNetFeatures.load(arguments.features)),
        identity=load_network(IdentityNetwork, bundled_path("identity"), part="identity"),
        on_report=lambda report: print(json.dumps(asdict(report)), flush=True),
        on_judged=lambda step, scores: print(step, json.dumps(scores), flush=True),
    )
    print(json.dumps({key: card[key] for key in ("step", "seconds", "held_out", "best")}))


if __name__ == "__main__":
    main()
