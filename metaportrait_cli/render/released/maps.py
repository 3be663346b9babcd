"""What the released networks want beside landmark images: a mouth mask and gaze points.

All are made from 58 of the 669 points
(:func:`~metaportrait_cli.render.released.rasterise.subset58`), here called by their place in that
list. Points are (x, y) in [0, 1] of the crop.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.render.released.rasterise import SIZE, Points, subset58

GAZE_SLOTS = slice(29, 37)  # four points on the rim of each iris


MOUTH_BOX = (14, 15), (56, 57)
"""The points at its left and right end, and at its top and bottom."""
MARGIN = 5
"""By how many pixels it is widened."""


def mouth_mask(points: Points, size: int = SIZE) -> NDArray[np.bool_]:
    """(size, size), true in the mouth's box; points (669, 2)."""
    pixels = ((_subset(points) + 1) * size / 2).astype(np.int32)  # towards zero
    mask = np.zeros((size, size), bool)
    # Both ends are cut to the picture, so that a box beyond its edge is empty. (The authors' code
    # leaves a negative end, which then counts from the far side.)
    columns, rows = (
        slice(
            max(pixels[first, axis] - MARGIN, 0),
            max(pixels[last, axis] + MARGIN + 1, 0),
        )
        for axis, (first, last) in enumerate(MOUTH_BOX)
    )
    mask[rows, columns] = True
    return mask


def gaze_points(points: Points) -> Points:
    """(8, 2), the iris points (x, y) in [-1, 1], of points (669, 2) in [0, 1]."""
    return _subset(points)[GAZE_SLOTS]


def _subset(points: Points) -> Points:
    return points[subset58(), :2].astype(np.float32) * 2 - 1
