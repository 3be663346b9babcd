"""Files that would take more memory or time than there is: what a command makes of each.

    python benchmarks/heavy_files.py           (Linux)

Tells for each the exit code, the seconds, the memory of the command with its children at its most,
and the lines it wrote: at most 3 GB, and one line where it is refused.
"""

from __future__ import annotations

import argparse
import os
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from metaportrait_cli.face.track import LARGEST_FACE, RECORD, MotionTrack
from metaportrait_cli.media.binaries import ffmpeg_binary
from metaportrait_cli.motion.motion_file import write_motion
from metaportrait_cli.pipeline.engine import Engine
from metaportrait_cli.pipeline.person.portrait_file import Portrait, save_portrait
from metaportrait_cli.pipeline.source import load_sources
from tests.clips import scene, write_clip

ROOT = Path(__file__).parents[1]
PORTRAIT = ROOT / "samples" / "portrait.png"
MOST_MB = 3000
MOST_SECONDS = 300


def png(path: Path, *, width: int, height: int, depth: int, kind: int, channels: int) -> Path:
    """A black PNG, written a row at a time: Pillow would hold it whole."""
    row = bytes(1 + width * channels * depth // 8)
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def with_absurd_rate(clip: Path, path: Path) -> Path:
    """The MP4 with ticks of 1/(2³² − 1) s, one for each frame."""
    data = bytearray(clip.read_bytes())
    clock = data.index(b"mdhd") + 4 + 4 + 8
    data[clock : clock + 4] = b"\xff" * 4
    spacing = data.index(b"stts") + 4 + 4 + 4 + 4
    data[spacing : spacing + 4] = (1).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def template(path: Path, *, frames: int, rate: Fraction) -> Path:
    track = MotionTrack(width=64, height=64, rate=rate)
    records = np.zeros(frames, RECORD)
    records["points"] = np.random.default_rng(0).random((478, 3)) * 40
    records["time"] = np.arange(frames) / 25
    track.append(records)
    write_motion(track, path)
    return path


def files(folder: Path) -> Iterator[tuple[str, list[str | Path]]]:
    """What is tried, and the arguments of the command that gets it."""
    clip = folder / "16000x8000.avi"
    wide = "scale=8000:8000,pad=16000:8000:(ow-iw)/2:0,format=yuvj420p"
    command = [ffmpeg_binary(), "-v", "error", "-loop", "1", "-i", str(PORTRAIT), "-vf", wide]
    command += ["-frames:v", "12", "-c:v", "mjpeg", "-q:v", "20", str(clip)]
    subprocess.run(command, check=True)
    pixels = np.asarray(Image.open(PORTRAIT).convert("RGB"))
    plain = write_clip(
        folder / "plain.mp4", [scene(pixels, [(40 + 2 * i, 20, 200)]) for i in range(20)]
    )
    small = ["--weights", "none", "--crop", "--size", "64"]
    yield "clip of 16000x8000 as driver", ["animate", PORTRAIT, clip, *small]
    yield "clip of 16000x8000 as source", ["animate", clip, plain, "--weights", "none"]
    yield "clip of 16000x8000 enlarged", ["upscale", clip]
    yield "clip of 16000x8000, landmarks", ["landmarks", clip]
    fast = with_absurd_rate(plain, folder / "fast.mp4")
    yield "MP4 of 2^32 frames a second", ["animate", PORTRAIT, fast, *small]
    for name, rate in (("2^62", Fraction(2**62)), ("10^6", Fraction(10**6))):
        odd = template(folder / "odd.motion.npz", frames=20, rate=rate)
        yield f"template of {name} frames a second", ["animate", PORTRAIT, odd, *small]
    packed = folder / "packed.motion.npz"
    many = template(folder / "many.motion.npz", frames=30_000, rate=Fraction(25))
    with zipfile.ZipFile(many) as there, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out:
        for name in there.namelist():
            out.writestr(name, there.read(name))
    yield "template that unpacks to 200 MB", ["animate", PORTRAIT, packed, *small]
    deep = png(folder / "16.png", width=9400, height=9400, depth=16, kind=6, channels=4)
    yield "PNG of 9400x9400, 16 bits RGBA", ["animate", deep, plain, *small]
    thin = png(folder / "thin.png", width=1, height=80_000_000, depth=8, kind=0, channels=1)
    yield "PNG of 1x80000000", ["animate", thin, plain, *small]
    person = folder / "a.portrait"
    with Engine("none") as engine:
        source = load_sources([PORTRAIT], choice=LARGEST_FACE, detector=engine.detector)
    save_portrait(person, Portrait(source, np.zeros(60, np.float32), np.zeros(128, np.float32)))
    with safe_open(person, framework="pt") as file:
        notes, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    large = BytesIO()
    Image.new("RGB", (16000, 16000)).save(large, "JPEG", quality=20)
    tensors["view_0"] = torch.frombuffer(bytearray(large.getvalue()), dtype=torch.uint8)
    save_file(tensors, person, notes)
    yield "portrait with a view of 16000x16000", ["animate", "--portrait", person, plain, *small]


def memory(process: int) -> int:
    """Of a process and all its children, in MB."""
    total = 0
    for place in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            total += sum(memory(int(child)) for child in place.read_text().split())
        except OSError:
            continue
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return total
    return total + pages * os.sysconf("SC_PAGESIZE") // 2**20


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, arguments in files(folder):
            output = "o.motion.npz" if arguments[0] == "landmarks" else "o.mp4"
            started, most = time.monotonic(), 0
            running = subprocess.Popen(
                [
                    *(sys.executable, "-m", "metaportrait_cli"),
                    *map(str, arguments),
                    "-o",
                    output,
                    "-q",
                ],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            while running.poll() is None:
                most = max(most, memory(running.pid))
                if time.monotonic() - started > MOST_SECONDS:
                    running.kill()
                time.sleep(0.02)
            told = (running.stderr.read() if running.stderr else "").strip().splitlines()
            seconds = time.monotonic() - started
            fine = most <= MOST_MB and len(told) <= 1 and running.returncode in (0, 2, 3, 4, 5)
            print(
                f"{'' if fine else 'WRONG '}{what}: exit {running.returncode}, {seconds:.0f} s,"
                f" {most} MB; {' | '.join(told) or 'made'}",
                flush=True,
            )
            (folder / output).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
