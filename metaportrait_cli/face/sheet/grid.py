"""The vertices over a person around the face, and the triangles between them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float32]


def grid_around(oval: Points, alpha: NDArray[np.float32], *, step: float, width: float) -> Points:
    """Vertices (V, 2) over all of the person but the oval (N, 2), and a quarter beyond the window:
    what lies there may move in."""
    height, wide = alpha.shape
    reach = round(0.03 * width) + round(step) + 1
    cover = cv2.dilate(np.uint8(alpha > 0.02), np.ones((2 * reach + 1,) * 2, np.uint8))
    pad_x, pad_y = 0.25 * wide, 0.25 * height
    x, y = np.meshgrid(
        np.arange(-pad_x, wide + pad_x + step, step), np.arange(-pad_y, height + pad_y + step, step)
    )
    grid = np.stack([x.ravel(), y.ravel()], 1).astype(np.float32)
    grid = grid[cover[cells(grid, alpha.shape)] > 0]
    # A little away from the oval, so that no vertex crowds it.
    centre = oval.mean(0)
    wider = (centre + 1.06 * (oval - centre)).astype(np.float32)
    outside = [cv2.pointPolygonTest(wider, (float(x), float(y)), False) < 0 for x, y in grid]
    return grid[np.array(outside)]


def triangulated(points: Points, oval: Points, *, longest: float) -> NDArray[np.int32]:
    """Delaunay triangles (T, 3) of points (N, 2), of which the first are the oval, a hole."""
    low = np.floor(points.min(0)).astype(int) - 2
    size = np.ceil(points.max(0)).astype(int) + 3 - low
    division = cv2.Subdiv2D((int(low[0]), int(low[1]), int(size[0]), int(size[1])))
    number = {}
    for index, (x, y) in enumerate(points):
        division.insert((float(x), float(y)))
        number[(np.float32(x), np.float32(y))] = index
    found = []
    for row in division.getTriangleList():
        corners = [number.get((row[k], row[k + 1]), -1) for k in (0, 2, 4)]
        if min(corners) < 0:  # the frame around all points
            continue
        if max(corners) < len(oval):
            x, y = points[corners].mean(0)
            if cv2.pointPolygonTest(oval.astype(np.float32), (float(x), float(y)), False) >= 0:
                continue
        found.append(corners)
    triangles = np.array(found, np.int32)
    # Only what lies within the sheet, not its convex hull, and no slivers.
    corners = points[triangles]
    sides = np.linalg.norm(corners - corners[:, [1, 2, 0]], axis=2).max(1)
    edges = corners[:, 1:] - corners[:, :1]
    area = np.abs(edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
    return triangles[(sides < longest) & (area > 0.02 * sides**2)]


def no_steeper(flat: Points, z: Points, oval: Points, *, steepest: float) -> Points:
    """Depths (V,) of vertices (V, 2) brought forwards until none falls off too steeply, from the
    oval (36, 3) or from each other; `steepest` is depth over distance in the picture."""
    to_oval = steepest * np.linalg.norm(flat[:, None] - oval[None, :, :2], axis=2)
    z = np.minimum(z, (oval[:, 2] + to_oval).min(1))
    z = np.maximum(z, (oval[:, 2] - to_oval).max(1))
    apart = steepest * np.linalg.norm(flat[:, None] - flat[None], axis=2)
    return (z[None] + apart).min(1)


def cells(points: Points, shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column of each point's pixel, the nearest one where it is outside."""
    places = points.astype(np.int64)
    return places[:, 1].clip(0, shape[0] - 1), places[:, 0].clip(0, shape[1] - 1)
