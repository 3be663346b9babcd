"""Clips made with ffmpeg's own generators, and both ffmpegs that must work."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.media import reader, writer

MakeClip = Callable[..., Path]

WHEEL = imageio_ffmpeg.get_ffmpeg_exe()
SYSTEM = shutil.which("ffmpeg") or WHEEL
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


@pytest.fixture(params=sorted({SYSTEM, WHEEL}), ids=lambda path: Path(path).name)
def binary(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each ffmpeg at hand, used by the reader and the writer."""
    for module in (reader, writer):
        monkeypatch.setattr(module, "ffmpeg_binary", lambda: request.param)
    return request.param


@pytest.fixture(scope="session")
def media_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="session")
def make_clip(media_dir: Path) -> MakeClip:
    """`make_clip("a.mp4", *arguments)` runs ffmpeg once for each name."""

    def make(name: str, *arguments: str | Path, binary: str = SYSTEM) -> Path:
        path = media_dir / name
        if not path.exists():
            command = [binary, "-nostdin", "-v", "error", *map(str, arguments), f"file:{path}"]
            subprocess.run(command, check=True, timeout=60)
        return path

    return make


@pytest.fixture(scope="session")
def plain(make_clip: MakeClip) -> Path:
    """96x64, 25 fps, 20 frames, silent."""
    return make_clip("plain.mp4", "-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.8", *H264)


@pytest.fixture(scope="session")
def talking(make_clip: MakeClip) -> Path:
    """96x64, 29.97 fps, 30 frames, with two sound tracks of 3 and of 0.5 seconds."""
    return make_clip(
        "talking.mp4",
        *("-f", "lavfi", "-i", "testsrc2=s=96x64:r=30000/1001:d=1"),
        *("-f", "lavfi", "-t", "3", "-i", "sine=f=440:r=48000"),
        *("-f", "lavfi", "-t", "0.5", "-i", "sine=f=880:r=48000"),
        *("-map", "0", "-map", "1", "-map", "2", *H264, "-c:a", "aac"),
        *("-metadata", "title=private", "-metadata", "location=+52.5+013.4/"),
    )


@pytest.fixture(scope="session")
def uneven(make_clip: MakeClip) -> Path:
    """96x64 with 40 frames: a frame is dropped here and there, as phones do."""
    return make_clip(
        "uneven.mp4",
        *("-f", "lavfi", "-i", "testsrc2=s=96x64:r=30:d=2", "-vf"),
        "select='not(eq(mod(n,3),1))',setpts='PTS+0.004*mod(N,5)/TB'",
        *("-fps_mode", "vfr", "-enc_time_base", "1/90000", *H264),
    )


def decoded(path: Path) -> list[tuple[Fraction, NDArray[np.uint8]]]:
    """(seconds, (H, W, 3) RGB as stored) of every frame, read without the code under test."""
    with av.open(str(path)) as container:
        return [
            (
                Fraction(frame.pts or 0) * Fraction(frame.time_base or 0),
                np.asarray(frame.to_ndarray(format="rgb24"), np.uint8),
            )
            for frame in container.decode(video=0)
        ]


@pytest.fixture(scope="session")
def decode() -> Callable[[Path], list[tuple[Fraction, NDArray[np.uint8]]]]:
    return decoded
