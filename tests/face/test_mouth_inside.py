"""The dark inside of an opened mouth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.mouth_inside import MouthInside


def opened(face: Face, *, by: float) -> NDArray[np.float32]:
    """The gap between the face's lips if the lower one were lower by a share of its height."""
    upper = face.points[[pair[0] for pair in topology.INNER_LIPS], :2]
    lower = upper + np.array([0, by * np.ptp(face.points[:, 1])], np.float32)
    left, right = (face.points[i, :2] for i in topology.INNER_MOUTH_CORNERS)
    return np.concatenate([left[None], upper, right[None], lower[::-1]]).astype(np.float32)


@pytest.mark.parametrize("colour", [True, False])
def test_it_is_dark_and_as_colourful_as_the_lips(
    portrait: NDArray[np.uint8], portrait_face: Face, colour: bool
) -> None:
    picture = portrait.copy()
    if not colour:
        picture[:] = cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)[..., None]
    gap = opened(portrait_face, by=0.1)
    frame = picture.copy()
    MouthInside(picture, portrait_face.points).fill(frame, gap)
    x, y = gap.mean(0).astype(int)
    red, green, blue = frame[y, x].astype(int)
    lips = portrait_face.points[topology.ring("lips_outer"), :2].astype(int)
    assert red < 0.5 * np.median(picture[lips[:, 1], lips[:, 0], 0])
    if colour:
        assert red > 1.2 * max(green, blue)
    else:
        assert red == green == blue


def test_a_mouth_that_is_closed_stays(portrait: NDArray[np.uint8], portrait_face: Face) -> None:
    frame = portrait.copy()
    MouthInside(portrait, portrait_face.points).fill(frame, opened(portrait_face, by=0.0))
    np.testing.assert_array_equal(frame, portrait)
