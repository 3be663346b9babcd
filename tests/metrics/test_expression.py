from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metaportrait_cli.face import topology
from metaportrait_cli.metrics.expression import LEAST_MOTION, arrival, features_by_name
from metaportrait_cli.motion import apertures
from metaportrait_cli.motion.alignment import Floats
from metaportrait_cli.motion.features import FEATURES
from metaportrait_cli.motion.morphable import MorphableModel, interocular

WEIGHTS = Path(__file__).parents[2] / "weights" / "morphable.safetensors"


@pytest.fixture(scope="module")
def face() -> Floats:
    """A face (1, 478, 3) at rest, in units other than eye distances."""
    return 37 * MorphableModel.load(WEIGHTS).mean[None]


def moved(face: Floats, points: list[int], *, x: float = 0, y: float = 0) -> Floats:
    """The face with some points moved, in eye distances."""
    result = face.copy()
    result[:, points] += np.array([x, y, 0]) * interocular(face[0])
    return result


def test_each_feature_tells_its_own_motion_in_eye_distances(face: Floats) -> None:
    lower = [lower for _, lower in topology.INNER_LIPS]
    right_brow, left_brow = (
        [p for line in topology.brow(n) for p in line] for n in ("right_brow", "left_brow")
    )
    lids = [apertures.PAIRS[eye, 1].tolist() for eye in apertures.EYES]
    right, left = topology.MOUTH_CORNERS
    changes = {
        "lip_gap": moved(face, lower, y=0.1),
        "mouth_width": moved(face, [left], x=0.1),
        "mouth_corners": moved(face, [left, right], y=-0.1),
        "right_eye": moved(face, lids[0], y=0.1),
        "left_eye": moved(face, lids[1], y=0.1),
        "right_brow": moved(face, right_brow, y=-0.1),
        "left_brow": moved(face, left_brow, y=-0.1),
        "jaw": moved(face, [152], y=0.1),
    }
    assert tuple(changes) == FEATURES
    rest = features_by_name(face)
    for name, changed in changes.items():
        found = features_by_name(np.concatenate([face, changed]))
        for other in FEATURES:
            expected = 0.1 if other == name else 0
            assert found[other][1] - rest[other][0] == pytest.approx(expected, abs=2e-3), other


def test_gain_and_correlation_of_what_arrives() -> None:
    rng = np.random.default_rng(0)
    driver = rng.normal(size=400) * 0.1
    timid = arrival(driver, 3 + 0.7 * driver)
    assert timid is not None
    assert timid.gain == pytest.approx(0.7)
    assert timid.correlation == pytest.approx(1)
    noisy = arrival(driver, driver + rng.normal(size=400) * 0.1)
    assert noisy is not None
    assert noisy.gain == pytest.approx(1, abs=0.1)
    assert noisy.correlation == pytest.approx(2**-0.5, abs=0.05)
    opposite = arrival(driver, -driver)
    assert opposite is not None
    assert (opposite.gain, opposite.correlation) == pytest.approx((-1, -1))
    still = arrival(driver, np.zeros(400))
    assert still is not None
    assert (still.gain, still.correlation) == (0, 0)


def test_what_does_not_move_has_no_gain() -> None:
    driver = np.array([0, 1.9, 0, 1.9]) * LEAST_MOTION
    assert arrival(driver, driver) is None
    assert arrival(np.ones(1), np.ones(1)) is None
