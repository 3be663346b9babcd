"""What counts as alike, and what doesn't."""

from __future__ import annotations

import numpy as np
import pytest

from metaportrait_cli.face import topology
from metaportrait_cli.face.face import Face
from metaportrait_cli.motion.alignment import rotation_of
from metaportrait_cli.motion.likeness import Likeness, Looks, squared_distances


@pytest.fixture
def face(portrait_face: Face) -> np.ndarray:
    return portrait_face.points


def test_a_moved_and_turned_head_keeps_its_expression(face: np.ndarray) -> None:
    middle = face.mean(0)
    turned = (face - middle) @ rotation_of(np.radians([20.0, -5, 8])).T + middle + (40, -20, 0)
    looks = Looks.of(np.stack([face, turned.astype(np.float32)]), face)
    for name in ("mouth", "lips", "brows", "eyes", "gaze"):
        first, second = getattr(looks, name)
        np.testing.assert_allclose(first, second, atol=5e-3)
    assert np.linalg.norm(looks.turn[1]) == pytest.approx(np.radians(22.1), abs=0.02)
    across, down = looks.place[1]
    assert across > 0.2
    assert down < -0.1


def test_an_opened_mouth_changes_the_mouth_alone(face: np.ndarray) -> None:
    opened = face.copy()
    lower = [pair[1] for pair in topology.INNER_LIPS]
    opened[lower, 1] += 12
    looks = Looks.of(np.stack([face, opened]), face)
    assert np.abs(looks.lips[1] - looks.lips[0]).sum() > 0.05
    np.testing.assert_allclose(looks.turn, 0, atol=1e-3)
    np.testing.assert_allclose(looks.eyes[0], looks.eyes[1], atol=1e-6)
    by_mouth = looks.scaled(Likeness(mouth=0.05, lips=0.05))
    by_eyes = looks.scaled(Likeness(eyes=0.05, gaze=0.05))
    assert squared_distances(by_mouth, by_mouth)[0, 1] > 0.5
    assert squared_distances(by_eyes, by_eyes)[0, 1] < 1e-3
