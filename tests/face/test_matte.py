from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.matte import Segmenter, guided, head_box, matte
from metaportrait_cli.weights import bundled_path


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(bundled_path("selfie_segmenter"))


def test_the_person_is_parted_from_the_background(
    portrait: NDArray[np.uint8], portrait_face: Face, segmenter: Segmenter
) -> None:
    alpha = matte(portrait, portrait_face.points, segmenter)
    assert alpha is not None
    assert alpha.shape == portrait.shape[:2]
    x, y = portrait_face.points[topology.IRISES[0][0], :2].astype(int)
    assert alpha[y, x] > 0.99
    assert alpha[:40, :40].max() == alpha[:40, -40:].max() == 0


def test_a_head_begins_with_its_hair_and_has_no_shoulders(
    portrait: NDArray[np.uint8], portrait_face: Face, segmenter: Segmenter
) -> None:
    alpha = matte(portrait, portrait_face.points, segmenter)
    assert alpha is not None
    (left, top), (right, bottom) = head_box(alpha, portrait_face.points)
    x0, y0, x1, y1 = portrait_face.box[:4]
    assert y0 - 65 < top < y0 - 45  # half of the face's height
    assert x0 - 40 < left < x0 - 20
    assert x1 + 15 < right < x1 + 40
    assert bottom == pytest.approx(y1, abs=6)


def test_a_silhouette_that_misses_the_face_is_none(
    portrait: NDArray[np.uint8], portrait_face: Face, segmenter: Segmenter
) -> None:
    assert matte(np.full_like(portrait, 128), portrait_face.points, segmenter) is None


def test_only_what_hangs_together_with_the_face_is_the_person(
    portrait: NDArray[np.uint8], portrait_face: Face
) -> None:
    """A second silhouette, wherever it comes from, stays background."""

    def two_people(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        likely = np.zeros(picture.shape[:2], np.float32)
        x0, y0, x1, y1 = portrait_face.box.astype(int)
        likely[y0:y1, x0:x1] = 1
        likely[:, :20] = 1
        return likely

    alpha = matte(portrait, portrait_face.points, two_people)
    assert alpha is not None
    assert alpha[:, :12].max() == 0
    x, y = portrait_face.points[1, :2].astype(int)
    assert alpha[y, x] > 0.99


def test_blocks_of_colour_are_no_stairs_of_an_outline(
    portrait: NDArray[np.uint8], portrait_face: Face
) -> None:
    height, width = portrait.shape[:2]
    y, x = np.mgrid[:height, :width]
    middle = portrait_face.points[:, :2].mean(0)
    away = np.hypot(x - middle[0], y - middle[1]) - 0.8 * np.ptp(portrait_face.points[:, 1])
    likely = np.clip(0.5 - away / 4, 0, 1).astype(np.float32)
    person, behind = np.array([150, 100, 60]), np.array([85, 120, 140])
    whole = behind + likely[..., None] * (person - behind)
    colours = cv2.cvtColor(np.uint8(whole), cv2.COLOR_RGB2YCrCb)
    blocks = cv2.resize(colours, (width // 16, height // 16), interpolation=cv2.INTER_AREA)
    blocks = cv2.resize(blocks, (width, height), interpolation=cv2.INTER_NEAREST)
    colours[..., 1:] = blocks[..., 1:]
    picture = np.asarray(cv2.cvtColor(colours, cv2.COLOR_YCrCb2RGB), np.uint8)
    alpha = matte(picture, portrait_face.points, lambda _: likely)
    assert alpha is not None
    # Along the outline the matte is about the same everywhere.
    assert alpha[np.abs(away) < 0.5].std() < 0.12
    assert alpha[away < -8].min() > 0.9
    assert alpha[away > 8].max() < 0.1


def test_people_who_touch_are_parted_between_their_faces(
    portrait: NDArray[np.uint8], portrait_face: Face
) -> None:
    points = portrait_face.points
    wide = np.float32(np.ptp(points[:, 0]))
    stranger = 0.5 * points + (points[:, :1].max() + 0.4 * wide, 0.5 * points[:, 1].mean(), 0)
    stranger = stranger.astype(np.float32)
    picture = np.hstack([portrait, portrait])

    def everyone(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.ones(picture.shape[:2], np.float32)

    alpha = matte(picture, points, everyone, strangers=[stranger])
    assert alpha is not None
    x, y = stranger[1, :2].astype(int)
    assert alpha[y, x] == 0
    x, y = points[1, :2].astype(int)
    assert alpha[y, x] > 0.99


def test_the_filter_follows_the_edge_of_the_picture() -> None:
    """Width and height differ: a swap would show."""
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[:, 44:] = 200
    rough = np.zeros((60, 80), np.float32)
    rough[:, 40:] = 1
    fine = guided(picture, rough, radius=8)
    assert fine[:, 45:].min() > 0.9
    assert fine[:, 40:44].mean() < 0.55
