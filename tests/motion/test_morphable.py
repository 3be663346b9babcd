from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaportrait_cli.errors import MediaError, WeightsError
from metaportrait_cli.face.topology import EYE_CORNERS, IRISES, MESH_POINTS, POINTS
from metaportrait_cli.motion.alignment import (
    angles_of,
    from_frame,
    rotation_of,
    rotation_of_vector,
    similarity,
    to_frame,
    vector_of,
)
from metaportrait_cli.motion.morphable import MorphableModel, gaze_of, interocular
from metaportrait_cli.training.data.tracks import Track, load_tracks
from metaportrait_cli.training.morphable.learn import learn


def test_mean_face_has_the_stated_frame(model: MorphableModel) -> None:
    mean = model.mean
    assert interocular(mean) == pytest.approx(1, abs=1e-4)
    chin, forehead, nose_tip = mean[152], mean[10], mean[1]
    assert chin[1] > 1 > -0.5 > forehead[1]  # y points down
    assert nose_tip[2] < chin[2] < 0  # z points away from the camera
    assert mean[EYE_CORNERS[1][0], 0] > 0  # the person's left is the picture's right
    assert abs(nose_tip[0]) < 1e-4


def test_mirrored_faces_have_the_same_coefficients_up_to_parity(model: MorphableModel) -> None:
    rng = np.random.default_rng(3)
    identity = rng.normal(size=model.identity_size).astype(np.float32)
    expression = rng.normal(size=(4, model.expression_size)).astype(np.float32)
    gaze = rng.normal(size=(4, 2, 2)).astype(np.float32) * 0.1
    face = model.mirrored(model.shape(identity, expression, gaze))
    other_gaze = gaze[:, ::-1] * np.array([-1, 1], np.float32)
    mirror = model.shape(
        identity * model.identity_parity, expression * model.expression_parity, other_gaze
    )
    # float16 storage of the bases rounds either side in its own way
    np.testing.assert_allclose(face, mirror, atol=2e-3)
    assert set(np.unique(model.identity_parity)) == {-1, 1}


def test_mirror_map_is_an_involution_that_swaps_sides(model: MorphableModel) -> None:
    mirror = model.mirror
    assert np.array_equal(mirror[mirror], np.arange(POINTS))
    assert mirror[33] == 263
    assert mirror[61] == 291
    assert mirror[IRISES[0][0]] == IRISES[1][0]
    assert mirror[13] == 13
    with pytest.raises(ValueError, match="own inverse"):
        replace(model, mirror=np.roll(mirror, 1))


def test_irises_are_where_the_gaze_puts_them(model: MorphableModel) -> None:
    gaze = np.array([[[0.2, -0.1], [0.25, 0.05]]], np.float32)
    face = model.with_irises(model.mean[None, :MESH_POINTS], gaze)
    np.testing.assert_allclose(gaze_of(face), gaze, atol=1e-5)
    straight = model.with_irises(model.mean[None, :MESH_POINTS], gaze * 0)
    assert (face[0, list(IRISES[0]), 0] > straight[0, list(IRISES[0]), 0]).all()  # looks right


def test_save_and_load_round_trip(model: MorphableModel, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path, {"people": "3"})
    again = MorphableModel.load(path)
    np.testing.assert_array_equal(again.identity_basis, model.identity_basis)
    assert again.noise == model.noise
    assert path.stat().st_size < 500_000


@pytest.mark.parametrize("content", [b"", b"not a model" * 100])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        MorphableModel.load(path)
    with pytest.raises(WeightsError, match="missing"):
        MorphableModel.load(tmp_path / "none.safetensors")


