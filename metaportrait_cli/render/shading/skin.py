"""A map of the skin in the mesh's own coordinates: the average face as it is seen from the front.

Whatever expression a face shows, the same place of the map is the same place of its skin. Maps
hold logarithms of light. Conventions: a map is (M, M), its rows go down the face; points are pixels
of a picture, (x, y, z), origin at the corner of the top left pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.correspondence import add_interpolated
from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.face.topology import MESH_POINTS
from metaportrait_cli.motion.morphable import MorphableModel

Map = NDArray[np.float32]

SIDE = 64
DARKEST = 12.0
"""Grey level below which light says nothing."""
FINE, WIDE = 0.7, 8.0
"""Between these widths, in places of the map, lie folds and shading: grain is finer, and what is
wider comes with the light in the room."""
EDGE = 3.0
"""Over so many places a map fades out towards the face's rim, lips and lids."""
BROWS, BROW_EDGE = 0.2, 1.5
"""What of a change is shown on brows, whose hair moves otherwise than the mesh, and how wide, in
places of the map, the mask's rim is."""
FACING = (0.2, 0.5)
"""Cosines between skin and line of sight: below the first nothing is seen of it."""
PICTURE = 256
"""Side at which a crop is looked at."""


@dataclass(frozen=True)
class SkinMap:
    """Where the map's places lie on the mesh: each in a triangle, given by its corners' shares."""

    corners: NDArray[np.int32]
    """(M, M, 3) point indices"""
    shares: Map
    """(M, M, 3)"""
    weight: Map
    """(M, M) how much of a change of light is shown: none beyond the skin"""
    vertices: Map
    """(468, 2) places of the mesh's points on the map"""

    @classmethod
    def of(cls, model: MorphableModel) -> SkinMap:
        """Of the model's average face."""
        flat = model.mean[:MESH_POINTS, :2]
        low, high = flat.min(0), flat.max(0)
        vertices = ((flat - low) / (high - low) * SIDE).astype(np.float32)
        triangles = topology.triangles()
        centres = np.arange(SIDE, dtype=np.float32) + 0.5
        places = np.stack(np.meshgrid(centres, centres), axis=-1)
        order = triangles[np.argsort(-model.mean[triangles, 2].mean(1), kind="stable")]
        field = np.zeros((SIDE, SIDE, 1), np.float32)
        # Corners of its own for each triangle, that all bear its number: later ones count.
        own = np.arange(order.size, dtype=np.int32).reshape(order.shape)
        add_interpolated(
            field,
            vertices[order].reshape(-1, 2),
            own,
            (own.reshape(-1, 1) // 3 + 1).astype(np.float32),
        )
        numbers = np.rint(field[..., 0]).astype(int)
        inside = numbers > 0
        corners = order[np.maximum(numbers - 1, 0)]
        shares = _barycentric(places, vertices[corners]) * inside[..., None]
        lips = _filled(vertices[topology.ring("lips_outer")])
        skin = np.pad(np.uint8(inside & (lips == 0)), 1)
        distance = cv2.distanceTransform(skin, cv2.DIST_L2, 5)[1:-1, 1:-1]
        shown = smoothstep((distance - 0.5) / EDGE)
        for name in ("right_brow", "left_brow"):
            lower, upper = topology.brow(name)
            hair = _filled(vertices[[*lower, *reversed(upper)]]).astype(np.float32)
            hair = cv2.GaussianBlur(cv2.dilate(hair, np.ones((3, 3))), (0, 0), BROW_EDGE)
            shown = shown * (1 - (1 - BROWS) * hair)
        return cls(
            corners=corners.astype(np.int32),
            shares=shares.astype(np.float32),
            weight=shown.astype(np.float32),
            vertices=vertices,
        )

    def light(self, crop: NDArray[np.uint8], points: NDArray[np.float32]) -> tuple[Map, Map]:
        """The skin's light (M, M), and how surely each place is seen (M, M).

        Of a crop (S, S, 3) with its face at points (478, 3).
        """
        scale = PICTURE / len(crop)
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
        grey = cv2.resize(grey, (PICTURE, PICTURE), interpolation=method).astype(np.float32)
        corners = points[self.corners] * np.float32(scale)  # (M, M, 3, 3)
        places = (corners * self.shares[..., None]).sum(2)[..., :2]
        grey = cv2.GaussianBlur(grey, (0, 0), self._blur(points * np.float32(scale)))
        found = cv2.remap(grey, places - np.float32(0.5), None, cv2.INTER_LINEAR)
        light = np.log(np.maximum(found, DARKEST))
        within = ((places > 1) & (places < PICTURE - 1)).all(-1)
        return light, self._facing(corners) * within * self.weight

    def folds(self, light: Map, seen: Map) -> Map:
        """Of light (..., M, M) what is neither wider than folds nor elsewhere than on the skin."""
        if light.ndim > 2:
            pairs = zip(light.reshape(-1, SIDE, SIDE), seen.reshape(-1, SIDE, SIDE), strict=True)
            return np.stack([self.folds(*pair) for pair in pairs]).reshape(light.shape)
        held = cv2.GaussianBlur(light * seen, (0, 0), WIDE)
        wide = held / np.maximum(cv2.GaussianBlur(seen, (0, 0), WIDE), 1e-3)
        return (light - wide) * (seen > 0)

    def places_on(self, points: NDArray[np.float32], *, side: int, grid: int) -> Map:
        """For each cell of a grid (G, G) over a crop of `side` pixels its place on the map
        (G, G, 2), less than 0 off the mesh. The face is at points (478, 3)."""
        field = np.zeros((grid, grid, 2), np.float32)
        mesh = points[:MESH_POINTS]
        triangles = topology.triangles()
        order = triangles[np.argsort(-mesh[triangles, 2].mean(1), kind="stable")]
        add_interpolated(field, mesh * (grid / side), order, self.vertices + 1)
        return field - 1

    def _blur(self, points: NDArray[np.float32]) -> float:
        """Of the picture, so that places between the map's don't matter."""
        width = float(np.ptp(points[:MESH_POINTS, 0]))
        return max(FINE * width / SIDE, 0.3)

    def _facing(self, corners: NDArray[np.float32]) -> Map:
        one, other = (
            corners[..., 1, :] - corners[..., 0, :],
            corners[..., 2, :] - corners[..., 0, :],
        )
        normal = np.cross(one, other)
        cosine = normal[..., 2] / np.maximum(np.linalg.norm(normal, axis=-1), 1e-9)
        low, high = FACING
        return smoothstep((self._turn * cosine - low) / (high - low)).astype(np.float32)

    @property
    def _turn(self) -> Map:
        """(M, M) +1 where a triangle's corners go round as the picture's axes do, or -1."""
        one, other = (
            self.vertices[self.corners[..., k]] - self.vertices[self.corners[..., 0]]
            for k in (1, 2)
        )
        return np.sign(one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0])


@lru_cache(maxsize=2)
def skin_map(model: MorphableModel) -> SkinMap:
    """The model's, made once."""
    return SkinMap.of(model)


def _filled(outline: Map) -> NDArray[np.uint8]:
    """(M, M) 1 inside an outline (N, 2)."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(mask, [np.rint(outline).astype(np.int32)], 1)
    return mask


def _barycentric(places: Map, corners: Map) -> Map:
    """Shares (..., 3) of corners (..., 3, 2) in places (..., 2)."""
    first, second, third = (corners[..., k, :] for k in range(3))
    one, other, to = second - first, third - first, places - first
    area = one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
    area = np.where(np.abs(area) < 1e-9, 1, area)
    beta = (to[..., 0] * other[..., 1] - to[..., 1] * other[..., 0]) / area
    gamma = (one[..., 0] * to[..., 1] - one[..., 1] * to[..., 0]) / area
    return np.stack([1 - beta - gamma, beta, gamma], axis=-1).astype(np.float32)
