"""Prepared data made from the sample clip."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.training.data.prepare import FaceFinder, PrepareOptions, looking_with, prepare
from metaportrait_cli.training.data.prepare_runs import PrepareRunsOptions, prepare_runs
from metaportrait_cli.weights import bundled_path

RUNS = PrepareRunsOptions(size=128, runs=2)
OPTIONS = PrepareOptions(size=64, step=4, frames_per_identity=6, files_per_shard=2)


@pytest.fixture(scope="session")
def footage(
    tmp_path_factory: pytest.TempPathFactory, driver_path: Path, portrait_path: Path
) -> Path:
    """A folder with one clip of two people each, a photo, and a file without a face."""
    folder = tmp_path_factory.mktemp("footage")
    shutil.copy(driver_path, folder / "a.mp4")
    shutil.copy(driver_path, folder / "b.mp4")
    shutil.copy(portrait_path, folder / "c.png")
    rows = [
        ("a.mp4", "train", "clip", "a", "real"),
        ("b.mp4", "train", "clip", "b", "generated"),
        ("c.png", "train", "photo", "c", "real"),
        ("missing.mp4", "train", "clip", "d", "real"),
        ("a.mp4", "test", "clip", "a", "real"),
    ]
    with (folder / "index.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("file", "split", "kind", "identity", "origin"))
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="session")
def detector() -> Iterator[MediaPipeDetector]:
    with MediaPipeDetector(bundled_path("face_landmarker.task")) as opened:
        yield opened


@pytest.fixture(scope="session")
def find_faces(detector: MediaPipeDetector) -> FaceFinder:
    return cache(looking_with(detector, step=OPTIONS.step))


@pytest.fixture(scope="session")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, footage: Path, find_faces: FaceFinder
) -> Path:
    """The train split, prepared at 64²."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(footage, folder, OPTIONS, find_faces=find_faces, on_progress=lambda *_: None)
    return folder


@pytest.fixture(scope="session")
def runs(
    tmp_path_factory: pytest.TempPathFactory, footage: Path, detector: MediaPipeDetector
) -> Path:
    """Two runs of the one real clip, at 128²."""
    folder = tmp_path_factory.mktemp("runs")
    prepare_runs(footage, folder, RUNS, detector=detector, on_progress=lambda *_: None)
    return folder