def test_rotations() -> None:
    rng = np.random.default_rng(0)
    angles = rng.uniform(-1.2, 1.2, (50, 3)).astype(np.float32)
    rotation = rotation_of(angles)
    np.testing.assert_allclose(angles_of(rotation), angles, atol=1e-5)
    np.testing.assert_allclose(rotation_of_vector(vector_of(rotation)), rotation, atol=1e-5)
    np.testing.assert_allclose(vector_of(np.eye(3)), 0, atol=1e-7)
    front = np.array([0, 0, -1.0])
    assert (rotation_of(np.array([0.3, 0, 0])) @ front)[0] < 0  # positive yaw: picture's left
    assert (rotation_of(np.array([0, 0.3, 0])) @ front)[1] > 0  # positive pitch: down
    assert (rotation_of(np.array([0, 0, 0.3])) @ [1, 0, 0])[1] > 0  # positive roll: clockwise


def test_similarity_recovers_a_known_one() -> None:
    rng = np.random.default_rng(1)
    shapes = rng.normal(size=(5, 30, 3)).astype(np.float32)
    rotation = rotation_of(rng.uniform(-1, 1, (5, 3)))
    scale = rng.uniform(20, 90, 5).astype(np.float32)
    translation = rng.uniform(-200, 400, (5, 3)).astype(np.float32)
    points = from_frame(shapes, rotation, scale, translation)
    weights = rng.uniform(0.1, 2, (5, 30)).astype(np.float32)
    found = similarity(shapes, points, weights)
    np.testing.assert_allclose(found[0], rotation, atol=1e-4)
    np.testing.assert_allclose(found[1], scale, rtol=1e-4)
    np.testing.assert_allclose(found[2], translation, atol=0.02)
    np.testing.assert_allclose(to_frame(points, *found), shapes, atol=1e-3)


def test_learning_explains_people_it_has_not_seen(model: MorphableModel, performance) -> None:
    tracks = [
        Track(f"person {seed}", performance(seed, 8), np.arange(8, dtype=np.int64))
        for seed in range(60)
    ]
    found, statistics = learn(tracks, identity_size=30, expression_size=25, rounds=2)
    assert statistics.people == 60
    assert statistics.dropped == 0
    assert np.array_equal(found.mirror, model.mirror)
    assert interocular(found.mean) == pytest.approx(1, abs=1e-4)
    # Same unit and frame: the average face of sixty invented people is near the model's.
    assert np.abs(found.mean - model.mean).max() < 0.15
    flipped = found.expression_basis[:, found.mirror[:MESH_POINTS]] * np.array([-1, 1, 1])
    expected = found.expression_basis * found.expression_parity[:, None, None]
    np.testing.assert_allclose(flipped, expected, atol=1e-5)


def test_tracks_are_read_with_their_people(tmp_path: Path, performance) -> None:
    frames = performance(1, 5)
    np.savez(tmp_path / "a.npz", landmarks=frames, identity="ada", frame=np.arange(5) * 3)
    np.savez(tmp_path / "b.npz", landmarks=frames)
    first, second = load_tracks(tmp_path)
    assert (first.person, second.person) == ("ada", "b")
    assert list(first.frame) == [0, 3, 6, 9, 12]
    holed = np.where(np.arange(478)[:, None] == 3, np.nan, frames)
    wrongs: list[dict[str, Any]] = [
        {"landmarks": frames[:, :68]},
        {"landmarks": frames[:0]},
        {"landmarks": holed},
        {"landmarks": frames, "frame": np.arange(4)},
        {"landmarks": frames, "blendshapes": np.zeros((5, 3))},
        {"points": frames},
    ]
    for wrong in wrongs:
        np.savez(tmp_path / "c.npz", **wrong)
        with pytest.raises(MediaError, match=r"c\.npz"):
            load_tracks(tmp_path)
    (tmp_path / "c.npz").write_bytes(b"no archive")
    with pytest.raises(MediaError, match=r"c\.npz"):
        load_tracks(tmp_path)
    with pytest.raises(MediaError, match=r"no \.npz"):
        load_tracks(tmp_path / "nowhere")


def test_a_few_people_are_too_few_to_learn_from(performance) -> None:
    with pytest.raises(MediaError, match="more people"):
        learn([Track("ada", performance(1, 5), np.arange(5))])
