"""The 478-point face mesh: which points form which part, and which triangles they span.

Indices are MediaPipe's (Apache-2.0); "left" and "right" are the person's own. Points 0–467 form
the mesh, 468–472 the right iris (centre first), 473–477 the left iris. The mesh has four holes:
the outside, both eye openings and the mouth opening; each hole's rim is one of the rings below.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

POINTS: Final = 478
MESH_POINTS: Final = 468
IRISES: Final = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))
"""Right, left: the centre, then the ring."""

EYE_CORNERS: Final = ((33, 133), (263, 362))
"""Right, left eye: outer, inner corner."""

# fmt: off
LIDS: Final = (
    ((246, 7), (161, 163), (160, 144), (159, 145), (158, 153), (157, 154), (173, 155)),
    ((466, 249), (388, 390), (387, 373), (386, 374), (385, 380), (384, 381), (398, 382)),
)
"""Right, left eye: (upper, lower) points that meet when it closes, outer to inner corner."""

INNER_LIPS: Final = (
    (191, 95), (80, 88), (81, 178), (82, 87), (13, 14), (312, 317), (311, 402), (310, 318),
    (415, 324),
)
"""(upper, lower) points that meet when the mouth closes, from the person's right to the left."""
# fmt: on

INNER_MOUTH_CORNERS: Final = (78, 308)
MOUTH_CORNERS: Final = (61, 291)
"""Right, left; of the outer lip line."""

EAR_SIDES: Final = (234, 454)
"""The rearmost points of the mesh, just in front of the ears; right, left."""

FOREHEAD, CHIN = 10, 152
"""The uppermost and the lowest point of the oval's middle."""


@cache
def _table() -> dict[str, Any]:
    text = resources.files("metaportrait_cli.face").joinpath("mediapipe478.json").read_text()
    return json.loads(text)


@cache
def triangles() -> NDArray[np.int32]:
    """The mesh without its holes: (852, 3) point indices."""
    return np.array(_table()["triangles"], np.int32).reshape(-1, 3)


@cache
def ring(name: str) -> NDArray[np.int32]:
    """A closed ring of point indices in order.

    Names: `face_oval` (36), `left_eye`, `right_eye` (16 each), `left_iris`, `right_iris` (4 each),
    `lips_outer`, `lips_inner` (20 each).
    """
    return np.array(_table()[name], np.int32)


@cache
def brow(name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Lower and upper line of `left_brow` or `right_brow`, five points each, outwards in."""
    lower, upper = _table()[name]
    return tuple(lower), tuple(upper)


@cache
def mirror() -> NDArray[np.int32]:
    """For each point its counterpart on the other side of the face (478,); itself on the middle."""
    return np.array(_table()["mirror"], np.int32)


@cache
def expressive() -> NDArray[np.int32]:
    """What tells the expression to the blendshape network (146,)."""
    return np.array(_table()["expressive"], np.int32)


def head_axes(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rotations (…, 3, 3) of heads with landmarks (…, 478, 3).

    Columns are the head's own axes as seen in the picture: towards the picture's right, down, and
    away from the camera, where a face that looks straight into it has the identity.
    """
    across = points[..., EAR_SIDES[1], :] - points[..., EAR_SIDES[0], :]
    across = across / np.linalg.norm(across, axis=-1, keepdims=True)
    down = points[..., CHIN, :] - points[..., FOREHEAD, :]
    down = down - (down * across).sum(-1, keepdims=True) * across
    down = down / np.linalg.norm(down, axis=-1, keepdims=True)
    return np.stack([across, down, np.cross(across, down)], axis=-1).astype(np.float32)
