"""Fits the morphable model to landmarks: one identity per person, the rest per frame.

Landmarks are (T, 478, 3) in pixels of the frame: x right, y down, z in the same unit with smaller
values nearer to the camera. Frames are fitted independently of each other, so a clip may be fitted
window by window. Only numpy is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face.topology import IRISES, MESH_POINTS, POINTS
from metaportrait_cli.motion.alignment import Floats, angles_of, from_frame, similarity, to_frame
from metaportrait_cli.motion.morphable import MorphableModel, gaze_of
from metaportrait_cli.stages import side_by_side

FRAME_ROUNDS: Final = 3
"""Rounds of pose and coefficients; the change after the third is far below the detector's noise."""

IDENTITY_ROUNDS: Final = 4

TOGETHER: Final = 48
"""Frames that are fitted at once; others are meanwhile, on other cores."""

HUBER: Final = 2.5
"""Points further off than this many times the frame's median error lose weight."""

INDEPENDENT_FRAMES: Final = 4.0
"""Evidence that a clip holds about a face, in independent expressions, however long it is."""

FRONTAL_ANGLE: Final = 0.6
"""Radians at which a turned frame counts 1/e towards the identity: its far side is guessed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceParameters:
    """T frames of one person in the terms of the model; the inverse is `reconstruct`."""

    identity: Floats
    """(K,) of the person."""

    expression: Floats
    """(T, E), in standard deviations."""

    gaze: Floats
    """(T, 2, 2): eye (right, left), offset (right, down) in half eye widths."""

    rotation: Floats
    """(T, 3, 3) from the model frame to the picture."""

    scale: Floats
    """(T,) pixels per inter-ocular distance of the mean face."""

    translation: Floats
    """(T, 3) pixels: where the head's turning point is; third, the detector's depth offset."""

    residual: Floats
    """(T, 478, 3) in the model frame: what the bases cannot express."""

    error: Floats
    """(T,) root mean square reprojection error without the residual, in the model's unit."""

    def __len__(self) -> int:
        """T, the number of frames."""
        return len(self.expression)

    def frames(self, index: slice | NDArray[np.intp] | NDArray[np.bool_]) -> FaceParameters:
        """Some of the frames, in the order of the index."""
        names = [field.name for field in fields(self) if field.name != "identity"]
        return replace(self, **{name: getattr(self, name)[index] for name in names})

    def frame(self, index: int) -> FaceParameters:
        """One frame (T = 1)."""
        position = range(len(self))[index]
        return self.frames(slice(position, position + 1))

    @property
    def angles(self) -> Floats:
        """(T, 3) yaw, pitch and roll in radians; signs as in `face.alignment`."""
        return angles_of(self.rotation)


def concatenate(parts: list[FaceParameters]) -> FaceParameters:
    """Frames of one person that were fitted in parts."""
    names = [field.name for field in fields(FaceParameters) if field.name != "identity"]
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return replace(parts[0], **arrays)


def still_faces(model: MorphableModel, parameters: FaceParameters) -> Floats:
    """Faces (T, 478, 3) in the model frame, residual included: landmarks without the pose."""
    p = parameters
    return model.shape(p.identity, p.expression, p.gaze) + p.residual


def reconstruct(model: MorphableModel, parameters: FaceParameters) -> Floats:
    """Landmarks (T, 478, 3) in pixels, residual included: undoes `fit_frames`.

    Only the depth of the irises is the model's instead of the detector's.
    """
    p = parameters
    return from_frame(still_faces(model, p), p.rotation, p.scale, p.translation)


def fit_frames(model: MorphableModel, landmarks: Floats, identity: Floats) -> FaceParameters:
    """Expression, gaze and pose of every frame of a person with a known identity.

    Alternates a closed-form pose with ridge regression of the expression; both are robust, with
    Huber weights for each point of each frame (hands, microphones, a wrong eyelid).
    """
    parts = [landmarks[first : first + TOGETHER] for first in range(0, len(landmarks), TOGETHER)]
    if len(parts) < 2:
        return _fitted(model, landmarks, identity)
    return concatenate(side_by_side(lambda part: _fitted(model, part, identity), parts))


def _fitted(model: MorphableModel, landmarks: Floats, identity: Floats) -> FaceParameters:
    """The same of a few frames."""
    mesh = landmarks[:, :MESH_POINTS]
    rest = model.rest(identity)[None]
    weights = np.broadcast_to(model.shape_weight, mesh.shape[:2])
    pose = similarity(rest, mesh, model.rigid_weight[None])
    for _ in range(FRAME_ROUNDS):
        offsets = to_frame(mesh, *pose) - rest
        expression = _ridge(model, offsets, weights)
        change = (expression @ _rows(model.expression_basis)).reshape(offsets.shape)
        robust = _huber(np.linalg.norm(offsets - change, axis=-1))
        weights = model.shape_weight * robust
        pose = similarity(rest + change, mesh, model.rigid_weight * robust)
    faces = to_frame(landmarks, *pose)
    expression = _ridge(model, faces[:, :MESH_POINTS] - rest, weights)
    faces[:, MESH_POINTS:] = _irises(model, faces[:, :MESH_POINTS], landmarks, pose)
    gaze = gaze_of(faces)
    residual = faces - model.shape(identity, expression, gaze)
    in_picture = (residual[:, :MESH_POINTS] @ np.swapaxes(pose[0], -1, -2))[..., :2]
    error = np.sqrt((in_picture**2).sum(-1).mean(-1))
    return FaceParameters(
        identity=identity,
        expression=expression,
        gaze=gaze,
        rotation=pose[0],
        scale=pose[1],
        translation=pose[2],
        residual=residual,
        error=error,
    )


