from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metaportrait_cli.metrics.motion import (
    aed,
    apd,
    identity_leakage,
    landmark_jitter,
    shape_distance,
)
from metaportrait_cli.motion.alignment import rotation_of
from metaportrait_cli.motion.fitting import FaceParameters
from metaportrait_cli.motion.morphable import MorphableModel

WEIGHTS = Path(__file__).parents[2] / "weights" / "morphable.safetensors"


def parameters(expression, angles) -> FaceParameters:
    count = len(expression)
    return FaceParameters(
        identity=np.zeros(4, np.float32),
        expression=np.asarray(expression, np.float32),
        gaze=np.zeros((count, 2, 2), np.float32),
        rotation=rotation_of(np.asarray(angles, np.float32)),
        scale=np.ones(count, np.float32),
        translation=np.zeros((count, 3), np.float32),
        residual=np.zeros((count, 478, 3), np.float32),
        error=np.zeros(count, np.float32),
    )


def test_expression_and_pose_distance() -> None:
    first = parameters([[0.0, 1], [2, 0]], [[0, 0, 0], [0, 0.1, 0]])
    second = parameters([[1.0, 1], [2, -1]], [[0.2, 0, 0], [0, 0.1, 0]])
    assert aed(first, first) == 0
    assert aed(first, second) == pytest.approx(0.5)
    assert apd(first, second) == pytest.approx(np.degrees(0.1), rel=1e-3)


def test_jitter_counts_trembling_at_rest_but_not_steady_motion() -> None:
    face = MorphableModel.load(WEIGHTS).mean
    time = np.arange(60)[:, None, None]
    gliding = 100 * face + np.array([3, 1, 0]) * time
    assert landmark_jitter(gliding) == pytest.approx(0, abs=1e-3)
    noise = np.random.default_rng(0).normal(size=gliding.shape)
    small, large = landmark_jitter(gliding + 0.1 * noise), landmark_jitter(gliding + 0.3 * noise)
    assert large == pytest.approx(3 * small, rel=0.1)
    # Second differences of unit noise deviate by sqrt(6); in the plane that is sqrt(pi / 2) long.
    assert small == pytest.approx(0.1 * np.sqrt(6 * np.pi / 2) * 1000 / 100, rel=0.1)
    assert landmark_jitter(3 * (gliding + 0.1 * noise)) == pytest.approx(small, rel=1e-3)
    with pytest.raises(ValueError, match="four frames"):
        landmark_jitter(gliding[:3])


def test_leakage_tells_whose_face_it_is() -> None:
    source, driver = np.zeros(10, np.float32), np.full(10, 2, np.float32)
    assert shape_distance(source, driver) == pytest.approx(2)
    assert identity_leakage(source, source, driver).share == 0
    assert identity_leakage(driver, source, driver).share == pytest.approx(1)
    assert identity_leakage(source + 0.5, source, driver).share == pytest.approx(0.25)
