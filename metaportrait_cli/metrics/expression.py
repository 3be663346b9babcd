"""How much of a driver's expression arrives in a result, feature by feature.

A feature is one number a frame that people read in a face: how far the lips are open, how high a
brow is raised. Its gain is the slope of the result against the driver: 1 where the result does as
much as the driver, less where it is timid. Its correlation tells how alike the two run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from metaportrait_cli.motion.alignment import Floats
from metaportrait_cli.motion.features import FEATURES, features
from metaportrait_cli.motion.morphable import interocular

LEAST_MOTION: Final = 0.012
"""Standard deviation, in eye distances, below which a feature is at rest: noise, for the most."""


@dataclass(frozen=True)
class Arrival:
    """What a feature of a driver became in a result."""

    gain: float
    correlation: float


def features_by_name(faces: Floats) -> dict[str, Floats]:
    """Each of `FEATURES`, (T,), of one person's faces (T, 478, 3) in the model frame.

    In distances between the person's eyes.
    """
    values = features(faces) / np.median(interocular(faces))
    return dict(zip(FEATURES, values.T, strict=True))


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
