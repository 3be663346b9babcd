"""A face as it is found in a picture.

Convention everywhere in this package: points are float32 (478, 3), x to the right and y down in
pixels of the picture, origin at the corner of its top left pixel; z in the same unit, smaller is
nearer to the camera.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

BLENDSHAPE_COUNT = 52


@dataclass(frozen=True)
class Face:
    """One face: `points` (478, 3), `blendshapes` (52,) in [0, 1], and how sure the detector was.

    `confidence` is the highest of the detector's thresholds at which the face was found.
    """

    points: NDArray[np.float32]
    expression: Callable[[], NDArray[np.float32]]
    """Gives `blendshapes`; whoever follows a face needs none to look for it in the next frame."""
    confidence: float

    @classmethod
    def of(
        cls, points: NDArray[np.float32], blendshapes: NDArray[np.float32], confidence: float
    ) -> Self:
        """One whose blendshapes are known."""
        return cls(points, lambda: blendshapes, confidence)

    @property
    def blendshapes(self) -> NDArray[np.float32]:
        """Of its expression."""
        return self.expression()

    @cached_property
    def box(self) -> NDArray[np.float32]:
        """Bounding box (x0, y0, x1, y1) of the points in pixels."""
        xy = self.points[:, :2]
        return np.concatenate([xy.min(0), xy.max(0)])

    @property
    def size(self) -> float:
        """Longest side of the box in pixels."""
        x0, y0, x1, y1 = self.box
        return float(max(x1 - x0, y1 - y0))


def overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    x0, y0 = np.maximum(a[:2], b[:2])
    x1, y1 = np.minimum(a[2:], b[2:])
    intersection = max(0.0, float(x1 - x0)) * max(0.0, float(y1 - y0))
    areas = float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]))
    return intersection / max(areas - intersection, 1e-6)