def fit_identity(model: MorphableModel, frames: Floats) -> Floats:
    """Identity (K,) of one person from frames (S, 478, 3), of one or several clips or photos.

    The expression of each frame is estimated along with it and left out: a smile seen in one photo
    is shared out between identity and expression by how common either is. A few dozen frames spread
    over a clip are enough; frames of different sizes and poses may be mixed.
    """
    if frames.ndim != 3 or frames.shape[1:] != (POINTS, 3) or not len(frames):
        raise ValueError(f"frames have shape {frames.shape}, expected (S, {POINTS}, 3) with S >= 1")
    solver = _identity_solver(model, min(len(frames), INDEPENDENT_FRAMES))
    identity = np.zeros(model.identity_size, np.float32)
    mean = model.mean[:MESH_POINTS]
    for _ in range(IDENTITY_ROUNDS):
        fit = fit_frames(model, frames, identity)
        faces = to_frame(frames[:, :MESH_POINTS], fit.rotation, fit.scale, fit.translation)
        trust = _frame_trust(fit)
        average = np.einsum("t,tnc->nc", trust, faces - mean) / trust.sum()
        identity = (solver @ average.ravel()).astype(np.float32)
    return identity


def _irises(
    model: MorphableModel, mesh: Floats, landmarks: Floats, pose: tuple[Floats, Floats, Floats]
) -> Floats:
    """Iris points (T, 10, 3) in the model frame: where the lines of sight meet the eyes' fronts.

    The detector gives all points of an iris one depth, however the head is turned. Gaze computed
    from that would change with the pose, and slip out of the eye in another one.
    """
    rotation, scale, translation = pose
    depth = np.repeat(model.iris_depths(mesh), len(IRISES[0]), axis=1)[..., None]
    seen = (landmarks[:, MESH_POINTS:, :2] - translation[:, None, :2]) / scale[:, None, None]
    flat = seen - depth * rotation[:, None, :2, 2]
    inverse = np.linalg.inv(rotation[:, :2, :2])
    return np.concatenate([flat @ np.swapaxes(inverse, 1, 2), depth], axis=-1).astype(np.float32)


def _frame_trust(fit: FaceParameters) -> Floats:
    """Weight (T,) of each frame towards the identity: lower when turned away or badly fitted."""
    turned = (fit.angles[:, :2] ** 2).sum(-1) / FRONTAL_ANGLE**2
    return (np.exp(-turned) + 0.01) * _huber(fit.error[None])[0]


def _rows(basis: Floats) -> Floats:
    """A basis (C, M, 3) as rows (C, 3M)."""
    return basis.reshape(len(basis), 3 * MESH_POINTS)


def _huber(distances: Floats) -> Floats:
    """Weights in (0, 1] for distances (T, N), relative to each row's median."""
    limit = HUBER * np.median(distances, axis=-1, keepdims=True)
    return np.minimum(1, limit / np.maximum(distances, 1e-9)).astype(np.float32)


@lru_cache(maxsize=4)
def _identity_solver(model: MorphableModel, independent: float) -> Floats:
    """(K, 3M) operator from a person's average displacement to their identity coefficients.

    `independent` says for how many independent observations the average stands.
    """
    weight = np.repeat(model.shape_weight, 3) / model.noise**2
    identity_rows, expression_rows = _rows(model.identity_basis), _rows(model.expression_basis)
    gram = expression_rows * weight @ expression_rows.T + np.eye(model.expression_size)
    # Marginalises the expressions: what they could explain doesn't count as identity.
    blind = (identity_rows * weight @ expression_rows.T) @ np.linalg.inv(gram)
    operator = independent * (identity_rows - blind @ expression_rows) * weight
    system = operator @ identity_rows.T + np.eye(model.identity_size)
    return np.linalg.solve(system, operator).astype(np.float32)


@lru_cache(maxsize=4)
def _point_products(model: MorphableModel) -> tuple[Floats, NDArray[np.intp]]:
    """(M, U) each point's share of the upper half of the normal matrix, and where in that each of
    the whole matrix' elements (E, E) is."""
    rows, columns = np.triu_indices(model.expression_size)
    by_point = np.moveaxis(model.expression_basis, 1, 0)  # (M, E, 3)
    products = (by_point @ np.swapaxes(by_point, -1, -2))[:, rows, columns]
    places = np.empty((model.expression_size,) * 2, np.intp)
    places[rows, columns] = places[columns, rows] = np.arange(len(rows))
    return products, places


def _ridge(model: MorphableModel, offsets: Floats, weights: Floats) -> Floats:
    """Most probable expression (T, E) of offsets (T, M, 3) with point weights (T, M)."""
    precision = weights / np.float32(model.noise**2)
    products, places = _point_products(model)
    normal = np.take(precision @ products, places, axis=1)
    target = (offsets * precision[..., None]).reshape(len(offsets), -1)
    right = target @ _rows(model.expression_basis).T
    normal += np.eye(model.expression_size, dtype=np.float32)
    return np.linalg.solve(normal, right[..., None])[..., 0].astype(np.float32)
