from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face import correspondence, topology
from metaportrait_cli.face.correspondence import CorrespondenceWarp, add_interpolated
from metaportrait_cli.face.crop import Crop, border_fade
from metaportrait_cli.face.face import Face

SIDE = 256


@pytest.fixture(scope="module")
def landmarks(portrait_face: Face) -> NDArray[np.float32]:
    return Crop.around(portrait_face.points).to_crop(portrait_face.points, SIDE)


@pytest.fixture(scope="module")
def warp(landmarks: NDArray[np.float32]) -> CorrespondenceWarp:
    fade = border_fade(Crop(0, 0, SIDE), width=SIDE, height=SIDE, size=SIDE, share=0.1)
    return CorrespondenceWarp(landmarks, side=SIDE, fade=fade)


def origin_at(shift: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Source positions that the flow gives at points (N, 2) in pixels."""
    places = (points - 0.5).astype(np.float32)
    sampled = cv2.remap(shift, places[None], None, cv2.INTER_LINEAR)[0]
    return points + sampled


def turned(points: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    """Turned about the vertical axis, in weak perspective."""
    angle = np.deg2rad(degrees)
    centre = points.mean(0)
    matrix = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    return ((points - centre) @ np.array(matrix).T + centre).astype(np.float32)


def test_topology_is_a_mesh_with_four_holes() -> None:
    faces = topology.triangles()
    assert faces.shape == (852, 3)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, counts = np.unique(edges, axis=0, return_counts=True)
    rim = set(unique[counts == 1].ravel().tolist())
    rings = ("face_oval", "left_eye", "right_eye", "lips_inner")
    assert rim == set(np.concatenate([topology.ring(name) for name in rings]).tolist())


def test_source_drives_itself_unmoved(
    warp: CorrespondenceWarp, landmarks: NDArray[np.float32]
) -> None:
    flow = warp(landmarks)
    assert np.abs(flow.shift).max() < 1e-3
    assert cv2.contourArea(flow.mouth_gap) < 1.0


@pytest.mark.parametrize("degrees", [-20, 12])
def test_landmarks_come_from_landmarks(
    warp: CorrespondenceWarp, landmarks: NDArray[np.float32], degrees: float
) -> None:
    driven = turned(landmarks, degrees) + np.array([4, -3, 0], np.float32)
    flow = warp(driven)
    # Away from folds and rims, where a neighbouring triangle may lie above.
    steady = [6, 197, 195, 5, 4, 151, 9, 8, 50, 280, 205, 425, 199]
    got = origin_at(flow.shift, driven[steady, :2])
    np.testing.assert_allclose(got, landmarks[steady, :2], atol=0.6)


def test_motion_fades_towards_the_border(
    warp: CorrespondenceWarp, landmarks: NDArray[np.float32]
) -> None:
    shift = warp(landmarks + np.array([12, 5, 0], np.float32)).shift
    rim = np.concatenate([shift[0], shift[-1], shift[:, 0], shift[:, -1]])
    assert np.abs(rim).max() < 0.05
    assert np.abs(np.diff(shift, axis=0)).max() < 1.0  # no fold, no tear
    assert np.abs(np.diff(shift, axis=1)).max() < 1.0


def test_nearer_cheek_hides_the_farther_one() -> None:
    """Two triangles over the same pixels: the later one (nearer) wins."""
    vertices = np.array([[0, 0], [20, 0], [0, 30]] * 2, np.float32)
    triangles = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    values = np.array([[1.0]] * 3 + [[2.0]] * 3, np.float32)
    field = np.zeros((30, 20, 1), np.float32)
    add_interpolated(field, vertices, triangles, values)
    assert set(np.unique(field)) == {0.0, 2.0}
    reversed_field = np.zeros_like(field)
    add_interpolated(reversed_field, vertices, triangles[::-1], values)
    assert set(np.unique(reversed_field)) == {0.0, 1.0}


def test_interpolation_is_linear_and_knows_x_from_y() -> None:
    vertices = np.array([[0, 0], [40, 0], [40, 25], [0, 25]], np.float32)
    triangles = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    field = np.zeros((25, 40, 2), np.float32)
    add_interpolated(field, vertices, triangles, vertices)
    expected = np.stack(np.meshgrid(np.arange(40) + 0.5, np.arange(25) + 0.5), axis=-1)
    np.testing.assert_allclose(field, expected, atol=1e-3)


def test_triangles_beyond_the_picture_are_clipped() -> None:
    vertices = np.array([[-50, -50], [90, -50], [20, 200], [500, 500], [600, 500], [500, 600]])
    field = np.zeros((10, 12, 1), np.float32)
    triangles = np.array([[0, 1, 2], [3, 4, 5]], np.int32)
    add_interpolated(field, vertices.astype(np.float32), triangles, np.ones((6, 1), np.float32))
    assert field.min() == field.max() == 1.0


def test_opened_mouth_keeps_teeth_up_and_reports_the_rest(
    warp: CorrespondenceWarp, landmarks: NDArray[np.float32]
) -> None:
    driven = landmarks.copy()
    lower = [below for _, below in topology.INNER_LIPS]
    driven[lower, 1] += 20
    flow = warp(driven)
    source_gap = landmarks[14, 1] - landmarks[13, 1]
    just_below_upper = driven[13, :2] + np.array([0, 0.6 * source_gap], np.float32)
    got = origin_at(flow.shift, just_below_upper[None])[0]
    assert got[1] - landmarks[13, 1] == pytest.approx(0.6 * source_gap, abs=1.0)
    assert cv2.contourArea(flow.mouth_gap) > 15 * (landmarks[308, 0] - landmarks[78, 0]) / 2
    assert cv2.pointPolygonTest(flow.mouth_gap, (driven[14, 0], driven[14, 1] - 8.0), False) > 0
    assert cv2.pointPolygonTest(flow.mouth_gap, (driven[13, 0], driven[13, 1] + 0.5), False) < 0


def test_edge_of_a_stretched_lip_moves_smoothly(
    warp: CorrespondenceWarp, landmarks: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    driven = landmarks.copy()
    edge = list(correspondence.LIP_EDGE)
    driven[[below for _, below in topology.INNER_LIPS], 1] += 20
    driven[edge, 1] += 18 + 2 * (np.arange(len(edge)) % 2)
    x = np.arange(driven[edge[0], 0] + 4, driven[edge[-1], 0] - 4)
    line = np.column_stack([x, np.interp(x, driven[edge, 0], driven[edge, 1])])

    def roughness() -> float:
        came_from = origin_at(warp(driven).shift, line.astype(np.float32))
        return float(np.abs(np.diff(came_from[:, 1], 2)).mean())

    smooth = roughness()
    monkeypatch.setattr(correspondence, "LIP_SOFTNESS", 0.0)
    assert smooth < 0.5 * roughness()


def test_corners_of_a_grin_go_as_far_as_driven(
    warp: CorrespondenceWarp, landmarks: NDArray[np.float32]
) -> None:
    corners = list(topology.MOUTH_CORNERS)
    middle, width = landmarks[corners, 0].mean(), np.ptp(landmarks[corners, 0])
    away = np.abs(landmarks[:, :2] - landmarks[corners, None, :2]).sum(-1).min(0)
    driven = landmarks.copy()
    aside = np.sign(landmarks[:, 0] - middle)
    driven[:, 0] += aside * 0.12 * width * np.exp(-(((away / width) * 4) ** 2))
    grown = np.abs(driven[corners, 0] - landmarks[corners, 0])
    error = origin_at(warp(driven).shift, driven[corners, :2]) - landmarks[corners, :2]
    assert np.abs(error[:, 0]).max() < 0.1 * grown.min()


def test_closed_eye_shows_lid_not_iris(
    warp: CorrespondenceWarp, landmarks: NDArray[np.float32]
) -> None:
    driven = landmarks.copy()
    for upper, below in topology.LIDS[0]:
        driven[upper] = driven[below]
    origin = origin_at(warp(driven).shift, driven[[145], :2] - np.array([0, 1.5], np.float32))[0]
    # Just above the closed lids comes skin from above the open eye, not the eyeball.
    assert origin[1] < landmarks[159, 1] + 1.0
