"""Mouth and eyes as aligned patches: the same size and the same way up, whatever the head does.

A patch has P × P pixels, see `PATCHES`. The left eye's is mirrored: one network serves both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.landmark_image import filled_polygon

Region = Literal["mouth", "right_eye", "left_eye"]
REGIONS: tuple[Region, ...] = ("mouth", "right_eye", "left_eye")
Kind = Literal["mouth", "eyes"]
"""A region's network: one for the mouth, one for both eyes"""
KINDS: tuple[Kind, ...] = ("mouth", "eyes")
PATCHES: dict[Kind, int] = {"mouth": 128, "eyes": 64}
"""Side of a patch in pixels. Eyes are mostly moved and only corrected; teeth are painted, and
would be blurred in large pictures by coarser patches."""
# Side of a patch in distances between the eyes: lips of an open mouth with some chin, lids.
SIDES: dict[Region, float] = {"mouth": 1.5, "right_eye": 0.95, "left_eye": 0.95}

_RINGS: dict[Region, tuple[str, str]] = {
    "mouth": ("lips_outer", "lips_inner"),
    "right_eye": ("right_eye", "right_iris"),
    "left_eye": ("left_eye", "left_iris"),
}


def kind_of(region: Region) -> Kind:
    """The network that a region belongs to."""
    return "mouth" if region == "mouth" else "eyes"


def patch_side(region: Region) -> int:
    """The side of a region's patch, in pixels of the patch."""
    return PATCHES[kind_of(region)]


def patch_to_picture(points: NDArray[np.float32], region: Region) -> NDArray[np.float32]:
    """Matrix (2, 3) from pixels of the patch to those of the picture of face points (478, 3)."""
    (right_outer, right_inner), (left_outer, left_inner) = topology.EYE_CORNERS
    apart = points[left_outer] + points[left_inner] - points[right_outer] - points[right_inner]
    # Single numbers: numpy takes microseconds for each.
    x, y, z = (apart / 2).tolist()
    # In three dimensions, so that a turned head keeps its size.
    side, pixels = SIDES[region] * math.hypot(x, y, z), patch_side(region)
    scale = side / pixels / max(math.hypot(x, y), 1e-6)
    x, y = scale * x, scale * y
    mirrored = -1 if region == "left_eye" else 1
    outline, _ = _RINGS[region]
    around = points[topology.ring(outline), :2]
    middle_x, middle_y = (total / len(around) for total in around.sum(0).tolist())
    half = pixels / 2
    return np.array(
        [
            [mirrored * x, -y, middle_x - half * (mirrored * x - y)],
            [mirrored * y, x, middle_y - half * (mirrored * y + x)],
        ],
        np.float32,
    )


