"""The last step before the encoder: back into the picture, and beside source and driver."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.crop import border_fade
from metaportrait_cli.face.source import Source
from metaportrait_cli.pipeline.provenance import Label

FEATHER_SHARE = 0.06
SEAM_SHARE = 0.03
"""Width of the seam between two faces' places, in sides of a crop"""


class Composition:
    """A result's pictures out of rendered crops."""

    def __init__(
        self, faces: Sequence[Source], *, side: int | None, compare: bool, label: bool
    ) -> None:
        """Of `faces` in one picture the first one's crops are to come. `side` is the result's where
        it shows the crop alone. With `compare` it stands beside source and driver; a `label` says
        what it is."""
        source = faces[0]
        self._side = side or source.crop.side
        self._paste = PasteBack(source) if side is None else None
        still = source.picture if side is None else source.crop.cut(source.picture, side)
        self._panels = SideBySide(still, height=still.shape[0]) if compare else None
        self._label = Label() if label else None
        self._together = Together(faces) if len(faces) > 1 else None

    def __call__(
        self,
        crop: NDArray[np.uint8],
        beside: Sequence[NDArray[np.uint8]] = (),
        *,
        driver: NDArray[np.uint8] | None = None,
    ) -> NDArray[np.uint8]:
        """The picture (H, W, 3) for a crop (S, S, 3), and for those of the other faces."""
        picture = self._paste(crop) if self._paste else resized(crop, self._side)
        if self._together is not None:
            picture = self._together([picture, *beside])
        if self._label is not None:
            picture = self._label(picture)
        return picture if self._panels is None else self._panels(driver, picture)


class PasteBack:
    """Puts rendered crops back into the whole picture through a feathered mask."""

    def __init__(self, source: Source) -> None:
        self._picture = source.picture
        height, width = source.picture.shape[:2]
        self._rows, self._columns, crop_rows, crop_columns = source.crop.inside(width, height)
        side = source.crop.side
        mask = border_fade(source.crop, width=width, height=height, size=side, share=FEATHER_SHARE)
        self._part = (crop_rows, crop_columns)
        self._inside = np.ascontiguousarray(mask[self._part])
        self._outside = 1 - self._inside
        self._base = np.ascontiguousarray(source.picture[self._rows, self._columns])
        self._side = side

    def __call__(self, rendered: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The whole picture (H, W, 3) with a rendered crop (S, S, 3) in its place."""
        part = np.ascontiguousarray(resized(rendered, self._side)[self._part])
        picture = self._picture.copy()
        picture[self._rows, self._columns] = cv2.blendLinear(
            part, self._base, self._inside, self._outside
        )
        return picture


class Together:
    """Pictures of one scene, in each of which another face moves, as one."""

    def __init__(self, sources: Sequence[Source]) -> None:
        height, width = sources[0].picture.shape[:2]
        rows, columns = np.mgrid[:height, :width].astype(np.float32)
        apart = np.stack(
            [
                np.hypot(columns - s.crop.x0 - s.crop.side / 2, rows - s.crop.y0 - s.crop.side / 2)
                / s.crop.side
                for s in sources
            ]
        )
        # Each place belongs to the face that is nearest in sizes of its crop.
        near = np.exp((apart.min(0) - apart) / SEAM_SHARE)
        self._shares = [
            (near[n] / near[: n + 1].sum(0)).astype(np.float32) for n in range(1, len(near))
        ]

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """One picture (H, W, 3) of as many as there are sources."""
        joined, *others = pictures
        for other, share in zip(others, self._shares, strict=True):
            joined = cv2.blendLinear(other, joined, share, 1 - share)
        return np.asarray(joined, np.uint8)


class SideBySide:
    """Panels of equal height from left to right: source, driver (if it has pictures), result."""

    def __init__(self, source: NDArray[np.uint8], *, height: int) -> None:
        self._height = height
        self._source = self._panel(source)

    def __call__(
        self, driver: NDArray[np.uint8] | None, result: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """One row of panels (H, W, 3)."""
        panels = [self._source, self._panel(result)]
        if driver is not None:
            panels.insert(1, self._panel(driver))
        return np.concatenate(panels, axis=1)

    def _panel(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = image.shape[:2]
        if height == self._height:
            return image
        wanted = max(2, 2 * round(width * self._height / height / 2))
        method = cv2.INTER_AREA if height > self._height else cv2.INTER_CUBIC
        return cv2.resize(image, (wanted, self._height), interpolation=method)


def all_resized(frames: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Pictures (T, S, S, 3), as renderers of a fixed size give them, as (T, size, size, 3)."""
    if frames.shape[1] == size:
        return frames
    return np.stack([resized(frame, size) for frame in frames])


def resized(square: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A square picture (S, S, 3) as (size, size, 3)."""
    if square.shape[0] == size:
        return square
    method = cv2.INTER_AREA if square.shape[0] > size else cv2.INTER_CUBIC
    return cv2.resize(square, (size, size), interpolation=method)
