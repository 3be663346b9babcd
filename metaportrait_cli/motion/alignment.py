"""Rigid alignment of point sets, many at once, and the rotations it needs.

A rotation matrix takes the model frame (x right, y down, z away from the camera) to the picture's.
Angles are (yaw, pitch, roll) in radians with R = Rz(roll) @ Ry(yaw) @ Rx(pitch): each is the
right-handed angle about its axis, so a positive yaw turns the face's front (-z) to the picture's
left, a positive pitch lowers it, and a positive roll tilts the head clockwise as seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def similarity(shapes: Floats, points: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """The similarity that takes shapes to points in the weighted least-squares sense.

    Takes shapes (T, N, 3) or (1, N, 3), points (T, N, 3) and weights (T, N) or (1, N).
    Returns rotation (T, 3, 3), scale (T,) and translation (T, 3) with
    points = scale * rotation @ shape + translation (Umeyama 1991).
    """
    weights = weights / weights.sum(axis=-1, keepdims=True)
    shape_mean = np.einsum("tn,tnc->tc", weights, shapes)
    point_mean = np.einsum("tn,tnc->tc", weights, points)
    centred = shapes - shape_mean[:, None]
    weighted = centred * weights[..., None]
    # Points needn't be centred: the weighted shape sums to zero.
    covariance = np.swapaxes(points, -1, -2) @ weighted
    u, values, vt = np.linalg.svd(covariance)
    proper = np.ones_like(values)
    proper[:, 2] = np.linalg.det(u @ vt)
    rotation = (u * proper[:, None]) @ vt
    scale = (values * proper).sum(-1) / np.einsum("tnc,tnc->t", weighted, centred)
    translation = point_mean - scale[:, None] * np.einsum("tij,tj->ti", rotation, shape_mean)
    return (
        rotation.astype(np.float32),
        scale.astype(np.float32),
        translation.astype(np.float32),
    )


def to_frame(points: Floats, rotation: Floats, scale: Floats, translation: Floats) -> Floats:
    """Points (T, N, 3) of the picture in the model frame: undoes `from_frame`."""
    return ((points - translation[:, None]) @ rotation) / scale[:, None, None]


def from_frame(shapes: Floats, rotation: Floats, scale: Floats, translation: Floats) -> Floats:
    """Shapes (T, N, 3) of the model frame in the picture."""
    turned = shapes @ np.swapaxes(rotation, -1, -2)
    return turned * scale[:, None, None] + translation[:, None]


def angles_of(rotation: Floats) -> Floats:
    """(yaw, pitch, roll) in radians, (..., 3), of rotation matrices (..., 3, 3)."""
    yaw = np.arcsin(np.clip(-rotation[..., 2, 0], -1, 1))
    pitch = np.arctan2(rotation[..., 2, 1], rotation[..., 2, 2])
    roll = np.arctan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return np.stack([yaw, pitch, roll], axis=-1).astype(np.float32)


def rotation_of(angles: Floats) -> Floats:
    """Rotation matrices (..., 3, 3) of (yaw, pitch, roll) in radians (..., 3)."""
    (sy, sp, sr), (cy, cp, cr) = (np.moveaxis(f(angles), -1, 0) for f in (np.sin, np.cos))
    rows = [
        [cr * cy, cr * sy * sp - sr * cp, cr * sy * cp + sr * sp],
        [sr * cy, sr * sy * sp + cr * cp, sr * sy * cp - cr * sp],
        [-sy, cy * sp, cy * cp],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2).astype(np.float32)


def vector_of(rotation: Floats) -> Floats:
    """Rotation vectors (..., 3) (axis times angle in radians, below pi) of matrices (..., 3, 3)."""
    twice_sine = np.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        axis=-1,
    )
    sine = np.linalg.norm(twice_sine, axis=-1) / 2
    angle = np.arctan2(sine, (np.trace(rotation, axis1=-2, axis2=-1) - 1) / 2)
    factor = np.where(sine > 1e-6, angle / np.maximum(2 * sine, 1e-6), 0.5)
    return (twice_sine * factor[..., None]).astype(np.float32)


def rotation_of_vector(vector: Floats) -> Floats:
    """Rotation matrices (..., 3, 3) of rotation vectors (..., 3): Rodrigues' formula."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack(
        [
            np.stack([zero, -z, y], axis=-1),
            np.stack([z, zero, -x], axis=-1),
            np.stack([-y, x, zero], axis=-1),
        ],
        axis=-2,
    )
    first = np.sinc(angle / np.pi)
    second = np.sinc(angle / (2 * np.pi)) ** 2 / 2
    return (np.eye(3) + first * cross + second * (cross @ cross)).astype(np.float32)
