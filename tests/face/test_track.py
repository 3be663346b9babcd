from __future__ import annotations

import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.errors import MediaError, UsageError
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.track import (
    RECORD,
    CutDetector,
    FaceChoice,
    FaceFollower,
    Gap,
    MotionTrack,
    State,
    fill_gaps,
    resampled,
)
from metaportrait_cli.motion.motion_file import read_motion, write_motion


def make_track(count: int, missing: list[int], *, cut_at: int | None = None) -> MotionTrack:
    """Points whose every value is the frame's number."""
    track = MotionTrack(width=30, height=20, rate=Fraction(25))
    records = np.zeros(count, RECORD)
    records["time"] = np.arange(count) / 25
    records["points"] = np.arange(count)[:, None, None]
    if cut_at is not None:
        records["shot"][cut_at:] = 1
    records["state"][missing] = State.ABSENT
    records["points"][missing] = 0
    track.append(records)
    return track


def values(track: MotionTrack) -> NDArray[np.float32]:
    return track.read(0, len(track))["points"][:, 0, 0]


def face_at(x: float, size: float = 50) -> Face:
    corner = np.linspace(0, 1, 478)[:, None] * np.array([size, size, 0]) + np.array([x, 0, 0])
    return Face.of(corner.astype(np.float32), np.zeros(52, np.float32), 0.5)


def test_short_gap_is_interpolated() -> None:
    track = make_track(20, [5, 6, 7])
    assert fill_gaps(track) == [Gap(5, 8, State.INTERPOLATED)]
    np.testing.assert_allclose(values(track), np.arange(20), atol=1e-5)


def test_long_gap_holds_then_eases_in() -> None:
    track = make_track(60, list(range(10, 40)))
    assert fill_gaps(track) == [Gap(10, 40, State.HELD)]
    filled = values(track)[10:40]
    assert filled[0] == 9
    assert filled[20] == 9
    assert 9 < filled[-1] < 40
    assert (np.diff(filled) >= 0).all()


def test_ends_hold_and_cuts_are_not_crossed() -> None:
    track = make_track(30, [0, 1, 13, 14, 15, 16, 29], cut_at=15)
    gaps = fill_gaps(track)
    assert gaps == [
        Gap(0, 2, State.HELD),
        Gap(13, 15, State.HELD),
        Gap(15, 17, State.HELD),
        Gap(29, 30, State.HELD),
    ]
    got = values(track)
    assert got[0] == got[1] == 2
    assert got[13] == got[14] == 12
    assert got[15] == got[16] == 17
    assert got[29] == 28


def test_shot_without_a_face_stays_absent() -> None:
    track = make_track(20, list(range(10, 20)), cut_at=10)
    assert fill_gaps(track) == [Gap(10, 20, State.ABSENT)]
    assert (track.light()["state"][10:] == State.ABSENT).all()


def test_follower_keeps_to_its_face() -> None:
    follower = FaceFollower(FaceChoice(2), rate=Fraction(25))
    faces = [face_at(0), face_at(100), face_at(300, size=90)]
    assert follower.follow(faces, cut=False) is faces[1]
    moved = [face_at(0), face_at(120), face_at(300, size=90)]
    assert follower.follow(moved, cut=False) is moved[1]
    assert follower.follow([face_at(0), face_at(300, size=90)], cut=False) is None
    after_cut = [face_at(10), face_at(500)]
    assert follower.follow(after_cut, cut=True) is after_cut[1]


def test_follower_accepts_a_lone_face_that_jumped() -> None:
    follower = FaceFollower(FaceChoice(), rate=Fraction(25))
    follower.follow([face_at(0)], cut=False)
    jumped = face_at(70)
    assert follower.follow([jumped], cut=False) is jumped


def test_follower_chooses_anew_after_a_while() -> None:
    follower = FaceFollower(FaceChoice(), rate=Fraction(10))
    follower.follow([face_at(0)], cut=False)
    other = [face_at(400, size=120)]
    chosen = [follower.follow(other, cut=False) for _ in range(7)]
    assert chosen[0] is None
    assert chosen[-1] is other[0]


@pytest.mark.parametrize("text", ["0", "-1", "second", "1.5", ""])
def test_face_choice_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="`face`"):
        FaceChoice.parse(text)


def test_cut_detector_tells_cut_from_motion() -> None:
    rng = np.random.default_rng(3)
    wall = rng.integers(0, 255, (90, 160, 3), dtype=np.uint8)
    other = 255 - wall // 3
    cuts = CutDetector()
    seen = [cuts.is_cut(np.roll(wall, step, axis=1)) for step in range(6)]
    seen.append(cuts.is_cut(other))
    seen.append(cuts.is_cut(np.roll(other, 1, axis=1)))
    assert seen == [False] * 6 + [True, False]


def test_uneven_times_are_resampled() -> None:
    track = make_track(10, [])
    records = track.read(0, 10)
    times = np.array([0, 1, 2, 3, 3.2, 3.4, 3.6, 7, 8, 9]) / 25
    records["time"] = times
    records["points"] = (times * 100)[:, None, None]
    track.write(0, records)
    even = resampled(track)
    np.testing.assert_allclose(values(even), np.arange(10) / 25 * 100, rtol=1e-4)
    np.testing.assert_allclose(even.light()["time"], np.arange(10) / 25)


def test_template_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    track = MotionTrack(width=640, height=360, rate=Fraction(30000, 1001))
    records = np.zeros(700, RECORD)  # more than one piece
    records["points"] = rng.normal(size=(700, 478, 3))
    records["blendshapes"] = rng.random((700, 52))
    records["time"] = np.arange(700) * 1001 / 30000
    records["shot"][300:] = 1
    track.append(records)
    path = tmp_path / "a.motion.npz"
    write_motion(track, path)
    back = read_motion(path)
    assert (back.width, back.height, back.rate) == (640, 360, Fraction(30000, 1001))
    np.testing.assert_array_equal(back.read(0, 700), track.read(0, 700))
    with np.load(path, allow_pickle=False) as plain:  # readable without us
        assert plain["points"].shape == (700, 478, 3)


@pytest.mark.parametrize("damage", ["text", "half", "pickle", "short", "nan", "rate"])
def test_damaged_templates_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.motion.npz"
    track = make_track(300, [])
    if damage == "nan":
        records = track.read(0, 1)
        records["points"][0, 0, 0] = np.nan
        track.write(0, records)
    elif damage == "rate":
        track.rate = Fraction(2**62)
    write_motion(track, path)
    if damage == "text":
        path.write_text("not a zip")
    elif damage == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "pickle":
        np.savez(path, version=np.array([{}], object))
    elif damage == "short":
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data[:-400] if name == "points.npy" else data)
    with pytest.raises(MediaError, match="motion template"):
        read_motion(path)


def test_light_fields_are_light() -> None:
    light = make_track(600, []).light()
    assert len(light) == 600
    assert light.nbytes <= 600 * 24
