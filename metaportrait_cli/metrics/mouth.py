"""What whole pictures hardly tell of a mouth: its inside, how sharp that is, and how steady."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.landmark_image import filled_polygon
from metaportrait_cli.metrics.regions import mouth_region

ZOOM = 192
"""Side of the close-up"""
# Lips and their landmarks are a pixel or two off; smaller openings are lips alone.
MARGIN, LEAST_SHARE = 5, 0.01


@dataclass(frozen=True)
class MouthOpening:
    """Where a face's mouth is open in its close-up: (192, 192) booleans, none if it is shut."""

    region: Crop
    inside: NDArray[np.bool_]

    @classmethod
    def of(cls, points: NDArray[np.float32]) -> MouthOpening:
        """Of a face (478, 3) in pixels of the pictures to be judged."""
        region = mouth_region(points)
        ring = region.to_crop(points, ZOOM)[topology.ring("lips_inner"), :2]
        inside = filled_polygon(ring, side=ZOOM, size=ZOOM) > 127
        inside = cv2.erode(inside.astype(np.uint8), np.ones((MARGIN, MARGIN), np.uint8)) > 0
        return cls(region, inside & (inside.mean() > LEAST_SHARE))

    @property
    def is_open(self) -> bool:
        """Whether there is anything to judge."""
        return bool(self.inside.any())

    def zoomed(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The close-up (192, 192, 3) of a frame (S, S, 3)."""
        return self.region.cut(frame, ZOOM)


def inside_distance(
    result: NDArray[np.uint8], truth: NDArray[np.uint8], opening: MouthOpening
) -> float:
    """Mean absolute difference of two close-ups between the lips, in [0, 1]."""
    apart = np.abs(result[opening.inside].astype(np.float32) - truth[opening.inside])
    return float(apart.mean()) / 255


def sharpness(zoomed: NDArray[np.uint8], opening: MouthOpening) -> float:
    """Mean squared gradient of a close-up between the lips, in grey levels² a pixel."""
    grey = zoomed.astype(np.float32).mean(-1)
    across, down = (cv2.Sobel(grey, cv2.CV_32F, *axis, ksize=3, scale=1 / 8) for axis in _AXES)
    return float((across**2 + down**2)[opening.inside].mean())


_AXES = ((1, 0), (0, 1))


def flicker(
    earlier: NDArray[np.uint8],
    later: NDArray[np.uint8],
    openings: tuple[MouthOpening, MouthOpening],
) -> float | None:
    """Change of the mean brightness between the lips from close-up to close-up, in [0, 1]."""
    both = openings[0].inside & openings[1].inside
    if not both.any():
        return None
    first, second = (float(zoomed[both].mean()) for zoomed in (earlier, later))
    return abs(second - first) / 255
