"""Which ffmpeg runs, and what it can do."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache

from metaportrait_cli.errors import FfmpegError


def ffmpeg_binary() -> str:
    """Path of the ffmpeg to run: the one on PATH, else the one in imageio-ffmpeg's wheel.

    Raises:
        FfmpegError: neither is there.
    """
    found = shutil.which("ffmpeg")
    if found is not None:
        return found
    try:
        import imageio_ffmpeg  # noqa: PLC0415  # 70 MB of wheel that only this case needs

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise FfmpegError(
            "ffmpeg is not on PATH and the imageio-ffmpeg package brings none for this machine: "
            "install ffmpeg 5.1 or later, or run `pip install imageio-ffmpeg`"
        ) from error


@cache
def has_filter(binary: str, name: str) -> bool:
    """Whether this ffmpeg was built with the filter `name`."""
    try:
        listing = subprocess.run(
            [binary, "-nostdin", "-v", "error", "-filters"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=60,
        ).stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FfmpegError(
            f"{binary} can't be run ({error}): install ffmpeg 5.1 or later"
        ) from error
    return any(name in line.split()[1:2] for line in listing.splitlines())
