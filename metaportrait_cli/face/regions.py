"""Mouth and eyes as aligned patches: the same size and the same way up, whatever the head does.

A patch has P × P pixels, see `PATCHES`. The left eye's is mirrored: one network serves both.
"""

from __future__ import annotations

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
    right, left = (points[list(corners)].mean(0) for corners in topology.EYE_CORNERS)
    # In three dimensions, so that a turned head keeps its size.
    side = SIDES[region] * float(np.linalg.norm(left - right))
    across = (left - right)[:2] / max(float(np.linalg.norm((left - right)[:2])), 1e-6)
    pixels = patch_side(region)
    axes = np.array([[across[0], -across[1]], [across[1], across[0]]]) * (side / pixels)
    if region == "left_eye":
        axes[:, 0] *= -1
    outline, _ = _RINGS[region]
    middle = points[topology.ring(outline), :2].mean(0)
    return np.column_stack([axes, middle - axes @ (pixels / 2, pixels / 2)]).astype(np.float32)


def cut_patch(picture: NDArray[Any], matrix: NDArray[np.float32], side: int) -> NDArray[Any]:
    """The patch (P, P, C) of a picture (H, W, C), averaged down where the picture is finer.

    `matrix` as of `patch_to_picture`, `side` is P.
    """
    factor = max(1, int(np.hypot(*matrix[:, 0]) + 0.25))
    corners = matrix[:, :2] @ np.array([[0, side, 0, side], [0, 0, side, side]])
    low = np.floor((corners + matrix[:, 2:]).min(1)).astype(int) - 2 * factor
    high = np.ceil((corners + matrix[:, 2:]).max(1)).astype(int) + 2 * factor
    height, width = picture.shape[:2]
    x0, y0 = np.clip(low, 0, (width - 1, height - 1)).tolist()
    x1, y1 = np.clip(high, (x0 + 1, y0 + 1), (width, height)).tolist()
    part = picture[y0:y1, x0:x1]
    small = part
    if factor > 1:
        size = (max(1, (x1 - x0) // factor), max(1, (y1 - y0) // factor))
        small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    scale = np.array([small.shape[1] / (x1 - x0), small.shape[0] / (y1 - y0)])
    local = matrix.astype(np.float64)
    local[:, 2] -= (x0, y0)
    return cv2.warpAffine(
        small,
        _from_centres(local * scale[:, None]),
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


class OwnRegions:
    """A source's own mouth and eyes, beside which warped ones are put.

    `crop` (S, S, 3) with its face points (478, 3) in pixels.
    """

    def __init__(self, crop: NDArray[np.uint8], points: NDArray[np.float32]) -> None:
        self._own: dict[Region, NDArray[np.uint8]] = {}
        for region in REGIONS:
            matrix = patch_to_picture(points, region)
            own = cv2.split(cut_patch(crop, matrix, patch_side(region)))
            self._own[region] = np.stack([*own, *region_maps(points, matrix, region)])

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


def add_patch(
    picture: NDArray[np.uint8], change: NDArray[np.float32], matrix: NDArray[np.float32]
) -> None:
    """Adds a change (P, P, 3) in grey levels, 0 at its border, to the picture in place."""
    side = len(change)
    corners = matrix[:, :2] @ np.array([[0, side, 0, side], [0, 0, side, side]])
    places = corners + matrix[:, 2:]
    height, width = picture.shape[:2]
    x0, y0 = np.maximum(np.floor(places.min(1)).astype(int), 0).tolist()
    x1, y1 = np.minimum(np.ceil(places.max(1)).astype(int), (width, height)).tolist()
    if x1 <= x0 or y1 <= y0:
        return
    local = matrix.astype(np.float64)
    local[:, 2] -= (x0, y0)
    moved = cv2.warpAffine(change, _from_centres(local), (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    region = picture[y0:y1, x0:x1]
    region[:] = np.clip(np.rint(region + moved), 0, 255).astype(np.uint8)


def region_maps(
    points: NDArray[np.float32], matrix: NDArray[np.float32], region: Region
) -> NDArray[np.uint8]:
    """Where in the patch lips and opening are, or lids and iris: coverages (2, P, P)."""
    side = patch_side(region)
    maps = [
        filled_polygon(to_patch(points[topology.ring(name)], matrix), side=side, size=side)
        for name in _RINGS[region]
    ]
    return np.stack(maps)


def to_patch(points: NDArray[np.floating], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Picture points (N, ≥ 2) in pixels of the patch, (N, 2)."""
    inverse = np.linalg.inv(matrix[:, :2].astype(np.float64))
    return ((points[:, :2] - matrix[:, 2]) @ inverse.T).astype(np.float32)


def _from_centres(matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    """The matrix for cv2, whose coordinates count from the first pixel's centre."""
    shifted = matrix.astype(np.float64)
    shifted[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
    return shifted
