"""A view as a portrait file keeps it: its crop, no larger than needed, as a JPEG."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.crop import Crop
from metaportrait_cli.face.face import Face
from metaportrait_cli.face.source import Source
from metaportrait_cli.media.stills import open_image

JPEG_QUALITY = 92
LONGEST_CROP = 1024
"""Crops of larger faces are stored at this side."""
LONGEST_SIDE = 4096


def crop_of(x0: int, y0: int, side: int) -> Crop:
    """Raises `ValueError` for what no portrait has."""
    if not all(isinstance(v, int) and abs(v) <= LONGEST_SIDE for v in (x0, y0, side)) or side < 1:
        raise ValueError("a crop is no square of whole pixels")
    return Crop(x0, y0, side)


def limited(view: Source) -> Source:
    """The view's crop alone, no larger than `LONGEST_CROP`."""
    view = _trimmed(view)
    scale = LONGEST_CROP / view.crop.side
    if scale >= 1:
        return view
    height, width = (round(side * scale) for side in view.picture.shape[:2])
    picture = cv2.resize(view.picture, (width, height), interpolation=cv2.INTER_AREA)
    crop = view.crop
    return replace(
        view,
        picture=np.asarray(picture, np.uint8),
        face=_scaled(view.face, scale),
        strangers=tuple(_scaled(face, scale) for face in view.strangers),
        crop=Crop(round(crop.x0 * scale), round(crop.y0 * scale), LONGEST_CROP),
    )


def _trimmed(view: Source) -> Source:
    """The view without what lies outside its crop."""
    height, width = view.picture.shape[:2]
    rows, columns, _, _ = view.crop.inside(width, height)
    crop, origin = view.crop, np.array([columns.start, rows.start, 0], np.float32)
    faces = [replace(face, points=face.points - origin) for face in (view.face, *view.strangers)]
    return replace(
        view,
        picture=view.picture[rows, columns],
        face=faces[0],
        strangers=tuple(faces[1:]),
        crop=Crop(crop.x0 - columns.start, crop.y0 - rows.start, crop.side),
    )


def _scaled(face: Face, scale: float) -> Face:
    return replace(face, points=(face.points * scale).astype(np.float32))


def as_jpeg(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The file's bytes."""
    settings = [
        *(cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    ]
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), settings)
    return encoded.ravel()


def of_jpeg(encoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture (H, W, 3) RGB. Raises `MediaError`, `ValueError` for one that is too large."""
    # By its header first: a small JPEG may unpack to gigabytes.
    with open_image(BytesIO(encoded.tobytes()), name="a view", formats=("JPEG",)) as image:
        if max(image.size) > LONGEST_SIDE:
            raise ValueError(f"a view is {image.width}x{image.height}")
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
