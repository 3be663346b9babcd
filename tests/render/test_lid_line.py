"""Lids that close shade the eye, and show no glint of it behind when they have."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.face import Face
from metaportrait_cli.render.lid_line import LidLine


def closed(points: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """The face with its right eye's lids nearer by a share of what they are apart."""
    moved = points.copy()
    for upper, lower in topology.LIDS[0]:
        middle = (points[upper] + points[lower]) / 2
        for lid in (upper, lower):
            moved[lid] += share * (middle - points[lid])
    return moved


def test_it_covers_what_is_left_between_closed_lids(
    portrait: NDArray[np.uint8], portrait_face: Face
) -> None:
    points = closed(portrait_face.points, 1.0)
    frame = np.full_like(portrait, 255)
    LidLine(portrait, portrait_face.points).draw(frame, points)
    x, y = points[[p[0] for p in topology.LIDS[0]][2:5], :2].astype(int).T
    assert frame[y, x].max() < 200  # lashes
    changed = np.argwhere((frame < 255).any(-1))[:, ::-1]
    corners = points[list(topology.EYE_CORNERS[0]), :2]
    assert (changed.min(0) > corners.min(0) - 6).all()
    assert (changed.max(0) < corners.max(0) + 6).all()


def test_open_eyes_stay_and_a_lid_that_closes_shades_one_more_and_more(
    portrait: NDArray[np.uint8], portrait_face: Face
) -> None:
    line = LidLine(portrait, portrait_face.points)
    under_lid, other_eye = [], []
    for share in (0.0, 0.2, 0.6, 0.8, 1.0):
        frame = np.full_like(portrait, 255)
        points = closed(portrait_face.points, share)
        line.draw(frame, points)
        upper, lower = topology.LIDS[0][3]
        x, y = (0.7 * points[upper, :2] + 0.3 * points[lower, :2]).astype(int)
        under_lid.append(float(frame[y, x].mean()))
        other_eye.append(float(frame[:, int(points[168, 0]) :].mean()))
    assert under_lid[:2] == [255, 255]
    assert 250 > under_lid[2] > max(under_lid[3:])
    assert other_eye == [255] * 5


def test_its_colour_is_the_lashes(portrait: NDArray[np.uint8], portrait_face: Face) -> None:
    points = closed(portrait_face.points, 1.0)
    dark, light = np.full_like(portrait, 255), np.full_like(portrait, 255)
    LidLine(portrait // 2, portrait_face.points).draw(dark, points)
    LidLine(portrait, portrait_face.points).draw(light, points)
    assert dark.mean() < light.mean()
    grey = np.repeat(portrait.mean(-1, keepdims=True), 3, -1).astype(np.uint8)
    frame = np.full_like(portrait, 255)
    LidLine(grey, portrait_face.points).draw(frame, points)
    assert np.ptp(frame, axis=-1).max() == pytest.approx(0, abs=1)
