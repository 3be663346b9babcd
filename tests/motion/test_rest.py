from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaportrait_cli.face.face import BLENDSHAPE_COUNT
from metaportrait_cli.motion import apertures
from metaportrait_cli.motion.alignment import Floats, from_frame
from metaportrait_cli.motion.features import FEATURES, feature_operator, features, legible_axes
from metaportrait_cli.motion.fitting import FaceParameters, fit_frames, fit_identity, still_faces
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.motion.rest import BROWS_FROM_PICTURE, at_rest, near_picture
from metaportrait_cli.motion.retarget import Retargeter

SMILE = [44, 45]
JAW_OPEN = 25


def seen(model: MorphableModel, performance, seed: int, smile, jaw=0.0):
    """Fitted frames of someone who smiles and opens the mouth by (T,), and their blendshapes."""
    frames = 24
    shapes = np.tile(model.blendshape_rest, (frames, 1))
    shapes[:, SMILE] = np.broadcast_to(smile, frames)[:, None]
    shapes[:, JAW_OPEN] = jaw
    person = fit_identity(model, performance(seed))
    expression = (shapes - model.blendshape_rest) @ model.blendshape_effect
    faces = model.shape(person, expression.astype(np.float32), np.zeros((frames, 2, 2), np.float32))
    count = np.ones(frames, np.float32)
    turn = np.tile(np.eye(3, dtype=np.float32), (frames, 1, 1))
    landmarks = from_frame(faces, turn, 90 * count, np.full((frames, 3), 200, np.float32))
    return landmarks.astype(np.float32), shapes.astype(np.float32)


def fitted(model: MorphableModel, landmarks: Floats) -> FaceParameters:
    return fit_frames(model, landmarks, fit_identity(model, landmarks))


def corners(model: MorphableModel, faces: Floats) -> Floats:
    return features(faces)[..., FEATURES.index("mouth_corners")]


def test_a_smile_held_all_along_is_no_part_of_the_rest(model: MorphableModel, performance) -> None:
    plain = still_faces(model, fitted(model, seen(model, performance, 60, 0.0)[0]))
    landmarks, shapes = seen(model, performance, 60, np.linspace(0.6, 0.9, 24))
    smiling = fitted(model, landmarks)
    rest = still_faces(model, at_rest(model, smiling, shapes))
    raised = corners(model, still_faces(model, smiling)).mean() - corners(model, plain).mean()
    assert raised > 0.03
    assert corners(model, rest)[0] == pytest.approx(corners(model, plain)[0], abs=float(raised) / 4)


def test_at_rest_lips_touch_and_eyes_are_open(model: MorphableModel, performance) -> None:
    landmarks, shapes = seen(model, performance, 61, 0.5, np.linspace(0.1, 0.6, 24))
    shut = fitted(model, landmarks)
    rest = apertures.gaps(still_faces(model, at_rest(model, shut, shapes)))
    np.testing.assert_allclose(rest[:, apertures.LIPS], 0, atol=1e-4)
    assert rest[:, apertures.EYES[0]].mean() > 0.05


def test_expression_is_counted_from_either_persons_rest(model: MorphableModel, performance) -> None:
    """A smiling clip lets a plain photo smile; under a plain clip a smiling photo is plain."""
    plain, grin = seen(model, performance, 62, 0.0), seen(model, performance, 63, 0.8, 0.3)
    for source, driver, smiles in ((plain, grin, True), (grin, plain, False)):
        retargeter = Retargeter(
            model=model, source_landmarks=source[0][0], source_blendshapes=source[1][:1]
        )
        performer = fitted(model, driver[0])
        reference = at_rest(model, performer, driver[1])
        result = retargeter.retarget(performer, reference, start=retargeter.rest).landmarks
        shown = still_faces(model, fit_frames(model, result, retargeter.source.identity))
        rest = corners(model, still_faces(model, retargeter.rest))
        lips = apertures.mouth_openness(shown).mean()
        assert (corners(model, shown).mean() - rest > 0.02) == smiles
        assert lips == pytest.approx(
            apertures.mouth_openness(still_faces(model, performer)).mean(), abs=0.02
        )


def test_half_the_strength_leaves_half_of_the_photo(model: MorphableModel, performance) -> None:
    plain, grin = seen(model, performance, 64, 0.0), seen(model, performance, 65, 0.8)
    shown = []
    for strength in (0.0, 0.5, 1.0):
        retargeter = Retargeter(
            model=model,
            source_landmarks=grin[0][0],
            source_blendshapes=grin[1][:1],
            strength=strength,
        )
        performer = fitted(model, plain[0])
        reference = at_rest(model, performer, plain[1])
        result = retargeter.retarget(performer, reference, start=retargeter.rest).landmarks
        shown.append(fit_frames(model, result, retargeter.source.identity).expression.mean(0))
    photo, half, whole = shown
    change = whole - photo
    assert (half - photo) @ change / (change @ change) == pytest.approx(0.5, abs=0.1)


def test_the_operator_changes_one_feature_alone(model: MorphableModel) -> None:
    changed = np.tensordot(feature_operator(model), model.expression_basis, axes=1)
    np.testing.assert_allclose(features(changed), np.eye(len(FEATURES)), atol=1e-3)
    assert model.blendshape_effect.shape == (BLENDSHAPE_COUNT, model.expression_size)


def test_of_what_no_feature_tells_half_counts_as_the_rest(
    model: MorphableModel, performance
) -> None:
    """One clip isn't sure of it; the height of brows and the mouth's width are as they are."""
    landmarks, shapes = seen(model, performance, 66, np.linspace(0.0, 0.4, 24))
    plain = fitted(model, landmarks)
    axes, jitter = legible_axes(model), model.expression_jitter
    for axis, share in ((FEATURES.index("right_brow"), 1.0), (len(FEATURES) + 3, 0.5)):
        held = 2 * axes[axis] * jitter
        other = replace(plain, expression=plain.expression + held)
        change = at_rest(model, other, shapes).expression - at_rest(model, plain, shapes).expression
        kept = (change[0] / jitter) @ axes[axis] / 2
        assert kept == pytest.approx(share, abs=0.05)


def test_brows_rest_near_the_picture(model: MorphableModel, performance) -> None:
    shown = fitted(model, performance(3)).frame(0)
    brows = [FEATURES.index(name) for name in ("right_brow", "left_brow")]
    for lower, kept in ((0.01, 0.01), (0.2, BROWS_FROM_PICTURE)):
        wanted = np.zeros((1, len(FEATURES)))
        wanted[:, brows], wanted[:, 0] = -lower, 0.05
        rest = replace(shown, expression=shown.expression + wanted @ feature_operator(model))
        near = near_picture(model, rest, shown)
        away = features(still_faces(model, near)) - features(still_faces(model, shown))
        np.testing.assert_allclose(away[0, brows], -kept, atol=1e-3)
        np.testing.assert_allclose(away[0, 0], 0.05, atol=1e-3)
