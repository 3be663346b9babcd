"""From clips and photos to shards and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from metaportrait_cli.errors import MediaError
from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.training.data import shards
from metaportrait_cli.training.data.pairs import Faces, PairDataset, is_held_out
from metaportrait_cli.training.data.prepare import (
    FaceFinder,
    Item,
    Sightings,
    chosen_frames,
    prepare,
    read_items,
)
from metaportrait_cli.training.data.shards import (
    pack_points,
    read_index,
    read_recipe,
    unpack_points,
)

from .conftest import OPTIONS


def test_every_usable_file_is_in_the_shards(prepared: Path) -> None:
    faces = Faces.load(prepared)
    assert {clip.identity for clip in faces.clips} == {"a", "b", "c"}
    assert {clip.identity: clip.kind for clip in faces.clips}["c"] == "photo"
    assert len(faces.images) == sum(clip.count for clip in faces.clips)
    assert all(2 <= clip.count <= 6 for clip in faces.clips if clip.kind == "clip")
    assert faces.size == 64


def test_landmarks_lie_where_the_face_is(prepared: Path, detector: MediaPipeDetector) -> None:
    faces = Faces.load(prepared)
    for number in (0, len(faces.images) - 1):
        # The detector wants more pixels than the tiny shards have.
        image = cv2.resize(faces.images[number], (256, 256), interpolation=cv2.INTER_CUBIC)
        found = detector.detect(image)[0].points / 4
        assert np.abs(found[:, :2] - faces.points[number, :, :2]).mean() < 1.0


def test_pictures_survive_the_codec(
    prepared: Path, footage: Path, detector: MediaPipeDetector
) -> None:
    from metaportrait_cli.face.crop import Crop  # noqa: PLC0415
    from metaportrait_cli.media.stills import read_still  # noqa: PLC0415

    faces = Faces.load(prepared)
    at = next(n for n, clip in enumerate(faces.clips) if clip.kind == "photo")
    original = Crop(*faces.clips[at].crop).cut(read_still(footage / "c.png").image, 64)
    stored = faces.images[faces.ranges[at][0]]
    assert np.abs(original.astype(float) - stored).mean() < 6


def test_a_second_run_keeps_finished_shards_and_makes_missing_ones(
    footage: Path, tmp_path: Path, find_faces: FaceFinder
) -> None:
    looked: list[str] = []

    def find(path: Path, item: Item) -> Sightings:
        looked.append(item.file)
        return find_faces(path, item)

    def once() -> None:
        prepare(footage, tmp_path, OPTIONS, find_faces=find, on_progress=lambda *_: None)

    once()
    first = sorted(looked)
    looked.clear()
    once()
    assert looked == []
    _, stems = read_index(tmp_path)
    stems[0].with_suffix(".safetensors").unlink()
    once()
    assert 0 < len(looked) < len(first)
    assert read_recipe(stems[0]) is not None


def test_other_settings_make_other_shards(
    footage: Path, tmp_path: Path, find_faces: FaceFinder
) -> None:
    for count in (3, 5):
        options = replace(OPTIONS, frames_per_identity=count, least_per_clip=2)
        prepare(footage, tmp_path, options, find_faces=find_faces, on_progress=lambda *_: None)
        assert max(clip.count for clip in Faces.load(tmp_path).clips) <= count


def test_broken_off_shard_is_of_neither_run(
    footage: Path, tmp_path: Path, find_faces: FaceFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(count: int) -> None:
        options = replace(OPTIONS, frames_per_identity=count, least_per_clip=2)
        prepare(footage, tmp_path, options, find_faces=find_faces, on_progress=lambda *_: None)

    def broken_off(*_: object) -> None:
        raise KeyboardInterrupt

    once(3)
    _, (stem, *_) = read_index(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "save_file", broken_off)
        with pytest.raises(KeyboardInterrupt):
            once(5)
    assert read_recipe(stem) is None
    with pytest.raises(MediaError, match="no prepared data"):
        read_index(tmp_path)
    once(3)
    table = stem.with_suffix(".safetensors")
    table.write_bytes(table.read_bytes()[:60])
    assert read_recipe(stem) is None
    with pytest.raises(MediaError, match="is damaged"):
        Faces.load(tmp_path)


def test_only_the_split_is_taken(footage: Path) -> None:
    assert [item.file for item in read_items(footage, split="test")] == ["a.mp4"]
    with pytest.raises(MediaError, match="split 'other'"):
        read_items(footage, split="other")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("a.mp4\ttrain\tfilm\tada\treal", "line 3: .* kind be clip or photo"),
        ("a.mp4\ttrain\tclip", "line 3"),
        ("\ttrain\tclip\tada\treal", "line 3"),
    ],
)
def test_an_index_that_is_not_one_is_told_with_its_line(
    line: str, error: str, tmp_path: Path
) -> None:
    header = "file\tsplit\tkind\tidentity\torigin"
    whole = "b.mp4\ttest\tclip\tbo\treal"
    (tmp_path / "index.tsv").write_text("\n".join([header, whole, line]))
    assert read_items(tmp_path, split="test")[0].identity == "bo"
    with pytest.raises(MediaError, match=error):
        read_items(tmp_path, split="train")
    (tmp_path / "index.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MediaError, match="needs the columns"):
        read_items(tmp_path, split="train")


def test_points_are_packed_without_loss() -> None:
    random = np.random.default_rng(0)
    mean = random.integers(0, 2048, (478, 3))
    clips = [
        (mean + random.integers(-300, 300, (count, 478, 3))).astype(np.int16) for count in (1, 3)
    ]
    assert np.array_equal(unpack_points(pack_points(clips), [1, 3]), np.concatenate(clips))


def test_the_kept_frames_differ() -> None:
    random = np.random.default_rng(0)
    still = random.uniform(60, 200, (478, 3)).astype(np.float32)
    turned = still + np.array([20, 0, 0], np.float32)
    track = np.stack([still, still + 0.01, turned, still, turned + 0.01, still])
    kept = chosen_frames(track, count=4)
    assert len(kept) == 2
    assert np.abs(track[kept[0]] - track[kept[1]]).max() > 10


def test_samples_depend_on_their_number_alone(prepared: Path) -> None:
    faces = Faces.load(prepared)

    def samples() -> PairDataset:
        return PairDataset(faces, people=["a", "b", "c"], length=64, seed=3)

    one, other = samples(), samples()
    backwards = {n: other[n] for n in reversed(range(12))}
    for number in range(12):
        sample = one[number]
        for key, value in sample.items():
            assert value.equal(backwards[number][key]), key
        assert sample["source"].shape == (3, 64, 64)
        assert sample["flow"].shape == (2, 128, 128)
        assert not sample["source"].equal(sample["target"])


def test_people_are_held_out_for_good() -> None:
    names = [f"id{n:04d}" for n in range(2000)]
    share = np.mean([is_held_out(name, share=0.05) for name in names])
    assert 0.03 < share < 0.07
    assert not any(is_held_out(name, share=0.0) for name in names)
