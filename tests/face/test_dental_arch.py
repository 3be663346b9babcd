"""Arches met by rays, and what a pose and an opening make of them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.dental_arch import (
    LOWER_LIP,
    SKULL,
    UPPER_LIP,
    Arch,
    Bite,
    Inside,
    SkullPose,
    along_parabola,
    look_inside,
)
from metaportrait_cli.face.face import Face

AHEAD = np.array([0.0, 0.0, 1.0])


@pytest.fixture
def pose(portrait_face: Face) -> SkullPose:
    """Of the portrait, as if it looked straight ahead."""
    points = portrait_face.points
    scale = float(np.linalg.norm(points[468] - points[473])) / 63
    return SkullPose(np.eye(3), scale, points[168])


def opened(points: NDArray[np.float32], height: float) -> NDArray[np.float32]:
    """The face with its inner lips so many pixels apart."""
    moved = points.copy()
    moved[list(LOWER_LIP[1:-1]), 1] = moved[list(UPPER_LIP[1:-1]), 1] + height
    return moved


def look(face: Face, pose: SkullPose, points: NDArray[np.float32]) -> Inside | None:
    bite = Bite.of(pose.to_skull(face.points))
    ring = points[topology.ring("lips_inner"), :2]
    return look_inside(bite, pose, points, size=512, unknown=ring, raised=2.0)


def test_a_ray_meets_the_arch_where_it_is() -> None:
    arch = Arch(bend=0.03, middle=np.array([2.0, 50.0, -10.0]), side=1, size=1.0)
    x = np.array([-20.0, -3.0, 0.0, 15.0])
    on_arch = np.stack([2 + x, np.full(4, 47.0), -10 + 0.03 * x**2], axis=-1)[None]
    for yaw in (0.0, 0.4):
        direction = np.array([np.sin(yaw), 0.1, np.cos(yaw)])
        places, met = arch.places(on_arch - 30 * direction, direction)
        seen = met & (np.abs(places[..., 0] - along_parabola(x, 0.03)) < 1e-3)
        # Looked at from the side, the far end hides behind the middle.
        assert seen[0, :3].all() or yaw > 0
        assert seen[0, 1:3].all()
        np.testing.assert_allclose(places[0, 1:3, 1], -3.0, atol=1e-4)


def test_a_lower_row_counts_from_its_edge_upwards() -> None:
    arch = Arch(bend=0.03, middle=np.zeros(3), side=-1, size=0.5)
    places, _ = arch.places(np.array([[[0.0, 4.0, -9.0]]]), AHEAD)
    assert places[0, 0, 1] == pytest.approx(-8.0)  # 4 mm into the gum, teeth of half the size


def test_closed_lips_show_nothing(portrait_face: Face, pose: SkullPose) -> None:
    assert look(portrait_face, pose, opened(portrait_face.points, 1.0 * pose.scale)) is None


def test_an_open_mouth_shows_both_rows_between_its_lips(
    portrait_face: Face, pose: SkullPose
) -> None:
    points = opened(portrait_face.points, 18 * pose.scale)
    inside = look(portrait_face, pose, points)
    assert inside is not None
    x, y = inside.corner
    column = round(float(points[13, 0])) - x
    open_rows = np.flatnonzero(inside.opening[:, column] > 0.5) + y
    assert open_rows[0] == pytest.approx(points[13, 1], abs=2)
    assert open_rows[-1] == pytest.approx(points[14, 1], abs=2)
    upper, lower = inside.upper[:, column, 1], inside.lower[:, column, 1]
    assert (np.diff(upper) > 0).all()
    assert (np.diff(lower) < 0).all()
    # The lower incisors stand 2 mm above the lip.
    row = np.abs(lower).argmin() + y
    assert row == pytest.approx(points[14, 1] - 2 * pose.scale, abs=1.5)


def test_teeth_fade_as_the_head_turns(portrait_face: Face, pose: SkullPose) -> None:
    points = opened(portrait_face.points, 18 * pose.scale)
    shown = []
    for degrees in (0, 50, 56):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turned = SkullPose(np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]), pose.scale, pose.shift)
        inside = look(portrait_face, turned, points)
        shown.append(0.0 if inside is None else float(inside.opening.max()))
    assert shown[0] == pytest.approx(1, abs=0.01)
    assert 0 < shown[1] < 1
    assert shown[2] == 0


def test_a_skull_is_undone_by_its_pose(portrait_face: Face, pose: SkullPose) -> None:
    skull = pose.to_skull(portrait_face.points)
    back = pose.scale * skull @ pose.rotation.T + pose.shift
    np.testing.assert_allclose(back, portrait_face.points, atol=1e-2)
    assert len(SKULL) == 30
