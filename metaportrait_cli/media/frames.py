"""Frames with exact times, and what every source of them has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.media.info import AudioTrack, VideoInfo, sized_within


@dataclass(frozen=True)
class Frame:
    """One picture of a clip, upright and with square pixels."""

    index: int
    """Counts from 0 without a gap."""
    time: Fraction
    """Seconds since the first frame; exact."""
    image: NDArray[np.uint8]
    """(H, W, 3) RGB in [0, 255], contiguous, owned by the receiver."""
    alpha: NDArray[np.uint8] | None = None
    """(H, W) in [0, 255], where the clip has alpha; `image` is not multiplied by it."""

    @property
    def nbytes(self) -> int:
        """What it takes of memory."""
        return self.image.nbytes + (0 if self.alpha is None else self.alpha.nbytes)


class FrameSource(ABC):
    """A context manager that is iterated once, in order of time, in bounded memory."""

    def __init__(self, info: VideoInfo, *, max_side: int | None = None) -> None:
        """`max_side` shrinks the frames until no side is longer, in pixels."""
        self.width, self.height = sized_within(info.width, info.height, max_side)
        """Size of the delivered frames, in pixels."""
        self.info = replace(info, width=self.width, height=self.height)
        self.warning: str | None = None
        """After the last frame: what was wrong with a clip that could be read only in part."""

    @property
    def rate(self) -> Fraction:
        """Frames per second; see `VideoInfo`."""
        return self.info.rate

    @property
    def frames(self) -> int | None:
        """Declared or estimated count, for progress alone."""
        return self.info.frames

    @property
    def audio(self) -> tuple[AudioTrack, ...]:
        """Sound tracks of the file."""
        return self.info.audio

    def begin(self) -> None:
        """Starts what decodes, so that the first frame is there when it is asked for."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        return self

    @abstractmethod
    def __next__(self) -> Frame: ...

    @abstractmethod
    def close(self) -> None:
        """Let go of files and processes; harmless when repeated."""
