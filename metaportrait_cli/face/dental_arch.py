"""Where teeth are: dental arches fixed to skull and jaw, met by each pixel's ray in closed form.

Lengths are millimetres of the skull frame: axes as the picture's for a face that looks into the
camera (x right, y down, z away), 63 mm between the pupils. It is found from face points that
expressions hardly move. The camera is taken as far away, so that all rays are parallel.

Each arch is a parabola z = bend · x² seen from above, drawn out along y. A place on it is (u, v):
u along the arch from its middle, to the right of the picture, v from the teeth's edges, below 0
towards the gum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.crop import smoothstep

Floats = NDArray[np.floating]

# fmt: off
SKULL: Final = (
    10, 338, 297, 332, 109, 67, 103, 151, 9, 8, 168, 6, 197, 195, 5, 33, 133, 263, 362, 127, 356,
    234, 454, 162, 389, 21, 251, 98, 327, 2,
)
"""Face points that expressions hardly move: forehead, bridge of the nose, eye corners, temples."""
CHIN: Final = (152, 148, 377, 176, 400, 175, 199, 171, 396, 140, 369)
# fmt: on
PUPILS: Final = 63.0
NOSE_BASE: Final = 2
_MIDLINE = [2, 164, 0, 6, 168]
_CORNERS = topology.INNER_MOUTH_CORNERS
UPPER_LIP: Final = (_CORNERS[0], *(upper for upper, _ in topology.INNER_LIPS), _CORNERS[1])
LOWER_LIP: Final = (_CORNERS[0], *(lower for _, lower in topology.INNER_LIPS), _CORNERS[1])
_MIDDLE = slice(4, 7)  # of a lip's eleven points

# Means over registered photos: the edge of the upper incisors below the base of the nose, its
# depth behind it, and the size of teeth (spread between people: 2.2 mm, –, 6 %).
EDGE_BELOW_NOSE, BEHIND_NOSE, TOOTH_SIZE = 24.3, 12.0, 0.96
UPPER_BEND, LOWER_BEND = 0.028, 0.036
# Of lips at rest the upper one leaves so much of the incisors free.
EDGE_BELOW_LIP, AT_REST = 3.0, 1.5
OVERBITE, OVERJET = 2.0, 2.5
JAW_RANGE = (-0.05, 0.6)  # radians
SOFT_EDGE = 0.35
# An opening below the first height is the landmarks' noise; at the second, all is drawn.
OPENING = (1.5, 3.0)
LENS = 1.5  # height of a mouth's opening to its mean height
# Turned farther than the first (radians), drawn teeth fade; at the second they are gone: the far
# corner of the mouth is a guess of the landmarks.
TURN = (0.8, 0.95)


@dataclass(frozen=True)
class SkullPose:
    """From the skull frame to the picture: scale · rotation @ point + shift."""

    rotation: Floats  # (3, 3)
    scale: float
    """Pixels per millimetre"""
    shift: Floats  # (3,)

    def to_skull(self, points: Floats) -> Floats:
        """Points (N, 3) of the picture in the skull frame."""
        return (points - self.shift) @ self.rotation / self.scale


@dataclass(frozen=True)
class Arch:
    """One row of teeth; `side` is 1 for an upper one, whose gum is above, else -1."""

    bend: float
    middle: Floats
    """(3,) between the incisors, at their edge"""
    side: int
    size: float = TOOTH_SIZE
    """Millimetres of the skull frame to one of the teeth"""

    def places(self, origins: Floats, direction: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Where rays from origins (H, W, 3) along `direction` (3,) meet it first: (u, v) in teeth's
        millimetres (H, W, 2), and whether they do (H, W)."""
        x, y, z = np.moveaxis(origins - self.middle.astype(np.float32), -1, 0)
        dx, dy, dz = (float(d) for d in direction)
        # bend (x + k dx)² = z + k dz; of both places the nearer one, written so that dx may be 0.
        square, linear = self.bend * dx * dx, 2 * self.bend * dx * x - dz
        constant = self.bend * x * x - z
        root = linear * linear - 4 * square * constant
        far = 2 * constant / (np.sqrt(np.maximum(root, 1e-6)) - linear)
        u = along_parabola(x + far * dx, self.bend) / self.size
        v = self.side * (y + far * dy) / self.size
        return np.stack([u, v], axis=-1).astype(np.float32), root > 0

    def points(self, u: Floats, v: Floats) -> Floats:
        """Points (H, W, 3) of the skull frame at places on it; undoes `places`."""
        x = np.linspace(-60, 60, 2401)
        across = np.interp(u * self.size, along_parabola(x, self.bend), x)
        across, down = np.broadcast_arrays(across, self.side * self.size * v)
        return self.middle + np.stack([across, down, self.bend * across**2], axis=-1)


