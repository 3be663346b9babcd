"""Lashes' shade under lids that close, and their line where these have closed.

A warp squeezes the open eye that the source shows into what is left between closing lids: its
light, with the glints in it, lies where a lid would shade the eye.
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
# Openness in shares of the source's at which an upper lid shades the eye most, and where it
# begins; how dark that is, and down to which share of the opening it reaches.
LOWERED, LOWERING = 0.25, 0.75
SHADE, SHADE_DEPTH = 0.65, 0.7
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
        heights = gaps(points)
        self._open = [
            max(float(heights[eye].mean() / width), CLOSING)
            for eye, width in zip(EYES, widths, strict=True)
        ]
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
        for eye, pairs, width, colour, corners, own in zip(
            EYES,
            topology.LIDS,
            widths,
            self._colours,
            topology.EYE_CORNERS,
            self._open,
            strict=True,
        ):
            upper, lower = (points[[pair[side] for pair in pairs], :2] for side in (0, 1))
            lids = Lids(upper, lower, points[list(corners), :2], float(width))
            open_by = float(heights[eye].mean() / width)
            shade = SHADE * (1 - _ramp(open_by / own, LOWERED, LOWERING))
            line = 1 - _ramp(open_by, CLOSED, CLOSING)
            if shade > 0:
                soft = max(0.5, SOFT * width + 0.2 * open_by * width)
                _fill(frame, _under_lid(lids), colour=colour, soft=soft, strength=shade)
            if line > 0:
                soft = max(0.5, SOFT * width)
                _fill(frame, _between(lids), colour=colour, soft=soft, strength=line)


def _ramp(x: float, low: float, high: float) -> float:
    return float(smoothstep((x - low) / (high - low)))


def _under_lid(lids: Lids) -> NDArray[np.floating]:
    """Outline (N, 2) of what an upper lid shades of an eye."""
    deep = lids.upper + SHADE_DEPTH * (lids.lower - lids.upper)
    outer, inner = lids.corners
    return np.concatenate([outer[None], lids.upper, inner[None], deep[::-1]])


def _between(lids: Lids) -> NDArray[np.floating]:
    """Outline (N, 2) of an eye's line: what lies between its lids, but no thinner than lashes."""
    upper, lower, width = lids.upper, lids.lower, lids.width
    middle = (upper + lower) / 2
    taper = np.sin(np.linspace(0, np.pi, len(middle) + 2))[1:-1]
    half = np.maximum(np.linalg.norm(upper - lower, axis=1) / 2, HALF * width * taper)
    down = np.array([0.0, 1.0])
    outer, inner = lids.corners
    return np.concatenate(
        [
            outer[None],
            middle - half[:, None] * down,
            inner[None],
            (middle + half[:, None] * down)[::-1],
        ]
    )


def _fill(
    frame: NDArray[np.uint8],
    outline: NDArray[np.floating],
    *,
    colour: NDArray[np.float32],
    soft: float,
    strength: float,
) -> None:
    """Lays a colour (3,) over a polygon (N, 2) of a frame (S, S, 3), in place."""
    pad = 2 + int(3 * soft)
    x0, y0 = np.maximum(np.floor(outline.min(0)).astype(int) - pad, 0)
    x1, y1 = np.minimum(np.ceil(outline.max(0)).astype(int) + pad, frame.shape[1::-1])
    if x1 <= x0 or y1 <= y0:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    # Points have their origin at a pixel's corner, cv2 draws from its centre.
    places = np.rint((outline - (x0 + 0.5, y0 + 0.5)) * 16).astype(np.int32)
    cv2.fillPoly(mask, [places], 255, cv2.LINE_AA, 4)
    share = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), soft)[..., None] * strength
    region = frame[y0:y1, x0:x1]
    region[:] = np.rint(region * (1 - share) + colour * share).astype(np.uint8)
