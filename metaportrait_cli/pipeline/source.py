"""From files to the portrait: read, and the face found, once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from metaportrait_cli.errors import MediaError, NoFaceError
from metaportrait_cli.face.crop import MOST_GROWTH, Crop
from metaportrait_cli.face.detector import MediaPipeDetector
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.matte import Segmenter, head_box, matte
from metaportrait_cli.face.orientation import turned
from metaportrait_cli.face.source import Source
from metaportrait_cli.face.track import FaceChoice
from metaportrait_cli.media.reader import open_frames
from metaportrait_cli.media.srgb import split_srgb
from metaportrait_cli.media.stills import is_still, read_still
from metaportrait_cli.motion.alignment import similarity, vector_of
from metaportrait_cli.weights import bundled_path

# Pictures are worked on and written at no more than this: full HD.
MAX_SIDE = 1920
# A source clip is searched for a face over its first seconds, a few looks a second.
VIDEO_LOOKS = 40
FRAMES_BETWEEN_LOOKS = 6
# Further frames of a source clip that are kept as views: so many, so many degrees apart.
MAX_FURTHER_FRAMES = 4
FURTHER_TURN = 9.0
# Beside the largest face, others count from this share of its size on.
LEAST_BESIDE = 0.3
OPAQUE = 255
LEAST_FACE = 40
"""Height in pixels of a face that is found, in a picture of at most `MAX_SIDE`"""
SILHOUETTE_SIDE = 256
"""Pixels in which a head's hair is looked for: no more are in the segmenter's own picture"""


Picture = str | os.PathLike[str] | NDArray[np.uint8] | Image.Image
"""A photo or a clip on disk, a picture (H, W, 3) RGB, or one of Pillow's."""


def name_of(picture: Picture) -> str:
    """For reports."""
    return str(picture) if isinstance(picture, (str, os.PathLike)) else "picture"


def listed(source: Picture | Sequence[Picture] | None) -> Sequence[Picture]:
    """One picture, or several."""
    if source is None:
        return []
    if isinstance(source, Sequence) and not isinstance(source, str):
        return source
    return [source]


def load_faces(
    pictures: Sequence[Picture], *, choice: FaceChoice, detector: MediaPipeDetector
) -> list[Source]:
    """The portraits of some pictures' person, of whom there is one; or of all in the only one."""
    if choice.every:
        return load_every_face(pictures[0], detector=detector)
    return [load_sources(pictures, choice=choice, detector=detector)]


def load_sources(
    pictures: Sequence[Picture], *, choice: FaceChoice, detector: MediaPipeDetector
) -> Source:
    """The first picture's portrait, with those of the others as its `others`.

    A clip alone lends further frames in other poses. Raises as `load_source` does.
    """
    first, *others = [load_source(each, choice=choice, detector=detector) for each in pictures]
    if not others and isinstance(pictures[0], (str, os.PathLike)) and not is_still(first.path):
        others = _further_frames(first.path, first, choice=choice, detector=detector)
    return replace(first, others=tuple(others))


def load_every_face(picture: Picture, *, detector: MediaPipeDetector) -> list[Source]:
    """The portraits of all faces of a picture, from left to right, but those far smaller than the
    largest: what is taken for a face and is none is small. Raises as `load_source` does."""
    first = load_source(picture, choice=FaceChoice(1), detector=detector)
    found = [first] + [
        load_source(picture, choice=FaceChoice(number), detector=detector)
        for number in range(2, first.faces_seen + 1)
    ]
    least = LEAST_BESIDE * max(source.face.size for source in found)
    return [source for source in found if source.face.size >= least]


def load_source(picture: Picture, *, choice: FaceChoice, detector: MediaPipeDetector) -> Source:
    """Reads a photo, or a clip's first frame with the face, and finds the face in it.

    Raises `MediaError` for what can't be read, `NoFaceError` where the face isn't there.
    """
    if isinstance(picture, (str, os.PathLike)):
        path = Path(picture)
        if not (path.is_file() and is_still(path)):
            return _from_clip(path, choice=choice, detector=detector)
        still = read_still(path)
        image, alpha, in_file = still.image, still.alpha, still.in_file
    else:
        path = Path("picture")
        image, alpha = _pixels(picture)
        in_file = image.shape[1], image.shape[0]
    if alpha is None or alpha.min() == OPAQUE:
        return _source(path, image, in_file, choice=choice, detector=detector)
    image = _on_white(image, alpha)
    return replace(_source(path, image, in_file, choice=choice, detector=detector), on_white=True)


