"""What people read in a face, as one number each: lips, mouth, eyes, brows, jaw.

Features are linear in the points, so the same function takes faces and displacements. Faces are
given without the head's motion: x right, y down, as in the model frame; the unit is theirs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np

from metaportrait_cli.face import topology
from metaportrait_cli.motion.alignment import Floats
from metaportrait_cli.motion.apertures import EYES, LIPS, gaps
from metaportrait_cli.motion.morphable import MorphableModel

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
CHIN: Final = 152

# The middle of the lips; towards the corners a gap says little.
_MIDDLE: Final = slice(LIPS.start + 3, LIPS.start + 6)


def features(faces: Floats) -> Floats:
    """Each of `FEATURES`, (..., F), of faces (..., P or M, 3).

    Corners of the mouth and brows count upwards from the eyes' corners, the jaw downwards.
    """
    corners = [faces[..., list(pair), 1].mean(-1) for pair in topology.EYE_CORNERS]
    level = (corners[0] + corners[1]) / 2
    open_by = gaps(faces)
    right, left = (faces[..., point, :] for point in topology.MOUTH_CORNERS)
    brows = [
        corner - faces[..., [p for line in topology.brow(name) for p in line], 1].mean(-1)
        for corner, name in zip(corners, ("right_brow", "left_brow"), strict=True)
    ]
    values = (
        open_by[..., _MIDDLE].mean(-1),
        left[..., 0] - right[..., 0],
        level - (left[..., 1] + right[..., 1]) / 2,
        open_by[..., EYES[0]].mean(-1),
        open_by[..., EYES[1]].mean(-1),
        *brows,
        faces[..., CHIN, 1] - level,
    )
    return np.stack(values, axis=-1)


@lru_cache(maxsize=4)
def legible_axes(model: MorphableModel) -> Floats:
    """Orthonormal rows (E, E) in the space of expression over its jitter: features come first.

    What the detector's noise hides in single coefficients, such as a syllable's opening that is
    spread over a dozen of them, is plain along the feature's own axis.
    """
    effect = features(model.expression_basis * model.expression_jitter[:, None, None])  # (E, F)
    start = np.concatenate([effect, np.eye(len(effect), dtype=np.float32)], axis=1)
    return np.linalg.qr(start)[0].T.astype(np.float32)


@lru_cache(maxsize=4)
def feature_operator(model: MorphableModel) -> Floats:
    """(F, E) likeliest change of expression that changes each feature by one, and no other."""
    effect = features(model.expression_basis)  # (E, F)
    return np.linalg.solve(effect.T @ effect, effect.T).astype(np.float32)
