"""Runs of frames: prepared, degraded, referred."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from metaportrait_cli.errors import MediaError, UsageError
from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.training.data.prepare_runs import (
    PrepareRunsOptions,
    prepare_runs,
    sharp_crop,
    spread_runs,
)
from metaportrait_cli.training.data.runs import WAYS, RunDataset, Runs, SRSample, run_people
from metaportrait_cli.training.data.shards import RUN_FRAMES, low_path, read_index, run_starts

from .conftest import RUNS

PATCH = 24


def samples(runs: Path, *, way: str | None = None, with_reference: float = 1.0) -> list[SRSample]:
    loaded = Runs.load(runs)
    ways = [float(way in (None, name)) for name in WAYS]
    dataset = RunDataset(
        loaded,
        people=run_people(loaded),
        length=6,
        seed=0,
        patch=PATCH,
        frames=5,
        with_reference=with_reference,
        ways=ways,
    )
    return [dataset[number] for number in range(6)]


def distance(sample: SRSample) -> float:
    """Of the input from the truth at half of its size, without a pixel at the edge."""
    small = torch.nn.functional.avg_pool2d(sample.truth, 2)
    return float((small - sample.frames)[..., 1:-1, 1:-1].abs().mean())


def test_runs_are_even_and_whole() -> None:
    assert spread_runs(70, 2) == [range(14, 21), range(49, 56)]
    assert spread_runs(10, 3) == [range(1, 8)]
    assert spread_runs(RUN_FRAMES - 1, 3) == []


def test_runs_begin_where_numbers_jump() -> None:
    assert run_starts(np.array([4, 5, 6, 0, 1, 2, 9], np.int32)).tolist() == [0, 3, 6]


def test_a_crop_is_never_enlarged_where_there_is_more_of_the_picture() -> None:
    points = np.array([[100, 80, 0], [200, 180, 0]] * 239, np.float32)
    crop = sharp_crop(points, size=300, width=400, height=320)
    assert crop.side == 300
    assert 0 <= crop.x0 <= 100
    assert 0 <= crop.y0 <= 20
    assert sharp_crop(points, size=128, width=400, height=320).side > 128
    assert sharp_crop(points, size=512, width=400, height=320).side == 320


def test_only_real_clips_are_taken(runs: Path) -> None:
    loaded = Runs.load(runs)
    assert [clip.file for clip in loaded.clips] == ["a.mp4"]
    assert len(loaded.images) == RUNS.runs * RUN_FRAMES
    assert loaded.images.shape[1:] == (RUNS.size, RUNS.size, 3)
    assert loaded.low.shape[1] == RUNS.size // 2
    assert loaded.starts.tolist() == [0, RUN_FRAMES]
    assert loaded.clip_of.tolist() == [0, 0]


def test_finished_shards_are_kept(
    runs: Path, footage: Path, detector: MediaPipeDetector, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(runs, again)
    before = (again / "shard-0000.mp4").stat().st_mtime_ns

    def prepare(options: PrepareRunsOptions) -> None:
        prepare_runs(footage, again, options, detector=detector, on_progress=lambda *_: None)

    prepare(RUNS)
    assert (again / "shard-0000.mp4").stat().st_mtime_ns == before
    prepare(replace(RUNS, runs=1))
    assert (again / "shard-0000.mp4").stat().st_mtime_ns != before


def test_frames_without_a_low_copy_are_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "broken")
    _, names = read_index(tmp_path / "broken")
    low_path(names[0]).unlink()
    with pytest.raises(MediaError, match="runs"):
        Runs.load(tmp_path / "broken")


def test_nonsense_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="runs"):
        PrepareRunsOptions(runs=0)
    with pytest.raises(UsageError, match="size"):
        PrepareRunsOptions(size=100)


def test_samples_have_the_shapes_that_the_network_takes(runs: Path) -> None:
    for sample in samples(runs):
        assert sample.frames.shape == (5, 3, PATCH, PATCH)
        assert sample.truth.shape == (5, 3, 2 * PATCH, 2 * PATCH)
        assert sample.reference is not None
        assert sample.reference.image.shape == sample.truth.shape
        assert sample.reference.valid.shape == (5, 1, 2 * PATCH, 2 * PATCH)
        for picture in (sample.frames, sample.truth, sample.reference.valid):
            assert 0 <= picture.min() <= picture.max() <= 1


def test_inputs_lie_where_their_truth_does(runs: Path) -> None:
    for way in WAYS:
        for sample in samples(runs, way=way):
            shifted = replace(sample, frames=sample.frames.roll(2, dims=-1))
            assert distance(sample) < 0.06, way
            assert distance(sample) < distance(shifted), way


def test_references_lie_near_the_truth(runs: Path) -> None:
    near = []
    for sample in samples(runs, way="halved"):
        assert sample.reference is not None
        valid = sample.reference.valid
        near.append(((sample.reference.image - sample.truth).abs() * valid).mean())
    assert torch.stack(near).mean() < 0.05


def test_a_sample_is_a_function_of_its_number(runs: Path) -> None:
    for first, second in zip(samples(runs), samples(runs), strict=True):
        assert torch.equal(first.frames, second.frames)
        assert torch.equal(first.truth, second.truth)


def test_references_can_be_left_out(runs: Path) -> None:
    assert all(sample.reference is None for sample in samples(runs, with_reference=0.0))
