"""Lips that meet where a source's mouth is open."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.dental_arch import LOWER_LIP, PUPILS, UPPER_LIP
from metaportrait_cli.render.mouths.lip_line import meet

SIZE = 512


def opened(points: NDArray[np.float32], height: float) -> NDArray[np.float32]:
    """The face with its inner lips so many millimetres apart."""
    moved = points.copy()
    pixels = float(np.linalg.norm(points[468] - points[473])) / PUPILS
    moved[list(LOWER_LIP[1:-1]), 1] = moved[list(UPPER_LIP[1:-1]), 1] + height * pixels
    return moved


def with_line(crop: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture with a white line where the lips meet."""
    upper = points[[pair[0] for pair in topology.INNER_LIPS], :2]
    right, left = points[list(topology.INNER_MOUTH_CORNERS), :2]
    line = np.rint(np.concatenate([right[None], upper, left[None]])).astype(np.int32)
    return cv2.polylines(crop.copy(), [line], isClosed=False, color=(255, 255, 255), thickness=2)


def along(frame: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.floating]:
    """Light where the lips meet."""
    upper = points[[pair[0] for pair in topology.INNER_LIPS], :2].astype(int)
    return frame[upper[:, 1], upper[:, 0]].mean(-1)


def test_a_line_of_teeth_between_lips_that_meet_is_covered(
    crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    frame = with_line(crop, points)
    assert along(frame, points).min() > 200
    before = frame.copy()
    meet(frame, points, shown=9.0)
    x, y = points[[0, 17], :2].astype(int).T
    assert along(frame, points).max() < crop[y, x].mean(-1).max()
    changed = np.argwhere((frame != before).any(-1))
    lips = points[topology.ring("lips_outer"), 1::-1]
    assert (changed > lips.min(0) - 3).all()
    assert (changed < lips.max(0) + 3).all()


@pytest.mark.parametrize(("height", "shown"), [(0.0, 1.0), (8.5, 9.0)])
def test_lips_of_a_shut_source_and_open_lips_stay(
    crop: NDArray[np.uint8], points: NDArray[np.float32], height: float, shown: float
) -> None:
    face = opened(points, height)
    # Corners are shut in open mouths, too.
    face[list(topology.INNER_MOUTH_CORNERS), :2] = face[list(topology.MOUTH_CORNERS), :2]
    frame = with_line(crop, points)
    before = frame.copy()
    meet(frame, face, shown=shown)
    middle = slice(int(face[82, 0]), int(face[312, 0]))
    assert np.array_equal(frame[:, middle], before[:, middle])


def test_lips_come_together_little_by_little(
    crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    def left(height: float) -> float:
        frame = with_line(crop, points)
        meet(frame, opened(points, height), shown=9.0)
        return float(along(frame, points)[2:-2].mean())

    heights = (0.0, 0.8, 1.6, 2.6)
    assert sorted(found := [left(height) for height in heights]) == found


def test_lips_that_come_closer_shade_what_they_show(
    crop: NDArray[np.uint8], points: NDArray[np.float32]
) -> None:
    face = opened(points, 5.0)
    middle = face[[13, 14], :2].mean(0)
    x, y = int(middle[0]), int(middle[1])

    def light(shown: float) -> float:
        frame = np.full_like(crop, 200)
        meet(frame, face, shown=shown)
        assert (frame[: y - 20] == 200).all()
        return float(frame[y, x].mean())

    assert light(5.0) == 200
    assert 150 < light(20.0) < light(10.0) < 200


@pytest.mark.parametrize("shift", [(0, 330), (-300, 0), (900, 900)])
def test_mouths_beyond_the_picture_are_no_error(
    crop: NDArray[np.uint8], points: NDArray[np.float32], shift: tuple[int, int]
) -> None:
    moved = points.copy()
    moved[:, :2] += shift
    frame = crop.copy()
    meet(frame, moved, shown=9.0)
    assert np.array_equal(frame[:200, 320:], crop[:200, 320:])