def _pixels(
    picture: NDArray[np.uint8] | Image.Image,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Colours (H, W, 3) and transparency (H, W) of a picture in memory."""
    if isinstance(picture, Image.Image):
        return split_srgb(ImageOps.exif_transpose(picture))
    if not isinstance(picture, np.ndarray):
        raise MediaError(
            f"`source` is {type(picture).__name__}: give a path, an array (H, W, 3) of uint8, RGB,"
            " or a Pillow image; of several a list"
        )
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise MediaError(
            f"picture: is {picture.dtype} {picture.shape}: give an array (H, W, 3) of uint8, RGB"
        )
    return picture, None


def _from_clip(path: Path, *, choice: FaceChoice, detector: MediaPipeDetector) -> Source:
    failure: NoFaceError | None = None
    with open_frames(path) as frames:
        for frame in islice(frames, 0, VIDEO_LOOKS * FRAMES_BETWEEN_LOOKS, FRAMES_BETWEEN_LOOKS):
            try:
                return _source(
                    path, frame.image, frames.info.in_file, choice=choice, detector=detector
                )
            except NoFaceError as error:
                failure = error
    raise failure or NoFaceError(f"{path}: no face found; give a clip that starts with the face")


def _further_frames(
    path: Path, first: Source, *, choice: FaceChoice, detector: MediaPipeDetector
) -> list[Source]:
    """Frames of a clip in poses that differ from the first one's and from each other's."""
    views = [first]
    with open_frames(path, max_side=MAX_SIDE) as frames:
        step = max(1, (frames.info.frames or VIDEO_LOOKS) // VIDEO_LOOKS)
        for frame in islice(frames, 0, VIDEO_LOOKS * step, step):
            if len(views) > MAX_FURTHER_FRAMES:
                break
            face = choice.pick(detector.detect(frame.image))
            if face is None or min(_turn(face, view.face) for view in views) < FURTHER_TURN:
                continue
            in_file = frames.info.in_file
            views.append(_source(path, frame.image, in_file, choice=choice, detector=detector))
    return views[1:]


def _turn(first: Face, second: Face) -> float:
    """Angle in degrees by which the head differs between two faces of a person."""
    weights = np.ones(len(first.points), np.float32)[None]
    rotation, _, _ = similarity(first.points[None], second.points[None], weights)
    return float(np.degrees(np.linalg.norm(vector_of(rotation))))


def _source(
    path: Path,
    image: NDArray[np.uint8],
    in_file: tuple[int, int],
    *,
    choice: FaceChoice,
    detector: MediaPipeDetector,
) -> Source:
    """`in_file`: the picture's width and height before it was made smaller."""
    picture = even(_limited(image))
    faces = detector.search(picture)
    turns = detector.quarter_turns(picture, faces)
    if turns:
        picture = turned(picture, turns)
        faces = detector.search(picture)
    face = choice.pick(faces)
    if face is None and faces:
        raise NoFaceError(
            f"{path}: face {choice.number} asked for, but only {len(faces)} found;"
            " faces count from the left, from 1"
        )
    if face is None:
        width, height = in_file
        least = round(LEAST_FACE * max(1, max(in_file) / MAX_SIDE))
        raise NoFaceError(
            f"{path}: no face found ({width}x{height}); give a picture with a face turned"
            f" towards the camera, at least {least} pixels high"
        )
    height, width = picture.shape[:2]
    crop = Crop.around(face.points, within=(width, height))
    return Source(
        path=path,
        picture=picture,
        face=face,
        faces_seen=len(faces),
        crop=crop,
        turns=turns,
        strangers=tuple(other for other in faces if other is not face),
    )


def with_headroom(source: Source) -> Source:
    """The source with crops that hold the whole head with its hair or hat, and room to move.

    For renderers that move its own pixels: what the edge of a crop cuts off stays where it is.
    """
    crop = _roomy(source)
    others = tuple(
        replace(other, crop=crop if other.crop == source.crop else _roomy(other))
        for other in source.others
    )
    return replace(source, crop=crop, others=others)


def _roomy(source: Source) -> Crop:
    height, width = source.picture.shape[:2]
    if source.crop.side >= min(height, width):
        return source.crop  # nowhere to grow: it need not be looked at
    around = source.crop.widened(MOST_GROWTH - 1, within=(width, height))
    part = source.picture[around]
    scale = min(1.0, SILHOUETTE_SIDE / max(part.shape[:2]))
    if scale < 1:
        part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    origin = np.array([around[1].start, around[0].start, 0], np.float32)
    face, *strangers = ((f.points - origin) * scale for f in (source.face, *source.strangers))
    alpha = matte(part, face, Segmenter(bundled_path("selfie_segmenter")), strangers=strangers)
    low, high = (face[:, :2].min(0), face[:, :2].max(0)) if alpha is None else head_box(alpha, face)
    low, high = (origin[:2] + each / scale for each in (low, high))
    return source.crop.holding(low, high, within=(width, height))


def _on_white(image: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    weight = alpha[..., None].astype(np.float32) / 255
    return np.rint(image * weight + 255 * (1 - weight)).astype(np.uint8)


def _limited(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = MAX_SIDE / max(image.shape[:2])
    if scale >= 1:
        return image
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Adds a last row or column where the size is odd: video needs even sizes."""
    height, width = image.shape[:2]
    return np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
