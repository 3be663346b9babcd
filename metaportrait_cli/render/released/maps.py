"""What the released networks want beside landmark images: a mouth mask, an eye mask, gaze points.

All are made from 58 of the 669 points
(:func:`~metaportrait_cli.render.released.rasterise.subset58`), here called by their place in that
list. Points are (x, y) in [0, 1] of the crop.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.render.released.rasterise import SIZE, Points, subset58

GAZE_SLOTS = slice(29, 37)  # four points on the rim of each iris


class BoxSlots(NamedTuple):
    """Which points bound a box, and by how many pixels it is widened."""

    left: int
    right: int
    top: int
    bottom: int
    margin: int


EYE_BOXES = (BoxSlots(1, 2, 3, 4, margin=3), BoxSlots(5, 6, 7, 8, margin=3))
MOUTH_BOX = BoxSlots(14, 15, 56, 57, margin=5)


def mouth_mask(points: Points, size: int = SIZE) -> NDArray[np.bool_]:
    """(size, size), true in the mouth's box; points (669, 2)."""
    return _boxes(points, (MOUTH_BOX,), size)


def eye_mask(points: Points, size: int = SIZE) -> NDArray[np.bool_]:
    """(size, size), true in both eyes' boxes; points (669, 2). For losses only."""
    return _boxes(points, EYE_BOXES, size)


def gaze_points(points: Points) -> Points:
    """(8, 2), the iris points (x, y) in [-1, 1], of points (669, 2) in [0, 1]."""
    return _subset(points)[GAZE_SLOTS]


def _subset(points: Points) -> Points:
    return points[subset58(), :2].astype(np.float32) * 2 - 1


def _boxes(points: Points, boxes: tuple[BoxSlots, ...], size: int) -> NDArray[np.bool_]:
    pixels = ((_subset(points) + 1) * size / 2).astype(np.int32)  # towards zero
    mask = np.zeros((size, size), bool)
    for box in boxes:
        left, right = pixels[box.left, 0] - box.margin, pixels[box.right, 0] + box.margin
        top, bottom = pixels[box.top, 1] - box.margin, pixels[box.bottom, 1] + box.margin
        # Both ends are cut to the picture, so that a box beyond its edge is empty. (The authors'
        # code leaves a negative end, which then counts from the far side.)
        rows, columns = (
            slice(max(first, 0), max(last + 1, 0)) for first, last in ((top, bottom), (left, right))
        )
        mask[rows, columns] = True
    return mask