def along_parabola(x: Floats, bend: float) -> Floats:
    """Length of the curve z = bend · x² from 0 to x."""
    slope = 2 * bend * x
    return (x * np.sqrt(1 + slope * slope) + np.arcsinh(slope) / (2 * bend)) / 2


@dataclass(frozen=True)
class Bite:
    """One person's skull, jaw and arches: `rest` (478, 3) is their face in the skull frame."""

    rest: Floats
    upper: Arch
    hinge: Floats
    """(3,) on the axis about which the jaw turns"""

    @classmethod
    def of(cls, rest: Floats, *, edge: float | None = None, size: float = TOOTH_SIZE) -> Bite:
        """From a face in the skull frame; `edge` is the height of the incisors' edges, where it is
        known better than from the lips."""
        nose = rest[NOSE_BASE]
        if edge is None:
            apart = float(np.linalg.norm(rest[UPPER_LIP[5]] - rest[LOWER_LIP[5]]))
            lips = float(rest[[UPPER_LIP[5], LOWER_LIP[5]], 1].mean())
            edge = lips + EDGE_BELOW_LIP if apart < AT_REST else float(nose[1]) + EDGE_BELOW_NOSE
        middle = np.array([rest[_MIDLINE, 0].mean(), edge, nose[2] + BEHIND_NOSE])
        ears = rest[list(topology.EAR_SIDES)].mean(0)
        return cls(
            rest=rest,
            upper=Arch(UPPER_BEND, middle, side=1, size=size),
            hinge=np.array([0, ears[1] + 5, ears[2] + 5]),
        )

    def jaw(self, skull: Floats) -> float:
        """Angle (radians) by which the jaw of a face (478, 3) in the skull frame is open."""
        angles = [
            np.arctan2(arm[1], -arm[2])
            for arm in (face[list(CHIN)].mean(0) - self.hinge for face in (skull, self.rest))
        ]
        return float(np.clip(angles[0] - angles[1], *JAW_RANGE))

    def lower(self, angle: float) -> tuple[Arch, Floats]:
        """The lower row while the jaw is open by `angle`, in the jaw's own frame; and that frame's
        rotation (3, 3) about the hinge."""
        middle = self.upper.middle + np.array([0, -OVERBITE, OVERJET])
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
        return Arch(LOWER_BEND, middle, side=-1, size=self.upper.size), turn


