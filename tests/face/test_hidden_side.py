from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.hidden_side import CheekRim, HiddenSide, facing
from tests.face.test_correspondence import origin_at, turned

SIDE = 256
LEFT_CHEEK = 376  # inside the mesh, in front of the left ear


@pytest.fixture(scope="module")
def frontal(portrait_face: Face) -> NDArray[np.float32]:
    points = Crop.around(portrait_face.points).to_crop(portrait_face.points, SIDE)
    mirrored = points[topology.mirror()] * np.array([-1, 1, 1], np.float32)
    # Exactly symmetric about the middle of the crop.
    return (points - points.mean(0) + mirrored - mirrored.mean(0)) / 2 + np.float32(SIDE / 2)


def half_lit() -> NDArray[np.uint8]:
    """A crop whose right half (the person's left) has half the light."""
    crop = np.full((SIDE, SIDE, 3), 200, np.uint8)
    crop[:, SIDE // 2 :] = 100
    return crop


def test_facing_is_symmetric_and_falls_towards_the_ears(frontal: NDArray[np.float32]) -> None:
    cosine = facing(frontal)
    # A few quads of the mesh are cut along the other diagonal on the other side.
    assert np.abs(cosine - cosine[topology.mirror()]).mean() < 0.005
    assert cosine[[9, 151]].min() > 0.8
    assert cosine[[234, 454]].max() < 0.5


def test_a_frontal_source_hides_nothing(frontal: NDArray[np.float32]) -> None:
    hidden = HiddenSide(frontal, crop=half_lit(), grid=SIDE)
    for degrees in (-20, 0, 20):
        assert hidden.fill(turned(frontal, degrees)) is None


def test_a_turned_source_lends_its_near_side(frontal: NDArray[np.float32]) -> None:
    source = turned(frontal, 35)
    far = LEFT_CHEEK if facing(source)[LEFT_CHEEK] < 0.3 else int(topology.mirror()[LEFT_CHEEK])
    near = int(topology.mirror()[far])
    hidden = HiddenSide(source, crop=half_lit(), grid=SIDE)
    assert hidden.fill(source) is None  # at rest the source is shown as it is
    fill = hidden.fill(frontal)
    assert fill is not None
    places = frontal[[far, near], :2].astype(int)
    assert fill.weight[places[0, 1], places[0, 0]] > 0.5
    assert fill.weight[places[1, 1], places[1, 0]] == 0.0
    # Up to the outline: beside it the source's own far cheek would be a line.
    ear = next(ear for ear in topology.EAR_SIDES if facing(source)[ear] < 0)
    x, y = frontal[ear, :2].astype(int)
    assert fill.weight[y, x] > 0.5
    origin = origin_at(fill.shift, frontal[[far], :2])[0]
    assert np.linalg.norm(origin - source[near, :2]) < 1.5
    assert 0.0 <= fill.weight.min() <= fill.weight.max() <= 1.0


def test_a_cheek_that_turns_to_the_camera_is_skin_up_to_its_rim(
    frontal: NDArray[np.float32],
) -> None:
    rim, middle = CheekRim(frontal), frontal[:, 0].mean()
    ahead, _ = cv2.Rodrigues(np.zeros(3))
    assert np.allclose(rim.places(ahead), frontal[:, :2])
    turn, _ = cv2.Rodrigues(np.radians([0.0, 35.0, 0.0]))
    moved = rim.places(turn) - frontal[:, :2]
    ears = list(topology.EAR_SIDES)
    seen, other = sorted(ears, key=lambda ear: -abs(moved[ear, 0]))
    assert moved[seen, 0] * (middle - frontal[seen, 0]) > 0  # inwards
    assert abs(moved[seen, 0]) > 0.03 * np.ptp(frontal[ears, 0])
    still = [other, topology.CHIN, *topology.ring("left_eye"), *topology.ring("right_eye")]
    assert np.abs(moved[still]).max() < 0.5
    assert np.abs(moved[topology.MESH_POINTS :]).max() == 0


def test_a_rim_of_skin_stays_where_it_is(frontal: NDArray[np.float32]) -> None:
    turn, _ = cv2.Rodrigues(np.radians([0.0, 35.0, 0.0]))
    skin = np.full((SIDE, SIDE, 3), (200, 150, 130), np.uint8)
    assert np.allclose(CheekRim(frontal, skin).places(turn), frontal[:, :2])
    oval = frontal[topology.ring("face_oval"), :2]
    middle = oval.mean(0)
    face = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(face, [np.int32(middle + 0.95 * (oval - middle))], 1)
    hair = np.where(face[..., None] > 0, skin, np.uint8(40)).astype(np.uint8)
    covered = CheekRim(frontal, hair).places(turn)
    assert np.allclose(covered, CheekRim(frontal).places(turn), atol=0.5)
    assert np.abs(covered - frontal[:, :2]).max() > 2


def test_the_far_cheek_of_a_turned_source_is_left_to_its_near_one(
    frontal: NDArray[np.float32],
) -> None:
    source = turned(frontal, 35)
    far = min(topology.EAR_SIDES, key=lambda ear: facing(source)[ear])
    back, _ = cv2.Rodrigues(np.radians([0.0, 35.0, 0.0]))
    for rotation in (back, back.T):
        moved = CheekRim(source).places(rotation) - source[:, :2]
        assert np.abs(moved[far]).max() < 0.5
