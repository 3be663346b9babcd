"""Ten clips through one engine against ten commands: what loading anew each time costs.

    python -m benchmarks.engine [--clips 10] [--frames 25] [--weights compact]

Both make the same clips, of the bundled samples, on the same machine, one after the other.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from metaportrait_cli import Engine, animate
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.writer import VideoWriter

SAMPLES = Path(__file__).parents[1] / "samples"


def main() -> None:
    """Prints seconds for both, and a clip's share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=10)
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--weights", default="compact")
    chosen = parser.parse_args()
    portrait = SAMPLES / "portrait.png"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = cut(folder, count=chosen.clips, frames=chosen.frames)
        started = time.perf_counter()
        with Engine(chosen.weights) as engine:
            for clip in clips:
                animate(portrait, clip, folder / f"engine-{clip.name}", engine=engine)
        engine_seconds = time.perf_counter() - started
        started = time.perf_counter()
        for clip in clips:
            arguments = ["animate", "-q", "-s", portrait, "-d", clip, "--weights", chosen.weights]
            output = folder / f"own-{clip.name}"
            subprocess.run(
                [sys.executable, "-m", "metaportrait_cli", *arguments, "-o", output],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        own_seconds = time.perf_counter() - started
    print("| | seconds | a clip |\n|---|---|---|")
    for title, seconds in (("one engine", engine_seconds), ("a command each", own_seconds)):
        print(f"| {title} | {seconds:.1f} | {seconds / chosen.clips:.2f} |")


def cut(folder: Path, *, count: int, frames: int) -> list[Path]:
    """Clips from the sample driver, each of so many frames."""
    with open_frames(SAMPLES / "driver.mp4") as driver:
        pictures = [frame.image for frame in driver]
        rate = driver.rate
    height, width = pictures[0].shape[:2]
    paths = [folder / f"{number}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        start = number * 8 % (len(pictures) - frames)
        with VideoWriter(path, width=width, height=height, rate=rate) as writer:
            for picture in pictures[start : start + frames]:
                writer.write(picture)
    return paths


if __name__ == "__main__":
    main()
