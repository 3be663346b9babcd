"""Animated images and folders of images, read like clips."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaportrait_cli.errors import MediaError
from metaportrait_cli.media.frames import Frame, FrameSource
from metaportrait_cli.media.info import VideoInfo
from metaportrait_cli.media.srgb import split_srgb
from metaportrait_cli.media.stills import open_image, read_still
from metaportrait_cli.media.timing import is_variable, nominal_rate

IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif"),
    *(".gif", ".ppm", ".jp2"),
}
_SHORTEST = Fraction(1, 50)
_USUAL = Fraction(1, 10)
"""What browsers show a frame for that asks for less than `_SHORTEST`, in seconds."""


def animation_info(path: Path) -> VideoInfo:
    """Describe an animated image; decodes it once, frame by frame, for its times.

    Raises:
        MediaError: it is damaged.
    """
    with open_image(path) as image:
        times, end = [], Fraction(0)
        for _ in _moments(image):
            times.append(end)
            end += _shown_for(image)
        has_alpha = image.has_transparency_data
        codec = (image.format or "").lower()
        width, height = image.size
    variable = is_variable([*times, end], tick=Fraction(1, 1000))
    rate = nominal_rate([*times, end]) if variable else len(times) / end
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        rate=rate,
        frames=len(times),
        duration=end,
        start=Fraction(0),
        variable_rate=variable,
        audio=(),
        bit_depth=8,
        has_alpha=has_alpha,
        rotation=0,
        codec=codec,
        coded=(width, height),
    )


class AnimatedImage(FrameSource):
    """Frames of an animated GIF, WebP, PNG or AVIF.

    Pillow decodes them, because ffmpeg reads animated WebP only since version 8.
    """

    def __init__(self, path: Path, *, max_side: int | None = None) -> None:
        """Raises MediaError for a file that is damaged from the start."""
        super().__init__(animation_info(path), max_side=max_side)
        self._resources = ExitStack()
        self._frames = self._read(self._resources)

    def _read(self, resources: ExitStack) -> Iterator[Frame]:
        image = resources.enter_context(open_image(self.info.path))
        time = Fraction(0)
        for index, _ in enumerate(_moments(image)):
            pixels, alpha = split_srgb(image)
            yield Frame(
                index, time, _fit(pixels, self), None if alpha is None else _fit(alpha, self)
            )
            time += _shown_for(image)

    def __next__(self) -> Frame:
        return next(self._frames)

    def close(self) -> None:
        """Close the file."""
        self._resources.close()


class ImageFolder(FrameSource):
    """The images of a folder as a clip of constant rate, ordered by the numbers in their names."""

    def __init__(self, path: Path, *, rate: Fraction, max_side: int | None = None) -> None:
        """Raises MediaError for a folder without images or with an unreadable first one."""
        self._paths = image_files(path)
        if not self._paths:
            raise MediaError(f"folder {path} holds no images: give one with .png or .jpg files")
        first = read_still(self._paths[0])
        height, width = first.image.shape[:2]
        info = VideoInfo(
            path=path,
            width=width,
            height=height,
            rate=rate,
            frames=len(self._paths),
            duration=len(self._paths) / rate,
            start=Fraction(0),
            variable_rate=False,
            audio=(),
            bit_depth=8,
            has_alpha=first.alpha is not None,
            rotation=0,
            codec=self._paths[0].suffix[1:].lower(),
            coded=first.in_file,
        )
        super().__init__(info, max_side=max_side)
        self._next = 0

    def __next__(self) -> Frame:
        if self._next == len(self._paths):
            raise StopIteration
        path, index = self._paths[self._next], self._next
        still = read_still(path)
        height, width = still.image.shape[:2]
        if (width, height) != (self.info.width, self.info.height):
            raise MediaError(
                f"{path} is {width}x{height}, but the first image of its folder is "
                f"{self.info.width}x{self.info.height}: make them one size"
            )
        self._next += 1
        alpha = None if still.alpha is None else _fit(still.alpha, self)
        return Frame(index, index / self.rate, _fit(still.image, self), alpha)

    def close(self) -> None:
        """Nothing is held open between frames; there are no more of them."""
        self._next = len(self._paths)


def image_files(folder: Path) -> list[Path]:
    """Images in `folder` by their suffix, hidden files left out, 2.png before 10.png.

    Raises:
        MediaError: the folder can't be listed.
    """
    try:
        found = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        ]
    except OSError as error:
        raise MediaError(f"folder {folder} can't be listed: {error.strerror}") from error
    return sorted(found, key=_natural)


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Sort key: digits by their value, the rest by letter; the name itself decides a tie."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name.lower())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts], path.name


def _moments(image: Image.Image) -> Iterator[int]:
    for index in range(getattr(image, "n_frames", 1)):
        image.seek(index)
        image.load()
        yield index


def _shown_for(image: Image.Image) -> Fraction:
    """Seconds for which the current frame is shown."""
    asked = Fraction(round(image.info.get("duration", 0)), 1000)
    return asked if asked >= _SHORTEST else _USUAL


def _fit(image: NDArray[np.uint8], source: FrameSource) -> NDArray[np.uint8]:
    """`image` ((H, W) or (H, W, 3)) in the size that `source` delivers."""
    height, width = image.shape[:2]
    if (width, height) == (source.width, source.height):
        return image
    size = (source.width, source.height)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
