"""The model on people it has never seen. Needs clips and the landmark detector's model file."""

from __future__ import annotations

import csv
import os
from itertools import combinations
from pathlib import Path

import cv2
import mediapipe
import numpy as np
import pytest
from mediapipe.tasks.python import BaseOptions, vision

from metaportrait_cli.metrics.motion import identity_leakage, shape_distance
from metaportrait_cli.motion.alignment import Floats
from metaportrait_cli.motion.fitting import fit_frames, fit_identity
from metaportrait_cli.motion.morphable import MorphableModel, interocular
from metaportrait_cli.motion.retarget import Retargeter

DATA = os.environ.get("METAPORTRAIT_TEST_DATA")
DETECTOR = Path(__file__).parents[2] / "weights" / "face_landmarker.task"
PEOPLE, FRAMES = 6, 40

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(DATA is None, reason="METAPORTRAIT_TEST_DATA is not set"),
    pytest.mark.skipif(not DETECTOR.exists(), reason="the landmark detector's model is missing"),
]


@pytest.fixture(scope="module")
def people() -> dict[str, Floats]:
    """Landmarks (T, 478, 3) in pixels, evenly over one clip each of some held-out people."""
    assert DATA is not None
    folder = Path(DATA)
    with (folder / "index.tsv").open() as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["split"] == "test"]
    clips = {row["identity"]: row for row in rows if row["kind"] == "clip"}
    options = vision.FaceLandmarkerOptions(base_options=BaseOptions(str(DETECTOR)))
    found = {}
    with vision.FaceLandmarker.create_from_options(options) as detector:
        for person, row in list(clips.items())[:PEOPLE]:
            capture = cv2.VideoCapture(str(folder / row["file"]))
            wanted = set(np.linspace(0, int(row["frames"]) - 1, FRAMES).astype(int))
            points = []
            for index in range(int(row["frames"])):
                if not capture.grab() or index not in wanted:
                    continue
                picture = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
                height, width = picture.shape[:2]
                image = mediapipe.Image(mediapipe.ImageFormat.SRGB, picture)
                for face in detector.detect(image).face_landmarks:
                    points.append([(p.x * width, p.y * height, p.z * width) for p in face])
            capture.release()
            found[person] = np.array(points, np.float32)
    return found


def test_unseen_people_are_reprojected(model: MorphableModel, people) -> None:
    for landmarks in people.values():
        fit = fit_frames(model, landmarks, fit_identity(model, landmarks))
        assert (fit.error * fit.scale / interocular(landmarks)).mean() < 0.01


def test_halves_of_a_clip_have_the_same_identity(model: MorphableModel, people) -> None:
    halves = {
        person: (
            fit_identity(model, points[: FRAMES // 2]),
            fit_identity(model, points[FRAMES // 2 :]),
        )
        for person, points in people.items()
    }
    for first, second in combinations(halves, 2):
        between = shape_distance(halves[first][0], halves[second][1])
        assert shape_distance(*halves[first]) < between
        assert shape_distance(*halves[second]) < between


def test_no_pair_leaks_the_drivers_face(model: MorphableModel, people) -> None:
    for source_name, source in people.items():
        retargeter = Retargeter(model=model, source_landmarks=source[len(source) // 2])
        for name, points in people.items():
            if name == source_name:
                continue
            driver = fit_frames(model, points, fit_identity(model, points))
            reference = driver.frame(retargeter.choose_reference(driver))
            result = fit_identity(model, retargeter.retarget(driver, reference).landmarks)
            leak = identity_leakage(result, retargeter.source.identity, driver.identity)
            assert leak.share < 0.5
