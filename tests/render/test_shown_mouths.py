"""What a source shows between its lips, and what is drawn over it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.dental_arch import PUPILS, UPPER_LIP, Bite
from metaportrait_cli.render.mouths.own_teeth import SOFTEST, SOFTNESS, softness_of
from metaportrait_cli.render.mouths.shown import ShownMouth
from metaportrait_cli.render.mouths.teeth import bundled_teeth, skull_pose
from tests.render.test_lip_line import opened

SIZE = 512
MIDDLE = len(topology.INNER_LIPS) // 2


def pixels(points: NDArray[np.float32]) -> float:
    """Of a millimetre."""
    return float(np.linalg.norm(points[468] - points[473])) / PUPILS


def mouth(
    crop: NDArray[np.uint8], points: NDArray[np.float32], *, teeth: float
) -> NDArray[np.uint8]:
    """The picture with a dark mouth in which teeth hang so many millimetres below the lip."""
    picture = crop.copy()
    upper, lower = points[np.array(topology.INNER_LIPS), :2].swapaxes(0, 1)
    end = np.minimum(upper + np.array([0, teeth * pixels(points)]), np.maximum(upper, lower))
    for low, level in ((lower, 12), (end, 200)):
        outline = np.concatenate([upper, low[::-1]])
        cv2.fillPoly(picture, [np.rint(outline).astype(np.int32)], (level,) * 3)
    return picture


def test_teeth_above_the_dark_are_measured(
    crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    face = opened(points, 12.0)
    low, high = (ShownMouth.of(mouth(crop, face, teeth=teeth), face) for teeth in (2.0, 5.0))
    assert low.height == high.height == pytest.approx(12, abs=0.1)
    assert low.teeth == pytest.approx(2, abs=1)
    assert high.teeth - low.teeth == pytest.approx(3, abs=0.4)
    for seen in (low, high):
        assert seen.dark == pytest.approx((12 - seen.teeth - 1.5) / 12, abs=0.01)
    full = ShownMouth.of(mouth(crop, face, teeth=12.0), face)
    assert full.dark == 0
    assert full.teeth > 10
    shut = opened(points, 1.0)
    assert ShownMouth.of(mouth(crop, shut, teeth=0.0), shut).dark == 0


@pytest.mark.parametrize(
    ("own", "wanted", "left"),
    [
        (ShownMouth(4.0, 4.0, 0.0), 16.0, 0.0),  # a thin strip is drawn over
        (ShownMouth(4.0, 4.0, 0.0), 4.0, 1.0),  # not opened any farther
        (ShownMouth(13.0, 13.0, 0.0), 25.0, 0.885),  # teeth that are shown stay, but for their rim
        (ShownMouth(10.0, 4.0, 0.5), 16.0, 0.0),  # a thin strip in a dark mouth is drawn over
        (ShownMouth(10.0, 4.0, 0.5), 12.0, 0.5),  # before that the dark below it is
        (ShownMouth(10.0, 0.5, 0.9), 16.0, 0.85),  # who shows none there may speak without
        (ShownMouth(12.0, 9.0, 0.5), 20.0, 0.875),  # high teeth stay with the dark below them
    ],
)
def test_thin_teeth_and_the_dark_below_them_are_drawn_over(
    points: NDArray[np.float32], own: ShownMouth, wanted: float, left: float
) -> None:
    """`left` is how much stays of what hangs from the upper lip, of what the source shows."""
    driven = opened(points, wanted)
    upper, lower = np.array(topology.INNER_LIPS).T
    hanging = driven[upper, :2] + np.array([0, own.height * pixels(points)])
    gap = np.concatenate([points[78:79, :2], hanging, points[308:309, :2], driven[lower, :2]])
    found = own.replaced(driven, gap.astype(np.float32))
    np.testing.assert_allclose(found[1 + len(upper) :], gap[1 + len(upper) :], atol=1e-3)
    stays = (found[1 : 1 + len(upper)] - driven[upper, :2])[:, 1].mean()
    assert stays / (own.height * pixels(points)) == pytest.approx(left, abs=0.02)


def test_a_row_ends_where_the_teeth_do_that_are_shown(points: NDArray[np.float32]) -> None:
    face = opened(points, 14.0)
    rest = bundled_teeth().skull
    pose = skull_pose(rest, face)
    bite = Bite.of(pose.to_skull(face))
    lip = float(pose.to_skull(face[UPPER_LIP[5]][None])[0, 1])

    def ending(edge: float, teeth: float, dark: float) -> float:
        """Below the lip, of a row whose edge was thought to be so far below it, in mm."""
        middle = np.array([0, lip + edge, 0])
        thought = replace(bite, upper=replace(bite.upper, middle=middle))
        found = ShownMouth(14.0, teeth, dark).ending(thought, pose, face)
        return float(found.upper.middle[1]) - lip

    assert ending(4.0, 2.5, 0.7) == pytest.approx(2.5, abs=0.5)
    assert ending(4.0, 5.0, 0.6) == pytest.approx(5.0, abs=0.5)
    assert ending(9.0, 2.5, 0.7) == pytest.approx(5.0, abs=0.5), "teeth are not that long"
    assert ending(2.0, 0.5, 0.9) == pytest.approx(0.5, abs=0.3), "they don't show below the lip"
    assert ending(-2.0, 0.5, 0.9) == -2.0, "they may be higher"
    assert ending(4.0, 12.0, 0.1) == 4.0, "teeth down to the lower lip tell nothing"


def test_several_mouths_are_one_by_their_shares() -> None:
    one, two = ShownMouth(4.0, 4.0, 0.0), ShownMouth(12.0, 2.0, 0.8)
    mixed = ShownMouth.mixed([one, two], np.array([0.25, 0.75]))
    assert (mixed.height, mixed.teeth, mixed.dark) == pytest.approx((10.0, 2.5, 0.6))


def test_teeth_are_as_soft_as_the_picture(
    crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    found = [
        softness_of(cv2.GaussianBlur(crop, (0, 0), blur), points) for blur in (0.5, 3.0, 5.0, 30.0)
    ]
    assert found[0] == pytest.approx(SOFTNESS, abs=0.25)
    assert found == sorted(found)
    assert found[2] > 3 * SOFTNESS
    assert found[3] == SOFTEST
    half = cv2.resize(crop, (SIZE // 2, SIZE // 2), interpolation=cv2.INTER_AREA)
    assert softness_of(half, points * np.float32(0.5)) < 2 * SOFTNESS, (
        "large pixels blur by themselves"
    )
