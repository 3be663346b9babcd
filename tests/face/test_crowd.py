"""All faces of a clip: who is who, and where the crops go."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from metaportrait_cli.face.crowd import MOST_FACES, Crowd, FacePath
from metaportrait_cli.face.face import Face


def face_at(x: float, y: float = 200, *, size: float = 80, confidence: float = 0.5) -> Face:
    """A face whose box has its centre at (x, y), a little less wide than high."""
    corner = np.linspace(-0.5, 0.5, 478)[:, None] * np.array([0.8 * size, size, 0])
    points = (corner + np.array([x, y, 0])).astype(np.float32)
    return Face.of(points, np.zeros(52, np.float32), confidence)


def followed(
    frames: list[list[Face]], *, cuts: tuple[int, ...] = (), width: int = 800, height: int = 400
) -> list[FacePath]:
    crowd = Crowd(width=width, height=height, rate=Fraction(25))
    for number, faces in enumerate(frames):
        crowd.follow(faces, cut=number in cuts, everywhere=False)
    return crowd.paths()


def centres(path: FacePath) -> np.ndarray:
    return path.corners[:, 0] + path.side / 2


def test_two_faces_are_kept_apart_in_whatever_order_they_come() -> None:
    frames = [[face_at(200 + n), face_at(600 - n)][:: 1 if n % 2 else -1] for n in range(50)]
    left, right = sorted(followed(frames), key=lambda path: path.corners[0, 0])
    assert (left.start, left.stop, right.start, right.stop) == (0, 50, 0, 50)
    np.testing.assert_allclose(centres(left), 200 + np.arange(50), atol=2)
    np.testing.assert_allclose(centres(right), 600 - np.arange(50), atol=2)
    assert left.side % 4 == 0
    assert left.presence.min() == 1


def test_noise_does_not_move_the_crop_nor_change_its_size() -> None:
    rng = np.random.default_rng(0)
    wobbly = [
        [face_at(300 + rng.normal(0, 1.5), 200 + rng.normal(0, 1.5), size=80 + rng.normal())]
        for _ in range(100)
    ]
    (path,) = followed(wobbly)
    assert np.ptp(path.corners, axis=0).max() <= 2
    assert np.count_nonzero(np.diff(path.corners, axis=0).any(axis=1)) <= 4


def test_a_short_gap_is_bridged_and_a_long_one_fades() -> None:
    short = [[face_at(200 + 2 * n)] if not 20 <= n < 28 else [] for n in range(60)]
    (path,) = followed(short)
    np.testing.assert_allclose(centres(path), 200 + 2 * np.arange(60), atol=2)

    absent = [[face_at(200)] if not 20 <= n < 60 else [] for n in range(90)]
    before, after = followed(absent)
    assert (before.start, before.stop, after.start, after.stop) == (0, 20, 60, 90)
    assert before.presence[0] == 1  # it was there with the clip
    assert before.presence[-1] < 0.2
    assert after.presence[0] < 0.2
    assert (np.diff(before.presence) <= 0).all()
    assert after.presence[-1] == 1


def test_a_cut_ends_all_faces_at_once() -> None:
    frames = [[face_at(200)]] * 20 + [[face_at(220)]] * 20
    first, second = followed(frames, cuts=(20,))
    assert (first.stop, second.start) == (20, 20)
    assert first.presence.min() == second.presence.min() == 1
    assert np.ptp(first.corners[:, 0]) == np.ptp(second.corners[:, 0]) == 0


def test_what_flashes_up_is_no_face_unless_the_shot_is_as_short() -> None:
    assert followed([[]] * 20 + [[face_at(200)]] * 3 + [[]] * 20) == []
    assert len(followed([[face_at(200)]])) == 1


def test_a_fast_walk_is_one_path_without_lag() -> None:
    (path,) = followed([[face_at(100 + 20 * n, size=60)] for n in range(30)])
    np.testing.assert_allclose(centres(path), 100 + 20 * np.arange(30), atol=2)


@pytest.mark.parametrize(("x", "y"), [(10, 30), (795, 390)])
def test_at_the_border_the_crop_stays_inside(x: float, y: float) -> None:
    (path,) = followed([[face_at(x, y)]] * 5)
    assert path.corners.min() >= 0
    assert (path.corners + path.side <= (800, 400)).all()


def test_a_face_that_fills_the_picture_is_still_framed() -> None:
    (path,) = followed([[face_at(49, 33, size=66)]] * 3, width=98, height=66)
    assert path.side % 4 == 0
    assert 66 * 1.25 <= path.side < 90


def test_the_largest_are_followed_in_a_crowd() -> None:
    faces = [face_at(40 + 60 * n, size=20 + n) for n in range(12)]
    paths = followed([faces] * 10)
    assert len(paths) == MOST_FACES
    assert min(centres(path).min() for path in paths) > 240


def test_a_face_within_a_face_is_none() -> None:
    paths = followed([[face_at(200), face_at(215, 190, size=25), face_at(202, size=76)]] * 20)
    assert len(paths) == 1
    assert paths[0].side == 148


def test_doubtful_faces_count_where_there_are_no_others() -> None:
    faint = [face_at(600, confidence=0.2)]
    assert len(followed([faint] * 20)) == 1
    assert [path.corners[0, 0] < 300 for path in followed([[*faint, face_at(200)]] * 20)] == [True]


def test_where_to_look() -> None:
    crowd = Crowd(width=800, height=400, rate=Fraction(25))
    crowd.follow([face_at(200)], cut=False, everywhere=True)
    assert len(crowd.hints) == 1
    assert not crowd.lost
    for _ in range(50):
        crowd.follow([face_at(200)], cut=False, everywhere=False)
    assert crowd.lost
    crowd.follow([], cut=True, everywhere=True)
    assert crowd.hints == []
    assert not crowd.lost
