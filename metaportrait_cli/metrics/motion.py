"""How well a result follows the driver's motion, and whose face shape it shows.

Average expression and pose distance follow the paper's evaluation (section 4; AED and APD as in
PIRenderer, Ren et al. 2021). The coefficients are those of this project's morphable model, so
values compare methods measured here, not with published tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metaportrait_cli.motion.alignment import Floats, vector_of
from metaportrait_cli.motion.fitting import FaceParameters
from metaportrait_cli.motion.morphable import interocular


def aed(result: FaceParameters, driver: FaceParameters) -> float:
    """Average expression distance: mean absolute difference of coefficients, in deviations.

    Both hold the same T frames; expression is as fitted with either person's own identity.
    """
    return float(np.abs(result.expression - driver.expression).mean())


def apd(result: FaceParameters, driver: FaceParameters) -> float:
    """Average pose distance: mean angle between the head rotations of T frames, in degrees."""
    turn = vector_of(result.rotation @ np.swapaxes(driver.rotation, -1, -2))
    return float(np.degrees(np.linalg.norm(turn, axis=-1)).mean())


def landmark_jitter(landmarks: Floats, *, quiet: float = 0.3) -> float:
    """Trembling of a face at rest, in thousandths of the inter-ocular distance.

    Takes landmarks (T, P, 2 or 3) in pixels, consecutive frames, T >= 4. It is the mean length of
    the second difference in time of x and y, over the `quiet` share of frames with the least motion
    (judged by each frame's own mean over its points, so all points count alike).
    """
    if len(landmarks) < 4:
        raise ValueError(f"jitter needs at least four frames, got {len(landmarks)}")
    points = landmarks[..., :2] / np.median(interocular(landmarks[..., :2]))
    second = np.linalg.norm(np.diff(points, 2, axis=0), axis=-1).mean(-1)
    speed = np.linalg.norm(points[2:] - points[:-2], axis=-1).mean(-1)
    calm = speed <= np.quantile(speed, quiet)
    return float(1000 * second[calm].mean())


@dataclass(frozen=True)
class IdentityLeakage:
    """How far a result's face shape is from either person's, by `shape_distance`."""

    to_source: float
    to_driver: float

    @property
    def share(self) -> float:
        """0 for the source's shape, 1 for the driver's, 0.5 in the middle."""
        return self.to_source / max(self.to_source + self.to_driver, 1e-9)


def shape_distance(first: Floats, second: Floats) -> float:
    """Distance between two people's identity coefficients (K,): their root mean square difference.

    Coefficients have unit variance over people, so two strangers are about 1.4 apart.
    """
    return float(np.sqrt(((first - second) ** 2).mean()))


def identity_leakage(result: Floats, source: Floats, driver: Floats) -> IdentityLeakage:
    """Whose face a result has, from identity coefficients (K,) fitted to all three (appendix A)."""
    return IdentityLeakage(
        to_source=shape_distance(result, source),
        to_driver=shape_distance(result, driver),
    )