def cut_patch(
    picture: NDArray[Any], matrix: NDArray[np.float32], side: int, *, rows: int | None = None
) -> NDArray[Any]:
    """The patch (P, P, C) of a picture (H, W, C), averaged down where the picture is finer.

    `matrix` as of `patch_to_picture`, `side` is P; with `rows`, only so many from its first on.
    """
    size = side, rows or side
    factor = max(1, int(math.hypot(*matrix[:, 0].tolist()) + 0.25))
    local = matrix.astype(np.float64)
    if factor > 1:
        height, width = picture.shape[:2]
        low_x, low_y, high_x, high_y = _reach(matrix, size)
        x0 = min(max(low_x - 2 * factor, 0), width - 1)
        y0 = min(max(low_y - 2 * factor, 0), height - 1)
        x1 = min(max(high_x + 2 * factor, x0 + 1), width)
        y1 = min(max(high_y + 2 * factor, y0 + 1), height)
        smaller = max(1, (x1 - x0) // factor), max(1, (y1 - y0) // factor)
        picture = cv2.resize(picture[y0:y1, x0:x1], smaller, interpolation=cv2.INTER_AREA)
        local[:, 2] -= (x0, y0)
        local *= [[smaller[0] / (x1 - x0)], [smaller[1] / (y1 - y0)]]
    return cv2.warpAffine(
        picture,
        _from_centres(local),
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


class OwnRegions:
    """A source's own mouth and eyes, beside which warped ones are put.

    `crop` (S, S, 3) with its face points (478, 3) in pixels.
    """

    def __init__(self, crop: NDArray[np.uint8], points: NDArray[np.float32]) -> None:
        self._own = {region: _own_patch(crop, points, region) for region in REGIONS}

    @classmethod
    def mixed(
        cls, several: Sequence[OwnRegions], shares: Mapping[Region, NDArray[np.float32]]
    ) -> OwnRegions:
        """Of several pictures of a person, whose shares (V,) in a region sum to 1."""
        result = cls.__new__(cls)
        result._own = {region: _mixed(several, region, share) for region, share in shares.items()}
        return result

    def of_source(self, region: Region) -> NDArray[np.uint8]:
        """What `beside` puts there of the source, (5, P, P)."""
        return self._own[region]

    def beside(
        self,
        warped: NDArray[np.uint8],
        driven: NDArray[np.float32],
        gap: NDArray[np.float32],
        region: Region,
    ) -> NDArray[np.uint8]:
        """What a network sees of one region, (11, P, P): warped and own patch, RGB each; maps of
        the driven face; mouth opening that the source doesn't show; maps of the source's face.

        `warped` (S, S, 3) under the driven points (478, 3); `gap` (N, 2), see `Correspondence`.
        """
        matrix, side = patch_to_picture(driven, region), patch_side(region)
        own = self._own[region]
        seen = np.empty((11, side, side), np.uint8)
        cv2.split(cut_patch(warped, matrix, side), list(seen[:3]))
        seen[3:6], seen[9:] = own[:3], own[3:]
        seen[6:8] = region_maps(driven, matrix, region)
        if region == "mouth":
            seen[8] = filled_polygon(to_patch(gap, matrix), side=side, size=side)
        else:
            seen[8] = 0
        return seen


def _own_patch(
    crop: NDArray[np.uint8], points: NDArray[np.float32], region: Region
) -> NDArray[np.uint8]:
    """A patch with its maps, (5, P, P)."""
    matrix = patch_to_picture(points, region)
    patch = cv2.split(cut_patch(crop, matrix, patch_side(region)))
    return np.stack([*patch, *region_maps(points, matrix, region)])


def _mixed(
    several: Sequence[OwnRegions], region: Region, share: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Patches with their maps (5, P, P)."""
    used = np.flatnonzero(share).tolist()
    patches = np.stack([several[view]._own[region] for view in used])
    return np.rint(np.tensordot(share[used], patches, axes=1)).astype(np.uint8)


def add_patch(
    picture: NDArray[np.uint8], change: NDArray[np.float32], matrix: NDArray[np.float32]
) -> None:
    """Adds a change (P, P, 3) in grey levels, 0 at its border, to the picture in place."""
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = _reach(matrix, change.shape[1::-1])
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if x1 <= x0 or y1 <= y0:
        return
    local = matrix.astype(np.float64)
    local[:, 2] -= (x0, y0)
    moved = cv2.warpAffine(change, _from_centres(local), (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    region = picture[y0:y1, x0:x1]
    # Rounds, and ends at black and white.
    region[:] = cv2.add(region, moved, dtype=cv2.CV_8U)


def region_maps(
    points: NDArray[np.float32], matrix: NDArray[np.float32], region: Region
) -> NDArray[np.uint8]:
    """Where in the patch lips and opening are, or lids and iris: coverages (2, P, P)."""
    side = patch_side(region)
    rings = [topology.ring(name) for name in _RINGS[region]]
    places = to_patch(points[np.concatenate(rings)], matrix)
    maps = np.empty((2, side, side), np.uint8)
    first = 0
    for ring, covered in zip(rings, maps, strict=True):
        covered[:] = filled_polygon(places[first : first + len(ring)], side=side, size=side)
        first += len(ring)
    return maps


def to_patch(points: NDArray[np.floating], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Picture points (N, ≥ 2) in pixels of the patch, (N, 2)."""
    (a, b, _), (c, d, _) = matrix.tolist()
    inverse = np.array([[d, -c], [-b, a]]) / (a * d - b * c)  # transposed
    return ((points[:, :2] - matrix[:, 2]) @ inverse).astype(np.float32)


def _reach(matrix: NDArray[np.float32], size: Sequence[int]) -> tuple[int, int, int, int]:
    """The box around a patch of `size`, (W, H): x and y of its first corner, then of its last."""
    (a, b, x), (c, d, y) = matrix.tolist()
    width, height = size
    across, down = (a * width, b * height), (c * width, d * height)
    return (
        math.floor(x + sum(min(0.0, step) for step in across)),
        math.floor(y + sum(min(0.0, step) for step in down)),
        math.ceil(x + sum(max(0.0, step) for step in across)),
        math.ceil(y + sum(max(0.0, step) for step in down)),
    )


def _from_centres(matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    """The matrix for cv2, whose coordinates count from the first pixel's centre."""
    (a, b, x), (c, d, y) = matrix.tolist()
    return np.array([[a, b, x + (a + b) / 2 - 0.5], [c, d, y + (c + d) / 2 - 0.5]])
