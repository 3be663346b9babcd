"""One sheet of triangles over face and person, in depth: what a head carries along when it turns.

The face's landmarks say where each of its points is. Around them a grid of vertices covers the
rest of the person: those of the head move by the 3D similarity between source and driven
landmarks, those of the body stand still, and between the two the neck bends. Painted far to near,
the jaw slides over the neck and the far side of the head behind the face.

Convention: pixels of a window, (x, y, z), origin at the corner of its top left pixel, z away from
the camera. Lengths in face widths are multiples of the distance between the points before the ears.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from metaportrait_cli.face import topology
from metaportrait_cli.face.correspondence import (
    add_interpolated,
    extra_triangles,
    unstretched_mouth,
)
from metaportrait_cli.face.crop import smoothstep
from metaportrait_cli.face.hidden_side import CheekRim
from metaportrait_cli.face.sheet.grid import cells, grid_around, no_steeper, triangulated

Points = NDArray[np.float32]
Motion = tuple[NDArray[np.float64], float, NDArray[np.float64]]  # rotation, scale, shift

BRIDGE = 168
STEP = 1 / 14
"""Between vertices, in face widths"""
SKULL = 0.75
"""From the bridge of the nose back to what bounds a turned head, in face widths; a little beyond
the middle of the head, for the back of it comes into view then"""
ROUNDING, INFLATION = 0.55, 0.55
"""Over which distance from its silhouette the head bulges towards the camera, and how far"""
STEEPEST = 1.4
"""Depth over distance in the picture: a turn by 30° then stretches nothing to twice its size."""
TEMPLE_STEEPEST = 3.0
"""… but little hair beside a temple may reach back to the ear, to 2.4 times its size, …"""
TEMPLES = (0.0, 0.15)
"""… from so far above the eyes, in face widths, …"""
OUTWARDS = 0.2
"""… if depth moves it outwards by so much of itself: what turns away is seen against the brow."""
OVAL_REACH, OVAL_DEPTH_REACH = 0.45, 0.3
"""How far beyond the oval its own deformation and its depth are felt"""
NECK = (-0.6, 0.2)
"""The head's share fades between these distances under the chin …"""
AT_OVAL = 0.16
"""… but not at once beside the jaw: skin stretches over so much."""
ASIDE = (1.2, 1.8)
"""… and between these from the face's middle to the sides: another person, a chair"""
BEHIND = 0.4
"""What the head doesn't carry lies so much farther away: the jaw slides over the neck."""
LEAST_TURN = np.radians(2.5)
"""Turns of the head that the landmarks' depth can't be trusted with are damped below this."""


@dataclass(frozen=True)
class Layout:
    """Where the window's pixels come from, on a grid (G, G) over it.

    `place` (G, G, 2) in pixels of the window; `cover` (G, G) in [0, 1], how much of a cell the
    sheet covers; `around` (G, G), 1 outside the face's mesh; `gap` (N, 2) as of `Correspondence`.
    """

    place: NDArray[np.float32]
    cover: NDArray[np.float32]
    around: NDArray[np.float32]
    gap: NDArray[np.float32]

    def shift(self, side: float) -> NDArray[np.float32]:
        """`place` (G, G, 2) less the pixel's own, in a window of `side`; 0 where nothing covers."""
        covered = np.float32(self.cover > 0)
        return cv2.multiply(
            cv2.subtract(self.place, _centres(len(self.place), side)), cv2.merge([covered] * 2)
        )


@cache
def _centres(grid: int, side: float) -> NDArray[np.float32]:
    """Middles of cells (G, G, 2), in pixels of a window of `side`."""
    centres = (np.arange(grid, dtype=np.float32) + 0.5) * np.float32(side / grid)
    return np.dstack(np.meshgrid(centres, centres)).astype(np.float32)


@dataclass(frozen=True)
class HeadFrame:
    """A head's own axes (right, up, front) as rows, the middle between the ears, and its width."""

    middle: Points
    axes: Points
    width: float

    @classmethod
    def of(cls, points: Points) -> HeadFrame:
        """Of face points (478, 3)."""
        before_ears = points[list(topology.EAR_SIDES)]
        width = float(np.linalg.norm(before_ears[1] - before_ears[0]))
        axes = topology.head_axes(points).T * np.array([[1], [-1], [-1]], np.float32)
        return cls(before_ears.mean(0), axes, width)