@dataclass(frozen=True)
class Inside:
    """What lies between the lips, over a box of H × W pixels of the picture."""

    corner: tuple[int, int]
    """x, y of the box's first pixel"""
    opening: NDArray[np.float32]
    """(H, W) how much of a pixel may be painted"""
    upper: NDArray[np.float32]
    lower: NDArray[np.float32]
    """(H, W, 2) places on either row; far beyond any tooth where the ray misses it"""
    below_lip: NDArray[np.float32]
    above_lip: NDArray[np.float32]
    from_corner: NDArray[np.float32]
    """(H, W) distances to the upper lip, to the lower one, and to the nearer corner of the mouth"""
    over_teeth: NDArray[np.float32]
    """(H, W, 2) from the middle of the lower incisors' edge, x and y down, in the lips' plane"""
    gap: float
    """Height of the opening"""

    @property
    def box(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        (x, y), (height, width) = self.corner, self.opening.shape
        return slice(y, y + height), slice(x, x + width)


MISSED = 1e3


def look_inside(
    bite: Bite,
    pose: SkullPose,
    points: NDArray[np.float32],
    *,
    size: int,
    unknown: NDArray[np.float32],
    raised: float,
) -> Inside | None:
    """The inside of a face's mouth in a picture of `size`, or `None` where it shows nothing.

    `points` (478, 3) are the face's, `unknown` (N, 2) the polygon that may be painted, both in
    pixels. `raised` is how far the lower teeth stand above the middle of the lower lip.
    """
    skull = pose.to_skull(points)
    up, low = skull[list(UPPER_LIP)], skull[list(LOWER_LIP)]
    gap = float((low[1:-1, 1] - up[1:-1, 1]).max())
    turned = float(np.arccos(np.clip(pose.rotation[2, 2], -1, 1)))
    width = max(float(np.ptp(unknown[:, 0])), 1e-6)
    height = LENS * cv2.contourArea(unknown.astype(np.float32)) / width / pose.scale
    strength = _ramp(min(gap, height), *OPENING) * (1 - _ramp(turned, *TURN))
    pad = 2 + int(0.6 * pose.scale)
    x0, y0 = np.maximum(np.floor(unknown.min(0)).astype(int) - pad, 0).tolist()
    x1, y1 = np.minimum(np.ceil(unknown.max(0)).astype(int) + pad, size).tolist()
    if strength <= 0 or x1 - x0 < 3 or y1 - y0 < 3:
        return None
    # Rays of the box's pixels in the skull frame, from the picture's plane on.
    rotation = pose.rotation.astype(np.float32)
    x = np.arange(x0, x1, dtype=np.float32) + 0.5 - np.float32(pose.shift[0])
    y = np.arange(y0, y1, dtype=np.float32) + 0.5 - np.float32(pose.shift[1])
    origins = x[None, :, None] * rotation[0] + y[:, None, None] * rotation[1]
    origins = (origins - np.float32(pose.shift[2]) * rotation[2]) / np.float32(pose.scale)
    direction = rotation[2]

    arch, turn = bite.lower(bite.jaw(skull))
    hinge = bite.hinge
    edge = turn @ (arch.middle - hinge) + hinge
    # The jaw's angle says where its teeth are to some millimetres; the lip says it better.
    lift = np.array([0, low[_MIDDLE, 1].mean() - raised - edge[1], 0])
    edge = edge + lift
    in_jaw = (origins - (hinge + lift).astype(np.float32)) @ turn.astype(np.float32)
    at_lips = (np.float32(up[:, 2].mean()) - origins[..., 2]) / direction[2]
    at_x, at_y = (origins[..., i] + at_lips * direction[i] for i in (0, 1))
    return Inside(
        corner=(x0, y0),
        opening=_coverage(unknown, (x0, y0), (x1, y1), soft=SOFT_EDGE * pose.scale) * strength,
        upper=_met(bite.upper, origins, direction),
        lower=_met(arch, in_jaw + hinge.astype(np.float32), direction @ turn),
        below_lip=_positive(at_y - np.interp(at_x, up[:, 0], up[:, 1])),
        above_lip=_positive(np.interp(at_x, low[:, 0], low[:, 1]) - at_y),
        from_corner=_positive(np.minimum(at_x - up[0, 0], up[-1, 0] - at_x)),
        over_teeth=np.stack([at_x - edge[0], at_y - edge[1]], axis=-1).astype(np.float32),
        gap=gap,
    )


def _met(arch: Arch, origins: Floats, direction: Floats) -> NDArray[np.float32]:
    places, met = arch.places(origins, direction)
    places[~met] = MISSED
    return places


def _coverage(
    polygon: Floats, low: tuple[int, int], high: tuple[int, int], *, soft: float
) -> NDArray[np.float32]:
    """Coverage (H, W) in [0, 1] of a polygon (N, 2) in the box between two corners, blurred."""
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    # Points have their origin at a pixel's corner, cv2 draws from its centre.
    places = np.rint((polygon - np.array(low) - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [places], 255, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), max(0.5, soft))


def _positive(x: Floats) -> NDArray[np.float32]:
    return np.maximum(x, 0).astype(np.float32)


def _ramp(x: float, low: float, high: float) -> float:
    return float(smoothstep((x - low) / (high - low)))
