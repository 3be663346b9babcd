"""Names for the points of the 478-point MediaPipe face mesh that geometry code needs.

Sides are the person's own: the right eye is on the left of an unmirrored picture. Pairs list an
upper and the lower point that touches it when the lids or lips close, from one corner to the other.
"""

from __future__ import annotations

from typing import Final

POINTS: Final = 478
"""Points of one face: 468 of the skin mesh, then five of each iris (the centre first)."""

MESH_POINTS: Final = 468

RIGHT_EYE_CORNERS: Final = (33, 133)
"""Outer, inner corner."""

LEFT_EYE_CORNERS: Final = (263, 362)
"""Outer, inner corner."""

EYE_CORNERS: Final = (RIGHT_EYE_CORNERS, LEFT_EYE_CORNERS)

IRISES: Final = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))
"""Right, left: the centre, then the ring."""

LIDS: Final = (
    ((246, 7), (161, 163), (160, 144), (159, 145), (158, 153), (157, 154), (173, 155)),
    ((466, 249), (388, 390), (387, 373), (386, 374), (385, 380), (384, 381), (398, 382)),
)
"""Right, left eye: (upper, lower) points, from the outer to the inner corner."""

INNER_LIPS: Final = (
    (191, 95),
    (80, 88),
    (81, 178),
    (82, 87),
    (13, 14),
    (312, 317),
    (311, 402),
    (310, 318),
    (415, 324),
)
"""(upper, lower) points of the inner lip line, from the person's right to the left."""

MOUTH_CORNERS: Final = (61, 291)

OUTER_LIPS: Final = (
    *(61, 185, 40, 39, 37, 0, 267, 269, 270, 409),
    *(291, 375, 321, 405, 314, 17, 84, 181, 91, 146),
)
"""The outer lip line, a closed ring."""

EAR_SIDES: Final = (234, 454)
"""The rearmost points of the mesh, just in front of the ears."""
