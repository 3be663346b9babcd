"""Whether few-shot talking heads can learn at all: one clip, learnt by heart.

    python benchmarks/fewshot.py CLIP.mp4 -o RUN [--frames 12] [--every 3] [--steps 400]
        [--sheet sheet.png]

The lite networks learn a few frames of the clip, out of every third one; with `--frames 999
--every 1` all of it but frames that repeat others. Printed is the PSNR over them of what they
paint, the embedding being the mean of at most 16. It goes on where it stopped, and says nothing
about people that it hasn't learnt.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.networks.fewshot import Embedder, FewShotConfig, Generator
from metaportrait_cli.pixels import as_pictures
from metaportrait_cli.training.data.episodes import Episode
from metaportrait_cli.training.data.pairs import Faces
from metaportrait_cli.training.data.prepare import PrepareOptions, looking_with, prepare
from metaportrait_cli.training.fewshot import FewShotTraining, embedded, signed, train_fewshot
from metaportrait_cli.training.perceptual import PerceptualLoss
from metaportrait_cli.training.place import RunOptions
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.store import load_network

SIZE = 128
SHOWN, EMBEDDED = 6, 16
LEARNING = FewShotTraining(
    model=FewShotConfig.lite(),
    shots=1,
    batch=2,
    lr=1e-3,
    d_lr=5e-4,
    betas=(0.5, 0.99),
    warm_up=20,
    average=0.98,
    held_out=0.0,
)
HEADER = "file\tsplit\tkind\tidentity\torigin\n"


def main() -> None:
    """Trains, prints a line a report, then the PSNR."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--every", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--sheet", type=Path)
    chosen = parser.parse_args()
    data = prepared(chosen.clip, chosen.output, frames=chosen.frames, every=chosen.every)
    run = chosen.output / "run"
    card = train_fewshot(
        replace(LEARNING, steps=chosen.steps),
        data,
        run,
        options=RunOptions(precision="bf16", minutes=chosen.minutes, save_minutes=2.0),
        perceptual=PerceptualLoss.load(bundled_path("mobilenet")),
        on_record=lambda record: print(record, flush=True),
    )
    truth, painted = repainted(run / "last.safetensors", Faces.load(data))
    error = (truth.astype(np.float32) - painted.astype(np.float32)) / 255
    psnr = -10 * np.log10(np.square(error).mean(axis=(1, 2, 3)))
    print(
        f"{card['step']} steps, {card['seconds']} s: PSNR {psnr.mean():.2f} dB over {len(psnr)}"
        f" frames, {psnr.min():.1f} to {psnr.max():.1f}"
    )
    if chosen.sheet:
        shown = np.linspace(0, len(truth) - 1, SHOWN).astype(int)
        rows = [np.concatenate(list(each[shown]), axis=1) for each in (truth, painted)]
        Image.fromarray(np.concatenate(rows)).save(chosen.sheet)


def prepared(clip: Path, folder: Path, *, frames: int, every: int = 3, size: int = SIZE) -> Path:
    """The clip's faces, ready for training."""
    data, footage = folder / "prepared", folder / "footage"
    if not (data / "index.json").is_file():
        footage.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, footage / clip.name)
        (footage / "index.tsv").write_text(f"{HEADER}{clip.name}\ttrain\tclip\tone\treal\n")
        options = PrepareOptions(size=size, frames_per_identity=frames, step=every)
        with MediaPipeDetector(bundled_path("face_landmarker.task")) as detector:
            prepare(
                footage,
                data,
                options,
                find_faces=looking_with(detector, step=options.step),
                on_progress=lambda *_: None,
            )
    return data


@torch.no_grad()
def repainted(weights: Path, faces: Faces) -> tuple[np.ndarray, np.ndarray]:
    """All pictures (N, S, S, 3), and what is painted in their place."""
    embedder = load_network(Embedder, weights, part="embedder")
    generator = load_network(Generator, weights, part="generator")
    episode = Episode.of(faces, range(len(faces.images)), size=SIZE, video=0)
    pictures, landmarks = signed(episode.pictures), signed(episode.landmarks)
    some = np.linspace(0, len(pictures) - 1, min(EMBEDDED, len(pictures))).astype(int)
    embedding = embedded(embedder, pictures[None, some], landmarks[None, some])
    painted = [generator(each[None], embedding) for each in landmarks]
    return as_pictures((pictures + 1) / 2), as_pictures((torch.cat(painted) + 1) / 2)


if __name__ == "__main__":
    main()
