"""Lips that meet: where a source's mouth is open, a warp that shuts it leaves a line of its teeth.

What hangs from the upper lip is squeezed into what is left of the opening, a jagged white line. As
lips come together their own colours go on over it, down to the shade in which they meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.render.mouths.own_teeth import millimetre

# Heights of an opening, in mm, at which lips have met, and begin to.
MET, MEETING = 0.4, 2.4
# A source's own, from which on it leaves a line that is to be covered, and where that is sure.
OPEN = (1.5, 4.0)
# So far beyond their landmarks (mm) lips show nothing of what they cover, and so far to there they
# go over into what they are like.
CLEAR, OVER = 1.1, 0.7
# How dark the line is in which lips meet, and how wide that shade, in mm; it ends at the corners.
SHADE, SHADE_WIDTH = 0.2, 0.8
# Lips shade what they show the more, the nearer they come together: at the first share of the
# source's own opening by so much, from the second on not at all.
CLOSE, DIM = (0.2, 0.9), 0.2
# Colours of lips are taken from so much around a place, in mm.
AROUND = 0.5


@dataclass(frozen=True)
class _Line:
    """Lips of a face, in pixels of a picture that is turned so that their corners are level:
    points (N,) from corner to corner, the middle between the lips and half the opening there."""

    turn: NDArray[np.float32]
    """(2, 3) from the picture to the turned one"""
    x: NDArray[np.floating]
    middle: NDArray[np.floating]
    half: NDArray[np.floating]
    pixels: float
    """Of a millimetre"""

    @classmethod
    def of(cls, points: NDArray[np.float32]) -> _Line:
        """Of a face (478, 3)."""
        right, left = points[list(topology.INNER_MOUTH_CORNERS), :2]
        upper, lower = points[np.array(topology.INNER_LIPS), :2].swapaxes(0, 1)
        along = (left - right) / max(float(np.linalg.norm(left - right)), 1e-6)
        axes = np.array([along, [-along[1], along[0]]])
        centre = (left + right) / 2
        turn = np.column_stack([axes, -axes @ centre]).astype(np.float32)
        middles = np.concatenate([right[None], (upper + lower) / 2, left[None]])
        x, middle = axes @ (middles - centre).T
        half = np.concatenate([[0], ((lower - upper) @ axes[1]).clip(0) / 2, [0]])
        order = np.argsort(x, kind="stable")
        return cls(turn, x[order], middle[order], half[order], millimetre(points))


def meet(frame: NDArray[np.uint8], points: NDArray[np.float32], *, shown: float) -> None:
    """Lets the lips of a face (478, 3) in a frame (S, S, 3) shade what they show and meet, in
    place, as far as they are together; `shown` is the height (mm) of the source's own opening."""
    line = _Line.of(points)
    share = 1 - smoothstep((2 * line.half / line.pixels - MET) / (MEETING - MET))
    own = float(smoothstep((shown - OPEN[0]) / (OPEN[1] - OPEN[0])))
    share = share * own
    closer = 2 * float(line.half.max()) / line.pixels / max(shown, 1e-6)
    dim = DIM * own * (1 - float(smoothstep((closer - CLOSE[0]) / (CLOSE[1] - CLOSE[0]))))
    if share[1:-1].max() <= 0 and dim <= 0:
        return
    reach = float(line.half.max()) + (CLEAR + OVER + AROUND) * line.pixels
    back = cv2.invertAffineTransform(line.turn)
    low, high = line.middle.min() - reach, line.middle.max() + reach
    ends = np.array([line.x[[0, -1, 0, -1]], [low, low, high, high]])
    places = (back[:, :2] @ ends).T + back[:, 2]
    x0, y0 = np.clip(np.floor(places.min(0)).astype(int), 0, len(frame) - 1).tolist()
    x1, y1 = np.clip(np.ceil(places.max(0)).astype(int) + 1, 1, len(frame)).tolist()
    if x1 - x0 < 3 or y1 - y0 < 3:
        return
    rows, columns = np.mgrid[y0:y1, x0:x1].astype(np.float32) + np.float32(0.5)
    across, down = (row[0] * columns + row[1] * rows + row[2] for row in line.turn)
    middle, half, strength = (
        np.interp(across, line.x, values).astype(np.float32)
        for values in (line.middle, line.half, share)
    )
    off = down - middle
    between = smoothstep((half - np.abs(off)) / (0.4 * line.pixels) + 0.5)
    inside = (across > line.x[0]) & (across < line.x[-1])
    region = frame[y0:y1, x0:x1]
    seen = region * (1 - (dim * inside * between)[..., None])
    if strength.max() > 0:
        clear, over = half + CLEAR * line.pixels, OVER * line.pixels
        cover = strength * inside * smoothstep((clear + over - np.abs(off)) / over)
        soft = cv2.GaussianBlur(region, (0, 0), max(0.5, AROUND * line.pixels))

        def lip(side: float) -> NDArray[np.float32]:
            """What lies just beyond the opening, above or below each pixel."""
            at = middle + side * (clear + over)
            x = back[0, 0] * across + back[0, 1] * at + back[0, 2] - x0 - 0.5
            y = back[1, 0] * across + back[1, 1] * at + back[1, 2] - y0 - 0.5
            return cv2.remap(soft, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

        lower = smoothstep((off / (0.5 * line.pixels) + 1) / 2)[..., None]
        colour = lip(-1) * (1 - lower) + lip(1) * lower
        from_end = np.minimum(across - line.x[0], line.x[-1] - across)
        shade = SHADE * smoothstep(from_end / (2 * line.pixels))
        shade = shade * np.exp(-((off / (SHADE_WIDTH * line.pixels)) ** 2))
        seen += cover[..., None] * (colour * (1 - shade[..., None]) - seen)
    region[:] = np.rint(seen).astype(np.uint8)
