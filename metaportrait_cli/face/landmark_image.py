"""Landmarks as a picture: the form in which a network reads them (paper, Section 3.1).

Neighbouring points are joined by lines, one colour a part of the face; irises and the mouth
opening are filled, because whether they show at all is what a small picture must not lose. The
colours know no left and right, so a mirrored face with mirrored points gives the mirrored picture.
The mesh between the parts is not drawn, unlike in `rasterise`: at this size it would fill the face,
and the prior flow carries it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology

SCHEMA: Final = "lines478"
"""The name of this way of drawing, for weights that were trained on it; it changes with the
drawing."""
LINES68: Final = "lines68"
"""The 68 points that most papers draw: no irises, and left and right in colours of their own."""
SCHEMAS: Final = (SCHEMA, LINES68)
SUBPIXEL_BITS = 4
LEAST_AREA = 1.0  # pixels of the drawing

_NOSE = ((168, 6, 197, 195, 5, 4, 1, 2), (48, 64, 98, 97, 2, 326, 327, 294, 278))


@dataclass(frozen=True)
class _Stroke:
    points: tuple[int, ...]
    closed: bool
    filled: bool
    colour: tuple[int, int, int]


def _strokes() -> tuple[_Stroke, ...]:
    def ring(name: str, colour: tuple[int, int, int], *, filled: bool = False) -> _Stroke:
        points = tuple(int(i) for i in topology.ring(name))
        return _Stroke(points, closed=True, filled=filled, colour=colour)

    def chain(points: tuple[int, ...], colour: tuple[int, int, int]) -> _Stroke:
        return _Stroke(points, closed=False, filled=False, colour=colour)

    return (
        ring("face_oval", (0, 0, 255)),
        *(
            chain(line, (0, 128, 255))
            for name in ("right_brow", "left_brow")
            for line in topology.brow(name)
        ),
        *(chain(line, (128, 0, 255)) for line in _NOSE),
        ring("lips_outer", (255, 0, 0)),
        ring("lips_inner", (255, 255, 0), filled=True),
        ring("right_iris", (0, 255, 255), filled=True),
        ring("left_iris", (0, 255, 255), filled=True),
        # After the irises: a lid hides them, and the line says where it is.
        ring("right_eye", (0, 255, 0)),
        ring("left_eye", (0, 255, 0)),
    )


# The mesh's points nearest to the 68 (iBUG): jaw, right and left brow, ridge and base of the nose,
# right and left eye, outer and inner lips.
# fmt: off
POINTS68: Final = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)
# fmt: on
_PARTS68 = (
    (0, 17, False, (255, 255, 255)),
    (17, 22, False, (255, 0, 0)),
    (22, 27, False, (0, 255, 0)),
    (27, 31, False, (0, 0, 255)),
    (31, 36, False, (0, 0, 255)),
    (36, 42, True, (255, 0, 255)),
    (42, 48, True, (0, 255, 255)),
    (48, 60, True, (255, 255, 0)),
    (60, 68, True, (255, 255, 0)),
)

_STROKES = {
    SCHEMA: _strokes(),
    LINES68: tuple(
        _Stroke(POINTS68[start:end], closed=closed, filled=False, colour=colour)
        for start, end, closed, colour in _PARTS68
    ),
}


def landmark_image(
    points: NDArray[np.floating], *, side: int, size: int, schema: str = SCHEMA
) -> NDArray[np.uint8]:
    """Draws landmarks (478, ≥ 2), in pixels of a crop of `side`, as RGB (size, size, 3).

    Origin of the points is the corner of the top left pixel. Deterministic and antialiased.
    """
    image = np.zeros((size, size, 3), np.uint8)
    places = subpixels(points[:, :2], scale=size / side)
    for stroke in _STROKES[schema]:
        line = places[list(stroke.points)]
        if stroke.filled:
            cv2.fillPoly(image, [line], stroke.colour, cv2.LINE_AA, SUBPIXEL_BITS)
        else:
            cv2.polylines(
                image, [line], stroke.closed, stroke.colour, 1, cv2.LINE_AA, SUBPIXEL_BITS
            )
    return image


def filled_polygon(points: NDArray[np.floating], *, side: int, size: int) -> NDArray[np.uint8]:
    """Coverage (size, size) in [0, 255] of a polygon (N, 2) in pixels of a crop of `side`."""
    mask = np.zeros((size, size), np.uint8)
    scaled = points.astype(np.float32) * np.float32(size / side)
    # cv2 draws the rim too, so that a polygon without an inside would show as a line.
    if cv2.contourArea(scaled) >= LEAST_AREA:
        cv2.fillPoly(mask, [subpixels(scaled, scale=1)], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    return mask


def subpixels(points: NDArray[np.floating], *, scale: float) -> NDArray[np.int32]:
    """Points scaled and in the fixed-point numbers of cv2's drawing.

    Ours have their origin at a pixel's corner, cv2 draws from its centre.
    """
    return np.rint((points * scale - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32)
