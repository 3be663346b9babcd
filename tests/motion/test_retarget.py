from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaportrait_cli.errors import UsageError
from metaportrait_cli.face import topology
from metaportrait_cli.metrics.motion import identity_leakage
from metaportrait_cli.motion import apertures
from metaportrait_cli.motion.alignment import from_frame, rotation_of, vector_of
from metaportrait_cli.motion.fitting import FaceParameters, fit_frames, fit_identity
from metaportrait_cli.motion.morphable import MorphableModel, interocular
from metaportrait_cli.motion.retarget import (
    APART_LIMITS,
    GAZE_LIMITS,
    Retargeter,
    framed,
    rebased,
)
from metaportrait_cli.motion.strengths import Strengths
from metaportrait_cli.motion.turning import EXAGGERATED_LIMITS, TURN_LIMITS


def fitted(model: MorphableModel, landmarks) -> FaceParameters:
    return fit_frames(model, landmarks, fit_identity(model, landmarks))


def lid_and_lip_gaps(model: MorphableModel, landmarks):
    """Gaps (T, G) of landmarks, brought into the model frame."""
    p = fitted(model, landmarks)
    return apertures.gaps(model.shape(p.identity, p.expression, p.gaze) + p.residual)


@pytest.fixture
def driver(model: MorphableModel, performance) -> FaceParameters:
    return fitted(model, performance(21, scale=110))


@pytest.mark.parametrize("motion", ["relative", "absolute"])
def test_driving_oneself_changes_nothing(model: MorphableModel, performance, motion) -> None:
    landmarks = performance(20, turn=0.08)
    index = 17
    retargeter = Retargeter(model=model, source_landmarks=landmarks[index], motion=motion)
    own = fit_frames(model, landmarks, retargeter.source.identity)
    found = retargeter.retarget(own, own.frame(index))
    assert not found.clamped.any()
    error = np.linalg.norm((found.landmarks - landmarks)[..., :2], axis=-1)
    assert error[index].max() < 0.1
    assert error.mean() < 0.01 * interocular(landmarks[index])


def test_result_at_the_reference_is_the_source(model: MorphableModel, performance, driver) -> None:
    source = performance(22)[5]
    retargeter = Retargeter(model=model, source_landmarks=source)
    index = retargeter.choose_reference(driver)
    found = retargeter.retarget(driver.frame(index), driver.frame(index)).landmarks[0]
    offset = np.linalg.norm((found - source)[:, :2], axis=-1) / interocular(source)
    # Only lids and lips may differ, where contact is kept instead.
    assert np.median(offset) < 0.005
    assert offset.max() < 0.1


@pytest.mark.parametrize(
    ("motion", "seed"), [("relative", 23), ("relative", 24), ("absolute", 23), ("absolute", 25)]
)
def test_result_has_the_sources_face(  # noqa: PLR0917
    model: MorphableModel, person, performance, driver, motion, seed
) -> None:
    retargeter = Retargeter(model=model, source_landmarks=performance(seed)[:20], motion=motion)
    result = retargeter.retarget(driver, driver.frame(retargeter.choose_reference(driver)))
    identity = fit_identity(model, result.landmarks)
    leak = identity_leakage(identity, retargeter.source.identity, person(21))
    assert leak.share < 0.4


def test_result_moves_like_the_driver(model: MorphableModel, performance, driver) -> None:
    retargeter = Retargeter(model=model, source_landmarks=performance(26)[:10])
    reference = driver.frame(9)
    result = retargeter.retarget(driver, reference)
    shown = fit_frames(model, result.landmarks, retargeter.source.identity)
    change = shown.expression - retargeter.source.expression
    wanted = driver.expression - reference.expression
    # The leading coefficients are jaw, smile and the like; small ones also serve lid contact.
    for column in range(8):
        assert np.corrcoef(change[:, column], wanted[:, column])[0, 1] > 0.9
    turn = vector_of(driver.rotation @ np.swapaxes(reference.rotation, 1, 2))
    shown_turn = vector_of(shown.rotation @ np.swapaxes(retargeter.source.rotation, 1, 2))
    assert np.degrees(np.abs(turn - shown_turn)).mean() < 1.5


def closed(model: MorphableModel, landmarks, shares):
    """Landmarks whose lid and lip gaps are multiplied by shares (T,) or (T, G)."""
    p = fitted(model, landmarks)
    faces = model.shape(p.identity, p.expression, p.gaze) + p.residual
    gaps = apertures.gaps(faces)
    faces = apertures.opened(faces, gaps * (shares.reshape(len(gaps), -1) - 1))
    return from_frame(faces, p.rotation, p.scale, p.translation).astype(np.float32)


