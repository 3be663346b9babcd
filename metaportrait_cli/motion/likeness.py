"""How alike two pictures of one person's face are: in pose, in place, around the mouth, the eyes.

Faces are compared in the frame of a reference face of the same person: what a rigid motion of the
head explains is pose and place, what is left is expression. Lengths are inter-ocular distances of
the reference, angles radians.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.motion import apertures
from metaportrait_cli.motion.alignment import Floats, similarity, to_frame, vector_of
from metaportrait_cli.motion.morphable import interocular


@dataclass(frozen=True, kw_only=True, eq=False)
class Likeness:
    """The difference in each respect that counts as one; `None` leaves the respect out."""

    turn: float | None = None
    place: float | None = None
    mouth: float | None = None
    lips: float | None = None
    brows: float | None = None
    eyes: float | None = None
    gaze: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """N faces of a person, each respect as (N, numbers)."""

    turn: Floats
    """(N, 3) rotation vectors of the head from the reference"""
    place: Floats
    """(N, 2) where the face is, less where the reference has it"""
    mouth: Floats
    """(N, 2 M) places of the lips' points, over sqrt(M): distances are root mean squares"""
    lips: Floats
    """(N, L) gaps between the lips, over L"""
    brows: Floats
    """(N, 2 B) places of the brows' points, over sqrt(B)"""
    eyes: Floats
    """(N, 2) openness of the eyes, see `apertures.eye_openness`"""
    gaze: Floats
    """(N, 4) irises' places in their eyes"""

    @classmethod
    def of(cls, faces: NDArray[np.float32], reference: NDArray[np.float32]) -> Looks:
        """Faces (N, 478, 3) against a reference (478, 3), all in pixels of one frame."""
        rotation, scale, shift = similarity(reference[None], faces, _skull(reference)[None])
        unit = float(interocular(reference))
        still = to_frame(faces, rotation, scale, shift) / unit
        count = len(faces)
        lips, brows = _lip_points(), _brow_points()
        middles = [still[:, list(corners)].mean(1) for corners in topology.EYE_CORNERS]
        pupils = [still[:, iris[0]] for iris in topology.IRISES]
        gaps = apertures.gaps(still)[:, apertures.LIPS]
        return cls(
            turn=vector_of(rotation),
            place=(faces[..., :2].mean(1) - reference[:, :2].mean(0)) / unit,
            mouth=still[:, lips, :2].reshape(count, -1) / np.sqrt(len(lips)),
            lips=gaps / gaps.shape[1],
            brows=still[:, brows, :2].reshape(count, -1) / np.sqrt(len(brows)),
            eyes=apertures.eye_openness(still),
            gaze=np.concatenate(
                [(p - m)[:, :2] for p, m in zip(pupils, middles, strict=True)], axis=1
            ),
        )

    def pick(self, index: NDArray[np.intp]) -> Looks:
        """Some of the faces."""
        return Looks(**{name: values[index] for name, values in vars(self).items()})

    def scaled(self, likeness: Likeness) -> Floats:
        """(N, numbers) in which Euclidean distances are those that `likeness` asks for."""
        parts = [
            values / getattr(likeness, name)
            for name, values in vars(self).items()
            if getattr(likeness, name) is not None
        ]
        return np.concatenate(parts, axis=1).astype(np.float32)


def squared_distances(first: Floats, second: Floats) -> Floats:
    """(N, M) between rows (N, D) and (M, D)."""
    return ((first[:, None] - second[None]) ** 2).sum(-1)


@cache
def _lip_points() -> list[int]:
    rings = (topology.ring("lips_outer"), topology.ring("lips_inner"))
    return sorted({int(point) for ring in rings for point in ring})


@cache
def _brow_points() -> list[int]:
    lines = (*topology.brow("left_brow"), *topology.brow("right_brow"))
    return [point for line in lines for point in line]


def _skull(reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights (478,): 1 for the mesh above the mouth, which the jaw doesn't move, else 0."""
    eyes = reference[[corner for pair in topology.EYE_CORNERS for corner in pair]].mean(0)
    down = reference[list(topology.MOUTH_CORNERS)].mean(0) - eyes
    weights = ((reference - eyes) @ down < 0.8 * (down @ down)).astype(np.float32)
    weights[topology.MESH_POINTS :] = 0
    return weights
