"""The networks inside the landmark model, one at a time: how sure, which points, which expression.

MediaPipe runs detector, landmarks and blendshapes as one graph that begins anew with each picture.
Whoever knows where a face is needs only the second network, at less than half of the time.

The regions are MediaPipe's: squares half as large again as the face, turned with its eyes.
"""

from __future__ import annotations

import threading
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face import topology
from metaportrait_cli.face.topology import EYE_CORNERS, POINTS
from metaportrait_cli.native import native_stderr_closed

SIDE = 256
"""Pixels of the square that the landmark network looks at."""
DETECTOR_SIDE = 128
DETECTOR_GRIDS = ((16, 2), (8, 6))
"""Cells a side, and boxes that the detector gives for each of them"""
MARGIN = 1.5


@dataclass(frozen=True)
class FaceSquare:
    """A turned square of a picture: centre (2,) and side in pixels, angle in radians."""

    centre: NDArray[np.floating]
    side: float
    angle: float
    """From the picture's x axis to the square's, clockwise as it is seen."""

    @classmethod
    def around(cls, points: NDArray[np.floating]) -> FaceSquare:
        """Where to look for a face whose points (478, 3) were seen in the frame before."""
        (right, _), (left, _) = EYE_CORNERS
        x, y = points[left, :2] - points[right, :2]
        angle = float(np.arctan2(y, x))
        turned = points[:, :2] @ _turning(angle)  # along the axes of the square
        low, high = turned.min(0), turned.max(0)
        centre = _turning(angle) @ ((low + high) / 2)
        return cls(centre, float((high - low).max()) * MARGIN, angle)

    def to_picture(self) -> NDArray[np.float64]:
        """Affine map (2, 3) from a picture of the region, `SIDE` pixels wide, to the whole one."""
        linear = _turning(self.angle) * (self.side / SIDE)
        return np.concatenate(
            [linear, (self.centre - linear @ (SIDE / 2, SIDE / 2))[:, None]], axis=1
        )


def _turning(angle: float) -> NDArray[np.float64]:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


