"""Aligned patches of mouth and eyes: where they lie, and the way there and back."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.regions import (
    REGIONS,
    OwnRegions,
    Region,
    add_patch,
    cut_patch,
    patch_side,
    patch_to_picture,
    region_maps,
    to_patch,
)


def turned(points: NDArray[np.float32], *, degrees: float) -> NDArray[np.float32]:
    """The points turned in the picture's plane around their middle."""
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = points[:, :2].mean(0)
    moved = points.copy()
    moved[:, :2] = (points[:, :2] - middle) @ rotation.T + middle
    return moved


@pytest.mark.parametrize("region", REGIONS)
def test_a_patch_moves_turns_and_grows_with_the_face(portrait_face: Face, region: Region) -> None:
    points = portrait_face.points
    wanted = to_patch(points, patch_to_picture(points, region))
    moved = turned(points * np.float32(1.7), degrees=25) + np.float32(13)
    found = to_patch(moved, patch_to_picture(moved, region))
    np.testing.assert_allclose(found, wanted, atol=0.02)


def test_both_eyes_look_alike(portrait_face: Face) -> None:
    """Outer corners on the same side, brows above."""
    points = portrait_face.points
    for region, (outer, inner) in zip(REGIONS[1:], topology.EYE_CORNERS, strict=True):
        corners = to_patch(points[[outer, inner]], patch_to_picture(points, region))
        assert corners[0, 0] < patch_side(region) / 2 < corners[1, 0]


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("scale", [0.7, 1.0, 2.6])
def test_there_and_back_lands_in_the_same_place(
    portrait_face: Face, region: Region, scale: float
) -> None:
    points = portrait_face.points * np.float32(scale)
    side = int(points[:, :2].max() * 1.3)
    matrix = patch_to_picture(points, region)
    pixels = patch_side(region)
    y, x = np.mgrid[:pixels, :pixels] * (64 / pixels)
    blob = np.exp(-((x - 27.5) ** 2 + (y - 35.5) ** 2) / 72)[..., None].repeat(3, -1)
    picture = np.zeros((side, side, 3), np.uint8)
    add_patch(picture, (200 * blob).astype(np.float32), matrix)
    found = cut_patch(picture, matrix, pixels)[..., 0].astype(float)
    middle = (found[..., None] * np.stack([x, y], -1)).sum((0, 1)) / found.sum()
    np.testing.assert_allclose(middle, (27.5, 35.5), atol=0.15)


def test_maps_show_lips_and_their_opening(portrait_face: Face) -> None:
    points = portrait_face.points.copy()
    lower = np.array([pair[1] for pair in topology.INNER_LIPS])
    points[lower, 1] += 0.04 * np.ptp(points[:, 1])
    maps = region_maps(points, patch_to_picture(points, "mouth"), "mouth")
    lips, opening = maps > 127
    side = patch_side("mouth")
    assert maps.shape == (2, side, side)
    assert 0.025 * side**2 < opening.sum() < lips.sum() < side**2 / 2


def test_what_a_network_sees_of_an_unmoved_face_is_twice_the_same(
    portrait: NDArray[np.uint8], portrait_face: Face
) -> None:
    points = portrait_face.points
    own = OwnRegions(portrait, points)
    nothing = np.zeros((3, 2), np.float32)
    for region in REGIONS:
        seen = own.beside(portrait, points, nothing, region)
        assert seen.shape == (11, patch_side(region), patch_side(region))
        np.testing.assert_array_equal(seen[:3], seen[3:6])
        np.testing.assert_array_equal(seen[6:8], seen[9:])
        assert not seen[8].any()
