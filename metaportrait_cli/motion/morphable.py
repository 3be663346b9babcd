"""A linear morphable model of the face in the 478-point topology.

    landmarks = scale * R @ (mean + identity_basis @ a + expression_basis @ b) + translation

The paper (appendix A) fits a morphable model to dense landmarks so that a driver's expression can
be shown on the source's face shape. Theirs isn't public; this one is learnt from landmark tracks by
`metaportrait_cli.training.morphable.learn`.

Conventions
- Model frame: x to the right of the picture (the person's left), y down, z away from the camera,
  for a face that looks into the camera. Unit: the inter-ocular distance (between the midpoints of
  each eye's corners) of the mean face is 1. The origin lies between the ears, about where a head
  turns, so that turning the head hardly moves the translation.
- Coefficients are whitened: their distribution over people (identity) or over a person's frames
  (expression) has unit variance.
- Expression is person-centred: b = 0 is the average over frames, not a silent, neutral face. That
  one is found by the detector's blendshapes, see `motion.rest`.
- Every basis vector is either symmetric or antisymmetric under mirroring, so a mirrored face has
  the same coefficients up to the signs in `identity_parity` and `expression_parity`.
- Irises aren't part of the bases. Gaze is two numbers an eye: the offset (right, down) of the iris
  centre from the midpoint of the eye's corners, in half eye widths, in the model frame.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialise

from metaportrait_cli.errors import WeightsError
from metaportrait_cli.face.face import BLENDSHAPE_COUNT
from metaportrait_cli.face.topology import EYE_CORNERS, IRISES, MESH_POINTS, POINTS
from metaportrait_cli.motion.alignment import Floats
from metaportrait_cli.weights import bundled_path

ARCHITECTURE: Final = "morphable478"


@dataclass(frozen=True, kw_only=True, eq=False)
class MorphableModel:
    """The model's arrays; P = 478 points, M = 468 of them in the bases, K and E coefficients."""

    mean: Floats
    """(P, 3) average face, irises at an average gaze."""

    identity_basis: Floats
    """(K, M, 3), each vector scaled to one standard deviation over people."""

    expression_basis: Floats
    """(E, M, 3), each vector scaled to one standard deviation over a person's frames."""

    identity_parity: Floats
    """(K,) +1 for symmetric, -1 for antisymmetric vectors."""

    expression_parity: Floats
    """(E,) likewise."""

    mirror: NDArray[np.int32]
    """(P,) index of each point's mirror image; its own inverse."""

    rigid_weight: Floats
    """(M,) how much a point counts for the pose: high where expression moves little; mean 1."""

    shape_weight: Floats
    """(M,) how much a point counts for the coefficients: high at lids and lips; mean 1."""

    noise: float
    """Standard deviation that a fit should expect of a coordinate, in inter-ocular distances.

    It is larger than the detector's jitter: errors of neighbouring points are alike, so 1404
    coordinates carry less evidence than their number says.
    """

    expression_jitter: Floats
    """(E,) frame-to-frame noise of each fitted coefficient while a face is at rest."""

    blendshape_effect: Floats
    """(B, E) change of a person's expression with each of the detector's blendshapes."""

    blendshape_rest: Floats
    """(B,) blendshapes of a face at rest."""

    def __post_init__(self) -> None:
        """Reject arrays that do not fit together (a file of another topology, or a damaged one)."""
        k, e = len(self.identity_basis), len(self.expression_basis)
        expected = {
            "mean": (POINTS, 3),
            "identity_basis": (k, MESH_POINTS, 3),
            "expression_basis": (e, MESH_POINTS, 3),
            "identity_parity": (k,),
            "expression_parity": (e,),
            "mirror": (POINTS,),
            "rigid_weight": (MESH_POINTS,),
            "shape_weight": (MESH_POINTS,),
            "expression_jitter": (e,),
            "blendshape_effect": (BLENDSHAPE_COUNT, e),
            "blendshape_rest": (BLENDSHAPE_COUNT,),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                found = getattr(self, name).shape
                raise ValueError(f"{name} has shape {found}, expected {shape}")
        if not np.array_equal(self.mirror[self.mirror], np.arange(POINTS)):
            raise ValueError("the mirror map is not its own inverse")

    @property
    def identity_size(self) -> int:
        """K, the number of identity coefficients."""
        return len(self.identity_basis)

    @property
    def expression_size(self) -> int:
        """E, the number of expression coefficients."""
        return len(self.expression_basis)

    def rest(self, identity: Floats) -> Floats:
        """The (M, 3) face of a person with identity coefficients (K,) at average expression."""
        return self.mean[:MESH_POINTS] + np.tensordot(identity, self.identity_basis, axes=1)

    def shape(self, identity: Floats, expression: Floats, gaze: Floats) -> Floats:
        """Faces (T, P, 3) in the model frame, irises included.

        Takes identity (K,), expression (T, E) and gaze (T, 2, 2): eye (right, left), axis (x, y).
        """
        mesh = self.rest(identity) + np.tensordot(expression, self.expression_basis, axes=1)
        return self.with_irises(mesh, gaze)

    def with_irises(self, mesh: Floats, gaze: Floats) -> Floats:
        """Adds irises looking along gaze (T, 2, 2) to meshes (T, M, 3): faces (T, P, 3).

        Iris rings have the mean face's form, scaled by the width of the eye.
        """
        faces = np.empty((len(mesh), POINTS, 3), np.float32)
        faces[:, :MESH_POINTS] = mesh
        _, mean_half = _eye_frames(self.mean[None])
        centre, half = _eye_frames(mesh)
        depths = self.iris_depths(mesh)
        for eye, iris in enumerate(IRISES):
            ring = self.mean[list(iris), :2] - self.mean[iris[0], :2]
            size = half[:, eye, None, None]
            pupil = centre[:, eye, None, :2] + gaze[:, eye, None] * size
            faces[:, list(iris), :2] = pupil + ring * (size / mean_half[0, eye])
            faces[:, list(iris), 2] = depths[:, eye, None]
        return faces

    def iris_depths(self, mesh: Floats) -> Floats:
        """Depth (T, 2) of the right and the left iris, each taken as flat, on meshes (T, M, 3)."""
        mean_centre, mean_half = _eye_frames(self.mean[None])
        centre, half = _eye_frames(mesh)
        pupils = self.mean[[iris[0] for iris in IRISES], 2]
        return centre[..., 2] + half * (pupils - mean_centre[0, :, 2]) / mean_half[0]

    def mirrored(self, faces: Floats) -> Floats:
        """Mirror images of faces (..., P, 3) given in the model frame."""
        return faces[..., self.mirror, :] * np.array([-1, 1, 1], np.float32)

    def save(self, path: Path, metadata: dict[str, str]) -> None:
        """Writes a safetensors file; metadata says where the model comes from.

        Bases are stored as float16 (their rounding is far below the detector's noise).
        """
        arrays = {
            field.name: np.ascontiguousarray(getattr(self, field.name))
            for field in fields(self)
            if field.name != "noise"
        }
        for name in ("identity_basis", "expression_basis"):
            arrays[name] = arrays[name].astype(np.float16)
        config = json.dumps({"noise": self.noise})
        content = serialise(arrays, {**metadata, "architecture": ARCHITECTURE, "config": config})
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(content)
        partial.replace(path)

    @classmethod
    def bundled(cls) -> MorphableModel:
        """The one that ships."""
        return cls.load(bundled_path("morphable"))

    @classmethod
    def load(cls, path: Path) -> MorphableModel:
        """Reads a file written by `save`; raises WeightsError if it is not a whole one."""
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("architecture") != ARCHITECTURE:
                    found = metadata.get("architecture", "none")
                    raise WeightsError(
                        f"{path}: not a face morphable model (architecture: {found})"
                    )
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            for name in ("identity_basis", "expression_basis"):
                arrays[name] = arrays[name].astype(np.float32)
            return cls(**arrays, **json.loads(metadata["config"]))
        except FileNotFoundError as error:
            raise WeightsError(f"{path}: the face morphable model is missing") from error
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path}: damaged face morphable model ({error})") from error


def gaze_of(faces: Floats) -> Floats:
    """Gaze (T, 2, 2) of faces (T, P, 3) in the model frame; see the module's conventions."""
    centre, half = _eye_frames(faces)
    pupils = faces[:, [iris[0] for iris in IRISES]]
    return (pupils - centre)[..., :2] / half[..., None]


def interocular(points: Floats) -> Floats:
    """Distance between the eyes' centres for points (..., P or M, 3 or 2), in their unit."""
    right, left = (points[..., list(corners), :].mean(-2) for corners in EYE_CORNERS)
    return np.linalg.norm(right - left, axis=-1)


def _eye_frames(faces: Floats) -> tuple[Floats, Floats]:
    """Centres (T, 2, 3) between the corners of each eye, and half widths (T, 2)."""
    outer, inner = (faces[:, [corners[i] for corners in EYE_CORNERS]] for i in (0, 1))
    return (outer + inner) / 2, np.linalg.norm(outer - inner, axis=-1) / 2
