"""What the landmark network is shown, and what a search does without."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.face.landmark_model import SIDE, FaceSquare, LandmarkModel, _Cutting
from metaportrait_cli.weights import bundled_path
from tests.clips import scene

MODEL = bundled_path("face_landmarker.task")


def test_a_square_is_cut_as_of_the_whole_picture() -> None:
    random = np.random.default_rng(0)
    cutting = _Cutting()
    for height, width in [(90, 160), (160, 90)]:
        for _ in range(20):
            picture = random.integers(0, 256, (height, width, 3), np.uint8)
            centre = random.uniform(-0.3, 1.3, 2) * (width, height)
            square = FaceSquare(centre, random.uniform(10, 300), random.normal())
            expected = cv2.warpAffine(
                picture,
                square.to_picture(),
                (SIDE, SIDE),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            assert (cutting(picture, square.to_picture()) == expected).all()


def test_a_search_looks_at_no_face_again_and_again(
    portrait: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    look = MediaPipeDetector._look

    def counted(self: MediaPipeDetector, image: NDArray[np.uint8], confidence: float) -> list:
        found = look(self, image, confidence)
        looked.append(len(found))
        return found

    monkeypatch.setattr(MediaPipeDetector, "_look", counted)
    picture = scene(portrait, [(20, 20, 440), (520, 300, 90)], width=640, height=480)
    with MediaPipeDetector(MODEL) as detector:
        faces = detector.search(picture)
        few, looked = sum(looked), []
        monkeypatch.setattr(LandmarkModel, "where_possible", classmethod(lambda *_: None))
    with MediaPipeDetector(MODEL) as plain:
        same = plain.search(picture)
    assert len(faces) == 2
    assert [face.points.tolist() for face in faces] == [face.points.tolist() for face in same]
    assert few < sum(looked)
