"""Where heads are, from landmarks: what the paper has a pre-trained ResNet-18 for.

Canonical space is the morphable model's frame, scaled so that a head which looks into the camera
fills it as it fills the crop of a picture. Its origin lies between the ears.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.topology import MESH_POINTS
from metaportrait_cli.motion.alignment import similarity
from metaportrait_cli.motion.morphable import MorphableModel
from metaportrait_cli.networks.mega.encoders import FACE_CENTRE, FACE_HALF

UNIT = 0.4
"""Of the model's unit in canonical space, whose sides go from -1 to 1; a face of the model is 2.75
high, one in a crop 1.1"""


def head_matrices(
    points: NDArray[np.float32], *, side: int, model: MorphableModel
) -> NDArray[np.float32]:
    """Canonical coordinates → those of the picture, both from -1 to 1: (T, 4, 4), by Procrustes.

    `points` (T, 478, 3) are in pixels of a square picture. Points that expressions move count
    little. A picture doesn't say how far away a head is: its origin has depth 0.
    """
    mesh = points[:, :MESH_POINTS]
    shape = model.mean[None, :MESH_POINTS]
    rotation, scale, place = similarity(shape, mesh, model.rigid_weight[None])
    matrix = np.zeros((len(points), 4, 4), np.float32)
    matrix[:, :3, :3] = rotation * (scale * (2 / side / UNIT))[:, None, None]
    matrix[:, :2, 3] = place[:, :2] * (2 / side) - 1
    matrix[:, 3, 3] = 1
    return matrix


def aligned_face(
    picture: NDArray[np.generic], head: NDArray[np.float32], *, size: int
) -> NDArray[np.float32]:
    """`networks.mega.encoders.aligned` of one picture (S, S, 3) and one head (4, 4)."""
    half = len(picture) / 2
    plane = head[:2, :2] * (FACE_HALF * half)  # places from -1 to 1 → pixels
    centre = (head[:2, :3] @ np.array(FACE_CENTRE) + head[:2, 3] + 1) * half
    # Pixel i of N has its centre at (2 i + 1) / N - 1; cv2 counts from the first one's.
    first = plane @ np.full(2, 1 / size - 1) + centre - 0.5
    matrix = np.concatenate([plane * (2 / size), first[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture.astype(np.float32), matrix, (size, size), flags=flags)
