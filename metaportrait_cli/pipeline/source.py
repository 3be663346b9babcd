"""The portrait: picture, face and crop, found once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.errors import NoFaceError
from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.detector import Face, MediaPipeDetector
from metaportrait_cli.face.track import FaceChoice
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.stills import is_still, read_still

# Pictures are worked on and written at no more than this: full HD.
MAX_SIDE = 1920
# A source clip is searched for a face over its first seconds, a few looks a second.
VIDEO_LOOKS = 40
FRAMES_BETWEEN_LOOKS = 6


@dataclass(frozen=True)
class Source:
    """`picture` (H, W, 3) RGB with even H and W, the chosen `face` in its pixels, and its crop."""

    path: Path
    picture: NDArray[np.uint8]
    face: Face
    faces_seen: int
    crop: Crop

    def landmarks(self, size: int) -> NDArray[np.float32]:
        """The face's points (478, 3) in pixels of the crop scaled to `size`."""
        return self.crop.to_crop(self.face.points, size)


def load_source(path: Path, *, choice: FaceChoice, detector: MediaPipeDetector) -> Source:
    """Reads a photo, or a clip's first frame with the face, and finds the face in it.

    Raises `MediaError` for what can't be read, `NoFaceError` where the face isn't there.
    """
    if path.is_file() and is_still(path):
        still = read_still(path)
        image = still.image if still.alpha is None else _on_white(still.image, still.alpha)
        return _source(path, image, choice=choice, detector=detector)
    failure: NoFaceError | None = None
    with open_frames(path) as frames:
        for frame in islice(frames, 0, VIDEO_LOOKS * FRAMES_BETWEEN_LOOKS, FRAMES_BETWEEN_LOOKS):
            try:
                return _source(path, frame.image, choice=choice, detector=detector)
            except NoFaceError as error:
                failure = error
    raise failure or NoFaceError(f"{path}: no face found; give a clip that starts with the face")


def _source(
    path: Path, image: NDArray[np.uint8], *, choice: FaceChoice, detector: MediaPipeDetector
) -> Source:
    picture = _even(_limited(image))
    faces = detector.search(picture)
    face = choice.pick(faces)
    height, width = picture.shape[:2]
    if face is None and faces:
        raise NoFaceError(
            f"{path}: face {choice.number} asked for, but only {len(faces)} found;"
            " faces count from the left, from 1"
        )
    if face is None:
        raise NoFaceError(
            f"{path}: no face found ({width}x{height}); give a picture with a face turned"
            " towards the camera, at least 40 pixels high"
        )
    crop = Crop.around(face.points)
    return Source(path=path, picture=picture, face=face, faces_seen=len(faces), crop=crop)


def _on_white(image: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    weight = alpha[..., None].astype(np.float32) / 255
    return np.rint(image * weight + 255 * (1 - weight)).astype(np.uint8)


def _limited(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = MAX_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Adds a last row or column where the size is odd: video needs even sizes."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