class HeadSheet:
    """One source's sheet.

    `points` (478, 3) and `alpha` (H, W), how much of each pixel is the person, both of the window;
    `loose` (H, W) in [0, 1] is 0 where nothing may move. `picture` (H, W, 3) is the window's, see
    `CheekRim`.
    """

    def __init__(
        self,
        points: Points,
        alpha: NDArray[np.float32],
        loose: Points,
        picture: NDArray[np.uint8] | None = None,
    ) -> None:
        self.points = np.asarray(points, np.float32)
        self.loose = loose
        self.head = HeadFrame.of(self.points)
        self._oval = topology.ring("face_oval")
        self._skull = skull_points(self.points)
        self._rim = CheekRim(self.points, picture)
        oval = self.points[self._oval, :2]
        step = STEP * self.head.width
        flat = grid_around(oval, alpha, step=step, width=self.head.width)
        triangles = triangulated(np.concatenate([oval, flat]), oval, longest=2.5 * step)
        self.outer, self._deeper = self._with_depth(flat, alpha)  # (V, 3), (V,)
        out = flat - oval.mean(0)
        self._outwards = out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)
        nearness, apart = self._nearness(flat)
        places = cells(flat, alpha.shape)
        fade = loose[places]
        felt = (1 - smoothstep(apart / (OVAL_REACH * self.head.width))) * fade
        self._spread = (nearness * felt[:, None]).astype(np.float32)  # (V, 36)
        share = np.maximum(
            self._head_share(flat), 1 - smoothstep(apart / (AT_OVAL * self.head.width))
        )
        self._of_head = (share * fade)[:, None]
        index = np.concatenate([self._oval, self._first + np.arange(len(flat))])
        _, inside = extra_triangles()
        self._triangles = np.concatenate([topology.triangles(), inside, index[triangles]])
        self._is_around = np.repeat(
            np.array([0, 1], np.float32),
            [len(topology.triangles()) + len(inside), len(triangles)],
        )

    @property
    def _first(self) -> int:
        """The number of the first outer vertex, after landmarks and the lip pairs' hanging ends."""
        return topology.POINTS + len(topology.INNER_LIPS)

    # ------------------------------------------------------------------ once a source

    def _with_depth(self, flat: Points, alpha: NDArray[np.float32]) -> tuple[Points, Points]:
        """Vertices (V, 2) → (V, 3): inflated from the silhouette, joined to the oval's depth; and
        how much deeper temples are (V,) that turn to the camera."""
        head, width = self.head, self.head.width
        forward = (self.points[BRIDGE] - head.middle) @ head.axes[2]
        centre = (head.middle + head.axes[2] * (forward - SKULL * width))[2]
        pad = round(0.5 * width)
        solid = np.pad(np.uint8(alpha > 0.5), pad, mode="edge")
        distance = cv2.distanceTransform(solid, cv2.DIST_L2, 5)
        distance = cv2.GaussianBlur(distance, (0, 0), max(0.02 * width, 0.5))[pad:-pad, pad:-pad]
        u = np.clip(distance / (ROUNDING * width), 0, 1)
        # Half a parabola, half a circle: round, but not upright at its edge.
        dome = 0.5 * u * (2 - u) + 0.5 * np.sqrt(1 - (1 - u) ** 2)
        depth = (centre - INFLATION * width * dome).astype(np.float32)

        oval = self.points[self._oval]
        nearness, apart = self._nearness(flat)
        places = cells(flat, alpha.shape)
        missing = nearness @ (oval[:, 2] - depth[cells(oval[:, :2], alpha.shape)])

        def joined(beyond: NDArray[np.floating], steepest: float) -> Points:
            z = depth[places] + (1 - smoothstep(beyond)) * missing
            return no_steeper(flat, z, oval, steepest=steepest)

        near = apart / (OVAL_DEPTH_REACH * width)
        z = joined(near, STEEPEST)
        # All of the silhouette lies far back, however near to the oval.
        onwards = apart / np.maximum(apart + 0.5 * distance[places], 1e-6)
        deeper = np.maximum(joined(np.maximum(near, onwards), TEMPLE_STEEPEST) - z, 0)
        eyes = self.points[[outer for outer, _ in topology.EYE_CORNERS], :2].mean(0)
        above = (flat - eyes) @ _unit(head.axes[1, :2]) / width
        deeper *= smoothstep((above - TEMPLES[0]) / (TEMPLES[1] - TEMPLES[0]))
        return np.column_stack([flat, z]).astype(np.float32), deeper.astype(np.float32)

    def _nearness(self, flat: Points) -> tuple[Points, Points]:
        """Shares (V, 36) of the oval's points in what happens at a vertex; its distance (V,)."""
        apart = np.linalg.norm(flat[:, None] - self.points[self._oval, :2][None], axis=2)
        shares = 1 / (apart + 0.02 * self.head.width) ** 3
        return shares / shares.sum(1, keepdims=True), apart.min(1)

    def _head_share(self, flat: Points) -> Points:
        """How much each vertex (V, 2) belongs to the head, (V,) in [0, 1]."""
        head, width = self.head, self.head.width
        below = (flat - self.points[topology.CHIN, :2]) @ -_unit(head.axes[1, :2]) / width
        aside = (flat - self.points[self._oval, :2].mean(0)) @ _unit(head.axes[0, :2]) / width
        down = 1 - smoothstep((below - NECK[0]) / (NECK[1] - NECK[0]))
        return down * (1 - smoothstep((np.abs(aside) - ASIDE[0]) / (ASIDE[1] - ASIDE[0])))

    def planes(self, *, side: float, grid: int) -> NDArray[np.float32]:
        """What is known of the source itself (G, G, 2), 0 beyond the sheet: how much nearer than
        the middle between the ears it is, in face widths, and the head's share in its motion."""
        inner = np.concatenate([self.points, self.points[[low for _, low in topology.INNER_LIPS]]])
        vertices = np.concatenate([inner, self.outer])
        near = (self.head.middle[2] - vertices[:, 2:]) / self.head.width
        share = np.concatenate([np.ones((len(inner), 1)), self._of_head])
        order = np.argsort(-vertices[self._triangles, 2].mean(1), kind="stable")
        field = np.zeros((grid, grid, 2), np.float32)
        add_interpolated(
            field,
            vertices[:, :2] * np.float32(grid / side),
            self._triangles[order].astype(np.int32),
            np.hstack([near, share]).astype(np.float32),
        )
        return field

    def only(self, shown: NDArray[np.bool_]) -> HeadSheet:
        """The same sheet, less what lies wholly outside of `shown` (H, W): quicker to lay out."""
        reach = np.ones((2 * round(STEP * self.head.width) + 1,) * 2, np.uint8)
        near = cv2.dilate(np.uint8(shown), reach) > 0
        lips = self.points[[low for _, low in topology.INNER_LIPS]]
        vertices = np.concatenate([self.points, lips, self.outer])
        kept = near[cells(vertices[:, :2], near.shape)][self._triangles].any(1)
        part = copy(self)
        part._triangles, part._is_around = self._triangles[kept], self._is_around[kept]
        return part

    # ------------------------------------------------------------------ a frame

    def motion(self, driven: Points) -> Motion:
        """The head's own, for driven landmarks (478, 3)."""
        return _steady_similarity(self.points[self._skull], driven[self._skull])

    def placed(self, driven: Points, motion: Motion) -> Points:
        """Where the outer vertices (V, 3) are for driven landmarks (478, 3) and their `motion`."""
        rotation, scale, shift = motion
        outwards = np.clip(self._outwards @ rotation[:2, 2] / OUTWARDS, 0, 1)
        outer = self.outer.copy()
        outer[:, 2] += outwards * self._deeper
        turned = scale * outer @ rotation.T + shift
        residual = driven[self._oval] - (scale * self.points[self._oval] @ rotation.T + shift)
        place = self.outer + self._of_head * (turned - self.outer) + self._spread @ residual
        place[:, 2:] += BEHIND * self.head.width * (1 - self._of_head)
        return place.astype(np.float32)

    def layout(self, driven: Points, *, side: float, grid: int) -> Layout:
        """Where all is for driven landmarks (478, 3); the window measures `side` pixels."""
        driven = np.asarray(driven, np.float32)
        motion = self.motion(driven)
        pairs = np.array(topology.INNER_LIPS)
        source_ends, driven_ends = unstretched_mouth(self.points, driven, pairs)
        ends = np.column_stack([driven_ends, driven[pairs[:, 0], 2]])
        vertices = np.concatenate([driven, ends, self.placed(driven, motion)]).astype(np.float32)
        face = np.concatenate([self._rim.places(motion[0]), source_ends])
        source = np.concatenate([self.points[:, :2], source_ends, self.outer[:, :2]])
        # Larger z is farther: painted first.
        order = np.argsort(-vertices[self._triangles, 2].mean(1), kind="stable")
        corners = self._triangles[order].ravel()
        # Vertices of the oval serve both parts; so each triangle has its own three.
        around = np.repeat(self._is_around[order], 3)
        places = source[corners]
        inner = around == 0
        places[inner] = face[corners[inner]]
        values = np.column_stack([places, np.ones(len(corners)), around])
        field = np.zeros((grid, grid, 4), np.float32)
        add_interpolated(
            field,
            vertices[corners, :2] * np.float32(grid / side),
            np.arange(len(corners), dtype=np.int32).reshape(-1, 3),
            values.astype(np.float32),
        )
        left, right = topology.INNER_MOUTH_CORNERS
        gap = np.concatenate(
            [driven[[left], :2], driven_ends, driven[[right], :2], driven[pairs[::-1, 1], :2]]
        )
        x, y, cover, around = cv2.split(field)
        return Layout(
            place=cv2.merge([x, y]),
            cover=cover,
            around=around,
            gap=gap.astype(np.float32),
        )


