"""What is put into an opened mouth before anything better is known."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import smoothstep

# Inside, green and blue are weaker by this share; less so from lips whose channels differ by fewer
# grey levels: an old photo stays grey.
REDNESS, COLOURFUL = 0.25, 16


class MouthInside:
    """A plausible dark inside for the part of an opened mouth that the source doesn't show.

    Its colour is the source's own lips in deep shade, a little lighter towards the lower lip
    where a tongue would lie.
    """

    SHADE_TOP, SHADE_BOTTOM = 0.16, 0.34
    SUBPIXEL_BITS = 4

    def __init__(self, crop: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> None:
        lips = np.concatenate([topology.ring("lips_outer"), topology.ring("lips_inner")])
        places = np.clip(landmarks[lips, :2].astype(int), 0, crop.shape[0] - 1)
        colour = np.median(crop[places[:, 1], places[:, 0]].astype(np.float32), axis=0)
        red = 1 - REDNESS * float(smoothstep(float(np.ptp(colour)) / COLOURFUL))
        self._lips = colour * np.array([1.0, red, red], np.float32)
        eyes = landmarks[[topology.IRISES[0][0], topology.IRISES[1][0]], :2]
        self._unit = float(np.linalg.norm(eyes[1] - eyes[0]))

    def fill(self, frame: NDArray[np.uint8], gap: NDArray[np.float32]) -> None:
        """Paints the gap polygon (N, 2) into a picture (H, W, 3), in place."""
        height = float((gap[len(gap) // 2 + 1 :, 1][::-1] - gap[1 : len(gap) // 2, 1]).max())
        # Below a few hundredths of the eye distance it is the landmarks' noise, not a mouth.
        strength = float(smoothstep((height / self._unit - 0.02) / 0.05))
        if strength <= 0:
            return
        pad = 3 + int(0.03 * self._unit)
        x0, y0 = np.maximum(np.floor(gap.min(0)).astype(int) - pad, 0)
        x1, y1 = np.minimum(np.ceil(gap.max(0)).astype(int) + pad, frame.shape[1::-1])
        if x1 <= x0 or y1 <= y0:
            return
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        scale = 1 << self.SUBPIXEL_BITS
        # Points have their origin at a pixel's corner, cv2 draws from its centre.
        polygon = np.rint((gap - (x0 + 0.5, y0 + 0.5)) * scale).astype(np.int32)
        cv2.fillPoly(mask, [polygon], 255, cv2.LINE_AA, self.SUBPIXEL_BITS)
        soft = max(0.5, 0.012 * self._unit)
        alpha = cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), soft)[..., None] * strength
        depth = np.linspace(0, 1, y1 - y0, dtype=np.float32)[:, None, None]
        shade = self.SHADE_TOP + (self.SHADE_BOTTOM - self.SHADE_TOP) * depth**2
        region = frame[y0:y1, x0:x1]
        region[:] = np.rint(region * (1 - alpha) + self._lips * shade * alpha).astype(np.uint8)
