"""Disks that are full at every stage: an error that names the place, and nothing half left.

    python benchmarks/full_disks.py --points 40      (mounts a small tmpfs, so it needs root)

At each point so many bytes are free, on the disk of the output or on that of temporary files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from metaportrait_cli.errors import MetaPortraitError
from metaportrait_cli.media.encoding import Encoding
from metaportrait_cli.media.stills import write_still
from metaportrait_cli.pipeline import work
from metaportrait_cli.pipeline.animate import animate
from metaportrait_cli.pipeline.animation import AnimateOptions
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.landmarks import extract_landmarks
from metaportrait_cli.weights import bundled_path
from metaportrait_cli.weights.join import join_files
from tests.clips import scene, write_clip

DISK = 1 << 20


@contextmanager
def small_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--points", type=int, default=40)
    points = options.parse_args().points
    root = Path(__file__).parents[1]
    portrait = root / "samples" / "portrait.png"
    pixels = np.asarray(Image.open(portrait).convert("RGB"))
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name, small_disk() as disk, Engine("none") as engine:
        frames = [scene(pixels, [(40 + 2 * i, 20, 200)]) for i in range(30)]
        noise = np.random.default_rng(0).integers(0, 40, (30, 240, 320, 3), np.uint8)
        clip = write_clip(Path(name) / "a.mp4", [f + n for f, n in zip(frames, noise, strict=True)])
        fine = AnimateOptions(full=False, size=256, encoding=Encoding(crf=1))
        jobs: dict[str, Callable[[Path], object]] = {
            "animate": lambda out: animate([portrait], clip, out / "o.mp4", fine, engine=engine),
            "landmarks": lambda out: extract_landmarks(clip, out / "o.motion.npz", engine=engine),
            "join": lambda out: join_files([bundled_path("compact_sr")], out / "o.safetensors"),
            "still": lambda out: write_still(out / "o.png", noise[0]),
        }
        for point in range(points):
            kind = list(jobs)[point // 2 % len(jobs)] if point % 2 else "animate"
            pieces = point % 4 == 0
            work.PIECE_SECONDS = 0.4 if pieces else 5  # pyrefly: ignore[bad-assignment]
            work.QUICK_PIECES = 1  # pyrefly: ignore[bad-assignment]
            temporary = kind in ("animate", "landmarks") and point % 3 == 2
            free = (point * 7919) % 230 * 1024  # spread over what the runs need
            (disk / "filler").write_bytes(bytes(DISK - free - 8192))
            results = Path(tempfile.mkdtemp(dir=name)) if temporary else disk
            tempfile.tempdir = str(disk) if temporary else None
            where = "TMPDIR" if temporary else "output"
            try:
                jobs[kind](results)
                how = "fitted"
            except (MetaPortraitError, OSError) as error:
                named = str(getattr(error, "filename", None) or error)
                how = "refused" if str(results) in named or str(disk) in named else "WRONG PLACE"
                if how != "refused" or "damaged" in str(error):
                    print("WRONG", kind, where, free, error)
            except Exception as error:  # noqa: BLE001  that is what is looked for
                how = "INTERNAL ERROR"
                print("WRONG", kind, where, free, type(error).__name__, error)
            finally:
                tempfile.tempdir = None
            left = set(os.listdir(results)) - {"filler"}
            begun = {entry for entry in left if entry.endswith(".work")}
            done = {entry for entry in left if not entry.startswith(".")}
            if left - begun - done or (done and how != "fitted"):
                print("LEFT", kind, where, free, left)
                how = "LEFT FILES"
            for entry in left:
                subprocess.run(["rm", "-rf", str(results / entry)], check=True)
            (disk / "filler").unlink()
            counts[f"{kind}, {where}{', in pieces' if pieces else ''}: {how}"] += 1
    for what, count in sorted(counts.items()):
        print(f"{count:4} {what}")


if __name__ == "__main__":
    main()