def face_outside_oval(
    points: Points, shape: tuple[int, int], width: float
) -> NDArray[np.float32] | None:
    """Where (H, W) a turned source shows its face beyond the oval of its mesh: nose, eye, cheek.

    The sheet around the face must not carry a second copy of them. `None` if it shows nothing.
    """
    mesh, oval = np.zeros((2, *shape), np.uint8)
    for face in points[topology.triangles(), :2]:
        cv2.fillConvexPoly(mesh, np.rint(face - 0.5).astype(np.int32), 1)
    ring = points[topology.ring("face_oval"), :2]
    cv2.fillPoly(oval, [np.rint(ring - 0.5).astype(np.int32)], 1)
    reach = max(1, round(0.015 * width))

    def disc(times: int) -> NDArray[np.uint8]:
        return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * times * reach + 1,) * 2)

    beyond = cv2.morphologyEx(mesh & (1 - cv2.dilate(oval, disc(1))), cv2.MORPH_OPEN, disc(1))
    if not beyond.any():
        return None
    # with the silhouette's soft edge, which lies just outside the mesh
    wider = cv2.dilate(beyond, disc(4)) & (1 - oval)
    return cv2.GaussianBlur(wider.astype(np.float32), (0, 0), 0.5 * reach)


def skull_points(points: Points) -> NDArray[np.int64]:
    """Which landmarks hold still in the skull: upper face and nose; no jaw, lids, lips, irises."""
    head = HeadFrame.of(points)
    still = (points - head.middle) @ head.axes[1] > -0.05 * head.width
    still[topology.MESH_POINTS :] = False
    for name in ("left_eye", "right_eye"):
        still[topology.ring(name)] = False
    return np.flatnonzero(still)


