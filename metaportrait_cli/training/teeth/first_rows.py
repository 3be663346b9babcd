"""Rows of teeth by anatomy alone: what photos are registered to at first.

Widths and heights are those of textbooks, in millimetres, from the middle incisor outwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.networks.teeth import TeethConfig

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Anatomy:
    widths: tuple[float, ...]
    heights: tuple[float, ...]
    edges: tuple[float, ...]
    """How far each one's edge is back from the row's"""
    points: tuple[float, ...]
    """How pointed each one is"""


UPPER = Anatomy(
    widths=(8.5, 6.6, 7.6, 7.0, 6.8, 9.5),
    heights=(10.3, 8.8, 10.0, 8.6, 7.8, 7.2),
    edges=(0.0, 0.7, 0.1, 0.9, 1.1, 1.5),
    points=(0.0, 0.05, 0.45, 0.25, 0.1, 0.0),
)
LOWER = Anatomy(
    widths=(5.3, 5.8, 6.8, 7.0, 7.1, 10.5),
    heights=(8.6, 8.9, 10.2, 8.8, 8.0, 7.2),
    edges=(0.0, 0.0, -0.3, 0.3, 0.6, 0.9),
    points=(0.0, 0.0, 0.35, 0.25, 0.1, 0.0),
)
# Linear light of gums, and of what is between necks and edges, against the teeth's.
GUM = np.array([0.38, 0.14, 0.12])
BETWEEN = np.array([0.10, 0.045, 0.04])


def first_row(anatomy: Anatomy, config: TeethConfig) -> NDArray[np.float32]:
    """A texture as `TeethConfig.texture` has it."""
    height, width, _ = config.texture
    u = (np.arange(width) + 0.5) / config.pixels - config.reach
    v = (np.arange(height) + 0.5) / config.pixels - config.gum
    u, v = np.meshgrid(u, v)
    colour = np.ones((height, width, 3))
    cover, gum = np.zeros((height, width)), np.zeros((height, width))
    for side in (-1, 1):
        first = 0.0
        for tooth in zip(
            anatomy.widths, anatomy.heights, anatomy.edges, anatomy.points, strict=True
        ):
            across = (u - side * (first + tooth[0] / 2)) / (tooth[0] / 2)
            first += tooth[0]
            body, there, root = _tooth(across, -v - tooth[2], *tooth[:2], tooth[3])
            colour += there[..., None] * (body - colour)
            cover, gum = np.maximum(cover, there), np.maximum(gum, root)
    gum = gum * (1 - cover)
    linear = colour**2.2 * cover[..., None] + GUM * gum[..., None]
    filled = np.clip(cover + gum, 0, 1)
    behind = np.clip(-v - 1.6, 0, 1)
    linear += ((1 - filled) * behind)[..., None] * BETWEEN
    return np.dstack([linear, np.maximum(filled, behind)]).astype(np.float32)


def _tooth(
    across: Floats, up: Floats, width: float, height: float, point: float
) -> tuple[Floats, Floats, Floats]:
    """Colour (H, W, 3), coverage and the gum above of one tooth: `across` is in [-1, 1] on it,
    `up` millimetres from its edge."""
    rise = np.clip(up / height, 0, 1)
    half = 0.98 - 0.16 * rise**2.2  # narrower at the neck
    rounded = 2.2 * point * np.abs(across) ** 1.5
    rounded = rounded + 0.38 * np.clip((np.abs(across) - 0.6) / 0.4, 0, 1) ** 2.2
    from_edge, from_side = up - rounded, (half - np.abs(across)) * width / 2
    neck = height * (1 - 0.22 * np.clip(np.abs(across), 0, 1) ** 2.2) - up
    there = np.clip(np.minimum(from_edge, from_side) / 0.22 + 0.5, 0, 1)
    there = there * np.clip(neck / 0.3 + 0.5, 0, 1)
    light = 1 - 0.10 * np.abs(across) ** 2.5 - 0.16 * np.clip(1 - from_side / 0.9, 0, 1) ** 1.6
    light = light - 0.05 * np.clip(1 - from_edge / 1.2, 0, 1) - 0.05 * np.clip(rise - 0.5, 0, 1)
    warm = np.stack([light, light * (1 - 0.03 * rise), light * (1 - 0.09 * rise)], axis=-1)
    root = np.clip(0.5 - neck / 0.3, 0, 1) * (np.abs(across) <= 1.02) * (up > 0.3 * height)
    return warm, there, root
