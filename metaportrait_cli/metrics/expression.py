"""How much of a driver's expression arrives in a result, feature by feature.

A feature is one number a frame that people read in a face: how far the lips are open, how high a
brow is raised. Its gain is the slope of the result against the driver: 1 where the result does as
much as the driver, less where it is timid. Its correlation tells how alike the two run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from metaportrait_cli.face import topology
from metaportrait_cli.motion.alignment import Floats
from metaportrait_cli.motion.apertures import EYES, LIPS, gaps
from metaportrait_cli.motion.morphable import interocular

FEATURES: Final = (
    "lip_gap",
    "mouth_width",
    "mouth_corners",
    "right_eye",
    "left_eye",
    "right_brow",
    "left_brow",
    "jaw",
)
LEAST_MOTION: Final = 0.012
"""Standard deviation, in eye distances, below which a feature is at rest: noise, for the most."""

_CHIN: Final = 152
# The middle of the lips; towards the corners a gap says little.
_MIDDLE: Final = slice(LIPS.start + 3, LIPS.start + 6)


@dataclass(frozen=True)
class Arrival:
    """What a feature of a driver became in a result."""

    gain: float
    correlation: float


def features(faces: Floats) -> dict[str, Floats]:
    """Each of `FEATURES`, (T,), of one person's faces (T, 478, 3), in distances between the eyes.

    Faces are given without the head's motion: x right, y down, as in the model frame. Corners of
    the mouth and brows count upwards from the eyes' corners, the jaw downwards.
    """
    unit = np.median(interocular(faces))
    corners = [faces[:, list(pair), 1].mean(1) for pair in topology.EYE_CORNERS]
    level = (corners[0] + corners[1]) / 2
    open_by = gaps(faces)
    right, left = (faces[:, point] for point in topology.MOUTH_CORNERS)
    brows = [
        corner - faces[:, [p for line in topology.brow(name) for p in line], 1].mean(1)
        for corner, name in zip(corners, ("right_brow", "left_brow"), strict=True)
    ]
    values = (
        open_by[:, _MIDDLE].mean(1),
        np.linalg.norm(left - right, axis=-1),
        level - (left[:, 1] + right[:, 1]) / 2,
        open_by[:, EYES[0]].mean(1),
        open_by[:, EYES[1]].mean(1),
        *brows,
        faces[:, _CHIN, 1] - level,
    )
    return {name: value / unit for name, value in zip(FEATURES, values, strict=True)}


def arrival(driver: Floats, result: Floats) -> Arrival | None:
    """Gain and correlation of a feature over T frames, (T,) each; `None` if the driver rests."""
    wanted, shown = driver - driver.mean(), result - result.mean()
    if len(driver) < 2 or wanted.std() < LEAST_MOTION:
        return None
    together = float((wanted * shown).mean())
    return Arrival(
        gain=together / float(wanted.var()),
        correlation=together / float(wanted.std() * max(shown.std(), 1e-9)),
    )
