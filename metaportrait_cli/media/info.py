"""What is known of a moving picture before its frames are read."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

Transfer = Literal["sdr", "pq", "hlg"]
Primaries = Literal["bt709", "bt2020", "smpte431", "smpte432"]


@dataclass(frozen=True)
class AudioTrack:
    """One sound track."""

    index: int
    """Number of the stream in its file, counting streams of all kinds."""
    codec: str
    """ffmpeg's name, such as "aac"; "unknown" when no decoder knows it."""
    duration: Fraction | None
    """Seconds, where the file says."""


@dataclass(frozen=True)
class VideoInfo:
    """One video stream, or a sequence of images that is read like one.

    Width and height are those of the frames as they are delivered: turned upright and with square
    pixels.
    """

    path: Path
    width: int
    height: int
    rate: Fraction
    """Frames per second, such as Fraction(30000, 1001); where they vary, what they stand for."""
    frames: int | None
    """Declared or estimated number of frames: for progress alone, never to be relied upon."""
    duration: Fraction | None
    """Seconds of the video stream."""
    start: Fraction
    """Seconds on the container's clock at which the first frame is shown."""
    variable_rate: bool
    audio: tuple[AudioTrack, ...]
    bit_depth: int
    has_alpha: bool
    rotation: int
    """Degrees counter-clockwise that turn the coded picture upright: 0, 90, 180 or 270."""
    codec: str
    index: int = 0
    """Number of the video stream in its file."""
    time_base: Fraction = Fraction(1, 1000)
    """Seconds of one tick of the stream's timestamps."""
    square: bool = True
    """Whether the stored pixels are square; if not, reading stretches the short side."""
    transfer: Transfer = "sdr"
    primaries: Primaries = "bt709"
    """What red, green and blue are; all that are near enough to sRGB's count as BT.709."""
    coded: tuple[int, int] | None = None
    """`in_file`, where frames may come in another size: that of the first picture of a clip."""
    interlaced: bool = False
    """Whether the first picture consists of two half pictures."""
    untagged: bool = False
    """A YUV stream that doesn't say by which matrix it was made from RGB."""
    clock_start: Fraction = Fraction(0)
    """Seconds on the container's clock at which its earliest stream begins."""
    mark: str = ""
    """What its comment says of an artificial origin, to be passed on; else empty."""

    @property
    def in_file(self) -> tuple[int, int]:
        """Width and height as they are stored, upright: what is delivered may be smaller."""
        return self.coded or (self.width, self.height)


LARGEST_SIDE = 4096
"""Larger frames are delivered smaller: nothing here is made of more pixels, and a few are held."""


def sized_within(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """(width, height) in pixels, shrunk in proportion until no side passes `max_side`, or
    `LARGEST_SIDE`."""
    longest = max(width, height)
    max_side = min(max_side or LARGEST_SIDE, LARGEST_SIDE)
    if longest <= max_side:
        return width, height
    return (
        max(1, round(Fraction(width * max_side, longest))),
        max(1, round(Fraction(height * max_side, longest))),
    )
