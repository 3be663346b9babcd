"""Whose motion goes onto which picture: a person's own, and another's."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from metaportrait_cli.errors import UsageError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.source import Source
from metaportrait_cli.face.track import RECORD, MotionTrack, State
from metaportrait_cli.motion.alignment import Floats, from_frame, rotation_of
from metaportrait_cli.motion.fitting import FaceParameters, fit_frames, fit_identity, reconstruct
from metaportrait_cli.motion.morphable import MorphableModel, interocular
from metaportrait_cli.pipeline import performance
from metaportrait_cli.pipeline.performance import DriveOptions, Performance

WEIGHTS = Path(__file__).parents[2] / "weights" / "morphable.safetensors"
SIZE = (400, 300)
FRAMES = 40


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return MorphableModel.load(WEIGHTS)


def performed(
    model: MorphableModel, seed: int, aside: float = 0.0, apart: float = 0.0
) -> tuple[Floats, Floats]:
    """Landmarks (T, 478, 3) of someone who moves slowly, and their blendshapes (T, 52).

    Eyes look straight for eight frames, then `aside`; all along the left one looks that far more to
    the picture's right than the right one.
    """
    rng = np.random.default_rng(seed)
    person = rng.normal(size=model.identity_size).astype(np.float32)
    wave = np.sin(np.arange(FRAMES)[:, None] * 0.15 + rng.uniform(0, 6, len(model.blendshape_rest)))
    shapes = np.clip(model.blendshape_rest + 0.2 * wave, 0, 1).astype(np.float32)
    expression = (shapes - model.blendshape_rest) @ model.blendshape_effect
    gaze = np.zeros((FRAMES, 2, 2), np.float32)
    gaze[8:, :, 0] = aside
    gaze[:, :, 0] += np.array([-apart, apart], np.float32) / 2
    faces = model.shape(person, expression, gaze)
    turn = rotation_of(0.1 * wave[:, :3])
    place = np.array([200, 130, 0]) + 5 * wave[:, 3:6]
    landmarks = from_frame(faces, turn, 55 + 3 * wave[:, 6], place)
    return landmarks.astype(np.float32), shapes


def track(landmarks: Floats, shapes: Floats) -> MotionTrack:
    records = np.zeros(len(landmarks), RECORD)
    records["time"] = np.arange(len(landmarks)) / 25
    records["state"] = State.FOUND
    records["points"], records["blendshapes"] = landmarks, shapes
    made = MotionTrack(width=SIZE[0], height=SIZE[1], rate=Fraction(25))
    made.append(records)
    return made


def portrait(landmarks: Floats, shapes: Floats) -> Source:
    face = Face.of(landmarks[0], shapes[0], 1.0)
    picture = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    return Source(Path("a.png"), picture, face, 1, Crop.around(face.points, within=SIZE))


def test_absolute_motion_of_oneself_gives_back_the_landmarks(model: MorphableModel) -> None:
    landmarks, shapes = performed(model, 1)
    performance = Performance(
        track=track(landmarks, shapes),
        source=portrait(landmarks, shapes),
        model=model,
        options=DriveOptions(motion="absolute", smooth=False),
    )
    found = np.concatenate(list(performance.windows(16)))
    assert performance.same_person
    error = np.linalg.norm((found - landmarks)[..., :2], axis=-1).mean()
    assert error < 0.005 * interocular(landmarks[0])


def test_ones_own_clip_may_be_too_short_to_tell_a_shape(model: MorphableModel) -> None:
    landmarks, shapes = performed(model, 1)
    person = fit_identity(model, landmarks)
    unsure = person + np.full_like(person, 0.8)
    fitted = replace(fit_frames(model, landmarks, person), identity=unsure)
    performance = Performance(
        track=track(landmarks, shapes),
        source=portrait(reconstruct(model, fitted), shapes),
        model=model,
        options=DriveOptions(),
    )
    assert not performance.same_person
    assert replace(performance, own_clip=True).same_person


@pytest.mark.parametrize("framing", ["auto", "driver"])
def test_another_person_keeps_the_pictures_face(model: MorphableModel, framing) -> None:
    landmarks, shapes = performed(model, 2)
    source = portrait(*performed(model, 3))
    performance = Performance(
        track=track(landmarks, shapes),
        source=source,
        model=model,
        options=DriveOptions(framing=framing, smooth=False),
    )
    found = np.concatenate(list(performance.windows(16)))
    assert not performance.same_person
    sizes = interocular(found) / interocular(source.face.points)
    driven = interocular(landmarks) / np.median(interocular(landmarks))
    assert (np.ptp(sizes) < 0.5 * np.ptp(driven)) == (framing == "auto")


def test_gaze_is_absolute_beside_a_clip_that_mostly_looks_aside(model: MorphableModel) -> None:
    """Who looks into the camera for once does so in the result as well."""
    landmarks, shapes = performed(model, 4, aside=0.3)
    source = portrait(*performed(model, 5))
    performance = Performance(
        track=track(landmarks, shapes),
        source=source,
        model=model,
        options=DriveOptions(smooth=False),
    )
    found = np.concatenate(list(performance.windows(16)))
    identity = performance.retargeter.source.identity
    gaze = fit_frames(model, found, identity).gaze[:, :, 0].mean(1)
    assert abs(gaze[:8].mean()) < 0.08
    assert gaze[8:].mean() > 0.2


def test_eyes_that_always_squint_let_no_others_squint(model: MorphableModel) -> None:
    source = portrait(*performed(model, 5, apart=0.1))
    performance = Performance(
        track=track(*performed(model, 4, aside=0.3, apart=-0.4)),
        source=source,
        model=model,
        options=DriveOptions(smooth=False),
    )
    found = np.concatenate(list(performance.windows(16)))
    gaze = fit_frames(model, found, performance.retargeter.source.identity).gaze[:, :, 0]
    assert gaze[8:].mean() > 0.2
    np.testing.assert_allclose(gaze[:, 1] - gaze[:, 0], 0.1, atol=0.05)


def test_framing_is_checked() -> None:
    with pytest.raises(UsageError, match="framing"):
        DriveOptions(framing="none")  # pyrefly: ignore[bad-argument-type]


def test_a_head_is_turned_by_degrees_besides(model: MorphableModel) -> None:
    """Right, up and clockwise as the picture is seen, also where the driver shows no face."""
    landmarks, shapes = performed(model, 6)
    source = portrait(*performed(model, 7))
    motion = track(landmarks, shapes)
    motion_without = MotionTrack(width=SIZE[0], height=SIZE[1], rate=Fraction(25))
    nobody = np.zeros(2, RECORD)
    nobody["state"] = State.ABSENT
    motion_without.append(nobody)

    def found(track: MotionTrack, *turn: float) -> Floats:
        yaw, pitch, roll = turn
        options = DriveOptions(smooth=False, yaw=yaw, pitch=pitch, roll=roll)
        performance = Performance(track=track, source=source, model=model, options=options)
        return np.concatenate(list(performance.windows(16)))

    for track_ in (motion, motion_without):
        nose, chin = 1, 152
        plain, right = found(track_, 0, 0, 0), found(track_, 15, 0, 0)
        up, across = found(track_, 0, 15, 0), found(track_, 0, 0, 15)
        width = interocular(source.face.points)
        eyes = [each[:, 33, :2] - each[:, 263, :2] for each in (plain, across)]
        assert ((right - plain)[:, nose, 0] > 0.1 * width).all()
        assert ((up - plain)[:, nose, 1] < -0.1 * width).all()
        turn = np.degrees(np.arctan2(eyes[1][:, 1], eyes[1][:, 0]))
        turn -= np.degrees(np.arctan2(eyes[0][:, 1], eyes[0][:, 0]))
        assert np.allclose((turn + 180) % 360 - 180, 15, atol=4)
        assert ((across - plain)[:, chin, 0] < 0).all()
    with pytest.raises(UsageError, match="yaw"):
        DriveOptions(yaw=120)


@pytest.mark.parametrize("lost", [False, True])
def test_frames_of_a_short_shot_are_fitted_once(
    model: MorphableModel, monkeypatch: pytest.MonkeyPatch, *, lost: bool
) -> None:
    clip = track(*performed(model, 60))
    if lost:
        record = clip.read(30, 31)
        record["state"] = State.INTERPOLATED
        clip.write(30, record)
    source = portrait(*performed(model, 5))
    fitted = 0

    def counted(model: MorphableModel, points: Floats, identity: Floats) -> FaceParameters:
        nonlocal fitted
        fitted += len(points)
        return fit_frames(model, points, identity)

    monkeypatch.setattr(performance, "fit_frames", counted)

    def driven(most: int) -> tuple[Floats, int]:
        nonlocal fitted
        fitted = 0
        monkeypatch.setattr(performance, "REFERENCE_FRAMES", most)
        made = Performance(track=clip, source=source, model=model, options=DriveOptions())
        return np.concatenate(list(made.windows(16))), fitted

    (short, few), (long, many) = driven(FRAMES), driven(FRAMES - 1)
    assert np.abs(short - long).max() < 0.5  # the reference may be another one
    assert (many - few > FRAMES) != lost
