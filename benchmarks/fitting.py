"""Frames fitted a second by the morphable model, on synthetic landmarks.

python benchmarks/fitting.py [--model weights/morphable.safetensors] [--window 200]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from metaportrait_cli.motion.alignment import from_frame, rotation_of
from metaportrait_cli.motion.fitting import fit_frames, fit_identity
from metaportrait_cli.motion.morphable import MorphableModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("weights/morphable.safetensors"))
    parser.add_argument("--window", type=int, default=200, help="frames per call")
    options = parser.parse_args()
    model = MorphableModel.load(options.model)
    rng = np.random.default_rng(0)
    count = options.window
    faces = model.shape(
        rng.normal(size=model.identity_size).astype(np.float32),
        rng.normal(size=(count, model.expression_size)).astype(np.float32),
        rng.normal(size=(count, 2, 2)).astype(np.float32) * 0.1,
    )
    landmarks = from_frame(
        faces + rng.normal(size=faces.shape) * 0.003,
        rotation_of(rng.normal(size=(count, 3)) * 0.2),
        np.full(count, 90.0),
        rng.normal(size=(count, 3)) * 5 + 250,
    ).astype(np.float32)
    identity = fit_identity(model, landmarks[:40])
    fit_frames(model, landmarks, identity)  # fills the model's caches
    wall, cpu = time.perf_counter(), time.process_time()
    rounds = 10
    for _ in range(rounds):
        fit_frames(model, landmarks, identity)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{rounds * count / wall:.0f} frames/s wall, {rounds * count / cpu:.0f} per CPU second")


if __name__ == "__main__":
    main()
