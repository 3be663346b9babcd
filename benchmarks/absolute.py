"""A clip re-enacted by itself with `--motion absolute`, against its true landmarks.

    python -m benchmarks.absolute CLIP... [--frames 40] [--looks 8]

The command follows the face, fits the face model, smooths and retargets; the other way gives the
renderer the landmarks that were found in each frame. Both are compared with the clip's own frames
(LPIPS-like, 256²), so the difference is what the way through the command costs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.track import LARGEST_FACE
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.writer import VideoWriter
from metaportrait_cli.metrics.perceptual import bundled_features, lpips_like
from metaportrait_cli.pipeline.compose import all_resized
from metaportrait_cli.pipeline.driver import load_motion
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.report import Stopwatch
from metaportrait_cli.pipeline.source import load_sources
from metaportrait_cli.pixels import as_tensor
from metaportrait_cli.progress import silent
from metaportrait_cli.render.protocol import Driven

SIZE = 256


def main() -> None:
    """Prints a row a clip."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--looks", type=int, default=8)
    chosen = parser.parse_args()
    print("| clip | command | true landmarks | difference |\n|---|---|---|---|")
    differences = []
    with Engine() as engine, tempfile.TemporaryDirectory() as name:
        for clip in chosen.clips:
            part = beginning(clip, Path(name) / f"{clip.stem}.mp4", frames=chosen.frames)
            ours, true = distances(part, engine, looks=chosen.looks)
            differences.append(ours - true)
            print(f"| {clip.stem} | {ours:.4f} | {true:.4f} | {ours - true:+.4f} |", flush=True)
    print(f"| mean | | | {np.mean(differences):+.4f} |")


def distances(clip: Path, engine: Engine, *, looks: int) -> tuple[float, float]:
    """LPIPS-like to the clip's own frames: of the command, and of its true landmarks."""
    result = clip.with_name(f"absolute-{clip.name}")
    arguments = ["animate", "-q", "-s", clip, "-d", clip, "--motion", "absolute", "-o", result]
    subprocess.run(
        [sys.executable, "-m", "metaportrait_cli", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    source = load_sources([clip], choice=LARGEST_FACE, detector=engine.detector)
    own, made = pictures(clip), pictures(result)
    places = np.linspace(1, len(own) - 1, looks).astype(int).tolist()
    truth = np.stack([source.crop.cut(own[place], SIZE) for place in places])
    seen = np.stack([source.crop.cut(made[place], SIZE) for place in places])
    motion = load_motion(
        clip, choice=LARGEST_FACE, engine=engine, stopwatch=Stopwatch(), on_progress=silent
    )
    points = np.stack([motion.track.read(p, p + 1)["points"][0] for p in places])
    side = source.crop.side + source.crop.side % 2  # as the command's
    session = engine.rendering().renderer.open(source, size=side)
    frames = session.render(Driven.of(source.crop.to_crop(points, side))).frames
    rendered = all_resized(frames, SIZE)
    network = bundled_features()
    ours, true = (
        float(lpips_like(network, as_tensor(each), as_tensor(truth)).mean())
        for each in (seen, rendered)
    )
    return ours, true


def beginning(clip: Path, path: Path, *, frames: int) -> Path:
    """The clip's first frames, as a clip."""
    with open_frames(clip) as opened:
        first = [frame.image for frame, _ in zip(opened, range(frames), strict=False)]
        rate = opened.rate
    height, width = first[0].shape[:2]
    with VideoWriter(path, width=width, height=height, rate=rate) as writer:
        for picture in first:
            writer.write(picture)
    return path


def pictures(clip: Path) -> list[NDArray[np.uint8]]:
    """All frames of a short clip."""
    with open_frames(clip) as frames:
        return [frame.image for frame in frames]


if __name__ == "__main__":
    main()
