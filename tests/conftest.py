"""Shared fixtures: the bundled samples, and small clips made from them."""

from __future__ import annotations

import os
from pathlib import Path

# Tiny networks lose more by waiting for each other's threads than they gain; on a busy machine
# ten times. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.face.face import Face
from metaportrait_cli.weights import bundled_path

# A busy machine is no failure.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.load_profile("default")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def portrait_path() -> Path:
    return ROOT / "samples" / "portrait.png"


@pytest.fixture(scope="session")
def driver_path() -> Path:
    return ROOT / "samples" / "driver.mp4"


@pytest.fixture(scope="session")
def portrait(portrait_path: Path) -> NDArray[np.uint8]:
    """The sample portrait, (512, 512, 3) RGB."""
    return np.asarray(Image.open(portrait_path).convert("RGB"))


@pytest.fixture(scope="session")
def portrait_face(portrait: NDArray[np.uint8]) -> Face:
    with MediaPipeDetector(bundled_path("face_landmarker.task")) as detector:
        return detector.search(portrait)[0]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The clips of the `data` tests; skips where there are none."""
    folder = os.environ.get("METAPORTRAIT_TEST_DATA")
    if not folder or not Path(folder, "index.tsv").is_file():
        pytest.skip("METAPORTRAIT_TEST_DATA names no data folder")
    return Path(folder)
