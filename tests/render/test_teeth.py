"""Teeth drawn into mouths that a source shows closed."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.dental_arch import LOWER_LIP, NOSE_BASE, SKULL, UPPER_LIP
from metaportrait_cli.networks.teeth import GAMMA, SEEN
from metaportrait_cli.render.mouths.own_teeth import blended, own_teeth
from metaportrait_cli.render.mouths.teeth import (
    OPENING,
    UPPER,
    UPPER_LIGHT,
    UPPER_SHADE,
    Colours,
    OpenedTeeth,
    TeethPainter,
    bundled_teeth,
    drawn_patches,
    skull_pose,
)

SIZE = 512


@pytest.fixture(scope="module")
def painter() -> TeethPainter:
    return bundled_teeth()


def opened(points: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """The face with its inner lips apart by a share of the distance between its pupils."""
    moved = points.copy()
    height = share * float(np.linalg.norm(points[468] - points[473]))
    moved[list(LOWER_LIP[1:-1]), 1] = moved[list(UPPER_LIP[1:-1]), 1] + height
    return moved


def ring(points: NDArray[np.float32]) -> NDArray[np.float32]:
    return points[topology.ring("lips_inner"), :2]


def daylight(level: float = 0.0) -> NDArray[np.float32]:
    """Even light (10, 4, 4) on teeth, all of which are seen."""
    light = np.full((10, 4, 4), level, np.float32)
    light[SEEN] = 1
    return light


def show(
    session: OpenedTeeth, frame: NDArray[np.uint8], driven: NDArray[np.float32], level: float = 0.0
) -> None:
    mouth = session.draw(driven, ring(driven), size=len(frame))
    session.blend(frame, mouth, daylight(level))


def drawn(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32], share: float
) -> NDArray[np.uint8]:
    """A picture of dark grey in which the teeth are drawn."""
    frame = np.full((SIZE, SIZE, 3), 50, np.uint8)
    show(painter.open(crop, points), frame, opened(points, share))
    return frame


def test_it_draws_between_the_lips_alone(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    frame = drawn(painter, crop, points, 0.25)
    there = np.argwhere((frame != 50).any(-1))
    outline = ring(opened(points, 0.25))
    low, high = there[:, ::-1].min(0), there[:, ::-1].max(0)
    assert (low > outline.min(0) - 5).all()
    assert (high < outline.max(0) + 5).all()
    # Teeth beside darkness, not one even band.
    x, (y0, y1) = int(outline[:, 0].mean()), (int(low[1]) + 6, int(high[1]) - 6)
    inside = frame[y0:y1, x - 20 : x + 20].mean(-1)
    assert inside.max() > 2 * inside.min()


def test_closed_lips_stay_as_they_are(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    assert (drawn(painter, crop, points, 0.015) == 50).all()


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


def test_light_between_the_lips_tells_how_white_teeth_are(
    crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    face = opened(points, 0.1)
    by_skin = Colours.of(crop, points).tooth

    def told(level: int) -> float:
        picture = crop.copy()
        cv2.fillPoly(picture, [np.rint(ring(face)).astype(np.int32)], (level,) * 3)
        return float((Colours.of(picture, face).tooth / by_skin).mean())

    assert told(20) == pytest.approx(1, abs=0.05)
    assert told(235) > 1.1


def test_upper_teeth_are_lit_and_shaded_as_they_are_told(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    session = painter.open(crop, points)
    face = opened(points, 0.06)

    def brightest(level: float) -> float:
        frame = np.full((SIZE, SIZE, 3), 5, np.uint8)
        show(session, frame, face, level)
        return float(frame.max() / 255) ** GAMMA

    even = brightest(0.0)
    assert brightest(-1.0) == pytest.approx(np.exp(-UPPER_SHADE) * even, rel=0.1)
    assert even < brightest(0.1) == pytest.approx(np.exp(0.1 * UPPER_LIGHT) * even, rel=0.1)
    # Light has a limit.
    assert brightest(2.0) == pytest.approx(brightest(3.0), rel=0.01)


def test_light_follows_slowly_and_starts_anew_when_a_mouth_opens(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    open_face, shut = opened(points, 0.2), opened(points, 0.01)
    session, alone = (painter.open(crop, points, rate=rate) for rate in (Fraction(25), None))

    def brightness(teeth: OpenedTeeth, face: NDArray[np.float32], level: float) -> float:
        frame = np.full((SIZE, SIZE, 3), 50, np.uint8)
        show(teeth, frame, face, level)
        return float(frame.max())

    first = brightness(session, open_face, -1.0)
    assert first == brightness(alone, open_face, -1.0)
    again = painter.open(crop, points, rate=Fraction(25))
    again.light = session.light
    second = brightness(session, open_face, 0.0)
    assert first < second < brightness(alone, open_face, 0.0)
    assert second == brightness(again, open_face, 0.0)
    brightness(session, shut, 0.0)
    assert brightness(session, open_face, 0.0) == brightness(alone, open_face, 0.0)


def test_patches_show_what_is_drawn(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    driven = opened(points, 0.25)
    session = painter.open(crop, points)
    mouth, nothing = drawn_patches([session.draw(driven, ring(driven), size=SIZE), None])
    assert mouth.shape == nothing.shape == (16, 128, 128)
    assert not nothing.any()
    there = mouth[OPENING][0] > 128
    # A mouth lies in the middle of its patch.
    np.testing.assert_allclose(np.argwhere(there).mean(0), (67, 63.5), atol=5)
    around = cv2.dilate(there.astype(np.uint8), np.ones((9, 9))).astype(bool)
    assert mouth[:, ~around].max() < 40


def test_a_mouth_low_in_its_patch_is_seen_whole(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    driven = opened(points, 0.25)
    mouth = painter.open(crop, points).draw(driven, ring(driven), size=SIZE)
    assert mouth is not None
    whole = mouth.patch()[OPENING][0]
    low = 45
    moved = mouth.matrix.copy()
    moved[:, 2] -= moved[:, 1] * low
    np.testing.assert_allclose(
        replace(mouth, matrix=moved).patch()[OPENING][0][low:].astype(int),
        whole[:-low],
        atol=2,
    )


def test_more_light_leaves_teeth_their_gaps(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    driven = opened(points, 0.25)
    bright = painter.open(cv2.convertScaleAbs(crop, alpha=1.5), points)

    def shown(level: float) -> NDArray[np.uint8]:
        frame = np.full((SIZE, SIZE, 3), 50, np.uint8)
        show(bright, frame, driven, level)
        return frame

    assert shown(-1.0).max() < shown(1.0).max() < 255
    assert (shown(1.0) == shown(3.0)).all()


@pytest.fixture
def smiling(
    painter: TeethPainter, crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """The crop, its mouth opened by 0.22, of someone whose teeth stand two millimetres higher than
    by the mean, one incisor dark."""
    other = bundled_teeth()
    other.upper = painter.upper.copy()
    width = painter.config.texture[1]
    other.upper[:, width // 2 + 6 : width // 2 + 40, :3] *= 0.75
    face = opened(points, 0.22)
    session = other.open(crop, face)
    session.bite.upper.middle[1] -= 2
    mouth = session.draw(face, ring(face), size=SIZE)
    assert mouth is not None
    row = mouth.layers[UPPER].transpose(1, 2, 0)
    seen = 255 * (0.9 * row[..., :3] + 0.03 * (1 - row[..., 3:])).clip(0, 1) ** (1 / GAMMA)
    picture = crop.copy()
    share = mouth.inside.opening[..., None]
    part = picture[mouth.inside.box]
    part[:] = part * (1 - share) + seen * share
    return picture


def darker_side(texture: NDArray[np.float32], painter: TeethPainter) -> float:
    """How bright the right incisor is against the left one, compared to the learnt row."""
    config = painter.config
    body = slice(int((config.gum - 4) * config.pixels), int((config.gum - 2) * config.pixels))
    ratio = texture[body, :, :3].mean((0, 2)) / painter.upper[body, :, :3].mean((0, 2))
    middle = config.texture[1] // 2
    return float(ratio[middle + 12 : middle + 34].mean() / ratio[middle - 34 : middle - 12].mean())


def test_a_source_keeps_its_own_teeth(
    painter: TeethPainter,
    crop: NDArray[np.uint8],
    points: NDArray[np.float32],
    smiling: NDArray[np.uint8],
) -> None:
    face, config = opened(points, 0.22), painter.config
    bite = painter.open(crop, face).bite
    pose = skull_pose(bite.rest[list(SKULL)], face)
    shown = own_teeth(bite, pose, smiling, face, texture=painter.upper, config=config)
    assert shown is not None
    assert shown.bite.upper.middle[1] == pytest.approx(bite.upper.middle[1] - 2, abs=0.8)
    assert darker_side(blended(painter.upper, shown, config), painter) < 0.93
    nothing = own_teeth(bite, pose, crop, points, texture=painter.upper, config=config)
    assert nothing is None


def test_a_picture_with_closed_lips_gets_the_teeth_of_another_one(
    painter: TeethPainter,
    crop: NDArray[np.uint8],
    points: NDArray[np.float32],
    smiling: NDArray[np.uint8],
) -> None:
    face = opened(points, 0.22)
    knowing = painter.of_person([(crop, points), (smiling, face)])
    smile, closed = knowing.open(smiling, face), knowing.open(crop, points)
    below = [one.bite.upper.middle[1] - one.bite.rest[NOSE_BASE, 1] for one in (smile, closed)]
    assert below[0] == pytest.approx(below[1], abs=0.1)
    driven = ring(face)
    rows = [
        session.draw(face, driven, size=SIZE) for session in (closed, painter.open(crop, points))
    ]
    assert rows[0] is not None
    assert rows[1] is not None
    assert np.abs(rows[0].layers[UPPER] - rows[1].layers[UPPER]).max() > 0.1
    # Nobody who shows teeth: the mean's.
    assert painter.of_person([(crop, points)]).open(crop, points).bite.upper.size == (
        painter.open(crop, points).bite.upper.size
    )