def _steady_similarity(before: Points, after: Points) -> Motion:
    """(R, s, t) with after ≈ s R before + t for points (N, 3), small turns damped.

    Landmarks tell depth badly: a head that hardly turns would be seen to wobble.
    """
    damped = _turn(before, after)
    away = float(np.hypot(damped[0], damped[1]))
    damped[:2] *= away**2 / (away**2 + LEAST_TURN**2)
    rotation, _ = cv2.Rodrigues(damped)
    # Size, roll and place follow from the picture alone, which is seen far better than depth.
    turned = before @ rotation.T
    a, b = turned[:, :2] - turned[:, :2].mean(0), after[:, :2] - after[:, :2].mean(0)
    spin = complex((a[:, 0] + 1j * a[:, 1]).conj() @ (b[:, 0] + 1j * b[:, 1])) / (a * a).sum()
    scale = abs(spin)
    c, s = spin.real / scale, spin.imag / scale
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ rotation
    shift = after.mean(0) - scale * rotation @ before.mean(0)
    return rotation, scale, shift


def turned_away(before: Points, after: Points) -> float:
    """By which angle in radians a head turned between points (N, 3) of its skull; not in the
    picture's plane, where it stays as it is seen."""
    turn = _turn(before, after)
    return float(np.hypot(turn[0], turn[1]))


def _turn(before: Points, after: Points) -> NDArray[np.float64]:
    """The rotation vector (3,) of the best similarity between points (N, 3)."""
    x, y = before - before.mean(0), after - after.mean(0)
    u, _, vt = np.linalg.svd(y.T.astype(np.float64) @ x)
    turn, _ = cv2.Rodrigues((u * (1, 1, np.sign(np.linalg.det(u @ vt)))) @ vt)
    return turn[:, 0]


def _unit(v: Points) -> Points:
    return v / max(float(np.linalg.norm(v)), 1e-6)
