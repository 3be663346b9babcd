"""Finds the faces in one picture, with their dense landmarks."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.devices import give_freed_memory_back
from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.face import Face, overlap
from metaportrait_cli.face.landmark_model import LandmarkModel
from metaportrait_cli.face.orientation import quarter_turns
from metaportrait_cli.face.topology import POINTS
from metaportrait_cli.native import native_stderr_closed, vision_tasks
from metaportrait_cli.stages import Once

# The detector was trained for selfies; below the first threshold lie paintings, masks and blur.
CONFIDENCE_STEPS = (0.5, 0.2)
DOUBT = 0.5
"""Of a threshold: what the first network is less sure of, in a picture that was made smaller by
other means than MediaPipe's own, isn't found"""
MAX_FACES = 6
SAME_FACE = 0.3
"""Overlap of boxes from which on two are of one face"""
# The detector looks at a 128-pixel copy: a face smaller than about a tenth of the picture is lost
# in it, so a picture is looked at again in overlapping tiles of these fractions of its short side.
TILE_FRACTIONS = (0.6, 0.3)
MIN_TILE_SIDE = 160
LARGE_SHARE = 0.25
"""Of the picture's short side; a larger face is seen at the first look, in the whole."""


class MediaPipeDetector:
    """MediaPipe Tasks FaceLandmarker on single pictures.

    Video mode is not used: it can't be reset between clips and lags behind fast motion; we smooth
    afterwards, with both past and future at hand. Threads may share it: one waits for the other.
    """

    def __init__(self, model: Path) -> None:
        if not model.is_file():
            raise WeightsError(f"face landmark model missing: {model}; reinstall the package")
        self._model = model
        self._landmarkers: dict[float, Any] = {}
        self._lock = threading.Lock()
        self._networks = Once(lambda: LandmarkModel.where_possible(model))
        # MediaPipe's own destructor fails, loudly, when parts of the interpreter have gone first.
        weakref.finalize(self, _close_all, self._landmarkers)

    @property
    def networks(self) -> LandmarkModel | None:
        """The model's networks one at a time; `None` where this machine can't run them so."""
        return self._networks()

    def prepare(self) -> None:
        """Makes ready what a first look needs. The thread that does should be the one that lasts:
        what is let go again is of use to none but the same."""
        with self._lock:
            self._landmarker(CONFIDENCE_STEPS[0])

    def quarter_turns(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> int:
        """Quarter turns counter-clockwise, 0 to 3, that bring a picture with such faces upright."""
        return quarter_turns(self.networks, image, faces) if self.networks is not None else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the models, and memory that looking took."""
        with self._lock:
            if self._landmarkers:
                _close_all(self._landmarkers)
                give_freed_memory_back()

    def detect(
        self, image: NDArray[np.uint8], *, hint: NDArray[np.float32] | None = None
    ) -> list[Face]:
        """Faces from left to right: a look at the whole, and near the hint if that was in vain."""
        return self.detect_all(image, hints=[] if hint is None else [hint])

    def detect_all(
        self, image: NDArray[np.uint8], *, hints: Sequence[NDArray[np.float32]]
    ) -> list[Face]:
        """The same with a hint for each of several faces: looks near those not found at once."""
        faces = self._look(image, CONFIDENCE_STEPS[0])
        missed = [hint for hint in hints if all(overlap(f.box, hint) <= 0.2 for f in faces)]
        if not missed:
            return faces
        nearby = (self._look_near(image, hint, CONFIDENCE_STEPS) for hint in missed)
        return _merged(list(chain(faces, *nearby)))

    def search(self, image: NDArray[np.uint8], *, all_faces: bool = True) -> list[Face]:
        """Faces from left to right, however small or faint: the whole, tiles, lower thresholds.

        Takes many times as long as `detect`; for stills and for frames where a face was lost.
        Unless `all_faces` are wanted, a large one is enough.
        """
        enough = LARGE_SHARE * min(image.shape[:2])
        for confidence in CONFIDENCE_STEPS:
            faces = self._look(image, confidence)
            if not all_faces and any(face.size > enough for face in faces):
                return faces
            for tile in _tiles(image.shape[1], image.shape[0]):
                if any(_holds(tile, face.box) for face in faces) and not self._may_show_others(
                    image, tile, faces, confidence
                ):
                    continue
                # A tile may cut a face, or show one in the folds of a coat: it must be there in
                # a second look too, with the face in the middle.
                for seen in self._look_at(image, tile, confidence):
                    if all(overlap(seen.box, face.box) < SAME_FACE for face in faces):
                        faces += self._look_near(image, seen.box, (confidence,))
            if faces:
                return _merged(faces)
        return []

    def _may_show_others(
        self,
        image: NDArray[np.uint8],
        tile: NDArray[np.float32],
        faces: Sequence[Face],
        confidence: float,
    ) -> bool:
        """Whether a look at the tile may find more than these faces: what its first network tells,
        at a fifth of the time that it takes to see them again."""
        if self.networks is None:
            return True
        x0, y0, x1, y1 = tile.astype(int).tolist()
        boxes = self.networks.boxes(image[y0:y1, x0:x1], least=DOUBT * confidence)
        boxes += np.array([x0, y0, x0, y0], np.float32)
        known = [any(overlap(box, face.box) >= SAME_FACE for face in faces) for box in boxes]
        return not known or not all(known)

    def _look_near(
        self,
        image: NDArray[np.uint8],
        box: NDArray[np.float32],
        confidences: tuple[float, ...],
    ) -> list[Face]:
        centre = (box[:2] + box[2:]) / 2
        half = float(max(box[2:] - box[:2]))
        region = np.concatenate([centre - half, centre + half])
        for confidence in confidences:
            found = self._look_at(image, region, confidence)
            near = [face for face in found if overlap(face.box, box) > 0.1]
            if near:
                return near
        return []

    def _look_at(
        self, image: NDArray[np.uint8], region: NDArray[np.floating], confidence: float
    ) -> list[Face]:
        height, width = image.shape[:2]
        x0, y0 = np.maximum(np.floor(region[:2]), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(region[2:]), (width, height)).astype(int)
        if min(x1 - x0, y1 - y0) < 16:
            return []
        part = np.ascontiguousarray(image[y0:y1, x0:x1])
        scale = max(1.0, 256 / min(part.shape[:2]))
        if scale > 1:
            part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        shift = np.array([x0, y0, 0], np.float32)
        return [
            Face(face.points / scale + shift, face.expression, face.confidence)
            for face in self._look(part, confidence)
        ]

    def _look(self, image: NDArray[np.uint8], confidence: float) -> list[Face]:
        height, width = image.shape[:2]
        with self._lock:
            result = self._landmarker(confidence).detect(_as_image(image))
        # x and y come as fractions of width and height, z as a fraction of the width.
        unit = np.array([width, height, width], np.float32)
        faces = []
        for landmarks, shapes in zip(result.face_landmarks, result.face_blendshapes, strict=True):
            points = np.array([(p.x, p.y, p.z) for p in landmarks], np.float32) * unit
            if points.shape[0] == POINTS and np.isfinite(points).all():
                scores = np.array([shape.score for shape in shapes], np.float32)
                faces.append(Face.of(points, scores, confidence))
        return sorted(faces, key=lambda face: float(face.box[0]))

    def _landmarker(self, confidence: float) -> Any:
        if confidence not in self._landmarkers:
            vision = vision_tasks()
            from mediapipe.tasks.python import BaseOptions  # noqa: PLC0415

            options = vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_path=str(self._model)),
                running_mode=vision.RunningMode.IMAGE,
                num_faces=MAX_FACES,
                min_face_detection_confidence=confidence,
                min_face_presence_confidence=confidence,
                output_face_blendshapes=True,
            )
            with native_stderr_closed():
                landmarker = vision.FaceLandmarker.create_from_options(options)
                # Its threads go on writing until a first picture has passed.
                landmarker.detect(_as_image(np.zeros((128, 128, 3), np.uint8)))
            self._landmarkers[confidence] = landmarker
        return self._landmarkers[confidence]


def _close_all(landmarkers: dict[float, Any]) -> None:
    while landmarkers:
        landmarkers.popitem()[1].close()


def _as_image(image: NDArray[np.uint8]) -> Any:
    import mediapipe  # noqa: PLC0415  half a second of import, needed here only

    return mediapipe.Image(
        image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image)
    )


def _tiles(width: int, height: int) -> list[NDArray[np.float32]]:
    """Overlapping square regions (x0, y0, x1, y1) that cover the picture, large ones first."""
    regions = []
    for fraction in TILE_FRACTIONS:
        side = max(fraction * min(width, height), MIN_TILE_SIDE)
        columns = max(1, int(np.ceil((width - side) / (0.6 * side))) + 1)
        rows = max(1, int(np.ceil((height - side) / (0.6 * side))) + 1)
        for y in np.linspace(0, max(height - side, 0), rows):
            for x in np.linspace(0, max(width - side, 0), columns):
                regions.append(np.array([x, y, x + side, y + side], np.float32))
    return regions


def _holds(tile: NDArray[np.float32], box: NDArray[np.float32]) -> bool:
    """Whether most of a face lies within a tile."""
    shared = np.minimum(tile[2:], box[2:]) - np.maximum(tile[:2], box[:2])
    return float(np.prod(np.maximum(shared, 0))) > 0.5 * float(np.prod(box[2:] - box[:2]))


def _merged(faces: list[Face]) -> list[Face]:
    """Drops the second finding of one face, keeps the surer; left to right."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: (-face.confidence, -face.size)):
        if all(overlap(face.box, other.box) < SAME_FACE for other in kept):
            kept.append(face)
    return sorted(kept, key=lambda face: float(face.box[0]))