class LandmarkModel:
    """Threads may share it: one waits for the other."""

    def __init__(self, path: Path) -> None:
        """Raises `ImportError` where LiteRT is missing, `WeightsError` for a broken file."""
        try:
            with zipfile.ZipFile(path) as bundle:
                parts = {
                    name: bundle.read(f"{name}.tflite")
                    for name in ("face_detector", "face_landmarks_detector", "face_blendshapes")
                }
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise WeightsError(f"{path}: not a face landmark model: {error}") from None
        self._detector = _Network(parts["face_detector"])
        self._landmarks = _Network(parts["face_landmarks_detector"])
        self._blendshapes = _Network(parts["face_blendshapes"])
        self._cutting = _Cutting()

    @classmethod
    def where_possible(cls, path: Path) -> Self | None:
        """The model, or `None` where LiteRT has no build for this machine."""
        try:
            return cls(path)
        except ImportError:
            return None

    def look(
        self, image: NDArray[np.uint8], region: FaceSquare
    ) -> tuple[NDArray[np.float32], float]:
        """Points (478, 3) of the face in a region of an RGB picture, and how surely there is one.

        The second is in [0, 1]; what the first says of a place without a face means nothing.
        """
        to_picture = region.to_picture()
        # cv2 counts from pixels' centres.
        between_centres = to_picture.copy()
        between_centres[:, 2] += to_picture[:, :2] @ [0.5, 0.5] - 0.5
        brightness = self._cutting(image, between_centres).astype(np.float32)
        brightness *= 1 / 255
        found, presence, _ = self._landmarks(brightness[None])
        there = found.reshape(POINTS, 3)
        points = np.empty((POINTS, 3), np.float32)
        points[:, :2] = there[:, :2] @ to_picture[:, :2].T + to_picture[:, 2]
        points[:, 2] = there[:, 2] * (region.side / SIDE)
        return points, _sigmoid(float(presence.ravel()[0]))

    def blendshapes(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores (52,) in [0, 1] of the expression of a face's points (478, 3)."""
        return self._blendshapes(points[None, topology.expressive(), :2])[0]

    def sureness(self, image: NDArray[np.uint8]) -> float:
        """How surely the RGB picture shows an upright face of a tenth of its size or more."""
        scores, _ = self._faces(image)
        return _sigmoid(float(scores.max()))

    def boxes(self, image: NDArray[np.uint8], *, least: float) -> NDArray[np.float32]:
        """(N, 4) x0, y0, x1, y1: where it may show faces, each many times, at least so surely."""
        scores, found = self._faces(image)
        seen = found[scores >= np.log(least / (1 - least))]
        return np.concatenate([seen[:, :2] - seen[:, 2:] / 2, seen[:, :2] + seen[:, 2:] / 2], 1)

    def _faces(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scores (N,) without bounds, and each one's centre x, y, width and height (N, 4)."""
        height, width = image.shape[:2]
        scale = DETECTOR_SIDE / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        padded = np.zeros((DETECTOR_SIDE, DETECTOR_SIDE, 3), np.float32)
        top, left = (DETECTOR_SIDE - size[1]) // 2, (DETECTOR_SIDE - size[0]) // 2
        padded[top : top + size[1], left : left + size[0]] = small / np.float32(127.5) - 1
        scores, found = self._detector(padded[None])
        places = found[0, :, :4].copy()
        places[:, :2] += _anchors() - np.array([left, top], np.float32)
        return scores.ravel(), places / np.float32(scale)


@cache
def _anchors() -> NDArray[np.float32]:
    """(N, 2) x, y in the detector's picture: from where it counts each of its boxes."""
    grids = []
    for cells, each in DETECTOR_GRIDS:
        centres = (np.arange(cells, dtype=np.float32) + 0.5) * (DETECTOR_SIDE / cells)
        places = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
        grids.append(np.repeat(places, each, axis=0))
    return np.concatenate(grids)


class _Cutting(threading.local):
    """Cuts turned squares out of pictures of one size after another.

    cv2 takes more than twice as long for three channels as for four. A fourth is added where the
    square lies, in place: in a picture of that part alone places would be rounded otherwise.
    """

    def __init__(self) -> None:
        self._picture = np.empty((0, 0, 4), np.uint8)

    def __call__(
        self, image: NDArray[np.uint8], to_picture: NDArray[np.float64]
    ) -> NDArray[np.uint8]:
        """(SIDE, SIDE, 3) of an RGB picture; `to_picture` (2, 3) is between pixels' centres."""
        height, width = image.shape[:2]
        if self._picture.shape[:2] != (height, width):
            self._picture = np.zeros((height, width, 4), np.uint8)
        corners = to_picture[:, :2] @ _CORNERS + to_picture[:, 2:]
        last = np.array([width - 1, height - 1])
        x0, y0 = np.clip(np.floor(corners.min(1)) - 1, 0, last).astype(int).tolist()
        x1, y1 = np.clip(np.ceil(corners.max(1)) + 1, 0, last).astype(int).tolist()
        here = slice(y0, y1 + 1), slice(x0, x1 + 1)
        cv2.cvtColor(image[here], cv2.COLOR_RGB2RGBA, dst=self._picture[here])
        part = cv2.warpAffine(
            self._picture,
            to_picture,
            (SIDE, SIDE),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(cv2.cvtColor(part, cv2.COLOR_RGBA2RGB), np.uint8)


_CORNERS = np.array([[0, SIDE, 0, SIDE], [0, 0, SIDE, SIDE]])


class _Network:
    """One network on one thread; its outputs in the order of their names."""

    def __init__(self, model: bytes) -> None:
        with native_stderr_closed():
            from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415  0.2 s, not always

            self._interpreter: Any = Interpreter(model_content=model, num_threads=1)
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        outputs = sorted(self._interpreter.get_output_details(), key=lambda out: out["name"])
        self._outputs = [out["index"] for out in outputs]
        self._lock = threading.Lock()

    def __call__(self, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with self._lock:
            self._interpreter.set_tensor(self._input, np.ascontiguousarray(values))
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._outputs]


def _sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(value, -80, 80))))
