"""Frames that a program has already, in place of a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import inf
from numbers import Real
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError, UsageError
from metaportrait_cli.media.frames import Frame, FrameSource
from metaportrait_cli.media.info import VideoInfo


@dataclass(frozen=True)
class Clip:
    """Pictures (H, W, 3) RGB uint8 of one size, `rate` of them a second; without sound."""

    frames: Iterable[NDArray[np.uint8]]
    """An array (T, H, W, 3), a list, or an iterator, which serves once."""
    rate: Fraction = Fraction(25)
    name: str = "frames"
    """What it is called in reports and messages"""

    def __post_init__(self) -> None:
        if not isinstance(self.rate, Real) or not 0 < self.rate < inf:
            raise UsageError(f"{self.name}: `rate` {self.rate} is no number of frames a second")

    @property
    def lasts(self) -> bool:
        """Whether the frames can be read a second time."""
        return not isinstance(self.frames, Iterator)


class GivenFrames(FrameSource):
    """A clip's frames, as files give theirs. Raises `MediaError` for arrays of another kind."""

    def __init__(self, clip: Clip, *, max_side: int | None = None) -> None:
        self._clip = clip
        self._iterator = iter(clip.frames)
        self._next: NDArray[np.uint8] | None = next(self._iterator, None)
        if self._next is None:
            once = "" if clip.lasts else ", or has given them already: a list serves again"
            raise MediaError(f"{clip.name}: holds no frame{once}")
        self._check(self._next)
        height, width = self._next.shape[:2]
        count = len(clip.frames) if isinstance(clip.frames, (list, tuple, np.ndarray)) else None
        info = VideoInfo(
            path=Path(clip.name),
            width=width,
            height=height,
            rate=Fraction(clip.rate),
            frames=count,
            duration=None if count is None else count / Fraction(clip.rate),
            start=Fraction(0),
            variable_rate=False,
            audio=(),
            bit_depth=8,
            has_alpha=False,
            rotation=0,
            codec="rawvideo",
        )
        super().__init__(info, max_side=max_side)
        self._shape = self._next.shape
        self._delivered = 0

    def __next__(self) -> Frame:
        image = self._next
        if image is None:
            raise StopIteration
        self._check(image)
        if image.shape != self._shape:
            raise MediaError(
                f"{self._clip.name}: frame {self._delivered} is {image.shape}, not {self._shape}"
            )
        self._next = next(self._iterator, None)
        index = self._delivered
        self._delivered += 1
        if image.shape[:2] != (self.height, self.width):
            image = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
        return Frame(index, index / self.rate, np.ascontiguousarray(image, np.uint8))

    def close(self) -> None:
        """Lets go of the frames."""
        self._next = None

    def _check(self, image: NDArray[np.uint8]) -> None:
        if getattr(image, "dtype", None) != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise MediaError(f"{self._clip.name}: frames must be uint8 arrays (H, W, 3), RGB")