@pytest.mark.parametrize("motion", ["relative", "absolute"])
def test_closed_stays_closed(model: MorphableModel, performance, motion) -> None:
    shares = np.ones(40, np.float32)
    shares[20:24] = 0
    landmarks = closed(model, performance(27, 40), shares)
    driver = fit_frames(model, landmarks, fit_identity(model, landmarks[:20]))
    for seed in (28, 29, 30):
        source = performance(seed)[0]
        retargeter = Retargeter(model=model, source_landmarks=source, motion=motion)
        result = retargeter.retarget(driver, driver.frame(3)).landmarks
        gaps = lid_and_lip_gaps(model, result)
        assert np.abs(gaps[20:24]).max() < 0.03
        assert gaps[:20, apertures.EYES[0]].mean() > 0.05


@pytest.mark.parametrize(("side", "left_open"), [(0, 0.08), (1, 0.08), (1, 0.3)])
def test_a_wink_closes_one_eye_alone(
    model: MorphableModel, performance, side: int, left_open: float
) -> None:
    shares = np.ones((40, len(apertures.PAIRS)), np.float32)
    shares[20:24, apertures.EYES[side]] = left_open  # as the detector sees a closed eye
    landmarks = closed(model, performance(41, 40), shares)
    driver = fit_frames(model, landmarks, fit_identity(model, landmarks[:20]))
    retargeter = Retargeter(model=model, source_landmarks=performance(42)[0])
    result = retargeter.retarget(driver, driver.frame(3)).landmarks
    gaps = lid_and_lip_gaps(model, result)
    assert np.abs(gaps[20:24, apertures.EYES[side]]).mean() < 0.005
    other = apertures.EYES[1 - side]
    assert gaps[20:24, other].mean() > 0.8 * gaps[10:20, other].mean()


def test_turned_faces_do_not_wink(model: MorphableModel, performance) -> None:
    shares = np.ones((40, len(apertures.PAIRS)), np.float32)
    shares[20:24, apertures.EYES[0]] = 0.4
    landmarks = closed(model, performance(43, 40, turn=0), shares)
    driver = fit_frames(model, landmarks, fit_identity(model, landmarks[:20]))
    turned = replace(driver, rotation=rotation_of(np.array([[0.5, 0, 0]] * 40)) @ driver.rotation)
    retargeter = Retargeter(model=model, source_landmarks=performance(42)[0])
    gaps = [
        lid_and_lip_gaps(model, retargeter.retarget(each, each.frame(3)).landmarks)[21:23].mean(0)
        for each in (driver, turned)
    ]
    eye = apertures.EYES[0]
    assert gaps[0][eye].mean() < 0.5 * gaps[1][eye].mean()


def test_the_far_eye_closes_with_the_near_one(model: MorphableModel, performance) -> None:
    shares = np.ones((40, len(apertures.PAIRS)), np.float32)
    shares[20:24, apertures.EYES[1]] = 0.4
    landmarks = closed(model, performance(43, 40, turn=0), shares)
    driver = fit_frames(model, landmarks, fit_identity(model, landmarks[:20]))
    retargeter = Retargeter(model=model, source_landmarks=performance(42)[0])
    far, open_by = apertures.EYES[0], []
    for yaw in (0.5, -0.5):  # the left eye is the nearer one, then the other
        turned = rotation_of(np.array([[yaw, 0, 0]] * 40)) @ driver.rotation
        each = replace(driver, rotation=turned)
        gaps = lid_and_lip_gaps(model, retargeter.retarget(each, each.frame(3)).landmarks)[:, far]
        open_by.append(gaps[21:23].mean() / gaps[10:19].mean())
    assert open_by[0] < 0.7 < open_by[1]


def test_open_eyes_open_to_the_sources_own_aperture(model: MorphableModel, performance) -> None:
    narrow = closed(model, performance(31)[:1], np.full(1, 0.6, np.float32))[0]
    landmarks = performance(32, 40)
    driver = fitted(model, landmarks)
    retargeter = Retargeter(model=model, source_landmarks=narrow)
    result = retargeter.retarget(driver, driver.frame(0)).landmarks
    eyes = slice(0, apertures.LIPS.start)
    own = lid_and_lip_gaps(model, narrow[None])[:, eyes].mean()
    shown = lid_and_lip_gaps(model, result[:1])[:, eyes].mean()
    assert shown == pytest.approx(own, abs=0.02)


