"""The parts of a face that decide whether it looks alive: mouth and eyes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import Crop

REGION_SIDE = 96
# Side of a region's square relative to its points' box: lips with some chin, an eye with its lids.
MOUTH_SHARE, EYE_SHARE = 1.5, 1.8


def mouth_region(points: NDArray[np.float32]) -> Crop:
    """The square around the lips of face points (478, 3), in their pixels."""
    return _square(points[topology.ring("lips_outer")], MOUTH_SHARE)


def eye_regions(points: NDArray[np.float32]) -> tuple[Crop, Crop]:
    """The squares around the right and the left eye of face points (478, 3), in their pixels."""
    right, left = (_square(points[topology.ring(f"{s}_eye")], EYE_SHARE) for s in ("right", "left"))
    return right, left


def cut_region(frame: NDArray[np.uint8], region: Crop) -> NDArray[np.uint8]:
    """A region of a frame (H, W, 3) as (96, 96, 3); cut result and truth by one region."""
    return region.cut(frame, REGION_SIDE)


def _square(points: NDArray[np.float32], share: float) -> Crop:
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    side = max(8, round(float((high - low).max()) * share))
    x, y = (low + high) / 2 - side / 2
    return Crop(round(float(x)), round(float(y)), side)
