"""The line of lashes where lids have closed.

A warp squeezes the open eye that the source shows into what is left between closing lids, and
leaves glints of it there.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.motion.apertures import EYES, eye_widths, gaps

# Mean height of an eye's opening, in its widths, at which the line is whole and at which it
# begins; a calm open eye has 0.2 to 0.35.
CLOSED, CLOSING = 0.03, 0.1
# Half the line's thickness in the middle and how soft it is, in eye widths.
HALF, SOFT = 0.018, 0.012
DARKEST = 30  # percent of the source's pixels along its upper lids
"""How much of the colour along the source's upper lids counts as lashes"""


@dataclass(frozen=True)
class Lids:
    """One eye in pixels: points (7, 2) of both lids that meet when it closes, the outer and the
    inner corner (2, 2), and how far these are apart."""

    upper: NDArray[np.float32]
    lower: NDArray[np.float32]
    corners: NDArray[np.float32]
    width: float


class LidLine:
    """Knows the colour (3,) of the lashes of a source crop (S, S, 3), its face at (478, 3)."""

    def __init__(self, crop: NDArray[np.uint8], points: NDArray[np.float32]) -> None:
        widths = eye_widths(points)
        self._colours: list[NDArray[np.float32]] = []
        for pairs, width in zip(topology.LIDS, widths, strict=True):
            upper = points[[p[0] for p in pairs], :2]
            reach = np.arange(-2, 3) * (0.02 * width)
            places = (upper[:, None] + np.stack([0 * reach, reach], axis=-1)).reshape(-1, 2)
            x, y = np.clip(places.astype(int), 0, len(crop) - 1).T
            pixels = crop[y, x].astype(np.float32)
            light = pixels.mean(-1)
            self._colours.append(pixels[light <= np.percentile(light, DARKEST)].mean(0))

    def draw(self, frame: NDArray[np.uint8], points: NDArray[np.float32]) -> None:
        """Closes the lids of the face (478, 3) in a frame (S, S, 3), in place."""
        widths = eye_widths(points)
        heights = gaps(points)
        for eye, pairs, width, colour, corners in zip(
            EYES, topology.LIDS, widths, self._colours, topology.EYE_CORNERS, strict=True
        ):
            open_by = float(heights[eye].mean() / width)
            strength = 1 - float(smoothstep((open_by - CLOSED) / (CLOSING - CLOSED)))
            if strength > 0:
                upper, lower = (points[[pair[side] for pair in pairs], :2] for side in (0, 1))
                lids = Lids(upper, lower, points[list(corners), :2], float(width))
                _draw_line(frame, lids, colour=colour, strength=strength)


def _draw_line(
    frame: NDArray[np.uint8], lids: Lids, *, colour: NDArray[np.float32], strength: float
) -> None:
    """One eye's line: what lies between its lids, but no thinner than lashes are."""
    upper, lower, width = lids.upper, lids.lower, lids.width
    middle = (upper + lower) / 2
    taper = np.sin(np.linspace(0, np.pi, len(middle) + 2))[1:-1]
    half = np.maximum(np.linalg.norm(upper - lower, axis=1) / 2, HALF * width * taper)
    down = np.array([0.0, 1.0])
    outer, inner = lids.corners
    line = np.concatenate(
        [
            outer[None],
            middle - half[:, None] * down,
            inner[None],
            (middle + half[:, None] * down)[::-1],
        ]
    )
    soft = max(0.5, SOFT * width)
    pad = 2 + int(3 * soft)
    x0, y0 = np.maximum(np.floor(line.min(0)).astype(int) - pad, 0)
    x1, y1 = np.minimum(np.ceil(line.max(0)).astype(int) + pad, frame.shape[1::-1])
    if x1 <= x0 or y1 <= y0:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    # Points have their origin at a pixel's corner, cv2 draws from its centre.
    cv2.fillPoly(
        mask, [np.rint((line - (x0 + 0.5, y0 + 0.5)) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4
    )
    share = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), soft)[..., None] * strength
    region = frame[y0:y1, x0:x1]
    region[:] = np.rint(region * (1 - share) + colour * share).astype(np.uint8)