def test_gaps_transfer_monotonically_and_keep_contact() -> None:
    gap = np.linspace(0, 0.5, 200)
    for own, reference in ((0.1, 0.3), (0.3, 0.1), (0.2, 0.0), (0.2, 0.2)):
        found = apertures.transferred(gap, *np.array([[own], [reference], [0.06]]))
        assert found[0] == 0
        assert (np.diff(found) >= -1e-9).all()
        if reference > 0.06:
            assert np.interp(reference, gap, found) == pytest.approx(own, abs=0.005)


def test_gaze_follows_the_irises(model: MorphableModel, performance, driver) -> None:
    looking = replace(driver, gaze=driver.gaze[:1] + np.zeros_like(driver.gaze))
    looking.gaze[10:, :, 0] += 0.3
    retargeter = Retargeter(model=model, source_landmarks=performance(33)[0])
    result = retargeter.retarget(looking, looking.frame(0)).landmarks
    shown = fit_frames(model, result, retargeter.source.identity).gaze
    np.testing.assert_allclose(shown[10:, :, 0] - shown[:1, :, 0], 0.3, atol=0.04)


def test_irises_stay_between_the_lids(model: MorphableModel, performance, driver) -> None:
    lost = replace(driver, gaze=driver.gaze.copy())
    lost.gaze[7] += np.array([[0.9, -0.9], [-0.4, -0.9]], np.float32)
    retargeter = Retargeter(model=model, source_landmarks=performance(27)[0])
    result = retargeter.retarget(lost, driver.frame(7)).landmarks
    shown = fit_frames(model, result, retargeter.source.identity).gaze
    limits = np.array(GAZE_LIMITS)
    assert (shown[7] > limits[:, 0] - 0.05).all()
    assert (shown[7] < limits[:, 1] + 0.05).all()
    apart = np.abs(shown[7] - shown[7].mean(0))
    assert (apart < np.array(APART_LIMITS) + 0.05).all()


def test_strength_and_region(model: MorphableModel, performance, driver) -> None:
    source = performance(34)[0]

    def result(**options):
        retargeter = Retargeter(model=model, source_landmarks=source, **options)
        return retargeter.retarget(driver, driver.frame(4))

    np.testing.assert_allclose(
        result(strength=0.0).landmarks, source + np.zeros((60, 1, 1)), atol=0.01
    )
    still = result(region="expression")
    np.testing.assert_allclose(still.rotation, still.rotation[:1] + np.zeros((60, 1, 1)), atol=1e-6)
    mask = fit_frames(model, result(region="pose").landmarks, fit_identity(model, source[None]))
    assert np.abs(mask.expression - mask.expression[:1]).max() < 0.05
    assert np.ptp(mask.angles, axis=0).max() > np.radians(5)
    half = fit_frames(model, result(strength=0.5).landmarks, mask.identity)
    full = fit_frames(model, result().landmarks, mask.identity)
    ratio = np.ptp(half.expression[:, 0]) / np.ptp(full.expression[:, 0])
    assert ratio == pytest.approx(0.5, abs=0.1)


