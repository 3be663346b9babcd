"""The square around a face in which networks and warps work, and the way back into the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# The authors' own crops hold the 478-point box at 0.54–0.58 of their height, centred at
# (0.51, 0.53); the longest side of the box then takes this share of the crop.
FACE_SHARE = 0.55
FACE_CENTRE_Y = 0.53
# In a tight picture the crop may shrink to this many times the face.
LEAST_MARGIN = 1.25
# Around a head, in sides of its crop: what is nearer to the crop's edge is held back by it. Crops
# grow so far at most, for networks learnt from the usual ones; growing by less isn't worth it.
ROOM, MOST_GROWTH, LEAST_GROWTH = 0.08, 1.4, 1.03


@dataclass(frozen=True)
class Crop:
    """An axis-parallel square in whole pixels of a picture; it may reach beyond the picture."""

    x0: int
    y0: int
    side: int

    @classmethod
    def around(cls, points: NDArray[np.float32], *, within: tuple[int, int] | None = None) -> Crop:
        """The crop that frames these face points (478, 3).

        It keeps within a picture of (width, height) pixels as far as the face allows.
        """
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        face = float((high - low).max())
        side = max(16, round(face / FACE_SHARE))
        if within is not None:
            side = min(side, max(min(within), round(face * LEAST_MARGIN)))
        x, y = (low + high) / 2
        x0, y0 = round(float(x) - side / 2), round(float(y) - side * FACE_CENTRE_Y)
        if within is not None:
            width, height = within
            x0 = min(max(x0, 0), width - side) if side <= width else x0
            y0 = min(max(y0, 0), height - side) if side <= height else y0
        return cls(x0, y0, side)

    def holding(
        self, low: NDArray[np.floating], high: NDArray[np.floating], *, within: tuple[int, int]
    ) -> Crop:
        """This crop, enlarged to hold the box from `low` (x, y) to `high` with room around it.

        Its lower edge stays as far as a picture of (width, height) pixels, an even number, allows.
        It grows by `MOST_GROWTH` at most, and to an even side.
        """
        bottom = self.y0 + self.side
        wanted = max(
            (bottom - float(low[1])) / (1 - ROOM), float(high[0] - low[0]) / (1 - 2 * ROOM)
        )
        side = round(min(wanted, MOST_GROWTH * self.side, *within))
        if side < LEAST_GROWTH * self.side:
            side = self.side
        # Results have even sides: their pictures would be made again for an odd crop, and softer.
        side += side % 2
        if side == self.side or side > min(within):
            return self
        more = side - self.side
        # As much of the box is held as can be, and all of what was.
        x = min(max(float(low[0] + high[0] - side) / 2, self.x0 - more), self.x0)
        y = self.y0 - more
        x0, y0 = (
            min(max(round(at), 0), most - side) for at, most in zip((x, y), within, strict=True)
        )
        return Crop(x0, y0, side)

    def to_crop(self, points: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        """Points (…, 3) of the picture → pixels of the crop scaled to `size`; z scales along."""
        origin = np.array([self.x0, self.y0, 0], np.float32)
        return ((points - origin) * (size / self.side)).astype(np.float32)

    def to_picture(self, points: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        """The inverse of `to_crop`."""
        origin = np.array([self.x0, self.y0, 0], np.float32)
        return (points * (self.side / size) + origin).astype(np.float32)

    def cut(self, image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """The crop of a picture (H, W, C) as (size, size, C); beyond the picture edges repeat."""
        height, width = image.shape[:2]
        x1, y1 = self.x0 + self.side, self.y0 + self.side
        part = image[max(self.y0, 0) : min(y1, height), max(self.x0, 0) : min(x1, width)]
        part = cv2.copyMakeBorder(
            part,
            max(-self.y0, 0),
            max(y1 - height, 0),
            max(-self.x0, 0),
            max(x1 - width, 0),
            cv2.BORDER_REPLICATE,
        )
        if size == self.side:
            return part
        method = cv2.INTER_AREA if size < self.side else cv2.INTER_CUBIC
        return cv2.resize(part, (size, size), interpolation=method)

    def widened(self, share: float, *, within: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of a picture of (width, height) pixels around this crop, wider by a
        share of its side on each side, as far as the picture goes."""
        more = round(share * self.side)
        width, height = within
        return (
            slice(max(0, self.y0 - more), min(height, self.y0 + self.side + more)),
            slice(max(0, self.x0 - more), min(width, self.x0 + self.side + more)),
        )

    def inside(self, width: int, height: int) -> tuple[slice, slice, slice, slice]:
        """Rows and columns of the picture, then of the unscaled crop, where both overlap."""
        top, left = max(self.y0, 0), max(self.x0, 0)
        bottom, right = min(self.y0 + self.side, height), min(self.x0 + self.side, width)
        return (
            slice(top, bottom),
            slice(left, right),
            slice(top - self.y0, bottom - self.y0),
            slice(left - self.x0, right - self.x0),
        )


def border_fade(
    crop: Crop, *, width: int, height: int, size: int, share: float, at_edges: bool = True
) -> NDArray[np.float32]:
    """Weights (size, size) in [0, 1]: 0 at the edge of what crop and picture share, 1 inside.

    `share` is the width of the ramp as a fraction of the crop's side. Without `at_edges` there is
    none where the picture ends, too: only where it goes on beyond the crop.
    """
    centres = (np.arange(size, dtype=np.float32) + 0.5) * (crop.side / size)
    ramp = share * crop.side

    def along(start: int, length: int) -> NDArray[np.float32]:
        low = max(0, -start)
        high = min(crop.side, length - start)
        if not at_edges:
            low, high = (
                (0 if start > 0 else -ramp),
                (crop.side if start + crop.side < length else crop.side + ramp),
            )
        distance = np.minimum(centres - low, high - centres)
        return smoothstep(distance / ramp)

    return np.outer(along(crop.y0, height), along(crop.x0, width))


def smoothstep(x: NDArray[np.floating] | float) -> NDArray[np.float32]:
    """0 below 0, 1 above 1, a smooth ramp between."""
    if not isinstance(x, np.ndarray):  # numpy would take ten times as long
        t = min(max(float(x), 0.0), 1.0)
        return np.array(t * t * (3 - 2 * t), np.float32)
    t = np.clip(x, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)
