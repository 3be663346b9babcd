"""Teeth drawn into mouths that a source shows closed."""

from __future__ import annotations

from fractions import Fraction

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.dental_arch import LOWER_LIP, SKULL, UPPER_LIP
from metaportrait_cli.face.detector import Face
from metaportrait_cli.networks.teeth import GAMMA, UPPER
from metaportrait_cli.render.own_teeth import own_teeth
from metaportrait_cli.render.teeth import Colours, TeethPainter, bundled_teeth, skull_pose

SIZE = 512


@pytest.fixture(scope="module")
def painter() -> TeethPainter:
    return bundled_teeth()


@pytest.fixture
def points(portrait_face: Face) -> NDArray[np.float32]:
    """Of the portrait's crop, with lips that touch."""
    return opened(Crop.around(portrait_face.points).to_crop(portrait_face.points, SIZE), 0.0)


@pytest.fixture
def crop(portrait: NDArray[np.uint8], portrait_face: Face) -> NDArray[np.uint8]:
    return Crop.around(portrait_face.points).cut(portrait, SIZE)


def opened(points: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """The face with its inner lips apart by a share of the distance between its pupils."""
    moved = points.copy()
    height = share * float(np.linalg.norm(points[468] - points[473]))
    moved[list(LOWER_LIP[1:-1]), 1] = moved[list(UPPER_LIP[1:-1]), 1] + height
    return moved


def ring(points: NDArray[np.float32]) -> NDArray[np.float32]:
    return points[topology.ring("lips_inner"), :2]


def drawn(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32], share: float
) -> NDArray[np.uint8]:
    """A picture of mid grey in which the mouth is drawn."""
    frames = np.full((1, SIZE, SIZE, 3), 120, np.uint8)
    driven = opened(points, share)
    painter.open(crop, points).draw(frames, driven[None], [ring(driven)])
    return frames[0]


