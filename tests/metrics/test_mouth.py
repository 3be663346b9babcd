"""Yardsticks of a mouth's inside."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from metaportrait_cli.face import topology
from metaportrait_cli.face.face import Face
from metaportrait_cli.metrics.mouth import ZOOM, MouthOpening, flicker, inside_distance, sharpness


def opened(face: Face, pixels: float) -> MouthOpening:
    points = face.points.copy()
    for upper, lower in topology.INNER_LIPS:
        points[lower, 1] = points[upper, 1] + pixels
    return MouthOpening.of(points)


@pytest.fixture
def opening(portrait_face: Face) -> MouthOpening:
    return opened(portrait_face, 30)


def test_a_shut_mouth_has_no_inside(portrait_face: Face, opening: MouthOpening) -> None:
    assert not opened(portrait_face, 0).is_open
    assert opening.is_open
    assert 0.02 < opening.inside.mean() < 0.5


def test_they_look_between_the_lips_alone(opening: MouthOpening) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 255, (ZOOM, ZOOM, 3)).astype(np.uint8)
    other = rng.integers(0, 255, (ZOOM, ZOOM, 3)).astype(np.uint8)
    # Gradients look a pixel beyond.
    near = cv2.dilate(opening.inside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    same_inside = np.where(near[..., None], truth, other)
    assert inside_distance(same_inside, truth, opening) == 0
    assert sharpness(same_inside, opening) == pytest.approx(sharpness(truth, opening))
    darker = (truth * 0.5).astype(np.uint8)
    assert inside_distance(darker, truth, opening) > 0.2
    blurred = cv2.GaussianBlur(truth, (0, 0), 2)
    assert sharpness(blurred, opening) < 0.2 * sharpness(truth, opening)
    assert flicker(truth, darker, (opening, opening)) == pytest.approx(0.25, abs=0.02)
    assert flicker(truth, same_inside, (opening, opening)) == 0
