"""Following a face with the landmark network alone, and finding which way up a picture is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.landmark_model import SIDE, FaceSquare, LandmarkModel
from metaportrait_cli.face.orientation import quarter_turns, turned, turned_face, turned_points
from metaportrait_cli.face.pursuit import Pursuit, without_faces_in_faces
from metaportrait_cli.weights import bundled_path
from tests.clips import scene

Image = NDArray[np.uint8]
MODEL = bundled_path("face_landmarker.task")


@pytest.fixture(scope="module")
def networks() -> LandmarkModel:
    return LandmarkModel(MODEL)


@pytest.fixture
def pursuit() -> Iterator[Pursuit]:
    with MediaPipeDetector(MODEL) as detector:
        yield Pursuit(detector)


def apart(first: Face, second: Face) -> float:
    """Mean distance of the points relative to the face."""
    distances = np.linalg.norm(first.points[:, :2] - second.points[:, :2], axis=1)
    return float(distances.mean()) / first.size


def test_region_holds_the_face_and_turns_with_it(portrait_face: Face) -> None:
    upright = FaceSquare.around(portrait_face.points)
    low, high = portrait_face.box[:2], portrait_face.box[2:]
    assert upright.side == pytest.approx(1.5 * portrait_face.size, rel=0.05)
    np.testing.assert_allclose(upright.centre, (low + high) / 2, atol=0.03 * portrait_face.size)
    corner = upright.to_picture() @ [0, 0, 1]
    middle = upright.to_picture() @ [SIDE / 2, SIDE / 2, 1]
    np.testing.assert_allclose(middle, upright.centre, atol=1e-6)
    assert (corner < low).all()

    on_its_side = FaceSquare.around(turned_points(portrait_face.points, 1, width=700, height=500))
    assert on_its_side.side == pytest.approx(upright.side, rel=1e-4)
    assert on_its_side.angle - upright.angle == pytest.approx(-np.pi / 2, abs=1e-4)


def test_networks_see_what_the_detector_sees(
    portrait: Image, portrait_face: Face, networks: LandmarkModel
) -> None:
    points, presence = networks.look(portrait, FaceSquare.around(portrait_face.points))
    assert presence > 0.99
    seen = Face.of(points, networks.blendshapes(points), 0.5)
    assert apart(portrait_face, seen) < 0.01
    given = networks.blendshapes(portrait_face.points)
    np.testing.assert_allclose(given, portrait_face.blendshapes, atol=1e-4)
    _, presence = networks.look(portrait, FaceSquare(np.array([60.0, 60.0]), 100.0, 0.0))
    assert presence < 0.1


def test_a_moving_face_is_followed_without_the_detector(
    portrait: Image, pursuit: Pursuit, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [scene(portrait, [(40 + 6 * n, 20, 200)]) for n in range(8)]
    with MediaPipeDetector(MODEL) as detector:
        wanted = [detector.detect(frame)[0] for frame in frames]
    face = pursuit.begin(frames[0])[0]

    def unexpected(*_: object, **__: object) -> list[Face]:
        raise AssertionError("the detector was asked")

    monkeypatch.setattr(MediaPipeDetector, "detect_all", unexpected)
    for frame, where in zip(frames[1:], wanted[1:], strict=True):
        (face,) = pursuit.follow(frame, hints=[face.box])
        assert apart(where, face) < 0.02


def test_expressions_are_told_once_and_only_to_who_asks(
    portrait: Image, pursuit: Pursuit, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[NDArray[np.float32]] = []

    def told(_: LandmarkModel, points: NDArray[np.float32]) -> NDArray[np.float32]:
        asked.append(points)
        return np.full(52, len(asked), np.float32)

    monkeypatch.setattr(LandmarkModel, "blendshapes", told)
    first = pursuit.begin(portrait)[0]
    (second,) = pursuit.follow(portrait, hints=[first.box])
    assert not asked
    moved = turned_face(second, 1, width=portrait.shape[1], height=portrait.shape[0])
    assert (moved.blendshapes == 1).all()
    assert (second.blendshapes == 1).all()
    np.testing.assert_array_equal(asked, second.points[None])
    assert (first.blendshapes == 2).all()


def test_a_check_looks_closer_where_something_new_is(
    portrait: Image, pursuit: Pursuit, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    detected = Pursuit._detected

    def counted(self: Pursuit, image: Image, hints: list[NDArray[np.float32]]) -> list[Face]:
        looked.append(len(hints))
        return detected(self, image, hints)

    monkeypatch.setattr(Pursuit, "_detected", counted)
    alone = scene(portrait, [(40, 20, 260)], width=640, height=400)
    (face,) = pursuit.begin(alone)
    pursuit.unchecked = 1000
    assert len(pursuit.follow(alone, hints=[face.box])) == 1
    assert (looked, pursuit.unchecked) == ([], 0)
    pursuit.unchecked = 1000
    both = scene(portrait, [(40, 20, 260), (380, 60, 230)], width=640, height=400)
    assert len(pursuit.follow(both, hints=[face.box])) == 2
    assert looked == [1]


def test_a_face_that_leaves_is_lost_and_found_again(portrait: Image, pursuit: Pursuit) -> None:
    there, gone = scene(portrait, [(60, 20, 200)]), scene(portrait, [])
    face = pursuit.begin(there)[0]
    assert pursuit.follow(gone, hints=[face.box]) == []
    assert pursuit.follow(gone, hints=[face.box]) == []
    (again,) = pursuit.follow(there, hints=[face.box])
    assert apart(face, again) < 0.01


def test_a_second_face_is_not_mistaken_for_the_first(portrait: Image, pursuit: Pursuit) -> None:
    both = scene(portrait, [(0, 20, 160), (160, 30, 150)])
    left, right = pursuit.begin(both)
    assert left.box[0] < right.box[0]
    (followed,) = pursuit.follow(both, hints=[right.box])
    assert apart(right, followed) < 0.01
    # Where the followed one is lost, the other is told of too.
    alone = scene(portrait, [(0, 20, 160)])
    (other,) = pursuit.follow(alone, hints=[right.box])
    assert apart(left, other) < 0.02


def test_without_the_networks_the_detector_looks_at_every_frame(
    portrait: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LandmarkModel, "where_possible", classmethod(lambda *_: None))
    frame = scene(portrait, [(60, 20, 200)])
    with MediaPipeDetector(MODEL) as detector:
        pursuit = Pursuit(detector)
        face = pursuit.begin(frame)[0]
        (again,) = pursuit.follow(frame, hints=[face.box])
    assert apart(face, again) < 1e-6


def test_a_large_face_is_enough_where_one_is_wanted(portrait: Image, pursuit: Pursuit) -> None:
    frame = scene(portrait, [(20, 20, 440), (520, 300, 90)], width=640, height=480)
    assert len(pursuit.begin(frame)) == 2
    (large,) = pursuit.begin(frame, all_faces=False)
    assert large.size > 120
    small = scene(portrait, [(520, 300, 90)], width=640, height=480)
    assert len(pursuit.begin(small, all_faces=False)) == 1


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_turned_shot_is_looked_at_upright(portrait: Image, pursuit: Pursuit, turns: int) -> None:
    upright = scene(portrait, [(90, 20, 200)])
    reference = pursuit.begin(upright)[0]
    picture = turned(upright, turns)
    (face,) = pursuit.begin(picture)
    assert pursuit.turns == -turns % 4
    height, width = picture.shape[:2]
    back = turned_face(face, pursuit.turns, width=width, height=height)
    assert apart(reference, back) < 0.01
    # The detector's look on the beat is at the upright picture too.
    pursuit.unchecked = 1000
    (again,) = pursuit.follow(picture, hints=[face.box])
    assert apart(face, again) < 0.01


def test_a_face_in_a_face_is_none(portrait_face: Face) -> None:
    def smaller(x: float, y: float) -> Face:
        centre = portrait_face.points.mean(0)
        moved = centre + 0.2 * (portrait_face.points - centre)
        moved[:, :2] += np.array([x, y]) * portrait_face.size
        return Face.of(moved.astype(np.float32), portrait_face.blendshapes, 0.5)

    forehead, beside = smaller(0, -0.3), smaller(0.9, 0)
    assert without_faces_in_faces([portrait_face, forehead, beside]) == [portrait_face, beside]


def test_points_turn_with_their_picture() -> None:
    picture = np.zeros((5, 8, 3), np.uint8)
    picture[1, 6] = 255  # its centre is (6.5, 1.5)
    point = np.array([[6.5, 1.5, 3.0]], np.float32)
    for turns in range(4):
        x, y, z = turned_points(point, turns, width=8, height=5)[0]
        assert turned(picture, turns)[int(y), int(x)].all()
        assert z == 3


def test_a_small_face_upside_down_is_turned(portrait: Image, networks: LandmarkModel) -> None:
    picture = scene(portrait, [(500, 100, 120)], width=900, height=500)
    with MediaPipeDetector(MODEL) as detector:
        found = detector.search(picture)
        assert quarter_turns(networks, picture, found) == 0
        over = turned(picture, 2)
        assert quarter_turns(networks, over, detector.search(over)) == 2
