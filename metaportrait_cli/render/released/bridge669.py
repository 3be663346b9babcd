"""Experimental: the authors' 669 landmarks, estimated from MediaPipe's 478.

The detector behind the 669 points was never released. This bridge places them on MediaPipe's mesh
by the reading of the layout in :mod:`~metaportrait_cli.render.released.bridge669_parts`, which
nobody has been able to check against the original. Ears, neck and the top of the head, which the
mesh lacks, are a rough guess. Expect the released networks to be less faithful than with real 669
landmarks.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.render.released.bridge669_parts import (
    IRIS_CENTRE,
    IRIS_INNER,
    IRIS_LOWER,
    IRIS_OUTER,
    IRIS_POINTS,
    IRIS_UPPER,
    PARTS,
    Part,
    Stop,
)

POINTS = 669
MIDLINE = (74, 88, 314, 411, *range(628, 669))
LEFT_SIDE = tuple(point for point in range(314) if point not in {74, 88})
RIGHT_SIDE = tuple(point for point in range(315, 628) if point != 411)

Points = NDArray[np.float32]


def to_669(points: Points) -> Points:
    """(478, 3) landmarks -> (669, 2) in the same unit; z must be in it too, larger is farther.

    The 87 points that are never drawn lie in the middle of the face.
    """
    if points.shape != (topology.POINTS, 3):
        raise ValueError(f"expected (478, 3) points, not {points.shape}")
    result = np.broadcast_to(points.mean(axis=0), (POINTS, 3)).copy()
    placed: set[int] = set()
    for mirrored in (False, True):
        mesh = _Mesh(points, mirrored=mirrored)
        for part in PARTS:
            names = part.points if not mirrored else [mirror()[point] for point in part.points]
            for name, position in zip(names, mesh.along(part), strict=True):
                if name not in placed:
                    result[name] = position
                    placed.add(name)
        names = IRIS_POINTS if not mirrored else [mirror()[point] for point in IRIS_POINTS]
        result[list(names)] = mesh.iris()
    return result[:, :2].astype(np.float32)


@cache
def mirror() -> dict[int, int]:
    """Point of the 669-point layout -> its counterpart on the other side; itself on the midline."""
    there = dict(zip(LEFT_SIDE, RIGHT_SIDE, strict=True))
    back = dict(zip(RIGHT_SIDE, LEFT_SIDE, strict=True))
    return there | back | {point: point for point in MIDLINE}


class _Mesh:
    """One side of the face: guides are read on it, or mirrored on its other half."""

    def __init__(self, points: Points, *, mirrored: bool) -> None:
        self._points = points[topology.mirror()] if mirrored else points
        across = self._points[454] - self._points[234]
        up = self._points[10] - self._points[152]
        back = np.cross(across, up)
        # Image y points down, so across x up points at the camera on the unmirrored side.
        back *= np.linalg.norm(across) / max(float(np.linalg.norm(back)), 1e-6)
        self._axes = np.stack([across, up, back if back[2] > 0 else -back])

    def along(self, part: Part) -> Points:
        """Positions (P, 3) of the part's points."""
        count = len(part.points)
        line = self._line(part.guide, count, part)
        if part.other:
            other = self._line(part.other, count, part)
            line = (1 - part.share) * line + part.share * other
        return line.astype(np.float32)

    def iris(self) -> Points:
        """16 points on the ellipse through the four rim points, from the top over the outside."""
        angle = np.linspace(0, 2 * np.pi, len(IRIS_POINTS), endpoint=False)[:, None]
        mesh = self._points
        outward = (mesh[IRIS_OUTER] - mesh[IRIS_INNER]) / 2
        upward = (mesh[IRIS_UPPER] - mesh[IRIS_LOWER]) / 2
        return mesh[IRIS_CENTRE] + outward * np.sin(angle) + upward * np.cos(angle)

    def _line(self, guide: tuple[Stop, ...], count: int, part: Part) -> Points:
        stops = np.stack([self._position(stop) for stop in guide])
        if part.exact:
            return stops
        return (
            _evenly(np.concatenate([stops, stops[:1]]), count + 1)[:-1]
            if part.closed
            else (_evenly(stops, count))
        )

    def _position(self, stop: Stop) -> Points:
        if isinstance(stop, int):
            return self._points[stop]
        anchor, *offset = stop
        return self._points[anchor] + np.array(offset) @ self._axes


def _evenly(line: Points, count: int) -> Points:
    """``count`` points along the polyline (N, 3), ends included, at equal distances."""
    length = np.concatenate([[0], np.linalg.norm(np.diff(line, axis=0), axis=1).cumsum()])
    at = np.linspace(0, length[-1], count)
    return np.stack([np.interp(at, length, axis) for axis in line.T], axis=1)