def test_it_draws_between_the_lips_alone(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    frame = drawn(painter, crop, points, 0.25)
    there = np.argwhere((frame != 120).any(-1))
    outline = ring(opened(points, 0.25))
    low, high = there[:, ::-1].min(0), there[:, ::-1].max(0)
    np.testing.assert_allclose(low, outline.min(0), atol=5)
    np.testing.assert_allclose(high, outline.max(0), atol=5)
    # Teeth beside darkness, not one even band.
    x, (y0, y1) = int(outline[:, 0].mean()), (int(low[1]) + 6, int(high[1]) - 6)
    inside = frame[y0:y1, x - 20 : x + 20].mean(-1)
    assert inside.max() > 2 * inside.min()


def test_closed_lips_stay_as_they_are(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    assert (drawn(painter, crop, points, 0.015) == 120).all()


def test_a_grey_photo_stays_grey(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    grey = np.repeat(crop.mean(-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    frame = drawn(painter, grey, points, 0.25).astype(int)
    assert np.ptp(frame, axis=-1).max() <= 20
    coloured = drawn(painter, crop, points, 0.25).astype(int)
    assert np.ptp(coloured, axis=-1).max() > np.ptp(frame, axis=-1).max()


def test_dark_eyes_make_dark_teeth(crop: NDArray[np.uint8], points: NDArray[np.float32]) -> None:
    dim = crop.copy()
    for name in ("left_eye", "right_eye"):
        x0, y0 = points[topology.ring(name), :2].min(0).astype(int)
        x1, y1 = points[topology.ring(name), :2].max(0).astype(int) + 1
        dim[y0:y1, x0:x1] = dim[y0:y1, x0:x1] // 3
    assert Colours.of(dim, points).tooth.max() < 0.7 * Colours.of(crop, points).tooth.max()


def test_windows_do_not_show_and_light_follows_slowly(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    driven = np.stack([opened(points, share) for share in np.linspace(0.1, 0.3, 5)])
    gaps = [ring(face) for face in driven]
    whole = np.repeat(crop[None], 5, axis=0)
    whole[2] = 255  # a flash
    parts, alone = whole.copy(), whole.copy()
    painter.open(crop, points, rate=Fraction(25)).draw(whole, driven, gaps)
    session = painter.open(crop, points, rate=Fraction(25))
    for part in (slice(0, 2), slice(2, 5)):
        session.draw(parts[part], driven[part], gaps[part])
    np.testing.assert_allclose(whole.astype(int), parts, atol=1)
    painter.open(crop, points).draw(alone, driven, gaps)
    np.testing.assert_array_equal(whole[0], alone[0])
    assert (whole[3] != alone[3]).any()


def test_a_source_keeps_its_own_teeth(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    closed, points, config = points, opened(points, 0.22), painter.config
    smiling = crop.copy()
    # Someone whose teeth stand two millimetres higher than by the mean, one incisor dark.
    session = painter.open(crop, points)
    width = config.texture[1]
    painted = painter.upper.copy()
    painted[:, width // 2 + 6 : width // 2 + 40, :3] *= 0.75
    higher = bundled_teeth()
    higher.upper = painted
    raised = higher.open(crop, points)
    raised.bite.upper.middle[1] -= 2
    mouth = raised.layers(0, points, ring(points), size=SIZE)
    assert mouth is not None
    row = mouth.layers[UPPER].transpose(1, 2, 0)
    seen = 255 * (0.6 * row[..., :3] + 0.03 * (1 - row[..., 3:])) ** (1 / GAMMA)
    share = mouth.inside.opening[..., None]
    part = smiling[mouth.inside.box]
    part[:] = part * (1 - share) + seen * share
    pose = skull_pose(session.bite.rest[list(SKULL)], points)
    bite, texture = own_teeth(
        session.bite, pose, smiling, points, texture=painter.upper, config=config
    )
    assert bite.upper.middle[1] == pytest.approx(session.bite.upper.middle[1] - 2, abs=0.8)
    body = slice(int((config.gum - 4) * config.pixels), int((config.gum - 2) * config.pixels))
    ratio = texture[body, :, :3].mean((0, 2)) / painter.upper[body, :, :3].mean((0, 2))
    middle = width // 2
    assert ratio[middle + 12 : middle + 34].mean() < 0.93 * ratio[middle - 34 : middle - 12].mean()

    nothing = own_teeth(session.bite, pose, crop, closed, texture=painter.upper, config=config)
    assert nothing[0] is session.bite


def test_teeth_follow_paint_that_is_brighter(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    driven = opened(points, 0.15)
    brightness = []
    for level in (10, 250):
        frames = np.full((1, SIZE, SIZE, 3), 120, np.uint8)
        cv2.fillPoly(frames[0], [ring(driven).astype(np.int32)], (level, level, level))
        painter.open(crop, points).draw(frames, driven[None], [ring(driven)])
        x, y = ring(driven).mean(0).astype(int)
        brightness.append(np.percentile(frames[0, y - 12 : y, x - 20 : x + 20], 80))
    assert brightness[1] > brightness[0] + 4


def test_the_light_goes_on_where_it_was(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    shares = (0.2, 0.3, 0.25, 0.3)
    driven = np.stack([opened(points, share) for share in shares])
    gaps = [ring(each) for each in driven]
    levels = np.array([60, 200, 90, 160], np.uint8)[:, None, None, None]
    bare = np.ones((4, SIZE, SIZE, 3), np.uint8) * levels
    whole, anew, broken = bare.copy(), bare.copy(), bare.copy()
    first, second = (painter.open(crop, points, rate=Fraction(25)) for _ in range(2))
    first.draw(whole[:2], driven[:2], gaps[:2])
    light = first.light
    first.draw(whole[2:], driven[2:], gaps[2:])
    second.draw(anew[2:], driven[2:], gaps[2:])
    second.light = light
    second.draw(broken[2:], driven[2:], gaps[2:])
    assert (anew[2:] != whole[2:]).any()
    np.testing.assert_array_equal(broken[2:], whole[2:])
