"""A reference is moved to where the frame shows it, and is not trusted where it can't be."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.render.reference import GRID, ReferenceWarp, SteadyReference, displaced

SIDE = 256


@pytest.fixture(scope="module")
def landmarks(portrait_face: Face) -> NDArray[np.float32]:
    return Crop.around(portrait_face.points).to_crop(portrait_face.points, SIDE)


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    """Brighter to the right and, in green, downwards: a pixel tells where it comes from."""
    ramp = np.broadcast_to(np.arange(SIDE, dtype=np.uint8), (SIDE, SIDE))
    return np.stack([ramp, ramp.T, np.zeros_like(ramp)], axis=-1)


def test_the_same_face_stays_and_is_valid(
    picture: NDArray[np.uint8], landmarks: NDArray[np.float32]
) -> None:
    warp = ReferenceWarp.analytic(picture, landmarks)
    image, valid = warp.moved(warp.place(landmarks))
    assert np.abs(image.astype(int) - picture).max() <= 1
    assert valid.min() > 0.9


def test_the_face_is_found_where_it_is_driven(
    picture: NDArray[np.uint8], landmarks: NDArray[np.float32]
) -> None:
    warp = ReferenceWarp.analytic(picture, landmarks)
    moved = landmarks + np.array([6, -3, 0], np.float32)
    image, valid = warp.moved(warp.place(moved))
    x, y = moved[topology.ring("right_eye"), :2].mean(0).astype(int)
    assert image[y, x, 0] == pytest.approx(x - 6, abs=1.5)
    assert image[y, x, 1] == pytest.approx(y + 3, abs=1.5)
    assert valid[y, x] > 0.9


def test_what_the_picture_does_not_show_is_not_valid(
    picture: NDArray[np.uint8], landmarks: NDArray[np.float32]
) -> None:
    warp = ReferenceWarp.analytic(picture, landmarks)
    opened = landmarks.copy()
    lower = [below for _, below in topology.INNER_LIPS]
    opened[lower, 1] += 30
    placement = warp.place(opened)
    assert placement.valid.shape == (GRID, GRID)
    middle = lower[len(lower) // 2]
    x, y = (opened[middle, :2] - (0, 12)).astype(int)
    _, valid = warp.moved(placement)
    assert valid[y, x] < 0.1
    assert valid[20, 20] > 0.9


def test_a_window_is_that_part_of_the_whole(
    picture: NDArray[np.uint8], landmarks: NDArray[np.float32]
) -> None:
    warp = ReferenceWarp.analytic(picture, landmarks)
    placement = warp.place(landmarks * np.float32(1.04))
    image, valid = warp.moved(placement)
    part, part_valid = warp.moved(placement, (40, 90, 140, 210))
    assert np.array_equal(part, image[90:210, 40:140])
    assert np.array_equal(part_valid, valid[90:210, 40:140])


def test_displacement_is_backward_in_pixels(picture: NDArray[np.uint8]) -> None:
    shift = np.zeros((SIDE, SIDE, 2), np.float32)
    shift[..., 0], shift[..., 1] = 5, -2
    for bicubic in (True, False):
        moved = displaced(picture, shift, bicubic=bicubic)
        assert moved[100, 100].tolist() == [105, 98, 0]


def textured() -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).uniform(0, 255, (SIDE, SIDE, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return cv2.normalize(smooth, None, 20, 235, cv2.NORM_MINMAX).astype(np.uint8)


def test_a_frame_corrects_what_landmarks_miss(landmarks: NDArray[np.float32]) -> None:
    picture = textured()
    missed = np.zeros((SIDE, SIDE, 2), np.float32)
    missed[..., 0], missed[..., 1] = 3, -2
    truth = displaced(picture, missed)
    frame = cv2.resize(truth, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
    warp = ReferenceWarp.analytic(picture, landmarks)
    placement = warp.place(landmarks)
    settled = warp.settled(placement, frame)
    inner = (slice(20, -20), slice(20, -20))
    errors = [
        np.abs(warp.moved(place)[0].astype(float) - truth)[inner].mean()
        for place in (placement, settled)
    ]
    assert errors[1] < errors[0] / 4
    assert np.median(settled.shift[..., 0]) == pytest.approx(3, abs=0.3)
    assert np.median(settled.shift[..., 1]) == pytest.approx(-2, abs=0.3)
    assert np.median(settled.valid) > 0.9


def test_what_looks_different_in_the_frame_is_not_valid(landmarks: NDArray[np.float32]) -> None:
    picture = textured()
    frame = cv2.resize(picture, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
    frame[40:80, 50:90] = 255 - frame[40:80, 50:90] // 4
    warp = ReferenceWarp.analytic(picture, landmarks)
    settled = warp.settled(warp.place(landmarks), frame)
    assert settled.valid[60, 70] < 0.1
    assert settled.valid[60, 20] > 0.8


def test_along_a_clip_validity_comes_and_goes_slowly(landmarks: NDArray[np.float32]) -> None:
    picture = textured()
    frame = cv2.resize(picture, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA)
    hidden = frame.copy()
    hidden[40:80, 50:90] = 255 - frame[40:80, 50:90] // 4
    steady = SteadyReference(ReferenceWarp.analytic(picture, landmarks))
    valid = [steady.place(landmarks, each).valid[60, 70] for each in (frame, hidden, hidden, frame)]
    assert valid[0] > 0.9
    assert 0.5 < valid[1] < valid[0]
    assert valid[2] < valid[1] - 0.1
    assert valid[2] < valid[3] < valid[0]
