from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from metaportrait_cli.metrics.motion import shape_distance
from metaportrait_cli.motion.alignment import from_frame, rotation_of, vector_of
from metaportrait_cli.motion.fitting import concatenate, fit_frames, fit_identity, reconstruct
from metaportrait_cli.motion.morphable import MorphableModel


def test_recovers_known_parameters(model: MorphableModel, person) -> None:
    rng = np.random.default_rng(5)
    frames = 40
    expression = rng.normal(size=(frames, model.expression_size)).astype(np.float32)
    gaze = rng.normal(size=(frames, 2, 2)).astype(np.float32) * 0.1
    rotation = rotation_of(rng.uniform(-0.4, 0.4, (frames, 3)))
    scale = rng.uniform(40, 120, frames).astype(np.float32)
    translation = rng.uniform(100, 400, (frames, 3)).astype(np.float32)
    faces = model.shape(person(1), expression, gaze)
    landmarks = from_frame(faces, rotation, scale, translation)
    fit = fit_frames(model, landmarks, person(1))
    assert np.abs(fit.expression - expression).mean() < 0.05
    np.testing.assert_allclose(fit.gaze, gaze, atol=5e-3)
    assert np.degrees(np.abs(vector_of(fit.rotation @ np.swapaxes(rotation, 1, 2)))).max() < 0.5
    np.testing.assert_allclose(fit.scale, scale, rtol=0.01)
    assert fit.error.max() < 0.003


def test_reconstruct_undoes_the_fit_exactly(model: MorphableModel, performance) -> None:
    landmarks = performance(2) + np.random.default_rng(0).normal(size=(60, 478, 3)) * 2
    fit = fit_frames(model, landmarks.astype(np.float32), np.zeros(model.identity_size, np.float32))
    again = reconstruct(model, fit)
    np.testing.assert_allclose(again[..., :2], landmarks[..., :2], atol=2e-3)
    np.testing.assert_allclose(again[:, :468], landmarks[:, :468], atol=2e-3)


def test_gaze_does_not_depend_on_the_depth_that_the_detector_gives_irises(
    model: MorphableModel, person, performance
) -> None:
    landmarks = performance(9, turn=0.5)
    flat = landmarks.copy()
    flat[:, 468:473, 2] = landmarks[:, [33, 133], 2].mean(1, keepdims=True)
    flat[:, 473:478, 2] = landmarks[:, [263, 362], 2].mean(1, keepdims=True)
    gaze = fit_frames(model, landmarks, person(9)).gaze
    np.testing.assert_allclose(fit_frames(model, flat, person(9)).gaze, gaze, atol=1e-4)


def test_identity_is_found_from_many_frames(model: MorphableModel, person, performance) -> None:
    own = shape_distance(fit_identity(model, performance(3)), person(3))
    other = shape_distance(fit_identity(model, performance(3)), person(4))
    assert own < 0.5 < other


def test_identity_does_not_depend_on_frame_size_or_place(model: MorphableModel, performance):
    landmarks = performance(6)
    moved = landmarks * 3.5 + np.array([40, -7, 12], np.float32)
    first, second = fit_identity(model, landmarks), fit_identity(model, moved)
    np.testing.assert_allclose(first, second, atol=0.02)


def test_outliers_hardly_move_the_fit(model: MorphableModel, person, performance) -> None:
    landmarks = performance(7)
    clean = fit_frames(model, landmarks, person(7))
    occluded = landmarks.copy()
    cheek = np.random.default_rng(2).choice(468, 20, replace=False)
    occluded[:, cheek, :2] += 25
    fit = fit_frames(model, occluded, person(7))
    turned = vector_of(fit.rotation @ np.swapaxes(clean.rotation, 1, 2))
    assert np.degrees(np.linalg.norm(turned, axis=-1)).max() < 3
    assert np.abs(fit.translation - clean.translation)[:, :2].max() < 4


def test_frames_are_independent(model: MorphableModel, person, performance) -> None:
    landmarks = performance(8, 30)
    whole = fit_frames(model, landmarks, person(8))
    parts = [fit_frames(model, landmarks[a : a + 7], person(8)) for a in range(0, 30, 7)]
    joined = concatenate(parts)
    np.testing.assert_allclose(joined.expression, whole.expression, atol=0.01)
    assert len(whole.frames(slice(3, 9))) == 6
    np.testing.assert_array_equal(whole.frame(-1).scale, whole.scale[-1:])


def test_wrong_shapes_are_refused(model: MorphableModel) -> None:
    with pytest.raises(ValueError, match="expected"):
        fit_identity(model, np.zeros((0, 478, 3), np.float32))
    with pytest.raises(ValueError, match="expected"):
        fit_identity(model, np.zeros((478, 3), np.float32))


def test_fitting_does_not_import_torch() -> None:
    code = "import sys, metaportrait_cli.motion.retarget; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
