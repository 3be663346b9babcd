"""How far eyes and lips are open, in the model frame.

A gap is signed: the lower point's y minus the upper point's, so touching lids or lips have about 0
and crossed ones less. Gaps are in the model's unit; shape (..., G), the pairs in the order of
`PAIRS`: the right eye's, the left eye's, the lips'.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from metaportrait_cli.face.topology import EYE_CORNERS, INNER_LIPS, LIDS
from metaportrait_cli.motion.alignment import Floats
from metaportrait_cli.motion.morphable import MorphableModel

PAIRS: Final = np.array([*LIDS[0], *LIDS[1], *INNER_LIPS])
"""(G, 2) upper and lower points."""

EYES: Final = (slice(0, len(LIDS[0])), slice(len(LIDS[0]), len(LIDS[0]) + len(LIDS[1])))
LIPS: Final = slice(EYES[1].stop, None)

FIRMNESS: Final = 0.01
"""Gap errors (model's unit) that are left to moving single points rather than the whole face."""


def gaps(faces: Floats) -> Floats:
    """Gaps (..., G) of faces (..., P, 3), or of displacements: gaps are linear."""
    heights = faces[..., 1]
    return heights[..., PAIRS[:, 1]] - heights[..., PAIRS[:, 0]]


def eye_widths(faces: Floats) -> Floats:
    """Distances (..., 2) between the corners of the right and of the left eye."""
    sides = [faces[..., outer, :] - faces[..., inner, :] for outer, inner in EYE_CORNERS]
    return np.stack([np.linalg.norm(side, axis=-1) for side in sides], axis=-1)


def eye_openness(faces: Floats) -> Floats:
    """Openness (..., 2) of the right and of the left eye: mean gap over eye width."""
    found = gaps(faces)
    means = np.stack([found[..., eye].mean(-1) for eye in EYES], axis=-1)
    return means / eye_widths(faces)


def mouth_openness(faces: Floats) -> Floats:
    """Mean gap (...) between the inner lips, in inter-ocular distances of the mean face."""
    return gaps(faces)[..., LIPS].mean(-1)


def opened(faces: Floats, amounts: Floats) -> Floats:
    """Faces (T, P or M, 3) with each gap larger by amounts (T, G), half by either point."""
    moved = faces.copy()
    moved[:, PAIRS[:, 0], 1] -= amounts / 2
    moved[:, PAIRS[:, 1], 1] += amounts / 2
    return moved


@lru_cache(maxsize=4)
def gap_operator(model: MorphableModel) -> Floats:
    """(G, E) least change of expression, in standard deviations, that changes gaps by one."""
    effect = gaps(model.expression_basis).T  # (G, E)
    normal = effect @ effect.T + FIRMNESS**2 * np.eye(len(effect), dtype=np.float32)
    return np.linalg.solve(normal, effect)


def transferred(gap: Floats, own: Floats, reference: Floats, floor: Floats) -> Floats:
    """The gap a face should show when the driver's is `gap`; all broadcast, in the model's unit.

    `own` is the face's gap where the driver's is `reference`. The map is monotone, keeps contact
    (0 stays 0), reaches own at reference, and beyond that adds what the driver adds:

        gap + (own - reference) * min(1, gap / max(reference, floor))

    `floor` is a gap that counts as open, so that a reference with closed lids or lips doesn't turn
    contact into a step.
    """
    share = np.clip(gap / np.maximum(reference, floor), 0, 1)
    return gap + (own - reference) * share
