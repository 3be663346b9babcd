"""From the driver's landmarks to driven landmarks of the source: motion relative to a reference.

The reference is the driver's frame that looks most like the source. What the driver does from
there on, normalised for the size and tilt of the face, is added to the source's own landmarks;
lids and lips keep their contact although apertures differ between people.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology

# Points that expression hardly moves: the oval above the cheeks, eye corners, the nose bridge.
STEADY_POINTS = (
    10, 338, 297, 332, 284, 251, 389, 356, 127, 162, 21, 54, 103, 67, 109,
    33, 133, 362, 263, 168, 6, 197, 195, 5,
)  # fmt: skip
BLINK_SHAPES = (9, 10)  # eyeBlinkLeft, eyeBlinkRight
JAW_OPEN_SHAPE = 25


def similarity(
    moving: NDArray[np.float32], fixed: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Least-squares 2D similarity that maps points `moving` (N, 2) onto `fixed` (N, 2).

    Returns the matrix (2, 2), scale included, and the translation (2,).
    """
    a, b = moving.mean(0), fixed.mean(0)
    p, q = moving - a, fixed - b
    norm = max(float((p * p).sum()), 1e-12)
    cos = float((p * q).sum()) / norm
    sin = float((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum()) / norm
    matrix = np.array([[cos, -sin], [sin, cos]], np.float32)
    return matrix, (b - matrix @ a).astype(np.float32)


def likeness(
    points: NDArray[np.float32], blendshapes: NDArray[np.float32], source: NDArray[np.float32]
) -> NDArray[np.float32]:
    """How unlike each driver frame is to the source in pose and expression: (T,), 0 is best.

    `points` (T, 478, 3), `blendshapes` (T, 52), `source` (478, 3). Distances are in units of the
    face's size; shut eyes and an open mouth count against a frame.
    """
    steady = list(STEADY_POINTS)
    unit = np.linalg.norm(source[152, :2] - source[10, :2])
    scores = np.empty(len(points), np.float32)
    for i, frame in enumerate(points):
        matrix, shift = similarity(frame[steady, :2], source[steady, :2])
        aligned = frame[:, :2] @ matrix.T + shift
        tilt = abs(np.arctan2(matrix[1, 0], matrix[0, 0]))
        scores[i] = np.abs(aligned - source[:, :2]).mean() / unit + 0.1 * tilt
    blink = blendshapes[:, list(BLINK_SHAPES)].mean(1)
    return scores + 0.05 * blink + 0.03 * blendshapes[:, JAW_OPEN_SHAPE]


class Retargeter:
    """Adds the driver's motion since `reference` (478, 3) to the `source` (478, 3) landmarks."""

    def __init__(
        self,
        *,
        source: NDArray[np.float32],
        reference: NDArray[np.float32],
        strength: float = 1.0,
    ) -> None:
        steady = list(STEADY_POINTS)
        matrix, _ = similarity(reference[steady, :2], source[steady, :2])
        self._matrix = np.eye(3, dtype=np.float32) * np.sqrt(np.linalg.det(matrix))
        self._matrix[:2, :2] = matrix
        self._source = source
        self._reference = reference
        self._strength = strength

    def retarget(self, driver: NDArray[np.float32]) -> NDArray[np.float32]:
        """Driven landmarks (T, 478, 3) in the source's pixels, for driver landmarks (T, 478, 3)."""
        motion = (driver - self._reference) @ self._matrix.T
        driven = self._source + self._strength * motion
        for upper, lower in topology.LIDS[0] + topology.LIDS[1]:
            openness = self._openness(driver, upper, lower)
            gap = (self._source[lower] - self._source[upper]) * openness[:, None]
            driven[:, upper] = driven[:, lower] - gap
        for upper, lower in topology.INNER_LIPS:
            gap = driven[:, lower, 1] - driven[:, upper, 1]
            crossed = np.minimum(gap, 0) / 2
            driven[:, upper, 1] += crossed
            driven[:, lower, 1] -= crossed
        return driven.astype(np.float32)

    def _openness(self, driver: NDArray[np.float32], upper: int, lower: int) -> NDArray[np.float32]:
        """The lid gap as a multiple of the reference's, in [0, 1.6]: (T,)."""
        now = np.linalg.norm(driver[:, lower, :2] - driver[:, upper, :2], axis=-1)
        rest = np.linalg.norm(self._reference[lower, :2] - self._reference[upper, :2])
        change = now / max(float(rest), 1e-3)
        return np.clip(1 + self._strength * (change - 1), 0, 1.6)


def smoothed(values: NDArray[np.float32], *, sigma: float, margin: int) -> NDArray[np.float32]:
    """Zero-phase Gaussian smoothing over time of values (T, …), `margin` frames cut off each end.

    Hand in `margin` frames of context on each side; at the ends of a shot repeat the last frame.
    """
    taps = np.exp(-0.5 * (np.arange(-margin, margin + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    count = len(values) - 2 * margin
    return sum(
        (tap * values[k : k + count] for k, tap in enumerate(taps)),
        start=np.zeros((count, *values.shape[1:]), np.float32),
    )
