"""Landmark images: exact for the released layout, deterministic for ours."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from metaportrait_cli.face import topology
from metaportrait_cli.face.face import Face
from metaportrait_cli.render.released.bridge669 import mirror, to_669
from metaportrait_cli.render.released.maps import gaze_points, mouth_mask
from metaportrait_cli.render.released.rasterise import (
    COLOURS_478,
    Points,
    mediapipe478,
    metaportrait669,
    subset58,
)


@pytest.fixture(scope="module")
def golden() -> Path:
    folder = os.environ.get("METAPORTRAIT_TEST_GOLDEN")
    if not folder or not Path(folder, "base", "drawing.safetensors").is_file():
        pytest.skip("METAPORTRAIT_TEST_GOLDEN names no folder of recorded network values")
    return Path(folder, "base")


@pytest.fixture
def points(portrait_face: Face) -> Points:
    """The sample portrait's 478 points in units of its side."""
    return portrait_face.points / np.float32(512)


@pytest.mark.golden
@pytest.mark.parametrize("frame", ["0", "2"])
def test_released_drawing_is_exact(golden: Path, frame: str) -> None:
    recorded = load_file(golden / "drawing.safetensors")
    schema = metaportrait669()
    assert np.array_equal(schema.edges, recorded["edges"])
    assert np.array_equal(schema.colours, recorded["colours"])
    landmarks = recorded[f"kp.{frame}"]
    assert np.array_equal(schema.draw(landmarks), recorded[f"img256.{frame}"])

    inputs = load_file(golden / "inputs.safetensors")
    assert np.array_equal(mouth_mask(landmarks), inputs[f"f{frame}.mouth_mask"][0, 0] > 0)
    assert np.array_equal(gaze_points(landmarks), inputs[f"f{frame}.driving_ldmk"][0, 29:37])


def test_released_layout_is_mirror_symmetric_and_mostly_drawn() -> None:
    schema = metaportrait669()
    edges = {tuple(sorted(edge)) for edge in schema.edges.tolist()}
    assert len(edges) == 616
    assert len(np.unique(schema.edges)) == 582
    pair = mirror()
    assert {tuple(sorted((pair[a], pair[b]))) for a, b in edges} == edges
    assert len(set(subset58().tolist())) == 58


def test_released_colours_are_the_shuffled_lattice() -> None:
    """The last 616 of 729 lattice colours, shuffled by the standard library's seed 0."""
    import random  # noqa: PLC0415

    steps = range(0, 233, 29)
    lattice = [(r, g, b) for r in steps for g in steps for b in steps][-616:]
    random.Random(0).shuffle(lattice)
    assert metaportrait669().colours.tolist() == [list(colour) for colour in lattice]


def test_points_may_leave_the_picture() -> None:
    landmarks = np.full((669, 2), 5.0, np.float32)
    assert not metaportrait669().draw(landmarks).any()
    landmarks[:] = -3.0
    assert not metaportrait669().draw(landmarks).any()
    landmarks[:] = 0.5
    lit = np.argwhere(metaportrait669().draw(landmarks).any(axis=2))
    assert np.abs(lit - 128).max() <= 1


def test_x_is_the_column_and_y_the_row() -> None:
    landmarks = np.tile(np.array([0.25, 0.75], np.float32), (669, 1))
    landmarks[metaportrait669().edges[0, 0]] = (0.5, 0.75)
    lit = np.argwhere(metaportrait669().draw(landmarks, 64).any(axis=2))
    assert set(lit[:, 0]) <= {47, 48, 49}
    assert lit[:, 1].min() <= 16
    assert lit[:, 1].max() >= 32


def test_our_schema_draws_each_part_in_its_colour(points: Points) -> None:
    schema = mediapipe478()
    image = schema.draw(points, 1024)
    for part, colour in COLOURS_478.items():
        near = (np.abs(image.astype(int) - colour).max(axis=2) < 48).sum()
        assert near > 20, part
    assert np.array_equal(image, schema.draw(points, 1024))
    assert image.shape == (1024, 1024, 3)
    coarse = schema.draw(points)
    assert coarse.shape == (256, 256, 3)
    assert not np.array_equal(coarse, schema.draw(points + np.float32(0.3 / 256)))
    with pytest.raises(ValueError, match="478 points"):
        schema.draw(points[:468])


def test_mesh_mirror_is_an_involution() -> None:
    pair = topology.mirror()
    assert np.array_equal(pair[pair], np.arange(478))
    assert pair[33] == 263
    assert pair[61] == 291
    assert pair[10] == 10
    assert pair[468] == 473


def test_the_mask_is_a_box_around_its_points() -> None:
    landmarks = np.full((669, 2), 0.5, np.float32)
    chosen = subset58()
    for slot, at in {14: (0.4, 0.7), 15: (0.6, 0.7), 56: (0.5, 0.65), 57: (0.5, 0.75)}.items():
        landmarks[chosen[slot]] = at
    rows, columns = np.nonzero(mouth_mask(landmarks))
    assert (columns.min(), columns.max()) == (102 - 5, 153 + 5)
    assert (rows.min(), rows.max()) == (166 - 5, 192 + 5)
    landmarks -= 2
    assert not mouth_mask(landmarks).any()  # wholly outside: empty, not wrapped around


def test_bridge_places_eyes_mouth_and_iris(points: Points) -> None:
    layout = to_669(points)
    assert layout.shape == (669, 2)
    assert np.isfinite(layout).all()
    drawn = np.unique(metaportrait669().edges)
    middle = points.mean(axis=0)[:2]
    assert (np.linalg.norm(layout[drawn] - middle, axis=1) > 1e-5).all(), "a point was left out"
    chosen = layout[subset58()]
    mouth_left, mouth_right = chosen[14], chosen[15]
    assert np.linalg.norm(mouth_right - points[291, :2]) < 0.01
    assert np.linalg.norm(mouth_left - points[[61, 78], :2].mean(axis=0)) < 0.02
    for slots, centre, rim in ((range(29, 33), 468, 469), (range(33, 37), 473, 474)):
        radius = np.linalg.norm(points[rim, :2] - points[centre, :2])
        distance = np.linalg.norm(chosen[list(slots)] - points[centre, :2], axis=1)
        assert (distance < 1.5 * radius).all()


def test_bridge_is_mirror_symmetric(points: Points) -> None:
    flipped = points[topology.mirror()] * np.array([-1, 1, 1], np.float32) + np.array(
        [1, 0, 0], np.float32
    )
    pair = mirror()
    there, back = to_669(flipped), to_669(points)
    order = [pair[index] for index in range(669)]
    off_midline = [index for index in range(669) if pair[index] != index]
    expected = back[order] * np.array([-1, 1], np.float32) + np.array([1, 0], np.float32)
    assert np.abs(there - expected)[off_midline].max() < 1e-4
