from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.head_sheet import (
    HeadFrame,
    HeadSheet,
    face_outside_oval,
    skull_points,
    turned_away,
)
from tests.face.test_correspondence import turned

SIDE = 256
EVERYWHERE = np.ones((SIDE, SIDE), np.float32)


@pytest.fixture(scope="module")
def points(portrait_face: Face) -> NDArray[np.float32]:
    return Crop.around(portrait_face.points).to_crop(portrait_face.points, SIDE)


@pytest.fixture(scope="module")
def alpha(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """A head with hair, as wide again as the face by a fifth, on shoulders."""
    head = HeadFrame.of(points)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    centre = points[:, :2].mean(0) - (0, 0.1 * head.width)
    inside = ((x - centre[0]) / 0.62) ** 2 + ((y - centre[1]) / 0.85) ** 2 < head.width**2
    return (inside | (y > points[:, 1].max() + 0.15 * head.width)).astype(np.float32)


@pytest.fixture(scope="module")
def sheet(points: NDArray[np.float32], alpha: NDArray[np.float32]) -> HeadSheet:
    return HeadSheet(points, alpha, EVERYWHERE)


def test_at_rest_every_pixel_stays_where_it_is(
    sheet: HeadSheet, points: NDArray[np.float32], alpha: NDArray[np.float32]
) -> None:
    found = sheet.layout(points, side=SIDE, grid=SIDE)
    centres = np.arange(SIDE, dtype=np.float32) + 0.5
    shift = found.place - np.dstack(np.meshgrid(centres, centres))
    assert found.cover[alpha > 0].min() > 0.99
    assert np.abs(shift[alpha > 0]).max() < 0.6


def test_the_crown_turns_and_the_shoulders_stand(
    sheet: HeadSheet, points: NDArray[np.float32]
) -> None:
    driven = turned(points, degrees=25)
    moved = sheet.placed(driven, sheet.motion(driven))[:, :2] - sheet.outer[:, :2]
    head = sheet.head
    down = (sheet.outer[:, :2] - points[152, :2]) @ -head.axes[1, :2] / head.width
    assert np.linalg.norm(moved[down > 0.3], axis=1).max() < 0.5
    crown = sheet.outer[:, 1] < points[:, 1].min() - 0.1 * head.width
    assert np.linalg.norm(moved[crown], axis=1).mean() > 0.05 * head.width


def test_what_may_not_move_does_not(
    points: NDArray[np.float32], alpha: NDArray[np.float32]
) -> None:
    loose = EVERYWHERE.copy()
    loose[:, :40] = 0
    sheet = HeadSheet(points, alpha, loose)
    held = sheet.outer[:, 0] < 40
    driven = turned(points, degrees=25)
    moved = sheet.placed(driven, sheet.motion(driven))[held, :2] - sheet.outer[held, :2]
    assert held.any()
    assert np.abs(moved).max() < 1e-3


def test_depth_falls_off_gently(sheet: HeadSheet) -> None:
    """Steeper depth would stretch hair beyond twice its size in a turn."""
    apart = np.linalg.norm(sheet.outer[:, None, :2] - sheet.outer[None, :, :2], axis=2)
    fall = sheet.outer[:, None, 2] - sheet.outer[None, :, 2]
    near = (apart > 0) & (apart < 0.3 * sheet.head.width)
    assert (fall[near] / apart[near]).max() < 1.45


def test_a_temple_that_turns_to_the_camera_goes_far_back(
    points: NDArray[np.float32],
) -> None:
    """A little hair beside it is no notch in the outline of a turned head."""
    head = HeadFrame.of(points)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    centre = points[:, :2].mean(0) - (0, 0.1 * head.width)
    slender = ((x - centre[0]) / 0.54) ** 2 + ((y - centre[1]) / 0.85) ** 2 < head.width**2
    sheet = HeadSheet(points, slender.astype(np.float32), EVERYWHERE)
    level = points[10, 1] + 0.15 * head.width
    temples = np.abs(sheet.outer[:, 1] - level) < 0.1 * head.width
    aside = sheet.outer[:, 0] - centre[0]
    for degrees in (-30, 30):
        driven = turned(points, degrees=degrees)
        motion = sheet.motion(driven)
        rotation, scale, shift = motion
        moved = sheet.placed(driven, motion)[:, 0]
        as_deep = (scale * sheet.outer @ rotation.T + shift)[:, 0]
        near = temples & (np.sign(aside) == np.sign(rotation[0, 2]))
        far = temples & (np.sign(aside) == -np.sign(rotation[0, 2]))
        assert np.abs(moved - as_deep)[near].max() > 0.05 * head.width
        assert np.sign(rotation[0, 2]) * (moved - as_deep)[near].mean() > 0
        assert np.abs(moved - as_deep)[far].max() < 0.03 * head.width


def test_turns_away_are_told_from_rolls_in_the_picture(points: NDArray[np.float32]) -> None:
    skull = skull_points(points)
    middle = points.mean(0)
    roll = np.array([[0.94, -0.34, 0], [0.34, 0.94, 0], [0, 0, 1]], np.float32)
    rolled = (points - middle) @ roll.T + middle
    assert turned_away(points[skull], rolled[skull]) < 0.01
    away = turned_away(points[skull], turned(points, degrees=25)[skull])
    assert np.degrees(away) == pytest.approx(25, abs=0.5)


def test_a_turned_face_reaches_beyond_its_oval(points: NDArray[np.float32]) -> None:
    assert face_outside_oval(points, (SIDE, SIDE), HeadFrame.of(points).width) is None
    far = turned(points, degrees=50)
    beyond = face_outside_oval(far, (SIDE, SIDE), HeadFrame.of(far).width)
    assert beyond is not None
    x, y = far[1, :2].astype(int)  # the nose
    assert beyond.max() > 0.5 or beyond[y, x] >= 0
