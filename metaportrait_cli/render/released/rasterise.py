"""Draws landmarks as coloured lines (paper, Section 3.1): what the networks see of a face.

A schema names a set of points and which of them are joined in which colour. Points are (x, y) in
[0, 1] of a square crop, origin at its top left corner; pictures are RGB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology

SIZE = 256
SUBPIXEL_BITS = 4  # OpenCV draws from coordinates of this many binary digits

Colour = tuple[int, int, int]
Points = NDArray[np.float32]
Image = NDArray[np.uint8]

# Drawn in this order: what matters most for expression covers the rest.
COLOURS_478: dict[str, Colour] = {
    "mesh": (48, 48, 48),
    "face_oval": (255, 255, 255),
    "nose": (255, 160, 0),
    "left_brow": (160, 255, 0),
    "right_brow": (0, 255, 160),
    "left_eye": (255, 255, 0),
    "right_eye": (0, 255, 255),
    "lips_outer": (255, 0, 0),
    "lips_inner": (255, 0, 255),
    "left_iris": (128, 128, 255),
    "right_iris": (0, 96, 255),
}
# Bridge from between the brows to the tip, then from wing to wing under it.
NOSE_LINES = (
    (168, 6, 197, 195, 5, 4, 1),
    (129, 98, 97, 2, 326, 327, 358),
)


@dataclass(frozen=True)
class Schema:
    """Which points are joined by lines, in drawing order, and how."""

    name: str
    point_count: int
    edges: NDArray[np.int32]
    """(E, 2) point indices; later lines cover earlier ones"""
    colours: NDArray[np.uint8]
    """(E, 3) RGB"""
    subpixel_bits: int
    """Precision of line ends: 0 cuts them to whole pixels"""

    def draw(self, points: Points, size: int = SIZE) -> Image:
        """Landmark image (size, size, 3) of points (K, >= 2), which may leave the picture."""
        if len(points) != self.point_count:
            raise ValueError(f"{self.name} has {self.point_count} points, not {len(points)}")
        # In float32 and towards zero, as the released weights' training data was drawn.
        scale = np.float32(size << self.subpixel_bits)
        ends = (points[:, :2].astype(np.float32) * scale).astype(np.int32)
        image = np.zeros((size, size, 3), np.uint8)
        for (start, end), colour in zip(
            ends[self.edges].tolist(), self.colours.tolist(), strict=True
        ):
            cv2.line(
                image,
                start,
                end,
                colour,
                thickness=1,
                lineType=cv2.LINE_AA,
                shift=self.subpixel_bits,
            )
        return image


@cache
def metaportrait669() -> Schema:
    """The authors' layout: 616 lines over 582 of 669 points, a colour each, in whole pixels."""
    edges = np.array(_released_layout()["edges"], np.int32)
    return Schema(
        name="metaportrait669",
        point_count=669,
        edges=edges[:, :2],
        colours=edges[:, 2:].astype(np.uint8),
        subpixel_bits=0,
    )


@cache
def mediapipe478() -> Schema:
    """MediaPipe's face mesh with contours on top, a colour per part, in sixteenths of a pixel."""
    groups = [
        (np.array(edge, np.int32), COLOURS_478[part])
        for part in COLOURS_478
        for edge in _edges_478(part)
    ]
    return Schema(
        name="mediapipe478",
        point_count=topology.POINTS,
        edges=np.stack([edge for edge, _ in groups]),
        colours=np.array([colour for _, colour in groups], np.uint8),
        subpixel_bits=SUBPIXEL_BITS,
    )


@cache
def subset58() -> NDArray[np.int32]:
    """Of the 669 points, those that steer masks and gaze maps; not mirror symmetric."""
    return np.array(_released_layout()["subset"], np.int32)


@cache
def _released_layout() -> dict[str, list]:
    folder = resources.files("metaportrait_cli.render.released")
    text = folder.joinpath("metaportrait669.json").read_text()
    return json.loads(text)


def _edges_478(part: str) -> Iterator[tuple[int, int]]:
    if part == "mesh":
        sides = topology.triangles()[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
        yield from map(tuple, np.unique(np.sort(sides, axis=1), axis=0).tolist())
    elif part == "nose":
        for line in NOSE_LINES:
            yield from pairwise(line)
    elif part.endswith("brow"):
        for line in topology.brow(part):
            yield from pairwise(line)
    else:
        loop = topology.ring(part).tolist()
        yield from zip(loop, loop[1:] + loop[:1], strict=True)
