"""Small clips with a real face in them, made from the sample portrait."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.media.binaries import ffmpeg_binary

H264 = ("-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p")
# The portrait's head and shoulders, out of 512 × 512.
HEAD = (slice(0, 256), slice(96, 352))


def head(portrait: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The portrait's head, (side, side, 3); the face is about 0.41 of it high."""
    return cv2.resize(portrait[HEAD], (side, side), interpolation=cv2.INTER_AREA)


def scene(
    portrait: NDArray[np.uint8],
    places: Sequence[tuple[int, int, int]],
    *,
    width: int = 320,
    height: int = 240,
    background: int = 120,
) -> NDArray[np.uint8]:
    """A frame (height, width, 3) with a head of `side` pixels at each (x, y, side)."""
    frame = np.full((height, width, 3), background, np.uint8)
    for x, y, side in places:
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + side, width), min(y + side, height)
        if x1 > x0 and y1 > y0:
            frame[y0:y1, x0:x1] = head(portrait, side)[y0 - y : y1 - y, x0 - x : x1 - x]
    return frame


def write_clip(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    *,
    rate: str = "25",
    inputs: Sequence[str] = (),
    output: Sequence[str] = H264,
) -> Path:
    """Encodes RGB frames of one size; `inputs` and `output` are further ffmpeg arguments."""
    height, width = frames[0].shape[:2]
    command = [ffmpeg_binary(), "-nostdin", "-v", "error", "-y", "-f", "rawvideo"]
    command += ["-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "pipe:0"]
    command += [*inputs, *output, str(path)]
    data = b"".join(np.ascontiguousarray(frame).tobytes() for frame in frames)
    subprocess.run(command, input=data, check=True, capture_output=True)
    return path


def decoded(path: Path) -> list[NDArray[np.uint8]]:
    """All frames as RGB, by another library than the one under test."""
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]