def test_parts_of_the_face_have_strengths_of_their_own(
    model: MorphableModel, performance, driver
) -> None:
    def moves(region: str) -> dict[str, float]:
        retargeter = Retargeter(
            model=model, source_landmarks=performance(34)[0], region=region, strength=1.0
        )
        result = retargeter.retarget(driver, driver.frame(4))
        assert float(np.ptp(result.rotation, axis=0).max()) < 1e-5  # no pose
        found = result.landmarks
        rings = {"lips": "lips_outer", "eyes": "left_eye"}
        parts = {name: topology.ring(ring) for name, ring in rings.items()}
        parts |= {"brows": np.array(topology.brow("left_brow")[1]), "jaw": np.array([152])}
        return {name: float(np.ptp(found[:, part], axis=0).max()) for name, part in parts.items()}

    every = moves("expression")
    for name in ("lips", "eyes", "brows"):
        alone = moves(name)
        assert alone[name] == pytest.approx(every[name], rel=0.15)
        for other in {"lips", "eyes", "brows"} - {name}:
            assert alone[other] < 0.2 * every[other]
    assert moves("lips")["jaw"] == pytest.approx(every["jaw"], rel=0.05)
    half = moves("lips=0.5,brows")
    assert half["lips"] == pytest.approx(0.5 * every["lips"], rel=0.25)
    assert half["brows"] == pytest.approx(every["brows"], rel=0.15)


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ("nose", "none of"),
        ("lips=x", "not a strength"),
        ("eyes=4", "between"),
        ("lips,lips=2", "twice"),
    ],
)
def test_wrong_parts_are_told(region: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Strengths.of(region, 1.0)


def test_size_changes_of_the_driver_are_not_passed_on(
    model: MorphableModel, performance, driver
) -> None:
    zooming = replace(driver, scale=driver.scale * np.linspace(1, 1.6, len(driver)))
    retargeter = Retargeter(model=model, source_landmarks=performance(35)[0])
    result = retargeter.retarget(zooming, zooming.frame(0)).landmarks
    scale = fit_frames(model, result, retargeter.source.identity).scale
    np.testing.assert_allclose(scale, retargeter.source.scale[0], rtol=0.01)


def test_driver_framing_shows_the_drivers_place_and_size(
    model: MorphableModel, performance
) -> None:
    """Absolute motion of one person by pictures of one size gives back the landmarks."""
    landmarks = performance(40, turn=0.1)
    landmarks[30:] += np.array([12, -8, 0], np.float32)
    retargeter = Retargeter(
        model=model, source_landmarks=landmarks[3], motion="absolute", framing="driver"
    )
    own = fit_frames(model, landmarks, retargeter.source.identity)
    for size in ((640, 400), (1280, 800)):
        zoom = size[0] / 640
        moved = replace(own, scale=own.scale * zoom, translation=own.translation * zoom)
        reference = framed(
            moved.frame(3), retargeter.source, driver_size=size, source_size=(640, 400)
        )
        found = retargeter.retarget(moved, reference).landmarks
        error = np.linalg.norm((found - landmarks)[..., :2], axis=-1)
        assert error.mean() < 0.01 * interocular(landmarks[3])


def test_pose_is_clamped_softly_and_counted(model: MorphableModel, performance, driver) -> None:
    yaw = np.linspace(0, np.radians(80), len(driver))
    turning = replace(driver, rotation=rotation_of(yaw[:, None] * np.array([1.0, 0, 0])))
    retargeter = Retargeter(model=model, source_landmarks=performance(36, turn=0.0)[0])
    result = retargeter.retarget(turning, turning.frame(0))
    shown = np.degrees(np.linalg.norm(vector_of(result.rotation), axis=-1))
    assert (np.diff(shown) > -1e-3).all()
    limit = float(np.degrees(TURN_LIMITS[0]))
    assert 0.9 * limit < shown.max() <= limit + 2
    assert 20 < result.clamped.sum() < 45
    assert not result.clamped[:20].any()


def test_turned_heads_are_not_exaggerated(model: MorphableModel, performance, driver) -> None:
    yaw = np.linspace(0, np.radians(80), len(driver))
    turning = replace(driver, rotation=rotation_of(yaw[:, None] * np.array([1.0, 0, 0])))
    source = performance(36, turn=0.0)[0]
    plain, twice = (
        Retargeter(model=model, source_landmarks=source, strength=strength).retarget(
            turning, turning.frame(0)
        )
        for strength in (1, 2)
    )
    before, after = (
        np.degrees(np.linalg.norm(vector_of(each.rotation), axis=-1)) for each in (plain, twice)
    )
    np.testing.assert_allclose(after[:5], 2 * before[:5], atol=0.5)
    assert (after >= before - 0.1).all()
    assert (np.diff(after) > -1e-3).all()
    assert after[20] < np.degrees(EXAGGERATED_LIMITS[0]) + 8
    gaps = [lid_and_lip_gaps(model, each.landmarks) for each in (plain, twice)]
    apart = np.abs(gaps[0] - gaps[1]).mean(-1)
    assert apart[50:].mean() < 0.1 * apart[:10].mean()


def test_reference_is_the_most_similar_good_frame(model: MorphableModel, performance) -> None:
    landmarks = performance(37)
    own = fitted(model, landmarks)
    retargeter = Retargeter(model=model, source_landmarks=landmarks[31])
    assert abs(retargeter.choose_reference(own) - 31) <= 1
    with pytest.raises(ValueError, match="one"):
        retargeter.retarget(own, own)


def test_windows_do_not_matter(model: MorphableModel, performance, driver) -> None:
    retargeter = Retargeter(model=model, source_landmarks=performance(38)[0])
    reference = driver.frame(2)
    whole = retargeter.retarget(driver, reference).landmarks
    parts = [
        retargeter.retarget(driver.frames(slice(a, a + 13)), reference).landmarks
        for a in range(0, 60, 13)
    ]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-3)


def test_rebased_reference_centres_a_shot(model: MorphableModel, performance, driver) -> None:
    moved = replace(
        driver, translation=driver.translation + np.float32(400), scale=driver.scale * 2
    )
    retargeter = Retargeter(model=model, source_landmarks=performance(39)[0])
    reference = driver.frame(2)
    first = retargeter.retarget(driver, rebased(reference, driver)).landmarks
    second = retargeter.retarget(moved, rebased(reference, moved)).landmarks
    assert np.abs(first.mean((0, 1)) - second.mean((0, 1)))[:2].max() < 2
