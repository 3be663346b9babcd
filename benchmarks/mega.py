"""Whether MegaPortraits can learn at all: one clip, learnt by heart.

    python -m benchmarks.mega CLIP.mp4 -o RUN [--config narrow] [--frames 12] [--steps 2000]
        [--sheet sheet.png]

A narrow variant of the lite networks (128²), or with `--config lite` they themselves (256², eight
times as long a step), learns a few frames of the clip; printed is the PSNR over them of what is
painted from the first one, without background. It goes on where it stopped, and says nothing about
people that it hasn't learnt.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.fewshot import SIZE, prepared
from metaportrait_cli.networks.mega.base import BaseModel
from metaportrait_cli.networks.mega.config import MegaConfig
from metaportrait_cli.networks.mega.critic import MegaCriticConfig
from metaportrait_cli.pixels import as_pictures
from metaportrait_cli.training.data.pairs import Faces
from metaportrait_cli.training.mega.base import BASE, MegaTraining, MegaWeights, painted, train_mega
from metaportrait_cli.training.mega.mattes import mattes_of
from metaportrait_cli.training.mega.samples import MegaSample, Subjects, sample_of
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import RunOptions
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network

NARROW = replace(
    MegaConfig.lite(),
    size=SIZE,
    encoder=(16, 32, 64, 64),
    channels=16,
    depth=8,
    blocks_3d=1,
    global_width=16,
    global_size=64,
    motion_layers=(1, 1, 1, 1),
    motion_width=16,
    look=64,
    code=64,
    expression=64,
    warp=(64, 32, 16),
    volume=(32, 32, 32),
    decoder=(64, 64, 32, 16),
    blocks_2d=2,
    groups=8,
)
LEARNING = MegaTraining(
    model=NARROW,
    critic=MegaCriticConfig(widths=(16, 32, 64)),
    # One person: there is nobody whose looks could leak.
    weights=MegaWeights(cosine=0.0),
    batch=2,
    lr=2e-3,
    decay=0.0,
    betas=(0.5, 0.99),
    warm_up=20,
    average=0.98,
    held_out=0.0,
)
LEARNINGS = {
    "narrow": LEARNING,
    "lite": replace(
        LEARNING,
        model=MegaConfig.lite(),
        critic=MegaTraining.lite().critic,
        batch=1,
        lr=1e-3,
    ),
}


def main() -> None:
    """Trains, prints a line a report, then the PSNR."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--config", choices=LEARNINGS, default="narrow")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--sheet", type=Path)
    chosen = parser.parse_args()
    config = replace(LEARNINGS[chosen.config], steps=chosen.steps)
    data = prepared(chosen.clip, chosen.output, frames=chosen.frames, size=config.model.size)
    run = chosen.output / "run"
    card = train_mega(
        config,
        data,
        run,
        options=RunOptions(precision=chosen.precision, minutes=chosen.minutes, save_minutes=2.0),
        perceptual=PerceptualLoss.load(bundled_path("mobilenet")),
        on_record=lambda record: print(record, flush=True),
    )
    truth, image = repainted(run / "last.safetensors", data)
    error = (truth.astype(np.float32) - image.astype(np.float32)) / 255
    psnr = -10 * np.log10(np.square(error).mean(axis=(1, 2, 3)))
    print(f"{card['step']} steps, {card['seconds']} s: PSNR {psnr.mean():.2f} dB, {psnr.round(1)}")
    colours, expressions = leak(run / "last.safetensors", data)
    print(
        f"change by the driver's colours {colours:.2f}, by its expression {expressions:.2f} levels"
    )
    if chosen.sheet:
        rows = [np.concatenate(list(each[:6]), axis=1) for each in (truth, image)]
        Image.fromarray(np.concatenate(rows)).save(chosen.sheet)


@torch.no_grad()
def repainted(weights: Path, data: Path) -> tuple[np.ndarray, np.ndarray]:
    """All pictures (N, S, S, 3) but the first, and what is painted from it in their place."""
    base = load_network(BaseModel, weights, part=BASE)
    faces = Faces.load(data)
    subjects = Subjects(faces, mattes_of(faces, data), base.config)
    truth, found = [], []
    for number in range(1, len(faces.images)):
        sample = MegaSample.batch([sample_of(subjects, (0, number), (0, number))])
        truth.append(sample.driver.float() / 255)
        found.append(painted(base, sample, 0, cycle=False).image)
    return as_pictures(torch.cat(truth)), as_pictures(torch.cat(found))


@torch.no_grad()
def leak(weights: Path, data: Path) -> tuple[float, float]:
    """By how many grey levels pictures change where the driver's red and blue change places, and
    where its expression is the next frame's; the first should be nothing."""
    base = load_network(BaseModel, weights, part=BASE)
    faces = Faces.load(data)
    subjects = Subjects(faces, mattes_of(faces, data), base.config)
    count = len(faces.images)
    samples = [
        MegaSample.batch([sample_of(subjects, (0, n), (0, (n + 1) % count))]) for n in range(count)
    ]
    apart = []
    for sample in samples:
        looks = sample.look, sample.look.flip(1), sample.other_look
        plain, coloured, other = (
            painted(base, replace(sample, look=look), 0, cycle=False).image for look in looks
        )
        apart.append([float((each - plain).abs().mean()) * 255 for each in (coloured, other)])
    colours, expressions = np.mean(apart, axis=0).tolist()
    return colours, expressions


if __name__ == "__main__":
    main()
