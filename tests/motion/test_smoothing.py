from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaportrait_cli.metrics.motion import landmark_jitter
from metaportrait_cli.motion.alignment import Floats, vector_of
from metaportrait_cli.motion.features import FEATURES, features, legible_axes
from metaportrait_cli.motion.fitting import FaceParameters, concatenate, fit_frames, reconstruct
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.motion.smoothing import half_width, smooth, windows

FPS = 25.0


@pytest.fixture
def clip(model: MorphableModel, person, performance) -> FaceParameters:
    noise = np.random.default_rng(0).normal(size=(100, 478, 3)) * 0.4
    return fit_frames(model, (performance(50, 100) + noise).astype(np.float32), person(50))


def test_legible_axes_hold_the_features_first(model: MorphableModel) -> None:
    axes = legible_axes(model)
    np.testing.assert_allclose(axes @ axes.T, np.eye(len(axes)), atol=1e-5)
    effect = features(model.expression_basis * model.expression_jitter[:, None, None])
    assert np.abs(axes[len(FEATURES) :] @ effect).max() < 1e-5 * np.abs(effect).max()


def still(clip: FaceParameters, frames: int = 100) -> FaceParameters:
    """One frame held."""
    return clip.frames(np.zeros(frames, np.intp))


def difference(first: FaceParameters, second: FaceParameters) -> float:
    names = ("expression", "gaze", "rotation", "scale", "translation", "residual")
    return max(float(np.abs(getattr(first, n) - getattr(second, n)).max()) for n in names)


def test_a_constant_face_stays_the_same(model: MorphableModel, clip) -> None:
    held = still(clip)
    assert difference(smooth(model, held, fps=FPS), held) < 1e-3


def test_noise_at_rest_is_reduced(model: MorphableModel, person, clip) -> None:
    face = reconstruct(model, still(clip))
    shaking = face + np.random.default_rng(1).normal(size=face.shape) * 0.3
    raw = fit_frames(model, shaking.astype(np.float32), person(50))
    steady = reconstruct(model, smooth(model, raw, fps=FPS))
    assert landmark_jitter(steady) < 0.3 * landmark_jitter(shaking)


@pytest.mark.parametrize("fps", [15.0, 25.0, 59.94])
def test_window_by_window_equals_the_whole(model: MorphableModel, clip, fps) -> None:
    whole = smooth(model, clip, fps=fps, cuts=[41])
    parts = []
    for window in windows(len(clip), size=30, overlap=half_width(fps)):
        part = clip.frames(slice(window.start, window.stop))
        cuts = [41 - window.start] if window.start < 41 else []
        parts.append(smooth(model, part, fps=fps, cuts=cuts).frames(window.keep))
    assert difference(concatenate(parts), whole) < 1e-3


def test_windows_cover_every_frame_once() -> None:
    kept = [
        index
        for window in windows(107, size=25, overlap=9)
        for index in range(window.start, window.stop)[window.keep]
    ]
    assert kept == list(range(107))


def bump(centre: int, width: float, frames: int = 100) -> Floats:
    return np.exp(-0.5 * ((np.arange(frames) - centre) / width) ** 2).astype(np.float32)


def test_zero_phase(model: MorphableModel, clip) -> None:
    """A movement and its time-reversed copy are treated alike, and peaks stay where they are."""
    backwards = clip.frames(np.arange(len(clip))[::-1])
    steady = smooth(model, clip, fps=FPS)
    steady_backwards = smooth(model, backwards, fps=FPS)
    assert difference(steady_backwards.frames(np.arange(len(clip))[::-1]), steady) < 1e-3
    nod = still(clip)
    nod.expression[:, 0] += 2 * bump(50, 8)
    found = smooth(model, nod, fps=FPS).expression[:, 0]
    assert abs(int(found.argmax()) - 50) <= 1


def test_a_blink_keeps_its_depth_and_time(model: MorphableModel, clip) -> None:
    blink = still(clip)
    blink.expression[:, 5] -= 3 * bump(40, 1.2)
    noise = np.random.default_rng(2).normal(size=blink.expression.shape) * model.expression_jitter
    found = smooth(model, replace(blink, expression=blink.expression + noise), fps=FPS)
    depth = found.expression[:, 5] - blink.expression[0, 5]
    assert depth.argmin() == 40
    assert depth.min() < -2.4
    assert np.abs(depth[:30]).max() < 0.3


@pytest.mark.parametrize("feature", ["lip_gap", "mouth_width", "right_brow"])
def test_a_syllable_keeps_its_height(model: MorphableModel, clip, feature) -> None:
    """Peaks two or three frames wide, spread over all coefficients, under the detector's noise."""
    index = FEATURES.index(feature)
    effect = features(model.expression_basis)[:, index]
    talking = still(clip)
    peaks = range(10, 95, 7)
    for peak in peaks:
        talking.expression[:] += bump(peak, 0.9)[:, None] * effect * (0.1 / (effect @ effect))
    noise = np.random.default_rng(3).normal(size=talking.expression.shape)
    shaking = replace(talking, expression=talking.expression + noise * model.expression_jitter)
    found = smooth(model, shaking, fps=FPS).expression @ effect
    rest = clip.expression[0] @ effect
    assert (found - rest)[list(peaks)].mean() > 0.95 * 0.1
    between = [peak + 3 for peak in peaks]
    assert np.abs(found - rest)[between].mean() < 0.1 * 0.1


def test_fast_turns_are_kept(model: MorphableModel, clip) -> None:
    steady = smooth(model, clip, fps=FPS)
    off = vector_of(steady.rotation @ np.swapaxes(clip.rotation, 1, 2))
    assert np.degrees(np.abs(off)).mean() < 0.7


def test_nothing_crosses_a_cut(model: MorphableModel, clip) -> None:
    first, second = still(clip, 50), still(clip.frames(slice(60, 61)), 50)
    second = replace(second, translation=second.translation + 1, scale=second.scale * 1.01)
    joined = concatenate([first, second])
    assert difference(smooth(model, joined, fps=FPS, cuts=[50]), joined) < 1e-3
    assert difference(smooth(model, joined, fps=FPS), joined) > 1e-2


def test_very_short_clips(model: MorphableModel, clip) -> None:
    for length in (1, 2, 3):
        assert len(smooth(model, clip.frames(slice(0, length)), fps=FPS)) == length
